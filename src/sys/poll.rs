//! Waiting for several things at once: epoll(7), its one timer (timerfd_create(2)), and the
//! counter that wakes across processes (eventfd(2)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{SysError, check};
use crate::time::Instant;

/// What readiness is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or the other end gone.
    Read,
    /// A change reported as an exceptional condition (cgroup.events).
    Change,
    /// Something to read, said once (a pidfd, which stays readable for ever).
    Once,
}

/// Things that became ready in one wait.
pub const READY_COUNT_MAX: usize = 64;

/// A set of descriptors, each with a token that says whose it is.
pub struct Poller {
    epoll: Epoll,
    timer: OwnedFd,
    armed: Option<Instant>,
}

/// The timer's token.
pub const TIMER: u64 = u64::MAX;

impl Poller {
    /// An empty set with its timer.
    pub fn new() -> Result<Self, SysError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(SysError::of("epoll_create1"))?;
        // SAFETY: constants in, a descriptor of our own out.
        let timer = unsafe {
            let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
            OwnedFd::from_raw_fd(check("timerfd_create", libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))?)
        };
        let poller = Poller { epoll, timer, armed: None };
        poller.add(poller.timer.as_fd(), TIMER, Interest::Read)?;
        Ok(poller)
    }

    /// Adds a descriptor.
    pub fn add(&self, descriptor: BorrowedFd, token: u64, interest: Interest) -> Result<(), SysError> {
        let flags = match interest {
            Interest::Read => EpollFlags::EPOLLIN,
            Interest::Change => EpollFlags::EPOLLPRI | EpollFlags::EPOLLET,
            Interest::Once => EpollFlags::EPOLLIN | EpollFlags::EPOLLET,
        };
        self.epoll.add(descriptor, EpollEvent::new(flags, token)).map_err(SysError::of("epoll_ctl"))
    }

    /// Removes a descriptor.
    pub fn remove(&self, descriptor: BorrowedFd) {
        // Only fails for what is not there.
        let _ = self.epoll.delete(descriptor);
    }

    /// Arms the timer for this point in time, or disarms it. One that has passed fires at once.
    pub fn arm(&mut self, deadline: Option<Instant>) -> Result<(), SysError> {
        if self.armed == deadline {
            return Ok(());
        }
        // Zero would disarm; the earliest time that does not is one nanosecond.
        let nanos = deadline.map_or(0, |at| at.0.clamp(1, i64::MAX as u64));
        let spec = libc::itimerspec { it_interval: super::timespec(0), it_value: super::timespec(nanos) };
        // SAFETY: a valid itimerspec; the old value is not asked for.
        let result = unsafe {
            libc::timerfd_settime(
                self.timer.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &spec,
                std::ptr::null_mut(),
            )
        };
        check("timerfd_settime", result)?;
        self.armed = deadline;
        Ok(())
    }

    /// Waits until something is ready (or not at all), and returns the tokens.
    pub fn wait(&mut self, block: bool) -> heapless::Vec<u64, READY_COUNT_MAX> {
        let mut events = [EpollEvent::empty(); READY_COUNT_MAX];
        let timeout = if block { EpollTimeout::NONE } else { EpollTimeout::ZERO };
        let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        let tokens =
            events[..count].iter().map(|event| event.data()).collect::<heapless::Vec<u64, READY_COUNT_MAX>>();
        if tokens.contains(&TIMER) {
            take_count(self.timer.as_fd());
            self.armed = None;
        }
        tokens
    }
}

/// A counter that wakes whoever polls it.
pub fn event_counter() -> Result<OwnedFd, SysError> {
    // SAFETY: constants in, a descriptor of our own out.
    unsafe {
        let number = check("eventfd", libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// Adds one to a counter.
pub fn wake(counter: BorrowedFd) {
    // Only fails when the counter is at its end, and then its reader is awake.
    let _ = nix::unistd::write(counter, &1_u64.to_ne_bytes());
}

/// Empties a counter or a timer.
pub fn take_count(counter: BorrowedFd) {
    // Nothing to take is no error.
    let _ = nix::unistd::read(counter, &mut [0; 8]);
}

/// A kept descriptor, borrowed for as long as it is kept.
pub fn borrow(number: i32) -> BorrowedFd<'static> {
    // SAFETY: kept descriptors are closed only by the page that keeps them, when their owner lets
    // go of them; a borrow of a number closed since reports EBADF, it touches no memory.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Waits until a descriptor is readable, at most so many milliseconds; for jobs, not for the loop.
pub fn wait_readable(descriptor: BorrowedFd, timeout_ms: Option<u16>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(descriptor, PollFlags::POLLIN)];
    poll(&mut fds, timeout_ms.map_or(PollTimeout::NONE, PollTimeout::from)).is_ok_and(|count| count > 0)
}

//! Waiting for several things at once: epoll(7), its one timer (timerfd_create(2)), and the
//! counter that wakes across processes (eventfd(2)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

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
    /// The same of a counter that nobody empties: each time it is counted up ([`wake_all`]).
    Count,
    /// Something to read, or room to write (a connection that was just made), each said once when it comes.
    Edges,
    /// Something to read, said once until it is asked for again: [`Poller::again`].
    OneShot,
}

/// Things that became ready in one wait.
pub const READY_COUNT_MAX: usize = 64;

/// A set of descriptors, each with a token that says whose it is.
pub struct Poller {
    epoll: Epoll,
    timer: TimerFd,
    armed: Option<Instant>,
}

const ONE_SHOT: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLONESHOT);

/// The timer's token.
pub const TIMER: u64 = u64::MAX;

impl Poller {
    /// An empty set with its timer.
    pub fn new() -> Result<Self, SysError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(SysError::of("epoll_create1"))?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(SysError::of("timerfd_create"))?;
        let poller = Poller { epoll, timer, armed: None };
        poller.add(poller.timer.as_fd(), TIMER, Interest::Read)?;
        Ok(poller)
    }

    /// Adds a descriptor.
    pub fn add(&self, descriptor: BorrowedFd, token: u64, interest: Interest) -> Result<(), SysError> {
        let flags = match interest {
            Interest::Read => EpollFlags::EPOLLIN,
            Interest::Change => EpollFlags::EPOLLPRI | EpollFlags::EPOLLET,
            Interest::Once | Interest::Count => EpollFlags::EPOLLIN | EpollFlags::EPOLLET,
            Interest::Edges => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET,
            Interest::OneShot => ONE_SHOT,
        };
        self.epoll.add(descriptor, EpollEvent::new(flags, token)).map_err(SysError::of("epoll_ctl"))
    }

    /// Asks once more of one that was added with [`Interest::OneShot`].
    pub fn again(&self, descriptor: BorrowedFd, token: u64) {
        // Only fails for what is not there.
        let _ = self.epoll.modify(descriptor, &mut EpollEvent::new(ONE_SHOT, token));
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
        let set = match deadline {
            // Zero would disarm; the earliest time that does not is one nanosecond.
            Some(at) => {
                let at = super::clock::time_spec(at.0.max(1));
                self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
            None => self.timer.unset(),
        };
        set.map_err(SysError::of("timerfd_settime"))?;
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

/// A set of descriptors that several processes share; it can be waited for as a whole.
pub fn set() -> Result<OwnedFd, SysError> {
    // SAFETY: a constant in, a descriptor of our own out.
    unsafe { Ok(OwnedFd::from_raw_fd(check("epoll_create1", libc::epoll_create1(libc::EPOLL_CLOEXEC))?)) }
}

/// Adds a descriptor to a set, to be told by this number while there is something to read; one that is there is
/// no error.
pub fn add_to(set: BorrowedFd, descriptor: BorrowedFd, number: u64) {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number };
    // SAFETY: descriptors and a valid event.
    unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor.as_raw_fd(), &mut event) };
}

/// Takes it out again, before it is closed: others may have it open, and then it would stay in the set.
pub fn remove_from(set: BorrowedFd, descriptor: BorrowedFd) {
    let nothing = core::ptr::null_mut();
    // SAFETY: descriptors; no event is needed.
    unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_DEL, descriptor.as_raw_fd(), nothing) };
}

/// The numbers of those in a set that have something to read now.
pub fn ready_in(set: BorrowedFd) -> heapless::Vec<u64, READY_COUNT_MAX> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; READY_COUNT_MAX];
    // SAFETY: room for as many events as said; does not wait.
    let count =
        unsafe { libc::epoll_wait(set.as_raw_fd(), events.as_mut_ptr(), READY_COUNT_MAX as libc::c_int, 0) };
    events.iter().take(count.max(0) as usize).map(|event| event.u64).collect()
}

/// Whether a pipe takes no more: who writes to it waits.
pub fn is_full(pipe: BorrowedFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    poll(&mut [PollFd::new(pipe, PollFlags::POLLOUT)], PollTimeout::ZERO) == Ok(0)
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

/// Adds one to a counter that nobody empties: whoever waits for it ([`Interest::Count`]) wakes up.
pub fn wake_all(counter: BorrowedFd) {
    if nix::unistd::write(counter, &1_u64.to_ne_bytes()).is_err() {
        // At its end, where only somebody who means no good can have brought it.
        take_count(counter);
        wake(counter);
    }
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

//! How a check says what it found: by a word to the runner and the end of its process, or of whichever of
//! its processes found it. So what follows a failure is never run, and no error is carried anywhere.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use crate::sys::{SysError, clock, describe, file, poll, process, signal};
use crate::time::{Instant, Millis};

use super::MOMENT_MS;

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// All is as it should be.
    Ok,
    /// It is not here.
    Absent,
    /// It is here, and does not do what it should.
    Failed,
    /// Nobody wanted to know.
    LeftOut,
    /// The kernel refused a call: for something helpful that means it is not here.
    Refused,
    /// Somebody wants us to end.
    Interrupted,
}

/// The runner's pipe, in the process that makes a check and in what it forks.
static RUNNER: AtomicI32 = AtomicI32::new(-1);

/// From now on words go there.
pub fn tell_by(pipe: &OwnedFd) {
    RUNNER.store(pipe.as_raw_fd(), Relaxed);
}

/// Tells the runner and ends this process. The runner believes the first that speaks.
pub fn tell(verdict: Verdict, words: &str) -> ! {
    // One line in one write: it is shorter than what a pipe takes at once.
    let line = [&[verdict as u8], words.as_bytes(), b"\n"].concat();
    let _ = file::append(poll::borrow(RUNNER.load(Relaxed)), &line);
    process::end(0)
}

/// The kernel refused.
#[cold]
pub fn refused(error: &SysError) -> ! {
    tell(Verdict::Refused, &in_words(error))
}

/// The same words as everywhere, and the number, for whoever looks it up.
pub fn in_words(error: &SysError) -> String {
    [error.operation, ": ", describe(error.errno), " (errno ", &error.errno.to_string(), ")"].concat()
}

/// It is so, or the check has failed.
#[inline]
pub fn must(is_so: bool, otherwise: &'static str) {
    if !is_so {
        tell(Verdict::Failed, otherwise)
    }
}

/// What the kernel gave, if it did.
#[inline]
pub fn got<T>(result: Result<T, SysError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => refused(&error),
    }
}

/// As fork(2): 0 in the copy.
pub fn fork() -> u32 {
    got(process::fork()).unwrap_or(0)
}

/// What a process does that is there to be killed: it waits, and ends by itself in the end, should
/// everybody who knows of it be gone.
pub fn linger() -> ! {
    file::pause(3 * MOMENT_MS);
    process::end(0)
}

/// When something is over that is not going to be.
pub fn soon() -> Instant {
    clock::now() + Millis(MOMENT_MS.into())
}

/// Something is there to be read, or comes in a moment.
pub fn is_readable(descriptor: BorrowedFd) -> bool {
    poll::wait_readable(descriptor, Some(MOMENT_MS))
}

/// What [`ends`] has of a child that was killed.
pub const KILLED: i32 = 0x100 + libc::SIGKILL;

/// The ends of so many of our children, added up: exit codes, signals from 0x101 on. Less than zero: they
/// were not told to us.
pub fn ends(mut count: i32) -> i32 {
    let (mut sum, until) = (0, soon());
    loop {
        while let Some((pid, signalled, value)) = process::next_ended() {
            process::reap(pid);
            sum += i32::from(value) + if signalled { 0x100 } else { 0 };
            count -= 1;
        }
        if count <= 0 {
            return sum;
        }
        if clock::now() >= until {
            return -1;
        }
        // Returns at an exit where SIGCHLD is told; else the next look finds it.
        signal::wait(Some(clock::now() + Millis(20)));
    }
}

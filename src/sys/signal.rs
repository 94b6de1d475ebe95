//! Signals as values: blocked for good, then taken one at a time (sigtimedwait(2)).

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{SysError, check};
use crate::time::{Instant, Millis};

/// What the guard waits for.
const GUARD_SIGNALS: [Signal; 7] = [
    Signal::SIGCHLD,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

fn guard_set() -> SigSet {
    GUARD_SIGNALS.into_iter().collect()
}

/// Blocks the guard's signals; they stay pending until [`wait`] takes them. The supervisor
/// inherits the block and so is deaf to them: they are addressed to the guard.
///
/// What our starter had ignored (nohup(1) and the like) is default again: an ignored SIGCHLD would
/// lose exits, and programs would inherit it. But for [`IGNORED`].
pub fn block() -> Result<(), SysError> {
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&guard_set()), None).map_err(SysError::of("sigprocmask"))?;
    // SAFETY: SIG_DFL and SIG_IGN install no code; signals that cannot be changed report an error,
    // which we expect.
    unsafe {
        for number in 1..=64 {
            libc::signal(number, libc::SIG_DFL);
        }
        for number in IGNORED {
            libc::signal(number, libc::SIG_IGN);
        }
    }
    Ok(())
}

/// Ignored by guard and supervisor. SIGPIPE: a peer that went away is an error code. SIGABRT: the C
/// library's abort() in a process made by a bare clone may address the thread id it remembers,
/// which is its parent's.
const IGNORED: [libc::c_int; 2] = [libc::SIGPIPE, libc::SIGABRT];

/// In a child, before its program: every disposition default, nothing blocked, as a program that a
/// shell starts finds it. (Handlers are reset by the exec itself.)
pub fn unblock_and_reset() {
    // SAFETY: SIG_DFL installs no code; `empty` is initialised by sigemptyset.
    unsafe {
        for number in IGNORED {
            libc::signal(number, libc::SIG_DFL);
        }
        let mut empty = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &empty, std::ptr::null_mut());
    }
}

/// Takes the next of the guard's signals; `None` when `until` comes first.
pub fn wait(until: Option<Instant>) -> Option<Signal> {
    let set = guard_set();
    let timeout = until.map(|until| {
        let left = until.since(super::clock::now()) + Millis(1);
        super::clock::time_spec(left.as_nanos())
    });
    let timeout = timeout.as_ref().map_or(core::ptr::null(), |timeout| core::ptr::from_ref(timeout.as_ref()));
    // SAFETY: the set and the timeout (null or valid) outlive the call; no siginfo is asked for.
    let number = unsafe { libc::sigtimedwait(set.as_ref(), core::ptr::null_mut(), timeout) };
    Signal::try_from(check("sigtimedwait", number).ok()?).ok()
}

/// What asks a process to end: SIGTERM.
pub const END: i32 = libc::SIGTERM;

/// What ends a process at once: SIGKILL.
pub const KILL: i32 = libc::SIGKILL;

/// Calls a bundled child to look at what is wanted of it: SIGURG, which does nothing to a process that does not
/// listen yet.
pub const CALL: i32 = libc::SIGURG;

/// Blocks [`END`] and [`CALL`], so that [`TermSignal`] and [`CallSignal`] have them, and ignores SIGPIPE.
pub fn block_end() -> Result<(), SysError> {
    let set: SigSet = [Signal::SIGTERM, Signal::SIGURG].into_iter().collect();
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(SysError::of("sigprocmask"))
}

/// Whether a signal that [`wait`] took asks this process to end.
pub fn is_order_to_end(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP)
}

/// SIGTERM as something to poll, for jobs: it is blocked in whatever the supervisor forks.
pub struct TermSignal(SignalFd);

impl TermSignal {
    /// Receives the SIGTERMs of this process from now on.
    pub fn new() -> Result<Self, SysError> {
        receive(Signal::SIGTERM).map(TermSignal)
    }
}

fn receive(signal: Signal) -> Result<SignalFd, SysError> {
    let set: SigSet = [signal].into_iter().collect();
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(SysError::of("signalfd"))
}

/// The guard's signals as something to poll, for who stands for it. They are blocked: see [`block`].
pub struct GuardSignals(SignalFd);

impl GuardSignals {
    /// Receives the signals of this process from now on.
    pub fn new() -> Result<Self, SysError> {
        SignalFd::with_flags(&guard_set(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map(GuardSignals)
            .map_err(SysError::of("signalfd"))
    }

    /// The next one; `None`: none waits.
    pub fn next(&self) -> Option<Signal> {
        Signal::try_from(self.0.read_signal().ok()??.ssi_signo as i32).ok()
    }
}

impl std::os::fd::AsFd for GuardSignals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// [`CALL`] as something to poll.
pub struct CallSignal(SignalFd);

impl CallSignal {
    /// Receives the calls of this process from now on.
    pub fn new() -> Result<Self, SysError> {
        receive(Signal::SIGURG).map(CallSignal)
    }

    /// It was heard.
    pub fn take(&self) {
        let _ = self.0.read_signal();
    }
}

impl std::os::fd::AsFd for CallSignal {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsFd for TermSignal {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

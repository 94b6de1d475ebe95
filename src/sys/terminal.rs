//! What a command that draws on a terminal asks the kernel: how wide it is, and to be told of
//! Ctrl-C instead of being killed half-way through a frame. Draws nothing.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::control_client::{Client, Trouble, wait_readable};
use crate::time::Instant;

/// Whether standard output is a terminal.
pub fn is_output() -> bool {
    // SAFETY: asks about a number, whatever is behind it.
    unsafe { libc::isatty(libc::STDOUT_FILENO) == 1 }
}

/// Columns and rows of the terminal that standard output is; none if it is no terminal, or does not
/// say (a serial console knows no size).
pub fn size() -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, and `size` is one that lives across the call.
    let done = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
    (done == 0 && size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The connection has something to read.
    Packet,
    /// The user wants out.
    Interrupted,
    /// The window has another size.
    Resized,
    /// The time has come.
    Deadline,
}

/// Signals as something to read. While it exists, Ctrl-C does not kill.
#[derive(Debug)]
pub struct Interrupts {
    signals: SignalFd,
    blocked: SigSet,
}

impl Interrupts {
    /// Takes the signals that end or resize an interactive command.
    pub fn take() -> Result<Interrupts, Errno> {
        let mut blocked = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGWINCH] {
            blocked.add(signal);
        }
        blocked.thread_block()?;
        let signals = SignalFd::with_flags(&blocked, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Interrupts { signals, blocked })
    }

    /// Waits for a packet, a signal or the deadline.
    pub fn wait(&self, client: &Client, deadline: Instant) -> Result<Woken, Trouble> {
        let mut files = [
            PollFd::new(client.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        if !wait_readable(&mut files, deadline)? {
            return Ok(Woken::Deadline);
        }
        match self.signals.read_signal() {
            Ok(Some(signal)) if signal.ssi_signo == Signal::SIGWINCH as u32 => Ok(Woken::Resized),
            Ok(Some(_)) => Ok(Woken::Interrupted),
            Ok(None) | Err(_) => Ok(Woken::Packet),
        }
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // Cannot fail for a set that could be blocked; if it did, the process ends soon anyway.
        let _ = self.blocked.thread_unblock();
    }
}

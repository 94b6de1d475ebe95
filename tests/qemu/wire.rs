//! One line to QEMU: a socket whose other end QEMU is born with. Nothing has to be found, waited for or
//! removed, and both sides see when the other is gone.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Our end, and what has arrived at it.
pub struct Wire {
    stream: UnixStream,
    pub arrived: Vec<u8>,
    /// QEMU has closed its end: it is dead, or about to be.
    pub ended: bool,
}

impl Wire {
    /// Our end and QEMU's.
    pub fn pair() -> (Wire, OwnedFd) {
        let (ours, its) = UnixStream::pair().expect("a pair of sockets");
        ours.set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        (Wire { stream: ours, arrived: Vec::new(), ended: false }, its.into())
    }

    /// Sends; to a dead QEMU nothing can be said, which the next reading finds out.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Takes the next whole line out of what has arrived, without its end.
    pub fn line(&mut self) -> Option<String> {
        let end = self.arrived.iter().position(|&byte| byte == b'\n')?;
        let line: Vec<u8> = self.arrived.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end().into())
    }

    fn read(&mut self) {
        let mut bytes = [0; 65536];
        match self.stream.read(&mut bytes) {
            Ok(0) | Err(_) => self.ended = true,
            Ok(length) => self.arrived.extend_from_slice(&bytes[..length]),
        }
    }
}

/// Waits until something arrives on one of these, and takes it in; whether anything did.
pub fn listen(wires: &mut [&mut Wire], at_most: Duration) -> bool {
    let mut open: Vec<&mut &mut Wire> = wires.iter_mut().filter(|wire| !wire.ended).collect();
    let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
    let ready: Vec<bool> = {
        let mut fds: Vec<PollFd> =
            open.iter().map(|wire| PollFd::new(wire.stream.as_fd(), PollFlags::POLLIN)).collect();
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, timeout);
        fds.iter().map(|fd| fd.any().unwrap_or(false)).collect()
    };
    for (wire, _) in open.iter_mut().zip(&ready).filter(|(_, ready)| **ready) {
        wire.read();
    }
    ready.contains(&true)
}

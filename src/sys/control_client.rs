//! The client's end of the control socket: packets out, packets in, nothing waited for for ever.
//! Knows no message; what the bytes mean is `protocol`'s business.
#![allow(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr};
use nix::sys::time::{TimeVal, TimeValLike};

use super::clock::now;
use crate::time::{Instant, Millis};

/// Why a packet did not go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens there.
    NoDaemon(Errno),
    /// Somebody may listen there, but not to us.
    NotAllowed(Errno),
    /// The deadline came first.
    TimedOut,
    /// The other end is gone.
    Closed,
    /// The kernel would not.
    Failed(Errno),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

impl Client {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path, deadline: Instant) -> Result<Client, Trouble> {
        let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
            .map_err(Trouble::Failed)?;
        let client = Client { socket };
        client.bound_sending(deadline)?;
        let address = UnixAddr::new(path).map_err(Trouble::NoDaemon)?;
        match socket::connect(client.socket.as_raw_fd(), &address) {
            Ok(()) => Ok(client),
            Err(Errno::EACCES) => Err(Trouble::NotAllowed(Errno::EACCES)),
            Err(Errno::EPERM) => Err(Trouble::NotAllowed(Errno::EPERM)),
            // A full backlog that stayed full: somebody listens, but does not accept.
            Err(Errno::EAGAIN | Errno::EINTR) => Err(Trouble::TimedOut),
            Err(errno) => Err(Trouble::NoDaemon(errno)),
        }
    }

    /// Sends one packet.
    pub fn send(&self, packet: &[u8], deadline: Instant) -> Result<(), Trouble> {
        loop {
            self.bound_sending(deadline)?;
            let sent = socket::sendmsg::<UnixAddr>(
                self.socket.as_raw_fd(),
                &[IoSlice::new(packet)],
                &[],
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            return match sent {
                Ok(_) => Ok(()),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => Err(Trouble::TimedOut),
                // The other end may have said why before it closed: receiving finds out.
                Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
                Err(errno) => Err(Trouble::Failed(errno)),
            };
        }
    }

    /// Receives one packet; the slice returned is the packet.
    pub fn receive<'b>(&self, buffer: &'b mut [u8], deadline: Instant) -> Result<&'b [u8], Trouble> {
        let mut was_reset = false;
        let length = loop {
            match socket::recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                // An empty packet does not exist in the protocol: nothing means the end.
                Ok(0) => return Err(Trouble::Closed),
                // Closed without reading what we sent: reported once, before what was said until then.
                Err(Errno::ECONNRESET) if !was_reset => was_reset = true,
                Err(Errno::ECONNRESET) => return Err(Trouble::Closed),
                Ok(length) => break length,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if !wait_readable(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], deadline)? {
                        return Err(Trouble::TimedOut);
                    }
                }
                Err(errno) => return Err(Trouble::Failed(errno)),
            }
        };
        Ok(&buffer[..length])
    }

    /// Receives one packet, and two descriptors that came along; `None` in their place: they did not.
    pub fn receive_with<'b>(
        &self,
        buffer: &'b mut [u8],
        deadline: Instant,
    ) -> Result<(&'b [u8], Option<[OwnedFd; 2]>), Trouble> {
        if !wait_readable(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], deadline)? {
            return Err(Trouble::TimedOut);
        }
        let mut room = nix::cmsg_space!([RawFd; 2]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(buffer)];
        let message =
            match socket::recvmsg::<UnixAddr>(self.socket.as_raw_fd(), &mut parts, Some(&mut room), flags) {
                Ok(message) => message,
                Err(Errno::ECONNRESET) => return Err(Trouble::Closed),
                Err(errno) => return Err(Trouble::Failed(errno)),
            };
        let mut along = heapless::Vec::<OwnedFd, 2>::new();
        for part in message.cmsgs().map_err(Trouble::Failed)? {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                // SAFETY: the kernel has just made them for us.
                along.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        match message.bytes {
            0 => Err(Trouble::Closed),
            length => Ok((&buffer[..length], along.into_array().ok())),
        }
    }

    /// Connecting and sending are the two calls that `poll` cannot bound, so the socket does.
    fn bound_sending(&self, deadline: Instant) -> Result<(), Trouble> {
        // Zero would mean "for ever" to the kernel.
        let left = deadline.since(now()).0.clamp(1, i32::MAX as u64);
        socket::setsockopt(&self.socket, socket::sockopt::SendTimeout, &TimeVal::milliseconds(left as i64))
            .map_err(Trouble::Failed)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until one of them has something to read (or its other end is gone), or the deadline has
/// come: false.
pub(super) fn wait_readable(files: &mut [PollFd<'_>], deadline: Instant) -> Result<bool, Trouble> {
    loop {
        // Rounded up: rounded down, the last millisecond would be spent spinning.
        let left = deadline.since(now() - Millis(1)).0.min(i32::MAX as u64) as i32;
        let left = if deadline <= now() { 0 } else { left };
        match poll(files, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) {
            Ok(0) if deadline <= now() => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(Trouble::Failed(errno)),
        }
    }
}

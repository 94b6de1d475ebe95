//! TCP for children that serve others on the network (tcp(7), ip(7), ipv6(7)): nothing here waits. Addresses are those of IP
//! version 6; one of version 4 is written as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrIn6, accept4, bind, getpeername, recv,
    send, sendto, setsockopt, socket, sockopt,
};

use super::SysError;

/// An address as people write it, of either version.
pub fn address(text: &str) -> Option<Ipv6Addr> {
    match text.parse::<Ipv4Addr>() {
        Ok(four) => Some(four.to_ipv6_mapped()),
        Err(_) => text.parse().ok(),
    }
}

fn bound(kind: SockType, at: Ipv6Addr, port: u16) -> Result<OwnedFd, SysError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet6, kind, flags, None).map_err(SysError::of("socket"))?;
    if kind == SockType::Stream {
        // A port whose last connections are just being forgotten is taken again.
        setsockopt(&socket, sockopt::ReuseAddr, &true).map_err(SysError::of("setsockopt"))?;
    }
    setsockopt(&socket, sockopt::Ipv6V6Only, &false).map_err(SysError::of("setsockopt"))?;
    bind(socket.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(at, port, 0, 0)))
        .map_err(SysError::of("bind"))?;
    Ok(socket)
}

/// Listens at an address; `::` is every one of both versions.
pub fn listen(at: Ipv6Addr, port: u16) -> Result<OwnedFd, SysError> {
    let listener = bound(SockType::Stream, at, port)?;
    nix::sys::socket::listen(&listener, Backlog::new(64).map_err(SysError::of("listen"))?)
        .map_err(SysError::of("listen"))?;
    Ok(listener)
}

/// The next connection, and who it is from; none: there is none now, or it is gone again.
pub fn accept(listener: &OwnedFd) -> Option<(Stream, Ipv6Addr)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let number = accept4(listener.as_raw_fd(), flags).ok()?;
    // SAFETY: just made, and nobody else's.
    let connection = unsafe { OwnedFd::from_raw_fd(number) };
    let peer = getpeername::<SockaddrIn6>(connection.as_raw_fd()).ok()?;
    // Answers are small, and waited for.
    let _ = setsockopt(&connection, sockopt::TcpNoDelay, &true);
    Some((Stream(connection), peer.ip()))
}

/// Begins a connection; whether it is made is known when it can be written to ([`connected`]).
pub fn connect(to: Ipv6Addr, port: u16) -> Result<Stream, SysError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket =
        socket(AddressFamily::Inet6, SockType::Stream, flags, None).map_err(SysError::of("socket"))?;
    let _ = setsockopt(&socket, sockopt::TcpNoDelay, &true);
    let to = SockaddrIn6::from(SocketAddrV6::new(to, port, 0, 0));
    match nix::sys::socket::connect(socket.as_raw_fd(), &to) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(Stream(socket)),
        Err(errno) => Err(SysError::of("connect")(errno)),
    }
}

/// Whether it was made.
pub fn connected(socket: std::os::fd::BorrowedFd) -> bool {
    getpeername::<SockaddrIn6>(socket.as_raw_fd()).is_ok()
}

/// Datagrams (udp(7)) that are sent and received at one port.
pub struct Datagrams(OwnedFd);

impl AsFd for Datagrams {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Datagrams {
    /// At an address; `::` is every one of both versions.
    pub fn open(at: Ipv6Addr, port: u16) -> Result<Datagrams, SysError> {
        Ok(Datagrams(bound(SockType::Datagram, at, port)?))
    }

    /// Takes one, and says how long it was: longer than the buffer, it is cut off. None: there is none now. What the
    /// network reports of those that were sent is nobody's concern here.
    pub fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => return Some(length),
                Err(Errno::EAGAIN) => return None,
                // Each is said once.
                Err(Errno::EINTR | Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {}
                Err(_) => return None,
            }
        }
    }

    /// Sends one, or not: nothing is waited for, and nobody could say that it arrives.
    pub fn send(&self, to: Ipv6Addr, port: u16, bytes: &[u8]) {
        let to = SockaddrIn6::from(SocketAddrV6::new(to, port, 0, 0));
        let _ = sendto(self.0.as_raw_fd(), bytes, &to, MsgFlags::MSG_DONTWAIT);
    }
}

/// A connection, by the traits of embedded-io; `Interrupted`: nothing has come, `WriteZero`: nothing more is taken now.
pub struct Stream(OwnedFd);

impl AsFd for Stream {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl embedded_io::ErrorType for Stream {
    type Error = embedded_io::ErrorKind;
}

fn kind(errno: Errno, waits: embedded_io::ErrorKind) -> embedded_io::ErrorKind {
    match errno {
        Errno::EAGAIN | Errno::EINTR => waits,
        _ => embedded_io::ErrorKind::ConnectionReset,
    }
}

impl embedded_io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, embedded_io::ErrorKind> {
        recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)
            .map_err(|errno| kind(errno, embedded_io::ErrorKind::Interrupted))
    }
}

impl embedded_io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, embedded_io::ErrorKind> {
        send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
            .map_err(|errno| kind(errno, embedded_io::ErrorKind::WriteZero))
    }
    fn flush(&mut self) -> Result<(), embedded_io::ErrorKind> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_versions_are_one_kind() {
        assert_eq!(address("192.168.1.2"), address("::ffff:192.168.1.2"));
        assert_eq!(address("::"), Some(Ipv6Addr::UNSPECIFIED));
        for wrong in ["", "a", "1.2.3", "1.2.3.4.5", "fe80::1%eth0", "::1/64"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }
}

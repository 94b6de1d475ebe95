//! TCP for children that serve others on the network (tcp(7), ip(7), ipv6(7)): nothing here waits. Addresses are those of IP
//! version 6; one of version 4 is written as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrIn6, accept4, bind, getpeername, recv,
    send, setsockopt, socket, sockopt,
};

use super::SysError;

/// An address as people write it, of either version.
pub fn address(text: &str) -> Option<Ipv6Addr> {
    match text.parse::<Ipv4Addr>() {
        Ok(four) => Some(four.to_ipv6_mapped()),
        Err(_) => text.parse().ok(),
    }
}

/// Listens at an address; `::` is every one of both versions.
pub fn listen(at: Ipv6Addr, port: u16) -> Result<OwnedFd, SysError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener =
        socket(AddressFamily::Inet6, SockType::Stream, flags, None).map_err(SysError::of("socket"))?;
    // A port whose last connections are just being forgotten is taken again.
    setsockopt(&listener, sockopt::ReuseAddr, &true).map_err(SysError::of("setsockopt"))?;
    setsockopt(&listener, sockopt::Ipv6V6Only, &false).map_err(SysError::of("setsockopt"))?;
    bind(listener.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(at, port, 0, 0)))
        .map_err(SysError::of("bind"))?;
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

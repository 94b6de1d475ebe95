//! TCP on this machine's own address (tcp(7)), for the heartbeat that the original multusd had. Who is
//! at the other end no call says: the kernel's table of connections does (`sys::proc`).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getpeername, getsockname, setsockopt,
    socket, sockopt,
};

use super::SysError;

/// Listens on 127.0.0.1. A port whose last connections are just being forgotten is taken again.
pub fn listen(port: u16) -> Result<OwnedFd, SysError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener =
        socket(AddressFamily::Inet, SockType::Stream, flags, None).map_err(SysError::of("socket"))?;
    setsockopt(&listener, sockopt::ReuseAddr, &true).map_err(SysError::of("setsockopt"))?;
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).map_err(SysError::of("bind"))?;
    nix::sys::socket::listen(&listener, Backlog::new(8).map_err(SysError::of("listen"))?)
        .map_err(SysError::of("listen"))?;
    Ok(listener)
}

/// The port at our end of a connection.
pub fn port(connection: BorrowedFd) -> Option<u16> {
    getsockname::<SockaddrIn>(connection.as_raw_fd()).ok().map(|address| address.port())
}

/// The port at the other end; `None`: it is gone already.
pub fn peer_port(connection: BorrowedFd) -> Option<u16> {
    getpeername::<SockaddrIn>(connection.as_raw_fd()).ok().map(|address| address.port())
}

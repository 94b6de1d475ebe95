//! TCP on this machine's own address (tcp(7)), for the heartbeat that the original multusd had. Who is
//! at the other end no call says: the kernel's table of connections does (`sys::proc`).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect as nix_connect, getpeername, listen as nix_listen,
    setsockopt, socket, sockopt,
};

use super::SysError;

fn own_address(port: u16) -> SockaddrIn {
    SockaddrIn::new(127, 0, 0, 1, port)
}

fn stream(more: SockFlag) -> Result<OwnedFd, SysError> {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC | more, None).map_err(SysError::of("socket"))
}

/// Listens on 127.0.0.1. A port whose last connections are just being forgotten is taken again.
pub fn listen(port: u16) -> Result<OwnedFd, SysError> {
    let listener = stream(SockFlag::SOCK_NONBLOCK)?;
    setsockopt(&listener, sockopt::ReuseAddr, &true).map_err(SysError::of("setsockopt"))?;
    bind(listener.as_raw_fd(), &own_address(port)).map_err(SysError::of("bind"))?;
    nix_listen(&listener, Backlog::new(8).map_err(SysError::of("listen"))?).map_err(SysError::of("listen"))?;
    Ok(listener)
}

/// The port at the other end of a connection; `None`: it is gone already.
pub fn peer_port(connection: impl AsFd) -> Option<u16> {
    getpeername::<SockaddrIn>(connection.as_fd().as_raw_fd()).ok().map(|address| address.port())
}

/// Connects to a port of this machine.
pub fn connect(port: u16) -> Result<OwnedFd, SysError> {
    let connection = stream(SockFlag::empty())?;
    nix_connect(connection.as_raw_fd(), &own_address(port)).map_err(SysError::of("connect"))?;
    Ok(connection)
}

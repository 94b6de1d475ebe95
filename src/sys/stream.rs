//! Connections to servers (tcp(7), unix(7)), waited for: only for processes of their own, never the loop.

use core::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, UnixAddr,
    connect as nix_connect, recv, send as nix_send, socket,
};

use super::SysError;

fn to(family: AddressFamily, address: &dyn SockaddrLike) -> Result<OwnedFd, SysError> {
    let socket =
        socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(SysError::of("socket"))?;
    nix_connect(socket.as_raw_fd(), address).map_err(SysError::of("connect"))?;
    Ok(socket)
}

/// Connects; waits for as long as the kernel does.
pub fn connect(address: SocketAddr) -> Result<OwnedFd, SysError> {
    match address {
        SocketAddr::V4(address) => to(AddressFamily::Inet, &SockaddrIn::from(address)),
        SocketAddr::V6(address) => to(AddressFamily::Inet6, &SockaddrIn6::from(address)),
    }
}

/// The same to a Unix socket.
pub fn connect_unix(path: &Path) -> Result<OwnedFd, SysError> {
    to(AddressFamily::Unix, &UnixAddr::new(path).map_err(SysError::of("socket path"))?)
}

/// Sends all of it.
pub fn send(connection: BorrowedFd, mut bytes: &[u8]) -> Result<(), SysError> {
    while !bytes.is_empty() {
        let count =
            nix_send(connection.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).map_err(SysError::of("send"))?;
        bytes = &bytes[count..];
    }
    Ok(())
}

/// What has come, or comes next; 0: nothing more will.
pub fn receive(connection: BorrowedFd, buffer: &mut [u8]) -> Result<usize, SysError> {
    recv(connection.as_raw_fd(), buffer, MsgFlags::empty()).map_err(SysError::of("receive"))
}

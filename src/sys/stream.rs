//! Connections to servers (tcp(7), unix(7)), waited for: only for processes of their own, never the loop. And datagrams
//! (udp(7)), which nobody waits for.

use core::net::SocketAddrV6;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, UnixAddr,
    connect as nix_connect, recv, send as nix_send, socket,
};

use super::SysError;

fn to(family: AddressFamily, kind: SockType, address: &dyn SockaddrLike) -> Result<OwnedFd, SysError> {
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).map_err(SysError::of("socket"))?;
    nix_connect(socket.as_raw_fd(), address).map_err(SysError::of("connect"))?;
    Ok(socket)
}

unsafe extern "C" {
    /// inet_pton(3); the libc crate does not have it.
    fn inet_pton(family: libc::c_int, text: *const libc::c_char, address: *mut libc::c_void) -> libc::c_int;
}

/// Connects to an address as inet_pton(3) takes it; waits for as long as the kernel does.
pub fn connect(host: &str, is_six: bool, port: u16) -> Result<OwnedFd, SysError> {
    connect_as(SockType::Stream, host, is_six, port)
}

/// Datagrams go there; nothing is waited for.
pub fn datagrams(host: &str, is_six: bool, port: u16) -> Result<OwnedFd, SysError> {
    connect_as(SockType::Datagram, host, is_six, port)
}

fn connect_as(kind: SockType, host: &str, is_six: bool, port: u16) -> Result<OwnedFd, SysError> {
    let text = CString::new(host).map_err(|_| SysError { operation: "address", errno: libc::EINVAL })?;
    let mut address = [0_u8; 16];
    let family = if is_six { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: a C string, and room for an address of either family.
    if unsafe { inet_pton(family, text.as_ptr(), address.as_mut_ptr().cast()) } != 1 {
        return Err(SysError { operation: "address", errno: libc::EINVAL });
    }
    match is_six {
        false => {
            let [a, b, c, d, ..] = address;
            to(AddressFamily::Inet, kind, &SockaddrIn::new(a, b, c, d, port))
        }
        true => {
            let address = SocketAddrV6::new(address.into(), port, 0, 0);
            to(AddressFamily::Inet6, kind, &SockaddrIn6::from(address))
        }
    }
}

/// The same to a Unix socket.
pub fn connect_unix(path: &Path) -> Result<OwnedFd, SysError> {
    unix(SockType::Stream, path)
}

/// Datagrams go to a Unix socket; nothing is waited for.
pub fn unix_datagrams(path: &Path) -> Result<OwnedFd, SysError> {
    unix(SockType::Datagram, path)
}

fn unix(kind: SockType, path: &Path) -> Result<OwnedFd, SysError> {
    to(AddressFamily::Unix, kind, &UnixAddr::new(path).map_err(SysError::of("socket path"))?)
}

/// Sends one datagram, or says why it is lost: what would have to wait is.
pub fn send_datagram(socket: BorrowedFd, bytes: &[u8]) -> Result<(), SysError> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    nix_send(socket.as_raw_fd(), bytes, flags).map(drop).map_err(SysError::of("send"))
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

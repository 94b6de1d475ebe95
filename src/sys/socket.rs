//! The two Unix sockets: control (SOCK_SEQPACKET, one packet a message) and notify (SOCK_DGRAM,
//! sd_notify(3)). Peers are known by what the kernel says of them (unix(7)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, listen, setsockopt,
    socket, sockopt,
};

use super::{SysError, check};

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id at the time of connecting or sending.
    pub pid: u32,
    /// Effective user.
    pub user: u32,
    /// Effective group.
    pub group: u32,
}

#[inline(never)]
fn address_of(path: &Path) -> Result<UnixAddr, SysError> {
    UnixAddr::new(path).map_err(SysError::of("socket path"))
}

fn bound(path: &Path, kind: SockType, mode: u32) -> Result<OwnedFd, SysError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, kind, flags, None).map_err(SysError::of("socket"))?;
    let address = address_of(path)?;
    // One of a former life; its owner is dead, the lock on the run directory says so.
    super::file::remove(path);
    bind(socket.as_raw_fd(), &address).map_err(SysError::of("bind"))?;
    super::file::set_mode(path, mode)?;
    Ok(socket)
}

/// The control socket; anyone may connect, what they may do is decided per request.
pub fn listen_control(path: &Path) -> Result<OwnedFd, SysError> {
    let socket = bound(path, SockType::SeqPacket, 0o666)?;
    listen(&socket, Backlog::new(32).map_err(SysError::of("listen"))?).map_err(SysError::of("listen"))?;
    Ok(socket)
}

/// The next connection; `None`: none waits. An error: there is no descriptor or no memory for it, and it waits on.
pub fn accept(listener: BorrowedFd) -> Result<Option<(OwnedFd, Peer)>, SysError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let number = match accept4(listener.as_raw_fd(), flags) {
        Ok(number) => number,
        // The kernel looks for a descriptor first, for a connection second.
        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS))
            if super::poll::wait_readable(listener, Some(0)) =>
        {
            return Err(SysError::of("accept4")(errno));
        }
        Err(_) => return Ok(None),
    };
    // SAFETY: the kernel has just returned this descriptor to us alone.
    let connection = unsafe { OwnedFd::from_raw_fd(number) };
    let Ok(credentials) = nix::sys::socket::getsockopt(&connection, sockopt::PeerCredentials) else {
        return Ok(None);
    };
    let peer = Peer { pid: credentials.pid() as u32, user: credentials.uid(), group: credentials.gid() };
    Ok(Some((connection, peer)))
}

/// Whether the peer was a member of the group when it connected.
pub fn peer_has_group(connection: BorrowedFd, group: u32) -> bool {
    let mut groups = [0_u32; 128];
    peer_groups(connection, &mut groups).is_ok_and(|count| groups[..count].contains(&group))
}

/// The supplementary groups the peer had when it connected, and how many (SO_PEERGROUPS, Linux 4.13).
/// ERANGE: it has more than fit.
pub fn peer_groups(connection: BorrowedFd, groups: &mut [u32]) -> Result<usize, SysError> {
    let mut length = size_of_val(groups) as libc::socklen_t;
    // SAFETY: the buffer is as long as `length` says; the kernel writes at most that much.
    let result = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &mut length,
        )
    };
    check("getsockopt(SO_PEERGROUPS)", result)?;
    Ok((length as usize / size_of::<u32>()).min(groups.len()))
}

/// The result of reading one packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes; none: it was longer than fits.
    Packet(usize),
    /// None waits.
    Nothing,
    /// The other end is gone.
    Closed,
}

/// Reads one packet, never waits.
pub fn receive(connection: BorrowedFd, buffer: &mut [u8]) -> Received {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    match nix::sys::socket::recv(connection.as_raw_fd(), buffer, flags) {
        Ok(0) => Received::Closed,
        Ok(length) if length > buffer.len() => Received::Packet(0),
        Ok(length) => Received::Packet(length),
        Err(Errno::EAGAIN | Errno::EINTR) => Received::Nothing,
        Err(_) => Received::Closed,
    }
}

/// Sends one packet, never waits; false: the other end takes no more, or is gone.
pub fn send(connection: BorrowedFd, packet: &[u8]) -> bool {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    nix::sys::socket::send(connection.as_raw_fd(), packet, flags).is_ok()
}

/// The same, with descriptors, of which the receiver gets copies (SCM_RIGHTS).
pub fn send_with(connection: BorrowedFd, packet: &[u8], along: &[BorrowedFd]) -> bool {
    use nix::sys::socket::{ControlMessage, sendmsg};
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let along: heapless::Vec<i32, 2> = along.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&along)];
    let words = [std::io::IoSlice::new(packet)];
    sendmsg::<UnixAddr>(connection.as_raw_fd(), &words, &rights, flags, None).is_ok()
}

/// Messages a NOTIFY_SOCKET is to hold; systemd's choice too. Kernels start with 10.
const QUEUE_LENGTH: u32 = 512;

/// Lets sockets made from now on hold more messages (net.unix.max_dgram_qlen, root only; the machine's, never
/// lowered); how many they hold.
pub fn lengthen_queues() -> u32 {
    let path = Path::new("/proc/sys/net/unix/max_dgram_qlen");
    let length = || {
        let text = super::file::read(path).unwrap_or_default();
        str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    if length() < QUEUE_LENGTH
        && let Ok(file) = super::file::open_path(path, nix::fcntl::OFlag::O_WRONLY, 0)
    {
        // Read back below.
        let _ = super::file::append(file.as_fd(), b"512\n");
    }
    length()
}

/// A program's NOTIFY_SOCKET, its owner's alone.
pub fn listen_notify(path: &Path, owner: Option<(u32, u32)>) -> Result<OwnedFd, SysError> {
    let socket = bound(path, SockType::Datagram, 0o600)?;
    setsockopt(&socket, sockopt::PassCred, &true).map_err(SysError::of("setsockopt"))?;
    if let Some((user, group)) = owner {
        super::file::set_owner(path, user, group)?;
    }
    Ok(socket)
}

/// A program's end of a NOTIFY_SOCKET: a path, or after an `@` a name of no file.
pub fn connect_notify(path: &Path) -> Result<OwnedFd, SysError> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(SysError::of("socket"))?;
    let address = match path.as_os_str().as_encoded_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name).map_err(SysError::of("socket path"))?,
        _ => address_of(path)?,
    };
    nix::sys::socket::connect(socket.as_raw_fd(), &address).map_err(SysError::of("connect"))?;
    Ok(socket)
}

/// Sends a notification, and waits where the queue is full.
pub fn notify(socket: BorrowedFd, words: &[u8]) -> Result<(), SysError> {
    let sent = nix::sys::socket::send(socket.as_raw_fd(), words, MsgFlags::MSG_NOSIGNAL);
    sent.map(drop).map_err(SysError::of("send"))
}

/// Sends `BARRIER=1`, and waits until the receiver has come to it and closed what came along, at most so long;
/// false: it has not.
pub fn notify_barrier(socket: BorrowedFd, timeout_ms: u16) -> bool {
    use nix::sys::socket::{ControlMessage, sendmsg};
    let Ok((ours, theirs)) = super::file::pipe(false) else { return false };
    let words = [std::io::IoSlice::new(b"BARRIER=1")];
    let along = [theirs.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&along)];
    let sent = sendmsg::<UnixAddr>(socket.as_raw_fd(), &words, &rights, MsgFlags::MSG_NOSIGNAL, None);
    drop(theirs);
    sent.is_ok() && super::poll::wait_readable(ours.as_fd(), Some(timeout_ms))
}

/// Bytes of control data that hold one `ucred` and nothing beside it.
// SAFETY: arithmetic.
const CREDENTIALS_BYTES: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) } as usize;

/// Control data, aligned as its header has to be.
#[repr(C)]
union CredentialsRoom {
    _header: libc::cmsghdr,
    bytes: [u8; CREDENTIALS_BYTES],
}

/// Looks at the next notification and who sent it, leaving it where it is; `None`: none waits, or
/// it could not be read and is gone. Descriptors sent along never become ours: the kernel writes
/// the credentials first, and discards what then finds no room.
pub fn peek_notification(socket: BorrowedFd, buffer: &mut [u8]) -> Option<(usize, Peer)> {
    let mut room = CredentialsRoom { bytes: [0; CREDENTIALS_BYTES] };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: numbers and pointers, for which zero is a value; some C libraries have padding here,
    // which keeps this from being written as a literal.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut room).cast();
    message.msg_controllen = CREDENTIALS_BYTES as _;
    // SAFETY: the message describes `buffer` and `room`, which outlive the call, by their lengths.
    let result =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT | libc::MSG_PEEK) };
    let length = match Errno::result(result) {
        Ok(length) => length as usize,
        Err(Errno::EAGAIN | Errno::EINTR) => return None,
        Err(_) => {
            // Left there, it would be in the way of all that follow.
            take_notification(socket);
            return None;
        }
    };
    // That control data was cut (MSG_CTRUNC) only says that descriptors were discarded.
    // SAFETY: just received, into a room that lives.
    Some((length, unsafe { sender(&message) }))
}

/// Who sent it, by its control data; nobody, where that does not say.
///
/// # Safety
/// The message is as recvmsg left it, and the room for its control data still lives.
unsafe fn sender(message: &libc::msghdr) -> Peer {
    let nobody = Peer { pid: 0, user: u32::MAX, group: u32::MAX };
    // SAFETY: looks at the message alone; null where not even a header fits.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    if header.is_null() {
        return nobody;
    }
    // SAFETY: a whole header lies there, aligned as the room is.
    let (length, kind) = unsafe { ((*header).cmsg_len, ((*header).cmsg_level, (*header).cmsg_type)) };
    // SAFETY: arithmetic.
    let needed = unsafe { libc::CMSG_LEN(size_of::<libc::ucred>() as u32) };
    let is_whole = length >= needed as _ && message.msg_controllen >= needed as _;
    if !is_whole || kind != (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) {
        return nobody;
    }
    // SAFETY: a whole `ucred` follows the header; it need not be aligned for one.
    let known = unsafe { libc::CMSG_DATA(header).cast::<libc::ucred>().read_unaligned() };
    Peer { pid: known.pid as u32, user: known.uid, group: known.gid }
}

/// Takes the next notification away; false: there was none. Without room for control data the
/// kernel discards what came along.
pub fn take_notification(socket: BorrowedFd) -> bool {
    nix::sys::socket::recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT).is_ok()
}

/// Two connected stream sockets: (ours, not waiting; theirs).
pub fn pair() -> Result<(OwnedFd, OwnedFd), SysError> {
    let (ours, theirs) =
        nix::sys::socket::socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
            .map_err(SysError::of("socketpair"))?;
    Ok((ours, theirs))
}

/// Looks at what waits, leaving it where it is.
pub fn peek(connection: BorrowedFd, buffer: &mut [u8]) -> Received {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
    match nix::sys::socket::recv(connection.as_raw_fd(), buffer, flags) {
        Ok(0) => Received::Closed,
        Ok(length) => Received::Packet(length),
        Err(Errno::EAGAIN | Errno::EINTR) => Received::Nothing,
        Err(_) => Received::Closed,
    }
}

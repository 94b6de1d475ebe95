//! New processes that the kernel refuses for as long as a test wants it: a filter on clone(2) and clone3(2), about
//! which the kernel asks the test (seccomp_unotify(2)).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};

/// As the kernel has them on every processor.
const NOTIF_RECV: u64 = 0xc050_2100;
const NOTIF_SEND: u64 = 0xc018_2101;
const FLAG_NEW_LISTENER: u64 = 8;
const FLAG_CONTINUE: u32 = 1;

/// Decides whether processes can be made.
#[derive(Clone, Default)]
pub struct Forks {
    errno: Arc<AtomicI32>,
    refused: Arc<AtomicU32>,
}

#[repr(C)]
#[derive(Default)]
struct Asked {
    id: u64,
    pid: u32,
    flags: u32,
    data: [u64; 8],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

impl Forks {
    /// From now on every new process is refused with this error; 0: none is.
    pub fn fail_with(&self, errno: i32) {
        self.refused.store(0, SeqCst);
        self.errno.store(errno, SeqCst);
    }

    /// How many were since then.
    pub fn refused(&self) -> u32 {
        self.refused.load(SeqCst)
    }

    /// Makes a command subject to this, with all that descends from it. Returns what is to be called with the result
    /// once it has been started.
    pub fn govern(&self, command: &mut Command) -> impl FnOnce() + use<> {
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().expect("sockets");
        let socket = theirs.as_raw_fd();
        // SAFETY: system calls only, between fork and exec.
        unsafe { command.pre_exec(move || filter(socket)) };
        let forks = self.clone();
        move || {
            let _open_until_now = theirs;
            let listener = receive(&ours);
            std::thread::spawn(move || forks.answer(&listener));
        }
    }

    fn answer(&self, listener: &OwnedFd) {
        loop {
            let mut asked = Asked::default();
            // SAFETY: a structure of the size that is in the number.
            if unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &raw mut asked) } != 0 {
                match std::io::Error::last_os_error().raw_os_error() {
                    // Who asked is gone.
                    Some(libc::EINTR) => continue,
                    Some(libc::ENOENT) if has_users(listener) => continue,
                    _ => return,
                }
            }
            let errno = self.errno.load(SeqCst);
            self.refused.fetch_add(u32::from(errno != 0), SeqCst);
            let flags = if errno == 0 { FLAG_CONTINUE } else { 0 };
            let answer = Answer { id: asked.id, value: 0, error: -errno, flags };
            // SAFETY: as above.
            unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &raw const answer) };
        }
    }
}

fn has_users(listener: &OwnedFd) -> bool {
    let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, no waiting.
    unsafe { libc::poll(&raw mut poll, 1, 0) };
    poll.revents & libc::POLLHUP == 0
}

/// In the new process: the filter, and its listener to the test.
fn filter(socket: i32) -> std::io::Result<()> {
    let line = |code: u32, jump: u8, k: u32| libc::sock_filter { code: code as u16, jt: jump, jf: 0, k };
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // The number of the call is the first word.
    let mut lines = [
        line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        line(EQUAL, 2, libc::SYS_clone as u32),
        line(EQUAL, 1, libc::SYS_clone3 as u32),
        line(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        line(RETURN, 0, libc::SECCOMP_RET_USER_NOTIF),
    ];
    let program = libc::sock_fprog { len: lines.len() as u16, filter: lines.as_mut_ptr() };
    // SAFETY: system calls with structures that live across them.
    unsafe {
        let listener = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER as u64,
            FLAG_NEW_LISTENER,
            &raw const program,
        ) as i32;
        if listener < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let mut byte = [0_u8];
        let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        let mut room = [0_u64; 4];
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = room.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(listener);
        if libc::sendmsg(socket, &raw const message, 0) < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

fn receive(socket: &impl AsRawFd) -> OwnedFd {
    let (mut byte, mut room) = ([0_u8], [0_u64; 4]);
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: the message describes buffers that live across the call; what comes is what `filter` sent.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = room.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&room) as _;
        let length = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
        assert!(length == 1, "{}", std::io::Error::last_os_error());
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        assert!(!header.is_null(), "no listener");
        OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<i32>().read_unaligned())
    }
}

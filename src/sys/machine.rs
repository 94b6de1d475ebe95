//! The machine as a whole: its name, its end, what this process may use of it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{SysError, check};

/// The host's name.
pub fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// Sets the host's name (sethostname(2)); root only.
pub fn set_host_name(name: &str) -> Result<(), SysError> {
    nix::unistd::sethostname(name).map_err(SysError::of("sethostname"))
}

static DESCRIPTORS_SOFT: AtomicU64 = AtomicU64::new(0);
static DESCRIPTORS_HARD: AtomicU64 = AtomicU64::new(0);

/// Descriptors this process may have: full tables need more than the usual 1024.
const DESCRIPTORS_WANTED: u64 = 4096;

/// Raises the soft limit of descriptors for ourselves, remembering what it was for children.
pub fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: valid structures; prlimit on this process.
    unsafe {
        if libc::prlimit(0, libc::RLIMIT_NOFILE as _, std::ptr::null(), &mut limit) != 0 {
            return;
        }
        DESCRIPTORS_SOFT.store(limit.rlim_cur, Relaxed);
        DESCRIPTORS_HARD.store(limit.rlim_max, Relaxed);
        limit.rlim_cur = limit.rlim_cur.max(limit.rlim_max.min(DESCRIPTORS_WANTED as libc::rlim_t));
        libc::prlimit(0, libc::RLIMIT_NOFILE as _, &limit, std::ptr::null_mut());
    }
}

/// In a child: the limit of descriptors as it was before we raised ours.
pub fn restore_descriptor_limit() {
    let hard = DESCRIPTORS_HARD.load(Relaxed);
    if hard != 0 {
        let limit = libc::rlimit {
            rlim_cur: DESCRIPTORS_SOFT.load(Relaxed) as libc::rlim_t,
            rlim_max: hard as libc::rlim_t,
        };
        // SAFETY: a valid structure; lowering the soft limit cannot fail.
        unsafe { libc::prlimit(0, libc::RLIMIT_NOFILE as _, &limit, std::ptr::null_mut()) };
    }
}

/// How the machine is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineEnd {
    /// Start again.
    Reboot,
    /// Off.
    PowerOff,
}

/// Ends the machine by reboot(2), after a sync; for where there is no init to ask. Returns only
/// on failure.
pub fn end_machine(how: MachineEnd) -> SysError {
    let how = match how {
        MachineEnd::Reboot => libc::RB_AUTOBOOT,
        MachineEnd::PowerOff => libc::RB_POWER_OFF,
    };
    // SAFETY: integers only.
    unsafe {
        libc::sync();
        libc::reboot(how);
    }
    SysError::last("reboot")
}

/// Replaces this process by a program, which is searched in PATH, with signals as a shell would leave them; returns only on
/// failure.
pub fn become_program(command: &[String]) -> SysError {
    super::signal::unblock_and_reset();
    let strings: Vec<_> =
        command.iter().filter_map(|word| std::ffi::CString::new(word.as_str()).ok()).collect();
    match strings.first() {
        Some(path) => match nix::unistd::execvp(path, &strings) {
            Err(errno) => SysError { operation: "execve", errno: errno as i32 },
            Ok(never) => match never {},
        },
        None => SysError { operation: "execve", errno: libc::ENOENT },
    }
}

/// Random bits for telling lives apart; the clock where there is no randomness yet.
pub fn random() -> u64 {
    kernel_random().unwrap_or_else(|_| super::clock::boot_nanos() ^ u64::from(std::process::id()) << 48)
}

/// Random bits of the kernel's (getrandom(2)), never waiting: early at boot the pool may be empty, and
/// what they are for need not be secret, only different.
pub fn kernel_random() -> Result<u64, SysError> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the buffer is as long as said.
    let result = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    match check("getrandom", result as libc::c_int)? {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(SysError { operation: "getrandom", errno: libc::EAGAIN }),
    }
}

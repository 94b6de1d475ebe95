//! TOUCHES THE KERNEL. The only unsafe code of the crate; one kernel facility per file, each
//! offering a safe interface. Decides nothing.
#![allow(unsafe_code)]

pub mod bus;
pub mod cgroup;
pub mod clock;
pub mod console;
pub mod control_client;
pub mod counter;
pub mod elf;
pub mod entry;
pub mod environment;
pub mod exec;
pub mod file;
pub mod filter;
pub mod futex;
pub mod glob;
pub mod gpio;
pub mod image;
pub mod inotify;
pub mod input;
pub mod life;
pub mod log_claim;
pub mod log_collect;
pub mod log_discard;
pub mod log_file;
pub mod log_ring;
pub mod machine;
pub mod memory;
pub mod mount;
pub mod net;
pub mod output;
pub mod page;
pub mod poll;
pub mod proc;
pub mod process;
pub mod reserve;
pub mod serial;
pub mod signal;
pub mod slot;
pub mod socket;
pub mod stream;
pub mod tcp;
pub mod terminal;
pub mod users;
pub mod values;
pub mod watchdog;

use core::fmt;

/// A system call that failed: which, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysError {
    /// The call, named as its man page is.
    pub operation: &'static str,
    /// The error number (errno(3)).
    pub errno: i32,
}

impl SysError {
    /// The error the last libc call left in errno.
    pub(crate) fn last(operation: &'static str) -> Self {
        SysError { operation, errno: nix::errno::Errno::last_raw() }
    }

    /// Storage is full, broken or read-only: no mistake of whoever named the place.
    pub fn is_of_storage(&self) -> bool {
        matches!(self.errno, libc::ENOSPC | libc::EDQUOT | libc::EROFS | libc::EIO)
    }

    /// Wraps what nix reports.
    pub(crate) fn of(operation: &'static str) -> impl FnOnce(nix::errno::Errno) -> SysError {
        move |errno| SysError { operation, errno: errno as i32 }
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, describe(self.errno))
    }
}

/// The words for an error number: the C library's, which has them anyway (nix has them a second time, 5 kB).
pub fn describe(errno: i32) -> &'static str {
    // For the numbers that Linux has, and only for them, the text is a constant.
    if !(1..=133).contains(&errno) || [41, 58].contains(&errno) {
        return "unknown error";
    }
    // SAFETY: strerror returns a string that ends with a zero; for a known number it is never changed or freed
    // (nobody here calls setlocale).
    let text = unsafe { std::ffi::CStr::from_ptr(libc::strerror(errno)) };
    text.to_str().unwrap_or_default()
}

/// −1 becomes the error of `operation`.
pub(crate) fn check(operation: &'static str, result: libc::c_int) -> Result<libc::c_int, SysError> {
    if result == -1 { Err(SysError::last(operation)) } else { Ok(result) }
}

//! Mounted file systems: whether one may be written to, and a change of that (mount(2)).

use std::ffi::{CString, c_ulong};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{SysError, check};

/// What statvfs(3) says of a mount in the bits that mount(2) takes: no set-user-id, devices, programs, synchronous, no
/// times of access, none of directories. What is not given again at a change is lost.
const KEPT: c_ulong = libc::MS_NOSUID
    | libc::MS_NODEV
    | libc::MS_NOEXEC
    | libc::MS_SYNCHRONOUS
    | libc::MS_NOATIME
    | libc::MS_NODIRATIME;

fn text(path: &Path) -> Result<CString, SysError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| SysError { operation: "path", errno: libc::EINVAL })
}

/// Bits as of mount(2).
fn flags(path: &Path) -> Result<c_ulong, SysError> {
    let path = text(path)?;
    let mut status = core::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: a C string, and a structure that is filled in where 0 is returned.
    let flags = unsafe {
        check("statvfs", libc::statvfs(path.as_ptr(), status.as_mut_ptr()))?;
        status.assume_init().f_flag
    };
    Ok(flags)
}

/// Whether the file system on which something is can only be read.
pub fn is_read_only(path: &Path) -> Result<bool, SysError> {
    Ok(flags(path)? & libc::MS_RDONLY != 0)
}

/// Makes the file system that is mounted there read-only, or writable. What was written is on storage before it is
/// read-only.
pub fn set_read_only(path: &Path, read_only: bool) -> Result<(), SysError> {
    let kept = flags(path)? & KEPT | if read_only { libc::MS_RDONLY } else { 0 };
    let (path, none) = (text(path)?, core::ptr::null());
    // SAFETY: C strings that live across the call; a change needs neither source nor type.
    let result =
        unsafe { libc::mount(none, path.as_ptr(), none, libc::MS_REMOUNT | kept, core::ptr::null()) };
    check("mount", result).map(drop)
}

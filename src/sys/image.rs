//! The executable in memory: whatever is started from it later starts although the file system it came from cannot
//! be read any more (a worn-out card). An open descriptor alone would not do: the kernel may drop the pages.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};

use super::{SysError, check, file};

/// What the copy is called: `/proc/PID/exe` leads to `/memfd:multusd (deleted)`.
const NAME: &CStr = c"multusd";

/// Of our own command line; a longer one is not ours.
const COMMAND_LINE_BYTES_MAX: usize = 64 * 1024;

/// Copied so much at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// This process runs a copy in memory.
pub fn is_copy() -> bool {
    let target = nix::fcntl::readlink("/proc/self/exe").unwrap_or_default();
    target.into_vec().starts_with(b"/memfd:multusd ")
}

/// Begins anew as a copy of this executable in memory, with the same arguments and environment. Returns where that
/// is done already, or cannot be done: then as before, and why.
pub fn become_copy() -> Result<(), SysError> {
    if is_copy() {
        // The kernel names it by a number.
        super::process::set_title(NAME);
        return Ok(());
    }
    let copy = copy()?;
    let strings = |list: &mut dyn Iterator<Item = Vec<u8>>| -> Vec<CString> {
        list.filter_map(|bytes| CString::new(bytes).ok()).collect()
    };
    // Not `args_os`: with musl only Rust's runtime would have filled it.
    let words = file::read_bounded(Path::new("/proc/self/cmdline"), COMMAND_LINE_BYTES_MAX)?;
    let words = words.strip_suffix(b"\0").unwrap_or(&words);
    let arguments = strings(&mut words.split(|byte| *byte == 0).map(<[u8]>::to_vec));
    let environment = strings(&mut std::env::vars_os().map(|(name, value)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        entry
    }));
    match nix::unistd::execveat(copy.as_fd(), c"", &arguments, &environment, AtFlags::AT_EMPTY_PATH) {
        Ok(never) => match never {},
        Err(errno) => Err(SysError::of("execveat")(errno)),
    }
}

fn copy() -> Result<OwnedFd, SysError> {
    let from = file::open_path(Path::new("/proc/self/exe"), OFlag::O_RDONLY, 0)?;
    let to = executable_memory()?;
    let mut bytes = vec![0; BLOCK_BYTES];
    loop {
        match nix::unistd::read(&from, &mut bytes) {
            Ok(0) => break,
            Ok(count) => file::append(to.as_fd(), &bytes[..count])?,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::of("read")(errno)),
        }
    }
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: fcntl with an integer argument on a descriptor we own.
    check("fcntl(F_ADD_SEALS)", unsafe { libc::fcntl(to.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    // Bundled children of other users are started from it, too.
    nix::sys::stat::fchmod(&to, nix::sys::stat::Mode::from_bits_truncate(0o555))
        .map_err(SysError::of("chmod"))?;
    Ok(to)
}

/// Since Linux 6.3 it is to be said that a memory file may be executed; before, it was an error to say so.
fn executable_memory() -> Result<OwnedFd, SysError> {
    const MFD_EXEC: u32 = 0x10;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let create = |flags| {
        // SAFETY: a C string and flags in, a descriptor of our own out.
        unsafe {
            let number = check("memfd_create", libc::memfd_create(NAME.as_ptr(), flags))?;
            Ok(OwnedFd::from_raw_fd(number))
        }
    };
    match create(flags | MFD_EXEC) {
        Err(SysError { errno: libc::EINVAL, .. }) => create(flags),
        result => result,
    }
}

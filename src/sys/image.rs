//! The executable in memory: whatever is started from it later starts although the file system it came from cannot
//! be read any more (a worn-out card). An open descriptor alone would not do: the kernel may drop the pages.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::fcntl::AtFlags;

use super::{SysError, check, elf, file, process};

/// What the copy is called: `/proc/PID/exe` leads to `/memfd:multusd (deleted)`.
const NAME: &CStr = c"multusd";

/// Of our own command line; a longer one is not ours.
const COMMAND_LINE_BYTES_MAX: usize = 64 * 1024;

/// Of an executable that is copied: far larger than ours, with all a debugger wants.
const IMAGE_BYTES_MAX: usize = 256 * 1024 * 1024;

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
        process::set_title(NAME);
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

/// The copy. Where it can be, all processes of it are at one address, at which the kernel has put us, and share what else each would
/// write as it starts (`elf`): some 40 kB for every bundled child. Another start, another address.
fn copy() -> Result<OwnedFd, SysError> {
    let bytes = file::read_bounded(Path::new("/proc/self/exe"), IMAGE_BYTES_MAX)?;
    // SAFETY: getauxval has no preconditions.
    let program_headers = unsafe { libc::getauxval(libc::AT_PHDR) };
    if let Some(settled) = elf::settle(&bytes, program_headers as u64) {
        let copy = sealed(&settled)?;
        if runs(&copy) {
            return Ok(copy);
        }
    }
    sealed(&bytes)
}

/// It is tried: with a kernel that will not have it there, all would end here.
fn runs(copy: &OwnedFd) -> bool {
    let (Ok(null), Ok(pid)) = (file::null(), process::fork()) else { return false };
    let Some(pid) = pid else {
        // What it says is no matter.
        for descriptor in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
            // SAFETY: a descriptor of ours and a plain number, in a process that has only this thread.
            unsafe { libc::dup2(null.as_raw_fd(), descriptor) };
        }
        let (words, environment) = ([NAME, c"--version"], [] as [&CStr; 0]);
        let _ = nix::unistd::execveat(copy.as_fd(), c"", &words, &environment, AtFlags::AT_EMPTY_PATH);
        process::end(127);
    };
    process::wait_for(pid) == 0
}

fn sealed(bytes: &[u8]) -> Result<OwnedFd, SysError> {
    let to = executable_memory()?;
    file::append(to.as_fd(), bytes)?;
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

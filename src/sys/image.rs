//! The executable in memory: whatever is started from it later starts although the file system it came from cannot
//! be read any more (a worn-out card). An open descriptor alone would not do: the kernel may drop the pages.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;

use super::{SysError, check, elf, file, process};

/// What the copy is called: `/proc/PID/exe` leads to `/memfd:multusd (deleted)`.
const NAME: &CStr = c"multusd";

/// Of our own command line; a longer one is not ours.
const COMMAND_LINE_BYTES_MAX: usize = 64 * 1024;

/// Of an executable that is copied: far larger than ours, with all a debugger wants.
const IMAGE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// An image that is tried has ended by then, on the slowest board: it reads what is in memory, and says so.
const TRIAL_MS_MAX: u16 = 3000;

/// In the environment of a copy: where on storage it is from; and, of one that goes on with what another has begun, the number of the
/// page's descriptor. No program is given either.
const ORIGIN: &str = "MULTUSD_ORIGIN";
const ADOPTED: &str = "MULTUSD_ADOPTED";

/// This process runs a copy in memory.
pub fn is_copy() -> bool {
    let target = nix::fcntl::readlink("/proc/self/exe").unwrap_or_default();
    target.into_vec().starts_with(b"/memfd:multusd ")
}

/// Where on storage this copy is from.
pub fn origin() -> Option<PathBuf> {
    std::env::var_os(ORIGIN).filter(|_| is_copy()).map(PathBuf::from)
}

/// The page that this copy goes on with.
pub fn adopted() -> Option<RawFd> {
    std::env::var_os(ADOPTED).filter(|_| is_copy())?.to_str()?.parse().ok()
}

/// Begins anew as a copy of this executable in memory, with the same arguments and environment. Returns where that
/// is done already, or cannot be done: then as before, and why.
pub fn become_copy() -> Result<(), SysError> {
    if is_copy() {
        // The kernel names it by a number.
        process::set_title(NAME);
        return Ok(());
    }
    let origin = nix::fcntl::readlink("/proc/self/exe").map_err(SysError::of("readlink"))?;
    Err(execute(copy()?.as_fd(), &[(ORIGIN, &origin)]))
}

/// Begins anew as this image, with the same arguments and environment, and goes on with the page behind this descriptor, which with
/// all that is to be kept must survive an exec. Returns where that fails: then as before.
pub fn become_renewed(image: BorrowedFd, page: RawFd) -> SysError {
    let (origin, page) = (origin().unwrap_or_default(), page.to_string());
    execute(image, &[(ORIGIN, origin.as_os_str()), (ADOPTED, page.as_ref())])
}

/// execveat(2) with our own arguments, and our own environment but for these.
fn execute(image: BorrowedFd, changed: &[(&str, &OsStr)]) -> SysError {
    let strings = |list: &mut dyn Iterator<Item = Vec<u8>>| -> Vec<CString> {
        list.filter_map(|bytes| CString::new(bytes).ok()).collect()
    };
    // Not `args_os`: with musl only Rust's runtime would have filled it.
    let words = match file::read_bounded(Path::new("/proc/self/cmdline"), COMMAND_LINE_BYTES_MAX) {
        Ok(words) => words,
        Err(error) => return error,
    };
    let words = words.strip_suffix(b"\0").unwrap_or(&words);
    let arguments = strings(&mut words.split(|byte| *byte == 0).map(<[u8]>::to_vec));
    let kept = std::env::vars_os().filter(|(name, _)| name != ORIGIN && name != ADOPTED);
    let changed = changed.iter().map(|(name, value)| (OsStr::new(name).to_owned(), value.to_os_string()));
    let environment = strings(&mut kept.chain(changed).map(|(name, value)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        entry
    }));
    match nix::unistd::execveat(image, c"", &arguments, &environment, AtFlags::AT_EMPTY_PATH) {
        Ok(never) => match never {},
        Err(errno) => SysError::of("execveat")(errno),
    }
}

/// Fills `memory` (of [`empty`]) with the executable on storage that this copy is from, and tries it with these words, for which it
/// may read `inherited`: its exit code, -1 for none. With `right` the image is sealed.
pub fn fill(memory: BorrowedFd, words: &[&CStr], right: i32, inherited: BorrowedFd) -> Result<i32, SysError> {
    let none = SysError { operation: "readlink", errno: libc::ENOENT };
    let bytes = file::read_bounded(&origin().ok_or(none)?, IMAGE_BYTES_MAX)?;
    let mut code = -1;
    // As it is where it cannot be settled, or the kernel does not take that.
    for image in settled(&bytes).as_deref().into_iter().chain([&bytes[..]]) {
        nix::unistd::ftruncate(memory, 0).map_err(SysError::of("ftruncate"))?;
        nix::unistd::lseek(memory, 0, nix::unistd::Whence::SeekSet).map_err(SysError::of("lseek"))?;
        file::append(memory, image)?;
        code = tried(memory, words, Some(inherited));
        if code == right {
            seal(memory)?;
            break;
        }
    }
    Ok(code)
}

/// The copy. Where it can be, all processes of it are at one address, at which the kernel has put us, and share what else each would
/// write as it starts (`elf`): some 40 kB for every bundled child. Another start, another address.
fn copy() -> Result<OwnedFd, SysError> {
    let bytes = file::read_bounded(Path::new("/proc/self/exe"), IMAGE_BYTES_MAX)?;
    if let Some(settled) = settled(&bytes) {
        let copy = sealed(&settled)?;
        // With a kernel that will not have it there, all would end here.
        if tried(copy.as_fd(), &[NAME, c"--version"], None) == 0 {
            return Ok(copy);
        }
    }
    sealed(&bytes)
}

/// At the address at which we are.
fn settled(image: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: getauxval has no preconditions.
    elf::settle(image, unsafe { libc::getauxval(libc::AT_PHDR) } as u64)
}

/// An image is run with these words, and what it says is no matter; its exit code, -1 for none.
fn tried(image: BorrowedFd, words: &[&CStr], inherited: Option<BorrowedFd>) -> i32 {
    let (Ok(null), Ok(pid)) = (file::null(), process::fork()) else { return -1 };
    let Some(pid) = pid else {
        for descriptor in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
            // SAFETY: a descriptor of ours and a plain number, in a process that has only this thread.
            unsafe { libc::dup2(null.as_raw_fd(), descriptor) };
        }
        if let Some(descriptor) = inherited {
            process::set_inherited(descriptor.as_raw_fd(), true);
        }
        let environment: [&CStr; 0] = [];
        let _ = nix::unistd::execveat(image, c"", words, &environment, AtFlags::AT_EMPTY_PATH);
        process::end(127);
    };
    let status = process::wait_for_at_most(pid, TRIAL_MS_MAX);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
}

fn sealed(bytes: &[u8]) -> Result<OwnedFd, SysError> {
    let to = empty()?;
    file::append(to.as_fd(), bytes)?;
    seal(to.as_fd())?;
    Ok(to)
}

fn seal(memory: BorrowedFd) -> Result<(), SysError> {
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: fcntl with an integer argument on a descriptor that is open.
    check("fcntl(F_ADD_SEALS)", unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    // Bundled children of other users are started from it, too.
    nix::sys::stat::fchmod(memory, nix::sys::stat::Mode::from_bits_truncate(0o555))
        .map_err(SysError::of("chmod"))
}

/// Memory for an executable.
///
/// Since Linux 6.3 it is to be said that a memory file may be executed; before, it was an error to say so.
pub fn empty() -> Result<OwnedFd, SysError> {
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

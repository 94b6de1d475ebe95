//! Files that lines are appended to: opened so that nothing planted in their place leads elsewhere, cut back,
//! synced, rotated. What may wait for storage is for a process of its own, never the loop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FileStat, SFlag, fstat, lstat};

use super::SysError;
use super::file::{kind, make_directories, open_path};

/// A file to append to, and whether it is a regular one: only such have a size to cap. `Err` in words.
///
/// Programs may own the directory their logs are in, and we may be root: what they put in a log's
/// place must neither lead elsewhere (symbolic and hard links) nor keep us waiting (FIFOs), nor
/// become our terminal.
pub fn open_log(path: &Path) -> Result<(OwnedFd, bool), String> {
    if let Some(directory) = path.parent() {
        make_directories(directory).map_err(|error| error.to_string())?;
    }
    let access = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
    let file = open_path(path, access | WARY, 0o640);
    let file = file.map_err(|error| match error.errno {
        libc::ELOOP => "a symbolic link, which is not followed".into(),
        libc::ENXIO => "a FIFO or socket, which is no place for a log".into(),
        _ => error.to_string(),
    })?;
    let status = fstat(&file).map_err(|errno| SysError::of("stat")(errno).to_string())?;
    match kind(&status) {
        // A second name may be that of a file its planter could not write.
        SFlag::S_IFREG if status.st_nlink == 1 => Ok((file, true)),
        SFlag::S_IFREG => Err("has hard links".into()),
        SFlag::S_IFCHR => Ok((file, false)),
        _ => Err("neither a file nor a device".into()),
    }
}

/// What opens a file that may be anything: follows nothing, waits for nobody.
const WARY: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

/// The kernel's log, to write to; what would have to wait is refused.
pub fn open_kernel_log() -> Result<OwnedFd, SysError> {
    open_path(Path::new("/dev/kmsg"), OFlag::O_WRONLY | WARY, 0)
}

/// A path names a character device.
pub fn is_device(path: &Path) -> bool {
    lstat(path).is_ok_and(|status| kind(&status) == SFlag::S_IFCHR)
}

/// Bytes of the regular file of that name; 0: there is none.
pub fn size_of(path: &Path) -> u64 {
    match lstat(path) {
        Ok(status) if kind(&status) == SFlag::S_IFREG => status.st_size as u64,
        _ => 0,
    }
}

/// Its number in its file system; 0: it has none.
pub fn inode(file: BorrowedFd) -> u64 {
    fstat(file).map_or(0, |status: FileStat| status.st_ino)
}

/// The same file, open for reading; `None`: the name means another one by now.
pub fn open_to_read(path: &Path, file: BorrowedFd) -> Option<OwnedFd> {
    let reader = open_path(path, OFlag::O_RDONLY | WARY, 0).ok()?;
    super::file::is_still(path, reader.as_fd()).then_some(())?;
    (super::file::is_still(path, file) && inode(reader.as_fd()) == inode(file)).then_some(reader)
}

/// A log file to look at, whoever owns it: nothing that would lead elsewhere or wait. Its inode and size.
pub fn open_to_look(path: &Path) -> Result<(OwnedFd, u64, u64), SysError> {
    let file = open_path(path, OFlag::O_RDONLY | WARY, 0)?;
    let status: FileStat = fstat(&file).map_err(SysError::of("stat"))?;
    match kind(&status) {
        SFlag::S_IFREG => Ok((file, status.st_ino, status.st_size as u64)),
        _ => Err(SysError { operation: "open", errno: libc::EINVAL }),
    }
}

/// Reads at a place, as much as there is.
pub fn read_at(file: BorrowedFd, mut at: u64, mut bytes: &mut [u8]) -> Result<usize, SysError> {
    let wanted = bytes.len();
    while !bytes.is_empty() {
        match nix::sys::uio::pread(file, bytes, at as libc::off_t) {
            Ok(0) => break,
            Ok(count) => {
                at += count as u64;
                bytes = &mut bytes[count..];
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::of("read")(errno)),
        }
    }
    Ok(wanted - bytes.len())
}

/// Whether the last byte of a file, of so many, is no line end: a write was cut short.
pub fn ends_within_line(path: &Path, file: BorrowedFd, size: u64) -> bool {
    let mut last = [b'\n'];
    if size > 0
        && let Some(reader) = open_to_read(path, file)
    {
        let _ = nix::sys::uio::pread(reader, &mut last, size as libc::off_t - 1);
    }
    last != *b"\n"
}

/// A file that is not there yet.
pub fn create_new(path: &Path) -> Result<OwnedFd, SysError> {
    open_path(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW, 0o640)
}

/// Cuts a file back (ftruncate(2)).
pub fn cut(file: BorrowedFd, size: u64) -> Result<(), SysError> {
    nix::unistd::ftruncate(file, size as libc::off_t).map_err(SysError::of("ftruncate"))
}

/// Waits until its bytes are on storage (fdatasync(2)); what cannot be synced, a device, is.
pub fn sync_data(file: BorrowedFd) -> Result<(), SysError> {
    match nix::unistd::fdatasync(file) {
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(SysError::of("fdatasync")(errno)),
    }
}

/// Waits until the names in the directory of a path are on storage.
pub fn sync_names(path: &Path) -> Result<(), SysError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let directory = open_path(directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?;
    nix::unistd::fsync(directory).map_err(SysError::of("fsync"))
}

/// Files take everything at once; a device may be slow, and is waited for as long as it goes on.
pub fn write_all(file: BorrowedFd, mut bytes: &[u8], patience_ms: u16) -> Result<(), SysError> {
    let error = |errno| Err(SysError::of("write")(errno));
    while !bytes.is_empty() {
        match nix::unistd::write(file, bytes) {
            // A file system without room that does not say so.
            Ok(0) => return error(Errno::ENOSPC),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(file, PollFlags::POLLOUT)];
                if poll(&mut fds, PollTimeout::from(patience_ms)) == Ok(0) {
                    return error(Errno::EAGAIN);
                }
            }
            Err(errno) => return error(errno),
        }
    }
    Ok(())
}

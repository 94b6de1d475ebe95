//! Files: pipes, memory files, locks, and writes that survive a power cut at any instruction.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, lstat, stat};

use nix::unistd::{UnlinkatFlags, mkdir, unlinkat};

use super::{SysError, check};

/// Read at once.
const READ_BYTES: usize = 8192;

/// A pipe: (read end, write end), both close-on-exec.
pub fn pipe(nonblocking_read: bool) -> Result<(OwnedFd, OwnedFd), SysError> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(SysError::of("pipe2"))?;
    if nonblocking_read {
        nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(SysError::of("fcntl"))?;
    }
    Ok((read, write))
}

/// A pipe for beats, neither end of which ever waits: one that is full says enough.
pub fn beat_pipe() -> Result<(OwnedFd, OwnedFd), SysError> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(SysError::of("pipe2"))
}

/// Reads what there is, from what never waits; `None`: nothing now. No bytes: the other end is gone.
pub fn read_some(source: BorrowedFd, bytes: &mut [u8]) -> Option<usize> {
    match nix::unistd::read(source, bytes) {
        Err(Errno::EAGAIN | Errno::EINTR) => None,
        result => Some(result.unwrap_or(0)),
    }
}

/// Writes a few bytes; what would have to wait for a reader is dropped.
pub fn write_some(sink: BorrowedFd, bytes: &[u8]) -> Result<(), SysError> {
    match nix::unistd::write(sink, bytes) {
        Err(Errno::EAGAIN | Errno::EINTR) | Ok(_) => Ok(()),
        Err(errno) => Err(SysError::of("write")(errno)),
    }
}

/// Writes a few bytes where a file begins.
pub fn write_at_start(file: BorrowedFd, bytes: &[u8]) -> Result<(), SysError> {
    nix::sys::uio::pwrite(file, bytes, 0).map(drop).map_err(SysError::of("write"))
}

/// Another number for the same; close-on-exec.
pub fn duplicate(descriptor: BorrowedFd) -> Result<OwnedFd, SysError> {
    // SAFETY: integers; the descriptor returned is ours.
    unsafe {
        let number = libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3);
        Ok(OwnedFd::from_raw_fd(check("fcntl", number)?))
    }
}

/// /dev/null, for reading and writing.
pub fn null() -> Result<OwnedFd, SysError> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).map_err(SysError::of("open /dev/null"))
}

/// Opens a path; close-on-exec.
pub(super) fn open_path(path: &Path, flags: OFlag, mode: u32) -> Result<OwnedFd, SysError> {
    open(path, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(mode)).map_err(SysError::of("open"))
}

/// What kind of file it is.
pub(super) fn kind(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT
}

/// Its size.
pub fn size(file: BorrowedFd) -> Result<u64, SysError> {
    Ok(fstat(file).map_err(SysError::of("stat"))?.st_size as u64)
}

/// An empty file in memory.
pub fn memory(name: &CStr) -> Result<OwnedFd, SysError> {
    // SAFETY: a C string and a flag in, a descriptor of our own out.
    unsafe {
        let number = check("memfd_create", libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// A memory file of so many zero bytes that can neither shrink nor grow (fcntl(2), F_ADD_SEALS).
pub fn sealed_memory(name: &CStr, length: u32) -> Result<OwnedFd, SysError> {
    // SAFETY: a C string and documented flags in, a descriptor of our own out.
    let file = unsafe {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        OwnedFd::from_raw_fd(check("memfd_create", libc::memfd_create(name.as_ptr(), flags))?)
    };
    nix::unistd::ftruncate(&file, length as libc::off_t).map_err(SysError::of("ftruncate"))?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: fcntl with an integer argument on a descriptor we own.
    check("fcntl(F_ADD_SEALS)", unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(file)
}

/// The same memory file, open for reading only; who gets that cannot open it otherwise, unless it is
/// root's or its owner's process.
pub fn open_again_to_read(file: &OwnedFd) -> Result<OwnedFd, SysError> {
    open_again(file.as_fd(), 0o444, false)
}

/// The same memory file with a position of its own, to read or to read and write; its mode is set first.
pub fn open_again(file: BorrowedFd, mode: u32, writable: bool) -> Result<OwnedFd, SysError> {
    fchmod(file, Mode::from_bits_truncate(mode)).map_err(SysError::of("chmod"))?;
    let path = ["/proc/self/fd/", &file.as_raw_fd().to_string()].concat();
    open_path(Path::new(&path), if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY }, 0)
}

/// Fills a memory file with zeros and goes to its beginning.
pub fn blank(file: BorrowedFd) {
    let zeros = [0; 4096];
    let (mut at, end) = (0, size(file).unwrap_or(0) as i64);
    while at < end {
        let part = zeros.len().min((end - at) as usize);
        match nix::sys::uio::pwrite(file, &zeros[..part], at) {
            Ok(count) if count > 0 => at += count as i64,
            _ => break,
        }
    }
    let _ = nix::unistd::lseek(file, 0, nix::unistd::Whence::SeekSet);
}

/// The first bytes of a memory file; what it has not is left as it was.
pub fn read_at_start(file: BorrowedFd, bytes: &mut [u8]) {
    let _ = nix::sys::uio::pread(file, bytes, 0);
}

/// All of a memory file, wherever its offset is.
pub fn read_memory(file: BorrowedFd) -> Result<Vec<u8>, SysError> {
    let length = size(file)? as usize;
    let mut bytes = vec![0; length];
    let mut done = 0;
    while done < length {
        match nix::sys::uio::pread(file, &mut bytes[done..], done as i64).map_err(SysError::of("pread"))? {
            0 => break,
            count => done += count,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// Writes all of it where the file's offset is: in a memory file that nothing else moves, the end.
pub fn append(file: BorrowedFd, mut bytes: &[u8]) -> Result<(), SysError> {
    while !bytes.is_empty() {
        match nix::unistd::write(file, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::of("write")(errno)),
        }
    }
    Ok(())
}

/// Takes the lock of a directory, for as long as the descriptor lives. `Ok(None)`: another has it.
pub fn lock(path: &Path) -> Result<Option<OwnedFd>, SysError> {
    let file = match open_path(path, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW, 0o600) {
        // Where no file can be made, the directory is locked.
        Err(error) if error.is_of_storage() => {
            open_path(path.parent().unwrap_or(path), OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)
                .map_err(|_| error)?
        }
        file => file?,
    };
    // The lock lies on the open file, which guard and supervisor share; children, whose copy is
    // closed by their exec, do not hold it.
    // SAFETY: a valid descriptor and a flag.
    let result =
        unsafe { libc::flock(std::os::fd::AsRawFd::as_raw_fd(&file), libc::LOCK_EX | libc::LOCK_NB) };
    match check("flock", result) {
        Ok(_) => Ok(Some(file)),
        Err(error) if error.errno == libc::EWOULDBLOCK => Ok(None),
        Err(error) => Err(error),
    }
}

/// Permission bits of a path.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), SysError> {
    let (mode, follow) = (Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink);
    fchmodat(AT_FDCWD, path, mode, follow).map_err(SysError::of("chmod"))
}

/// Owner of a path.
pub fn set_owner(path: &Path, user: u32, group: u32) -> Result<(), SysError> {
    nix::unistd::chown(path, Some(user.into()), Some(group.into())).map_err(SysError::of("chown"))
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) {
    let _ = nix::unistd::unlink(path);
}

/// Removes a directory in which there are only files.
pub fn remove_directory(path: &Path) {
    each_name(path, &mut |name, _| remove(&path.join(OsStr::from_bytes(name.to_bytes()))));
    let _ = unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir);
}

/// Makes a directory for us alone, which must not be there.
pub fn make_own_directory(path: &Path) -> Result<(), SysError> {
    mkdir(path, Mode::S_IRWXU).map_err(SysError::of("mkdir"))
}

/// Makes it this process's working directory.
pub fn enter(path: &Path) -> Result<(), SysError> {
    let path = c_path(path)?;
    // SAFETY: a C string.
    check("chdir", unsafe { libc::chdir(path.as_ptr()) }).map(drop)
}

/// Gives a file another name.
pub fn rename(from: &Path, to: &Path) -> Result<(), SysError> {
    renameat(AT_FDCWD, from, AT_FDCWD, to).map_err(SysError::of("rename"))
}

/// All of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, SysError> {
    read_at_most(open_path(path, OFlag::O_RDONLY, 0)?, usize::MAX)
}

/// Reads at most `limit` bytes of a regular file; more is an error (EFBIG).
pub fn read_bounded(path: &Path, limit: usize) -> Result<Vec<u8>, SysError> {
    // Not to wait for a FIFO's writer or a tape: only regular files are configuration.
    let file = open_path(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?;
    if kind(&fstat(&file).map_err(SysError::of("stat"))?) == SFlag::S_IFDIR {
        return Err(SysError { operation: "read", errno: libc::EISDIR });
    }
    read_at_most(file, limit)
}

fn read_at_most(file: OwnedFd, limit: usize) -> Result<Vec<u8>, SysError> {
    let mut bytes = Vec::new();
    loop {
        let length = bytes.len();
        if length > limit {
            return Err(SysError { operation: "read", errno: libc::EFBIG });
        }
        bytes.resize(length + READ_BYTES, 0);
        let read = nix::unistd::read(&file, &mut bytes[length..]);
        bytes.truncate(length + read.unwrap_or(0));
        match read {
            Ok(0) => return Ok(bytes),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::of("read")(errno)),
        }
    }
}

/// Opens a file that only we may have made, which therefore is believed: a regular one of our own
/// user, no symbolic link.
pub fn open_own(path: &Path, writable: bool) -> Result<OwnedFd, SysError> {
    let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    // Not to wait for a FIFO's other end before it can be refused.
    let file = open_path(path, access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK, 0)?;
    let status = fstat(&file).map_err(SysError::of("stat"))?;
    if kind(&status) == SFlag::S_IFREG && status.st_uid == own_user() {
        Ok(file)
    } else {
        Err(SysError { operation: "file owner", errno: libc::EPERM })
    }
}

/// Like [`read_bounded`], of a file that is believed ([`open_own`]).
pub fn read_own(path: &Path, limit: usize) -> Result<Vec<u8>, SysError> {
    read_at_most(open_own(path, false)?, limit)
}

fn own_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A path names a regular file.
pub fn is_regular(path: &Path) -> bool {
    lstat(path).is_ok_and(|status| kind(&status) == SFlag::S_IFREG)
}

/// When a file was last written: seconds since 1970, before it negative (statx(2)). Not by the C
/// library, whose calls on 32-bit machines end in January 2038.
pub fn modified(path: &Path) -> Result<i64, SysError> {
    let path = c_path(path)?;
    // SAFETY: integers and arrays of them, for which zero is a value.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: a C string, and a structure that lives across the call.
    let result = unsafe {
        libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), 0, libc::STATX_MTIME, &mut found)
    };
    check("statx", result as libc::c_int)?;
    Ok(found.stx_mtime.tv_sec)
}

/// The system call that takes 64-bit times everywhere (`utimensat_time64` since Linux 5.1).
#[cfg(target_pointer_width = "32")]
const SYS_UTIMENSAT: libc::c_long = 412;
#[cfg(not(target_pointer_width = "32"))]
const SYS_UTIMENSAT: libc::c_long = libc::SYS_utimensat;

/// Dates a file: last read and written at this second since 1970 (utimensat(2)).
pub fn set_modified(path: &Path, seconds: i64) -> Result<(), SysError> {
    let path = c_path(path)?;
    // Two times, each of seconds and nanoseconds.
    let times = [seconds, 0, seconds, 0];
    // SAFETY: a C string, and two times that live across the call.
    let result = unsafe { libc::syscall(SYS_UTIMENSAT, libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), 0) };
    check("utimensat", result as libc::c_int).map(drop)
}

/// Dates a file now, or makes it.
pub fn touch(path: &Path) -> Result<(), SysError> {
    let name = c_path(path)?;
    let now = std::ptr::null::<i64>();
    // SAFETY: a C string; no times mean the present.
    let result = unsafe { libc::syscall(SYS_UTIMENSAT, libc::AT_FDCWD, name.as_ptr(), now, 0) };
    match check("utimensat", result as libc::c_int) {
        Err(error) if error.errno == libc::ENOENT => {
            open_path(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK, 0o644).map(drop)
        }
        result => result.map(drop),
    }
}

fn c_path(path: &Path) -> Result<CString, SysError> {
    let einval = |_| SysError { operation: "path", errno: libc::EINVAL };
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(einval)
}

/// A path still names this very file.
pub fn is_still(path: &Path, file: BorrowedFd) -> bool {
    let identity = |status: FileStat| (status.st_dev, status.st_ino);
    let named = lstat(path).map(identity);
    named.is_ok() && named == fstat(file).map(identity)
}

/// Replaces a file so that a power cut at any instruction leaves the old one or the new one:
/// written beside it, synced, renamed over it, directory synced.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), SysError> {
    replace_with(path, bytes, 0o600)
}

/// The same with a mode, less what our umask takes.
pub fn replace_with(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SysError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut beside = PathBuf::from(path).into_os_string();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // One that a power cut left; none is no matter. What somebody puts there after this is refused.
    remove(&beside);
    let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let file = open_path(&beside, new, mode)?;
    append(file.as_fd(), bytes)?;
    sync(&file)?;
    rename(&beside, path)?;
    sync(&open_path(directory, OFlag::O_RDONLY, 0)?)
}

/// Returns when what somebody else wrote, maybe just now, is on storage under this name. Where there is nothing to wait for
/// (a pipe, a file system that nobody can write to), at once.
pub fn settle(path: &Path) -> Result<(), SysError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    for path in [path, directory] {
        match sync(&open_path(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?) {
            Err(error) if ![libc::EINVAL, libc::EROFS].contains(&error.errno) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Writes over a part of a file that is believed ([`open_own`]) and has that part already, and syncs it.
pub fn overwrite_own(path: &Path, bytes: &[u8], offset: usize) -> Result<(), SysError> {
    let file = open_own(path, true)?;
    match nix::sys::uio::pwrite(&file, bytes, offset as i64).map_err(SysError::of("write"))? {
        written if written == bytes.len() => sync(&file),
        _ => Err(SysError { operation: "write", errno: libc::EIO }),
    }
}

/// Makes a symbolic link that leads to `target`.
pub fn link(target: &Path, link: &Path) -> Result<(), SysError> {
    nix::unistd::symlinkat(target, AT_FDCWD, link).map_err(SysError::of("symlink"))
}

fn sync(file: &OwnedFd) -> Result<(), SysError> {
    nix::unistd::fsync(file).map_err(SysError::of("fsync"))
}

/// Makes a directory and what leads to it, unless it is there. Others cannot write there, whatever our umask is.
pub(super) fn make_directories(path: &Path) -> Result<(), SysError> {
    let is_there = || stat(path).is_ok_and(|status| kind(&status) == SFlag::S_IFDIR);
    if path.as_os_str().is_empty() || is_there() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
    }
    match mkdir(path, Mode::from_bits_truncate(0o755)) {
        // Another was faster.
        Err(Errno::EEXIST) if is_there() => Ok(()),
        other => other.map_err(SysError::of("mkdir")),
    }
}

/// Makes a directory and what leads to it. One that is there already must be safe to keep files in:
/// what lies in it is believed later, sockets in it take orders.
pub fn make_directory(path: &Path, mode: u32) -> Result<(), SysError> {
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
    }
    match mkdir(path, Mode::from_bits_truncate(mode)) {
        Ok(()) => {}
        // It is there, or another was faster, whoever that is.
        Err(Errno::EEXIST) => return check_directory(path),
        Err(errno) => return Err(SysError::of("mkdir")(errno)),
    }
    // The umask took bits. Through a descriptor: the name may lead elsewhere by now.
    let made = open_path(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, 0)?;
    if fstat(&made).map_err(SysError::of("stat"))?.st_uid != own_user() {
        return Err(SysError { operation: "directory owner", errno: libc::EPERM });
    }
    fchmod(&made, Mode::from_bits_truncate(mode)).map_err(SysError::of("chmod"))
}

/// Nobody but us and root can put something into the directory, or another one in its place.
fn check_directory(path: &Path) -> Result<(), SysError> {
    let trusted = |status: &FileStat| [0, own_user()].contains(&status.st_uid);
    // The name itself, which may be a symbolic link (/var/run), and what it leads to.
    let name = lstat(path).map_err(SysError::of("stat"))?;
    let directory = stat(path).map_err(SysError::of("stat"))?;
    if kind(&directory) != SFlag::S_IFDIR {
        return Err(SysError { operation: "mkdir", errno: libc::ENOTDIR });
    }
    if !trusted(&name) || !trusted(&directory) {
        return Err(SysError { operation: "directory owner", errno: libc::EPERM });
    }
    // In a sticky one nobody can replace what is another's.
    let (is_open, is_sticky) = (directory.st_mode & 0o022 != 0, directory.st_mode & 0o1000 != 0);
    if is_open && !is_sticky {
        return Err(SysError { operation: "directory writable by others", errno: libc::EPERM });
    }
    Ok(())
}

/// Whether there is something of this name, be it a link that leads nowhere.
pub fn exists(path: &str) -> bool {
    lstat(Path::new(path)).is_ok()
}

/// Names what is in a directory, in no order, and says of each whether it is a directory; of nothing,
/// where there is none.
pub fn each_name(path: &Path, found: &mut dyn FnMut(&CStr, bool)) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut directory) = Dir::open(path, flags, Mode::empty()) else { return };
    for entry in directory.iter().flatten() {
        let name = entry.file_name();
        if name != c"." && name != c".." {
            found(name, entry.file_type() == Some(Type::Directory));
        }
    }
}

/// The directories in a directory.
pub fn directories(path: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    each_name(path, &mut |name, is_directory| {
        if is_directory {
            directories.push(path.join(OsStr::from_bytes(name.to_bytes())));
        }
    });
    directories
}

/// Waits until something in a directory changes (inotify(7)); for jobs.
pub struct Watch(nix::sys::inotify::Inotify);

impl Watch {
    /// Watches a directory for files that appear or were written.
    pub fn directory(path: &Path) -> Result<Self, SysError> {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).map_err(SysError::of("inotify_init1"))?;
        let changes = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE;
        inotify.add_watch(path, changes).map_err(SysError::of("inotify_add_watch"))?;
        Ok(Watch(inotify))
    }

    /// Waits for the next change, at most so long.
    pub fn wait(&self, timeout_ms: u16) {
        if super::poll::wait_readable(self.0.as_fd(), Some(timeout_ms)) {
            // What changed does not matter, the caller looks.
            let _ = nix::unistd::read(&self.0, &mut [0; 4096]);
        }
    }
}

/// Waits; for jobs that have nothing to wait for.
pub fn pause(milliseconds: u16) {
    use nix::poll::{PollTimeout, poll};
    // Cut short by a signal is no harm.
    let _ = poll(&mut [], PollTimeout::from(milliseconds));
}

/// Closes every descriptor from 3 on but these.
pub fn close_all_but(kept: &mut [i32]) {
    kept.sort_unstable();
    let mut from = 3;
    for number in kept {
        close_range(from, *number - 1);
        from = *number + 1;
    }
    close_range(from, i32::MAX);
}

/// Closes descriptors `first..=last` (close_range(2)); none if the range is empty.
pub fn close_range(first: i32, last: i32) {
    if first <= last {
        // SAFETY: closes numbers whose owners are gone (callers' duty); touches no memory.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn scratch(test: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("multusd-file-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        make_directory(&directory, 0o755).unwrap();
        directory
    }

    #[test]
    fn a_directory_that_others_may_change_is_refused() {
        let directory = scratch("directory");
        let inner = directory.join("a/b");
        make_directory(&inner, 0o755).unwrap();
        make_directory(&inner, 0o755).unwrap();
        for (mode, is_good) in [(0o775, false), (0o757, false), (0o1777, true), (0o700, true)] {
            set_mode(&inner, mode).unwrap();
            assert_eq!(make_directory(&inner, 0o755).is_ok(), is_good, "{mode:o}");
        }
        let link = directory.join("link");
        symlink(&inner, &link).unwrap();
        make_directory(&link, 0o755).unwrap();
        if own_user() == 0 {
            let refusal = Err(SysError { operation: "directory owner", errno: libc::EPERM });
            std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
            assert_eq!(make_directory(&link, 0o755), refusal, "another's link");
            set_owner(&inner, 65_534, 65_534).unwrap();
            assert_eq!(make_directory(&inner, 0o755), refusal, "another's directory");
        }
        fs::write(directory.join("file"), "").unwrap();
        make_directory(&directory.join("file"), 0o755).unwrap_err();
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_link_planted_beside_a_file_that_is_replaced_is_not_followed() {
        let directory = scratch("replace");
        let (path, victim) = (directory.join("x"), directory.join("victim"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, directory.join("x.new")).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(read_own(&path, 10).unwrap(), b"new");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn only_a_regular_file_of_our_own_is_believed() {
        let directory = scratch("own");
        let (path, link, fifo) = (directory.join("x"), directory.join("link"), directory.join("fifo"));
        fs::write(&path, "words").unwrap();
        symlink(&path, &link).unwrap();
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(read_own(&path, 5).unwrap(), b"words");
        read_own(&path, 4).unwrap_err();
        read_own(&link, 5).unwrap_err();
        read_own(&fifo, 5).unwrap_err();
        if own_user() == 0 {
            set_owner(&path, 65_534, 65_534).unwrap();
            read_own(&path, 5).unwrap_err();
        }
        fs::remove_dir_all(directory).unwrap();
    }
}

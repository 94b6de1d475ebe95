//! The life file, `RUN/life`: what a later life of multusd must know to end what this one leaves,
//! should guard and supervisor both be killed. One record per program, written by the process
//! itself between clone and exec, through a shared mapping: no system call, no moment without.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use nix::fcntl::OFlag;

use super::{SysError, file, proc};
use crate::limits::CHILD_COUNT_MAX;

/// One program's process: id, and between which points of CLOCK_BOOTTIME (nanoseconds) it began.
#[repr(C)]
pub struct LifeRecord {
    pid: AtomicU64,
    after: AtomicU64,
    before: AtomicU64,
}

impl LifeRecord {
    /// The process itself, before its exec. The id comes last: with it the record is whole.
    pub fn write(&self, pid: u32, after: u64, before: u64) {
        self.pid.store(0, SeqCst);
        self.after.store(after, SeqCst);
        self.before.store(before, SeqCst);
        self.pid.store(u64::from(pid), SeqCst);
    }
}

#[repr(C)]
struct Layout {
    magic: AtomicU64,
    life: AtomicU64,
    records: [LifeRecord; CHILD_COUNT_MAX],
}

const MAGIC: u64 = u64::from_le_bytes(*b"multlif1");

/// The file, mapped.
#[derive(Clone, Copy)]
pub struct LifeFile(&'static Layout);

/// What a former life left.
pub struct FormerLife {
    /// Its number, in the environment of its children.
    pub life: u64,
    /// Its programs' processes that are still alive, and are theirs.
    pub processes: Vec<u32>,
}

/// Gives a new file its blocks now: a full file system must not show as SIGBUS later. Not for one
/// that is in use: where the file system cannot allocate, this writes.
fn allocate(file: &OwnedFd) -> Result<(), SysError> {
    let length = size_of::<Layout>();
    loop {
        // The error is the result, errno stays as it is.
        // SAFETY: a valid descriptor and integers.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length as libc::off_t) } {
            0 => return Ok(()),
            libc::EINTR => {}
            // Not every C library writes by itself where the file system knows no such call.
            libc::EOPNOTSUPP => return file::append(file.as_fd(), &vec![0; length]),
            errno => return Err(SysError { operation: "posix_fallocate", errno }),
        }
    }
}

impl LifeFile {
    /// Reads what a former life left; `None`: nothing, or nothing that can be read. What it names is
    /// killed, so only a file that is ours is believed.
    pub fn former(path: &Path) -> Option<FormerLife> {
        let bytes = file::read_own(path, size_of::<Layout>()).ok()?;
        let mut words =
            bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
        if words.next()? != MAGIC {
            return None;
        }
        let life = words.next()?;
        let words: Vec<u64> = words.collect();
        let processes = words
            .chunks_exact(3)
            .filter(|record| record[0] != 0)
            .filter(|record| proc::was_born_between(record[0] as u32, record[1], record[2]))
            .map(|record| record[0] as u32)
            .collect();
        Some(FormerLife { life, processes })
    }

    /// Begins a new life: a fresh file in place of the old one.
    pub fn create(path: &Path, life: u64) -> Result<LifeFile, SysError> {
        // A new inode: what of a former life still has the old one mapped writes there.
        file::remove(path);
        let file = file::open_path(path, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL, 0o600)?;
        let opened = allocate(&file).and_then(|()| LifeFile::map(&file)).inspect_err(|_| {
            // One with holes must not be taken for a whole one later; it may be gone already.
            file::remove(path);
        })?;
        opened.0.life.store(life.to_le(), SeqCst);
        opened.0.magic.store(MAGIC.to_le(), SeqCst);
        Ok(opened)
    }

    /// The same where no file can be made: no later life finds it.
    pub fn in_memory() -> Result<LifeFile, SysError> {
        LifeFile::map(&file::sealed_memory(c"multusd-life", size_of::<Layout>() as u32)?)
    }

    /// The present life's file, for a supervisor that takes over.
    pub fn open(path: &Path) -> Result<LifeFile, SysError> {
        let file = file::open_own(path, true)?;
        if file::size(file.as_fd())? != size_of::<Layout>() as u64 {
            return Err(SysError { operation: "life file", errno: libc::EINVAL });
        }
        LifeFile::map(&file)
    }

    fn map(file: &OwnedFd) -> Result<LifeFile, SysError> {
        // SAFETY: a new shared mapping of a file that only root (or our own user) can touch.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Layout>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(SysError::last("mmap"));
        }
        // SAFETY: page-aligned, as long as Layout, zeroed, all atomics, never unmapped.
        let layout = unsafe { &*address.cast::<Layout>() };
        Ok(LifeFile(layout))
    }

    /// One program's record.
    pub fn record(&self, index: usize) -> &'static LifeRecord {
        &self.0.records[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_life_names_only_processes_that_are_the_same_still() {
        let path = std::env::temp_dir().join(format!("multusd-life-{}", std::process::id()));
        let life = LifeFile::create(&path, 0xfeed).unwrap();
        let own = std::process::id();
        life.record(0).write(own, 0, crate::sys::clock::boot_nanos());
        life.record(1).write(own, 0, 1); // the same number, but a process of long ago
        let former = LifeFile::former(&path).unwrap();
        assert_eq!((former.life, former.processes), (0xfeed, vec![own]));
        std::fs::remove_file(&path).unwrap();
    }
    #[test]
    fn a_life_file_behind_a_link_or_of_another_is_not_believed() {
        let path = std::env::temp_dir().join(format!("multusd-life-link-{}", std::process::id()));
        let link = path.with_extension("link");
        LifeFile::create(&path, 0xfeed).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(LifeFile::former(&path).is_some());
        assert!(LifeFile::former(&link).is_none() && LifeFile::open(&link).is_err());
        if nix::unistd::geteuid().is_root() {
            crate::sys::file::set_owner(&path, 65_534, 65_534).unwrap();
            assert!(LifeFile::former(&path).is_none() && LifeFile::open(&path).is_err());
        }
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_system_without_room_is_an_error_and_no_later_fault() {
        // A device that is always full stands in: it cannot be allocated either.
        let full = file::open_path(Path::new("/dev/full"), OFlag::O_WRONLY, 0).unwrap();
        allocate(&full).unwrap_err();
    }
}

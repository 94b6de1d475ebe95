//! The page of a `counter` heartbeat: a sealed memory file (memfd_create(2)) whose first eight bytes are
//! the CLOCK_MONOTONIC nanoseconds of the last beat, in the machine's byte order. The program writes them
//! through its mapping without a system call; the supervisor reads the file when a deadline is due.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{SysError, clock, file};

/// The page's length.
const BYTES: u32 = 4096;

/// A page that has seen no beat. It can neither grow nor shrink, whoever has it.
pub fn page() -> Result<OwnedFd, SysError> {
    file::sealed_memory(c"multusd-beat", BYTES)
}

/// The time on the page, as its program wrote it: nothing about it is believed. 0: no beat yet.
pub fn read(page: BorrowedFd) -> u64 {
    let once = || {
        let mut bytes = [0; 8];
        // Cannot be short: the page has its length for ever.
        let _ = nix::sys::uio::pread(page, &mut bytes, 0);
        u64::from_ne_bytes(bytes)
    };
    // A 32-bit machine may write it in two halves; the same twice is whole.
    let mut last = once();
    for _ in 0..3 {
        let again = once();
        if again == last {
            break;
        }
        last = again;
    }
    last
}

/// The page as its program sees it. Stays mapped for as long as the process lives.
#[derive(Clone, Copy)]
pub struct Mapped(&'static AtomicU64);

impl Mapped {
    /// Maps the page that was inherited.
    pub fn new(page: BorrowedFd) -> Result<Mapped, SysError> {
        if file::size(page)? < 8 {
            return Err(SysError { operation: "mmap", errno: libc::EINVAL });
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new shared mapping; nobody's memory is replaced.
        let address = unsafe {
            libc::mmap(core::ptr::null_mut(), BYTES as usize, access, libc::MAP_SHARED, page.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(SysError::last("mmap"));
        }
        // SAFETY: page-aligned, as long as an AtomicU64 and more, never unmapped, and the file's seals
        // keep it from shrinking.
        Ok(Mapped(unsafe { &*address.cast::<AtomicU64>() }))
    }

    /// One beat: a clock read and a store, neither of which is a system call.
    pub fn beat(self) {
        self.0.store(clock::now().0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_a_program_writes_through_its_mapping_is_read_from_the_file() {
        let page = page().unwrap();
        assert_eq!(read(page.as_fd()), 0);
        let before = clock::now().0;
        Mapped::new(page.as_fd()).unwrap().beat();
        let first = read(page.as_fd());
        assert!(first >= before && first <= clock::now().0);
        assert!(nix::unistd::ftruncate(&page, 0).is_err(), "sealed");
    }
}

//! The process's own memory: given back, or locked.

use core::ffi::{c_int, c_void};
use core::ptr;

use super::{SysError, check};

/// The deepest the stack has been, generously: far more than a start ever takes, and less than the
/// megabyte that the kernel keeps free below a stack.
const STACK_BYTES: usize = 512 << 10;

/// Room below the frame for the calls made here: three, none of which needs a kilobyte.
const STACK_IN_USE: usize = 4 << 10;

/// Code and constants, as two or three parts of the executable; never more are given back.
const PART_COUNT_MAX: usize = 4;

/// A part of the address space: its first byte, and the one after its last.
type Part = (usize, usize);

type Parts = heapless::Vec<Part, PART_COUNT_MAX>;

/// The parts of the executable that nothing ever writes to: headers, constants, code (elf(5), PT_LOAD
/// without PF_W).
///
/// One by one, because between them is not ours: segments lie up to 64 kB apart, where pages can be
/// so large, and the kernel gives the gap to the next mapping, the heap's above all.
pub fn unwritten() -> Parts {
    unsafe extern "C" fn executable(info: *mut libc::dl_phdr_info, _: usize, parts: *mut c_void) -> c_int {
        // SAFETY: what dl_iterate_phdr(3) gives is valid during this call, and so is what it passes on.
        let (info, parts) = unsafe { (&*info, &mut *parts.cast::<Parts>()) };
        for index in 0..usize::from(info.dlpi_phnum) {
            // SAFETY: the table has that many entries.
            let header = unsafe { &*info.dlpi_phdr.add(index) };
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
                let start = info.dlpi_addr as usize + header.p_vaddr as usize;
                // What does not fit is not given back.
                let _ = parts.push((start, start + header.p_memsz as usize));
            }
        }
        // The executable is the first; libraries, where there are any, are not ours alone.
        1
    }
    let mut parts = Parts::new();
    // SAFETY: the function is of the kind wanted, and keeps nothing.
    unsafe { libc::dl_iterate_phdr(Some(executable), (&raw mut parts).cast()) };
    parts
}

/// Gives back what only the start of this process needed (madvise(2), MADV_DONTNEED).
///
/// Of the executable: the pages of its code and constants. What is needed again comes back from the page
/// cache at its next use, 64 kB at a time; what is not, reading a configuration above all, no longer
/// counts as ours. Of the stack: what lies below the frame of the caller. Without effect where pages
/// are locked.
pub fn give_back() {
    // SAFETY: a constant in, a number out; the kernel has always given this one.
    let page = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
    if !page.is_power_of_two() {
        return;
    }
    let here = (&raw const page).addr();
    let stack = (here.saturating_sub(STACK_BYTES), here.saturating_sub(STACK_IN_USE));
    for (start, end) in unwritten().into_iter().chain([stack]) {
        // Whole pages, no more than was meant.
        let (start, end) = (start.next_multiple_of(page), end & !(page - 1));
        if let Some(length) = end.checked_sub(start) {
            // SAFETY: the parts are private mappings of a file that nothing writes to, so their pages
            // can be read again at any time; below the frames in use the stack holds nothing that is
            // read before it is written. What is not mapped there is passed over.
            unsafe { libc::madvise(ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED) };
        }
    }
}

/// Stack that is there before it is needed: the loop's deepest chain of calls, with the buffers for packets.
const STACK_LOCKED: usize = 64 << 10;

/// Keeps everything this process has now in memory (mlockall(2)), the whole executable too, so that no step of it
/// waits for storage; or no longer. Pages that were never touched come when they are (Linux 4.4). Not inherited.
pub fn lock(wanted: bool) -> Result<(), SysError> {
    // What is mapped later is not locked: where memory may be locked up to a limit only, asking for more of it would
    // fail then. Whoever allocates calls this again.
    // SAFETY: flags only.
    unsafe {
        if !wanted {
            return check("munlockall", libc::munlockall()).map(drop);
        }
        let flags = libc::MCL_CURRENT | libc::MCL_ONFAULT;
        // The call itself: where the C library has none of its own name for it, it has the number.
        check("mlockall", libc::syscall(libc::SYS_mlockall, flags) as c_int)?;
    }
    for (start, end) in unwritten() {
        // SAFETY: addresses only; the kernel rounds to pages.
        let result = check("mlock", unsafe { libc::mlock(ptr::with_exposed_provenance(start), end - start) });
        if let Err(error) = result {
            // At the limit: a locked stack could not grow any more.
            // SAFETY: no arguments.
            unsafe { libc::munlockall() };
            return Err(error);
        }
    }
    Ok(())
}

/// Has that much stack from now on, and locked where that was asked for before.
#[inline(never)]
pub fn touch_stack() {
    core::hint::black_box(&mut [0_u8; STACK_LOCKED]);
}

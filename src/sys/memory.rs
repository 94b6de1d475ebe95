//! The process's own memory.

use core::ptr;

unsafe extern "C" {
    // Set by the linker (ld(1), "etext"): the executable's first byte, and the end of its code. Between
    // them lie headers, constants and code, in this order, none of which is ever written to.
    static __executable_start: u8;
    static etext: u8;
}

/// The deepest the stack has been, generously: far more than a start ever takes, and less than the
/// megabyte that the kernel keeps free below a stack.
const STACK_BYTES: usize = 512 << 10;

/// Room below the caller's frame for the calls made here.
const STACK_IN_USE: usize = 16 << 10;

/// Gives back what only the start of this process needed (madvise(2), MADV_DONTNEED).
///
/// Of the executable: all its pages. What is needed again comes back from the page cache at its next use,
/// 64 kB at a time; what is not, reading a configuration above all, no longer counts as ours. Of
/// the stack: what lies below the frame of the caller. Without effect where pages are locked.
pub fn give_back() {
    // SAFETY: a constant in, a number out; the kernel has always given this one.
    let page = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
    if !page.is_power_of_two() {
        return;
    }
    let here = (&raw const page).addr();
    let code = ((&raw const __executable_start).addr(), (&raw const etext).addr());
    let stack = (here.saturating_sub(STACK_BYTES), here.saturating_sub(STACK_IN_USE));
    for (start, end) in [code, stack] {
        // Whole pages, no more than was meant.
        let (start, end) = (start.next_multiple_of(page), end & !(page - 1));
        if let Some(length) = end.checked_sub(start) {
            // SAFETY: the code is a private mapping of a file that nothing has written to, so its pages
            // can be read again at any time; below the frames in use the stack holds nothing that is
            // read before it is written. What is not mapped there is passed over.
            unsafe { libc::madvise(ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED) };
        }
    }
}

//! The process's own memory.

use core::ptr;

unsafe extern "C" {
    // Set by the linker (ld(1), "etext"): the executable's first byte, and the end of its code. Between
    // them lie headers, constants and code, in this order, none of which is ever written to.
    static __executable_start: u8;
    static etext: u8;
}

/// Gives back what only the start of this process needed of the executable's pages, that is: unmaps
/// all of them (madvise(2), MADV_DONTNEED). What is needed again comes back from the page cache at its
/// next use, 64 kB at a time; what is not, reading a configuration above all, no longer counts as
/// ours. Without effect where the executable is elsewhere or its pages are locked.
pub fn give_back_code() {
    // SAFETY: a constant in, a number out; the kernel has always given this one.
    let page = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
    // SAFETY: only addresses are taken, and the range is the executable's own: a private mapping of a file that
    // nothing has written to, so its pages can be read again at any time. What is beyond whole
    // pages of it is left alone. On failure nothing has changed.
    unsafe {
        let start = (&raw const __executable_start).addr().next_multiple_of(page);
        let end = (&raw const etext).addr() & !(page - 1);
        if let Some(length) = end.checked_sub(start) {
            libc::madvise(ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED);
        }
    }
}

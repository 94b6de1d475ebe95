//! Waiting for a word in shared memory to change, and waking who waits (futex(2)).

use core::sync::atomic::AtomicU32;

use crate::time::Millis;

/// The call whose times are 64 bit wide.
#[cfg(target_pointer_width = "64")]
const FUTEX: libc::c_long = libc::SYS_futex;
/// The same on 32-bit machines (Linux 5.1).
#[cfg(target_pointer_width = "32")]
const FUTEX: libc::c_long = 422;

/// Waits while the word is `known`, at most so long; may return for no reason. The word may be in memory
/// that is mapped for reading only.
pub fn wait(word: &AtomicU32, known: u32, at_most: Option<Millis>) {
    let time = at_most.map(|time| [(time.0 / 1000) as i64, (time.0 % 1000 * 1_000_000) as i64]);
    let time = time.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: a word that lives across the call, and a time as this call takes it, or none.
    unsafe { libc::syscall(FUTEX, word.as_ptr(), libc::FUTEX_WAIT, known, time) };
}

/// Wakes everybody who waits for this word.
pub fn wake(word: &AtomicU32) {
    // SAFETY: a word that lives across the call.
    unsafe { libc::syscall(FUTEX, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

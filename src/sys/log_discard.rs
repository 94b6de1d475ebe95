//! Throwing away what nobody takes, so that no program waits for its log: the supervisor's part of the log ring
//! (`log_ring.rs`). What is thrown away goes through the discard area behind the ring, by an offset of its own that
//! moves with it, and is counted there: however often supervisors are killed, every byte is counted once.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering::SeqCst;

use super::log_collect::{offset, set_offset, splice};
use super::log_ring::{AREA, DISCARD_BYTES, Ring};

/// In the discard's state: the counts are made.
const COUNTED: u32 = 1 << 31;

impl Ring {
    /// Throws away what a pipe has, at most as much as a pipe holds by default; how many bytes.
    pub fn discard(&self, again: BorrowedFd, stream: usize, pipe: BorrowedFd) -> u64 {
        self.settle_discard(again);
        set_offset(again, AREA + self.size);
        self.header.discard.state.store(stream as u32 + 1, SeqCst);
        splice(pipe, again, DISCARD_BYTES);
        self.settle_discard(again)
    }

    /// Counts what was thrown away, by a former supervisor too.
    pub fn settle_discard(&self, again: BorrowedFd) -> u64 {
        let discard = &self.header.discard;
        let state = discard.state.load(SeqCst);
        if state == 0 {
            return 0;
        }
        let words = self.stream(usize::from(state as u16) - 1);
        let count = offset(again).saturating_sub(AREA + self.size);
        if state & COUNTED == 0 {
            if count == 0 {
                discard.state.store(0, SeqCst);
                return 0;
            }
            let (lines, torn) = self.count_lines(self.size, count);
            discard.torn.store(torn.into(), SeqCst);
            discard.lines.store(words.dropped_lines.load(SeqCst) + lines, SeqCst);
            discard.bytes.store(words.dropped_bytes.load(SeqCst) + count, SeqCst);
            discard.state.store(state | COUNTED, SeqCst);
        }
        words.torn.store(discard.torn.load(SeqCst), SeqCst);
        words.dropped_lines.store(discard.lines.load(SeqCst), SeqCst);
        words.dropped_bytes.store(discard.bytes.load(SeqCst), SeqCst);
        self.header.drop_count.fetch_add(1, SeqCst);
        discard.state.store(0, SeqCst);
        count
    }

    /// The discard area is not needed any more: its memory is given back (fallocate(2), FALLOC_FL_PUNCH_HOLE).
    pub fn give_back_discarded(&self, again: BorrowedFd) {
        let (how, from) = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, AREA + self.size);
        // SAFETY: integers; where the kernel does not do it, the memory stays ours.
        unsafe { libc::fallocate(again.as_raw_fd(), how, from as libc::off_t, DISCARD_BYTES as libc::off_t) };
    }
}

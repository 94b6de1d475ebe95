//! The collector's step: from a pipe into the ring (`log_ring.rs`). The kernel moves the bytes (splice(2)) to where the
//! ring's file offset points, and the offset with them: whenever the collector is killed, the offset says what was
//! taken. Never waits, and touches no storage.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering::SeqCst;

use super::clock;
use super::log_ring::{AREA, DATA_BYTES_MAX, FILLER, NOTICE, RECORD_BYTES, Record, Ring, UNSURE};

/// In `intent`: it is a notice.
const INTENT_NOTICE: u64 = 1 << 63;
/// Where less than this is left at the end of the area, the next record begins anew.
const ROOM_MIN: u64 = 512;
/// A notice's words: lines, bytes, cut, torn; then the stream's `told_lines`, `told_bytes`, `told_cut` with it.
const NOTICE_WORDS: usize = 7;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many bytes were taken.
    Bytes(u64),
    /// There was nothing.
    Nothing,
    /// There is no room: nothing more can be overwritten without losing it. See [`Collector::overwrite`].
    Full,
}

/// Puts records into the ring. There is one at a time.
pub struct Collector<'a> {
    ring: Ring,
    file: BorrowedFd<'a>,
}

/// Where a file's next byte goes.
pub(super) fn offset(file: BorrowedFd) -> u64 {
    // SAFETY: integers.
    (unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) }).max(0) as u64
}

/// Sets it.
pub(super) fn set_offset(file: BorrowedFd, to: u64) {
    // SAFETY: integers; a position within a memory file is not refused.
    unsafe { libc::lseek(file.as_raw_fd(), to as libc::off_t, libc::SEEK_SET) };
}

/// Moves what a pipe has, at most so much, to where the file's offset points; how much.
pub(super) fn splice(pipe: BorrowedFd, file: BorrowedFd, bytes: u64) -> u64 {
    let (none, flags) = (core::ptr::null_mut(), libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE);
    // SAFETY: descriptors and numbers.
    let count =
        unsafe { libc::splice(pipe.as_raw_fd(), none, file.as_raw_fd(), none, bytes as usize, flags) };
    count.max(0) as u64
}

impl<'a> Collector<'a> {
    /// The collector; what a former one was about to do is finished first. `file` is what [`super::log_ring::create`]
    /// made, or a copy of its number.
    pub fn new(ring: Ring, file: BorrowedFd<'a>) -> Self {
        let collector = Collector { ring, file };
        collector.carry_out();
        collector.settle(None);
        collector
    }

    /// Takes what one pipe has, one record's worth.
    pub fn take(&self, stream: usize, generation: u16, pipe: BorrowedFd) -> Taken {
        let header = self.ring.header;
        header.progress.fetch_add(1, SeqCst);
        // For both, before either: what is dropped to make room for the one would be news for the other, for ever.
        let notice = RECORD_BYTES + (NOTICE_WORDS * 8) as u64;
        if self.place(notice + ROOM_MIN).is_none() || !self.tell_of_drops(stream, generation, false) {
            return Taken::Full;
        }
        let Some((position, room)) = self.place(ROOM_MIN) else { return Taken::Full };
        let words = self.ring.stream(stream);
        set_offset(self.file, AREA + position % self.ring.size + RECORD_BYTES);
        self.begin(position, stream as u16, generation);
        header.intent_bytes.store(words.bytes_in.load(SeqCst), SeqCst);
        header.intent_dropped.store(self.dropped(stream), SeqCst);
        header.intent.store(position + 1, SeqCst);
        let count = splice(pipe, self.file, room);
        match self.settle(Some(count)) {
            0 => Taken::Nothing,
            count => Taken::Bytes(count),
        }
    }

    /// What tells one moment's drops from another's; while the supervisor is at it, a moment of its own.
    fn dropped(&self, stream: usize) -> u64 {
        if self.ring.header.discard.state.load(SeqCst) as u16 == stream as u16 + 1 {
            return u64::MAX;
        }
        self.ring.stream(stream).dropped_bytes.load(SeqCst)
    }

    fn begin(&self, position: u64, stream: u16, generation: u16) {
        let raw = self.ring.raw(position);
        raw.length.store(0, SeqCst);
        raw.stream.store(u32::from(stream) | u32::from(generation) << 16, SeqCst);
        raw.mono_ms.store(clock::now().0 / 1_000_000, SeqCst);
        raw.wall_ms.store(clock::wall_millis(), SeqCst);
    }

    /// Finishes the record that is being made, with so many bytes, or (none: a former collector's) as many as the offset
    /// says; how many it has.
    fn settle(&self, taken: Option<u64>) -> u64 {
        let header = self.ring.header;
        let intent = header.intent.load(SeqCst);
        let Some(position) = (intent & !INTENT_NOTICE).checked_sub(1) else { return 0 };
        let raw = self.ring.raw(position);
        let stream = usize::from(raw.stream.load(SeqCst) as u16 & !NOTICE);
        let words = self.ring.stream(stream);
        let mut count = (NOTICE_WORDS * 8) as u64;
        if intent & INTENT_NOTICE != 0 {
            words.told_lines.store(self.word(position, 4), SeqCst);
            words.told_bytes.store(self.word(position, 5), SeqCst);
            words.told_cut.store(self.word(position, 6), SeqCst);
            words.unsure.store(0, SeqCst);
            raw.length.store(count as u32, SeqCst);
        } else {
            let begin = AREA + position % self.ring.size + RECORD_BYTES;
            count = taken.unwrap_or_else(|| offset(self.file).saturating_sub(begin));
            let before = header.intent_dropped.load(SeqCst);
            let unsure = before == u64::MAX || before != self.dropped(stream);
            if count > 0 {
                words.bytes_in.store(header.intent_bytes.load(SeqCst) + count, SeqCst);
                if unsure {
                    words.unsure.store(1, SeqCst);
                }
                raw.length.store(count as u32 | if unsure { UNSURE } else { 0 }, SeqCst);
            }
        }
        if count > 0 {
            header.head.store(position + (RECORD_BYTES + count).next_multiple_of(8), SeqCst);
        }
        header.intent.store(0, SeqCst);
        count
    }

    fn word(&self, position: u64, index: u64) -> u64 {
        let mut bytes = [0; 8];
        self.ring.copy(position % self.ring.size + RECORD_BYTES + 8 * index, &mut bytes);
        u64::from_ne_bytes(bytes)
    }

    /// Where the next record begins, and how many bytes it may have, at least `least`; `None`: there is no room.
    fn place(&self, least: u64) -> Option<(u64, u64)> {
        let (header, size) = (self.ring.header, self.ring.size);
        let mut position = header.head.load(SeqCst);
        let left = size - position % size;
        if left < RECORD_BYTES + least.max(ROOM_MIN) {
            self.free(position + left, position + left)?;
            if left >= RECORD_BYTES {
                self.begin(position, FILLER, 0);
            }
            position += left;
            header.head.store(position, SeqCst);
        }
        let left = size - position % size;
        let most = left.min(RECORD_BYTES + DATA_BYTES_MAX.min(size / 4));
        let end = self.free(position + RECORD_BYTES + least, position + most)?;
        Some((position, (end - position - RECORD_BYTES) & !7))
    }

    /// Makes room up to `wanted`, or at least up to `least`, by overwriting what is stored; up to where there is.
    fn free(&self, least: u64, wanted: u64) -> Option<u64> {
        let (header, size) = (self.ring.header, self.ring.size);
        loop {
            let tail = header.tail.load(SeqCst);
            if wanted <= tail + size {
                return Some(wanted);
            }
            let (record, length) = self.oldest(tail);
            if !self.is_stored(&record, length) {
                return (least <= tail + size).then_some(tail + size);
            }
            header.tail.store(record.end, SeqCst);
        }
    }

    /// The oldest record; a filler is one without a stream.
    fn oldest(&self, tail: u64) -> (Record, u64) {
        let left = self.ring.size - tail % self.ring.size;
        let (mut record, length) = self.ring.peek(tail);
        if left < RECORD_BYTES || record.stream == FILLER {
            record.stream = FILLER;
            record.end = tail + left;
        }
        (record, length)
    }

    fn is_stored(&self, record: &Record, length: u64) -> bool {
        if record.stream == FILLER || self.ring.header.stored.load(SeqCst) >= record.end {
            return true;
        }
        let words = self.ring.stream(usize::from(record.stream & !NOTICE));
        words.generation.load(SeqCst) as u16 != record.generation
            || words.done.load(SeqCst) >= record.position + RECORD_BYTES + length
    }

    /// Gives up the oldest record, so that there is room: counted as dropped, unless it is stored, or the storer
    /// answers for it because it is writing it just now.
    pub fn overwrite(&self) {
        let header = self.ring.header;
        header.progress.fetch_add(1, SeqCst);
        // Its claims as they are now: that they stay so, the exchange below sees to.
        let turn = header.turn.load(SeqCst);
        let tail = header.tail.load(SeqCst);
        if tail >= header.head.load(SeqCst) {
            return;
        }
        let (record, length) = self.oldest(tail);
        if self.is_stored(&record, length) {
            return header.tail.store(record.end, SeqCst);
        }
        let words = self.ring.stream(usize::from(record.stream & !NOTICE));
        let plan = &header.plan;
        let mut counts = [&words.ring_dropped_lines, &words.ring_dropped_bytes, &words.ring_dropped_to]
            .map(|word| word.load(SeqCst));
        let mut told = [&words.told_lines, &words.told_bytes].map(|word| word.load(SeqCst));
        if record.stream & NOTICE != 0 {
            // It is told again, but the cut is here.
            told = [0, 1].map(|at| told[at as usize].wrapping_sub(self.word(tail, at)));
            if self.word(tail, 2) != 0 {
                counts[2] = record.end + self.word(tail, 3);
            }
        } else {
            let (begin, end) = (tail + RECORD_BYTES, tail + RECORD_BYTES + length);
            let claim = &header.claim;
            let is_claimed = turn >> 32 & 1 == 1
                && claim.stream.load(SeqCst) == u32::from(record.stream)
                && claim.first.load(SeqCst) <= tail;
            let claimed = if is_claimed { claim.to.load(SeqCst) } else { 0 };
            let from = words.done.load(SeqCst).max(claimed).clamp(begin, end);
            if from < end {
                let (lines, torn) = self.ring.count_lines(from % self.ring.size, end - from);
                counts = [counts[0] + lines, counts[1] + end - from, record.end + u64::from(torn)];
            }
        }
        plan.stream.store(u32::from(record.stream & !NOTICE), SeqCst);
        plan.tail.store(record.end, SeqCst);
        plan.lines.store(counts[0], SeqCst);
        plan.bytes.store(counts[1], SeqCst);
        plan.to.store(counts[2], SeqCst);
        plan.told_lines.store(told[0], SeqCst);
        plan.told_bytes.store(told[1], SeqCst);
        let drops = (turn as u32).wrapping_add(1);
        plan.drops.store(drops, SeqCst);
        let next = turn & !u64::from(u32::MAX) | u64::from(drops);
        // Lost to a claim that began or ended meanwhile: the caller comes again.
        if header.turn.compare_exchange(turn, next, SeqCst, SeqCst).is_ok() {
            self.carry_out();
        }
    }

    /// Does what was planned, a former collector's plan too, if it came to be true.
    fn carry_out(&self) {
        let (header, plan) = (self.ring.header, &self.ring.header.plan);
        let drops = plan.drops.load(SeqCst);
        if header.turn.load(SeqCst) as u32 != drops || header.drops_done.load(SeqCst) == drops {
            return;
        }
        let words = self.ring.stream(plan.stream.load(SeqCst) as usize);
        words.ring_dropped_lines.store(plan.lines.load(SeqCst), SeqCst);
        words.ring_dropped_bytes.store(plan.bytes.load(SeqCst), SeqCst);
        words.ring_dropped_to.store(plan.to.load(SeqCst), SeqCst);
        words.told_lines.store(plan.told_lines.load(SeqCst), SeqCst);
        words.told_bytes.store(plan.told_bytes.load(SeqCst), SeqCst);
        header.tail.store(plan.tail.load(SeqCst), SeqCst);
        header.drop_count.fetch_add(1, SeqCst);
        header.drops_done.store(drops, SeqCst);
    }

    /// Puts a notice of what was dropped of a stream into the ring, if there is something to tell; false: there is no
    /// room for it. Not `all`: only of what cuts lines here. (What was overwritten is long ago, and is told when that
    /// is over.)
    pub fn tell_of_drops(&self, stream: usize, generation: u16, all: bool) -> bool {
        let words = self.ring.stream(stream);
        // What is written last is read first: so what is read of it is never newer than the rest.
        let cut = words.dropped_bytes.load(SeqCst);
        let bytes = cut + words.ring_dropped_bytes.load(SeqCst);
        let lines = words.dropped_lines.load(SeqCst) + words.ring_dropped_lines.load(SeqCst);
        let (told_bytes, told_lines) = (words.told_bytes.load(SeqCst), words.told_lines.load(SeqCst));
        if bytes == told_bytes && lines == told_lines {
            return true;
        }
        // The ring's drops cut nothing here.
        let is_cut = cut != words.told_cut.load(SeqCst);
        if !is_cut && !all {
            return true;
        }
        let Some((position, _)) = self.place((NOTICE_WORDS * 8) as u64) else { return false };
        let torn = is_cut && words.torn.load(SeqCst) | words.unsure.load(SeqCst) != 0;
        self.begin(position, stream as u16 | NOTICE, generation);
        let (new_lines, new_bytes) = (lines.wrapping_sub(told_lines), bytes.wrapping_sub(told_bytes));
        let told: [u64; NOTICE_WORDS] = [new_lines, new_bytes, is_cut.into(), torn.into(), lines, bytes, cut];
        self.ring.paste(position % self.ring.size + RECORD_BYTES, &told);
        self.ring.header.intent.store((position + 1) | INTENT_NOTICE, SeqCst);
        self.settle(None);
        true
    }
}

#[cfg(test)]
mod tests;

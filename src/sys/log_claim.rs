//! The storer's claim on a part of the log ring (`log_ring.rs`): what it is writing to a target just now. Announced
//! before and withdrawn after, so that a line is either stored or counted as lost, whoever is killed, and although
//! the collector may need the room meanwhile.

use std::sync::atomic::Ordering::SeqCst;

use super::log_ring::{Ring, word};

/// A part of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The stream's number.
    pub stream: u16,
    /// Where its first record begins.
    pub first: u64,
    /// `Stream::done` once it is stored.
    pub to: u64,
    /// Line ends in it.
    pub lines: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// The target's inode, and its size before.
    pub inode: u64,
    /// See above.
    pub size: u64,
    /// The stream's `storer[DISCARDS]`, `lost_lines`, `lost_bytes` and `storer[OPEN_LINE]` once it is stored.
    pub after: [u64; 4],
}

/// In [`super::log_ring::Stream::storer`]: its target ends within a line of this stream, whose generation is
/// half of this; even: it does not.
pub const OPEN_LINE: usize = 7;

/// What came of claiming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It is the storer's.
    Yes,
    /// It has been overwritten, and counted, before.
    Gone,
    /// The collector is about to overwrite something; ask again in a moment.
    Busy,
}

const OPEN: u64 = 1 << 32;

/// In [`super::log_ring::Claim::outcome`], besides 0: it is in its target; it is counted as lost.
const STORED: u32 = 1;
const LOST: u32 = 2;

impl Ring {
    /// Storer, before it writes a part to its target. There is one claim at a time.
    pub fn claim(&self, part: &Part) -> Claimed {
        let header = self.header;
        let turn = header.turn.load(SeqCst);
        if turn & OPEN != 0 || turn as u32 != header.drops_done.load(SeqCst) {
            return Claimed::Busy;
        }
        if header.tail.load(SeqCst) > part.first {
            return Claimed::Gone;
        }
        let claim = &header.claim;
        claim.outcome.store(0, SeqCst);
        claim.stream.store(part.stream.into(), SeqCst);
        let words = [&claim.first, &claim.to, &claim.lines, &claim.bytes, &claim.inode, &claim.size];
        let values = [part.first, part.to, part.lines, part.bytes, part.inode, part.size];
        let words = words.into_iter().chain(&claim.more);
        let values = values.into_iter().chain(part.after);
        words.zip(values).for_each(|(word, value)| word.store(value, SeqCst));
        match header.turn.compare_exchange(turn, turn.wrapping_add(OPEN), SeqCst, SeqCst) {
            Ok(_) => Claimed::Yes,
            Err(_) => Claimed::Busy,
        }
    }

    /// Storer, at its start: what a former one was writing when it was killed. It is to find out how much of it is in
    /// the target, and to end the claim.
    pub fn open_claim(&self) -> Option<Part> {
        let claim = &self.header.claim;
        if self.header.turn.load(SeqCst) & OPEN == 0 {
            return None;
        }
        let words = [&claim.first, &claim.to, &claim.lines, &claim.bytes, &claim.inode, &claim.size];
        let [first, to, lines, bytes, inode, size] = words.map(|word| word.load(SeqCst));
        let stream = claim.stream.load(SeqCst) as u16;
        Some(Part { stream, first, to, lines, bytes, inode, size, ..Part::default() })
    }

    /// For whoever looks on: whether a part of this stream is being written, and if so into which inode and how much
    /// was there before. First: changes with every claim.
    pub fn claimed_of(&self, stream: u16) -> (u64, Option<(u64, u64)>) {
        let turn = self.header.turn.load(SeqCst);
        let done = self.stream(stream.into()).done.load(SeqCst);
        // One that is done and not closed yet is written.
        let part = self.open_claim().filter(|part| part.stream == stream && part.to != done);
        (turn >> 32, part.map(|part| (part.inode, part.size)))
    }

    /// Storer: the claimed part is in its target.
    pub fn claim_is_stored(&self) {
        // From here on, whoever is killed.
        self.header.claim.outcome.store(STORED, SeqCst);
        self.end_claim();
    }

    /// Storer, at its start: ends a claim of which a former one knew what had come of it when it was killed.
    pub fn end_claim(&self) {
        let (header, claim) = (self.header, &self.header.claim);
        let outcome = claim.outcome.load(SeqCst);
        if outcome == 0 || header.turn.load(SeqCst) & OPEN == 0 {
            return;
        }
        let words = self.stream(claim.stream.load(SeqCst) as usize);
        words.done.store(claim.to.load(SeqCst), SeqCst);
        let [mut discards, mut lines, mut bytes, mut open] =
            [0, 1, 2, 3].map(|index: usize| claim.more[index].load(SeqCst));
        if outcome == LOST {
            // What follows the beginning of a line that is lost is no line.
            discards |= u64::from(open == discards | 1);
            [lines, bytes] = [&claim.lost_lines, &claim.lost_bytes].map(|word| word.load(SeqCst));
            open = 0;
        }
        words.storer[word::DISCARDS].store(discards, SeqCst);
        words.lost_lines.store(lines, SeqCst);
        words.lost_bytes.store(bytes, SeqCst);
        words.storer[OPEN_LINE].store(open, SeqCst);
        header.turn.fetch_add(OPEN, SeqCst);
    }

    /// Storer: nothing of the claimed part is in its target. True: it is in the ring as before. False: a part of it has
    /// been overwritten; all of it is given up and counted as lost, `done` is behind it.
    pub fn claim_failed(&self) -> bool {
        let (header, claim) = (self.header, &self.header.claim);
        loop {
            let turn = header.turn.load(SeqCst);
            let is_settled = turn as u32 == header.drops_done.load(SeqCst);
            if is_settled && header.tail.load(SeqCst) > claim.first.load(SeqCst) {
                break;
            }
            let closed = turn.wrapping_add(OPEN);
            if is_settled && header.turn.compare_exchange(turn, closed, SeqCst, SeqCst).is_ok() {
                return true;
            }
            // The collector is in the middle of a few stores, or its successor finishes them.
            super::process::give_way();
        }
        let words = self.stream(claim.stream.load(SeqCst) as usize);
        claim.lost_lines.store(words.lost_lines.load(SeqCst) + claim.lines.load(SeqCst), SeqCst);
        claim.lost_bytes.store(words.lost_bytes.load(SeqCst) + claim.bytes.load(SeqCst), SeqCst);
        claim.outcome.store(LOST, SeqCst);
        self.end_claim();
        false
    }

    /// As if the storer had been killed just before it closed its last claim.
    #[cfg(test)]
    pub fn reopen_claim(&self) {
        self.header.turn.fetch_sub(OPEN, SeqCst);
    }
}

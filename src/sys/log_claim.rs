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
        // No stream is done up to there: a former claim that was stored, or given up, is not taken for this one.
        claim.to.store(u64::MAX, SeqCst);
        claim.giving_up.store(0, SeqCst);
        claim.stream.store(part.stream.into(), SeqCst);
        let words = [&claim.first, &claim.lines, &claim.bytes, &claim.inode, &claim.size];
        let values = [part.first, part.lines, part.bytes, part.inode, part.size];
        let words = words.into_iter().chain(&claim.more).chain([&claim.to]);
        let values = values.into_iter().chain(part.after).chain([part.to]);
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
        let part = self.open_claim().filter(|part| part.stream == stream);
        (turn >> 32, part.map(|part| (part.inode, part.size)))
    }

    /// Storer: the claimed part is in its target.
    pub fn claim_is_stored(&self) {
        let claim = &self.header.claim;
        self.stream(claim.stream.load(SeqCst) as usize).done.store(claim.to.load(SeqCst), SeqCst);
        self.finish_claim();
        self.close_claim();
    }

    /// What goes with a claim that is stored; also what a former storer was killed before.
    pub fn finish_claim(&self) {
        let claim = &self.header.claim;
        let words = self.stream(claim.stream.load(SeqCst) as usize);
        if words.done.load(SeqCst) == claim.to.load(SeqCst) {
            // What was given up is counted already; but what is behind it may be the rest of a line all the same.
            let count = if claim.giving_up.load(SeqCst) == 0 { 4 } else { 1 };
            let discards = &words.storer[word::DISCARDS];
            let into = [discards, &words.lost_lines, &words.lost_bytes, &words.storer[OPEN_LINE]];
            into.into_iter()
                .zip(&claim.more)
                .take(count)
                .for_each(|(word, value)| word.store(value.load(SeqCst), SeqCst));
        }
    }

    /// Storer: nothing of the claimed part is in its target. True: it is in the ring as before. False: a part of it has
    /// been overwritten; all of it is given up and counted as lost, `done` is behind it.
    pub fn claim_failed(&self) -> bool {
        let (header, claim) = (self.header, &self.header.claim);
        loop {
            let turn = header.turn.load(SeqCst);
            let is_settled = turn as u32 == header.drops_done.load(SeqCst);
            if claim.giving_up.load(SeqCst) != 0
                || is_settled && header.tail.load(SeqCst) > claim.first.load(SeqCst)
            {
                break self.give_up_claim();
            }
            let closed = turn.wrapping_add(OPEN);
            if is_settled && header.turn.compare_exchange(turn, closed, SeqCst, SeqCst).is_ok() {
                return true;
            }
            // The collector is in the middle of a few stores, or its successor finishes them.
            super::process::give_way();
        }
        false
    }

    fn give_up_claim(&self) {
        let claim = &self.header.claim;
        let words = self.stream(claim.stream.load(SeqCst) as usize);
        if claim.giving_up.load(SeqCst) == 0 {
            claim.lost_lines.store(words.lost_lines.load(SeqCst) + claim.lines.load(SeqCst), SeqCst);
            claim.lost_bytes.store(words.lost_bytes.load(SeqCst) + claim.bytes.load(SeqCst), SeqCst);
            claim.giving_up.store(1, SeqCst);
        }
        words.lost_lines.store(claim.lost_lines.load(SeqCst), SeqCst);
        words.lost_bytes.store(claim.lost_bytes.load(SeqCst), SeqCst);
        self.claim_is_stored();
    }

    fn close_claim(&self) {
        self.header.turn.fetch_add(OPEN, SeqCst);
    }
}

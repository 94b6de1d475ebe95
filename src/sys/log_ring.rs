//! The log ring: what programs said last, in a sealed memory file (memfd_create(2)) that the guard keeps. A fixed
//! layout of atomics, then the bytes. Several processes share it, and each word has one writer: the collector
//! (`log_collect.rs`) puts records in, the storer takes them out, the supervisor counts what it throws away
//! (`log_discard.rs`), `multusctl log` reads. Any of them may be killed at any instruction, and its successor goes on.
//!
//! Positions only grow; where one lies in the area is its remainder. A record is a header of [`RECORD_BYTES`] and its
//! bytes; it begins at a multiple of 8 and never goes over the end of the area.
//!
//! Lines are counted by their ends: every line end that a program wrote is in a target or in exactly one count of
//! dropped lines. What is left of a line that was cut is thrown away up to its end, and that end counted.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{SysError, file};
use crate::limits::CHILD_COUNT_MAX;

/// Streams: two per program, by its place in the table: standard output 2n, standard error 2n + 1.
pub const STREAM_COUNT: usize = 2 * CHILD_COUNT_MAX;
/// Bytes of a record's header.
pub const RECORD_BYTES: u64 = 24;
/// Bytes in one record, at the most; a quarter of the ring where that is less.
pub const DATA_BYTES_MAX: u64 = 32 * 1024;
/// What the supervisor throws away at once: as much as a pipe holds.
pub const DISCARD_BYTES: u64 = 64 * 1024;
/// The ring's size: the least and the most.
pub const RING_BYTES: (u64, u64) = (64 * 1024, 16 * 1024 * 1024);

/// A record's stream: bytes of this one were dropped here: see [`Notice`].
pub const NOTICE: u16 = 0x8000;
/// A record's stream: nothing, up to the end of the area.
pub(super) const FILLER: u16 = 0xffff;
/// In a record's length: the supervisor dropped bytes of this stream just before this record, or just behind it. A
/// [`Notice`] follows; what is left of a line before the record, and its own bytes up to the first line end, are
/// parts of two different lines.
pub(super) const UNSURE: u32 = 1 << 31;

/// "multusdL"
const MAGIC: u64 = u64::from_le_bytes(*b"multusdL");
/// Raised when the layout changes: `multusctl` may be another version than the daemon.
const VERSION: u32 = 1;

/// One stream's words. Each comment begins with who writes it.
#[repr(C)]
pub struct Stream {
    /// Supervisor: raised for every new pipe; records of another generation were somebody else's.
    pub generation: AtomicU32,
    /// Supervisor: what it threw away last did not end with a line end.
    pub torn: AtomicU32,
    /// Supervisor: line ends and bytes thrown away.
    pub dropped_lines: AtomicU64,
    /// See above.
    pub dropped_bytes: AtomicU64,
    /// Collector: bytes taken.
    pub bytes_in: AtomicU64,
    /// Collector: line ends and bytes that were overwritten before they were stored.
    pub ring_dropped_lines: AtomicU64,
    /// See above.
    pub ring_dropped_bytes: AtomicU64,
    /// Collector: where the last record that was overwritten so ended; plus 1 where that was within a line. What was
    /// kept of a line from before this position is no beginning of what stands behind it.
    pub ring_dropped_to: AtomicU64,
    /// Collector: what notices have told of all dropped above.
    pub told_lines: AtomicU64,
    /// See above.
    pub told_bytes: AtomicU64,
    /// Collector: `dropped_bytes` when the last notice was given.
    pub(super) told_cut: AtomicU64,
    /// Collector: the last record was [`Record::unsure`], and no notice has come since.
    pub(super) unsure: AtomicU32,
    reserved: u32,
    /// Storer: up to this position the bytes of this stream are in their target; may be within a record. (Where it is
    /// beyond a record's last byte, that may be overwritten and nobody misses it.)
    pub done: AtomicU64,
    /// Storer: the same for syslog and kmsg.
    pub relayed: AtomicU64,
    /// Storer: line ends and bytes that are lost by it: of a batch that was overwritten while it was being written,
    /// of what was left of a cut line, of what is too many (`log_rate`).
    pub lost_lines: AtomicU64,
    /// See above.
    pub lost_bytes: AtomicU64,
    /// Storer: whatever else it must know of the stream after a restart.
    pub storer: [AtomicU64; 8],
}

/// What the storer is writing: announced before the write, so that its successor, and a collector that needs the
/// room, know of it.
#[repr(C)]
pub struct Claim {
    /// Storer: the stream.
    pub stream: AtomicU32,
    /// Storer: what has come of it: see `log_claim.rs`.
    pub(super) outcome: AtomicU32,
    /// Storer: where its first record begins.
    pub first: AtomicU64,
    /// Storer: [`Stream::done`] when it is written.
    pub to: AtomicU64,
    /// Storer: line ends and bytes in it.
    pub lines: AtomicU64,
    /// See above.
    pub bytes: AtomicU64,
    /// Storer: [`Stream::lost_lines`] and bytes, should it be given up.
    pub(super) lost_lines: AtomicU64,
    pub(super) lost_bytes: AtomicU64,
    /// Storer: the target's inode and its size before.
    pub inode: AtomicU64,
    /// See above.
    pub size: AtomicU64,
    /// Storer: whatever else belongs to it.
    pub more: [AtomicU64; 4],
}

/// Words of a stream that are the storer's own, in [`Stream::storer`].
pub mod word {
    /// Bytes written to files today.
    pub const TODAY: usize = 0;
    /// That day, as [`super::day`] has it.
    pub const DAY: usize = 1;
    /// The day of which was said that it is too much.
    pub const ALARM: usize = 2;
    /// Whether the rest of a line is discarded; above it the generation.
    pub const DISCARDS: usize = 3;
    /// Messages that syslog or the kernel did not take.
    pub const UNRELAYED: usize = 4;
    /// Bytes written to files altogether.
    pub const WRITTEN: usize = 5;
}

/// The number of a day since boot, from 1.
pub fn day(mono_ms: u64) -> u64 {
    mono_ms / 86_400_000 + 1
}

/// What is about to be overwritten.
#[repr(C)]
pub(super) struct Plan {
    /// The low half of `turn` that makes it true.
    pub drops: AtomicU32,
    pub stream: AtomicU32,
    pub tail: AtomicU64,
    pub lines: AtomicU64,
    pub bytes: AtomicU64,
    pub to: AtomicU64,
    pub told_lines: AtomicU64,
    pub told_bytes: AtomicU64,
}

/// What the supervisor is throwing away.
#[repr(C)]
pub(super) struct Discard {
    /// 0: nothing; stream + 1: bytes may be in the discard area; the same with the high bit: the counts below are to
    /// be taken over.
    pub state: AtomicU32,
    pub torn: AtomicU32,
    pub lines: AtomicU64,
    pub bytes: AtomicU64,
}

/// The header. Each comment begins with who writes it.
#[repr(C)]
pub struct Header {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU32,
    pub(super) stream_count: AtomicU32,
    /// Supervisor: bytes of the area.
    pub(super) size: AtomicU64,
    /// Collector: the end of the newest record.
    pub head: AtomicU64,
    /// Collector: the oldest record.
    pub tail: AtomicU64,
    /// Collector: where a record is being made, plus 1; 0: none is. And the stream's `bytes_in` and `dropped_bytes`
    /// before it.
    pub(super) intent: AtomicU64,
    pub(super) intent_bytes: AtomicU64,
    pub(super) intent_dropped: AtomicU64,
    /// Collector: steps taken, also those that took nothing.
    pub progress: AtomicU64,
    /// Storer: everything before this is in its targets.
    pub stored: AtomicU64,
    /// Storer: the same, and storage has confirmed it.
    pub synced: AtomicU64,
    /// Storer: steps taken.
    pub storer_progress: AtomicU64,
    /// Storer: at this position it wants to be woken; the collector does.
    pub wake_at: AtomicU64,
    /// Storer: do not wait for me, overwrite at once: storage takes nothing.
    pub storage_fails: AtomicU32,
    /// Supervisor: who wants everything synced adds 1, and calls the collector.
    pub sync_wanted: AtomicU32,
    /// Collector: that number, when what programs had written by then is in the ring; it calls the storer.
    pub sync_taken: AtomicU32,
    /// Storer: that number, when it is done; whoever waits for this word is woken.
    pub sync_done: AtomicU32,
    /// Supervisor: adds 1 when a program failed, and calls the collector: what is there is to be written.
    pub flush_wanted: AtomicU32,
    /// Collector: that number, as above.
    pub flush_taken: AtomicU32,
    /// Storer: that number, when it is done.
    pub flush_done: AtomicU32,
    /// Collector: 1: the storer is to write everything and end. Storer: 2: it has.
    pub storer_ends: AtomicU32,
    /// Anybody: the storer waits for this word to change.
    pub storer_bell: AtomicU32,
    /// Collector: whoever follows waits for this word to change.
    pub follower_bell: AtomicU32,
    /// Supervisor: somebody may follow, so that ringing is worth its price.
    pub followers: AtomicU32,
    /// Storer: the collector waits for this word to change where there is no room.
    pub room_bell: AtomicU32,
    /// Supervisor and collector: changed by every drop.
    pub(super) drop_count: AtomicU32,
    /// The collector's drops that were carried out.
    pub(super) drops_done: AtomicU32,
    /// Claims begun and ended (high half, odd: one is open) and drops (low half). Whoever changes one of them has seen
    /// the other: so a line is either written or counted.
    pub(super) turn: AtomicU64,
    pub(super) plan: Plan,
    /// The storer's claim.
    pub claim: Claim,
    pub(super) discard: Discard,
    streams: [Stream; STREAM_COUNT],
}

/// Where the area begins in the file: whole pages of any machine's size up to 16 kB.
pub(super) const AREA: u64 = (size_of::<Header>() as u64).next_multiple_of(16 * 1024);

/// A record's header, as it is in the area: the length last, by which it becomes one.
#[repr(C)]
pub(super) struct RawRecord {
    pub length: AtomicU32,
    pub stream: AtomicU32,
    pub mono_ms: AtomicU64,
    pub wall_ms: AtomicU64,
}

const _: () = assert!(size_of::<RawRecord>() as u64 == RECORD_BYTES);

/// A record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Where it begins; its bytes begin [`RECORD_BYTES`] later.
    pub position: u64,
    /// Where the next one begins.
    pub end: u64,
    /// Whose; with [`NOTICE`] set, its bytes are a [`Notice`].
    pub stream: u16,
    /// The stream's generation, its low half.
    pub generation: u16,
    /// Cut and torn (see [`Notice`]) at this record's beginning, or maybe behind it; a notice of the counts follows.
    pub unsure: bool,
    /// When it was taken, CLOCK_MONOTONIC milliseconds.
    pub mono_ms: u64,
    /// The same by the wall clock, since 1970.
    pub wall_ms: u64,
}

/// What reading at a position gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// A record; its bytes are in the buffer.
    Record(Record),
    /// It has been overwritten; what is there begins here.
    Gone(u64),
    /// Nothing yet.
    Nothing,
}

/// Bytes of this stream were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Line ends.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// Here: what is left of a line before it is no line any more. (Else further back in the ring: see
    /// [`Stream::ring_dropped_to`].)
    pub cut: bool,
    /// And what follows, up to the first line end, is the rest of a cut line.
    pub torn: bool,
}

impl Notice {
    /// Of a record's bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Notice> {
        let word = |at: usize| Some(u64::from_ne_bytes(*bytes.get(8 * at..)?.first_chunk()?));
        Some(Notice { lines: word(0)?, bytes: word(1)?, cut: word(2)? != 0, torn: word(3)? != 0 })
    }
}

/// The ring, mapped for as long as this process lives.
#[derive(Clone, Copy)]
pub struct Ring {
    pub(super) header: &'static Header,
    pub(super) area: *const u8,
    pub(super) size: u64,
}

/// The size that a ring has which was asked for with this one.
pub fn rounded(size: u64) -> u64 {
    size.clamp(RING_BYTES.0, RING_BYTES.1).next_multiple_of(16 * 1024)
}

/// A new ring's memory file, twice: the collector's, of which it has a copy (its offset is part of the protocol), and
/// the supervisor's with an offset of its own, for what it throws away.
pub fn create(size: u64) -> Result<(OwnedFd, OwnedFd), SysError> {
    let size = rounded(size);
    let memory = file::sealed_memory(c"multusd-log", (AREA + size + DISCARD_BYTES) as u32)?;
    let again = file::open_again(memory.as_fd(), 0o600, true)?;
    let ring = Ring::map_sized(memory.as_fd(), size, true)?;
    ring.header.stream_count.store(STREAM_COUNT as u32, SeqCst);
    ring.header.version.store(VERSION, SeqCst);
    ring.header.size.store(size, SeqCst);
    ring.header.magic.store(MAGIC, SeqCst);
    Ok((memory, again))
}

/// For whoever looks on: the same, open for reading only.
pub fn open_to_read(memory: BorrowedFd) -> Result<OwnedFd, SysError> {
    file::open_again(memory, 0o600, false)
}

impl Ring {
    /// Maps a ring, to take part or (`writable` false, a descriptor that is open for reading only) to look. EINVAL: it
    /// is another version's, or something else.
    pub fn map(memory: BorrowedFd, writable: bool) -> Result<Ring, SysError> {
        let einval = SysError { operation: "log ring", errno: libc::EINVAL };
        // Only what is there is mapped: a page beyond a file's end is a SIGBUS.
        let size = file::size(memory)?.checked_sub(AREA + DISCARD_BYTES).ok_or(einval)?;
        if !(RING_BYTES.0..=RING_BYTES.1).contains(&size) {
            return Err(einval);
        }
        let ring = Ring::map_sized(memory, size, writable)?;
        let header = ring.header;
        let is_known = header.magic.load(SeqCst) == MAGIC
            && header.version.load(SeqCst) == VERSION
            && header.stream_count.load(SeqCst) == STREAM_COUNT as u32
            && header.size.load(SeqCst) == size;
        if is_known { Ok(ring) } else { Err(einval) }
    }

    fn map_sized(memory: BorrowedFd, size: u64, writable: bool) -> Result<Ring, SysError> {
        let length = (AREA + size + DISCARD_BYTES) as usize;
        let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new shared mapping, nobody's memory is replaced.
        let address = unsafe {
            libc::mmap(core::ptr::null_mut(), length, access, libc::MAP_SHARED, memory.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(SysError::last("mmap"));
        }
        // SAFETY: as long as said by the file's size, which its seals keep; page-aligned; a header of atomics that is
        // sound whatever its bytes; never unmapped.
        let header = unsafe { &*address.cast::<Header>() };
        // SAFETY: the area lies within the mapping.
        let area = unsafe { address.cast::<u8>().add(AREA as usize) };
        Ok(Ring { header, area, size })
    }

    /// The words of everybody.
    pub fn header(&self) -> &'static Header {
        self.header
    }

    /// Bytes of the area.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A stream's words.
    pub fn stream(&self, number: usize) -> &'static Stream {
        &self.header.streams[number % STREAM_COUNT]
    }

    /// All of them.
    pub fn streams(&self) -> &'static [Stream] {
        &self.header.streams
    }

    /// Changed by every drop.
    pub fn drop_count(&self) -> u32 {
        self.header.drop_count.load(SeqCst)
    }

    /// Wakes the storer, whatever it waits for.
    pub fn call_storer(&self) {
        self.header.storer_bell.fetch_add(1, SeqCst);
        super::futex::wake(&self.header.storer_bell);
    }

    /// Storer: there may be room now.
    pub fn call_collector(&self) {
        self.header.room_bell.fetch_add(1, SeqCst);
        super::futex::wake(&self.header.room_bell);
    }

    /// A record's header, wherever this position may be.
    pub(super) fn raw(&self, position: u64) -> &RawRecord {
        let offset = (position % self.size) & !7;
        // SAFETY: within the area (a multiple of 8 that is less than its size leaves 8 bytes at least, and behind the
        // area lies the discard area), aligned, atomics only.
        unsafe { &*self.area.add(offset as usize).cast::<RawRecord>() }
    }

    /// Bytes of the area, as far as they are in it; somebody may be writing them.
    pub(super) fn copy(&self, offset: u64, buffer: &mut [u8]) {
        let length = buffer.len().min((self.size + DISCARD_BYTES).saturating_sub(offset) as usize);
        // SAFETY: within the mapping, by the line above; into memory of our own. What is read while it is being
        // written is thrown away by who asked.
        unsafe {
            core::ptr::copy_nonoverlapping(self.area.add(offset as usize), buffer.as_mut_ptr(), length)
        };
    }

    /// Puts words into the area; for whoever makes records.
    pub(super) fn paste(&self, offset: u64, words: &[u64]) {
        for (index, word) in words.iter().enumerate() {
            let offset = (offset + 8 * index as u64).min(self.size) & !7;
            // SAFETY: within the mapping (the discard area lies behind the area), aligned.
            unsafe { &*self.area.add(offset as usize).cast::<AtomicU64>() }.store(*word, SeqCst);
        }
    }

    /// Line ends in a part of the area (also of the discard area behind it), and whether the last one is not at its end.
    pub(super) fn count_lines(&self, mut offset: u64, mut length: u64) -> (u64, bool) {
        let (mut lines, mut torn) = (0, false);
        let mut buffer = [0; 4096];
        while length > 0 {
            let part = &mut buffer[..length.min(4096) as usize];
            self.copy(offset, part);
            lines += part.iter().filter(|byte| **byte == b'\n').count() as u64;
            torn = part.last() != Some(&b'\n');
            offset += part.len() as u64;
            length -= part.len() as u64;
        }
        (lines, torn)
    }

    /// The record's header at a position that is at least `tail`; it is a record only if `tail` is not beyond it
    /// afterwards. Second: how many bytes it has.
    pub(super) fn peek(&self, position: u64) -> (Record, u64) {
        let raw = self.raw(position);
        let (length, who) = (raw.length.load(SeqCst), raw.stream.load(SeqCst));
        // Whatever stands there: never beyond the end of the area.
        let room = (self.size - position % self.size).saturating_sub(RECORD_BYTES);
        let bytes = u64::from(length & !UNSURE).min(room);
        let record = Record {
            position,
            end: position + (RECORD_BYTES + bytes).next_multiple_of(8).min(room + RECORD_BYTES),
            stream: who as u16,
            generation: (who >> 16) as u16,
            unsure: length & UNSURE != 0,
            mono_ms: raw.mono_ms.load(SeqCst),
            wall_ms: raw.wall_ms.load(SeqCst),
        };
        (record, bytes)
    }

    /// For tests that have a clock of their own: when a record was taken.
    #[cfg(test)]
    pub fn date(&self, position: u64, mono_ms: u64, wall_ms: u64) {
        let raw = self.raw(position);
        raw.mono_ms.store(mono_ms, SeqCst);
        raw.wall_ms.store(wall_ms, SeqCst);
    }

    /// The first record at or after a position; its bytes replace those of the buffer.
    pub fn read(&self, mut position: u64, buffer: &mut Vec<u8>) -> Read {
        loop {
            let tail = self.header.tail.load(SeqCst);
            if position < tail {
                return Read::Gone(tail);
            }
            if position >= self.header.head.load(SeqCst) {
                return Read::Nothing;
            }
            let end_of_area = position - position % self.size + self.size;
            // Where no header has room, none is.
            let (record, length) = self.peek(position);
            let is_filler = end_of_area - position < RECORD_BYTES || record.stream == FILLER;
            if !is_filler {
                buffer.resize(length as usize, 0);
                self.copy(position % self.size + RECORD_BYTES, buffer);
            }
            let tail = self.header.tail.load(SeqCst);
            if position < tail {
                return Read::Gone(tail);
            }
            if !is_filler {
                return Read::Record(record);
            }
            position = end_of_area;
        }
    }
}

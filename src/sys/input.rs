//! Inputs: what the adoption page keeps of each, and the page of memory on which their levels are published, and those of
//! outputs.
//!
//! The latter is a sealed memory file that programs get open for reading (`MULTUSD_INPUTS`). In native byte
//! order it has a header of 64 bytes (magic, version, number of records of inputs and, at byte 16, of those of outputs after
//! them), then records of 64 bytes, each of which belongs to an input or an output while it has a name:
//!
//! | byte | | |
//! |---|---|---|
//! | 0 | u32 | sequence: odd while the record is written; a reader looks before and after, and again if it differs |
//! | 4 | u32 | 1: it is known, 2: high, 4: on |
//! | 8 | u64 | edges since it was requested; of an output changes that were seen |
//! | 16 | u64 | the last of them, CLOCK_MONOTONIC nanoseconds, of an input by the kernel; 0: none |
//! | 24 | u64 | 0 |
//! | 32 | 32 bytes | name, zeros |

use core::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::slot::{keep, kept};
use super::{SysError, file};
use crate::limits::{INPUT_COUNT_MAX, LINE_NAME_BYTES_MAX, OUTPUT_COUNT_MAX};

/// What is kept of one input.
#[repr(C)]
pub struct InputSlot {
    descriptor: AtomicI32,
    /// Tells what it was requested as; 0: the slot is free.
    pub digest: AtomicU64,
    /// Edges before the line was requested (this time).
    pub base: AtomicU64,
    /// 1: what was kept before this life of multusd is part of it.
    pub restored: AtomicU32,
}

impl InputSlot {
    /// The line's request.
    pub fn descriptor(&self) -> Option<i32> {
        kept(&self.descriptor)
    }

    pub(super) fn cell(&self) -> &AtomicI32 {
        &self.descriptor
    }

    /// Keeps the line's request beyond this supervisor, or lets go of it.
    pub fn keep(&self, descriptor: Option<OwnedFd>) {
        keep(&self.descriptor, descriptor);
    }
}

const MAGIC: u64 = u64::from_le_bytes(*b"multusdI");
const VERSION: u32 = 1;

/// What a record says besides its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The voltage; none: it is not read.
    pub high: Option<bool>,
    /// Edges.
    pub edges: u64,
    /// The last of them, CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
}

#[repr(C)]
struct Record {
    sequence: AtomicU32,
    flags: AtomicU32,
    edges: AtomicU64,
    at_ns: AtomicU64,
    reserved: u64,
    name: [AtomicU8; LINE_NAME_BYTES_MAX + 1],
}

impl Record {
    fn is_named(&self, name: &str) -> bool {
        let letters = self.name.iter().map(|cell| cell.load(SeqCst)).take_while(|letter| *letter != 0);
        letters.eq(name.bytes()) && !name.is_empty()
    }
}

#[repr(C)]
struct Layout {
    magic: AtomicU64,
    version: AtomicU32,
    count: AtomicU32,
    output_count: AtomicU32,
    reserved: [u32; 11],
    records: [Record; RECORD_COUNT],
}

/// Those of inputs, then those of outputs.
const RECORD_COUNT: usize = INPUT_COUNT_MAX + OUTPUT_COUNT_MAX;

const _: () = assert!(size_of::<Record>() == 64 && size_of::<Layout>() == 64 * (1 + RECORD_COUNT));

/// The page, mapped for as long as this process lives.
#[derive(Clone, Copy)]
pub struct Board(&'static Layout);

impl Board {
    /// An empty one: the memory file, and the same open for reading only.
    pub fn create() -> Result<(OwnedFd, OwnedFd), SysError> {
        let memory = file::sealed_memory(c"multusd-inputs", size_of::<Layout>() as u32)?;
        let read = file::open_again_to_read(&memory)?;
        Ok((memory, read))
    }

    /// Maps it.
    pub fn map(memory: BorrowedFd) -> Result<Board, SysError> {
        let board = Board(map(memory, libc::PROT_READ | libc::PROT_WRITE)?);
        board.0.version.store(VERSION, SeqCst);
        board.0.count.store(INPUT_COUNT_MAX as u32, SeqCst);
        board.0.output_count.store(OUTPUT_COUNT_MAX as u32, SeqCst);
        board.0.magic.store(MAGIC, SeqCst);
        Ok(board)
    }

    /// The record of the output that has this place.
    pub const fn of_output(place: usize) -> usize {
        INPUT_COUNT_MAX + place
    }

    /// Publishes; on means high unless it is active low.
    pub fn publish(&self, index: usize, name: &str, active_low: bool, said: Published) {
        let record = &self.0.records[index];
        // Even when a former supervisor was killed while it wrote.
        let sequence = record.sequence.load(SeqCst) & !1;
        record.sequence.store(sequence | 1, SeqCst);
        for (at, cell) in record.name.iter().enumerate() {
            cell.store(name.as_bytes().get(at).copied().unwrap_or(0), SeqCst);
        }
        let level = said.high.map_or(0, |high| 1 | u32::from(high) << 1 | u32::from(high != active_low) << 2);
        record.flags.store(level, SeqCst);
        record.edges.store(said.edges, SeqCst);
        record.at_ns.store(said.at_ns, SeqCst);
        record.sequence.store(sequence.wrapping_add(2), SeqCst);
    }

    /// The record is this one's.
    pub fn is_of(&self, index: usize, name: &str) -> bool {
        self.0.records[index].is_named(name)
    }

    /// What was published last.
    pub fn published(&self, index: usize) -> Published {
        let record = &self.0.records[index];
        let flags = record.flags.load(SeqCst);
        Published {
            high: (flags & 1 == 1).then_some(flags & 2 == 2),
            edges: record.edges.load(SeqCst),
            at_ns: record.at_ns.load(SeqCst),
        }
    }
}

fn map(memory: BorrowedFd, access: libc::c_int) -> Result<&'static Layout, SysError> {
    let length = size_of::<Layout>();
    // SAFETY: a new shared mapping, nobody's memory is replaced.
    let address =
        unsafe { libc::mmap(core::ptr::null_mut(), length, access, libc::MAP_SHARED, memory.as_raw_fd(), 0) };
    if address == libc::MAP_FAILED {
        return Err(SysError::last("mmap"));
    }
    // SAFETY: as long as Layout by its seals, page-aligned, of integers and atomics, never unmapped.
    Ok(unsafe { &*address.cast::<Layout>() })
}

/// Is told of each: whether it is an output, its name, whether it is on (none: not known), and the rest.
pub type Found<'a> = &'a mut dyn FnMut(bool, &str, Option<bool>, Published);

/// The page as a program sees it: to be read only.
#[derive(Clone, Copy)]
pub struct Reader(&'static Layout);

impl Reader {
    /// Maps the page that was inherited. EINVAL: it is another version's, or something else.
    pub fn map(page: BorrowedFd) -> Result<Reader, SysError> {
        let einval = SysError { operation: "MULTUSD_INPUTS", errno: libc::EINVAL };
        if file::size(page)? < size_of::<Layout>() as u64 {
            return Err(einval);
        }
        let layout = map(page, libc::PROT_READ)?;
        let is_known = layout.magic.load(SeqCst) == MAGIC && layout.version.load(SeqCst) == VERSION;
        if is_known { Ok(Reader(layout)) } else { Err(einval) }
    }

    /// The input of this name: whether it is on (none: it is not read), and the rest; `None`: there is none.
    pub fn read(&self, name: &str) -> Option<(Option<bool>, Published)> {
        self.find(name, 0..INPUT_COUNT_MAX)
    }

    /// The same of an output, as far as multusd knows its level.
    pub fn read_output(&self, name: &str) -> Option<(Option<bool>, Published)> {
        self.find(name, INPUT_COUNT_MAX..RECORD_COUNT)
    }

    /// Each of them.
    pub fn each(&self, found: Found) {
        for (index, record) in self.0.records.iter().enumerate() {
            let mut name = [0; LINE_NAME_BYTES_MAX + 1];
            name.iter_mut().zip(&record.name).for_each(|(byte, cell)| *byte = cell.load(SeqCst));
            let name = name.split(|byte| *byte == 0).next().and_then(|name| str::from_utf8(name).ok());
            // One that is another's by now was read while it was written.
            if let Some(name) = name.filter(|name| !name.is_empty())
                && let Some((on, seen)) = self.find(name, index..index + 1)
            {
                found(index >= INPUT_COUNT_MAX, name, on, seen);
            }
        }
    }

    fn find(&self, name: &str, among: core::ops::Range<usize>) -> Option<(Option<bool>, Published)> {
        let index = among.into_iter().find(|index| self.0.records[*index].is_named(name))?;
        let record = &self.0.records[index];
        loop {
            let before = record.sequence.load(SeqCst);
            let (flags, seen) = (record.flags.load(SeqCst), Board(self.0).published(index));
            // Odd for the nanoseconds of a write; or for as long as a successor takes, should its writer be killed.
            if before & 1 == 0 && record.sequence.load(SeqCst) == before {
                return Some(((flags & 1 == 1).then_some(flags & 4 == 4), seen));
            }
            core::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn an_output_and_an_input_of_the_same_name_are_two() {
        let (memory, read) = Board::create().unwrap();
        let board = Board::map(memory.as_fd()).unwrap();
        let reader = Reader::map(read.as_fd()).unwrap();
        let said = |high| Published { high: Some(high), edges: 3, at_ns: 5 };
        board.publish(0, "gate", false, said(true));
        assert_eq!(reader.read_output("gate"), None);
        board.publish(Board::of_output(OUTPUT_COUNT_MAX - 1), "gate", true, said(true));
        assert_eq!(reader.read("gate"), Some((Some(true), said(true))));
        assert_eq!(reader.read_output("gate"), Some((Some(false), said(true))));
    }

    #[test]
    fn what_is_published_is_read_through_the_read_only_descriptor_and_cannot_be_written() {
        let (memory, read) = Board::create().unwrap();
        let board = Board::map(memory.as_fd()).unwrap();
        let said = Published { high: Some(true), edges: 7, at_ns: 9 };
        board.publish(1, "float-switch", true, said);
        assert_eq!(board.published(1), said);
        let mut bytes = [0; 192];
        assert_eq!(nix::sys::uio::pread(&read, &mut bytes, 0), Ok(192));
        assert_eq!(&bytes[..16], b"multusdI\x01\0\0\0\x40\0\0\0");
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((word(128), word(132), word(136), word(144)), (2, 3, 7, 9), "high, and off: active low");
        assert!(bytes[160..].starts_with(b"float-switch\0"));
        assert!(nix::unistd::write(&read, b"x").is_err());
        assert!(nix::unistd::ftruncate(&memory, 0).is_err());
    }
}

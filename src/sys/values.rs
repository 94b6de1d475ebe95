//! Values that programs publish for others: temperatures, levels of tanks, verdicts on the network. They stand on a page of
//! memory that bundled children read (`MULTUSD_VALUES`), so that reading one asks nobody and waits for nobody.
//!
//! A sealed memory file. In native byte order it has a header of 64 bytes (magic, version, number of records that follow),
//! then records of 128 bytes, each of which belongs to a value while it has a name:
//!
//! | byte | | |
//! |---|---|---|
//! | 0 | u32 | sequence: odd while the record is written; a reader looks before and after, and again if it differs |
//! | 4 | u32 | 1: it was right when it was published |
//! | 8 | i64 | thousandths of its unit |
//! | 16 | i64 | as it was measured |
//! | 24 | u64 | when it was published, CLOCK_MONOTONIC nanoseconds |
//! | 32 | u64 | until when it is to be believed, the same; 0: until it is published again |
//! | 40 | 16 bytes | unit, zeros |
//! | 56 | u64 | 0 |
//! | 64 | 64 bytes | name, zeros |
//!
//! Behind those are as many of the same as programs may be: named after a program, byte 8 its state (`protocol::State`), byte
//! 16 how often it was started again, byte 24 since when it is in that state.

use core::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{SysError, file};
use crate::limits::{CHILD_COUNT_MAX, NAME_BYTES_MAX, UNIT_BYTES_MAX, VALUE_COUNT_MAX};
use crate::time::Instant;

const MAGIC: u64 = u64::from_le_bytes(*b"multusdV");
const VERSION: u32 = 1;

/// The name of a value: `sensors.outside`.
pub type Name = heapless::String<NAME_BYTES_MAX>;
/// What it is measured in.
pub type Unit = heapless::String<UNIT_BYTES_MAX>;

/// One value, as it was published last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// Thousandths of its unit; none: whoever publishes it does not know it.
    pub milli: Option<i64>,
    /// As it was measured.
    pub raw: i64,
    /// What it is measured in.
    pub unit: Unit,
    /// When.
    pub at: Instant,
    /// Until then it is to be believed; none: until it is published again.
    pub until: Option<Instant>,
}

impl Value {
    /// What is known now.
    pub fn now(&self, now: Instant) -> Option<i64> {
        self.milli.filter(|_| self.until.is_none_or(|until| now < until))
    }
}

#[repr(C)]
struct Record {
    sequence: AtomicU32,
    flags: AtomicU32,
    milli: AtomicI64,
    raw: AtomicI64,
    at_ns: AtomicU64,
    until_ns: AtomicU64,
    unit: [AtomicU8; UNIT_BYTES_MAX + 1],
    reserved: u64,
    name: [AtomicU8; NAME_BYTES_MAX + 1],
}

#[repr(C)]
struct Layout {
    magic: AtomicU64,
    version: AtomicU32,
    count: AtomicU32,
    reserved: [u64; 6],
    records: [Record; VALUE_COUNT_MAX],
    programs: [Record; CHILD_COUNT_MAX],
}

const _: () = assert!(
    size_of::<Record>() == 128 && size_of::<Layout>() == 64 + 128 * (VALUE_COUNT_MAX + CHILD_COUNT_MAX)
);

fn store(cells: &[AtomicU8], text: &str) {
    for (at, cell) in cells.iter().enumerate() {
        cell.store(text.as_bytes().get(at).copied().unwrap_or(0), SeqCst);
    }
}

fn load<const N: usize>(cells: &[AtomicU8]) -> heapless::String<N> {
    let letters = cells.iter().map(|cell| cell.load(SeqCst)).take_while(|letter| *letter != 0);
    let bytes: heapless::Vec<u8, N> = letters.take(N).collect();
    // What is written is text; what is read while it is written is thrown away.
    heapless::String::from_utf8(bytes).unwrap_or_default()
}

impl Record {
    fn is_named(&self, name: &str) -> bool {
        let letters = self.name.iter().map(|cell| cell.load(SeqCst)).take_while(|letter| *letter != 0);
        letters.eq(name.bytes())
    }

    /// Reads all of it, as it was at one moment.
    fn read(&self) -> (Name, Value) {
        loop {
            let before = self.sequence.load(SeqCst);
            let until = self.until_ns.load(SeqCst);
            let value = Value {
                milli: (self.flags.load(SeqCst) & 1 == 1).then(|| self.milli.load(SeqCst)),
                raw: self.raw.load(SeqCst),
                unit: load(&self.unit),
                at: Instant(self.at_ns.load(SeqCst)),
                until: (until != 0).then_some(Instant(until)),
            };
            let name = load(&self.name);
            // Odd for the nanoseconds of a write; or for as long as a successor takes, should its writer be killed.
            if before & 1 == 0 && self.sequence.load(SeqCst) == before {
                return (name, value);
            }
            core::hint::spin_loop();
        }
    }
}

/// The page, mapped for as long as this process lives.
#[derive(Clone, Copy)]
pub struct Values(&'static Layout);

impl Values {
    /// An empty one: the memory file, and the same open for reading only.
    pub fn create() -> Result<(OwnedFd, OwnedFd), SysError> {
        let memory = file::sealed_memory(c"multusd-values", size_of::<Layout>() as u32)?;
        let read = file::open_again_to_read(&memory)?;
        Ok((memory, read))
    }

    /// Maps it, to write.
    pub fn map(memory: BorrowedFd) -> Result<Values, SysError> {
        let values = Values(map(memory, libc::PROT_READ | libc::PROT_WRITE)?);
        values.0.version.store(VERSION, SeqCst);
        values.0.count.store(VALUE_COUNT_MAX as u32, SeqCst);
        values.0.magic.store(MAGIC, SeqCst);
        // Of one that a former supervisor was killed at: half of it is nobody's.
        for record in values.0.records.iter().filter(|record| record.sequence.load(SeqCst) & 1 == 1) {
            values.write(record, "", &Value::default());
        }
        Ok(values)
    }

    /// Publishes; false: there is no room for one more.
    pub fn publish(&self, name: &str, value: &Value) -> bool {
        let records = &self.0.records;
        let own = records.iter().find(|record| record.is_named(name));
        let Some(record) = own.or_else(|| records.iter().find(|record| record.is_named(""))) else {
            return false;
        };
        self.write(record, name, value);
        true
    }

    /// The thousandths of what is published by this name; none: nothing is.
    pub fn milli(&self, name: &str) -> Option<Option<i64>> {
        let record = self.0.records.iter().find(|record| record.is_named(name))?;
        Some(record.read().1.milli)
    }

    /// Removes those of a name, and those of names that go on behind a dot.
    pub fn remove(&self, name: &str) {
        for record in &self.0.records {
            let (known, _) = record.read();
            let rest = known.strip_prefix(name).filter(|_| !known.is_empty());
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
                self.write(record, "", &Value::default());
            }
        }
    }

    fn write(&self, record: &Record, name: &str, value: &Value) {
        let sequence = record.sequence.load(SeqCst) & !1;
        record.sequence.store(sequence | 1, SeqCst);
        store(&record.name, name);
        store(&record.unit, &value.unit);
        record.flags.store(value.milli.is_some().into(), SeqCst);
        record.milli.store(value.milli.unwrap_or(0), SeqCst);
        record.raw.store(value.raw, SeqCst);
        record.at_ns.store(value.at.0, SeqCst);
        record.until_ns.store(value.until.map_or(0, |until| until.0), SeqCst);
        record.sequence.store(sequence.wrapping_add(2), SeqCst);
    }

    /// How the program at this place of the table is: its state's number, how often it was started again, and since
    /// when; false: nothing is new. Without a name there is none.
    pub fn publish_program(
        &self,
        place: usize,
        name: &str,
        state: u8,
        restarts: u32,
        since: Instant,
    ) -> bool {
        let record = &self.0.programs[place];
        let value = Value { milli: Some(state.into()), raw: restarts.into(), at: since, ..Value::default() };
        let is_new = record.read() != (Name::try_from(name).unwrap_or_default(), value.clone());
        if is_new {
            self.write(record, name, &value);
        }
        is_new
    }

    /// One after the other; those that are none have no name.
    pub fn at(&self, index: usize) -> Option<(Name, Value)> {
        self.0.records.get(index).map(Record::read)
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

/// The page as a child sees it: to be read only.
#[derive(Clone, Copy)]
pub struct Reader(&'static Layout);

impl Reader {
    /// Maps the page that was inherited. EINVAL: it is another version's, or something else.
    pub fn map(page: BorrowedFd) -> Result<Reader, SysError> {
        let einval = SysError { operation: "MULTUSD_VALUES", errno: libc::EINVAL };
        if file::size(page)? < size_of::<Layout>() as u64 {
            return Err(einval);
        }
        let layout = map(page, libc::PROT_READ)?;
        let is_known = layout.magic.load(SeqCst) == MAGIC && layout.version.load(SeqCst) == VERSION;
        if is_known { Ok(Reader(layout)) } else { Err(einval) }
    }

    /// Each of them.
    pub fn each(&self, found: &mut dyn FnMut(Name, Value)) {
        for (name, value) in self.0.records.iter().map(Record::read) {
            if !name.is_empty() {
                found(name, value);
            }
        }
    }

    /// The value of this name; none: nobody has published it.
    pub fn read(&self, name: &str) -> Option<Value> {
        let record = self.0.records.iter().find(|record| !name.is_empty() && record.is_named(name))?;
        let (known, value) = record.read();
        (known == name).then_some(value)
    }

    /// The state's number (`protocol::State`) of the program of this name, and how often it was started again.
    pub fn program(&self, name: &str) -> Option<(u8, u32)> {
        let record = self.0.programs.iter().find(|record| !name.is_empty() && record.is_named(name))?;
        let (known, value) = record.read();
        (known == name).then_some((value.milli? as u8, value.raw as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn value(milli: i64, until: u64) -> Value {
        Value {
            milli: Some(milli),
            raw: 7,
            unit: "C".try_into().unwrap(),
            at: Instant(5),
            until: (until != 0).then_some(Instant(until)),
        }
    }

    #[test]
    fn what_is_published_is_read_until_it_is_too_old_and_cannot_be_written_by_who_reads() {
        let (memory, read) = Values::create().unwrap();
        let values = Values::map(memory.as_fd()).unwrap();
        let reader = Reader::map(read.as_fd()).unwrap();
        assert_eq!(reader.read("io.outside"), None);
        assert!(values.publish("io.outside", &value(-23_500, 100)));
        let seen = reader.read("io.outside").unwrap();
        assert_eq!(seen, value(-23_500, 100));
        assert_eq!((seen.now(Instant(99)), seen.now(Instant(100))), (Some(-23_500), None));
        assert_eq!(value(1, 0).now(Instant(u64::MAX)), Some(1));
        assert!(values.publish("io.outside", &Value { milli: None, ..value(0, 0) }));
        assert_eq!(reader.read("io.outside").unwrap().now(Instant(0)), None);
        assert!(nix::unistd::write(&read, b"x").is_err());
    }

    #[test]
    fn one_more_than_fits_is_refused_and_a_place_that_is_left_is_used_again() {
        let (memory, _) = Values::create().unwrap();
        let values = Values::map(memory.as_fd()).unwrap();
        for number in 0..VALUE_COUNT_MAX {
            assert!(values.publish(&format!("a{}.x", number % 2 * 100 + number), &value(1, 0)));
        }
        assert!(!values.publish("b", &value(1, 0)));
        values.remove("a0");
        assert!(values.publish("b", &value(1, 0)), "a0.x is gone");
        assert!(!values.publish("c", &value(1, 0)), "and no other: a2.x is not below a");
        values.remove("b");
        assert!(values.publish("c", &value(1, 0)));
    }

    #[test]
    fn a_program_and_a_value_of_the_same_name_are_two() {
        let (memory, read) = Values::create().unwrap();
        let (values, reader) = (Values::map(memory.as_fd()).unwrap(), Reader::map(read.as_fd()).unwrap());
        values.publish("pump", &value(1, 0));
        assert_eq!(reader.program("pump"), None);
        assert!(values.publish_program(CHILD_COUNT_MAX - 1, "pump", 2, 70_000, Instant(9)));
        assert!(
            !values.publish_program(CHILD_COUNT_MAX - 1, "pump", 2, 70_000, Instant(9)),
            "nothing is new"
        );
        assert_eq!(reader.program("pump"), Some((2, 70_000)));
        assert_eq!(reader.read("pump"), Some(value(1, 0)));
        values.publish_program(CHILD_COUNT_MAX - 1, "", 0, 0, Instant(0));
        assert_eq!(reader.program("pump"), None);
        assert_eq!(reader.program(""), None);
    }

    #[test]
    fn a_record_that_its_writer_left_half_written_is_nobodys() {
        let (memory, _) = Values::create().unwrap();
        let values = Values::map(memory.as_fd()).unwrap();
        values.publish("a", &value(1, 0));
        values.0.records[0].sequence.fetch_or(1, SeqCst);
        let again = Values::map(memory.as_fd()).unwrap();
        assert_eq!(again.at(0), Some((Name::new(), Value::default())));
    }
}

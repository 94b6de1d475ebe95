//! Where rows are kept: files that are only ever appended to, each named after the record and its first row, the oldest removed
//! where there would be too many. What a power cut left of the last row is cut off at the start; all before it is as it was.
//!
//! The record's name is made by chance when there is no file yet: whoever copies the files of two machines together, or wipes a
//! card, has two records, and never two rows of the same name and number.

use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::row::{self, Moment, Row};
use crate::sys::{SysError, file, log_file, machine};

/// Rows that wait for storage that takes none; what is more is counted.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// Read at once when a file is looked through; far more than a row has.
const READ_BYTES: usize = 16 * 1024;
/// A file takes bytes at once, or fails.
const PATIENCE_MS: u16 = 1000;

const PREFIX: &str = "record-";

/// The files.
pub struct Store {
    directory: PathBuf,
    /// Its name: 16 hexadecimal digits.
    record: String,
    boot: String,
    file_bytes_max: u64,
    file_count_max: usize,
    path: PathBuf,
    file: OwnedFd,
    /// Bytes that the file has, all of them of whole rows.
    size: u64,
    /// The file's name is not on storage yet.
    is_new: bool,
    /// A write failed: there may be more than `size`.
    is_torn: bool,
    /// The next row's number.
    next: u64,
    waiting: Vec<u8>,
    /// Rows that found no room.
    lost: u64,
    /// Something was written since it was synced.
    pub is_dirty: bool,
}

/// `record-0123456789abcdef-000000000001.csv`: the record and the first row.
pub fn name_of(record: &str, first: u64) -> String {
    let mut name = String::new();
    let _ = write!(name, "{PREFIX}{record}-{first:012}.csv");
    name
}

/// The record and the first row of a file's name.
pub fn of_name(name: &str) -> Option<(&str, u64)> {
    let (record, first) = name.strip_prefix(PREFIX)?.strip_suffix(".csv")?.split_once('-')?;
    let is_hex = record.len() == 16 && record.bytes().all(|byte| byte.is_ascii_hexdigit());
    first.parse().ok().filter(|first| is_hex && *first > 0).map(|first| (record, first))
}

/// The first rows of a record's files, in order; of the record that has the highest, where none is named.
pub fn files(directory: &Path, record: &mut String) -> Vec<u64> {
    let mut found: Vec<(String, u64)> = Vec::new();
    file::each_name(directory, &mut |name, _| {
        if let Some((record, first)) = name.to_str().ok().and_then(of_name) {
            found.push((record.into(), first));
        }
    });
    if record.is_empty()
        && let Some((newest, _)) = found.iter().max_by_key(|(_, first)| *first)
    {
        record.clone_from(newest);
    }
    let mut firsts: Vec<u64> =
        found.into_iter().filter(|(other, _)| other == record).map(|(_, first)| first).collect();
    firsts.sort_unstable();
    firsts
}

impl Store {
    /// Goes on where a former one stopped. The bytes that were cut off, which a power cut had left.
    pub fn open(directory: &Path, bytes_max: u64, file_count_max: usize) -> Result<(Store, u64), SysError> {
        let mut record = String::new();
        let firsts = files(directory, &mut record);
        if record.is_empty() {
            let _ = write!(record, "{:016x}", machine::random());
        }
        let boot = file::read_bounded(Path::new("/proc/sys/kernel/random/boot_id"), 64).unwrap_or_default();
        let boot = String::from_utf8_lossy(boot.get(..8).unwrap_or_default()).into_owned();
        let first = firsts.last().copied().unwrap_or(1);
        let path = directory.join(name_of(&record, first));
        let (file, end, next, size) = match firsts.is_empty() {
            true => (create(&path)?, 0, 1, 0),
            false => reopen(&path, first)?,
        };
        let file_bytes_max = bytes_max / file_count_max as u64;
        let mut store = Store {
            directory: directory.into(),
            record,
            boot,
            file_bytes_max,
            file_count_max,
            path,
            file,
            size: end,
            is_new: true,
            is_torn: size != end,
            next,
            waiting: Vec::new(),
            lost: 0,
            is_dirty: false,
        };
        store.settle()?;
        store.remove_oldest();
        Ok((store, size - end))
    }

    /// The record's name.
    pub fn record(&self) -> &str {
        &self.record
    }

    /// Takes a row; what waits for storage is bounded, and what is more is counted.
    pub fn take(&mut self, moment: &Moment, row: &Row) {
        if self.waiting.len() > WAITING_BYTES_MAX {
            self.lost += 1;
            return;
        }
        row::write(&mut self.waiting, self.next, &self.boot, moment, row);
        self.next += 1;
    }

    /// Writes what waits. An error: it waits on.
    pub fn write(&mut self, moment: &Moment) -> Result<(), SysError> {
        while !self.waiting.is_empty() {
            self.settle()?;
            // As many whole rows as the file has room for; one at the least, in an empty one.
            let room = self.file_bytes_max.saturating_sub(self.size) as usize;
            let fitting = &self.waiting[..self.waiting.len().min(room)];
            let part = match fitting.iter().rposition(|byte| *byte == b'\n') {
                Some(last) => last + 1,
                None if self.size > row::HEADER.len() as u64 => {
                    self.next_file()?;
                    continue;
                }
                None => self.waiting.len(),
            };
            self.append(part)?;
        }
        if self.lost > 0 {
            let milli = Some(self.lost as i64 * 1000);
            self.lost = 0;
            let row = Row { at_ns: moment.now_ns, kind: "recorder", name: "lost", milli, ..Row::default() };
            self.take(moment, &row);
            return self.write(moment);
        }
        Ok(())
    }

    fn append(&mut self, count: usize) -> Result<(), SysError> {
        self.is_dirty = true;
        self.is_torn = true;
        log_file::write_all(self.file.as_fd(), &self.waiting[..count], PATIENCE_MS)?;
        self.is_torn = false;
        self.size += count as u64;
        self.waiting.drain(..count);
        Ok(())
    }

    /// The file has what it is to have, and no more; the first line, if nothing.
    fn settle(&mut self) -> Result<(), SysError> {
        if self.is_torn {
            // Whole rows stay: who follows the file may have read them.
            let written = file::size(self.file.as_fd())?.saturating_sub(self.size) as usize;
            let written = &self.waiting[..written.min(self.waiting.len())];
            let whole = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            let whole = if self.size == 0 { 0 } else { whole };
            log_file::cut(self.file.as_fd(), self.size + whole as u64)?;
            self.size += whole as u64;
            self.waiting.drain(..whole);
            self.is_torn = false;
        }
        if self.size == 0 {
            self.is_torn = true;
            self.is_dirty = true;
            log_file::write_all(self.file.as_fd(), row::HEADER, PATIENCE_MS)?;
            (self.is_torn, self.size) = (false, row::HEADER.len() as u64);
        }
        Ok(())
    }

    /// One file more, named after the first row that waits; what is in the former is on storage before.
    fn next_file(&mut self) -> Result<(), SysError> {
        self.sync()?;
        let first = row_number(&self.waiting).unwrap_or(self.next);
        let path = self.directory.join(name_of(&self.record, first));
        self.file = create(&path)?;
        (self.path, self.size, self.is_new, self.is_torn) = (path, 0, true, false);
        self.remove_oldest();
        self.settle()
    }

    fn remove_oldest(&mut self) {
        let firsts = files(&self.directory, &mut self.record);
        let more = firsts.len().saturating_sub(self.file_count_max);
        for first in &firsts[..more] {
            file::remove(&self.directory.join(name_of(&self.record, *first)));
        }
    }

    /// Waits until all that was written is on storage.
    pub fn sync(&mut self) -> Result<(), SysError> {
        log_file::sync_data(self.file.as_fd())?;
        if self.is_new {
            log_file::sync_names(&self.path)?;
            self.is_new = false;
        }
        self.is_dirty = false;
        if !file::is_still(&self.path, self.file.as_fd()) {
            // Somebody took the file away: what comes now is to be where it is looked for.
            self.path = self.directory.join(name_of(&self.record, self.next));
            self.file = create(&self.path)?;
            (self.size, self.is_new) = (0, true);
        }
        Ok(())
    }
}

/// The number of the first of some rows.
fn row_number(rows: &[u8]) -> Option<u64> {
    rows.split_inclusive(|byte| *byte == b'\n').next().and_then(row::number)
}

/// A file that is not there yet, for everybody to read.
fn create(path: &Path) -> Result<OwnedFd, SysError> {
    // Not appended to: one writer that is never anywhere but at its end.
    let made = log_file::create_new(path);
    drop(made?);
    let _ = file::set_mode(path, 0o644);
    open(path)
}

fn open(path: &Path) -> Result<OwnedFd, SysError> {
    match log_file::open_log(path) {
        Ok((file, true)) => Ok(file),
        _ => Err(SysError { operation: "open a file of the record", errno: libc::EACCES }),
    }
}

/// The file, the end of its last whole row, the next row's number, and its size.
fn reopen(path: &Path, first: u64) -> Result<(OwnedFd, u64, u64, u64), SysError> {
    let file = open(path)?;
    let size = file::size(file.as_fd())?;
    let reader = log_file::open_to_read(path, file.as_fd())
        .ok_or(SysError { operation: "read the record", errno: libc::EACCES })?;
    let mut read = |at: u64, bytes: &mut [u8]| log_file::read_at(reader.as_fd(), at, bytes);
    let (end, next) = look_through(&mut read, first)?;
    Ok((file, end, next, size))
}

/// Reads at a place.
type ReadAt<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> Result<usize, SysError>;

/// Looks through a file that begins with this row: where the last whole row ends, and the number of the next.
fn look_through(read: ReadAt, first: u64) -> Result<(u64, u64), SysError> {
    let mut bytes = vec![0; READ_BYTES];
    let (mut at, mut end, mut next) = (0, 0, first);
    loop {
        let count = read(at, &mut bytes)?;
        let Some(last) = bytes[..count].iter().rposition(|byte| *byte == b'\n') else {
            if count < bytes.len() {
                return Ok((end, next));
            }
            // Longer than any row: what a power cut leaves.
            at += count as u64;
            continue;
        };
        for line in bytes[..=last].split_inclusive(|byte| *byte == b'\n') {
            at += line.len() as u64;
            if let Some(number) = row::number(line) {
                (end, next) = (at, number + 1);
            } else if at == line.len() as u64 && line == row::HEADER {
                end = at;
            }
        }
    }
}

#[cfg(test)]
mod tests;

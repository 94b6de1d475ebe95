//! The recorder's files, read on from any row. Only what is on storage is given out: a power cut must not take back, and give to
//! another row, a number that a database has.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use multusd::child::recorder::{row, store};

/// Read at once; far more than a row has.
const READ_BYTES: usize = 64 * 1024;

/// Where in the files it is.
pub struct Follower {
    directory: PathBuf,
    /// The record that is followed.
    pub record: String,
    /// The next row.
    pub next: u64,
    file: Option<(u64, File)>,
    offset: u64,
}

/// Rows, and how many before them are gone.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Each a line without its end.
    pub lines: Vec<String>,
    /// Rows that nobody has any more.
    pub gone: u64,
}

impl Follower {
    /// Follows the newest record in the directory, if there is one.
    pub fn new(directory: PathBuf) -> Option<Follower> {
        let mut record = String::new();
        store::files(&directory, &mut record);
        (!record.is_empty()).then_some(Follower { directory, record, next: 1, file: None, offset: 0 })
    }

    /// It is still the newest.
    pub fn is_newest(&self) -> bool {
        let mut record = String::new();
        store::files(&self.directory, &mut record);
        record.is_empty() || record == self.record
    }

    /// Goes to this row.
    pub fn go_to(&mut self, next: u64) {
        (self.next, self.file, self.offset) = (next, None, 0);
    }

    /// The next rows, from as many files as they are in; fewer than so many: there are no more now. They are on storage.
    pub fn rows(&mut self, count_max: usize) -> io::Result<Rows> {
        let mut rows = Rows::default();
        let mut bytes = vec![0; READ_BYTES];
        loop {
            // Before what is read: to a file that is not the last nothing comes any more.
            let firsts = store::files(&self.directory, &mut self.record);
            let begun = firsts.iter().rev().find(|first| **first <= self.next).or(firsts.first());
            let Some(first) = begun.copied() else { return Ok(rows) };
            if self.file.as_ref().is_none_or(|(open, _)| *open < first && self.is_at_end()) {
                let file = match File::open(self.directory.join(store::name_of(&self.record, first))) {
                    // Removed since they were listed, being the oldest: there are others now.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    file => file?,
                };
                // Its name is on storage, too.
                File::open(&self.directory)?.sync_all()?;
                (self.file, self.offset) = (Some((first, file)), 0);
            }
            let Some((open, file)) = &self.file else { return Ok(rows) };
            let is_last = firsts.last() == Some(open);
            let count = file.read_at(&mut bytes, self.offset)?;
            let Some(last) = bytes[..count].iter().rposition(|byte| *byte == b'\n') else {
                if count == bytes.len() {
                    // Longer than any row: damage.
                    self.offset += count as u64;
                    continue;
                }
                if is_last {
                    return Ok(rows);
                }
                // What is behind the next file's first row begins there.
                let later = firsts.iter().find(|first| **first > *open).copied().unwrap_or(self.next);
                rows.gone += later.saturating_sub(self.next);
                self.next = self.next.max(later);
                self.file = None;
                continue;
            };
            let before = rows.lines.len();
            for line in bytes[..=last].split_inclusive(|byte| *byte == b'\n') {
                if rows.lines.len() == count_max {
                    break;
                }
                self.offset += line.len() as u64;
                let Some(number) = row::number(line).filter(|number| *number >= self.next) else { continue };
                rows.gone += number - self.next;
                self.next = number + 1;
                rows.lines.push(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            }
            if rows.lines.len() > before {
                file.sync_data()?;
            }
            if rows.lines.len() == count_max {
                return Ok(rows);
            }
        }
    }

    fn is_at_end(&self) -> bool {
        self.file.as_ref().is_none_or(|(_, file)| file.metadata().is_ok_and(|file| file.len() <= self.offset))
    }

    /// The last row there is.
    pub fn last(&self) -> u64 {
        let mut record = self.record.clone();
        let firsts = store::files(&self.directory, &mut record);
        let next = firsts.last().copied().unwrap_or(1);
        let mut probe = Follower { directory: self.directory.clone(), record, next, file: None, offset: 0 };
        while probe.rows(1000).is_ok_and(|rows| !rows.lines.is_empty()) {}
        probe.next - 1
    }

    /// Rows that wait.
    pub fn waiting(&self) -> u64 {
        (self.last() + 1).saturating_sub(self.next)
    }
}

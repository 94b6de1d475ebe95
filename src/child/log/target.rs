//! One file (or device) that lines go to, and the ones it was before: opened warily, appended to, synced, rotated,
//! compressed. Decides nothing about lines.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sys::filter::Filter;
use crate::sys::{file as sys_file, log_file};

/// A device that takes nothing (a terminal that was stopped) holds up the other logs so long, once.
const DEVICE_PATIENCE_MS: u16 = 1000;

/// A filter that takes longer is killed, and the file stays as it is.
const FILTER_MS_MAX: u16 = 60_000;

/// A rotated file that is being compressed.
struct Squeezed {
    filter: Filter,
    output: OwnedFd,
    /// Its number, as it is by now.
    number: u32,
}

/// A file with its cap.
pub struct Target {
    /// Where it is; empty: nowhere, everything is taken.
    pub path: String,
    /// Rotated above this size; 0: never.
    pub maxbytes: u64,
    /// Rotated files kept.
    pub backups: u32,
    /// Synced with everything that is written.
    pub sync: bool,
    /// It is a device: nothing is held back, it has no size and cannot be rotated.
    pub is_device: bool,
    file: Option<OwnedFd>,
    size: u64,
    /// Its last line has no end yet, and what is written next goes on with it.
    pub goes_on: bool,
    /// Something was written since the last sync.
    is_dirty: bool,
    /// A name in its directory has changed since.
    names_changed: bool,
    /// It does not work, which was said.
    complained: bool,
    squeezed: Option<Squeezed>,
}

/// The file's name when it was rotated so often, compressed or not.
fn nth(path: &str, number: u32, is_squeezed: bool) -> PathBuf {
    [path, ".", &number.to_string(), if is_squeezed { ".gz" } else { "" }].concat().into()
}

/// What the filter writes, until it is whole.
fn half_squeezed(path: &str) -> PathBuf {
    [path, ".gz.new"].concat().into()
}

impl Target {
    /// A path that nothing is known of yet.
    pub fn new(path: String, maxbytes: u64, backups: u32, sync: bool) -> Target {
        let is_device = log_file::is_device(Path::new(&path));
        let target = Target {
            path,
            maxbytes,
            backups,
            sync,
            is_device,
            file: None,
            size: 0,
            goes_on: false,
            is_dirty: false,
            names_changed: false,
            complained: false,
            squeezed: None,
        };
        target.tidy();
        target
    }

    /// Removes what a power cut or a kill left of a compression: what was not whole, or was whole and not removed.
    fn tidy(&self) {
        if self.path.is_empty() || self.is_device {
            return;
        }
        if sys_file::is_regular(&half_squeezed(&self.path)) {
            sys_file::remove(&half_squeezed(&self.path));
        }
        for number in 1..=self.backups {
            let is_there = |is_squeezed| sys_file::is_regular(&nth(&self.path, number, is_squeezed));
            if is_there(true) && is_there(false) {
                sys_file::remove(&nth(&self.path, number, false));
            }
        }
    }

    fn open(&mut self) -> Result<(), String> {
        let path = Path::new(&self.path);
        // Somebody took it away: what is written into it now nobody reads.
        self.file.take_if(|file| !sys_file::is_still(path, file.as_fd()));
        if self.file.is_none() {
            let (file, is_regular) = log_file::open_log(path)?;
            self.is_device = !is_regular;
            self.size = if is_regular { log_file::size_of(path) } else { 0 };
            self.names_changed |= is_regular;
            let goes_on = std::mem::take(&mut self.goes_on);
            if is_regular && !goes_on && log_file::ends_within_line(path, file.as_fd(), self.size) {
                self.size += 1;
                log_file::write_all(file.as_fd(), b"\n", 0).map_err(|error| error.to_string())?;
            }
            self.file = Some(file);
        }
        Ok(())
    }

    /// Makes it ready for so many bytes: opened, rotated where they do not fit. Its inode and size, which are 0
    /// where it is no regular file.
    pub fn prepare(
        &mut self,
        bytes: u64,
        squeeze: &[String],
        bell: impl FnOnce(),
    ) -> Result<(u64, u64), String> {
        if self.path.is_empty() {
            return Ok((0, 0));
        }
        self.open()?;
        if !self.is_device && self.maxbytes > 0 && self.size > 0 && self.size + bytes > self.maxbytes {
            self.rotate(squeeze, bell);
            self.open()?;
        }
        let inode =
            self.file.as_ref().filter(|_| !self.is_device).map_or(0, |file| log_file::inode(file.as_fd()));
        Ok((inode, self.size))
    }

    /// Appends; after an error nothing of it is in a regular file.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let patience = if self.complained { 0 } else { DEVICE_PATIENCE_MS };
        match log_file::write_all(file.as_fd(), bytes, patience) {
            Ok(()) => {
                self.size += if self.is_device { 0 } else { bytes.len() as u64 };
                self.is_dirty = true;
                Ok(())
            }
            Err(error) => {
                if !self.is_device {
                    let _ = log_file::cut(file.as_fd(), self.size);
                }
                self.file = None;
                Err(crate::sys::describe(error.errno).into())
            }
        }
    }

    /// What a former storer wrote when it was killed is taken back; the file is still that one.
    pub fn take_back(&mut self, inode: u64, size: u64) {
        if inode != 0
            && log_file::size_of(Path::new(&self.path)) > size
            && let Ok((file, true)) = log_file::open_log(Path::new(&self.path))
            && log_file::inode(file.as_fd()) == inode
        {
            let _ = log_file::cut(file.as_fd(), size);
        }
    }

    /// It works, or does not; said once each.
    pub fn works(&mut self, result: Result<(), &str>) {
        let (path, complained) = (&self.path, std::mem::replace(&mut self.complained, result.is_err()));
        match result {
            Ok(()) if complained => crate::child::report(format_args!("{path}: written again")),
            Err(error) if !complained => {
                crate::child::report(format_args!("{path}: {error}; lines wait in memory until this works"));
            }
            _ => {}
        }
    }

    /// Waits until everything is on storage, its name too.
    pub fn sync(&mut self) -> Result<(), String> {
        let Some(file) = self.file.as_ref().filter(|_| !self.is_device) else { return Ok(()) };
        let mut result = Ok(());
        if self.is_dirty {
            result = log_file::sync_data(file.as_fd());
        }
        if self.names_changed && result.is_ok() {
            result = log_file::sync_names(Path::new(&self.path));
        }
        result.map_err(|error| error.to_string())?;
        (self.is_dirty, self.names_changed) = (false, false);
        Ok(())
    }

    /// `x` becomes `x.1`, `x.1` becomes `x.2`, the last one goes.
    pub fn rotate(&mut self, squeeze: &[String], bell: impl FnOnce()) {
        let Some(file) = self.file.take() else { return };
        let path = Path::new(&self.path);
        // Another one took the name: what it is, the next opening looks at.
        if !sys_file::is_still(path, file.as_fd()) {
            return;
        }
        // What was acknowledged as synced must not depend on a name.
        if self.is_dirty {
            let _ = log_file::sync_data(file.as_fd());
        }
        let reader = log_file::open_to_read(path, file.as_fd()).filter(|_| !squeeze.is_empty());
        for number in (0..=self.backups).rev() {
            for is_squeezed in [false, true] {
                let from =
                    if number == 0 { PathBuf::from(path) } else { nth(&self.path, number, is_squeezed) };
                // Missing ones are no matter; what is no file of ours stays where it is.
                if number == 0 && is_squeezed || !sys_file::is_regular(&from) {
                    continue;
                }
                if number == self.backups {
                    sys_file::remove(&from);
                } else {
                    let _ = sys_file::rename(&from, &nth(&self.path, number + 1, is_squeezed));
                }
            }
        }
        self.names_changed = true;
        self.size = 0;
        if let Some(squeezed) = &mut self.squeezed {
            squeezed.number += 1;
        } else if let Some(reader) = reader.filter(|_| self.backups > 0) {
            self.squeeze(squeeze, reader, bell);
        }
    }

    /// Starts the filter on what has just become `x.1`. One at a time: what is rotated meanwhile stays as it is.
    fn squeeze(&mut self, command: &[String], reader: OwnedFd, bell: impl FnOnce()) {
        let beside = half_squeezed(&self.path);
        sys_file::remove(&beside);
        self.squeezed = log_file::create_new(&beside).ok().and_then(|output| {
            let files = (reader.as_fd(), output.as_fd());
            let filter = Filter::start(command, files, FILTER_MS_MAX, bell).ok()?;
            Some(Squeezed { filter, output, number: 1 })
        });
    }

    /// The filter may have ended: then `x.1.gz` takes the place of `x.1`, whole and on storage.
    pub fn tend(&mut self) {
        let Some(succeeded) = self.squeezed.as_ref().and_then(|squeezed| squeezed.filter.ended()) else {
            return;
        };
        let Some(Squeezed { output, number, .. }) = self.squeezed.take() else { return };
        let beside = half_squeezed(&self.path);
        let is_whole = succeeded
            && number <= self.backups
            && sys_file::is_regular(&nth(&self.path, number, false))
            && sys_file::is_still(&beside, output.as_fd())
            && log_file::sync_data(output.as_fd()).is_ok()
            && sys_file::rename(&beside, &nth(&self.path, number, true)).is_ok()
            // First the one, then not the other.
            && log_file::sync_names(&beside).is_ok();
        if is_whole {
            sys_file::remove(&nth(&self.path, number, false));
        } else {
            sys_file::remove(&beside);
            if !succeeded {
                crate::child::report(format_args!(
                    "{}.{number}: compress failed; it stays as it is",
                    self.path
                ));
            }
        }
    }

    /// Ends what runs beside.
    pub fn abandon(&mut self) {
        if let Some(squeezed) = self.squeezed.take() {
            squeezed.filter.kill();
            sys_file::remove(&half_squeezed(&self.path));
        }
    }

    /// Bytes of its files on storage, and the oldest one of those that were rotated.
    pub fn usage(&self) -> (u64, Option<PathBuf>) {
        let (mut total, mut oldest) = (0, None);
        if !self.path.is_empty() && !self.is_device {
            total = log_file::size_of(Path::new(&self.path));
            for number in 1..=self.backups {
                for is_squeezed in [false, true] {
                    let name = nth(&self.path, number, is_squeezed);
                    let size = log_file::size_of(&name);
                    if size > 0 {
                        total += size;
                        oldest = Some(name);
                    }
                }
            }
        }
        (total, oldest)
    }

    /// Removes all it can: the present file, where nothing older is left.
    pub fn begin_anew(&mut self) {
        self.backups = 0;
        if self.open().is_ok() {
            self.rotate(&[], || {});
        }
    }
}

/// Removes what is oldest of the log that has most, until all of them together have no more than `max` bytes; what
/// they have then.
pub fn keep_below(targets: &mut [Target], max: u64) -> u64 {
    loop {
        let usages: Vec<_> = targets.iter().map(Target::usage).collect();
        let total = usages.iter().map(|usage| usage.0).sum();
        if total <= max {
            return total;
        }
        let with_old = usages.iter().enumerate().filter(|(_, usage)| usage.1.is_some());
        if let Some((_, (_, Some(oldest)))) = with_old.max_by_key(|(_, usage)| usage.0) {
            sys_file::remove(oldest);
            if !sys_file::is_regular(oldest) {
                continue;
            }
        }
        let largest = usages.iter().enumerate().max_by_key(|(_, usage)| usage.0);
        let Some(target) = largest.and_then(|(index, _)| targets.get_mut(index)) else { return total };
        let backups = target.backups;
        target.begin_anew();
        target.backups = backups;
        if target.usage().0 > 0 {
            return total;
        }
    }
}

//! The storer's work, for now the least: lines as they come, into their files.

use crate::config::LogSettings;
use crate::sys::log_ring::{NOTICE, Read, Ring};
use crate::sys::{file, log_ring};
use crate::time::Instant;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

/// Puts what the ring has into the files.
pub struct Store<'a> {
    settings: &'a LogSettings,
    ring: Ring,
    position: u64,
    buffer: Vec<u8>,
}

impl<'a> Store<'a> {
    /// Goes on where a former one stopped.
    pub fn new(settings: &'a LogSettings, ring: &Ring) -> Store<'a> {
        if ring.open_claim().is_some() {
            ring.claim_is_stored();
        }
        let position = ring.header().stored.load(SeqCst);
        Store { settings, ring: *ring, position, buffer: Vec::new() }
    }

    /// Takes what is new, writes what is due; when to be called again (`None`: when there is something new).
    pub fn work(&mut self, _now: Instant) -> Option<Instant> {
        loop {
            match self.ring.read(self.position, &mut self.buffer) {
                Read::Nothing => return None,
                Read::Gone(tail) => self.position = tail,
                Read::Record(record) => {
                    self.write(&record);
                    self.position = record.end;
                    self.ring.stream((record.stream & !NOTICE).into()).done.store(record.end, SeqCst);
                }
            }
            self.ring.header().stored.store(self.position, SeqCst);
        }
    }

    fn write(&mut self, record: &log_ring::Record) {
        let stream = self.settings.streams.iter().find(|stream| stream.number == record.stream);
        let Some(path) = stream.and_then(|stream| stream.path.as_ref()) else { return };
        if let Ok((file, _)) = file::open_log(Path::new(path)) {
            let _ = file::append(file.as_fd(), &self.buffer);
        }
    }

    /// Everything is written and synced.
    pub fn finish(&mut self) {
        self.work(Instant::default());
    }
}

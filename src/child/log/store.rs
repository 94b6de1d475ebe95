//! The storer's work: what the ring has goes into files, in batches, because storage wears out by every write; into
//! syslog and the kernel's log at once. Whenever it is killed, its successor goes on where it was; whatever does not
//! work is tried again, and its lines stay in the ring meanwhile.
//!
//! This file has when things are done; `hear.rs` makes text of records, `write.rs` brings it to its targets.

use std::sync::atomic::Ordering::SeqCst;

use super::hear::Voice;
use super::relay::Relay;
use super::target::{Target, keep_below};
use super::write::Batch;
use crate::config::{LogSettings, LogStamp};
use crate::log_text::lines::When;
use crate::sys::futex;
use crate::sys::log_claim::OPEN_LINE;
use crate::sys::log_ring::{NOTICE, Read, Ring, STREAM_COUNT};
use crate::time::{Instant, Millis};

/// So much of one file is written without waiting for more: four pages, and far above what one write costs.
pub(super) const BLOCK_BYTES: usize = 16 * 1024;

/// What does not work is tried again after this.
const RETRY_MS: u64 = 1000;

/// Puts what the ring has where it belongs.
pub struct Store<'a> {
    pub(super) settings: &'a LogSettings,
    pub(super) ring: Ring,
    /// Everything before was read.
    position: u64,
    buffer: Vec<u8>,
    /// By number of the stream: its place in `voices`, plus 1.
    places: Vec<u16>,
    pub(super) voices: Vec<Voice<'a>>,
    pub(super) targets: Vec<Target>,
    pub(super) batches: Vec<Batch>,
    pub(super) relay: Relay,
    /// The last stamp that was made, and of what.
    pub(super) stamped: ((LogStamp, When), Vec<u8>),
    /// Bytes of all files, not less than there are.
    pub(super) total: u64,
    pub(super) now_ms: u64,
}

impl<'a> Store<'a> {
    /// Goes on where a former one stopped.
    pub fn new(settings: &'a LogSettings, ring: &Ring) -> Store<'a> {
        let relay = Relay::new(&settings.syslog, settings.kmsg);
        let mut store = Store {
            settings,
            ring: *ring,
            position: ring.header().stored.load(SeqCst),
            buffer: Vec::new(),
            places: vec![0; STREAM_COUNT],
            voices: Vec::new(),
            targets: Vec::new(),
            batches: Vec::new(),
            relay,
            stamped: ((LogStamp::None, When::default()), Vec::new()),
            total: 0,
            now_ms: 0,
        };
        // One log alone must leave room for what it was before.
        let largest = settings.total_maxbytes / 2;
        for stream in &settings.streams {
            let path = stream.path.as_deref().filter(|_| !settings.ram_only).unwrap_or("");
            let known =
                store.targets.iter().position(|target| target.path == path && target.sync == stream.sync);
            let target = known.unwrap_or_else(|| {
                let maxbytes = if stream.maxbytes == 0 { largest } else { stream.maxbytes.min(largest) };
                store.targets.push(Target::new(path.into(), maxbytes, stream.backups, stream.sync));
                store.batches.push(Batch::default());
                store.targets.len() - 1
            });
            store.voices.push(Voice::new(stream, target, ring));
            if let Some(place) = store.places.get_mut(usize::from(stream.number)) {
                *place = store.voices.len() as u16;
            }
        }
        store.settle_claim();
        store.voices.iter_mut().for_each(Voice::go_back);
        for (at, voice) in store.voices.iter().enumerate() {
            // A line that was cut by a former storer's end goes on.
            if voice.words.storer[OPEN_LINE].load(SeqCst) == voice.mark(true) {
                store.batches[voice.target].goes_on_from(at);
                store.targets[voice.target].goes_on = true;
            }
        }
        store.total = keep_below(&mut store.targets, settings.total_maxbytes);
        store
    }

    /// What a former storer was writing when it was killed: taken back where that is possible.
    fn settle_claim(&mut self) {
        self.ring.end_claim();
        let Some(part) = self.ring.open_claim() else { return };
        let place = self.places.get(usize::from(part.stream)).copied().unwrap_or(0);
        let voice = usize::from(place).checked_sub(1).and_then(|place| self.voices.get(place));
        match voice.and_then(|voice| self.targets.get_mut(voice.target)) {
            Some(target) if part.inode != 0 => {
                target.take_back(part.inode, part.size);
                self.ring.claim_failed();
            }
            // What a device has, it has.
            _ => self.ring.claim_is_stored(),
        }
    }

    /// Takes what is new, writes what is due; when to be called again (`None`: when there is something new).
    pub fn work(&mut self, now: Instant) -> Option<Instant> {
        self.now_ms = now.0 / 1_000_000;
        let header = self.ring.header();
        header.storer_progress.fetch_add(1, SeqCst);
        self.targets.iter_mut().for_each(Target::tend);
        loop {
            self.read_on();
            self.try_again();
            self.write_due();
            self.publish();
            let at = self.position + self.patience();
            header.wake_at.store(at, SeqCst);
            // Somebody may have looked at the old one.
            if header.head.load(SeqCst) < at {
                break;
            }
        }
        let deadline = self.deadline()?;
        Some(Instant::default() + Millis(deadline))
    }

    /// The last work: everything is written and synced, as far as that works.
    pub fn finish(&mut self) {
        self.read_on();
        self.batches.iter_mut().for_each(|batch| batch.retry_ms = 0);
        self.try_again();
        self.write_all();
        self.sync();
        self.publish();
        self.targets.iter_mut().for_each(Target::abandon);
    }

    /// Takes what is new.
    fn read_on(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let head = self.ring.header().head.load(SeqCst);
            match self.ring.read(self.position, &mut buffer) {
                Read::Nothing => {
                    // What was left of the area may have been passed over already, with nothing behind it yet.
                    self.position = self.position.max(head);
                    break;
                }
                Read::Gone(tail) => self.position = tail,
                Read::Record(record) => {
                    self.position = record.end;
                    if let Some(voice) = self.voice(record.stream, record.generation) {
                        self.hear(voice, &record, &buffer);
                    }
                    if self.position - self.ring.header().stored.load(SeqCst) > self.ring.size() / 2 {
                        self.make_room();
                    }
                }
            }
        }
        self.buffer = buffer;
    }

    /// Most of the ring waits: it is not to be full because a quiet program's line can wait still.
    fn make_room(&mut self) {
        if self.position - self.stored() > self.ring.size() / 2 {
            self.write_all();
        }
        self.publish();
    }

    fn voice(&self, stream: u16, generation: u16) -> Option<usize> {
        let place = *self.places.get(usize::from(stream & !NOTICE))?;
        let place = usize::from(place).checked_sub(1)?;
        self.voices.get(place).is_some_and(|voice| voice.stream.generation == generation).then_some(place)
    }

    /// What did not work, and is due again: from the ring once more.
    fn try_again(&mut self) {
        for target in 0..self.batches.len() {
            let batch = &mut self.batches[target];
            let Some(mut at) = batch.held_from.filter(|_| batch.retry_ms <= self.now_ms) else { continue };
            batch.held_from = None;
            let mut buffer = std::mem::take(&mut self.buffer);
            while at < self.position && self.batches[target].held_from.is_none() {
                match self.ring.read(at, &mut buffer) {
                    Read::Nothing => break,
                    Read::Gone(tail) => at = tail,
                    Read::Record(record) => {
                        at = record.end;
                        let voice = self.voice(record.stream, record.generation);
                        if let Some(voice) = voice.filter(|voice| self.voices[*voice].target == target)
                            && record.position < self.position
                        {
                            self.hear(voice, &record, &buffer);
                        }
                    }
                }
            }
            self.buffer = buffer;
            self.write(target, true);
        }
    }

    /// Since when the oldest of what a target is to get waits.
    fn since(&self, target: usize) -> Option<u64> {
        let voices = self.voices.iter().filter(|voice| voice.target == target);
        voices.filter_map(Voice::since).chain(self.batches[target].since_ms).min()
    }

    /// The same of all.
    fn oldest(&self) -> Option<u64> {
        let batches = self.batches.iter().filter_map(|batch| batch.since_ms);
        self.voices.iter().filter_map(Voice::since).chain(batches).min()
    }

    fn write_due(&mut self) {
        let header = self.ring.header();
        let flush_ms = self.settings.flush_ms;
        let wanted = header.flush_taken.load(SeqCst);
        if wanted != header.flush_done.load(SeqCst) {
            self.read_on();
            self.write_all();
            header.flush_done.store(wanted, SeqCst);
        }
        let now_ms = self.now_ms;
        let has_waited = |ms| move |since: u64| since.saturating_add(ms) <= now_ms;
        if self.oldest().is_some_and(has_waited(flush_ms)) {
            // Together: the file system's own records are written once.
            for target in 0..self.targets.len() {
                if self.since(target).is_some_and(has_waited(flush_ms / 2)) {
                    self.write(target, false);
                }
            }
        }
        if header.sync_taken.load(SeqCst) != header.sync_done.load(SeqCst) {
            self.sync();
        }
    }

    pub(super) fn write_all(&mut self) {
        for target in 0..self.targets.len() {
            self.write(target, true);
        }
    }

    /// Everything that is there, on storage.
    fn sync(&mut self) {
        let header = self.ring.header();
        let wanted = header.sync_taken.load(SeqCst);
        // What was taken meanwhile belongs to it.
        self.read_on();
        self.write_all();
        let mut is_done = self.batches.iter().all(|batch| batch.held_from.is_none());
        for target in &mut self.targets {
            let result = target.sync();
            is_done &= result.is_ok();
            if let Err(error) = result {
                target.works(Err(&error));
            }
        }
        if is_done {
            header.synced.store(self.stored(), SeqCst);
            header.sync_done.store(wanted, SeqCst);
            futex::wake(&header.sync_done);
        }
    }

    /// Everything before this position is where it belongs.
    fn stored(&self) -> u64 {
        let batches = self.batches.iter().filter_map(Batch::pending);
        let pending = self.voices.iter().filter_map(Voice::pending).chain(batches);
        pending.min().unwrap_or(self.position).min(self.position)
    }

    /// Tells the others how far it is.
    fn publish(&self) {
        let header = self.ring.header();
        let fails = self.batches.iter().any(|batch| batch.held_from.is_some() && batch.retry_ms > 0);
        header.storage_fails.store(fails.into(), SeqCst);
        let stored = self.stored();
        if header.stored.swap(stored, SeqCst) != stored {
            self.ring.call_collector();
        }
    }

    /// How much may come before it matters.
    fn patience(&self) -> u64 {
        let at_once = self.voices.iter().any(|voice| {
            let target = &self.targets[voice.target];
            target.sync || target.is_device || voice.stream.syslog || voice.stream.kmsg
        });
        if at_once || self.oldest().is_none() { 1 } else { (BLOCK_BYTES as u64).min(self.ring.size() / 8) }
    }

    fn deadline(&self) -> Option<u64> {
        let header = self.ring.header();
        let unsynced = header.sync_taken.load(SeqCst) != header.sync_done.load(SeqCst);
        let retries =
            self.batches.iter().filter(|batch| batch.held_from.is_some()).map(|batch| batch.retry_ms);
        let flushes = self.oldest().map(|since| since.saturating_add(self.settings.flush_ms));
        retries.chain(flushes).chain(unsynced.then_some(self.now_ms + RETRY_MS)).min()
    }

    /// A target does not take what it is to get: back to what is stored, and once more when it is time.
    pub(super) fn hold(&mut self, target: usize, retry_now: bool) {
        let from = self.pending(target).unwrap_or(self.position);
        let batch = &mut self.batches[target];
        batch.forget();
        batch.held_from = Some(from);
        batch.retry_ms = if retry_now { 0 } else { self.now_ms + RETRY_MS };
        for voice in self.voices.iter_mut().filter(|voice| voice.target == target) {
            voice.go_back();
        }
    }
}

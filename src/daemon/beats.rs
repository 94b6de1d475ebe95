//! Heartbeats: how programs prove progress, turned into events. What a beat rests on (a pipe, a page, a
//! queue of changes, a port) is made anew for every process, so that nothing of a former one counts; it is
//! kept for a successor, who goes on where we ended.
//!
//! A wake-up reads one bounded piece of one source and allocates nothing. What does not wake us, the page
//! of a `counter`, is read when its deadline is due, before that is judged.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::SeqCst;

use crate::config::HeartbeatKind;
use crate::supervisor::{ChildId, Event, Generation};
use crate::sys::page::KeepForProgram::{Beat, BeatLink, BeatNew};
use crate::sys::poll::Interest;
use crate::sys::{SysError, clock, counter, file, inotify, poll, process, reserve, socket, tcp};
use crate::time::Instant;

use super::jobs::{self, Job, Tree};
use super::table::Entry;
use super::{Daemon, Token, borrow};

/// Bytes read of one program's beats in one wake-up.
const BEAT_BYTES: usize = 4096;

impl Entry {
    /// Its heartbeat is of this kind.
    pub(super) fn beats_by(&self, kind: &HeartbeatKind) -> bool {
        self.program.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.kind == *kind)
    }
}

/// The file's name in its directory.
fn name_of(path: &str) -> &[u8] {
    path.rsplit('/').next().unwrap_or(path).as_bytes()
}

/// The original's counter: 1 to 9, then 1 again; it may begin with any of them.
fn follows(last: u8, byte: u8) -> bool {
    (1..=9).contains(&byte) && (last == 0 || byte == last % 9 + 1)
}

impl Daemon {
    /// The process proved progress at this time.
    pub(super) fn beat(&mut self, child: ChildId, at: Instant) {
        let slot = self.page.program(child.index());
        if slot.is_alive() {
            self.observe(Event::Beat { child, generation: Generation(slot.generation()), at });
        }
    }

    /// Means of beating for the process that is about to be made; its end of a pipe, where it has one.
    pub(super) fn make_beat(&mut self, child: ChildId) -> Result<Option<OwnedFd>, SysError> {
        let slot = self.page.program(child.index());
        self.forget_beats(child);
        let Some(entry) = self.entry(child) else { return Ok(None) };
        entry.beat_seen = 0;
        let (ours, theirs) = match entry.program.heartbeat.as_ref().map(|heartbeat| &heartbeat.kind) {
            None | Some(HeartbeatKind::Notify) => return Ok(None),
            Some(HeartbeatKind::Fd) => {
                let (ours, theirs) = file::beat_pipe()?;
                (ours, Some(theirs))
            }
            Some(HeartbeatKind::Counter) => {
                slot.keep(Beat, Some(counter::page()?));
                return Ok(None);
            }
            Some(HeartbeatKind::File(_)) => (inotify::queue()?, None),
            Some(HeartbeatKind::Tcp(port)) => (tcp::listen(*port)?, None),
        };
        self.watch(borrow(&ours), Token::Beat(child), Interest::Read);
        slot.keep(Beat, Some(ours));
        Ok(theirs)
    }

    /// Lets go of everything a former process could have beaten by.
    pub(super) fn forget_beats(&mut self, child: ChildId) {
        self.drop_end(child, Beat);
        self.drop_end(child, BeatLink);
        self.drop_end(child, BeatNew);
    }

    /// A former supervisor's program goes on beating.
    pub(super) fn resume_beats(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let Some(entry) = self.entry(child) else { return };
        let is_counter = entry.beats_by(&HeartbeatKind::Counter);
        let is_verifying = slot.kept(BeatNew).is_some();
        for (end, token) in [(Beat, Token::Beat(child)), (BeatLink, Token::BeatLink(child))] {
            let is_silent = end == Beat && (is_counter || is_verifying);
            if let Some(number) = slot.kept(end).filter(|_| !is_silent) {
                self.watch(poll::borrow(number), token, Interest::Read);
            }
        }
        self.start_verifying();
    }

    /// Something arrived where the program beats.
    pub(super) fn take_beat(&mut self, child: ChildId) {
        let Some(number) = self.page.program(child.index()).kept(Beat) else { return };
        let Some(entry) = self.entry(child) else { return };
        let program = entry.program.clone();
        let source = poll::borrow(number);
        let came = match program.heartbeat.as_ref().map(|heartbeat| &heartbeat.kind) {
            Some(HeartbeatKind::Fd) => match file::read_some(source, &mut [0; BEAT_BYTES]) {
                // Nobody can beat any more.
                Some(0) => return self.drop_end(child, Beat),
                length => length.is_some(),
            },
            Some(HeartbeatKind::File(path)) => inotify::has_changed(source, name_of(path)),
            Some(HeartbeatKind::Tcp(_)) => return self.take_link(child),
            _ => false,
        };
        if came {
            self.beat(child, clock::now());
        }
    }

    /// Reads the pages of `counter` heartbeats whose deadline is due: a beat since the last look moves it.
    pub(super) fn read_counters(&mut self, now: Instant) {
        for index in 0..self.table.len() {
            let child = ChildId(index as u16);
            if self.core.status(child).is_some_and(|status| status.beat_due.is_due(now)) {
                self.read_counter(child);
            }
        }
    }

    /// Reads one, if it has one. Only a time that is not the last one read is a beat, so that one from the
    /// future, which the core takes for the present, counts once.
    pub(super) fn read_counter(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let Some(number) = slot.kept(Beat) else { return };
        let Some(entry) = self.entry(child).filter(|entry| entry.beats_by(&HeartbeatKind::Counter)) else {
            return;
        };
        let at = counter::read(poll::borrow(number));
        if std::mem::replace(&mut entry.beat_seen, at) != at {
            self.beat(child, Instant(at));
        }
    }

    /// Somebody connected to the port of a `tcp` heartbeat: one at a time, the next waits.
    fn take_link(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let Some(number) = slot.kept(Beat) else { return };
        let connection = match socket::accept(poll::borrow(number)) {
            Ok(Some((connection, _))) => connection,
            Ok(None) => return,
            Err(_) => {
                if !reserve::release_one() {
                    // It would wake us for ever.
                    self.poller.remove(poll::borrow(number));
                    self.try_again_soon();
                }
                return;
            }
        };
        if slot.is_alive() {
            slot.keep(BeatNew, Some(connection));
            self.poller.remove(poll::borrow(number));
            self.start_verifying();
        }
    }

    /// After [`Daemon::take_link`] had to stop, for want of a descriptor.
    pub(super) fn listen_for_link(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let is_tcp = |entry: &Entry| {
            entry
                .program
                .heartbeat
                .as_ref()
                .is_some_and(|heartbeat| matches!(heartbeat.kind, HeartbeatKind::Tcp(_)))
        };
        if let Some(listener) = slot.kept(Beat).filter(|_| {
            self.table[child.index()].as_deref().is_some_and(is_tcp) && slot.kept(BeatNew).is_none()
        }) {
            // Refused where it is watched already.
            self.watch(poll::borrow(listener), Token::Beat(child), Interest::Read);
        }
    }

    /// Who connected is found out by a job, for one connection at a time.
    pub(super) fn start_verifying(&mut self) {
        let job = self.page.job(Job::Verify as usize);
        let (life, guard) = (self.page.life.load(SeqCst), self.page.guard.load(SeqCst));
        let page = self.page;
        if job.is_alive() {
            return;
        }
        let waiting =
            (0..self.table.len()).find_map(|index| Some((index, page.program(index).kept(BeatNew)?)));
        let Some((index, number)) = waiting else { return };
        let Some(entry) = self.table[index].as_ref() else { return };
        let slot = page.program(index);
        job.purpose.store(index as u32, SeqCst);
        job.flags.store(0, SeqCst);
        let (name, group) = (entry.program.name.as_str(), entry.group.as_ref());
        let started = process::spawn_job(job, slot.generation(), || {
            let tree = Tree { group: group.map(borrow), quarry: jobs::quarry(life, name, slot, guard) };
            jobs::verify(&tree, poll::borrow(number))
        });
        if started.is_err() {
            self.try_again_soon();
        }
    }

    /// It is known who connected: the newest connection of the program's own is the one that counts.
    pub(super) fn finish_verifying(&mut self, is_its_own: bool) {
        let job = self.page.job(Job::Verify as usize);
        let child = ChildId(job.purpose.load(SeqCst) as u16);
        let slot = self.page.program(child.index());
        // Of a former process: that connection is closed already.
        if let Some(number) = slot.kept(BeatNew).filter(|_| slot.generation() == job.generation()) {
            if is_its_own && let Ok(connection) = file::duplicate(poll::borrow(number)) {
                self.drop_end(child, BeatLink);
                self.watch(borrow(&connection), Token::BeatLink(child), Interest::Read);
                slot.keep(BeatLink, Some(connection));
                if let Some(entry) = self.entry(child) {
                    entry.beat_seen = 0;
                }
            }
            slot.keep(BeatNew, None);
            if let Some(listener) = slot.kept(Beat) {
                self.watch(poll::borrow(listener), Token::Beat(child), Interest::Read);
            }
        }
        self.start_verifying();
    }

    /// Bytes of the connection that counts.
    pub(super) fn take_link_bytes(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let Some(number) = slot.kept(BeatLink) else { return };
        let mut bytes = [0; BEAT_BYTES];
        let length = match file::read_some(poll::borrow(number), &mut bytes) {
            // Its deadline goes on; it may connect again.
            Some(0) => return self.drop_end(child, BeatLink),
            Some(length) => length,
            None => return,
        };
        let Some(entry) = self.entry(child) else { return };
        for byte in &bytes[..length] {
            if !follows(entry.beat_seen as u8, *byte) {
                entry.explain(format_args!("hung: byte {byte} on its heartbeat's port"));
                let generation = Generation(slot.generation());
                return self.observe(Event::Hung { child, generation });
            }
            entry.beat_seen = u64::from(*byte);
        }
        self.beat(child, clock::now());
    }

    fn drop_end(&mut self, child: ChildId, end: crate::sys::page::KeepForProgram) {
        let slot = self.page.program(child.index());
        if let Some(number) = slot.kept(end) {
            self.poller.remove(poll::borrow(number));
            slot.keep(end, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_counter_goes_from_1_to_9_and_begins_anywhere() {
        let mut last = 0;
        for byte in (1..=9).cycle().take(30) {
            assert!(follows(last, byte));
            last = byte;
        }
        assert!(follows(0, 7) && follows(9, 1));
        for (last, byte) in [(0, 0), (0, 10), (0, b'1'), (3, 3), (3, 5), (9, 0), (9, 10), (1, 1)] {
            assert!(!follows(last, byte), "{last} {byte}");
        }
    }

    #[test]
    fn a_file_is_known_by_its_name() {
        assert_eq!(name_of("/run/pump/beat"), b"beat");
        assert_eq!(name_of("beat"), b"beat");
    }
}

//! No program ever hangs on its log. Programs write into pipes that the guard keeps; `log`, a child like any other,
//! empties them into the ring. Here is what the supervisor does: it gives `log` what it needs, and where nothing is
//! taken for too long (`log` hangs, is dead, cannot be started) it throws away what is in full pipes and counts it.
//!
//! One thing is watched, the set of all pipes; while nothing is written nobody wakes for it.

use std::os::fd::{AsFd, RawFd};
use std::sync::atomic::Ordering::SeqCst;

use crate::config::{LogSettings, StreamSettings};
use crate::limits::LOG;
use crate::packed;
use crate::protocol::{Refusal, Reply};
use crate::supervisor::{ChildId, Event, Generation, Order};
use crate::sys::log_ring::{self, Ring};
use crate::sys::page::{Keep, KeepForProgram, Page};
use crate::sys::poll::{self, Interest};
use crate::sys::{SysError, clock, file, signal};
use crate::time::{Instant, Millis};

use super::control::refused;
use super::spec::digest;
use super::{Daemon, Token};

/// Lines that nobody takes are thrown away after this time, or after half of the shortest heartbeat of a program with
/// a log, but not sooner than the second.
const OVERDUE: (Millis, Millis) = (Millis(250), Millis(20));
/// A `log` that has taken nothing for so long, though there was something, hangs.
const HUNG: Millis = Millis(3000);

/// Both streams of a program: read end, write end.
pub const ENDS: [(KeepForProgram, KeepForProgram); 2] = [
    (KeepForProgram::OutRead, KeepForProgram::OutWrite),
    (KeepForProgram::ErrRead, KeepForProgram::ErrWrite),
];

/// What the supervisor knows of the logs; the rest is in the ring.
#[derive(Default)]
pub struct Logs {
    ring: Option<Ring>,
    /// What `log` was told may not hold any more.
    pub is_stale: bool,
    /// Tells what `log` is told from what it was told.
    told: u64,
    /// What is written and not taken for so long is thrown away.
    overdue: Millis,
    /// When to look whether what is there is being taken; none: nothing is there.
    due: Option<Instant>,
    /// The steps that had been taken when it was last seen that more were, and when that was.
    progress: u64,
    progress_at: Instant,
    /// Lines and bytes thrown away before this trouble began; none: there is none.
    trouble: Option<(u64, u64)>,
}

/// Every pipe: its stream's number, read end, write end.
fn each_pipe(page: &Page, take: &mut dyn FnMut(usize, RawFd, RawFd)) {
    for number in 0..2 * page.program_slots.load(SeqCst) as usize {
        let (slot, (read, write)) = (page.program(number / 2), ENDS[number % 2]);
        if let Some((read, write)) = slot.kept(read).zip(slot.kept(write)) {
            take(number, read, write);
        }
    }
}

/// Every descriptor that `log` inherits.
pub fn inherited(page: &Page, give: &mut dyn FnMut(RawFd)) {
    [Keep::LogRing, Keep::LogPoll].into_iter().filter_map(|which| page.kept(which)).for_each(&mut *give);
    each_pipe(page, &mut |_, read, _| give(read));
}

impl Daemon {
    /// The ring and the set of pipes: made when the first stream needs them, or a former supervisor's.
    fn open_ring(&mut self) -> Result<Ring, SysError> {
        if let Some(ring) = self.logs.ring {
            return Ok(ring);
        }
        let page = self.page;
        // One without the others is of a supervisor that was killed as it made them; nothing is in it.
        let is_whole =
            [Keep::LogRing, Keep::LogAgain, Keep::LogPoll].iter().all(|which| page.kept(*which).is_some());
        if !is_whole {
            let (memory, again) = log_ring::create(self.in_force.config.log.ring)?;
            page.keep(Keep::LogRing, Some(memory));
            page.keep(Keep::LogAgain, Some(again));
            page.keep(Keep::LogPoll, Some(poll::set()?));
        }
        let (Some(memory), Some(again), Some(set)) =
            (page.kept(Keep::LogRing), page.kept(Keep::LogAgain), page.kept(Keep::LogPoll))
        else {
            return Err(SysError { operation: "log ring", errno: libc::EBADF });
        };
        let ring = Ring::map(poll::borrow(memory), true)?;
        ring.settle_discard(poll::borrow(again));
        each_pipe(page, &mut |number, read, _| {
            poll::add_to(poll::borrow(set), poll::borrow(read), number as u64);
        });
        self.watch(poll::borrow(set), Token::Log, Interest::OneShot);
        self.logs.ring = Some(ring);
        Ok(ring)
    }

    /// Pipes to `log`, as the configuration has them now.
    pub(super) fn refresh_streams(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let Some(entry) = self.table[child.index()].as_ref() else { return };
        let wanted = [entry.spec.stdout.is_some(), entry.spec.stderr.is_some()];
        let mut failed = None;
        for (index, ((read, write), wanted)) in ENDS.into_iter().zip(wanted).enumerate() {
            // One end alone, of a supervisor that was killed between the two, is as good as none.
            let whole = slot.kept(read).is_some() && slot.kept(write).is_some();
            if wanted && !whole {
                self.drop_pipe(child, index);
                failed = self.make_pipe(child, index).err().or(failed);
            } else if !wanted {
                self.drop_pipe(child, index);
            }
        }
        if let Some((error, entry)) = failed.zip(self.table[child.index()].as_ref()) {
            say!("{}: its output goes to /dev/null: {error}", entry.name());
        }
        self.logs.is_stale = true;
    }

    fn make_pipe(&mut self, child: ChildId, index: usize) -> Result<(), SysError> {
        let ring = self.open_ring()?;
        let (read, write) = file::pipe(true)?;
        let number = 2 * child.index() + index;
        // What may still come of a former program with this number is another generation's.
        let words = ring.stream(number);
        words.generation.fetch_add(1, SeqCst);
        let head = ring.header().head.load(SeqCst);
        [&words.done, &words.relayed].iter().for_each(|word| word.store(head, SeqCst));
        if let Some(set) = self.page.kept(Keep::LogPoll) {
            poll::add_to(poll::borrow(set), read.as_fd(), number as u64);
        }
        let slot = self.page.program(child.index());
        slot.keep(ENDS[index].0, Some(read));
        slot.keep(ENDS[index].1, Some(write));
        Ok(())
    }

    fn drop_pipe(&mut self, child: ChildId, index: usize) {
        let slot = self.page.program(child.index());
        let (read, write) = ENDS[index];
        if let Some((set, pipe)) = self.page.kept(Keep::LogPoll).zip(slot.kept(read)) {
            poll::remove_from(poll::borrow(set), poll::borrow(pipe));
        }
        slot.keep(read, None);
        slot.keep(write, None);
    }

    /// A program leaves: its pipes with it. What is in them, `log` takes before it ends.
    pub(super) fn drop_pipes(&mut self, child: ChildId) {
        (0..ENDS.len()).for_each(|index| self.drop_pipe(child, index));
        self.logs.is_stale = true;
    }

    /// Writes down what `log` is to be told, and has it started anew where it was told something else.
    pub(super) fn tend_log(&mut self) {
        if !std::mem::take(&mut self.logs.is_stale) || self.end.has_begun() {
            return;
        }
        let Some(child) = self.find(LOG) else { return };
        let Ok(bytes) = self.open_ring().map(|_| packed::to_bytes(&mut self.log_settings())) else { return };
        let kept = self.page.kept(Keep::LogSettings);
        let before = kept.and_then(|number| file::read_memory(poll::borrow(number)).ok());
        if before.as_ref() != Some(&bytes) {
            let memory = file::memory(c"multusd-log-settings")
                .and_then(|memory| file::append(memory.as_fd(), &bytes).map(|()| memory));
            match memory {
                Ok(memory) => self.page.keep(Keep::LogSettings, Some(memory)),
                Err(error) => {
                    say!("log: {error}");
                    self.logs.is_stale = true;
                    return self.try_again_soon();
                }
            }
        }
        self.logs.told = digest(&bytes);
        let slot = self.page.program(child.index());
        let wanted = self.core.status(child).is_some_and(|status| status.wanted);
        if slot.is_alive()
            && slot.answer.load(SeqCst) != self.logs.told
            && wanted
            && !self.end.is_coming(self.page)
        {
            self.observe(Event::Ordered { child, order: Order::Restart });
        }
    }

    fn log_settings(&mut self) -> LogSettings {
        let config = &self.in_force.config.log;
        let mut streams = Vec::new();
        each_pipe(self.page, &mut |number, read, _| {
            let Some(entry) = self.table[number / 2].as_ref() else { return };
            let (program, is_err) = (&entry.program, number % 2 == 1);
            let kept = if is_err { &entry.spec.stderr } else { &entry.spec.stdout };
            let Some((stream, ring)) = kept.as_ref().zip(self.logs.ring) else { return };
            let log = if is_err { &program.stderr } else { &program.stdout };
            streams.push(StreamSettings {
                number: number as u16,
                generation: ring.stream(number).generation.load(SeqCst) as u16,
                name: program.name.clone(),
                is_err,
                pipe: read as u32,
                path: stream.path.clone(),
                maxbytes: stream.maxbytes,
                backups: stream.backups,
                stamp: program.log.stamp,
                sync: program.log.sync,
                rate: program.log.rate,
                fold: program.log.fold,
                syslog: log.syslog,
                kmsg: program.log.kmsg,
            });
        });
        let with_logs =
            self.table.iter().flatten().filter(|entry| streams.iter().any(|one| one.name == entry.name()));
        let limits =
            with_logs.filter_map(|entry| entry.program.heartbeat.as_ref()).map(|heartbeat| heartbeat.limit);
        let overdue =
            limits.map(|limit| Millis(limit.0 / 2)).min().unwrap_or(OVERDUE.0).clamp(OVERDUE.1, OVERDUE.0);
        let settings = LogSettings {
            flush_ms: config.flush.0,
            total_maxbytes: config.total_maxbytes,
            ram_only: config.ram_only,
            compress: config.compress.clone(),
            syslog: config.syslog.clone(),
            kmsg: config.kmsg,
            daily_alarm: config.daily_alarm,
            overdue_ms: overdue.0,
            ring: self.page.kept(Keep::LogRing).unwrap_or(-1) as u32,
            poll: self.page.kept(Keep::LogPoll).unwrap_or(-1) as u32,
            streams,
        };
        self.logs.overdue = overdue;
        settings
    }

    /// `log` was started: with what it was told.
    pub(super) fn note_log_settings(&self, child: ChildId) {
        self.page.program(child.index()).answer.store(self.logs.told, SeqCst);
    }

    /// A program failed: what it said is to be on storage soon.
    pub(super) fn flush_log(&mut self) {
        if let Some(ring) = &self.logs.ring {
            ring.header().flush_wanted.fetch_add(1, SeqCst);
            self.call_log();
        }
    }

    /// `log` is to look at what is wanted; one that is not there yet looks at its start.
    fn call_log(&mut self) {
        if let Some(child) = self.find(LOG) {
            self.signal_number(child, signal::CALL);
        }
    }

    /// For `multusctl log`, which reads by itself: whatever it does with this, nobody waits for it. With `sync`, what
    /// programs have written by now is to be on storage.
    pub(super) fn give_log(&mut self, index: usize, sync: bool) -> Option<Reply> {
        let kept = self.logs.ring.zip(self.page.kept(Keep::LogRing)).zip(self.page.kept(Keep::LogSettings));
        let Some(((ring, memory), settings)) = kept else {
            return Some(refused(Refusal::Failed, format_args!("no program's output goes to a log")));
        };
        let along = log_ring::open_to_read(poll::borrow(memory))
            .and_then(|ring| Ok([ring, log_ring::open_to_read(poll::borrow(settings))?]));
        match along {
            Ok(along) => {
                let mut number = 0;
                if sync {
                    number = ring.header().sync_wanted.fetch_add(1, SeqCst).wrapping_add(1);
                    self.call_log();
                }
                self.send_with(
                    index,
                    &mut Reply::Log { sync: number },
                    &[along[0].as_fd(), along[1].as_fd()],
                );
                None
            }
            Err(error) => Some(refused(Refusal::Failed, format_args!("{error}"))),
        }
    }

    /// What holds of the logs otherwise than it was configured.
    pub(super) fn log_limitations(&self, add: &mut dyn FnMut(core::fmt::Arguments)) {
        let wanted = log_ring::rounded(self.in_force.config.log.ring);
        if let Some(ring) = self.logs.ring.filter(|ring| ring.size() != wanted) {
            let has = ring.size() / 1024;
            add(format_args!("[log] ring: it has {has} KB until multusd is started anew"));
        }
    }

    /// How many clients follow: for them, whoever fills the ring rings a bell.
    pub(super) fn count_followers(&self) {
        if let Some(ring) = &self.logs.ring {
            let count = self.clients.iter().flatten().filter(|client| client.follows).count();
            ring.header().followers.store(count as u32, SeqCst);
        }
    }

    /// When the supervisor must look at the logs.
    pub(super) fn log_deadline(&self) -> Option<Instant> {
        self.logs.due
    }

    fn half_overdue(&self) -> Millis {
        Millis((self.logs.overdue.0 / 2).max(1))
    }

    /// Somebody wrote something.
    pub(super) fn log_has_something(&mut self) {
        let Some(ring) = &self.logs.ring else { return };
        let now = clock::now();
        self.logs.progress = ring.header().progress.load(SeqCst);
        self.logs.progress_at = now;
        self.logs.due = Some(now + self.half_overdue());
    }

    /// Looks whether what is written is taken.
    pub(super) fn check_log(&mut self) {
        let now = clock::now();
        if self.logs.due.is_none_or(|due| due > now) {
            return;
        }
        let page = self.page;
        let Some((ring, set)) = self.logs.ring.zip(page.kept(Keep::LogPoll)) else { return };
        let set = poll::borrow(set);
        let progress = ring.header().progress.load(SeqCst);
        let has_moved = std::mem::replace(&mut self.logs.progress, progress) != progress;
        if has_moved {
            self.logs.progress_at = now;
            self.end_trouble(&ring);
        }
        if !poll::wait_readable(set, Some(0)) {
            self.logs.due = None;
            return self.poller.again(set, Token::Log.number());
        }
        self.logs.due = Some(now + self.half_overdue());
        if now.since(self.logs.progress_at) < self.logs.overdue {
            return;
        }
        let Some(again) = page.kept(Keep::LogAgain) else { return };
        let before = dropped(&ring);
        each_pipe(page, &mut |number, read, write| {
            if poll::is_full(poll::borrow(write)) {
                ring.discard(poll::borrow(again), number, poll::borrow(read));
            }
        });
        if self.logs.trouble.is_none() && dropped(&ring) != before {
            self.logs.trouble = Some(before);
            self.tell(format_args!(
                "log: nothing takes what programs write; where a pipe is full, it is dropped"
            ));
        }
        self.judge_log(now);
    }

    /// A `log` that lives and takes nothing is replaced.
    fn judge_log(&mut self, now: Instant) {
        let Some(child) = self.find(LOG) else { return };
        let slot = self.page.program(child.index());
        let since = self.logs.progress_at.max(Instant(slot.spawned_at.load(SeqCst)));
        if slot.is_alive() && now.since(since) >= HUNG {
            self.observe(Event::Hung { child, generation: Generation(slot.generation()) });
        }
    }

    fn end_trouble(&mut self, ring: &Ring) {
        let Some((lines, bytes)) = self.logs.trouble.take() else { return };
        let after = dropped(ring);
        if let Some(again) = self.page.kept(Keep::LogAgain) {
            ring.give_back_discarded(poll::borrow(again));
        }
        self.tell(format_args!(
            "log: what programs write is taken again; {} lines ({} bytes) were dropped",
            after.0 - lines,
            after.1 - bytes
        ));
    }
}

/// Lines and bytes that supervisors have thrown away.
fn dropped(ring: &Ring) -> (u64, u64) {
    ring.streams().iter().fold((0, 0), |(lines, bytes), words| {
        (lines + words.dropped_lines.load(SeqCst), bytes + words.dropped_bytes.load(SeqCst))
    })
}

//! A reload is a transaction. A job reads, checks and resolves the new configuration into memory;
//! only what is whole is applied, and only to what changed. Then it is on probation: should what
//! changed keep failing, the configuration before it returns. What passed is kept as the last good
//! one. At every instruction the page holds the old configuration or the new one.

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use crate::config::{self, Config};
use crate::limits::{CHILD_COUNT_MAX, LOG};
use crate::protocol::{Refusal, Reply};
use crate::supervisor::{ChildId, Event, Order, State};
use crate::sys::page::{Keep, KeepForProgram};
use crate::sys::poll::{self, Interest};
use crate::sys::{clock, file, process, socket};
use crate::time::Instant;

use super::bundled;
use super::control::{done, refused};
use super::in_force::InForce;
use super::jobs::{self, Job, Prepared, SurroundingsOwned};
use super::spec::{Resolved, Spec};
use super::table::{Entry, relate, rules, stop_ranks};
use super::{Daemon, Token, borrow, last_good};

/// Failures in a row by which a changed program disproves its configuration.
const FAILURES_MAX: u32 = 3;

/// A reload under way, and what the last one had to say.
#[derive(Default)]
pub struct Progress {
    /// A job is reading; for this client, and whether only to look.
    pub loading: Option<(Option<usize>, bool)>,
    text: String,
    /// Asked for by signal while a job was reading: what it reads may be what was before.
    again: bool,
}

impl Progress {
    /// A reply is owed to this client.
    pub fn is_for(&self, index: usize) -> bool {
        self.loading.is_some_and(|(client, _)| client == Some(index))
    }

    /// The client is gone; nobody waits for the outcome.
    pub fn forget_client(&mut self, index: usize) {
        if let Some((client, _)) = &mut self.loading
            && *client == Some(index)
        {
            *client = None;
        }
    }

    /// A page of what the last reload had to say.
    pub fn page(&self, from: u32) -> Reply {
        let from = (from as usize).min(self.text.len());
        let mut text = heapless::String::new();
        let rest = self.text.get(from..).unwrap_or("");
        let mut next = None;
        for (offset, letter) in rest.char_indices() {
            if text.push(letter).is_err() {
                next = Some((from + offset) as u32);
                break;
            }
        }
        Reply::Page { text, next }
    }
}

impl Daemon {
    /// Starts reading the file again. `None`: the reply follows when it is read.
    pub(super) fn start_reload(&mut self, client: Option<usize>, dry: bool) -> Option<Reply> {
        if self.reload.loading.is_some() {
            return Some(refused(Refusal::Failed, format_args!("a reload is under way; try again")));
        }
        if self.end.is_coming(self.page) {
            return Some(refused(Refusal::Failed, format_args!("everything is being stopped")));
        }
        match self.load_in_job(dry) {
            Ok(()) => {
                self.reload.loading = Some((client, dry));
                None
            }
            Err(error) => Some(refused(Refusal::Failed, format_args!("{error}"))),
        }
    }

    /// SIGHUP: nobody waits for the outcome.
    pub(super) fn reload_asked_by_signal(&mut self) {
        self.reload.again = self.reload.loading.is_some();
        if !self.reload.again {
            self.start_reload(None, false);
        }
        self.end_takeover();
    }

    fn load_in_job(&mut self, dry: bool) -> Result<(), crate::sys::SysError> {
        let memory = file::memory(c"multusd-next")?;
        self.page.keep(Keep::ConfigNext, Some(memory));
        let number = self.page.kept(Keep::ConfigNext).unwrap_or(-1);
        let slot = self.page.job(Job::Load as usize);
        if slot.is_alive() {
            // A former supervisor's; nobody is left to take what it reads.
            process::kill_if_there(slot.spawned() as i32, libc::SIGKILL);
        }
        slot.flags.store(0, SeqCst);
        let (path, around) = (self.options.config.clone(), self.surroundings());
        let children = self.options.children;
        process::spawn_job(slot, 1, || {
            let (bytes, code) = match jobs::prepare(&path, children, &|_| around.clone()) {
                // What is missing now is an error now: the running configuration lacks nothing.
                Ok(read) if !read.missing.is_empty() => (read.missing.join("\n").into_bytes(), 1),
                Ok(mut read) => {
                    read.warnings.iter().for_each(|warning| say!("{warning}"));
                    // Who is told that it is in force may rely on it, whatever happens next.
                    match if dry { Ok(()) } else { read.settle() } {
                        Ok(()) => (read.prepared.packed(), 0),
                        Err(sentence) => (sentence.into_bytes(), 1),
                    }
                }
                Err(errors) => (errors.into_bytes(), 1),
            };
            match file::append(poll::borrow(number), &bytes) {
                Ok(()) => code,
                Err(_) => 2,
            }
        })
        .map(drop)
    }

    fn surroundings(&self) -> SurroundingsOwned {
        SurroundingsOwned { run_dir: self.run_dir.clone(), life: self.page.life.load(SeqCst) }
    }

    pub(super) fn take_job_exit(&mut self, job: Job) {
        let Some(code) = self.job_has_ended(job) else { return };
        match job {
            Job::Load => self.finish_reload(code),
            Job::Temperature => {}
            Job::Boots => self.boots_were_kept(code),
            Job::Counts => self.counts_were_kept(code),
            Job::Renew => self.finish_renewal(code),
            Job::Find => self.take_found_line(code),
            Job::Verify => self.finish_verifying(code == 0),
            Job::Save if code == 0 => {}
            Job::Save => say!("{}{}", last_good::NOT_KEPT, self.in_force.config.daemon.state_dir),
        }
    }

    // Not part of the loop's frame, as `serve`.
    #[inline(never)]
    fn finish_reload(&mut self, code: i32) {
        let Some((client, dry)) = self.reload.loading.take() else { return };
        let number = self.page.kept(Keep::ConfigNext);
        let bytes =
            number.and_then(|number| file::read_memory(poll::borrow(number)).ok()).unwrap_or_default();
        let mut reply = match code {
            0 => self.apply_bytes(&bytes, dry),
            1 => {
                self.reload.text = String::from_utf8_lossy(&bytes).into_owned();
                let first = self.reload.text.lines().next().unwrap_or("").to_owned();
                self.set_note(format_args!(
                    "the configuration has errors; the former one stays in force: {first}"
                ));
                refused(Refusal::BadConfig, format_args!("{first}"))
            }
            _ => refused(
                Refusal::Failed,
                format_args!("the configuration could not be read: the reader failed"),
            ),
        };
        self.page.keep(Keep::ConfigNext, None);
        if let Some(client) = client {
            self.send(client, &mut reply);
        }
        if std::mem::take(&mut self.reload.again) {
            self.start_reload(None, false);
        }
        self.end_takeover();
    }

    fn apply_bytes(&mut self, bytes: &[u8], dry: bool) -> Reply {
        let Some((prepared, config)) = understand(bytes, self.options.children) else {
            return refused(Refusal::Failed, format_args!("the configuration could not be read: not whole"));
        };
        // Where this life's sockets and groups are is settled for as long as it lasts.
        let settled = |daemon: &config::Daemon| (daemon.run_dir.clone(), daemon.cgroup.clone());
        if settled(&config.daemon) != settled(&self.in_force.config.daemon) {
            let words = "run_dir and cgroup cannot change by a reload: start multusd again for that";
            self.reload.text = words.to_owned();
            return refused(Refusal::BadConfig, format_args!("{words}"));
        }
        let difference = self.difference(&config, &prepared.resolved);
        self.reload.text = difference.clone();
        let first = difference.lines().next().unwrap_or("").to_owned();
        if dry {
            return done(format_args!("{first}"));
        }
        // The old one stays within reach until the new one has proved itself (where it had not
        // proved itself either, the one before it does); whichever is found by a successor that
        // comes at this moment is whole.
        let until = clock::now() + config.daemon.reload_watch;
        if self.probation_deadline().is_none() || self.page.kept(Keep::ConfigBefore).is_none() {
            self.page.keep_as(Keep::Config, Keep::ConfigBefore);
        }
        self.page.probation_until.store(until.0, SeqCst);
        self.page.keep_as(Keep::ConfigNext, Keep::Config);
        self.apply(InForce::new(config, prepared.resolved), true);
        self.say_open_promises();
        self.set_note(format_args!(""));
        done(format_args!("{first}"))
    }

    /// What would change, a line each, a summary first.
    fn difference(&self, config: &Config, resolved: &Resolved) -> String {
        let mut changes = config::compare(&self.in_force.config, config);
        // It comes and goes with the others' lines.
        [&mut changes.added, &mut changes.removed]
            .into_iter()
            .for_each(|names| names.retain(|name| name != LOG));
        // The same words may mean another thing by now: a user's number, an environment file.
        for (program, spec) in config.programs.iter().zip(&resolved.specs) {
            let former = self.in_force.program(&program.name);
            let means_other = former.is_some_and(|(_, former)| former.exec != spec.exec);
            if means_other && !changes.changed.contains(&program.name) {
                changes.amended.retain(|name| *name != program.name);
                changes.changed.push(program.name.clone());
            }
        }
        let kinds = [
            (&changes.added, "added"),
            (&changes.changed, "changed, restarts"),
            (&changes.amended, "changed, keeps running"),
            (&changes.removed, "removed, stops"),
        ];
        let mut lines: Vec<String> = kinds
            .iter()
            .flat_map(|(names, word)| names.iter().map(move |name| format!("{name}: {word}")))
            .collect();
        if changes.daemon_changed {
            lines.push("[multusd]: changed; takes effect when multusd is started again".into());
        }
        if changes.log_changed {
            lines.push("[log]: changed".into());
        }
        let summary = match lines.is_empty() {
            true => "nothing changed".into(),
            false => format!(
                "{} added, {} removed, {} restarted, {} amended",
                changes.added.len(),
                changes.removed.len(),
                changes.changed.len(),
                changes.amended.len()
            ),
        };
        lines.insert(0, summary);
        lines.join("\n")
    }

    /// Puts a configuration into force.
    pub(super) fn apply(&mut self, in_force: InForce, on_probation: bool) {
        let before = std::mem::replace(&mut self.in_force, in_force).config;
        self.is_hardened = false;
        // In a new life that was done, or said; what was full then may have room now.
        let _ = self.furnish();
        self.apply_outputs();
        self.apply_inputs();
        for index in 0..self.table.len() {
            self.apply_to(ChildId(index as u16), &before, on_probation);
        }
        let known =
            |name: &str| self.table.iter().flatten().any(|entry| entry.name() == name && !entry.retiring);
        let names = self.in_force.config.programs.iter().map(|program| program.name.clone());
        self.waiting = names.filter(|name| !known(name)).collect();
        self.install_waiting(on_probation);
        self.relate_all();
        self.logs.is_stale = true;
        self.tend_log();
        // A life's first: nothing is kept for a successor yet.
        let at_first = self.page.kept(Keep::Config).is_none();
        self.apply_temperature(before.board.temperature.as_ref(), at_first);
        self.apply_watchdogs();
    }

    /// Brings one program of the table in line with the configuration in force.
    fn apply_to(&mut self, child: ChildId, before: &Config, on_probation: bool) {
        let now = clock::now();
        let Some(entry) = self.table[child.index()].as_ref() else { return };
        if entry.retiring {
            return;
        }
        let Some((program, spec)) = self.in_force.program(entry.name()) else {
            if let Some(entry) = self.entry(child) {
                entry.retiring = true;
            }
            return self.core.retire(now, child);
        };
        let slot = self.page.program(child.index());
        let running = if slot.is_alive() { slot.digest.load(SeqCst) } else { spec.exec.digest() };
        let Some(status) = self.core.status(child) else { return };
        let up = status.wanted && status.state != State::Held;
        let base = self.base.clone();
        let after = &self.in_force.config;
        let Some(entry) = self.table[child.index()].as_mut() else { return };
        let differs = differs(entry, before, &program, &spec, after);
        // What failed before fails no longer, as far as is known: it is tried again at once.
        let again = entry.digest != spec.exec.digest()
            && matches!(status.state, State::Backoff | State::Fatal)
            && status.wanted;
        if on_probation && differs {
            entry.failures_before = if again { 0 } else { status.failures };
        }
        let given_up = status.state == State::Fatal && !again;
        entry.on_probation = on_probation && !given_up && (entry.on_probation || differs);
        if running == spec.exec.digest() {
            let streams_differ = entry.spec.stdout.is_some() != spec.stdout.is_some()
                || entry.spec.stderr.is_some() != spec.stderr.is_some();
            entry.amend(program, spec, &base);
            self.limit_group(child);
            if streams_differ {
                self.refresh_streams(child);
            }
            if again {
                self.observe(Event::Ordered { child, order: Order::Restart });
            }
        } else if entry.next.as_ref().is_none_or(|next| (&next.0, &next.1) != (&program, &spec)) {
            entry.next = Some((program, spec));
            if up {
                self.observe(Event::Ordered { child, order: Order::Restart });
            }
        }
    }

    /// Finds places in the table for programs that have none yet.
    pub(super) fn install_waiting(&mut self, on_probation: bool) {
        let names = std::mem::take(&mut self.waiting);
        let mut installed = false;
        for name in names {
            let free = (0..CHILD_COUNT_MAX)
                .find(|index| self.table[*index].is_none() && self.core.is_free(ChildId(*index as u16)));
            // A namesake that is still leaving keeps its place until it is gone.
            match free.filter(|_| self.find(&name).is_none()) {
                Some(index) => {
                    self.install(ChildId(index as u16), &name, on_probation);
                    installed = true;
                }
                None => self.waiting.push(name),
            }
        }
        if installed {
            self.relate_all();
            self.logs.is_stale = true;
        }
    }

    fn install(&mut self, child: ChildId, name: &str, on_probation: bool) {
        let Some((program, spec)) = self.in_force.program(name) else { return };
        let index = child.index();
        let slot = self.page.program(index);
        slot.clear();
        self.page.hook(index).clear();
        slot.set_name(name);
        self.page.program_slots.fetch_max(index as u32 + 1, SeqCst);
        let rules = rules(&program);
        let mut entry = Entry::new(program, spec, &self.base);
        entry.on_probation = on_probation;
        self.table[index] = Some(Box::new(entry));
        self.equip(child);
        self.core.install(clock::now(), child, rules);
    }

    /// What a program needs before it can start: group, socket, pipes.
    pub(super) fn equip(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let Some(entry) = self.table[child.index()].as_mut() else { return };
        if let Some(hierarchy) = &self.hierarchy {
            match hierarchy.group(entry.name()) {
                Ok(group) => entry.group = Some(group),
                Err(error) => say!("{}: no control group: {error}", entry.name()),
            }
        }
        self.limit_group(child);
        let Some(entry) = self.table[child.index()].as_ref() else { return };
        if let (Some(number), true) = (slot.kept(KeepForProgram::Notify), entry.spec.exec.notify) {
            self.watch(poll::borrow(number), Token::Notify(child), Interest::Read);
        } else {
            self.refresh_notify(child, false);
        }
        if let Some(number) = slot.kept(KeepForProgram::Ready) {
            self.watch(poll::borrow(number), Token::Ready(child), Interest::Read);
        }
        self.resume_beats(child);
        self.refresh_streams(child);
    }

    /// The program's NOTIFY_SOCKET, as the configuration has it now; anew where its owner is another.
    pub(super) fn refresh_notify(&mut self, child: ChildId, anew: bool) {
        let slot = self.page.program(child.index());
        let Some(entry) = self.table[child.index()].as_ref() else { return };
        let kept = slot.kept(KeepForProgram::Notify);
        if kept.is_some() == entry.spec.exec.notify && !anew {
            return;
        }
        if let Some(number) = kept {
            self.poller.remove(poll::borrow(number));
            slot.keep(KeepForProgram::Notify, None);
        }
        if !entry.spec.exec.notify {
            return;
        }
        let path = self.run_dir.join("notify").join(entry.name());
        let owner = entry.spec.exec.owner().filter(|_| process::is_root());
        match socket::listen_notify(&path, owner) {
            Ok(socket) => {
                self.watch(std::os::fd::AsFd::as_fd(&socket), Token::Notify(child), Interest::Read);
                slot.keep(KeepForProgram::Notify, Some(socket));
            }
            Err(error) => say!("{}: no notify socket: {error}", entry.name()),
        }
    }

    pub(super) fn limit_group(&mut self, child: ChildId) {
        use crate::sys::cgroup::put;
        let Some(entry) = self.table[child.index()].as_ref() else { return };
        let Some(group) = &entry.group else { return };
        let program = &entry.program;
        let mut text = heapless::String::<24>::new();
        for (file, limit) in
            [("memory.max", program.memory_max), ("pids.max", program.pids_max.map(u64::from))]
        {
            match limit {
                Some(limit) => super::write_cut(&mut text, format_args!("{limit}")),
                None => super::write_cut(&mut text, format_args!("max")),
            }
            // Said once for all at the start where the kernel has no such controller.
            let _ = put(borrow(group), file, text.as_bytes());
        }
    }

    /// Dependencies are positions in the table: worked out anew whenever it changes.
    pub(super) fn relate_all(&mut self) {
        let place = |daemon: &Daemon, name: &str| {
            let found =
                daemon.table.iter().position(|e| e.as_ref().is_some_and(|e| e.name() == name && !e.retiring));
            found.map(|index| ChildId(index as u16))
        };
        self.inherit_outputs(&place);
        let ranks = stop_ranks(&self.in_force.config.programs);
        for (own, program) in self.in_force.config.programs.iter().enumerate() {
            let place = |name: &str| place(self, name);
            let Some(child) = place(&program.name) else { continue };
            let mut rules = rules(program);
            // Also of those it has not let go of.
            rules.output_limit = self.output_limit(child).or(rules.output_limit);
            relate(&mut rules, own, &self.in_force.config.programs, &ranks, &place);
            self.core.amend(child, rules);
        }
    }

    /// Programs that have left for good leave the table; those that waited for a place take it.
    pub(super) fn tidy_table(&mut self) {
        for index in 0..self.table.len() {
            let child = ChildId(index as u16);
            if self.table[index].as_ref().is_some_and(|entry| entry.retiring) && self.core.is_free(child) {
                self.remove(child);
            }
        }
        if !self.waiting.is_empty() {
            let on_probation = self.page.probation_until.load(SeqCst) != 0;
            self.install_waiting(on_probation);
        }
        self.tend_log();
        self.tend_reader();
    }

    fn remove(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        self.forget_beats(child);
        for end in [KeepForProgram::Notify, KeepForProgram::Ready] {
            if let Some(number) = slot.kept(end) {
                self.poller.remove(poll::borrow(number));
            }
        }
        let Some(entry) = self.table[child.index()].take() else { return };
        self.disown_outputs(child);
        self.forget_values(entry.name());
        if let Some(hierarchy) = &self.hierarchy {
            hierarchy.remove_group(entry.name());
        }
        // Gone already is no matter.
        file::remove(&self.run_dir.join("notify").join(entry.name()));
        self.drop_pipes(child);
        slot.keep_nothing();
        slot.clear();
    }

    pub(super) fn probation_deadline(&self) -> Option<Instant> {
        Some(Instant(self.page.probation_until.load(SeqCst))).filter(|until| until.0 != 0)
    }

    /// Watches what changed; rolls back, or keeps it as the last good configuration.
    pub(super) fn check_probation(&mut self) {
        let Some(until) = self.probation_deadline() else { return };
        let failing = self.table.iter().enumerate().find_map(|(index, entry)| {
            let entry = entry.as_ref().filter(|entry| entry.on_probation)?;
            let status = self.core.status(ChildId(index as u16))?;
            let failures = status.failures.saturating_sub(entry.failures_before);
            let hopeless = status.state == State::Fatal || failures >= FAILURES_MAX;
            hopeless.then(|| format!("{} ({})", entry.name(), entry.reason))
        });
        match failing {
            Some(culprit) => self.roll_back(&culprit),
            None if clock::now() >= until => {
                self.end_probation();
                self.keep_last_good(false);
            }
            None => {}
        }
    }

    /// A successor: what is on probation is what differs from the configuration before.
    pub(super) fn resume_probation(&mut self) {
        if self.probation_deadline().is_none() {
            return;
        }
        let Some(number) = self.page.kept(Keep::ConfigBefore) else { return };
        let Ok(bytes) = file::read_memory(poll::borrow(number)) else { return };
        let Some((before, config)) = understand(&bytes, self.options.children) else { return };
        for (index, entry) in self.table.iter_mut().enumerate() {
            let Some(entry) = entry.as_mut().filter(|entry| !entry.retiring) else { continue };
            let former = config.programs.iter().zip(&before.resolved.specs);
            let mut namesakes = former.filter(|(program, _)| program.name == entry.program.name);
            let after = &self.in_force.config;
            entry.on_probation =
                namesakes.all(|(program, spec)| differs(entry, after, program, spec, &config));
            let status = self.core.status(ChildId(index as u16));
            entry.failures_before = status.map_or(0, |status| status.failures);
        }
    }

    fn end_probation(&mut self) {
        self.page.probation_until.store(0, SeqCst);
        self.page.keep(Keep::ConfigBefore, None);
        self.table.iter_mut().flatten().for_each(|entry| entry.on_probation = false);
    }

    fn roll_back(&mut self, culprit: &str) {
        let number = self.page.kept(Keep::ConfigBefore);
        let bytes =
            number.and_then(|number| file::read_memory(poll::borrow(number)).ok()).unwrap_or_default();
        if let Some((prepared, config)) = understand(&bytes, self.options.children) {
            self.page.keep_as(Keep::ConfigBefore, Keep::Config);
            self.apply(InForce::new(config, prepared.resolved), false);
            self.keep_last_good(true);
            self.set_note(format_args!(
                "the last change was taken back, because {culprit} kept failing with it"
            ));
        }
        self.end_probation();
    }

    /// Keeps the configuration in force for a start with a broken file; with `is_only`, no other.
    pub(super) fn keep_last_good(&mut self, is_only: bool) {
        let slot = self.page.job(Job::Save as usize);
        let number = self.page.kept(Keep::Config);
        let Some(number) = number.filter(|_| !slot.is_alive()) else { return };
        slot.flags.store(0, SeqCst);
        let directory = Path::new(&self.in_force.config.daemon.state_dir);
        let started = process::spawn_job(slot, 1, || {
            let bytes = file::read_memory(poll::borrow(number)).unwrap_or_default();
            match Prepared::from_bytes(&bytes) {
                Some(prepared) if last_good::keep(directory, &prepared.text, is_only).is_ok() => 0,
                _ => 1,
            }
        });
        if let Err(error) = started {
            say!("{error}");
        }
    }
}

/// A configuration in memory; `None`: not whole.
pub fn understand(bytes: &[u8], children: config::Children) -> Option<(Prepared, Config)> {
    let prepared = Prepared::from_bytes(bytes)?;
    let mut config = config::load_kept(&prepared.text, children).ok()?.config;
    bundled::add(&mut config);
    let (resolved, board) = (&prepared.resolved, &config.board);
    let is_whole = config.programs.len() == resolved.specs.len()
        && board.outputs.len() == resolved.outputs.len()
        && board.inputs.len() == resolved.inputs.len();
    is_whole.then_some((prepared, config))
}

/// Whether a program of the table (which is of the configuration `here`) is another than this one (of
/// the configuration `there`).
fn differs(entry: &Entry, here: &Config, program: &config::Program, spec: &Spec, there: &Config) -> bool {
    *entry.spec != *spec || !config::same(here, &entry.program, there, program)
}

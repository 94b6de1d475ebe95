//! The one interpreter of `Action`. Each order either produces its event at once, or starts
//! something whose end produces it (`observe`). Orders may be given twice, by a supervisor and its
//! successor: doing what is done already is no mistake here.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering::SeqCst;

use crate::limits::LOG;
use crate::supervisor::{Action, ChildId, Event, Generation, Hook, SignalKind};
use crate::sys::page::{Keep, KeepForProgram, Slot};
use crate::sys::poll::Interest;
use crate::sys::process::{self, EXTRA_COUNT_MAX, Wiring};
use crate::sys::{SysError, cgroup, file, poll, socket};

use super::jobs::{self, Tree};
use super::spec::HookKind;
use super::table::{Beside, Entry};
use super::{Daemon, Token, borrow};
use super::{logs, report};

/// What a check may print; more of it does not fit, and the check is told so (EPERM).
pub const CHECK_TEXT_BYTES: u32 = 4096;

/// In a slot's flags: readiness was reported for the present process.
pub const FLAG_READY: u32 = 1;

impl Daemon {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Force { child, attempt, level } => self.force(child, attempt, level),
            Action::Serve { child, .. } => self.serve_outputs(child),
            Action::Spawn { child, generation } => self.spawn(child, generation),
            Action::Signal { child, signal, .. } => self.signal(child, signal),
            Action::KillTree { child, generation } => self.kill_tree(child, generation),
            Action::Run { child, generation, hook } => self.run_hook(child, generation, hook),
            Action::EndHook { child, generation, hook } => self.end_ordered_hook(child, generation, hook),
            Action::Feed => self.feed(),
            Action::Finish => self.finish(),
        }
    }

    fn spawn(&mut self, child: ChildId, generation: Generation) {
        let slot = self.page.program(child.index());
        let base = self.base.clone();
        let Some(entry) = self.entry(child) else { return };
        if std::mem::take(&mut entry.adopted) && slot.generation() == generation.0 && slot.has_begun() {
            // A former supervisor did it, and died before it knew.
            self.release_outputs(child);
            return self.observe(Event::Spawned { child, generation });
        }
        if let Some(next) = entry.next.take() {
            let owner = entry.spec.exec.owner();
            entry.amend(next.0, next.1, &base);
            let moved = entry.spec.exec.owner() != owner;
            self.limit_group(child);
            self.refresh_notify(child, moved);
            self.refresh_streams(child);
        }
        match self.start_process(child, generation) {
            Ok(()) => self.observe(Event::Spawned { child, generation }),
            Err(error) => {
                if let Some(entry) = self.entry(child).filter(|entry| entry.spec.missing.is_none()) {
                    entry.explain(format_args!("{error}"));
                }
                self.observe(Event::SpawnFailed { child, generation });
            }
        }
    }

    fn start_process(&mut self, child: ChildId, generation: Generation) -> Result<(), SysError> {
        let index = child.index();
        let slot = self.page.program(index);
        let (page, life) = (self.page, self.life.record(index));
        let null = self.page.kept(Keep::Null).unwrap_or(0);
        // Missing only where it could not be made.
        self.refresh_notify(child, false);
        self.drain_notify(child);
        let ready = self.make_ready_pair(child)?;
        let beat = self.make_beat(child)?;
        let born_in_cgroup = self.renew_group(child);
        let mut extra = heapless::Vec::<_, EXTRA_COUNT_MAX>::new();
        self.hand_over(child, &mut extra)?;
        let is_log = self.table[index].as_ref().is_some_and(|entry| entry.name() == LOG);
        let log_settings = self.page.kept(Keep::LogSettings).filter(|_| is_log);
        let Some(entry) = self.entry(child) else { return Ok(()) };
        if let Some(why) = &entry.spec.missing {
            super::table::write_cut(&mut entry.reason, format_args!("{why}"));
            return Err(SysError { operation: "start", errno: libc::ENOENT });
        }
        if entry.settings.is_none() && !entry.spec.exec.settings.is_empty() {
            entry.settings = super::table::settings(&entry.spec);
            if entry.settings.is_none() {
                return Err(SysError { operation: "memfd_create", errno: libc::EMFILE });
            }
        }
        // There is room for one of each kind, and every output.
        if let Some((end, number)) = ready.as_ref().zip(entry.spec.exec.ready_descriptor) {
            let _ = extra.push((end.as_raw_fd(), number));
        }
        let kept_beat = slot.kept(KeepForProgram::Beat);
        if let Some(number) = entry.spec.exec.beat_descriptor {
            let end = beat.as_ref().map(AsRawFd::as_raw_fd).or(kept_beat);
            let _ = extra.push((end.unwrap_or(null), number));
        }
        let wiring = Wiring {
            standard: match log_settings {
                Some(settings) => [settings, null, 2],
                None => {
                    let [_, output, error] = streams(entry, slot, null);
                    [entry.settings.as_ref().map_or(null, AsRawFd::as_raw_fd), output, error]
                }
            },
            extra: &extra,
            inherited: &|give| {
                if is_log {
                    logs::inherited(page, give);
                }
            },
            cgroup: entry.group.as_ref().map(borrow),
            born_in_cgroup,
            watch: kept_beat,
            life: Some(life),
        };
        slot.flags.store(0, SeqCst);
        slot.digest.store(entry.digest, SeqCst);
        entry.exit_taken = false;
        entry.status_text.clear();
        entry.words.clear();
        process::spawn(slot, generation.0, &entry.recipe, &wiring)?;
        if is_log {
            self.note_log_settings(child);
        }
        let Some(entry) = self.entry(child) else { return Ok(()) };
        entry.process = super::observe::handle(page, slot);
        self.watch_process(child);
        self.release_outputs(child);
        Ok(())
    }

    /// What the program is handed besides its streams: the lines it owns, the page of inputs.
    fn hand_over(
        &mut self,
        child: ChildId,
        extra: &mut heapless::Vec<(RawFd, RawFd), EXTRA_COUNT_MAX>,
    ) -> Result<(), SysError> {
        self.bequeath_outputs(child);
        let missing = |operation| Err(SysError { operation, errno: libc::EAGAIN });
        if self.unconfirmed_output(child).is_some() {
            // It was set by hand, or came to be its own only now: made safe first, as after a failure.
            return missing("output");
        }
        let Some(entry) = self.table[child.index()].as_ref() else { return Ok(()) };
        for (name, number, _) in entry.spec.exec.outputs.iter().filter(|(_, number, _)| *number >= 0) {
            let Some(line) = self.output_descriptor(name) else { return missing("output") };
            // There is room for every output.
            let _ = extra.push((line, *number));
        }
        let (inputs, values, changes) =
            (entry.spec.exec.inputs, entry.spec.exec.values, entry.spec.exec.changes);
        if let Some(number) = inputs {
            self.open_board()?;
            let Some(page) = self.page.kept(Keep::InputsRead) else { return missing("inputs") };
            let _ = extra.push((page, number));
        }
        if let Some(number) = values {
            self.open_values()?;
            let Some(page) = self.page.kept(Keep::ValuesRead) else { return missing("values") };
            let _ = extra.push((page, number));
        }
        if let Some(number) = changes {
            let _ = extra.push((self.open_changes()?, number));
        }
        Ok(())
    }

    /// A group that was killed as a whole is made anew before it is used; true: processes may be
    /// born into it.
    fn renew_group(&mut self, child: ChildId) -> bool {
        let Some(entry) = self.table[child.index()].as_mut() else { return true };
        if let Some(hierarchy) = self.hierarchy.as_ref().filter(|_| entry.group_killed) {
            match hierarchy.renew_group(&entry.program.name) {
                Ok(group) => {
                    entry.group = Some(group);
                    entry.group_killed = false;
                    self.limit_group(child);
                }
                // Something is in it, or below it.
                Err(_) => return false,
            }
        }
        self.entry(child).is_none_or(|entry| !entry.group_deadly)
    }

    /// A fresh pair per process, so that a former one's late word cannot count. A socket pair
    /// rather than a pipe: its bytes can be looked at before they are taken.
    fn make_ready_pair(&mut self, child: ChildId) -> Result<Option<std::os::fd::OwnedFd>, SysError> {
        let slot = self.page.program(child.index());
        let wanted = self.entry(child).is_some_and(|entry| entry.spec.exec.ready_descriptor.is_some());
        if let Some(old) = slot.kept(KeepForProgram::Ready) {
            self.poller.remove(poll::borrow(old));
            slot.keep(KeepForProgram::Ready, None);
        }
        if !wanted {
            return Ok(None);
        }
        let (ours, theirs) = socket::pair()?;
        self.watch(borrow(&ours), Token::Ready(child), Interest::Read);
        slot.keep(KeepForProgram::Ready, Some(ours));
        Ok(Some(theirs))
    }

    fn signal(&mut self, child: ChildId, signal: SignalKind) {
        let index = child.index();
        let slot = self.page.program(index);
        let Some(entry) = self.entry(child) else { return };
        if !slot.is_alive() {
            return;
        }
        let leader = process_group(entry, slot);
        let number = match signal {
            SignalKind::Stop => entry.program.stopsignal,
            SignalKind::Pause => libc::SIGSTOP,
            SignalKind::Resume => libc::SIGCONT,
        };
        match signal {
            SignalKind::Stop if !entry.program.stopasgroup => {
                send(entry, number);
            }
            SignalKind::Stop => {
                // So young that it leads no group yet: then it is all there is.
                if leader.is_none_or(|leader| process::kill(-leader, number).is_err()) {
                    send(entry, number);
                }
            }
            SignalKind::Pause | SignalKind::Resume => {
                send(entry, number);
                if let Some(leader) = leader {
                    process::kill_if_there(-leader, number);
                }
                if let Some(group) = &entry.group {
                    // What left the process group stands still too.
                    entry.frozen = signal == SignalKind::Pause;
                    cgroup::freeze(borrow(group), entry.frozen);
                }
                if signal == SignalKind::Resume {
                    self.release_outputs(child);
                }
            }
        }
    }

    /// A signal an operator names.
    pub(super) fn signal_number(&mut self, child: ChildId, number: i32) -> bool {
        let alive = self.page.program(child.index()).is_alive();
        alive && self.entry(child).is_some_and(|entry| send(entry, number))
    }

    fn kill_tree(&mut self, child: ChildId, generation: Generation) {
        let slot = self.page.program(child.index());
        let Some(entry) = self.entry(child) else { return };
        entry.adopted = false;
        entry.killing = Some(generation);
        if slot.is_alive() {
            send(entry, libc::SIGKILL);
        }
        let Some(group) = entry.group.as_ref() else {
            // The group as a whole first: most trees end right here.
            if let Some(leader) = process_group(entry, slot).filter(|_| slot.is_alive()) {
                process::kill_if_there(-leader, libc::SIGKILL);
            }
            entry.sweep_owed = true;
            return self.start_sweep(child);
        };
        if std::mem::take(&mut entry.frozen) {
            // Nothing may be born into a group that stands still.
            cgroup::freeze(borrow(group), false);
        }
        // Nothing left and nobody to kill is the usual case after a crash, and costs one read.
        if !cgroup::is_populated(borrow(group)).unwrap_or(true) && !slot.is_alive() {
            return self.tree_is_empty(child);
        }
        if entry.group_events.is_none() {
            entry.group_events = cgroup::open_events(borrow(group)).ok();
        }
        entry.group_killed = true;
        let killed = cgroup::kill(borrow(group)).is_ok();
        let watched = entry.group_events.is_some();
        if let Some(events) = self.table[child.index()].as_ref().and_then(|entry| entry.group_events.as_ref())
        {
            self.watch(borrow(events), Token::Group(child), Interest::Change);
        }
        match (killed && watched, self.entry(child)) {
            (false, Some(entry)) => {
                // No `cgroup.kill` in this kernel, or no descriptor to be had: a job does it by hand.
                entry.sweep_owed = true;
                self.start_sweep(child);
            }
            _ => self.check_tree(child),
        }
    }

    /// The search for what is left, as soon as nothing else runs beside the program.
    pub(super) fn start_sweep(&mut self, child: ChildId) {
        let (life, guard) = (self.page.life.load(SeqCst), self.page.guard.load(SeqCst));
        let slot = self.page.program(child.index());
        let hook = self.page.hook(child.index());
        let Some(entry) = self.entry(child) else { return };
        let Some(generation) = entry.killing else { return };
        if entry.beside.is_some() {
            return self.end_hook(child);
        }
        entry.sweep_owed = false;
        entry.beside = Some((Beside::Sweep, generation));
        hook.forget();
        hook.purpose.store(Beside::Sweep.number(), SeqCst);
        let (name, group) = (entry.program.name.as_str(), entry.group.as_ref());
        let started = process::spawn_job(hook, generation.0, || {
            jobs::sweep(&Tree { group: group.map(borrow), quarry: jobs::quarry(life, name, slot, guard) })
        });
        if started.is_err() {
            // No process to be had now.
            entry.beside = None;
            entry.sweep_owed = true;
            self.try_again_soon();
        }
    }

    fn run_hook(&mut self, child: ChildId, generation: Generation, hook: Hook) {
        let slot = self.page.hook(child.index());
        let Some(entry) = self.entry(child) else { return };
        let task = Beside::Hook(hook);
        if std::mem::take(&mut entry.adopted)
            && slot.generation() == generation.0
            && slot.purpose.load(SeqCst) == task.number()
            && slot.has_begun()
        {
            // It runs, or has run, for a former supervisor; its exit is, or will be, in the slot.
            entry.beside = Some((task, generation));
            return self.take_hook_exit(child);
        }
        if entry.beside.is_some_and(|(beside, _)| beside == Beside::Reload) {
            // The program's own reload gives way; nobody waits for its outcome.
            self.end_hook(child);
        }
        if let Err(error) = self.start_hook(child, generation, task) {
            if let Some(entry) = self.entry(child) {
                entry.beside = None;
                report::explain_hook(entry, hook, error);
            }
            self.observe(Event::HookFinished { child, generation, hook, success: false });
        }
    }

    /// Starts what is to run beside a program: a command of its own, or a search of ours.
    pub(super) fn start_hook(
        &mut self,
        child: ChildId,
        generation: Generation,
        task: Beside,
    ) -> Result<(), SysError> {
        let index = child.index();
        let (life, guard) = (self.page.life.load(SeqCst), self.page.guard.load(SeqCst));
        let page = self.page;
        let (main, slot) = (page.program(index), page.hook(index));
        let null = self.page.kept(Keep::Null).unwrap_or(0);
        let born_in_cgroup = self.renew_group(child);
        let Some(entry) = self.entry(child) else { return Ok(()) };
        let kind = match task {
            Beside::Hook(Hook::OnStart) => Some(HookKind::OnStart),
            Beside::Hook(Hook::ReadyCheck) => Some(HookKind::ReadyCheck),
            Beside::Hook(Hook::Check) => Some(HookKind::Check),
            Beside::Hook(Hook::StopCommand) => Some(HookKind::StopCommand),
            Beside::Hook(Hook::OnStop) => Some(HookKind::OnStop),
            Beside::Hook(Hook::OnFailure) => Some(HookKind::OnFailure),
            Beside::Reload => Some(HookKind::Reload),
            Beside::Hook(Hook::FindMain) | Beside::Sweep => None,
        };
        entry.beside = Some((task, generation));
        slot.forget();
        slot.purpose.store(task.number(), SeqCst);
        if task == Beside::Hook(Hook::Check) && main.kept(KeepForProgram::CheckText).is_none() {
            main.keep(
                KeepForProgram::CheckText,
                Some(file::sealed_memory(c"multusd-check", CHECK_TEXT_BYTES)?),
            );
        }
        if let Some(recipe) = kind.and_then(|kind| entry.hooks[kind as usize].as_ref()) {
            let mut standard = streams(entry, main, null);
            // A child that is over finds its section where it had it.
            standard[0] = entry.settings.as_ref().map_or(null, AsRawFd::as_raw_fd);
            if let (Beside::Hook(Hook::Check), Some(text)) = (task, main.kept(KeepForProgram::CheckText)) {
                file::blank(poll::borrow(text));
                standard = [null, text, text];
            }
            let wiring = Wiring {
                standard,
                extra: &[],
                inherited: &|_| (),
                cgroup: entry.group.as_ref().map(borrow),
                born_in_cgroup,
                watch: None,
                life: None,
            };
            process::spawn(slot, generation.0, recipe, &wiring)?;
            drop(super::observe::handle(page, slot));
            return Ok(());
        }
        let (name, group) = (entry.program.name.as_str(), entry.group.as_ref());
        let pidfile = entry.spec.exec.pidfile.as_deref();
        process::spawn_job(slot, generation.0, || {
            let tree = Tree { group: group.map(borrow), quarry: jobs::quarry(life, name, main, guard) };
            jobs::find_main(&tree, guard, pidfile, slot)
        })
        .map(drop)
    }

    fn end_ordered_hook(&mut self, child: ChildId, generation: Generation, hook: Hook) {
        let running = (Beside::Hook(hook), generation);
        if self.entry(child).is_some_and(|entry| entry.beside == Some(running)) {
            // Ended already: its exit is in the slot, and is taken with the others.
            return self.end_hook(child);
        }
        // A former supervisor was killed before it could start it.
        self.observe(Event::HookFinished { child, generation, hook, success: false });
    }

    pub(super) fn end_hook(&mut self, child: ChildId) {
        let slot = self.page.hook(child.index());
        if slot.is_alive() {
            let pid = slot.spawned() as i32;
            // Its group too, where it is a command (jobs lead none).
            let _ = process::kill(pid, libc::SIGKILL);
            let _ = process::kill(-pid, libc::SIGKILL);
        }
    }

    /// What a hook left behind ends with it, where no process of the program needs the group.
    pub(super) fn end_leftovers(&mut self, child: ChildId) {
        let alive = self.page.program(child.index()).is_alive();
        let leader = self.page.hook(child.index()).spawned() as i32;
        let Some(entry) = self.entry(child) else { return };
        match &entry.group {
            // Usually nothing is left, and then the group stays as good as new.
            Some(group) if !alive && cgroup::is_populated(borrow(group)).unwrap_or(true) => {
                entry.group_killed = true;
                let _ = cgroup::kill(borrow(group));
            }
            // While it is news that the hook has ended, the number of its group is its own.
            None if !entry.beside_is_old => process::kill_if_there(-leader, libc::SIGKILL),
            _ => {}
        }
    }
}

/// Signals the main process; false: there is none any more, and its end is on its way to us.
fn send(entry: &Entry, signal: i32) -> bool {
    entry.process.as_ref().is_some_and(|process| process::signal_process(borrow(process), signal).is_ok())
}

/// The living main process's group: a forking program's is not that of the process spawned. `None`: it
/// is in ours still, or there is no telling.
fn process_group(entry: &Entry, slot: &Slot) -> Option<i32> {
    let group = process::group_of(slot.main());
    // Still there after the question: then the answer was not about a later process.
    group.filter(|_| send(entry, 0))
}

/// Standard input, output and error of a program and its hooks.
fn streams(entry: &Entry, slot: &Slot, null: RawFd) -> [RawFd; 3] {
    let out = slot.kept(KeepForProgram::OutWrite).unwrap_or(null);
    let err = match entry.spec.exec.redirect_stderr {
        true => out,
        false => slot.kept(KeepForProgram::ErrWrite).unwrap_or(null),
    };
    [null, out, err]
}

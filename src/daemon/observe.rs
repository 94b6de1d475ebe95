//! What happened, as the kernel tells it, turned into events for the supervisor.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::SeqCst;

use crate::supervisor::{ChildId, Event, Exit, Generation, Hook};
use crate::sys::page::{ExitRecord, Keep, KeepForProgram, Page, Slot};
use crate::sys::poll::Interest;
use crate::sys::socket::Received;
use crate::sys::{cgroup, clock, file, poll, process, socket};

use super::jobs::Job;
use super::perform::{CHECK_TEXT_BYTES, FLAG_READY};
use super::table::{Beside, write_cut};
use super::{Daemon, Token, borrow, report};

/// How long the guard is given to write down an exit before its word is waited for: some turns of the scheduler
/// where nobody else wants the processor. Where others do, one turn alone costs their whole slices.
const GUARD_NANOS: u64 = 50_000;

fn exit_of(record: ExitRecord) -> Exit {
    match (record.unknown, record.signalled) {
        (true, _) => Exit::Unknown,
        (false, true) => Exit::Signal(record.value),
        (false, false) => Exit::Code(record.value),
    }
}

impl Daemon {
    /// Looks at every slot for an end that has not been reported.
    pub(super) fn take_exits(&mut self) {
        let written = self.page.exits_written.load(SeqCst);
        for index in 0..self.table.len() {
            if self.table[index].is_some() {
                let child = ChildId(index as u16);
                self.take_main_exit(child);
                self.take_hook_exit(child);
            }
        }
        for job in Job::ALL {
            self.take_job_exit(job);
        }
        self.page.exits_seen.store(written, SeqCst);
    }

    /// For a job's exit that was taken: told once.
    pub(super) fn job_has_ended(&self, job: Job) -> Option<i32> {
        let slot = self.page.job(job as usize);
        let record = slot.exit()?;
        let taken = slot.flags.swap(1, SeqCst) != 0;
        (!taken).then_some(if record.signalled { -1 } else { i32::from(record.value) })
    }

    /// A main process is dead: its outputs are forced before it is known how it ended.
    pub(super) fn process_died(&mut self, child: ChildId) {
        let generation = Generation(self.page.program(child.index()).generation());
        let Some(entry) = self.table[child.index()].as_ref() else { return };
        // Not on the word of a descriptor that some job has a copy of still.
        if entry.process.as_ref().is_some_and(|process| process::has_ended(borrow(process)))
            && let Some(force) = self.core.died(clock::now(), child, generation)
        {
            self.undecided = true;
            self.save();
            self.perform(force);
        }
    }

    /// A main process ended: heard from the kernel at the same moment as the guard hears it, which
    /// is about to write down how. To wait for that as a few turns of the scheduler costs less
    /// than to sleep and be woken again; should the guard take longer, it wakes us.
    pub(super) fn process_ended(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let begun = clock::now();
        loop {
            if slot.exit().is_some() {
                return self.take_main_exit(child);
            }
            if clock::now().0 - begun.0 >= GUARD_NANOS {
                break;
            }
            process::give_way();
        }
        if slot.main() != slot.spawned() {
            // It may be another's child than the guard's, and how it ended that one's to know.
            self.try_again_soon();
        }
    }

    /// A main process that the program named itself has ended, and nobody will say how.
    pub(super) fn check_lost_main(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let Some(entry) = self.table[child.index()].as_ref() else { return };
        let has_ended = entry.process.as_ref().is_some_and(|process| process::has_ended(borrow(process)));
        if has_ended && slot.main() != slot.spawned() && slot.exit().is_none() {
            slot.record_lost();
            self.take_main_exit(child);
        }
    }

    /// Watches the end of a program's main process.
    pub(super) fn watch_process(&mut self, child: ChildId) {
        let Some(entry) = self.table[child.index()].as_ref() else { return };
        if let Some(process) = &entry.process {
            self.watch(borrow(process), Token::Process(child), Interest::Once);
        }
    }

    fn take_main_exit(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let Some(entry) = self.entry(child) else { return };
        let Some(record) = slot.exit().filter(|_| !entry.exit_taken) else { return };
        entry.exit_taken = true;
        entry.last_words = std::mem::take(&mut entry.words);
        entry.process = None;
        entry.group_deadly |= slot.never_ran();
        let generation = Generation(slot.generation());
        match slot.failure() {
            Some((stage, errno)) => {
                report::explain_failure(entry, stage, errno);
                self.observe(Event::SpawnFailed { child, generation });
            }
            None => self.observe(Event::Exited { child, generation, exit: exit_of(record) }),
        }
        self.check_tree(child);
    }

    pub(super) fn take_hook_exit(&mut self, child: ChildId) {
        let slot = self.page.hook(child.index());
        let Some(entry) = self.entry(child) else { return };
        let Some((beside, generation)) = entry.beside else { return };
        let Some(record) = slot.exit() else { return };
        entry.beside = None;
        entry.group_deadly |= slot.never_ran();
        let mut success = !record.signalled && !record.unknown && record.value == 0;
        match beside {
            Beside::Sweep if success => self.tree_is_empty(child),
            Beside::Sweep => {
                entry.sweep_owed = true;
                self.try_again_soon();
                return;
            }
            Beside::Reload => entry.reload_until = None,
            Beside::Hook(hook) => {
                if let Some((stage, errno)) = slot.failure() {
                    report::explain_failure(entry, stage, errno);
                }
                match hook {
                    Hook::FindMain => {
                        let pid = slot.answer.load(SeqCst) as u32;
                        success = success && self.take_main(child, pid);
                    }
                    Hook::OnStop | Hook::OnFailure => self.end_leftovers(child),
                    Hook::Check if !success => self.keep_check_text(child, record.signalled),
                    _ => {}
                }
                self.observe(Event::HookFinished { child, generation, hook, success });
            }
        }
        if self.entry(child).is_some_and(|entry| entry.sweep_owed) {
            self.start_sweep(child);
        }
    }

    /// Why a check failed: the last line it printed.
    fn keep_check_text(&mut self, child: ChildId, killed: bool) {
        let number = self.page.program(child.index()).kept(KeepForProgram::CheckText);
        let mut bytes = [0; CHECK_TEXT_BYTES as usize];
        if let Some(number) = number {
            file::read_at_start(poll::borrow(number), &mut bytes);
        }
        let mut lines =
            bytes.split(|byte| matches!(byte, b'\n' | 0)).filter(|line| !line.trim_ascii().is_empty());
        let Some(entry) = self.entry(child) else { return };
        match lines.next_back().and_then(|line| str::from_utf8(line).ok()) {
            Some(line) => write_cut(&mut entry.check_text, format_args!("{}", line.trim())),
            None if killed => write_cut(&mut entry.check_text, format_args!("no answer in time")),
            None => entry.check_text.clear(),
        }
    }

    /// A process of the program other than the one spawned is its main process; false: there is none.
    pub(super) fn take_main(&mut self, child: ChildId, pid: u32) -> bool {
        let slot = self.page.program(child.index());
        let page = self.page;
        let Some(entry) = self.entry(child) else { return false };
        if pid == 0 {
            return false;
        }
        if slot.main() != pid {
            slot.set_main(pid);
            entry.exit_taken = false;
            self.life.record(child.index()).write(pid, slot.born_after.load(SeqCst), clock::boot_nanos());
        }
        if let Some(entry) = self.entry(child) {
            entry.process = handle(page, slot);
        }
        self.watch_process(child);
        true
    }

    /// Whether the tree being killed is empty by now.
    pub(super) fn check_tree(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let Some(entry) = self.entry(child) else { return };
        if entry.killing.is_none() || slot.is_alive() || entry.sweep_owed {
            return;
        }
        let Some(group) = entry.group.as_ref() else { return };
        if matches!(entry.beside, Some((Beside::Sweep, _)))
            || cgroup::is_populated(borrow(group)).unwrap_or(false)
        {
            return;
        }
        self.tree_is_empty(child);
    }

    pub(super) fn tree_is_empty(&mut self, child: ChildId) {
        // How the main process ended may stand in its slot, not looked at yet: first things first.
        self.take_main_exit(child);
        let Some(entry) = self.table[child.index()].as_mut() else { return };
        if let Some(events) = entry.group_events.take() {
            self.poller.remove(borrow(&events));
        }
        let Some(generation) = entry.killing else { return };
        if self.page.program(child.index()).is_alive() {
            // The sweep saw it die; the guard has not reaped it yet, and its exit comes first.
            entry.sweep_owed = entry.group.is_none();
            return;
        }
        entry.killing = None;
        self.observe(Event::TreeEmptied { child, generation });
    }

    /// A newline on the readiness descriptor.
    pub(super) fn take_readiness(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let Some(number) = slot.kept(KeepForProgram::Ready) else { return };
        let mut buffer = [0; 256];
        match socket::peek(poll::borrow(number), &mut buffer) {
            Received::Nothing => {}
            Received::Closed => {
                self.poller.remove(poll::borrow(number));
                slot.keep(KeepForProgram::Ready, None);
            }
            Received::Packet(length) => {
                if buffer[..length].contains(&b'\n') {
                    slot.flags.fetch_or(FLAG_READY, SeqCst);
                    self.observe(Event::ReadyReported { child, generation: Generation(slot.generation()) });
                }
                socket::receive(poll::borrow(number), &mut buffer[..length]);
            }
        }
    }
}

/// A handle on a slot's process. Where that has ended already, the guard may not have known whose
/// it was.
pub fn handle(page: &Page, slot: &Slot) -> Option<OwnedFd> {
    let process = match process::open_process(slot.main()) {
        Ok(process) => Some(process),
        // None any more: reaped, so the guard is done with it.
        Err(error) if error.errno == libc::ESRCH => None,
        // No descriptor to be had says nothing about the process: it is killed by other means.
        Err(_) => return None,
    };
    if process.as_ref().is_some_and(|process| !process::has_ended(borrow(process))) {
        return process;
    }
    page.claim_stranger(slot);
    if process.is_none() && slot.exit().is_none() {
        slot.record_lost();
    }
    if let Some(counter) = page.kept(Keep::Wake) {
        // Nobody told us of this end; we tell ourselves.
        poll::wake(poll::borrow(counter));
    }
    process
}

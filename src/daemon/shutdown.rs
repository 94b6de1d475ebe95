//! The end: everything down in order, what was written flushed, then, where that was ordered, the
//! machine too.

use std::sync::atomic::Ordering::SeqCst;

use crate::protocol::{Refusal, Reply, Shutdown};
use crate::supervisor::Event;
use crate::sys::machine::{self, MachineEnd};
use crate::sys::page::Page;
use crate::sys::{clock, file, process};
use crate::time::{Instant, Millis};

use super::Daemon;
use super::control::{done, refused};
use super::jobs::Job;

/// The longest that what is written down at the end may take.
const LAST_WORDS: Millis = Millis(3000);
/// The longest that the command which ends the machine may take; it only tells init.
const INIT_ANSWER: Millis = Millis(30_000);
/// What a stop of everything may take beyond what its programs are granted: then it is over, whoever
/// is left. A process in state D cannot be killed, and must not keep a machine from its reboot.
const STOP_SLACK: Millis = Millis(30_000);

/// How far the end has come.
#[derive(Default)]
pub struct End {
    /// Everything is to be down by then.
    ceiling: Option<Instant>,
    /// Everything is down; what is left must be done by then.
    patience: Option<Instant>,
    /// Who was asked to end the machine.
    asked: Asked,
    /// Not everything went as ordered.
    failed: bool,
    /// The exit code: the loop ends.
    pub code: Option<i32>,
}

/// Who is to end the machine: init by its command, and where that fails, the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asked {
    #[default]
    Nobody,
    Init,
    Kernel,
}

impl End {
    /// Everything is down, or given up.
    pub fn has_begun(&self) -> bool {
        self.patience.is_some()
    }

    /// Everything is being stopped, or is down.
    pub fn is_coming(&self, page: &Page) -> bool {
        page.stopping.load(SeqCst) != 0
    }
}

const REBOOT: u32 = 1;
const POWER_OFF: u32 = 2;

impl Daemon {
    pub(super) fn stop_everything(&mut self) {
        self.page.stopping.store(1, SeqCst);
        self.waiting.clear();
        if self.end.ceiling.is_none() {
            let granted = self.table.iter().flatten().map(|entry| {
                let program = &entry.program;
                let hooks = [&program.stop_command, &program.on_stop].into_iter().flatten();
                hooks.fold(program.stopwaitsecs, |sum, hook| sum + hook.timeout)
            });
            self.end.ceiling = Some(clock::now() + granted.fold(STOP_SLACK, |sum, time| sum + time));
        }
        self.observe(Event::StopOrdered);
    }

    pub(super) fn plan_shutdown(&mut self, how: Shutdown, after: Millis) -> Reply {
        let (number, word) = match how {
            Shutdown::Reboot => (REBOOT, "reboot"),
            Shutdown::PowerOff => (POWER_OFF, "power off"),
        };
        if !process::is_root() {
            return refused(
                Refusal::Failed,
                format_args!("multusd does not run as root and cannot {word} the machine"),
            );
        }
        self.page.shutdown_at.store((clock::now() + after).0, SeqCst);
        self.page.shutdown.store(number, SeqCst);
        done(format_args!("{word} in {} s", after.0 / 1000))
    }

    pub(super) fn cancel_shutdown(&mut self) -> Reply {
        if self.end.is_coming(self.page) {
            return refused(Refusal::Failed, format_args!("too late: everything is being stopped"));
        }
        match self.page.shutdown.swap(0, SeqCst) {
            0 => refused(Refusal::Failed, format_args!("no reboot or power off is pending")),
            _ => done(format_args!("cancelled")),
        }
    }

    /// When a pending end of the machine is due.
    pub(super) fn shutdown_pending(&self) -> Option<Instant> {
        (self.page.shutdown.load(SeqCst) != 0).then(|| Instant(self.page.shutdown_at.load(SeqCst)))
    }

    pub(super) fn shutdown_deadline(&self) -> Option<Instant> {
        match self.end.patience {
            Some(until) => Some(until),
            None if self.end.is_coming(self.page) => self.end.ceiling,
            None => self.shutdown_pending(),
        }
    }

    /// `Action::Finish`: everything is down.
    pub(super) fn finish(&mut self) {
        self.end.patience = Some(clock::now() + LAST_WORDS);
        self.leave_outputs_safe();
        self.note_order();
        self.tend_counts();
    }

    pub(super) fn check_shutdown(&mut self) {
        let now = clock::now();
        if self.shutdown_pending().is_some_and(|at| at <= now) && !self.end.is_coming(self.page) {
            return self.stop_everything();
        }
        if self.end.patience.is_none() && self.end.ceiling.is_some_and(|ceiling| ceiling <= now) {
            self.give_up_stopping();
        }
        let Some(until) = self.end.patience else { return };
        let busy = self.page.job(Job::Save as usize).is_alive()
            || self.outputs_are_busy()
            || self.boots_are_busy()
            || self.counts_are_busy();
        if self.end.asked == Asked::Nobody && busy && now < until {
            return;
        }
        if self.page.shutdown.load(SeqCst) != 0 && !self.end_of_machine_is_asked(now, until) {
            return;
        }
        if let Some(hierarchy) = &self.hierarchy {
            hierarchy.remove();
        }
        for name in ["control", "multusd.pid", "life"] {
            // What stays is removed by the next life.
            file::remove(&self.run_dir.join(name));
        }
        file::remove_directory(&self.run_dir.join("notify"));
        let code = i32::from(self.end.failed);
        // Only a complete end by order disarms; for a reboot the watchdog is what sees to it.
        let disarm = !self.end.failed && self.page.shutdown.load(SeqCst) == 0;
        self.page.disarm.store(disarm.into(), SeqCst);
        if disarm && self.page.watchdogs.iter().any(|slot| slot.is_for_ever.load(SeqCst) != 0) {
            say!("a watchdog cannot be disarmed (nowayout): it resets the machine now that nobody feeds it");
        }
        self.page.finished.store(1 + code as u32, SeqCst);
        self.end.code = Some(code);
    }

    /// Some program does not go down, whatever is done: named, and left to whoever ends the machine.
    fn give_up_stopping(&mut self) {
        for (index, entry) in self.table.iter().enumerate() {
            let Some(entry) = entry else { continue };
            let slot = self.page.program(index);
            if slot.is_alive() || entry.killing.is_some() {
                say!("{} does not go down (process {}); it is left behind", entry.name(), slot.main());
            }
        }
        self.end.failed = true;
        self.finish();
    }

    /// Has the machine ended; true: all that could be asked was asked, and answered.
    fn end_of_machine_is_asked(&mut self, now: Instant, until: Instant) -> bool {
        let slot = self.page.job(Job::Load as usize);
        let answer = slot.exit().map(|exit| !exit.signalled && exit.value == 0);
        match (self.end.asked, answer) {
            (Asked::Nobody, _) => self.ask(Asked::Init),
            (Asked::Init, Some(true)) => return true,
            (Asked::Init, None) if now < until => {}
            (Asked::Init, _) => {
                say!("init was asked to end the machine, in vain; now the kernel is");
                self.ask(Asked::Kernel);
            }
            (Asked::Kernel, None) if now < until => {}
            (Asked::Kernel, _) => {
                self.end.failed = true;
                return true;
            }
        }
        false
    }

    /// Asks init by its command, as a person would; or the kernel.
    fn ask(&mut self, whom: Asked) {
        let reboot = self.page.shutdown.load(SeqCst) == REBOOT;
        let daemon = &self.in_force.config.daemon;
        let command = if reboot { &daemon.reboot_command } else { &daemon.poweroff_command };
        let how = if reboot { MachineEnd::Reboot } else { MachineEnd::PowerOff };
        let slot = self.page.job(Job::Load as usize);
        if slot.is_alive() {
            process::kill_if_there(slot.spawned() as i32, libc::SIGKILL);
        }
        let started = process::spawn_job(slot, 1, || {
            match whom {
                Asked::Kernel => say!("{}", machine::end_machine(how)),
                _ => say!("{}: {}", command.join(" "), machine::become_program(command)),
            }
            1
        });
        if let Err(error) = started {
            say!("{error}");
        }
        self.end.asked = whom;
        self.end.patience = Some(clock::now() + INIT_ANSWER);
    }

    /// The guard died: nobody hears of exits any more, nobody would replace us. Everything dies
    /// with it, and whoever started multusd starts it again.
    pub(super) fn guard_is_dead(&mut self) {
        say!("the guard is dead; everything ends");
        crate::sys::output::force_all_safe(self.page.outputs());
        let (life, guard) = (self.page.life.load(SeqCst), self.page.guard.load(SeqCst));
        if let Some(hierarchy) = &self.hierarchy {
            let _ = hierarchy.clear();
        }
        for (index, entry) in self.table.iter().enumerate() {
            let Some(entry) = entry else { continue };
            // Its orphans are init's now, so they are not the guard's descendants any more.
            let mut quarry = super::jobs::quarry(life, entry.name(), self.page.program(index), guard);
            quarry.ancestor = None;
            quarry.roots.retain(|_| self.page.program(index).is_alive());
            quarry.kill_all();
        }
        crate::sys::output::force_all_safe(self.page.outputs());
        self.end.code = Some(1);
    }
}

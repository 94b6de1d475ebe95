//! How long an output can stay live, whatever fails; and which promises this configuration leaves open.
//! Worked out from the configuration when somebody asks: nothing here is remembered.

use crate::config::{Live, Program, Target};
use crate::protocol::{LiveTimes, Text};

use super::Daemon;
use super::outputs::Output;

impl Daemon {
    /// The longest times, over all outputs.
    pub(super) fn live_times(&self) -> LiveTimes {
        let config = &self.in_force.config;
        // The first of them to bite resets the board.
        let watchdog = self.armed_watchdogs().min();
        let each = config.board.outputs.iter().zip(&self.in_force.outputs).map(|(output, spot)| {
            let mut programs = config.programs.iter();
            let owner =
                programs.find(|program| program.outputs.iter().any(|owned| owned.name == output.name));
            let may_wait = spot.as_ref().is_some_and(|spot| spot.may_wait);
            Live::of(output, may_wait, owner.map(|owner| &**owner), watchdog)
        });
        let Live { crash, hang, supervisor, guard, kernel } = each.fold(Live::NONE, Live::max);
        let [crash_ms, hang_ms, supervisor_ms, guard_ms, kernel_ms] =
            [crash, hang, supervisor, guard, kernel].map(|time| time.map(|time| time.0));
        let outputs = config.board.outputs.len() as u16;
        LiveTimes { outputs, crash_ms, hang_ms, supervisor_ms, guard_ms, kernel_ms }
    }

    /// What this configuration cannot promise, a sentence each.
    pub(super) fn open_promises(&self, add: &mut dyn FnMut(core::fmt::Arguments)) {
        let config = &self.in_force.config;
        for program in config.programs.iter().filter(|program| !program.outputs.is_empty()) {
            if program.heartbeat.is_none() && program.check.is_none() {
                let name = &program.name;
                add(format_args!(
                    "{name} has outputs and neither heartbeat nor check: nobody notices that it hangs"
                ));
            }
        }
        if !config.board.outputs.is_empty() && self.armed_watchdogs().next().is_none() {
            add(format_args!(
                "no watchdog is armed: outputs stay as they are when the kernel or the processor fails"
            ));
        }
        let commands = config.board.outputs.iter().filter(|one| matches!(one.target, Target::Command(_)));
        let commands = list(&mut commands.map(|one| one.name.as_str()));
        if !commands.is_empty() {
            add(format_args!(
                "set by a command, so not read back, and by nobody when multusd itself fails: {commands}"
            ));
        }
        let blind = list(&mut self.outputs.iter().filter_map(Output::unread));
        if !blind.is_empty() {
            add(format_args!("cannot be read back, so that nobody knows their level: {blind}"));
        }
        if self.in_force.lines_persist {
            add(format_args!(
                "GPIO lines keep their last level when nobody holds them any more (persist_gpio_outputs); \
                 dtparam=strict_gpiod in config.txt makes them inputs then"
            ));
        }
        let wants = |limit: fn(&Program) -> bool| config.programs.iter().any(|program| limit(program));
        if let Some(hierarchy) = &self.hierarchy {
            if !hierarchy.has_memory && wants(|program| program.memory_max.is_some()) {
                add(format_args!("memory_max has no effect: no memory controller here"));
            }
            if !hierarchy.has_pids && wants(|program| program.pids_max.is_some()) {
                add(format_args!("pids_max has no effect: no pids controller here"));
            }
        }
    }

    /// The same on standard error, for a configuration that was put into force.
    pub(super) fn say_open_promises(&self) {
        self.open_promises(&mut |words| say!("{words}"));
    }
}

/// Names, as many as there is room for.
fn list(names: &mut dyn Iterator<Item = &str>) -> Text {
    let mut text = Text::new();
    for name in names {
        // What does not fit is left out.
        let _ = text.push_str(if text.is_empty() { "" } else { ", " });
        let _ = text.push_str(name);
    }
    text
}

//! How long an output can stay live, whatever fails; and which promises this configuration leaves open.
//! Worked out from the configuration when somebody asks: nothing here is remembered.

use crate::config::{Check, Target};
use crate::limits::{BEAT_SILENCE_MS_MAX, ECHO_INTERVALS_MAX, ECHO_SILENCE_MS_MAX, FORCE_AGAIN_MS};
use crate::protocol::LiveTimes;
use crate::time::Millis;

use super::Daemon;

/// The longest that a program can fail its checks before it has failed.
fn judged_by(check: &Check) -> Millis {
    let once = check.interval + check.timeout;
    // At worst each failure is the last of its window that still counts.
    Millis(once.0.saturating_mul(u64::from(check.of)))
}

impl Daemon {
    /// The longest times, over all outputs that have an owner.
    pub(super) fn live_times(&self) -> LiveTimes {
        let config = &self.in_force.config;
        let mut times = LiveTimes { outputs: config.board.outputs.len() as u16, ..LiveTimes::default() };
        // From the moment at which something is known to have failed.
        let slowest = config.board.outputs.iter().map(|output| match output.target {
            Target::Gpio(_) => Millis(FORCE_AGAIN_MS),
            _ => output.timeout,
        });
        let force = slowest.max().unwrap_or_default();
        times.crash_ms = Some(force.0);
        let mut hang = Some(Millis::ZERO);
        for program in config.programs.iter().filter(|program| !program.outputs.is_empty()) {
            let beat = program.heartbeat.as_ref().map(|heartbeat| heartbeat.limit);
            let judged = beat.or_else(|| program.check.as_ref().map(judged_by));
            hang = hang.zip(judged).map(|(one, other)| one.max(other));
        }
        times.hang_ms = hang.map(|hang| (hang + force).0);
        // Silent, replaced, and every deadline begins anew.
        times.supervisor_ms = times.hang_ms.map(|hang| hang.saturating_add(BEAT_SILENCE_MS_MAX));
        // The first of them to bite resets the board.
        times.kernel_ms = self.armed_watchdogs().map(|timeout| timeout.0).min();
        times.guard_ms = Some(match (times.kernel_ms, self.pace()) {
            (Some(timeout), Some(pace)) => timeout.saturating_add(pace.saturating_mul(ECHO_INTERVALS_MAX)),
            _ => (Millis(ECHO_SILENCE_MS_MAX) + force).0,
        });
        times
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
        let commands =
            config.board.outputs.iter().filter(|output| matches!(output.target, Target::Command(_)));
        for output in commands {
            let name = &output.name;
            add(format_args!("output {name} is set by a command: nobody sets it when multusd itself fails"));
        }
    }
}

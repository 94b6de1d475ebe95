//! How long an output can stay live, by what fails: the arithmetic of `multusctl status`, and what `--check` warns of
//! where that is longer than the output's `limit`. Numbers only: must never ask what this machine has.

use core::fmt;

use super::board::{Board, Check, Output, Target, WatchdogTarget};
use super::keys::Section;
use super::links::Linked;
use super::report::Report;
use super::text::Block;
use super::{Place, Program};
use crate::limits::{
    BEAT_SILENCE_MS_MAX, ECHO_INTERVALS_MAX, ECHO_SILENCE_MS_MAX, FORCE_AGAIN_MS, HEARTBEAT_MS_MIN,
    PACE_MS_MAX,
};
use crate::time::Millis;

/// The shortest time between two feeds, whatever the watchdog's.
const PACE_MS_MIN: u64 = 10;

/// Milliseconds between two beats of guard and supervisor, where this is the shortest timeout of a watchdog.
pub fn pace_ms(watchdog: Option<Millis>) -> u64 {
    watchdog.map_or(PACE_MS_MAX, |timeout| timeout.0 / 4).clamp(PACE_MS_MIN, PACE_MS_MAX)
}

/// The longest times that one output, or any of several, can stay live after something failed; none: for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Its program ends.
    pub crash: Option<Millis>,
    /// Its program hangs.
    pub hang: Option<Millis>,
    /// Its program hangs while the supervisor does.
    pub supervisor: Option<Millis>,
    /// The guard fails.
    pub guard: Option<Millis>,
    /// The kernel or the processor fails.
    pub kernel: Option<Millis>,
}

impl Live {
    /// Of no output at all.
    pub const NONE: Live = {
        let none = Some(Millis::ZERO);
        Live { crash: none, hang: none, supervisor: none, guard: none, kernel: none }
    };

    /// Of an output of this program. `may_wait`: its line is behind a bus. `watchdog`: the shortest timeout.
    pub fn of(output: &Output, may_wait: bool, owner: Option<&Program>, watchdog: Option<Millis>) -> Live {
        // From the moment at which something is known to have failed.
        let force = match output.target {
            Target::Gpio(_) if !may_wait => Millis(FORCE_AGAIN_MS),
            _ => output.timeout,
        };
        let judged = owner.map_or(Some(Millis::ZERO), |owner| {
            let beat = owner.heartbeat.as_ref().map(|heartbeat| heartbeat.limit);
            beat.or_else(|| owner.check.as_ref().map(judged_by))
        });
        let hang = judged.map(|judged| judged + force);
        let guard = match watchdog {
            Some(timeout) => Some(timeout + Millis(pace_ms(watchdog) * ECHO_INTERVALS_MAX)),
            // Nobody runs a command any more.
            None if matches!(output.target, Target::Command(_)) => None,
            None => Some(Millis(ECHO_SILENCE_MS_MAX) + force),
        };
        // Silent, replaced, and every deadline begins anew.
        let supervisor = hang.map(|hang| hang + Millis(BEAT_SILENCE_MS_MAX));
        Live { crash: Some(force), hang, supervisor, guard, kernel: watchdog }
    }

    /// The longer of each.
    pub fn max(self, other: Live) -> Live {
        let longer = |one: Option<Millis>, other: Option<Millis>| one.zip(other).map(|(a, b)| a.max(b));
        Live {
            crash: longer(self.crash, other.crash),
            hang: longer(self.hang, other.hang),
            supervisor: longer(self.supervisor, other.supervisor),
            guard: longer(self.guard, other.guard),
            kernel: longer(self.kernel, other.kernel),
        }
    }
}

/// The longest that a program can fail its checks before it has failed.
fn judged_by(check: &Check) -> Millis {
    let once = check.interval + check.timeout;
    // At worst each failure is the last of its window that still counts.
    Millis(once.0.saturating_mul(u64::from(check.of)))
}

/// A time as it is written in a configuration.
struct Written(Millis);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0.0 % 1000 {
            0 => write!(f, "{}s", self.0.0 / 1000),
            _ => write!(f, "{}ms", self.0.0),
        }
    }
}

/// Warns of every output that can stay live for longer than its `limit`: when its program hangs; and, where somebody
/// wrote a `limit`, when what is below the program fails.
pub(super) fn warn(board: &Board, blocks: &[Block], linked: &[Linked], report: &mut Report) {
    // The first of them to bite resets the board.
    let timeouts = board.watchdogs.iter().map(|watchdog| match watchdog.target {
        WatchdogTarget::Device(_) => Millis::from_secs(watchdog.timeout.0.div_ceil(1000)),
        WatchdogTarget::Pulse { .. } => watchdog.timeout,
    });
    let watchdog = timeouts.min();
    for block in blocks.iter().filter(|block| block.section == Section::Output) {
        let Some(output) = board.outputs.iter().find(|output| output.name == block.name) else { continue };
        let owner =
            linked.iter().find(|one| one.program.outputs.iter().any(|owned| owned.name == block.name));
        let Some(Linked { program, name_place, .. }) = owner else { continue };
        let live = Live::of(output, false, Some(program), watchdog);
        let place = block.place_of("limit");
        warn_of_hang(output, program, *name_place, live, place, report);
        if block.entry("limit").is_some() {
            warn_of_machine(output, live, place, report);
        }
    }
}

fn warn_of_hang(
    output: &Output,
    program: &Program,
    section: Place,
    live: Live,
    place: Place,
    report: &mut Report,
) {
    let Output { name, limit, .. } = output;
    if live.hang.is_some_and(|hang| hang <= *limit) {
        return;
    }
    let (owner, at) = (&program.name, report.refer(section, place));
    let (time, longer) = match live.hang {
        Some(hang) => (format!("for {}", Written(hang)), format!(", or limit = {} here,", Written(hang))),
        None => ("for ever".into(), String::new()),
    };
    // What forcing it leaves of the limit is for noticing.
    let room = Millis(limit.0.saturating_sub(live.crash.unwrap_or_default().0).max(HEARTBEAT_MS_MIN));
    let (limit, room) = (Written(*limit), Written(room));
    report.warning(
        place,
        format!(
            "limit = {limit}, but {name} can stay live {time} when {owner} ({at}) hangs; \
             heartbeat = {room} there{longer} would be right"
        ),
    );
}

fn warn_of_machine(output: &Output, live: Live, place: Place, report: &mut Report) {
    let Output { name, limit, .. } = output;
    // The guard's is never shorter than the kernel's.
    let longest = live.supervisor.max(live.guard).unwrap_or_default();
    if longest <= *limit && live.kernel.is_some() {
        return;
    }
    let shorter = if live.guard > Some(*limit) { ", or a shorter timeout of the watchdog," } else { "" };
    let (limit, longest) = (Written(*limit), Written(longest));
    let (time, right) = match live.kernel {
        Some(kernel) => (format!("for {}", Written(kernel)), format!("limit = {longest} here{shorter}")),
        None => ("for ever".into(), "a section [watchdog]".into()),
    };
    report.warning(
        place,
        format!(
            "limit = {limit}, but {name} can stay live for {longest} when multusd fails, \
             and {time} when the kernel does; {right} would be right"
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    /// The one output of a configuration.
    fn live(text: &str, may_wait: bool, watchdog: Option<u64>) -> [Option<u64>; 5] {
        let config = load_text(&format!("[output:a]\n{text}")).unwrap().config;
        let owner = config.programs.first().map(|program| &**program);
        let live = Live::of(&config.board.outputs[0], may_wait, owner, watchdog.map(Millis));
        [live.crash, live.hang, live.supervisor, live.guard, live.kernel].map(|time| time.map(|time| time.0))
    }

    #[test]
    fn each_failure_has_its_time_or_none_where_nobody_would_notice() {
        let line = "gpio = 17\ntimeout = 300ms\n[program:p]\ncommand = x\noutputs = a\n";
        assert_eq!(live(line, false, None), [Some(10), None, None, Some(10_010), None]);
        assert_eq!(live(line, true, None), [Some(300), None, None, Some(10_300), None], "behind a bus");
        let beats = format!("{line}heartbeat = 500ms\n");
        assert_eq!(
            live(&beats, false, Some(2000)),
            [Some(10), Some(510), Some(3510), Some(2000 + 3 * 500), Some(2000)]
        );
        let checked =
            format!("{line}check = x\ncheck_interval = 2s\ncheck_timeout = 1s\ncheck_failures = 2\n");
        assert_eq!(live(&checked, false, None)[1], Some(6010));
        let command = "command = x\ntimeout = 300ms\n[program:p]\ncommand = x\noutputs = a\nheartbeat = 1s\n";
        assert_eq!(live(command, false, None), [Some(300), Some(1300), Some(4300), None, None]);
        assert_eq!(live("gpio = 17\n", false, None)[1], Some(10), "nobody drives it");
    }

    #[test]
    fn the_longer_of_two_is_for_ever_where_one_is() {
        let with = |hang| Live { hang, ..Live::NONE };
        let (short, long) = (with(Some(Millis(1))), with(Some(Millis(2))));
        assert_eq!((short.max(long), long.max(with(None))), (long, with(None)));
    }
}

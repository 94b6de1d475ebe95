//! A child's state as words: what a supervisor leaves for the one that replaces it.
//!
//! Must never restart a child, move an output or lose an order because the supervisor changed; and
//! must never trust a record it cannot read.
//!
//! Layout, version 1 (a word is a `u64`; bytes of a word are numbered from the lowest):
//!
//! | word | content |
//! |---|---|
//! | 0 | version, 0 if never written |
//! | 1 | bytes: phase, its stage, fate, farewell hook, running hook, its ending; bits 48..: flags |
//! | 2 | time of the phase: running since, back-off until |
//! | 3 | time of the fate: retry at |
//! | 4 | generation, high half; force attempt, low half |
//! | 5 | attempts that count, high half; failures, low half |
//! | 6 | failed starts, high half; rung of the back-off, low half |
//! | 7 | spawns, high half; how the last process ended, low half |
//! | 8 | when the process was spawned |
//! | 9 | since when its outputs are in danger; all ones: they are not |
//! | 10 | since when its state is what it is |
//! | 11 | generation of the running hook |

use crate::time::{Instant, Millis};

use super::child::{Active, Child, Ending, Fate, Last, Owed, Phase, Rest, Stage, StopStage};
use super::outputs::Outputs;
use super::series::Series;
use super::{End, Exit, Hook, SignalKind};

/// Words of one record. A longer record is a new version.
pub const SAVED_WORDS: usize = 12;

/// One child's record.
pub type Saved = [u64; SAVED_WORDS];

const VERSION: u64 = 1;

impl Child {
    /// Writes the record. That of a free slot keeps its numbers, so that facts about its former
    /// program are recognised whoever supervises.
    pub fn save(&self) -> Saved {
        let (phase, stage, fate, time) = split(self.phase);
        let (fate, fate_time) = match fate {
            None => (0, 0),
            Some(Fate::Ordered) => (1, 0),
            Some(Fate::Retry { at }) => (2, at.0),
            Some(Fate::Exited) => (3, 0),
            Some(Fate::Fatal) => (4, 0),
        };
        let ending = self.hook.map_or(0, |active| match active.ending {
            Ending::No => 0,
            Ending::Overtime => 1,
            Ending::Cancelled => 2,
        });
        let bytes = [
            phase,
            stage,
            fate,
            hook_tag(self.farewell),
            hook_tag(self.hook.map(|active| active.hook)),
            ending,
            0,
            0,
        ];
        [
            VERSION,
            u64::from_le_bytes(bytes) | self.flags() << 48,
            time.0,
            fate_time,
            pair(self.generation, self.outputs.attempt),
            pair(self.outputs.counts_from, self.series.failures),
            pair(self.series.failed_starts, self.series.rung),
            pair(self.spawn_count, end_tag(self.last_end)),
            self.born.0,
            self.outputs.danger.map_or(u64::MAX, |since| since.0.min(u64::MAX - 1)),
            self.since.0,
            pair(
                self.beat_limit.map_or(0, |limit| u32::try_from(limit.0.max(1)).unwrap_or(u32::MAX)),
                self.hook.map_or(0, |active| active.generation),
            ),
        ]
    }

    fn flags(&self) -> u64 {
        let flags = [
            self.wanted,
            self.once,
            self.bounce,
            self.retiring,
            self.begun,
            self.succeeded,
            self.reported,
            self.outputs.safe,
            self.leaving.is_some(),
        ];
        flags.iter().enumerate().map(|(bit, set)| u64::from(*set) << bit).sum()
    }

    /// Restores the record into a freshly installed child and owes its unconfirmed orders again.
    pub fn adopt(&mut self, now: Instant, saved: &Saved) {
        if saved[0] == 0 {
            return;
        }
        let [phase, stage, fate, farewell, hook, ending, flags, more_flags] = saved[1].to_le_bytes();
        let flag = |bit: u8| flags & (1 << bit) != 0;
        // A time that has not come cannot be when something happened.
        let past = |word: u64| Instant(word).min(now);
        let (generation, attempt) = unpair(saved[4]);
        let (counts_from, failures) = unpair(saved[5]);
        let (failed_starts, rung) = unpair(saved[6]);
        let (spawn_count, end) = unpair(saved[7]);
        let danger = (saved[9] != u64::MAX).then_some(past(saved[9]));
        (self.generation, self.spawn_count) = (generation, spawn_count);
        self.outputs = Outputs::restored(flag(7), danger, attempt, counts_from);
        let fate = match fate {
            2 => Fate::Retry { at: Instant(saved[3]) },
            3 => Fate::Exited,
            4 => Fate::Fatal,
            _ => Fate::Ordered,
        };
        if phase == 0 && saved[0] == VERSION {
            *self = Child { generation, ..Child::FREE };
            self.outputs.attempt = attempt;
            return;
        }
        let joined = join(now, phase, stage, fate, saved[2]);
        let (Some(phase), VERSION) = (joined, saved[0]) else {
            self.outputs.release();
            self.order_dead(now, Fate::Ordered);
            return;
        };
        self.phase = phase;
        [self.wanted, self.once, self.bounce, self.retiring] = [flag(0), flag(1), flag(2), flag(3)];
        [self.begun, self.succeeded, self.reported] = [flag(4), flag(5), flag(6)];
        self.series = Series { failures, failed_starts, rung };
        self.last_end = end_of_tag(end);
        self.farewell = hook_of_tag(farewell);
        self.born = past(saved[8]);
        self.last_beat = now;
        self.leaving = (more_flags & 1 != 0).then(|| self.leave(now));
        self.plan_checks(now);
        (self.since, self.shown) = (past(saved[10]), self.state());
        let (beat_limit, hook_generation) = unpair(saved[11]);
        self.beat_limit = (beat_limit != 0).then_some(Millis(u64::from(beat_limit)));
        self.owe_again(now, hook_of_tag(hook), hook_generation, ending);
    }

    /// Every order that was given and not confirmed, once more.
    fn owe_again(&mut self, now: Instant, hook: Option<Hook>, generation: u32, ending: u8) {
        let last = match self.phase {
            Phase::Spawning { .. } | Phase::Stopping { stage: StopStage::Unborn, .. } => Some(Last::Spawn),
            Phase::Paused => Some(Last::Signal(SignalKind::Pause)),
            Phase::Stopping { stage: StopStage::Asked, .. } => Some(Last::Signal(SignalKind::Stop)),
            _ => None,
        };
        let kill = matches!(self.phase, Phase::Clearing(_));
        // Nothing confirms a signal: its pause may have ended with this order, and a process that is
        // not paused does not mind.
        let resume = matches!(self.phase, Phase::Stopping { .. } | Phase::Running { .. });
        // What was to be served at the moment of the death is the child's already.
        self.owed = Owed { kill, serve: false, resume, end_hook: false, last };
        let Some(hook) = hook else { return };
        let until = now + self.hook_time(hook);
        let ending = match ending {
            0 => Ending::No,
            1 => Ending::Overtime,
            _ => Ending::Cancelled,
        };
        self.hook = Some(Active { hook, generation, until, ending });
        if ending == Ending::No {
            self.owed.last = Some(Last::Run(hook));
        } else {
            self.owed.end_hook = true;
        }
    }
}

/// A phase as its tag, the tag of its stage, its fate, and its time.
fn split(phase: Phase) -> (u8, u8, Option<Fate>, Instant) {
    let plain = |tag| (tag, 0, None, Instant(0));
    match phase {
        Phase::Free => plain(0),
        Phase::Down(Rest::Stopped) => plain(1),
        Phase::Down(Rest::Due) => plain(2),
        Phase::Down(Rest::Backoff { until }) => (3, 0, None, until),
        Phase::Down(Rest::Exited) => plain(4),
        Phase::Down(Rest::Fatal) => plain(5),
        Phase::Securing => plain(6),
        Phase::Preparing => plain(7),
        Phase::Prepared => plain(8),
        Phase::Spawning { .. } => plain(9),
        Phase::Starting { stage, .. } => match stage {
            Stage::Launching => (10, 0, None, Instant(0)),
            Stage::Finding => (10, 1, None, Instant(0)),
            Stage::Up { .. } => (10, 2, None, Instant(0)),
        },
        Phase::Running { since } => (11, 0, None, since),
        Phase::Paused => plain(12),
        Phase::Stopping { stage, .. } => match stage {
            StopStage::Unborn => (13, 0, None, Instant(0)),
            StopStage::Command { asked: false } => (13, 1, None, Instant(0)),
            StopStage::Command { asked: true } => (13, 2, None, Instant(0)),
            StopStage::Asked => (13, 3, None, Instant(0)),
        },
        Phase::Clearing(fate) => (14, 0, Some(fate), Instant(0)),
        Phase::Proving(fate) => (15, 0, Some(fate), Instant(0)),
        Phase::Concluding { fate, asked } => (16, u8::from(asked), Some(fate), Instant(0)),
    }
}

/// The reverse. What is judged by its age begins anew; what only waits does not wait longer.
fn join(now: Instant, tag: u8, stage: u8, fate: Fate, time: u64) -> Option<Phase> {
    let phase = match (tag, stage) {
        (1, _) => Phase::Down(Rest::Stopped),
        (2, _) => Phase::Down(Rest::Due),
        (3, _) => Phase::Down(Rest::Backoff { until: Instant(time) }),
        (4, _) => Phase::Down(Rest::Exited),
        (5, _) => Phase::Down(Rest::Fatal),
        (6, _) => Phase::Securing,
        (7, _) => Phase::Preparing,
        (8, _) => Phase::Prepared,
        (9, _) => Phase::Spawning { since: now },
        (10, 0) => Phase::Starting { since: now, stage: Stage::Launching },
        (10, 1) => Phase::Starting { since: now, stage: Stage::Finding },
        (10, 2) => {
            let stage = Stage::Up { next_check: now, last_check: Instant(0) };
            Phase::Starting { since: now, stage }
        }
        (11, _) => Phase::Running { since: Instant(time).min(now) },
        (12, _) => Phase::Paused,
        (13, 0) => Phase::Stopping { since: now, stage: StopStage::Unborn },
        (13, 1) => Phase::Stopping { since: now, stage: StopStage::Command { asked: false } },
        (13, 2) => Phase::Stopping { since: now, stage: StopStage::Command { asked: true } },
        (13, 3) => Phase::Stopping { since: now, stage: StopStage::Asked },
        (14, _) => Phase::Clearing(fate),
        (15, _) => Phase::Proving(fate),
        (16, asked) => Phase::Concluding { fate, asked: asked != 0 },
        _ => return None,
    };
    Some(phase)
}

fn hook_tag(hook: Option<Hook>) -> u8 {
    match hook {
        None => 0,
        Some(Hook::OnStart) => 1,
        Some(Hook::ReadyCheck) => 2,
        Some(Hook::FindMain) => 3,
        Some(Hook::StopCommand) => 4,
        Some(Hook::OnStop) => 5,
        Some(Hook::OnFailure) => 6,
        Some(Hook::Check) => 7,
    }
}

fn hook_of_tag(tag: u8) -> Option<Hook> {
    match tag {
        1 => Some(Hook::OnStart),
        2 => Some(Hook::ReadyCheck),
        3 => Some(Hook::FindMain),
        4 => Some(Hook::StopCommand),
        5 => Some(Hook::OnStop),
        6 => Some(Hook::OnFailure),
        7 => Some(Hook::Check),
        _ => None,
    }
}

/// Kind of end in the third byte, kind of exit in the second, its number in the first.
fn end_tag(end: Option<End>) -> u32 {
    let with = |tag: u32, exit: Exit| match exit {
        Exit::Code(code) => tag << 16 | u32::from(code),
        Exit::Signal(signal) => tag << 16 | 1 << 8 | u32::from(signal),
        Exit::Unknown => tag << 16 | 2 << 8,
    };
    match end {
        None => 0,
        Some(End::Exited(exit)) => with(1, exit),
        Some(End::Stopped(exit)) => with(2, exit),
        Some(End::Hung) => 3 << 16,
        Some(End::StartTimedOut) => 4 << 16,
        Some(End::CheckFailed) => 5 << 16,
        Some(End::NotSpawned) => 6 << 16,
        Some(End::HookFailed) => 7 << 16,
    }
}

fn end_of_tag(tag: u32) -> Option<End> {
    let [number, exit, end, _] = tag.to_le_bytes();
    let exit = match exit {
        0 => Exit::Code(number),
        1 => Exit::Signal(number),
        _ => Exit::Unknown,
    };
    match end {
        1 => Some(End::Exited(exit)),
        2 => Some(End::Stopped(exit)),
        3 => Some(End::Hung),
        4 => Some(End::StartTimedOut),
        5 => Some(End::CheckFailed),
        6 => Some(End::NotSpawned),
        7 => Some(End::HookFailed),
        _ => None,
    }
}

const fn pair(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

const fn unpair(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{HookTimes, Rules};

    const NOW: Instant = Instant(5_000_000_000);

    fn phases() -> Vec<Phase> {
        let fates = [Fate::Ordered, Fate::Retry { at: Instant(7) }, Fate::Exited, Fate::Fatal];
        let mut phases = vec![Phase::Securing, Phase::Preparing, Phase::Prepared, Phase::Paused];
        phases.extend([Rest::Stopped, Rest::Due, Rest::Exited, Rest::Fatal].map(Phase::Down));
        phases.push(Phase::Down(Rest::Backoff { until: Instant(9) }));
        phases.push(Phase::Spawning { since: NOW });
        phases.push(Phase::Running { since: Instant(4) });
        let up = Stage::Up { next_check: NOW, last_check: Instant(0) };
        phases.extend(
            [Stage::Launching, Stage::Finding, up].map(|stage| Phase::Starting { since: NOW, stage }),
        );
        let stages = [
            StopStage::Unborn,
            StopStage::Command { asked: false },
            StopStage::Command { asked: true },
            StopStage::Asked,
        ];
        phases.extend(stages.map(|stage| Phase::Stopping { since: NOW, stage }));
        for fate in fates {
            phases.extend([Phase::Clearing(fate), Phase::Proving(fate)]);
            phases.extend([true, false].map(|asked| Phase::Concluding { fate, asked }));
        }
        phases
    }

    fn adopted(saved: &Saved) -> Child {
        let mut child = Child::FREE;
        let hooks = HookTimes { on_start: Some(Millis(5)), ..Rules::BLANK.hooks };
        child.install(NOW, Rules { output_limit: Some(Millis(9)), hooks, ..Rules::BLANK });
        child.adopt(NOW, saved);
        child
    }

    #[test]
    fn every_phase_survives_being_saved_and_adopted() {
        for phase in phases() {
            let mut child = Child { phase, wanted: true, begun: true, generation: 7, ..Child::FREE };
            child.leaving = Some((NOW, true));
            child.last_end = Some(End::Stopped(Exit::Signal(9)));
            child.series = Series { failures: 3, failed_starts: 2, rung: 4 };
            child.outputs.endanger(Instant(3));
            let saved = child.save();
            let again = adopted(&saved);
            assert_eq!(again.phase, phase);
            assert_eq!(again.leaving, Some((NOW + again.rules.stop_timeout, false)), "its time begins anew");
            assert_eq!(again.save(), saved, "{phase:?}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_has_everything_killed() {
        let mut saved = Child { phase: Phase::Running { since: NOW }, ..Child::FREE }.save();
        saved[0] = 99;
        let child = adopted(&saved);
        assert_eq!(child.phase, Phase::Clearing(Fate::Ordered));
        assert!(child.owed.kill && child.is_in_danger());
    }

    #[test]
    fn a_free_slot_stays_free_and_keeps_its_numbers() {
        let mut child = Child { generation: 7, ..Child::FREE };
        child.outputs.attempt = 40;
        let again = adopted(&child.save());
        assert!(again.is_free());
        assert_eq!((again.generation, again.outputs.attempt), (7, 40));
    }

    #[test]
    fn a_record_never_written_is_a_new_program() {
        assert_eq!(adopted(&[0; SAVED_WORDS]).phase, Phase::Down(Rest::Stopped));
    }

    #[test]
    fn any_words_at_all_can_be_adopted() {
        for seed in 0..20_000_u64 {
            let mut saved = [0; SAVED_WORDS];
            for (index, word) in saved.iter_mut().enumerate() {
                *word = (seed + index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
            }
            (saved[0], saved[1]) = (VERSION, (saved[1] & !0xff) | (seed % 20));
            let _ = adopted(&saved).save();
        }
    }

    #[test]
    fn every_end_has_its_tag() {
        let exits = [Exit::Code(200), Exit::Signal(15), Exit::Unknown];
        let mut ends: Vec<Option<End>> = vec![None, Some(End::Hung), Some(End::StartTimedOut)];
        ends.extend([End::CheckFailed, End::NotSpawned, End::HookFailed].map(Some));
        ends.extend(exits.map(|exit| Some(End::Exited(exit))));
        ends.extend(exits.map(|exit| Some(End::Stopped(exit))));
        for end in ends {
            assert_eq!(end_of_tag(end_tag(end)), end);
        }
    }
}

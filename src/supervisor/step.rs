//! What time and the others make of one child: its deadlines are judged here, and what it is owed
//! becomes orders.
//!
//! Must never judge a deadline before the hooks it depends on had their time: a supervisor that was
//! itself late would kill a healthy child.

use crate::limits::{ACTIONS_PER_CHILD_MAX, FIND_MAIN_MS_MAX};
use crate::time::{Instant, Millis};

use super::child::{Active, Child, Ending, Last, Owed, Phase, Rest, Stage, StopStage};
use super::series::Jitter;
use super::view::Place;
use super::{Action, ChildId, End, Generation, Hook, Kind, Level, Ready, SignalKind};

impl Child {
    /// Goes one step, if there is one to go. Every path leads, after a few steps, to waiting for a
    /// fact or for a time: the caller repeats this until nothing changes.
    pub fn step(&mut self, now: Instant, place: &Place, jitter: &mut Jitter) -> bool {
        if !self.owns_outputs() {
            self.outputs.danger = None;
        }
        self.judge_hook(now, place);
        if place.go_down && self.is_stoppable() {
            self.begin_stop(now);
            return true;
        }
        match self.phase {
            Phase::Free => false,
            Phase::Down(rest) => self.step_down(now, rest, place),
            // What it requires may have failed while it prepared: it waits again.
            Phase::Securing if !place.may_start => self.go_to(Phase::Down(Rest::Due)),
            Phase::Securing => self.secure(now) && self.go_to(Phase::Preparing),
            Phase::Preparing => self.step_preparing(now, place),
            Phase::Prepared if !place.may_start => self.go_to(Phase::Down(Rest::Due)),
            Phase::Prepared => self.spawn(now),
            Phase::Spawning { since } | Phase::Starting { since, stage: Stage::Launching } => {
                self.judge_start(now, since, jitter)
            }
            Phase::Starting { stage: Stage::Up { .. }, .. } | Phase::Running { .. }
                if self.leaving.is_some() =>
            {
                self.step_leaving(now, jitter)
            }
            Phase::Starting { since, stage } => self.step_starting(now, since, stage, jitter),
            Phase::Running { .. } => {
                if self.heartbeat_deadline().is_due(now) {
                    self.fail(now, End::Hung, jitter);
                    return true;
                }
                self.hook.is_none() && self.check_due.is_due(now) && self.run(now, Hook::Check)
            }
            Phase::Stopping { since, stage } => self.step_stopping(now, since, stage),
            Phase::Paused | Phase::Clearing(_) => false,
            Phase::Proving(fate) => self.secure(now) && self.go_to(Phase::Concluding { fate, asked: false }),
            Phase::Concluding { fate, asked } => {
                let skip = place.falling && self.farewell == Some(Hook::OnFailure);
                match self.farewell {
                    _ if asked => false,
                    Some(hook) if !skip => {
                        self.hook.is_none()
                            && self.run(now, hook)
                            && self.go_to(Phase::Concluding { fate, asked: true })
                    }
                    _ => {
                        self.settle(fate);
                        true
                    }
                }
            }
        }
    }

    fn go_to(&mut self, phase: Phase) -> bool {
        self.phase = phase;
        true
    }

    fn step_down(&mut self, now: Instant, rest: Rest, place: &Place) -> bool {
        // While it waits, also when it came to own an output only now.
        self.secure(now);
        let bounced = core::mem::replace(&mut self.bounce, false);
        if self.retiring && !self.is_in_danger() {
            return self.go_to(Phase::Free);
        }
        let unwanted = !self.wanted || place.closing;
        match rest {
            Rest::Due | Rest::Backoff { .. } if unwanted => self.go_to(Phase::Down(Rest::Stopped)),
            Rest::Due if place.may_start => {
                self.begun = true;
                self.go_to(Phase::Securing)
            }
            Rest::Backoff { until } if until.is_due(now) => self.go_to(Phase::Down(Rest::Due)),
            _ => bounced,
        }
    }

    fn step_preparing(&mut self, now: Instant, place: &Place) -> bool {
        match self.rules.hooks.on_start {
            // A hook is being ended, or runs.
            _ if self.hook.is_some() => false,
            _ if place.falling => self.go_to(Phase::Down(Rest::Due)),
            Some(_) => {
                self.run(now, Hook::OnStart);
                false
            }
            None => self.go_to(Phase::Prepared),
        }
    }

    fn spawn(&mut self, now: Instant) -> bool {
        self.generation = self.generation.saturating_add(1);
        self.spawn_count = self.spawn_count.saturating_add(1);
        self.outputs.release();
        (self.succeeded, self.reported) = (false, false);
        (self.extended, self.born, self.beat_limit) = (Instant(0), now, None);
        self.leaving = None;
        self.owed.last = Some(Last::Spawn);
        self.go_to(Phase::Spawning { since: now })
    }

    fn step_starting(&mut self, now: Instant, since: Instant, stage: Stage, jitter: &mut Jitter) -> bool {
        match stage {
            Stage::Finding if self.hook.is_none() => return self.run(now, Hook::FindMain),
            Stage::Up { next_check, last_check } if self.rules.kind != Kind::Oneshot => {
                let ready = match self.rules.ready {
                    Ready::Uptime => (self.born + self.rules.start_time).is_due(now),
                    Ready::Report => self.reported,
                    Ready::Check(_) => {
                        // The last check starts after the time is up: a supervisor that was late
                        // could not ask before.
                        let deadline = self.start_deadline(since);
                        let last = deadline.is_due(now) && last_check < deadline;
                        if self.hook.is_none() && (last || next_check.is_due(now)) {
                            let stage = Stage::Up { next_check: Instant::NEVER, last_check: now };
                            self.run(now, Hook::ReadyCheck);
                            return self.go_to(Phase::Starting { since, stage });
                        }
                        false
                    }
                };
                if ready {
                    self.become_ready(now);
                    return true;
                }
            }
            _ => {}
        }
        self.judge_start(now, since, jitter)
    }

    /// Not ready in time; but not while an answer that would make it ready is awaited in time.
    fn judge_start(&mut self, now: Instant, since: Instant, jitter: &mut Jitter) -> bool {
        let asked = self.hook.is_some_and(|active| active.ending == Ending::No);
        let over = self.start_deadline(since).is_due(now) && !asked;
        if over {
            self.fail(now, End::StartTimedOut, jitter);
        }
        over
    }

    /// It said that it ends; said again, it means nothing new.
    pub fn take_leave(&mut self, now: Instant) {
        self.leaving = self.leaving.or(Some(self.leave(now)));
    }

    /// Its stop time for ending by itself.
    pub fn leave(&self, now: Instant) -> (Instant, bool) {
        (now + self.rules.stop_timeout, false)
    }

    /// When one that said that it ends has taken too long.
    fn leave_deadline(&self) -> Instant {
        self.leaving.map_or(Instant::NEVER, |(until, _)| until.max(self.extended))
    }

    /// Its stop time is over and it is still there: one that was watched, or that has outputs, is as good as hung;
    /// of every other the stop signal comes first, and its stop time once more.
    fn step_leaving(&mut self, now: Instant, jitter: &mut Jitter) -> bool {
        let over = self.leave_deadline().is_due(now);
        match self.leaving {
            Some((_, false)) if over && !self.owns_outputs() && self.rules.heartbeat.is_none() => {
                self.drop_unsent();
                self.owed.last = Some(Last::Signal(SignalKind::Stop));
                self.leaving = Some((now + self.rules.stop_timeout, true));
            }
            _ if over => self.fail(now, End::Hung, jitter),
            _ => {}
        }
        over
    }

    fn step_stopping(&mut self, now: Instant, since: Instant, stage: StopStage) -> bool {
        match stage {
            StopStage::Command { asked } => {
                let overtime = self.hook.is_some_and(|active| active.ending == Ending::Overtime);
                if asked && overtime || !asked && self.stop_deadline(since, stage).is_due(now) {
                    self.ask_to_stop(now, true);
                    return true;
                }
                !asked
                    && self.hook.is_none()
                    && self.run(now, Hook::StopCommand)
                    && self.go_to(Phase::Stopping { since, stage: StopStage::Command { asked: true } })
            }
            StopStage::Unborn | StopStage::Asked => {
                let over = self.stop_deadline(since, stage).is_due(now);
                if over {
                    self.kill_by_order(now);
                }
                over
            }
        }
    }

    /// Ends the hook that runs when its time is over, or when nothing waits for it any more.
    fn judge_hook(&mut self, now: Instant, place: &Place) {
        let Some(mut active) = self.hook else { return };
        if active.ending != Ending::No {
            return;
        }
        let awaited = match active.hook {
            Hook::OnStart => self.phase == Phase::Preparing && !place.falling,
            Hook::ReadyCheck | Hook::FindMain => matches!(self.phase, Phase::Starting { .. }),
            Hook::Check => matches!(self.phase, Phase::Running { .. }),
            Hook::StopCommand => {
                matches!(self.phase, Phase::Stopping { stage: StopStage::Command { .. }, .. })
            }
            Hook::OnStop => matches!(self.phase, Phase::Concluding { .. }),
            Hook::OnFailure => matches!(self.phase, Phase::Concluding { .. }) && !place.falling,
        };
        if !awaited && self.owed.last == Some(Last::Run(active.hook)) {
            self.drop_unsent();
            return;
        }
        active.ending = match awaited {
            false => Ending::Cancelled,
            true if active.until.is_due(now) => Ending::Overtime,
            true => return,
        };
        self.hook = Some(active);
        self.owed.end_hook = true;
    }

    /// Starts a hook; the caller has seen that none runs.
    fn run(&mut self, now: Instant, hook: Hook) -> bool {
        let generation = match hook {
            // It prepares the incarnation that is to come.
            Hook::OnStart => self.generation.saturating_add(1),
            _ => self.generation,
        };
        let until = now + self.hook_time(hook);
        self.hook = Some(Active { hook, generation, until, ending: Ending::No });
        self.owed.last = Some(Last::Run(hook));
        true
    }

    /// How long a hook may take. Never nothing: it would be ended in the breath that starts it.
    pub fn hook_time(&self, hook: Hook) -> Millis {
        let hooks = &self.rules.hooks;
        let time = match hook {
            Hook::OnStart => hooks.on_start,
            Hook::ReadyCheck => Some(hooks.ready_check),
            Hook::Check => Some(hooks.check),
            Hook::FindMain => Some(Millis(FIND_MAIN_MS_MAX)),
            Hook::StopCommand => hooks.stop_command,
            Hook::OnStop => hooks.on_stop,
            Hook::OnFailure => hooks.on_failure,
        };
        time.unwrap_or_default().max(Millis(1))
    }

    fn start_deadline(&self, since: Instant) -> Instant {
        match self.rules.start_timeout {
            Some(timeout) => (since + timeout).max(self.extended),
            None => Instant::NEVER,
        }
    }

    pub fn heartbeat_deadline(&self) -> Instant {
        match self.rules.heartbeat {
            Some(_) if self.leaving.is_some() => Instant::NEVER,
            Some(rules) => (self.last_beat + self.beat_limit.unwrap_or(rules)).max(self.extended),
            None => Instant::NEVER,
        }
    }

    fn stop_deadline(&self, since: Instant, stage: StopStage) -> Instant {
        match stage {
            // Only reached while another hook will not end.
            StopStage::Command { .. } => since + self.hook_time(Hook::StopCommand),
            StopStage::Unborn | StopStage::Asked => (since + self.rules.stop_timeout).max(self.extended),
        }
    }

    /// The next time after `now` at which something may have to be done. What is due already and
    /// was not done waits for a fact, not for time.
    pub fn wake(&self, now: Instant) -> Instant {
        let mut wake = Instant::NEVER;
        let mut consider = |deadline: Instant| {
            if deadline > now {
                wake = wake.min(deadline);
            }
        };
        if let Some(active) = self.hook.filter(|active| active.ending == Ending::No) {
            consider(active.until);
        }
        if self.is_in_danger() {
            consider(self.outputs.deadline());
        }
        match self.phase {
            Phase::Down(Rest::Backoff { until }) => consider(until),
            Phase::Starting { stage: Stage::Up { .. }, .. } | Phase::Running { .. }
                if self.leaving.is_some() =>
            {
                consider(self.leave_deadline())
            }
            Phase::Spawning { since } => consider(self.start_deadline(since)),
            Phase::Starting { since, stage } => {
                consider(self.start_deadline(since));
                match (stage, self.rules.ready) {
                    (Stage::Up { .. }, Ready::Uptime) => consider(self.born + self.rules.start_time),
                    (Stage::Up { next_check, .. }, Ready::Check(_)) => consider(next_check),
                    _ => {}
                }
            }
            Phase::Running { .. } => {
                consider(self.heartbeat_deadline());
                if self.hook.is_none() {
                    consider(self.check_due);
                }
            }
            Phase::Stopping { since, stage } => consider(self.stop_deadline(since, stage)),
            _ => {}
        }
        wake
    }

    /// A process of it may be alive, and not held still.
    pub fn may_write(&self) -> bool {
        use Phase::{Clearing, Running, Starting, Stopping};
        matches!(self.phase, Clearing(_) | Starting { .. } | Running { .. } | Stopping { .. })
    }

    /// Its main process is dead, and how it ended comes later: whatever that is, its outputs are to be
    /// safe, unless the process was one that is to end and leave a daemon behind.
    pub fn died(&mut self, now: Instant) {
        use Phase::{Paused, Running, Starting, Stopping};
        let is_the_end = match self.phase {
            Starting { stage, .. } => matches!(stage, Stage::Up { .. }),
            Running { .. } | Paused | Stopping { .. } => true,
            _ => false,
        };
        if is_the_end && self.owns_outputs() {
            self.outputs.endanger(now);
        }
    }

    /// The attempt to order now, if its outputs are to be forced.
    pub fn force(&mut self, id: ChildId, now: Instant) -> Option<Action> {
        if !self.is_in_danger() {
            return None;
        }
        let level = if self.spawn_count == 0 { Level::Boot } else { Level::Safe };
        self.outputs.force(now).map(|attempt| Action::Force { child: id, attempt, level })
    }

    /// A child that is being paused is forced after the signal, every other before anything else.
    pub fn is_pausing(&self) -> bool {
        self.owed.last == Some(Last::Signal(SignalKind::Pause))
    }

    /// Takes what is owed. The array is as long as the orders a child can have besides the force,
    /// so that the list of all cannot overflow (invariant 7).
    pub fn take_orders(&mut self, id: ChildId) -> [Option<Action>; ACTIONS_PER_CHILD_MAX - 1] {
        let owed = core::mem::take(&mut self.owed);
        let (child, generation) = (id, Generation(self.generation));
        let first = match owed {
            Owed { kill: true, .. } => Some(Action::KillTree { child, generation }),
            Owed { resume: true, .. } => {
                Some(Action::Signal { child, generation, signal: SignalKind::Resume })
            }
            // Whoever is on the way down again sets its outputs itself, or has them forced.
            Owed { serve: true, .. } if self.is_running() => Some(Action::Serve { child, generation }),
            _ => None,
        };
        let last = owed.last.map(|last| match last {
            Last::Spawn => Action::Spawn { child, generation },
            Last::Signal(signal) => Action::Signal { child, generation, signal },
            Last::Run(hook) => {
                let generation = self.hook.map_or(generation, |active| Generation(active.generation));
                Action::Run { child, generation, hook }
            }
        });
        let end = self.hook.filter(|_| owed.end_hook).map(|active| Action::EndHook {
            child,
            generation: Generation(active.generation),
            hook: active.hook,
        });
        [first, end, last]
    }
}

//! One child: its phase, what is known of it, and what each fact makes of it.
//!
//! Must never emit an order: what is owed is noted here and leaves with the next `decide`. Must
//! never look at another child: what the others mean for it comes in as a `Place` (see `view`).

use crate::limits::{CHECK_WINDOW_MAX, RESTART_PAUSE_MS_MIN};
use crate::time::{Instant, Millis};

use super::outputs::Outputs;
use super::series::{Jitter, Series};
use super::{End, Event, Exit, Generation, Hook, Kind, Restart, Rules, SignalKind, State};

/// Why a child that is down is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nobody wants it up.
    Stopped,
    /// To be started as soon as what it requires allows.
    Due,
    /// To be started, but not before this time.
    Backoff { until: Instant },
    /// It ended and is not restarted.
    Exited,
    /// It failed to start too often.
    Fatal,
}

/// How far a start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The spawned process is to return and leave a daemon behind.
    Launching,
    /// It returned; the daemon is being looked for.
    Finding,
    /// The main process is there, and is to become ready.
    Up { next_check: Instant, last_check: Instant },
}

/// How far an ordered stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopStage {
    /// The process to stop is ordered and not confirmed.
    Unborn,
    /// The stop command is to run, or runs.
    Command { asked: bool },
    /// Asked to stop; it may take its stop time.
    Asked,
}

/// What follows when a dying child is down and its outputs are safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It came down by order: up again at once if it is wanted.
    Ordered,
    /// It failed: up again, but not before this time.
    Retry { at: Instant },
    /// It ended and is not restarted.
    Exited,
    /// It failed to start too often.
    Fatal,
}

/// Where a child is. Time that belongs to a phase stands in its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No program in this slot.
    Free,
    /// Nothing alive, nothing under way.
    Down(Rest),
    /// A start is under way: its outputs are being made safe.
    Securing,
    /// `on_start` is to run, or runs.
    Preparing,
    /// Ready to spawn.
    Prepared,
    /// A process is ordered.
    Spawning { since: Instant },
    /// It exists and is not ready. `since` is where its start timeout runs from.
    Starting { since: Instant, stage: Stage },
    /// Ready, since.
    Running { since: Instant },
    /// Stopped in its tracks.
    Paused,
    /// On its way down by order.
    Stopping { since: Instant, stage: StopStage },
    /// Ordered dead; something of it may be alive.
    Clearing(Fate),
    /// Dead; its outputs are not confirmed safe.
    Proving(Fate),
    /// Dead and safe; `Child::farewell` is to run, or runs.
    Concluding { fate: Fate, asked: bool },
}

/// Whether a running hook was ordered to end, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    No,
    Overtime,
    Cancelled,
}

/// A hook that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Active {
    pub hook: Hook,
    pub generation: u32,
    pub until: Instant,
    pub ending: Ending,
}

/// The order that closes a child's list; at most one of these is ever owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    Spawn,
    Signal(SignalKind),
    Run(Hook),
}

/// Orders that leave with the next `decide`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owed {
    pub kill: bool,
    pub serve: bool,
    pub resume: bool,
    pub end_hook: bool,
    pub last: Option<Last>,
}

/// One slot of the supervisor's table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child {
    pub rules: Rules,
    pub phase: Phase,
    pub generation: u32,
    /// Started at boot or by order, and not ordered down since.
    pub wanted: bool,
    /// Not to be restarted when it ends.
    pub once: bool,
    /// To go down once, then up: an ordered restart.
    pub bounce: bool,
    /// Removed from the configuration: the slot becomes free when it is down.
    pub retiring: bool,
    /// Its first start is behind it: `after` no longer holds it back.
    pub begun: bool,
    /// A oneshot that ran to completion.
    pub succeeded: bool,
    /// It said that it serves.
    pub reported: bool,
    pub series: Series,
    pub spawn_count: u32,
    /// When its process was spawned.
    pub born: Instant,
    pub last_beat: Instant,
    /// Another heartbeat time than the rules', asked for by this incarnation.
    pub beat_limit: Option<Millis>,
    /// When its health is checked next.
    pub check_due: Instant,
    /// The last checks since it was ready, the newest in bit 0; set: failed.
    pub checks: u32,
    /// It said that it ends: until when it may, and whether it was asked to besides.
    pub leaving: Option<(Instant, bool)>,
    /// Its deadlines in this phase do not fall before this.
    pub extended: Instant,
    pub last_end: Option<End>,
    pub outputs: Outputs,
    pub hook: Option<Active>,
    /// The hook that ends a death: `on_failure`, `on_stop` or none.
    pub farewell: Option<Hook>,
    pub owed: Owed,
    /// The state last reported, and since when it is so.
    pub shown: State,
    pub since: Instant,
}

impl Child {
    /// A slot without a program.
    pub const FREE: Child = Child {
        rules: Rules::BLANK,
        phase: Phase::Free,
        generation: 0,
        wanted: false,
        once: false,
        bounce: false,
        retiring: false,
        begun: false,
        succeeded: false,
        reported: false,
        series: Series::NEW,
        spawn_count: 0,
        born: Instant(0),
        last_beat: Instant(0),
        beat_limit: None,
        check_due: Instant::NEVER,
        checks: 0,
        leaving: None,
        extended: Instant(0),
        last_end: None,
        outputs: Outputs::UNKNOWN,
        hook: None,
        farewell: None,
        owed: Owed { kill: false, serve: false, resume: false, end_hook: false, last: None },
        shown: State::Stopped,
        since: Instant(0),
    };

    /// Takes a new program into a free slot. Numbers go on where the slot's former program left
    /// them, so that a late fact about that one is recognised.
    pub fn install(&mut self, now: Instant, rules: Rules) {
        let (generation, mut outputs) = (self.generation, Outputs::UNKNOWN);
        outputs.attempt = self.outputs.attempt;
        outputs.renew(1);
        let rest = if rules.autostart { Rest::Due } else { Rest::Stopped };
        let (wanted, phase) = (rules.autostart, Phase::Down(rest));
        *self = Child { rules, phase, generation, wanted, outputs, since: now, ..Child::FREE };
    }

    pub fn is_free(&self) -> bool {
        self.phase == Phase::Free
    }

    pub fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Free | Phase::Down(_)) && !self.is_in_danger()
    }

    /// A process or a hook of it may exist.
    pub fn is_alive(&self) -> bool {
        !matches!(
            self.phase,
            Phase::Free | Phase::Down(_) | Phase::Securing | Phase::Prepared | Phase::Proving(_)
        )
    }

    /// A process of it exists, or is ordered, and nobody ordered it down yet.
    pub fn is_stoppable(&self) -> bool {
        use Phase::{Paused, Running, Spawning, Starting};
        matches!(self.phase, Spawning { .. } | Starting { .. } | Running { .. } | Paused)
    }

    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    pub fn is_ready(&self) -> bool {
        self.is_running() || self.phase == Phase::Down(Rest::Exited) && self.succeeded
    }

    /// Neither ready nor failed yet, but on its way or waiting for it.
    pub fn is_coming_up(&self) -> bool {
        use Phase::{Down, Prepared, Preparing, Securing, Spawning, Starting};
        self.series.failures == 0
            && match self.phase {
                Down(rest) => matches!(rest, Rest::Due | Rest::Backoff { .. }),
                Securing | Preparing | Prepared | Spawning { .. } | Starting { .. } => true,
                _ => false,
            }
    }

    pub fn is_ordered_down(&self) -> bool {
        !self.is_free() && (!self.wanted || self.bounce || self.retiring)
    }

    pub fn owns_outputs(&self) -> bool {
        self.rules.output_limit.is_some()
    }

    pub fn is_in_danger(&self) -> bool {
        self.owns_outputs() && self.outputs.danger.is_some()
    }

    /// Its outputs are unconfirmed for so long that the watchdog must starve.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.rules.output_limit.is_some_and(|limit| self.outputs.is_overdue(now, limit))
    }

    /// The state in one word.
    pub fn state(&self) -> State {
        let dying = |fate| match fate {
            _ if !self.wanted || self.retiring => State::Stopping,
            Fate::Ordered => State::Stopping,
            Fate::Retry { .. } => State::Backoff,
            Fate::Exited => State::Exited,
            Fate::Fatal => State::Fatal,
        };
        match self.phase {
            Phase::Free | Phase::Down(Rest::Stopped) => State::Stopped,
            Phase::Down(Rest::Due) => State::Held,
            Phase::Down(Rest::Backoff { .. }) => State::Backoff,
            Phase::Down(Rest::Exited) => State::Exited,
            Phase::Down(Rest::Fatal) => State::Fatal,
            Phase::Securing | Phase::Preparing | Phase::Prepared => State::Starting,
            Phase::Spawning { .. } | Phase::Starting { .. } => State::Starting,
            Phase::Running { .. } => State::Running,
            Phase::Paused => State::Paused,
            Phase::Stopping { .. } => State::Stopping,
            Phase::Clearing(fate) | Phase::Proving(fate) | Phase::Concluding { fate, .. } => dying(fate),
        }
    }

    /// Takes in a fact about this child. Facts about another incarnation, and facts that mean
    /// nothing in this phase, change nothing.
    pub fn observe(&mut self, now: Instant, event: &Event, jitter: &mut Jitter) {
        let current = Generation(self.generation);
        match *event {
            Event::Spawned { generation, .. } if generation == current => self.spawned(now),
            Event::SpawnFailed { generation, .. } if generation == current => self.spawn_failed(now, jitter),
            Event::ReadyReported { generation, .. } if generation == current => self.reported = true,
            Event::Beat { generation, at, .. } if generation == current => {
                self.last_beat = self.last_beat.max(at.min(now));
            }
            Event::HeartbeatChanged { generation, limit, .. } if generation == current => {
                self.beat_limit = Some(limit);
            }
            Event::Hung { generation, .. } if generation == current => {
                if matches!(self.phase, Phase::Starting { .. } | Phase::Running { .. }) {
                    self.fail(now, End::Hung, jitter);
                }
            }
            Event::DeadlineExtended { generation, until, .. } if generation == current => {
                self.extended = self.extended.max(until);
            }
            Event::LeaveAnnounced { generation, .. } if generation == current => self.take_leave(now),
            Event::CheckFailed { generation, .. } if generation == current => {
                if matches!(self.phase, Phase::Starting { .. } | Phase::Running { .. }) {
                    self.fail(now, End::CheckFailed, jitter);
                }
            }
            Event::Exited { generation, exit, .. } if generation == current => self.exited(now, exit, jitter),
            Event::TreeEmptied { generation, .. } if generation == current => self.tree_emptied(now),
            // While a process may be alive it may write again, whatever was read back.
            Event::OutputsConfirmed { attempt, .. } if !self.may_write() => self.outputs.confirm(attempt),
            Event::HookFinished { generation, hook, success, .. } => {
                self.hook_finished(now, generation, hook, success, jitter);
            }
            _ => {}
        }
    }

    fn spawned(&mut self, now: Instant) {
        let launched = match self.rules.kind {
            Kind::Forking => Stage::Launching,
            Kind::Simple | Kind::Oneshot => Stage::Up { next_check: now, last_check: Instant(0) },
        };
        match self.phase {
            Phase::Spawning { .. } => {
                self.born = now;
                self.extended = Instant(0);
                self.phase = Phase::Starting { since: now, stage: launched };
                self.owed.last = None;
            }
            Phase::Stopping { stage: StopStage::Unborn, .. } => {
                self.born = now;
                self.owed.last = None;
                self.begin_stop(now);
            }
            // It was ordered dead before it was known to exist: the order may have met nothing.
            Phase::Clearing(_) => self.owed.kill = true,
            _ => {}
        }
    }

    fn spawn_failed(&mut self, now: Instant, jitter: &mut Jitter) {
        match self.phase {
            Phase::Spawning { .. } => {
                self.owed.last = None;
                self.fail(now, End::NotSpawned, jitter);
            }
            Phase::Stopping { stage: StopStage::Unborn, .. } => {
                self.owed.last = None;
                self.last_end = Some(End::NotSpawned);
                self.prove(now, Fate::Ordered);
            }
            // It existed, but never became its program (with no start time it is taken for running).
            Phase::Starting { .. } | Phase::Running { .. } | Phase::Paused => {
                self.fail(now, End::NotSpawned, jitter)
            }
            Phase::Stopping { .. } => {
                self.last_end = Some(End::NotSpawned);
                self.order_dead(now, Fate::Ordered);
            }
            Phase::Clearing(_) => self.tree_emptied(now),
            _ => {}
        }
    }

    fn exited(&mut self, now: Instant, exit: Exit, jitter: &mut Jitter) {
        // The order of a former supervisor may be confirmed by its end only.
        if matches!(self.phase, Phase::Spawning { .. }) {
            self.spawned(now);
        }
        match self.phase {
            Phase::Starting { since, stage: Stage::Launching } if exit == Exit::Code(0) => {
                self.phase = Phase::Starting { since, stage: Stage::Finding };
            }
            Phase::Starting { stage: Stage::Finding, .. } => {}
            Phase::Starting { .. } if self.rules.kind == Kind::Oneshot && self.is_success(exit) => {
                self.succeed(now, exit);
            }
            Phase::Starting { .. } | Phase::Running { .. } | Phase::Paused => {
                self.fail(now, End::Exited(exit), jitter);
            }
            Phase::Stopping { .. } => {
                self.last_end = Some(End::Stopped(exit));
                self.farewell = self.rules.hooks.on_stop.map(|_| Hook::OnStop);
                self.order_dead(now, Fate::Ordered);
            }
            Phase::Clearing(_) if self.last_end == Some(End::Stopped(Exit::Unknown)) => {
                self.last_end = Some(End::Stopped(exit));
            }
            _ => {}
        }
    }

    fn is_success(&self, exit: Exit) -> bool {
        exit == Exit::Code(0) || matches!(exit, Exit::Code(code) if self.rules.expected.contains(code))
    }

    fn succeed(&mut self, now: Instant, exit: Exit) {
        self.last_end = Some(End::Exited(exit));
        self.succeeded = true;
        self.series = Series::NEW;
        self.farewell = None;
        self.order_dead(now, Fate::Exited);
    }

    fn tree_emptied(&mut self, now: Instant) {
        if let Phase::Clearing(fate) = self.phase {
            self.owed.kill = false;
            self.prove(now, fate);
        }
    }

    fn hook_finished(
        &mut self,
        now: Instant,
        generation: Generation,
        hook: Hook,
        success: bool,
        jitter: &mut Jitter,
    ) {
        let Some(active) = self.hook else { return };
        if active.hook != hook || active.generation != generation.0 {
            return;
        }
        self.hook = None;
        self.owed.end_hook = false;
        if self.owed.last == Some(Last::Run(hook)) {
            self.owed.last = None;
        }
        let success = success && active.ending == Ending::No;
        match (self.phase, hook) {
            (Phase::Preparing, Hook::OnStart) if success => self.phase = Phase::Prepared,
            (Phase::Preparing, Hook::OnStart) if active.ending != Ending::Cancelled => {
                self.fail(now, End::HookFailed, jitter);
            }
            // What it left behind must not stay.
            (Phase::Preparing, Hook::OnStart) => self.order_dead(now, Fate::Ordered),
            (Phase::Starting { since, stage: Stage::Finding }, Hook::FindMain) => {
                if success {
                    let stage = Stage::Up { next_check: now, last_check: Instant(0) };
                    self.phase = Phase::Starting { since, stage };
                } else {
                    self.fail(now, End::Exited(Exit::Code(0)), jitter);
                }
            }
            (Phase::Starting { since, stage: Stage::Up { last_check, .. } }, Hook::ReadyCheck) => {
                if success {
                    self.become_ready(now);
                } else {
                    let next_check = now + self.check_pause();
                    self.phase = Phase::Starting { since, stage: Stage::Up { next_check, last_check } };
                }
            }
            (Phase::Running { .. }, Hook::Check) if self.leaving.is_none() => {
                self.checked(now, success, jitter)
            }
            (Phase::Stopping { stage: StopStage::Command { .. }, .. }, Hook::StopCommand) => {
                self.ask_to_stop(now, !success);
            }
            (Phase::Concluding { fate, .. }, Hook::OnStop | Hook::OnFailure) => self.settle(fate),
            _ => {}
        }
    }

    fn check_pause(&self) -> Millis {
        match self.rules.ready {
            // Without any pause the check would be started again in the same breath.
            super::Ready::Check(pause) => pause.max(Millis(1)),
            _ => Millis(1),
        }
    }

    pub fn become_ready(&mut self, now: Instant) {
        self.phase = Phase::Running { since: now };
        self.last_beat = now;
        self.extended = Instant(0);
        self.leaving = self.leaving.map(|_| self.leave(now));
        self.owed.serve = self.owns_outputs();
        self.plan_checks(now);
    }

    /// Its checks begin anew.
    pub fn plan_checks(&mut self, now: Instant) {
        self.checks = 0;
        self.check_due = self.rules.check.map_or(Instant::NEVER, |check| now + check.interval);
    }

    /// A check of its health ended.
    fn checked(&mut self, now: Instant, success: bool, jitter: &mut Jitter) {
        let Some(rules) = self.rules.check else { return };
        self.checks = self.checks << 1 | u32::from(!success);
        let window = u32::MAX >> (u32::BITS - u32::from(rules.of.clamp(1, CHECK_WINDOW_MAX)));
        if (self.checks & window).count_ones() >= u32::from(rules.failures.max(1)) {
            return self.fail(now, End::CheckFailed, jitter);
        }
        // Never without a pause: it would be started again in the same breath.
        self.check_due = now + rules.interval.max(Millis(1));
    }

    /// Judges an end that was not ordered, and what follows it.
    pub fn fail(&mut self, now: Instant, end: End, jitter: &mut Jitter) {
        let was_ready = matches!(self.phase, Phase::Running { .. } | Phase::Paused);
        let never_began = matches!(self.phase, Phase::Spawning { .. });
        let failed_start =
            !was_ready || end == End::NotSpawned || now.since(self.born) < self.rules.start_time;
        let proven = match self.phase {
            Phase::Running { since } => now.since(since) >= self.rules.health_time,
            _ => false,
        };
        let expected = matches!(end, End::Exited(Exit::Code(code)) if self.rules.expected.contains(code));
        let clean = expected && !failed_start;
        let at_once =
            matches!(end, End::NotSpawned | End::HookFailed) || now.since(self.born) == Millis::ZERO;
        let least = if at_once { Millis(RESTART_PAUSE_MS_MIN) } else { Millis::ZERO };
        let pause = self.series.fail(proven, failed_start, &self.rules, jitter).max(least);
        let restart = match self.rules.restart {
            _ if self.once => false,
            Restart::Never => failed_start && self.rules.kind != Kind::Oneshot,
            Restart::Unexpected => !clean,
            Restart::Always => true,
        };
        let fate = match restart {
            false => Fate::Exited,
            true if failed_start && self.series.is_given_up(&self.rules) => Fate::Fatal,
            true => Fate::Retry { at: now + pause },
        };
        self.last_end = Some(end);
        self.farewell = if clean { None } else { self.rules.hooks.on_failure.map(|_| Hook::OnFailure) };
        match end {
            End::NotSpawned if never_began => self.prove(now, fate),
            _ => self.order_dead(now, fate),
        }
    }

    /// Kills everything of it, and forces its outputs while it dies.
    pub fn order_dead(&mut self, now: Instant, fate: Fate) {
        self.drop_unsent();
        self.owed.kill = true;
        (self.owed.resume, self.owed.serve) = (false, false);
        self.phase = Phase::Clearing(fate);
        if self.owns_outputs() {
            self.outputs.endanger(now);
            self.outputs.renew(1);
        }
    }

    /// Nothing of it is alive any more: from now on a confirmation means something.
    fn prove(&mut self, now: Instant, fate: Fate) {
        self.phase = Phase::Proving(fate);
        if self.owns_outputs() {
            self.outputs.endanger(now);
            self.outputs.renew(1);
        }
    }

    /// The outputs are safe, or are being made so.
    pub fn secure(&mut self, now: Instant) -> bool {
        if !self.owns_outputs() || self.outputs.safe {
            return true;
        }
        self.outputs.endanger(now);
        false
    }

    /// Down and safe: what its death was judged to lead to.
    pub fn settle(&mut self, fate: Fate) {
        let rest = match fate {
            _ if !self.wanted || self.retiring => Rest::Stopped,
            _ if self.bounce => Rest::Due,
            Fate::Ordered => Rest::Due,
            Fate::Retry { at } => Rest::Backoff { until: at },
            Fate::Exited => Rest::Exited,
            Fate::Fatal => Rest::Fatal,
        };
        self.phase = Phase::Down(rest);
    }
}

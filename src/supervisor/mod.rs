//! DECIDES. What to start, stop, force, kill and feed, and when.
//!
//! Pure: no clock, no input or output, no unsafe, no memory beyond what [`Supervisor::new`]
//! reserves, and nothing here can fail. Facts come
//! in by [`Supervisor::observe`], orders leave by [`Supervisor::decide`], and the one timer is
//! armed by [`Supervisor::next_deadline`]. Performing an order produces a fact; until it does,
//! nothing is assumed to have happened.
//!
//! The caller drains every pending fact, with the time at which it drains them, before it asks for
//! decisions: a supervisor that was late must not judge children by what it has not read yet.
//!
//! ```text
//! loop {
//!     wait for a fact, or until next_deadline()
//!     died(now, child) for every child whose main process is dead, before anything else
//!     observe(now, fact) for every fact there is
//!     decide(now, &mut actions)      save what changed, then perform each action
//! }
//! ```
//!
//! What holds at every moment (each is checked by `tests/sim`, and by mutations of this code):
//!
//! 1. No child is spawned before its outputs are confirmed safe since its last death. Only an
//!    attempt ordered after its last process was dead confirms that.
//! 2. There are never two processes for one child: a spawn follows `TreeEmptied` or `SpawnFailed`
//!    of the incarnation before.
//! 3. A silent child is ordered dead, and its outputs are forced before that, at the first
//!    `decide` after its heartbeat time. Outputs that are to be safe and are not confirmed are
//!    forced at every wake-up and at least every `FORCE_AGAIN_MS`.
//! 4. The watchdog is fed unless outputs are unconfirmed for their limit or longer, or the guard's
//!    echo is stale. Nothing else withholds it.
//! 5. Starts of a child are bounded by its back-off, which falls only after proven health or by an
//!    operator's order. A start that failed at once is followed by none for `RESTART_PAUSE_MS_MIN`,
//!    whatever the back-off is.
//! 6. `decide` is idempotent, and `next_deadline` is never in the past. A withheld feed moves its
//!    own deadline.
//! 7. The action list cannot overflow: every child's orders are an array of
//!    `ACTIONS_PER_CHILD_MAX`, and the list has room for all of them.
#![forbid(unsafe_code)]

mod action;
mod child;
mod event;
mod order;
mod outputs;
mod record;
mod rules;
mod series;
mod set;
mod step;
mod view;
mod watch;

pub use action::{Action, Actions, Hook, Level, SignalKind};
pub use event::{Event, Exit, Order};
pub use record::{SAVED_WORDS, Saved};
pub use rules::{CheckRules, ExitCodes, HookTimes, Kind, Ready, Restart, Rules};
pub use set::ChildSet;

use crate::limits::CHILD_COUNT_MAX;
use crate::time::{Instant, Millis};
use child::{Child, Phase, Rest};
use series::Jitter;
use view::{Halt, View};
use watch::Watch;

/// Which child: an index into the supervisor's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u16);

impl ChildId {
    /// As a table index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which incarnation of a child; counts up with every spawn, never zero for a real one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u32);

/// The state of a child as people and programs see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Down, and meant to be: never started, or stopped by order.
    Stopped,
    /// On its way up; not ready yet.
    Starting,
    /// Ready.
    Running,
    /// Down after a failure, waiting for its next start.
    Backoff,
    /// On its way down by order.
    Stopping,
    /// Ended by itself and not restarted, as configured.
    Exited,
    /// Given up after `startretries` failed starts.
    Fatal,
    /// Stopped in its tracks by order (SIGSTOP).
    Paused,
    /// Wanted, but something it requires is not ready, or the gate is closed (too hot, too cold).
    Held,
}

/// Why a child's last process ended, as the supervisor judged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It ended by itself.
    Exited(Exit),
    /// It was taken down by order; how it then ended.
    Stopped(Exit),
    /// It was silent for longer than its heartbeat.
    Hung,
    /// It was not ready in time.
    StartTimedOut,
    /// A check failed or a limit was exceeded.
    CheckFailed,
    /// No process came of the order to spawn.
    NotSpawned,
    /// Its `on_start` failed, so it was not spawned.
    HookFailed,
}

/// What is known of a child, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its state in one word.
    pub state: State,
    /// Current or last incarnation.
    pub generation: Generation,
    /// When the state was entered.
    pub since: crate::time::Instant,
    /// Starts beyond the first.
    pub restarts: u32,
    /// Failures in the current series.
    pub failures: u32,
    /// In back-off: when the next start is due.
    pub next_start: Option<crate::time::Instant>,
    /// The last proof of progress, while it is judged by it.
    pub last_beat: Option<crate::time::Instant>,
    /// The longest silence allowed it.
    pub beat_limit: Millis,
    /// When it is taken for hung if it proves nothing until then; the end of time: it is not judged.
    pub beat_due: Instant,
    /// Why its last process ended.
    pub last_end: Option<End>,
    /// Its outputs are confirmed safe (also true when it has none).
    pub outputs_safe: bool,
    /// It is to be running: started at boot or by order.
    pub wanted: bool,
}

/// Why the watchdog is not fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// The guard does not answer.
    Guard,
    /// An output of this child is not confirmed safe within its limit.
    Outputs(ChildId),
}

/// Passes over the table in one `decide`. Each but the last moves at least one child, and no child
/// goes further than a whole life without a fact; the bound is for what nobody thought of.
const PASS_COUNT_MAX: usize = 16 * CHILD_COUNT_MAX;

/// The whole of what is decided.
pub struct Supervisor {
    /// By `ChildId`; what lies beyond its end is free. Its memory is reserved once, for the full
    /// capacity, and taken from the system slot by slot as programs come: an array would cost a board
    /// with ten programs the pages of 128.
    children: Vec<Child>,
    jitter: Jitter,
    watch: Option<Watch>,
    /// Whether everything is to be down.
    halt: Halt,
    finished: bool,
    /// A fact or an order came in that may call for more than waiting.
    changed: bool,
    /// Nothing is to be done before this time, unless something changed.
    wake: Instant,
}

impl Supervisor {
    /// Without children. The seed spreads the starts of children that failed together.
    pub fn new(seed: u64) -> Self {
        Supervisor {
            children: Vec::with_capacity(CHILD_COUNT_MAX),
            jitter: Jitter(seed),
            watch: None,
            halt: Halt::No,
            finished: false,
            changed: false,
            wake: Instant::NEVER,
        }
    }

    /// Feeds the hardware watchdog every `interval` from now on; `None`: never (as at first). The
    /// guard is taken to have echoed just now.
    pub fn set_watchdog(&mut self, now: Instant, interval: Option<Millis>) {
        self.watch = interval.map(|interval| Watch::new(now, interval));
        self.changed = true;
    }

    /// A new program, in a free slot (else nothing happens); started if its rules say so.
    pub fn install(&mut self, now: Instant, child: ChildId, rules: Rules) {
        let Some(slot) = self.free_slot(child) else { return };
        slot.install(now, rules);
        self.changed = true;
    }

    /// Other rules for the same program, which goes on as it is.
    pub fn amend(&mut self, child: ChildId, rules: Rules) {
        if let Some(slot) = self.slot(child) {
            slot.rules = rules;
            self.changed = true;
        }
    }

    /// The program left the configuration: down in order, then its slot is free.
    pub fn retire(&mut self, now: Instant, child: ChildId) {
        if let Some(slot) = self.slot(child) {
            slot.order(now, Order::Stop);
            slot.retiring = true;
            self.changed = true;
        }
    }

    /// Whether a program can be installed in this slot.
    pub fn is_free(&self, child: ChildId) -> bool {
        child.index() < CHILD_COUNT_MAX && self.children.get(child.index()).is_none_or(Child::is_free)
    }

    /// A program as a former supervisor left it: it goes on, its deadlines run in full again, and
    /// every order that was given and not confirmed is given again. Into a free slot, else nothing
    /// happens. The record of a free slot leaves it free (the rules are not looked at) and lets its
    /// numbers go on. A record that was never written is a new program; one that cannot be read means
    /// that anything may be alive: it is killed, made safe, and started again.
    pub fn adopt(&mut self, now: Instant, child: ChildId, rules: Rules, saved: Saved) {
        let Some(slot) = self.free_slot(child) else { return };
        slot.install(now, rules);
        slot.adopt(now, &saved);
        self.changed = true;
    }

    /// A child's state for the supervisor that may come after this one. To be kept before the
    /// orders of a `decide` are performed.
    pub fn save(&self, child: ChildId) -> Saved {
        self.children.get(child.index()).map_or([0; SAVED_WORDS], Child::save)
    }

    /// Takes in a fact. What follows from it is said by the next `decide`.
    pub fn observe(&mut self, now: Instant, event: Event) {
        let child = match event {
            Event::StopOrdered => return self.halt(Halt::Closing),
            Event::GateClosed => return self.halt(Halt::Gate),
            Event::GateOpened => return self.halt(Halt::No),
            Event::GuardEchoed => {
                if let Some(watch) = &mut self.watch {
                    watch.echoed(now);
                }
                return;
            }
            Event::Ordered { child, order } => return self.order(now, child, order),
            Event::Spawned { child, .. }
            | Event::SpawnFailed { child, .. }
            | Event::ReadyReported { child, .. }
            | Event::Beat { child, .. }
            | Event::Hung { child, .. }
            | Event::HeartbeatChanged { child, .. }
            | Event::DeadlineExtended { child, .. }
            | Event::LeaveAnnounced { child, .. }
            | Event::CheckFailed { child, .. }
            | Event::Exited { child, .. }
            | Event::TreeEmptied { child, .. }
            | Event::OutputsConfirmed { child, .. }
            | Event::HookFinished { child, .. } => child,
        };
        let Some(slot) = self.children.get_mut(child.index()).filter(|slot| !slot.is_free()) else { return };
        slot.observe(now, &event, &mut self.jitter);
        // A beat only moves a deadline further away: its cost must not depend on the others.
        self.changed |= !matches!(event, Event::Beat { .. });
    }

    /// A child's main process is dead, and how it ended comes later, as `Event::Exited`. Its outputs do not
    /// wait for that, nor for other facts: the order to force them, to be saved and performed at once.
    pub fn died(&mut self, now: Instant, child: ChildId, generation: Generation) -> Option<Action> {
        let slot = self.children.get_mut(child.index()).filter(|slot| slot.generation == generation.0)?;
        slot.died(now);
        self.changed = true;
        slot.force(child, now)
    }

    /// The first attempt to force a child's outputs that counts, and whether one proves anything now: nobody
    /// is alive who may write.
    pub fn proof(&self, child: ChildId) -> (u32, bool) {
        let slot = self.children.get(child.index());
        slot.map_or((0, false), |slot| (slot.outputs.counts_from, !slot.may_write()))
    }

    /// Nothing takes back that everything is ordered down.
    fn halt(&mut self, halt: Halt) {
        if self.halt != Halt::Closing {
            self.halt = halt;
            self.changed = true;
        }
    }

    fn order(&mut self, now: Instant, child: ChildId, order: Order) {
        let Some(slot) = self.slot(child).filter(|slot| !slot.retiring) else { return };
        slot.order(now, order);
        self.changed = true;
        if matches!(order, Order::Start | Order::Once | Order::Restart) {
            self.want_required(child);
        }
    }

    /// What it requires is wanted too, and what that requires.
    fn want_required(&mut self, child: ChildId) {
        let (mut wanted, mut open) = (ChildSet::EMPTY, ChildSet::EMPTY);
        wanted.insert(child);
        open.insert(child);
        while let Some(next) = open.iter().next() {
            open.remove(next);
            let Some(requires) = self.slot(next).map(|slot| slot.rules.requires) else { continue };
            for required in requires.iter().filter(|required| !wanted.contains(*required)) {
                open.insert(required);
                if let Some(slot) = self.slot(required).filter(|slot| !slot.retiring) {
                    slot.want(false);
                }
            }
            wanted.merge(&requires);
        }
    }

    /// Every order that is due. Clears the list first; a second call without a new fact or a later
    /// time leaves it empty.
    pub fn decide(&mut self, now: Instant, actions: &mut Actions) {
        actions.clear();
        if !self.changed && !self.wake.is_due(now) {
            return;
        }
        self.settle(now);
        self.give_orders(now, actions);
        self.feed(now, actions);
        if self.halt == Halt::Closing && !self.finished && self.all_down() {
            self.finished = true;
            push(actions, Action::Finish);
        }
        let (mut wake, mut in_danger) = (Instant::NEVER, false);
        for child in &self.children {
            wake = wake.min(child.wake(now));
            in_danger |= child.is_in_danger();
        }
        self.wake = self.watch.as_ref().map_or(wake, |watch| wake.min(watch.deadline()));
        // Outputs in danger are forced at every wake-up, whatever it was for.
        self.changed = in_danger;
    }

    /// Lets every child go as far as it can at this time.
    fn settle(&mut self, now: Instant) {
        for _ in 0..PASS_COUNT_MAX {
            let view = View::of(&self.children, self.halt);
            let mut moved = false;
            for (index, child) in self.children.iter_mut().enumerate() {
                if !child.is_free() {
                    let place = view.place(ChildId(index as u16), child);
                    moved |= child.step(now, &place, &mut self.jitter);
                }
            }
            if !moved {
                break;
            }
        }
        for child in self.children.iter_mut() {
            let state = child.state();
            if state != child.shown {
                (child.shown, child.since) = (state, now);
            }
        }
    }

    /// Forces come first, for all children: that is what the time of a failure is measured by.
    fn give_orders(&mut self, now: Instant, actions: &mut Actions) {
        for (index, child) in self.children.iter_mut().enumerate() {
            if !child.is_pausing()
                && let Some(force) = child.force(ChildId(index as u16), now)
            {
                push(actions, force);
            }
        }
        for (index, child) in self.children.iter_mut().enumerate() {
            let id = ChildId(index as u16);
            for action in child.take_orders(id).into_iter().flatten() {
                push(actions, action);
            }
            if let Some(force) = child.force(id, now) {
                push(actions, force);
            }
        }
    }

    /// The feed is a conclusion: from every output, and from the guard's echo.
    fn feed(&mut self, now: Instant, actions: &mut Actions) {
        let overdue = self.children.iter().any(|child| child.is_overdue(now));
        if let Some(watch) = &mut self.watch
            && watch.is_due(now)
            && watch.judge(now, overdue)
        {
            push(actions, Action::Feed);
        }
    }

    /// Why a feed that was due now would be withheld; `None`: it would be given, or there is none.
    pub fn withheld(&self, now: Instant) -> Option<Withheld> {
        let watch = self.watch.as_ref()?;
        match self.children.iter().position(|child| child.is_overdue(now)) {
            Some(index) => Some(Withheld::Outputs(ChildId(index as u16))),
            None => (!watch.is_answered(now)).then_some(Withheld::Guard),
        }
    }

    /// When `decide` is to be called at the latest; `None`: when the next fact comes.
    pub fn next_deadline(&self) -> Option<Instant> {
        Some(self.wake).filter(|wake| *wake != Instant::NEVER)
    }

    /// What is known of a child; `None` for a free slot.
    pub fn status(&self, child: ChildId) -> Option<Status> {
        self.children.get(child.index()).filter(|slot| !slot.is_free()).map(Child::status)
    }

    /// Nothing is alive, no hook runs, and no output is waited for.
    pub fn all_down(&self) -> bool {
        self.children.iter().all(Child::is_down)
    }

    /// A slot that is free, made where there was none yet.
    fn free_slot(&mut self, child: ChildId) -> Option<&mut Child> {
        if !self.is_free(child) {
            return None;
        }
        let used = self.children.len().max(child.index() + 1);
        self.children.resize(used, Child::FREE);
        self.children.get_mut(child.index())
    }

    fn slot(&mut self, child: ChildId) -> Option<&mut Child> {
        self.children.get_mut(child.index()).filter(|slot| !slot.is_free())
    }
}

impl Child {
    fn status(&self) -> Status {
        let judged = self.rules.heartbeat.is_some() && matches!(self.phase, Phase::Running { .. });
        Status {
            state: self.state(),
            generation: Generation(self.generation),
            since: self.since,
            restarts: self.spawn_count.saturating_sub(1),
            failures: self.series.failures,
            next_start: match self.phase {
                Phase::Down(Rest::Backoff { until }) => Some(until),
                _ => None,
            },
            last_beat: judged.then_some(self.last_beat),
            beat_limit: self.beat_limit.or(self.rules.heartbeat).unwrap_or_default(),
            beat_due: if judged { self.heartbeat_deadline() } else { Instant::NEVER },
            last_end: self.last_end,
            outputs_safe: !self.owns_outputs() || self.outputs.safe,
            wanted: self.wanted,
        }
    }
}

fn push(actions: &mut Actions, action: Action) {
    let pushed = actions.push(action);
    debug_assert!(pushed.is_ok(), "the list has room for every order of every child");
}

//! What must hold at every moment, checked from the outside: from the facts that were delivered,
//! the actions that came back, and the real state of the simulated board.
//!
//! Must never ask the core why; only its reports and its actions count.

use std::collections::BTreeMap;

use multusd::limits::{
    ACTION_COUNT_MAX, ACTIONS_PER_CHILD_MAX, ECHO_INTERVALS_MAX, FORCE_AGAIN_MS, RESTART_PAUSE_MS_MIN,
};
use multusd::supervisor::{
    Action, ChildId, End, Event, Exit, Generation, Kind, Order, Ready, Rules, SignalKind, State, Status,
    Supervisor,
};
use multusd::time::{Instant, Millis};

use crate::board::{Behaviour, Dice, HookLuck, Kid, ms};

/// How often each fault was injected and each state, end and action was seen.
#[derive(Default)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    pub fn add(&mut self, name: &'static str) {
        *self.0.entry(name).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Counts) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// An incarnation that may go wrong in every way.
    pub fn wild_behaviour(&mut self, dice: &mut Dice, rules: &Rules) -> Behaviour {
        let mut wild = Behaviour { ready_after: 1 + dice.roll(200), ..Behaviour::GOOD };
        if rules.kind == Kind::Oneshot {
            wild.dies_after = Some(10 + dice.roll(500));
        }
        if dice.one_in(4) {
            self.add("fault: crash");
            wild.dies_after = Some(dice.roll(6000));
            wild.exit = if dice.one_in(2) { Exit::Signal(11) } else { Exit::Code(dice.roll(3) as u8) };
        }
        if dice.one_in(6) {
            self.add("fault: hang");
            wild.hangs_after = Some(dice.roll(4000));
        }
        if dice.one_in(5) {
            self.add("fault: deaf to the stop signal");
            wild.deaf = true;
        }
        if dice.one_in(8) {
            self.add("fault: state D");
            wild.undying = dice.roll(4000);
            wild.hangs_after = Some(dice.roll(3000));
        }
        if dice.one_in(10) {
            self.add("fault: spawn fails");
            wild.spawn_fails = true;
        }
        if dice.one_in(3) {
            self.add("fault: writes after the force");
            wild.writes_on = true;
            wild.undying += dice.roll(30);
        }
        if dice.one_in(5) {
            self.add("fault: leaves descendants");
            wild.strays = true;
        }
        if dice.one_in(10) {
            self.add("fault: launcher fails");
            wild.launcher_exit = Exit::Code(1);
        }
        if dice.one_in(12) {
            self.add("fault: never ready");
            wild.ready_after = 1_000_000;
        }
        wild
    }

    pub fn wild_hook(&mut self, dice: &mut Dice) -> (HookLuck, u64) {
        let luck = match dice.roll(10) {
            0 => HookLuck::Hang,
            1 | 2 => HookLuck::Fail,
            _ => HookLuck::Succeed,
        };
        match luck {
            HookLuck::Hang => self.add("fault: hook hangs"),
            HookLuck::Fail => self.add("fault: hook fails"),
            HookLuck::Succeed => {}
        }
        (luck, dice.roll(100))
    }
}

/// What the oracle remembers of one child.
#[derive(Clone, Copy, Default)]
struct Seen {
    before: Option<Status>,
    ran: bool,
    spawn: Generation,
    spawned_at: Instant,
    danger: Option<Instant>,
    forced_at: Instant,
    attempt: u32,
    floor: u32,
    confirmed: bool,
    beat: Instant,
    extended: Instant,
    extended_at: Instant,
    paused_at: Instant,
    amended: Option<Instant>,
    exited: bool,
    /// It said itself that it hangs.
    said_hung: Generation,
    /// It said that it ends: which incarnation, when, and when it was asked to besides.
    leaving: Option<(Generation, Instant, Option<Instant>)>,
    /// The heartbeat time that an incarnation asked for.
    beat_limit: Option<(Generation, Millis)>,
    earliest_start: Instant,
    rung: u32,
    /// Ordered to restart, and not started since: whatever its back-off says.
    bounced: bool,
}

/// The judge of one script.
pub struct Oracle {
    seed: u64,
    now: Instant,
    seen: Vec<Seen>,
    interval: Option<Millis>,
    echo: Instant,
    fed_or_withheld: Instant,
    pub feed_count: u64,
    pub finish_count: u64,
    /// Nothing may run now.
    pub gate_closed: bool,
    pub counts: Counts,
}

impl Oracle {
    pub fn new(seed: u64) -> Oracle {
        Oracle {
            seed,
            now: Instant(0),
            seen: Vec::new(),
            interval: None,
            echo: Instant(0),
            fed_or_withheld: Instant(0),
            feed_count: 0,
            finish_count: 0,
            gate_closed: false,
            counts: Counts::default(),
        }
    }

    #[track_caller]
    pub fn check(&self, holds: bool, sentence: &str) {
        assert!(holds, "script {}, at {} ms: violated: {sentence}", self.seed, self.now.0 / 1_000_000);
    }

    #[track_caller]
    fn check_child(&self, holds: bool, slot: usize, sentence: &str) {
        assert!(
            holds,
            "script {}, at {} ms, child {slot}: violated: {sentence}",
            self.seed,
            self.now.0 / 1_000_000
        );
    }

    pub fn set_watchdog(&mut self, now: Instant, interval: Option<Millis>) {
        (self.interval, self.echo, self.fed_or_withheld) = (interval, now, now);
    }

    pub fn install(&mut self, id: ChildId, owner: bool) {
        while self.seen.len() <= id.index() {
            self.seen.push(Seen { rung: 1, ..Seen::default() });
        }
        let attempt = self.seen[id.index()].attempt;
        let spawn = self.seen[id.index()].spawn;
        self.seen[id.index()] =
            Seen { rung: 1, attempt, floor: attempt, spawn, confirmed: !owner, ..Seen::default() };
    }

    pub fn amended(&mut self, id: ChildId, now: Instant) {
        self.seen[id.index()].amended = Some(now);
    }

    pub fn adopted(&mut self, now: Instant) {
        self.echo = now;
        for seen in &mut self.seen {
            seen.beat = now;
            seen.leaving = seen.leaving.map(|(generation, ..)| (generation, now, None));
            seen.before = None;
        }
    }

    /// Whoever said that it ends has its stop time, and without outputs and heartbeat the ladder after that.
    fn leave_due(seen: &Seen, status: &Status, rules: &Rules, now: Instant) -> Option<bool> {
        let (_, said, asked) = seen.leaving.filter(|(generation, ..)| *generation == status.generation)?;
        let hard = rules.heartbeat.is_some() || rules.output_limit.is_some();
        let since = asked.filter(|asked| !hard && *asked >= status.since).unwrap_or(said.max(status.since));
        Some((since + rules.stop_timeout).max(seen.extended).is_due(now))
    }

    fn heartbeat_due(seen: &Seen, status: &Status, rules: &Rules, now: Instant) -> bool {
        if status.state == State::Running
            && let Some(due) = Self::leave_due(seen, status, rules, now)
        {
            return due;
        }
        let Some(heartbeat) = rules.heartbeat.filter(|_| status.state == State::Running) else {
            return false;
        };
        let asked = seen.beat_limit.filter(|(generation, _)| *generation == status.generation);
        let heartbeat = asked.map_or(heartbeat, |(_, limit)| limit);
        (seen.beat.max(status.since) + heartbeat).max(seen.extended).is_due(now)
    }

    fn must_be_forced(seen: &Seen, status: &Status) -> bool {
        use State::{Backoff, Exited, Fatal, Held, Stopped};
        let dead = matches!(status.state, Backoff | Exited | Fatal | Held | Stopped);
        dead && seen.ran && !status.outputs_safe
    }

    /// The supervisor woke up. If nobody kept it from waking, nothing may be overdue.
    pub fn before(&mut self, now: Instant, late: bool, core: &Supervisor, kids: &[Option<Kid>]) {
        self.now = now;
        for (slot, kid) in kids.iter().enumerate() {
            let status = core.status(ChildId(slot as u16));
            self.seen[slot].before = status;
            let (Some(kid), Some(status)) = (kid, status) else { continue };
            let seen = self.seen[slot];
            if late || seen.amended == Some(now) || now == Instant::NEVER {
                continue;
            }
            let just_before = Instant(now.0.saturating_sub(1));
            let silent = Self::heartbeat_due(&seen, &status, &kid.rules, just_before);
            self.check_child(!silent, slot, "3: a silent child is judged when its time is over");
            let forced = seen.forced_at + ms(FORCE_AGAIN_MS) >= now;
            self.check_child(
                forced || !Self::must_be_forced(&seen, &status),
                slot,
                "3: unconfirmed outputs are forced again in time",
            );
        }
    }

    pub fn observed(&mut self, now: Instant, event: &Event, kids: &[Option<Kid>]) {
        match *event {
            Event::GuardEchoed => self.echo = now,
            Event::Hung { child, generation } if self.is_current(child, generation) => {
                self.seen[child.index()].said_hung = generation;
            }
            Event::HeartbeatChanged { child, generation, limit } if self.is_current(child, generation) => {
                self.seen[child.index()].beat_limit = Some((generation, limit));
            }
            Event::LeaveAnnounced { child, generation } if self.is_current(child, generation) => {
                let leaving = &mut self.seen[child.index()].leaving;
                *leaving =
                    leaving.filter(|(before, ..)| *before == generation).or(Some((generation, now, None)));
            }
            Event::GateClosed => self.gate_closed = true,
            Event::GateOpened => self.gate_closed = false,
            Event::Beat { child, generation, .. } if self.is_current(child, generation) => {
                self.seen[child.index()].beat = now;
            }
            Event::DeadlineExtended { child, generation, until } if self.is_current(child, generation) => {
                let seen = &mut self.seen[child.index()];
                seen.extended = seen.extended.max(until);
                seen.extended_at = now;
            }
            Event::Ordered { child, order: Order::Pause } => {
                // One on its way down is not paused, and so not resumed either.
                let pausable =
                    |status: Status| matches!(status.state, State::Starting | State::Running | State::Paused);
                if let Some(seen) = self.seen.get_mut(child.index())
                    && seen.before.is_some_and(pausable)
                {
                    seen.paused_at = now;
                }
            }
            Event::Ordered { child, order: Order::Resume } => {
                if let Some(seen) = self.seen.get_mut(child.index())
                    && (seen.paused_at == now
                        || seen.before.is_some_and(|status| status.state == State::Paused))
                {
                    seen.beat = now;
                    seen.danger = None; // it drives them again, if only to crash at once
                }
            }
            Event::Exited { child, generation, .. } if self.is_current(child, generation) => {
                self.seen[child.index()].exited = true;
            }
            Event::TreeEmptied { child, .. } | Event::SpawnFailed { child, .. } => {
                let seen = &mut self.seen[child.index()];
                (seen.floor, seen.confirmed) = (seen.attempt, false);
            }
            Event::OutputsConfirmed { child, attempt } => {
                let seen = &mut self.seen[child.index()];
                seen.confirmed |= attempt > seen.floor && attempt <= seen.attempt;
            }
            Event::Ordered { child, order: Order::Start | Order::Once | Order::Restart } => {
                if let Event::Ordered { order: Order::Restart, .. } = *event
                    && let Some(seen) = self.seen.get_mut(child.index())
                {
                    seen.bounced = true;
                }
                // What it requires may be forgiven too.
                let kid = kids.get(child.index()).and_then(Option::as_ref);
                let alone = kid.is_some_and(|kid| kid.rules.requires.is_empty());
                for (slot, seen) in self.seen.iter_mut().enumerate() {
                    if slot == child.index() || !alone {
                        (seen.earliest_start, seen.rung) = (Instant(0), 1);
                    }
                }
            }
            _ => {}
        }
    }

    fn is_current(&self, child: ChildId, generation: Generation) -> bool {
        let seen = self.seen.get(child.index());
        seen.and_then(|seen| seen.before).is_some_and(|status| status.generation == generation)
    }

    pub fn after(&mut self, now: Instant, core: &Supervisor, kids: &[Option<Kid>], actions: &[Action]) {
        self.now = now;
        self.check_list(kids, actions);
        for action in actions {
            self.check_action(now, core, kids, action);
        }
        for (slot, kid) in kids.iter().enumerate() {
            match (kid, core.status(ChildId(slot as u16))) {
                (Some(kid), Some(status)) => self.check_state(now, slot, kid, &status, actions),
                _ => self.seen[slot].danger = None,
            }
            self.seen[slot].exited = false;
        }
        self.check_feed(now, kids, actions);
    }

    /// Invariant 7, and the order of forces and kills.
    fn check_list(&self, kids: &[Option<Kid>], actions: &[Action]) {
        self.check(actions.len() <= ACTION_COUNT_MAX, "7: the list holds every action");
        let mut per_child = vec![(0, false); kids.len()];
        for (index, action) in actions.iter().enumerate() {
            let Some(child) = child_of(action) else { continue };
            let (count, forced) = &mut per_child[child.index()];
            *count += 1;
            self.check(*count <= ACTIONS_PER_CHILD_MAX, "7: a child has a bounded number of actions");
            let twice = actions.len() < 40 && actions[..index].contains(action);
            self.check(!twice, "7: no action is given twice at once");
            match action {
                Action::Force { .. } => {
                    self.check(!*forced, "7: outputs are forced once at a time");
                    *forced = true;
                }
                Action::KillTree { .. } => {
                    let owner =
                        kids[child.index()].as_ref().is_some_and(|kid| kid.rules.output_limit.is_some());
                    self.check(*forced || !owner, "3: outputs are forced before their owner is killed");
                }
                _ => {}
            }
        }
    }

    /// A force that came before any other decision.
    pub fn forced_early(&mut self, now: Instant, core: &Supervisor, kids: &[Option<Kid>], action: &Action) {
        self.check(matches!(action, Action::Force { .. }), "3: only a force comes before its time");
        self.check_action(now, core, kids, action);
        self.counts.add("action: force before the exit");
    }

    fn check_action(&mut self, now: Instant, core: &Supervisor, kids: &[Option<Kid>], action: &Action) {
        match *action {
            Action::Force { child, attempt, .. } => {
                let seen = &mut self.seen[child.index()];
                seen.attempt = attempt;
                seen.forced_at = now;
                seen.danger.get_or_insert(now);
                self.counts.add("action: force");
            }
            Action::Spawn { child, generation } => self.check_spawn(now, core, kids, child, generation),
            Action::Signal { child, signal, .. } => {
                if signal == SignalKind::Resume {
                    self.seen[child.index()].danger = None;
                }
                let status = core.status(child);
                if signal == SignalKind::Stop
                    && status.is_some_and(|status| status.state == State::Running)
                    && let Some((_, _, asked)) = &mut self.seen[child.index()].leaving
                {
                    *asked = Some(now);
                    self.counts.add("leaving: asked");
                }
                self.counts.add(match signal {
                    SignalKind::Stop => "action: stop signal",
                    SignalKind::Pause => "action: pause signal",
                    SignalKind::Resume => "action: resume signal",
                });
            }
            Action::KillTree { .. } => self.counts.add("action: kill tree"),
            Action::Run { child, hook, .. } => {
                if hook == multusd::supervisor::Hook::OnStart {
                    self.check_pause(now, core, child);
                }
                self.counts.add(match hook {
                    multusd::supervisor::Hook::OnStart => "hook: on_start",
                    multusd::supervisor::Hook::ReadyCheck => "hook: ready_check",
                    multusd::supervisor::Hook::Check => "hook: check",
                    multusd::supervisor::Hook::FindMain => "hook: find main",
                    multusd::supervisor::Hook::StopCommand => "hook: stop_command",
                    multusd::supervisor::Hook::OnStop => "hook: on_stop",
                    multusd::supervisor::Hook::OnFailure => "hook: on_failure",
                })
            }
            Action::Serve { child, generation } => {
                self.counts.add("action: serve");
                let status = core.status(child);
                let ready = status
                    .is_some_and(|status| status.state == State::Running && status.generation == generation);
                let owner = kids[child.index()].as_ref().is_some_and(|kid| kid.rules.output_limit.is_some());
                self.check_child(ready && owner, child.index(), "only a ready owner's outputs go to running");
            }
            Action::EndHook { .. } => self.counts.add("action: end hook"),
            Action::Feed => {
                self.feed_count += 1;
                self.counts.add("action: feed");
            }
            Action::Finish => {
                self.finish_count += 1;
                self.check(core.all_down(), "finish only when all are down");
            }
        }
    }

    fn check_spawn(
        &mut self,
        now: Instant,
        core: &Supervisor,
        kids: &[Option<Kid>],
        child: ChildId,
        generation: Generation,
    ) {
        let slot = child.index();
        let Some(kid) = &kids[slot] else { panic!("spawn of nothing") };
        let seen = self.seen[slot];
        if seen.spawn == generation {
            return; // given again after an adoption
        }
        self.counts.add("action: spawn");
        self.check_child(!self.gate_closed, slot, "nothing is started while the gate is closed");
        self.check_child(generation > seen.spawn, slot, "2: generations count up");
        self.check_child(kid.tree.is_none(), slot, "2: never two processes for one child");
        if kid.rules.output_limit.is_some() {
            self.check_child(seen.confirmed, slot, "1: outputs are confirmed safe before a spawn");
            self.check_child(kid.safe, slot, "1: outputs are really safe at a spawn");
        }
        self.check_pause(now, core, child);
        for required in kid.rules.requires.iter() {
            let before = self.seen.get(required.index()).and_then(|seen| seen.before);
            let ready = [before, core.status(required)].into_iter().flatten().any(|status| {
                matches!(status.state, State::Running) || status.state == State::Exited && status.wanted
            });
            self.check_child(ready, slot, "a child starts when what it requires is ready");
        }
        let seen = &mut self.seen[slot];
        (seen.spawn, seen.ran, seen.bounced, seen.danger) = (generation, true, false, None);
        seen.spawned_at = now;
        (seen.floor, seen.confirmed, seen.extended) = (seen.attempt, false, Instant(0));
    }

    /// Invariant 5, for a spawn and for the hook that goes before it.
    fn check_pause(&self, now: Instant, core: &Supervisor, child: ChildId) {
        let (slot, seen) = (child.index(), self.seen[child.index()]);
        if seen.bounced {
            return;
        }
        self.check_child(seen.earliest_start <= now, slot, "5: the back-off is waited for");
        if let (Some(before), Some(after)) = (seen.before, core.status(child)) {
            let again = is_no_start(after.last_end) && after.failures == before.failures + 1;
            self.check_child(!again, slot, "5: a failed start is not tried again at the same moment");
        }
    }

    fn check_state(&mut self, now: Instant, slot: usize, kid: &Kid, status: &Status, actions: &[Action]) {
        let mut seen = self.seen[slot];
        let before = seen.before;
        if status.outputs_safe {
            seen.danger = None;
        }
        self.check_child(
            !Self::heartbeat_due(&seen, status, &kid.rules, now),
            slot,
            "3: a silent child is not left running",
        );
        let (child, generation) = (ChildId(slot as u16), status.generation);
        let killed = actions.contains(&Action::KillTree { child, generation });
        let live = before.is_some_and(|before| matches!(before.state, State::Running | State::Paused));
        self.check_child(killed || !(live && seen.exited), slot, "3: what a dead child leaves is killed");
        let dead = matches!(status.state, State::Backoff | State::Exited | State::Fatal);
        let hung = dead && status.last_end == Some(End::Hung);
        let newly = live && hung && !seen.exited;
        self.check_child(killed || !newly, slot, "3: a silent child is ordered dead");
        let forced = seen.forced_at == now || !Self::must_be_forced(&seen, status);
        self.check_child(forced, slot, "3: unconfirmed outputs are forced at every wake-up");
        self.check_health(slot, kid, status, before);
        if let Some(before) = before.filter(|before| before.state != status.state) {
            self.counts.add(name_of(status.state));
            if let Some(end) = status.last_end {
                self.counts.add(name_of_end(end));
            }
            let ready = before.state == State::Starting && status.state == State::Running;
            if ready && seen.extended_at < now {
                seen.extended = Instant(0);
            }
            if status.state == State::Backoff {
                let proven =
                    before.state == State::Running && now.since(before.since) >= kid.rules.health_time;
                seen.rung = if proven { 0 } else { seen.rung };
                let doubled = match seen.rung {
                    0 => 0,
                    rung => kid.rules.delay.0 << (rung - 1).min(40),
                };
                let at_once = is_no_start(status.last_end) || seen.ran && seen.spawned_at == now;
                let least = if at_once { RESTART_PAUSE_MS_MIN } else { 0 };
                let pause = doubled.min(kid.rules.delay_max.0) * 3 / 4;
                seen.earliest_start = now + ms(pause.max(least));
                seen.rung += 1;
            } else if matches!(status.state, State::Exited | State::Fatal) {
                (seen.earliest_start, seen.rung) = (Instant(0), 1);
            }
        }
        self.seen[slot] = seen;
    }

    /// Nobody healthy is killed, however late the supervisor was.
    fn check_health(&self, slot: usize, kid: &Kid, status: &Status, before: Option<Status>) {
        let Some(tree) = kid.tree.filter(|tree| tree.generation == status.generation.0) else { return };
        let was_up = before.is_some_and(|before| {
            matches!(before.state, State::Running | State::Starting) && before.generation == status.generation
        });
        let judged = was_up && matches!(status.state, State::Backoff | State::Exited | State::Fatal);
        let simple = kid.rules.kind == Kind::Simple && !matches!(kid.rules.ready, Ready::Check(_));
        let healthy = simple && tree.main && !tree.hung && tree.behaviour.ready_after <= 300;
        let silent = matches!(status.last_end, Some(End::Hung | End::StartTimedOut))
            && self.seen[slot].said_hung != status.generation
            && self.seen[slot].leaving.is_none_or(|(generation, ..)| generation != status.generation);
        self.check_child(!(judged && healthy && silent), slot, "no healthy child is killed");
    }

    fn check_feed(&mut self, now: Instant, kids: &[Option<Kid>], actions: &[Action]) {
        let fed = actions.contains(&Action::Feed);
        let Some(interval) = self.interval else { return self.check(!fed, "4: no watchdog, no feed") };
        let overdue = self.seen.iter().zip(kids).any(|(seen, kid)| {
            let limit = kid.as_ref().and_then(|kid| kid.rules.output_limit);
            seen.danger.zip(limit).is_some_and(|(since, limit)| (since + limit).is_due(now))
        });
        let stale = now > self.echo + Millis(interval.0 * ECHO_INTERVALS_MAX);
        self.check(!(fed && overdue), "4: no feed while outputs are unconfirmed past their limit");
        self.check(!(fed && stale), "4: no feed without a fresh echo of the guard");
        if overdue {
            self.counts.add("feed withheld: outputs");
        }
        if stale {
            self.counts.add("feed withheld: guard");
        }
        if fed || overdue || stale {
            self.fed_or_withheld = now;
        } else {
            let due = (self.fed_or_withheld + interval).is_due(now);
            self.check(!due, "4: the watchdog is fed while nothing forbids it");
        }
    }
}

/// No process of its own came of the start.
fn is_no_start(end: Option<End>) -> bool {
    matches!(end, Some(End::NotSpawned | End::HookFailed))
}

fn child_of(action: &Action) -> Option<ChildId> {
    match *action {
        Action::Force { child, .. }
        | Action::Spawn { child, .. }
        | Action::Serve { child, .. }
        | Action::Signal { child, .. }
        | Action::KillTree { child, .. }
        | Action::Run { child, .. }
        | Action::EndHook { child, .. } => Some(child),
        Action::Feed | Action::Finish => None,
    }
}

fn name_of(state: State) -> &'static str {
    match state {
        State::Stopped => "state: stopped",
        State::Starting => "state: starting",
        State::Running => "state: running",
        State::Backoff => "state: backoff",
        State::Stopping => "state: stopping",
        State::Exited => "state: exited",
        State::Fatal => "state: fatal",
        State::Paused => "state: paused",
        State::Held => "state: held",
    }
}

fn name_of_end(end: End) -> &'static str {
    match end {
        End::Exited(_) => "end: exited",
        End::Stopped(_) => "end: stopped",
        End::Hung => "end: hung",
        End::StartTimedOut => "end: start timed out",
        End::CheckFailed => "end: check failed",
        End::NotSpawned => "end: not spawned",
        End::HookFailed => "end: hook failed",
    }
}

//! A simulated board: processes, outputs, hooks, a guard and a clock, around the real core. It does
//! what a daemon and a kernel do with each action, well or badly.
//!
//! Must never decide anything for the core, and must keep the core honest: everything the core does
//! goes past the `oracle`.

use std::collections::{BTreeMap, VecDeque};

use multusd::supervisor::{
    Action, Actions, ChildId, Event, Exit, Generation, Hook, HookTimes, Kind, Order, Ready, Restart, Rules,
    SignalKind, Status, Supervisor,
};
use multusd::time::{Instant, Millis};

use crate::oracle::Oracle;

/// Numbers by seed; the same seed is the same script.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
    pub fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// How the next incarnation of a child behaves. Times are milliseconds after its birth.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    pub ready_after: u64,
    pub dies_after: Option<u64>,
    pub exit: Exit,
    pub hangs_after: Option<u64>,
    pub beat_every: u64,
    /// Ignores the stop signal.
    pub deaf: bool,
    /// How long SIGKILL takes: state D.
    pub undying: u64,
    pub spawn_fails: bool,
    /// Writes its output until its last breath.
    pub writes_on: bool,
    /// Leaves descendants behind.
    pub strays: bool,
    /// How the process that was spawned returns, of a forking child.
    pub launcher_exit: Exit,
}

impl Behaviour {
    pub const GOOD: Behaviour = Behaviour {
        ready_after: 20,
        dies_after: None,
        exit: Exit::Code(0),
        hangs_after: None,
        beat_every: 100,
        deaf: false,
        undying: 0,
        spawn_fails: false,
        writes_on: false,
        strays: false,
        launcher_exit: Exit::Code(0),
    };
}

/// How hooks of a child go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookLuck {
    Succeed,
    Fail,
    Hang,
}

/// Everything alive of one child.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    pub generation: u32,
    pub main: bool,
    pub stray: bool,
    pub paused: bool,
    pub stop_pending: bool,
    pub hung: bool,
    pub kill_ordered: bool,
    pub behaviour: Behaviour,
}

/// One child's part of the world.
#[derive(Clone, Debug)]
pub struct Kid {
    pub rules: Rules,
    pub behaviour: Behaviour,
    pub luck: HookLuck,
    pub hook_time: u64,
    pub tree: Option<Tree>,
    pub spawned: u32,
    pub hook: Option<(Hook, Generation, u64)>,
    pub last_hook: Option<(Hook, Generation)>,
    /// The real level of its outputs.
    pub safe: bool,
    /// Its outputs do not follow before this time.
    pub stuck_until: Instant,
}

impl Kid {
    fn new(rules: Rules) -> Kid {
        Kid {
            rules,
            behaviour: Behaviour::GOOD,
            luck: HookLuck::Succeed,
            hook_time: 5,
            tree: None,
            spawned: 0,
            hook: None,
            last_hook: None,
            safe: false,
            stuck_until: Instant(0),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Tell(Event),
    Ready,
    Beat,
    Hang,
    Write,
    Die(Exit),
    LauncherReturns,
    TreeDies,
    HookEnds { token: u64, success: bool },
}

/// When a supervisor is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Murder {
    BeforePerforming,
    AfterPerforming,
}

/// The board.
pub struct Board {
    pub now: Instant,
    pub core: Box<Supervisor>,
    pub kids: Vec<Option<Kid>>,
    pub dice: Dice,
    /// Whether incarnations, hooks and sleeps go wrong.
    pub wild: bool,
    pub oracle: Oracle,
    pub log: Vec<(Instant, Action)>,
    pub keep_log: bool,
    pub murder: Option<Murder>,
    pub guard_alive: bool,
    watchdog: Option<Millis>,
    closing: bool,
    /// Nothing may run now.
    pub gate_closed: bool,
    actions: Box<Actions>,
    world: BTreeMap<(u64, u64), (u16, u32, Deed)>,
    pending: VecDeque<Event>,
    sequence: u64,
    oversleep: u64,
}

pub const fn ms(milliseconds: u64) -> Millis {
    Millis(milliseconds)
}

/// The rules most tests start from: simple, ready by report, judged by heartbeat, one output.
pub fn rules() -> Rules {
    Rules {
        kind: Kind::Simple,
        ready: Ready::Report,
        autostart: true,
        restart: Restart::Always,
        expected: Default::default(),
        start_time: ms(10),
        retries: None,
        delay: ms(1000),
        delay_max: ms(8000),
        health_time: ms(5000),
        start_timeout: Some(ms(2000)),
        stop_timeout: ms(1000),
        hooks: HookTimes { ready_check: ms(500), ..Default::default() },
        heartbeat: Some(ms(300)),
        check: None,
        output_limit: Some(ms(500)),
        critical: false,
        after: Default::default(),
        requires: Default::default(),
        stops_after: Default::default(),
    }
}

impl Board {
    pub fn new(seed: u64, start: Instant) -> Board {
        Board {
            now: start,
            core: Box::new(Supervisor::new(seed)),
            kids: Vec::new(),
            dice: Dice(seed ^ 0x5bd1_e995),
            wild: false,
            oracle: Oracle::new(seed),
            log: Vec::new(),
            keep_log: false,
            murder: None,
            guard_alive: true,
            watchdog: None,
            closing: false,
            gate_closed: false,
            actions: Box::new(Actions::new()),
            world: BTreeMap::new(),
            pending: VecDeque::new(),
            sequence: 0,
            oversleep: 0,
        }
    }

    /// For known answers: boots ten seconds after the machine, and keeps the log.
    pub fn quiet() -> Board {
        let mut board = Board::new(1, Instant(10_000_000_000));
        board.keep_log = true;
        board
    }

    pub fn set_watchdog(&mut self, interval: Option<Millis>) {
        self.watchdog = interval;
        self.core.set_watchdog(self.now, interval);
        self.oracle.set_watchdog(self.now, interval);
        if let Some(interval) = interval {
            self.schedule(interval.0, 0, 0, Deed::Tell(Event::GuardEchoed));
        }
    }

    /// Installs a program in the next free slot.
    pub fn install(&mut self, rules: Rules) -> ChildId {
        let free = (0..self.kids.len()).find(|slot| self.kids[*slot].is_none());
        let slot = free.unwrap_or(self.kids.len());
        self.install_at(slot, rules)
    }

    pub fn install_at(&mut self, slot: usize, rules: Rules) -> ChildId {
        let id = ChildId(slot as u16);
        assert!(self.core.is_free(id));
        while self.kids.len() <= slot {
            self.kids.push(None);
        }
        self.kids[slot] = Some(Kid::new(rules));
        self.oracle.install(id, rules.output_limit.is_some());
        self.core.install(self.now, id, rules);
        id
    }

    pub fn amend(&mut self, id: ChildId, rules: Rules) {
        self.kid(id).rules = rules;
        self.core.amend(id, rules);
        self.oracle.amended(id, self.now);
    }

    pub fn retire(&mut self, id: ChildId) {
        self.core.retire(self.now, id);
    }

    pub fn kid(&mut self, id: ChildId) -> &mut Kid {
        self.kids[id.index()].as_mut().expect("installed")
    }

    pub fn status(&self, id: ChildId) -> Status {
        self.core.status(id).expect("installed")
    }

    /// A fact that reaches the supervisor at its next wake-up, now.
    pub fn tell(&mut self, event: Event) {
        self.pending.push_back(event);
    }

    pub fn order(&mut self, child: ChildId, order: Order) {
        self.tell(Event::Ordered { child, order });
    }

    pub fn stop_all(&mut self) {
        self.closing = true;
        self.tell(Event::StopOrdered);
    }

    /// The process of a child goes wrong now.
    pub fn crash(&mut self, id: ChildId, exit: Exit) {
        if let Some(tree) = self.kid(id).tree {
            self.schedule(0, id.0, tree.generation, Deed::Die(exit));
        }
    }

    pub fn hang(&mut self, id: ChildId) {
        if let Some(tree) = self.kid(id).tree {
            self.schedule(0, id.0, tree.generation, Deed::Hang);
        }
    }

    /// The supervisor gets no processor for this long after its next wake-up time.
    pub fn oversleep(&mut self, milliseconds: u64) {
        self.oversleep = milliseconds;
    }

    fn schedule(&mut self, after: u64, child: u16, generation: u32, deed: Deed) {
        self.sequence += 1;
        let at = self.now + ms(after);
        if at == Instant::NEVER {
            return; // after the end of time nothing happens
        }
        self.world.insert((at.0, self.sequence), (child, generation, deed));
    }

    pub fn run_for(&mut self, milliseconds: u64) {
        let end = self.now + ms(milliseconds);
        self.run_until(end);
    }

    pub fn run_until(&mut self, end: Instant) {
        self.wake(false);
        loop {
            let world = self.world.keys().next().map_or(Instant::NEVER, |key| Instant(key.0));
            let deadline = self.core.next_deadline().unwrap_or(Instant::NEVER);
            let next = world.min(deadline);
            if next > end || next == Instant::NEVER {
                break;
            }
            self.live_until(next.max(self.now));
            if self.pending.is_empty() && deadline > self.now {
                continue;
            }
            let late = core::mem::take(&mut self.oversleep);
            if late > 0 {
                self.live_until(self.now + ms(late));
            }
            self.wake(late > 0);
        }
        self.now = self.now.max(end);
    }

    /// Lets the world go on without the supervisor.
    fn live_until(&mut self, until: Instant) {
        while let Some(entry) = self.world.first_entry() {
            let (at, _) = *entry.key();
            if at > until.0 {
                break;
            }
            let (child, generation, deed) = entry.remove();
            self.now = self.now.max(Instant(at));
            self.happen(ChildId(child), generation, deed);
        }
        self.now = self.now.max(until);
    }

    fn deliver(&mut self, event: Event) {
        if event == Event::GuardEchoed
            && let Some(interval) = self.watchdog
        {
            self.schedule(interval.0, 0, 0, Deed::Tell(event));
            if !self.guard_alive {
                return;
            }
        }
        self.pending.push_back(event);
    }

    fn happen(&mut self, id: ChildId, generation: u32, deed: Deed) {
        if let Deed::Tell(event) = deed {
            return self.deliver(event);
        }
        let Some(kid) = self.kids.get_mut(id.index()).and_then(Option::as_mut) else { return };
        if let Deed::HookEnds { token, success } = deed {
            if let Some((hook, generation, current)) = kid.hook
                && current == token
            {
                kid.hook = None;
                self.hook_ended(id, hook, generation, success);
            }
            return;
        }
        let Some(tree) = kid.tree.as_mut().filter(|tree| tree.generation == generation) else { return };
        let (child, generation) = (id, Generation(generation));
        let able = tree.main && !tree.paused;
        let again = match deed {
            Deed::TreeDies => {
                let main = tree.main;
                kid.tree = None;
                if main {
                    self.pending.push_back(Event::Exited { child, generation, exit: Exit::Signal(9) });
                }
                self.pending.push_back(Event::TreeEmptied { child, generation });
                None
            }
            Deed::Write => {
                let alive = tree.main || tree.stray;
                if alive && !tree.paused {
                    kid.safe = false;
                }
                alive.then_some((7, Deed::Write))
            }
            _ if tree.paused => Some((50, deed)),
            Deed::Die(exit) if able && tree.behaviour.undying == 0 => {
                tree.main = false;
                self.pending.push_back(Event::Exited { child, generation, exit });
                None
            }
            Deed::LauncherReturns if able => {
                tree.main = false;
                tree.stray = tree.behaviour.launcher_exit == Exit::Code(0);
                let exit = tree.behaviour.launcher_exit;
                self.pending.push_back(Event::Exited { child, generation, exit });
                None
            }
            Deed::Hang => {
                tree.hung = true;
                None
            }
            Deed::Ready if able && !tree.hung => {
                self.pending.push_back(Event::ReadyReported { child, generation });
                None
            }
            Deed::Beat if (tree.main || tree.stray) && !tree.hung => {
                self.pending.push_back(Event::Beat { child, generation, at: self.now });
                Some((tree.behaviour.beat_every, Deed::Beat))
            }
            _ => None,
        };
        if let Some((after, deed)) = again {
            self.schedule(after, child.0, generation.0, deed);
        }
    }

    fn hook_ended(&mut self, child: ChildId, hook: Hook, generation: Generation, success: bool) {
        let kid = self.kid(child);
        if let Some(tree) = kid.tree.as_mut().filter(|tree| success && tree.generation == generation.0) {
            let current = tree.generation;
            match hook {
                Hook::FindMain if tree.stray => {
                    (tree.main, tree.stray) = (true, false);
                    let after = tree.behaviour.ready_after;
                    let dies = tree.behaviour.dies_after;
                    let exit = tree.behaviour.exit;
                    self.schedule(after, child.0, current, Deed::Ready);
                    if let Some(dies) = dies {
                        self.schedule(dies, child.0, current, Deed::Die(exit));
                    }
                }
                Hook::StopCommand if !tree.behaviour.deaf => {
                    self.schedule(20, child.0, current, Deed::Die(Exit::Code(0)));
                }
                _ => {}
            }
        }
        self.pending.push_back(Event::HookFinished { child, generation, hook, success });
    }

    /// One wake-up of the supervisor: drain, decide, save, perform.
    pub fn wake(&mut self, late: bool) {
        self.oracle.before(self.now, late, &self.core, &self.kids);
        if self.wild {
            self.hear_deaths();
        }
        while let Some(event) = self.pending.pop_front() {
            self.oracle.observed(self.now, &event, &self.kids);
            self.core.observe(self.now, event);
        }
        let mut actions = core::mem::take(&mut *self.actions);
        self.core.decide(self.now, &mut actions);
        self.oracle.after(self.now, &self.core, &self.kids, &actions);
        let murder = self.murder.take();
        if murder == Some(Murder::BeforePerforming) {
            self.replace();
        } else {
            for action in &actions {
                self.perform(*action);
            }
        }
        if murder == Some(Murder::AfterPerforming) {
            self.replace();
        }
        let mut second = Actions::new();
        self.core.decide(self.now, &mut second);
        if murder.is_none() {
            self.oracle.check(second.is_empty(), "decide is idempotent");
        } else {
            self.oracle.after(self.now, &self.core, &self.kids, &second);
            for action in &second {
                self.perform(*action);
            }
        }
        let past = self.core.next_deadline().is_some_and(|deadline| deadline <= self.now);
        self.oracle.check(!past, "the next deadline lies in the future");
        for (slot, kid) in self.kids.iter_mut().enumerate() {
            if kid.is_some() && self.core.is_free(ChildId(slot as u16)) {
                self.oracle.check(kid.as_ref().is_some_and(|kid| kid.tree.is_none()), "a freed slot is dead");
                *kid = None;
            }
        }
        *self.actions = actions;
    }

    /// That a process is dead may be heard before the fact how it ended, and before everything else.
    fn hear_deaths(&mut self) {
        for index in 0..self.pending.len() {
            if let Event::Exited { child, generation, .. } = self.pending[index]
                && self.dice.roll(2) == 0
                && let Some(force) = self.core.died(self.now, child, generation)
            {
                self.oracle.forced_early(self.now, &self.core, &self.kids, &force);
                self.perform(force);
            }
        }
    }

    /// The supervisor is killed; the next one adopts what it left.
    fn replace(&mut self) {
        let mut next = Box::new(Supervisor::new(self.dice.roll(u64::MAX)));
        next.set_watchdog(self.now, self.watchdog);
        for (slot, kid) in self.kids.iter().enumerate() {
            let id = ChildId(slot as u16);
            // Free slots too: their numbers go on.
            let rules = kid.as_ref().map_or_else(rules, |kid| kid.rules);
            next.adopt(self.now, id, rules, self.core.save(id));
        }
        if self.gate_closed {
            next.observe(self.now, Event::GateClosed);
        }
        if self.closing {
            next.observe(self.now, Event::StopOrdered);
        }
        self.core = next;
        self.oracle.adopted(self.now);
    }

    fn perform(&mut self, action: Action) {
        if self.keep_log {
            self.log.push((self.now, action));
        }
        match action {
            Action::Force { child, attempt, .. } => {
                let now = self.now;
                let kid = self.kid(child);
                if kid.stuck_until <= now {
                    kid.safe = true;
                    let delay = if self.wild { self.dice.roll(4) } else { 0 };
                    self.schedule(delay, 0, 0, Deed::Tell(Event::OutputsConfirmed { child, attempt }));
                }
            }
            Action::Spawn { child, generation } => self.spawn(child, generation),
            Action::Signal { child, generation, signal } => self.signal(child, generation, signal),
            Action::KillTree { child, generation } => self.kill(child, generation),
            Action::Run { child, generation, hook } => self.run_hook(child, generation, hook),
            Action::EndHook { child, .. } => {
                if let Some((_, _, token)) = self.kid(child).hook {
                    self.schedule(1, child.0, 0, Deed::HookEnds { token, success: false });
                } else if let Some((hook, generation)) = self.kid(child).last_hook
                    && !self.is_hook_unread(child, generation, hook)
                {
                    let event = Event::HookFinished { child, generation, hook, success: false };
                    self.schedule(0, 0, 0, Deed::Tell(event));
                }
            }
            Action::Serve { .. } | Action::Feed | Action::Finish => {}
        }
    }

    fn spawn(&mut self, child: ChildId, generation: Generation) {
        let slot = child.index();
        let wild = self.wild;
        let Some(kid) = self.kids[slot].as_mut() else { return };
        if kid.spawned == generation.0 {
            // Ordered by a former supervisor and done: say so again.
            if kid.tree.is_some() {
                self.pending.push_front(Event::Spawned { child, generation });
            }
            return;
        }
        if wild {
            kid.behaviour = self.oracle.counts.wild_behaviour(&mut self.dice, &kid.rules);
        } else if kid.rules.kind == Kind::Oneshot && kid.behaviour.dies_after.is_none() {
            kid.behaviour.dies_after = Some(100);
        }
        kid.spawned = generation.0;
        let behaviour = kid.behaviour;
        let number = generation.0;
        let delay = if wild { self.dice.roll(4) } else { 0 };
        if behaviour.spawn_fails {
            self.schedule(delay, 0, 0, Deed::Tell(Event::SpawnFailed { child, generation }));
            return;
        }
        kid.safe = false;
        let forking = kid.rules.kind == Kind::Forking;
        kid.tree = Some(Tree {
            generation: number,
            main: true,
            stray: behaviour.strays,
            paused: false,
            stop_pending: false,
            hung: false,
            kill_ordered: false,
            behaviour,
        });
        self.schedule(delay, 0, 0, Deed::Tell(Event::Spawned { child, generation }));
        if forking {
            self.schedule(delay + 5, child.0, number, Deed::LauncherReturns);
        } else {
            self.schedule(delay + behaviour.ready_after, child.0, number, Deed::Ready);
            if let Some(after) = behaviour.dies_after {
                self.schedule(delay + after, child.0, number, Deed::Die(behaviour.exit));
            }
        }
        self.schedule(delay + behaviour.beat_every, child.0, number, Deed::Beat);
        if let Some(after) = behaviour.hangs_after {
            self.schedule(delay + after, child.0, number, Deed::Hang);
        }
        if behaviour.writes_on {
            self.schedule(delay + 1, child.0, number, Deed::Write);
        }
    }

    fn signal(&mut self, child: ChildId, generation: Generation, signal: SignalKind) {
        let kid = self.kid(child);
        let Some(tree) = kid.tree.as_mut().filter(|tree| tree.generation == generation.0) else { return };
        match signal {
            SignalKind::Pause => tree.paused = true,
            SignalKind::Stop => tree.stop_pending = true,
            SignalKind::Resume => {
                tree.paused = false;
                kid.safe = false;
            }
        }
        if tree.stop_pending && !tree.paused {
            tree.stop_pending = false;
            if !tree.behaviour.deaf {
                self.schedule(10, child.0, generation.0, Deed::Die(Exit::Signal(15)));
            }
        }
    }

    fn kill(&mut self, child: ChildId, generation: Generation) {
        let kid = self.kid(child);
        match kid.tree.as_mut().filter(|tree| tree.generation == generation.0) {
            Some(tree) if tree.kill_ordered => {}
            Some(tree) if tree.main || tree.stray => {
                tree.kill_ordered = true;
                let delay = tree.behaviour.undying;
                self.schedule(delay, child.0, generation.0, Deed::TreeDies);
            }
            _ => {
                kid.tree = None;
                self.schedule(0, 0, 0, Deed::Tell(Event::TreeEmptied { child, generation }));
            }
        }
    }

    fn is_hook_unread(&self, child: ChildId, generation: Generation, hook: Hook) -> bool {
        self.pending.iter().any(|event| {
            matches!(event, Event::HookFinished { child: who, generation: which, hook: what, .. }
                if (*who, *which, *what) == (child, generation, hook))
        })
    }

    fn run_hook(&mut self, child: ChildId, generation: Generation, hook: Hook) {
        let unread = self.is_hook_unread(child, generation, hook);
        let wild = self.wild;
        let token = self.sequence + 1;
        let kid = self.kid(child);
        if unread || kid.hook.is_some_and(|(running, which, _)| (running, which) == (hook, generation)) {
            return;
        }
        let overlap = kid.hook.is_some();
        (kid.hook, kid.last_hook) = (Some((hook, generation, token)), Some((hook, generation)));
        let (mut luck, mut time) = (kid.luck, kid.hook_time);
        self.oracle.check(!overlap, "a child has one hook at a time");
        if wild {
            (luck, time) = self.oracle.counts.wild_hook(&mut self.dice);
        }
        if luck != HookLuck::Hang {
            let success = luck == HookLuck::Succeed;
            self.schedule(time, child.0, 0, Deed::HookEnds { token, success });
        } else {
            self.sequence += 1;
        }
    }

    /// Actions of one child so far, with their times in milliseconds after the start of the board.
    pub fn count(&self, wanted: impl Fn(&Action) -> bool) -> usize {
        self.log.iter().filter(|(_, action)| wanted(action)).count()
    }

    pub fn spawn_times(&self, id: ChildId) -> Vec<u64> {
        let spawns = self
            .log
            .iter()
            .filter(|(_, action)| matches!(action, Action::Spawn { child, .. } if *child == id));
        spawns.map(|(at, _)| at.since(Instant(10_000_000_000)).0).collect()
    }
}

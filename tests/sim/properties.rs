//! Random scripts: a minute of a board's life in which anything may go wrong at any moment. The
//! oracle checks every wake-up; at the end the faults cease, and everything must recover.
//!
//! A script is reproduced by its number: `MULTUSD_SIM_SEED=n`. `MULTUSD_SIM_SCRIPTS` sets how many.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use multusd::limits::PROGRAM_COUNT_MAX;
use multusd::supervisor::{
    CheckRules, ChildId, ChildSet, Event, Exit, Generation, HookTimes, Kind, Order, Ready, Restart, Rules,
    State,
};
use multusd::time::Instant;

use crate::board::{Behaviour, Board, Dice, HookLuck, Murder, ms, rules};
use crate::oracle::Counts;

const SCRIPT_MS: u64 = 60_000;
const CALM_MS: u64 = 40_000;

fn wild_rules(dice: &mut Dice, slot: usize) -> Rules {
    let mut wild = rules();
    wild.kind = match dice.roll(8) {
        0 => Kind::Oneshot,
        1 => Kind::Forking,
        _ => Kind::Simple,
    };
    wild.ready = match dice.roll(4) {
        0 => Ready::Uptime,
        1 => Ready::Check(ms(50)),
        _ => Ready::Report,
    };
    wild.autostart = !dice.one_in(6);
    wild.restart = match dice.roll(6) {
        0 => Restart::Never,
        1 => Restart::Unexpected,
        _ => Restart::Always,
    };
    wild.expected.insert(0);
    wild.start_time = ms(dice.roll(300));
    wild.retries = dice.one_in(6).then(|| dice.roll(4) as u32);
    wild.delay = if dice.one_in(8) { ms(0) } else { ms(100 + dice.roll(900)) };
    wild.delay_max = ms(2000 + dice.roll(3000));
    wild.health_time = ms(500 + dice.roll(5000));
    wild.start_timeout = Some(ms(700 + dice.roll(1500)));
    wild.stop_timeout = ms(dice.roll(1500));
    wild.heartbeat = (!dice.one_in(4)).then(|| ms(300 + dice.roll(900)));
    wild.output_limit = (!dice.one_in(3)).then(|| ms(100 + dice.roll(900)));
    let mut hook = || dice.one_in(5).then(|| ms(200));
    wild.hooks = HookTimes {
        on_start: hook(),
        stop_command: hook(),
        on_stop: hook(),
        on_failure: hook(),
        ready_check: ms(300),
        check: ms(200),
    };
    wild.check = dice.one_in(3).then(|| {
        let of = 1 + dice.roll(5) as u8;
        CheckRules { interval: ms(dice.roll(400)), failures: 1 + dice.roll(u64::from(of)) as u8, of }
    });
    wild_dependencies(dice, slot, &mut wild);
    wild
}

/// Only on lower slots: circles are refused by the configuration, and have their known answer.
fn wild_dependencies(dice: &mut Dice, slot: usize, wild: &mut Rules) {
    (wild.after, wild.requires, wild.stops_after) = Default::default();
    for other in 0..slot.min(8) {
        let other = ChildId(other as u16);
        match dice.roll(8) {
            0 => wild.after.insert(other),
            1 => wild.requires.insert(other),
            _ => {}
        }
    }
    for other in slot + 1..8 {
        if dice.one_in(8) {
            wild.stops_after.insert(ChildId(other as u16));
        }
    }
}

struct Script {
    board: Board,
    dice: Dice,
    slots: usize,
}

impl Script {
    fn new(seed: u64) -> Script {
        let mut dice = Dice(seed);
        let at_the_end = dice.one_in(20);
        let start =
            if at_the_end { Instant(u64::MAX) - ms(dice.roll(30_000)) } else { Instant(5_000_000_000) };
        let mut board = Board::new(seed, start);
        if at_the_end {
            board.oracle.counts.add("fault: clock at its maximum");
        }
        board.wild = true;
        let interval = (!dice.one_in(5)).then(|| ms(500 + dice.roll(2500)));
        board.set_watchdog(interval);
        let slots = if dice.one_in(100) { PROGRAM_COUNT_MAX } else { 1 + dice.roll(6) as usize };
        for slot in 0..slots {
            let mut rules = wild_rules(&mut dice, slot);
            if slots > 8 {
                (rules.heartbeat, rules.autostart) = (None, true);
            }
            board.install_at(slot, rules);
        }
        Script { board, dice, slots }
    }

    fn anyone(&mut self) -> Option<ChildId> {
        let slot = self.dice.roll(self.slots as u64) as usize;
        self.board.kids[slot].as_ref().map(|_| ChildId(slot as u16))
    }

    fn current(&mut self, id: ChildId) -> Generation {
        self.board.status(id).generation
    }

    /// Something happens.
    fn mishap(&mut self) {
        let Some(child) = self.anyone() else { return self.change_configuration(None) };
        let generation = self.current(child);
        match self.dice.roll(20) {
            0..=3 => self.give_order(child),
            4 => {
                self.board.oracle.counts.add("fault: outputs stuck");
                let until = self.board.now + ms(self.dice.roll(3000));
                self.board.kid(child).stuck_until = until;
            }
            5 => {
                self.board.oracle.counts.add("fault: check failed");
                self.board.tell(Event::CheckFailed { child, generation });
            }
            6 => {
                let until = self.board.now + ms(self.dice.roll(2000));
                self.board.tell(Event::DeadlineExtended { child, generation, until });
            }
            7 | 8 => {
                self.board.oracle.counts.add("fault: supervisor oversleeps");
                let late = self.dice.roll(5000);
                self.board.oversleep(late);
            }
            9 => {
                self.board.oracle.counts.add("fault: supervisor killed");
                let before = self.dice.one_in(2);
                let murder = if before { Murder::BeforePerforming } else { Murder::AfterPerforming };
                self.board.murder = Some(murder);
            }
            10 => self.crash_all(),
            11 => self.stale_facts(child, generation),
            12 => {
                self.board.oracle.counts.add("fault: guard silent");
                self.board.guard_alive = self.dice.one_in(2);
            }
            13 => {
                self.board.oracle.counts.add("fault: gate");
                self.board.gate_closed = self.dice.one_in(2);
                let event = if self.board.gate_closed { Event::GateClosed } else { Event::GateOpened };
                self.board.tell(event);
            }
            14 => {
                self.board.oracle.counts.add("fault: says that it hangs");
                self.board.tell(Event::Hung { child, generation });
            }
            15 => {
                let limit = ms(300 + self.dice.roll(1500));
                self.board.tell(Event::HeartbeatChanged { child, generation, limit });
            }
            16 => {
                self.board.oracle.counts.add("fault: says that it ends");
                self.board.tell(Event::LeaveAnnounced { child, generation });
            }
            _ => self.change_configuration(Some(child)),
        }
    }

    fn give_order(&mut self, child: ChildId) {
        let orders = [
            Order::Start,
            Order::Once,
            Order::Stop,
            Order::Restart,
            Order::Pause,
            Order::Resume,
            Order::Start,
        ];
        self.board.oracle.counts.add("fault: operator's order");
        let order = orders[self.dice.roll(7) as usize];
        self.board.order(child, order);
    }

    fn crash_all(&mut self) {
        self.board.oracle.counts.add("fault: all fail at once");
        for slot in 0..self.slots {
            if self.board.kids[slot].is_some() {
                self.board.crash(ChildId(slot as u16), Exit::Signal(11));
            }
        }
    }

    fn stale_facts(&mut self, child: ChildId, generation: Generation) {
        self.board.oracle.counts.add("fault: stale facts");
        let generation = Generation(generation.0.wrapping_sub(1));
        let exit = Exit::Code(0);
        self.board.tell(Event::Exited { child, generation, exit });
        self.board.tell(Event::Spawned { child, generation });
        self.board.tell(Event::Beat { child, generation, at: self.board.now });
        self.board.tell(Event::ReadyReported { child, generation });
        let nobody = ChildId(u16::MAX);
        self.board.tell(Event::Exited { child: nobody, generation, exit });
        self.board.tell(Event::Ordered { child: nobody, order: Order::Start });
    }

    fn change_configuration(&mut self, child: Option<ChildId>) {
        let slot = self.dice.roll(self.slots as u64) as usize;
        match child {
            Some(child) if self.dice.one_in(3) => {
                self.board.oracle.counts.add("configuration: retire");
                self.board.retire(child);
            }
            Some(child) if self.slots <= 8 => {
                self.board.oracle.counts.add("configuration: amend");
                let mut rules = self.board.kid(child).rules;
                wild_dependencies(&mut self.dice, child.index(), &mut rules);
                rules.delay_max = ms(2000 + self.dice.roll(3000));
                rules.heartbeat = rules.heartbeat.map(|_| ms(300 + self.dice.roll(900)));
                rules.output_limit = rules.output_limit.map(|_| ms(100 + self.dice.roll(900)));
                self.board.amend(child, rules);
            }
            _ if self.board.kids[slot].is_none() => {
                self.board.oracle.counts.add("configuration: install");
                let rules = wild_rules(&mut self.dice, slot);
                self.board.install_at(slot, rules);
            }
            _ => {}
        }
    }

    /// Faults cease; everything recovers, then everything stops.
    fn calm_down(&mut self) {
        self.board.wild = false;
        self.board.gate_closed = false;
        self.board.tell(Event::GateOpened);
        self.board.guard_alive = true;
        for slot in 0..self.slots {
            let id = ChildId(slot as u16);
            if let Some(kid) = &mut self.board.kids[slot] {
                (kid.luck, kid.behaviour) = (HookLuck::Succeed, Behaviour::GOOD);
                kid.stuck_until = Instant(0);
                self.board.order(id, Order::Resume);
            }
        }
        self.board.run_for(CALM_MS);
        for slot in 0..self.slots {
            if self.board.kids[slot].is_some() {
                self.check_recovered(ChildId(slot as u16));
            }
        }
        self.board.stop_all();
        self.board.run_for(CALM_MS);
        self.board.oracle.check(self.board.core.all_down(), "everything stops in the end");
        let trees = self.board.kids.iter().flatten().any(|kid| kid.tree.is_some());
        self.board.oracle.check(!trees, "nothing is alive in the end");
        self.board.oracle.check(self.board.oracle.finish_count == 1, "finish is ordered once");
    }

    fn check_recovered(&mut self, id: ChildId) {
        let status = self.board.status(id);
        let requires = self.board.kid(id).rules.requires;
        let ready = |id: ChildId| {
            let status = self.board.core.status(id);
            status.is_some_and(|status| matches!(status.state, State::Running | State::Exited))
        };
        let recovered = match status.state {
            State::Running | State::Exited | State::Fatal => status.wanted,
            State::Stopped => !status.wanted,
            State::Held => requires.iter().any(|required| !ready(required) || self.exited_badly(required)),
            _ => false,
        };
        let sentence = format!("child {} recovers: {status:?}", id.0);
        self.board.oracle.check(recovered, &sentence);
    }

    /// It ended for good and was no success: what requires it stays held.
    fn exited_badly(&self, id: ChildId) -> bool {
        let status = self.board.core.status(id);
        status.is_none_or(|status| status.state == State::Exited)
    }
}

fn run_script(seed: u64) -> Counts {
    let mut script = Script::new(seed);
    let end = script.board.now + ms(SCRIPT_MS);
    let ends = end == Instant::NEVER;
    let mut steps = 0;
    while script.board.now < end {
        let pause = if script.slots > 8 { 4000 } else { 1500 };
        let pause = script.dice.roll(pause);
        script.board.run_for(pause);
        script.mishap();
        steps += 1;
        assert!(steps < 10_000);
    }
    if ends {
        // Time stands still; the supervisor neither panics nor spins.
        for _ in 0..20 {
            script.mishap();
            script.board.run_for(1);
        }
        let deadline = script.board.core.next_deadline();
        script.board.oracle.check(deadline.is_none(), "6: no deadline after the end of time");
    } else {
        script.calm_down();
    }
    script.board.oracle.counts
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn whatever_goes_wrong_the_invariants_hold_and_everything_recovers() {
    if let Some(seed) = number("MULTUSD_SIM_SEED") {
        run_script(seed);
        return;
    }
    let count = number("MULTUSD_SIM_SCRIPTS").unwrap_or(300);
    let next = AtomicU64::new(0);
    let total = Mutex::new(Counts::default());
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(4));
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        break;
                    }
                    let counts = run_script(seed);
                    total.lock().expect("no script panicked").merge(&counts);
                }
            });
        }
    });
    let total = total.into_inner().expect("no script panicked");
    println!("{count} scripts of a minute on {threads} threads: {:?}", begun.elapsed());
    for (name, seen) in &total.0 {
        println!("{seen:>10}  {name}");
    }
    assert_interesting(&total, count);
}

/// A property that is never put to the test holds always.
fn assert_interesting(total: &Counts, scripts: u64) {
    const PER_HUNDRED_SCRIPTS: &[(&str, u64)] = &[
        ("fault: crash", 100),
        ("fault: hang", 100),
        ("fault: deaf to the stop signal", 100),
        ("fault: state D", 100),
        ("fault: spawn fails", 100),
        ("fault: writes after the force", 100),
        ("fault: leaves descendants", 100),
        ("fault: launcher fails", 50),
        ("fault: never ready", 50),
        ("fault: outputs stuck", 50),
        ("fault: check failed", 50),
        ("fault: gate", 50),
        ("fault: says that it hangs", 50),
        ("fault: says that it ends", 50),
        ("leaving: asked", 1),
        ("fault: supervisor oversleeps", 50),
        ("fault: supervisor killed", 50),
        ("fault: clock at its maximum", 1),
        ("fault: all fail at once", 50),
        ("fault: stale facts", 50),
        ("fault: guard silent", 50),
        ("fault: operator's order", 100),
        ("fault: hook hangs", 20),
        ("fault: hook fails", 20),
        ("configuration: install", 20),
        ("configuration: amend", 50),
        ("configuration: retire", 20),
        ("state: stopped", 50),
        ("state: starting", 500),
        ("state: running", 500),
        ("state: backoff", 100),
        ("state: stopping", 100),
        ("state: exited", 20),
        ("state: fatal", 5),
        ("state: paused", 5),
        ("state: held", 20),
        ("end: exited", 100),
        ("end: stopped", 100),
        ("end: hung", 50),
        ("end: start timed out", 20),
        ("end: check failed", 10),
        ("end: not spawned", 50),
        ("end: hook failed", 10),
        ("hook: on_start", 50),
        ("hook: ready_check", 50),
        ("hook: find main", 20),
        ("hook: check", 50),
        ("hook: stop_command", 20),
        ("hook: on_stop", 20),
        ("hook: on_failure", 20),
        ("action: force", 1000),
        ("action: spawn", 500),
        ("action: kill tree", 500),
        ("action: end hook", 10),
        ("action: serve", 200),
        ("action: stop signal", 50),
        ("action: pause signal", 5),
        ("action: resume signal", 5),
        ("action: feed", 1000),
        ("feed withheld: outputs", 50),
        ("feed withheld: guard", 20),
    ];
    for (name, least) in PER_HUNDRED_SCRIPTS {
        let seen = total.0.get(name).copied().unwrap_or(0);
        assert!(seen >= least * scripts / 100, "the scripts are too tame: {name} seen {seen} times");
    }
}

#[test]
fn sets_of_children_know_their_members() {
    let mut set = ChildSet::EMPTY;
    for id in [0, 63, 64, 127] {
        set.insert(ChildId(id));
    }
    assert_eq!(set.iter().map(|id| id.0).collect::<Vec<_>>(), [0, 63, 64, 127]);
}

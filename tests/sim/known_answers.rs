//! Known answers: each test is named by the sentence it proves. They keep the random scripts honest,
//! which would also pass if nothing ever happened.

use multusd::limits::PROGRAM_COUNT_MAX;
use multusd::supervisor::{
    Action, ChildId, End, Event, Exit, Generation, Hook, Kind, Level, Order, Ready, Restart, Rules,
    SignalKind, State,
};
use multusd::time::Instant;

use crate::board::{Behaviour, Board, HookLuck, Kid, Murder, ms, rules};

/// Without outputs, ready at once, never judged: the least a child can be.
pub fn plain() -> Rules {
    Rules { output_limit: None, heartbeat: None, ..rules() }
}

fn requiring(others: &[ChildId]) -> Rules {
    let mut rules = plain();
    for other in others {
        rules.requires.insert(*other);
    }
    rules
}

pub fn state(board: &Board, id: ChildId) -> State {
    board.status(id).state
}

/// What was ordered since the log was last cleared, without feeds.
pub fn orders(board: &mut Board) -> Vec<Action> {
    let log = core::mem::take(&mut board.log);
    log.into_iter().map(|(_, action)| action).filter(|action| *action != Action::Feed).collect()
}

pub fn settled(rules: Rules) -> (Board, ChildId) {
    let mut board = Board::quiet();
    let id = board.install(rules);
    board.run_for(6000);
    assert_eq!(state(&board, id), State::Running);
    board.log.clear();
    (board, id)
}

#[test]
fn a_quiet_minute_feeds_61_times_and_spawns_3() {
    let mut board = Board::quiet();
    board.set_watchdog(Some(ms(1000)));
    for _ in 0..3 {
        board.install(rules());
    }
    board.run_for(60_000);
    assert_eq!(board.count(|action| *action == Action::Feed), 61);
    assert_eq!(board.count(|action| matches!(action, Action::Spawn { .. })), 3);
    assert_eq!(board.count(|action| matches!(action, Action::KillTree { .. })), 0);
}

#[test]
fn without_a_watchdog_and_without_children_nothing_wakes_the_supervisor() {
    let mut board = Board::quiet();
    board.run_for(60_000);
    assert_eq!((board.core.next_deadline(), board.log.len()), (None, 0));
}

#[test]
fn outputs_are_confirmed_before_the_first_spawn() {
    let mut board = Board::quiet();
    let id = board.install(rules());
    board.kid(id).stuck_until = board.now + ms(400);
    board.run_for(399);
    assert_eq!(board.spawn_times(id), []);
    assert_eq!(state(&board, id), State::Starting);
    board.run_for(20);
    let times = board.spawn_times(id);
    assert!(times.len() == 1 && (400..=410).contains(&times[0]), "{times:?}");
}

#[test]
fn a_settled_child_that_crashes_is_restarted_without_pause() {
    let (mut board, child) = settled(plain());
    board.crash(child, Exit::Signal(11));
    board.run_for(0);
    let (dead, next) = (Generation(1), Generation(2));
    let expected = [Action::KillTree { child, generation: dead }, Action::Spawn { child, generation: next }];
    assert_eq!(orders(&mut board), expected);
}

#[test]
fn a_settled_child_with_outputs_is_forced_killed_forced_again_and_restarted() {
    let (mut board, child) = settled(rules());
    board.crash(child, Exit::Signal(11));
    board.run_for(0);
    let (dead, next) = (Generation(1), Generation(2));
    let expected = [
        Action::Force { child, attempt: 2, level: Level::Safe },
        Action::KillTree { child, generation: dead },
        Action::Force { child, attempt: 3, level: Level::Safe },
        Action::Spawn { child, generation: next },
    ];
    assert_eq!(orders(&mut board), expected);
}

#[test]
fn outputs_of_the_dead_are_forced_before_it_is_known_how_they_ended_and_that_proves_nothing() {
    let (mut board, child) = settled(rules());
    let now = board.now;
    let died = |board: &mut Board, generation| board.core.died(now, child, Generation(generation));
    assert_eq!(died(&mut board, 2), None, "another incarnation");
    let force = Action::Force { child, attempt: 2, level: Level::Safe };
    assert_eq!(died(&mut board, 1), Some(force));
    assert_eq!(died(&mut board, 1), None, "twice at once");
    assert_eq!(board.core.proof(child), (2, false));
    // Read back, while the rest of its tree may be alive.
    board.core.observe(now, Event::OutputsConfirmed { child, attempt: 2 });
    assert!(!board.status(child).outputs_safe);
    board.crash(child, Exit::Code(0));
    board.run_for(0);
    let expected = [
        Action::Force { child, attempt: 3, level: Level::Safe },
        Action::KillTree { child, generation: Generation(1) },
        Action::Force { child, attempt: 4, level: Level::Safe },
        Action::Spawn { child, generation: Generation(2) },
    ];
    assert_eq!(orders(&mut board), expected);
}

#[test]
fn a_launcher_that_returns_and_a_program_without_outputs_are_no_reason_to_force() {
    let mut board = Board::quiet();
    let forking = board.install(Rules { kind: Kind::Forking, ..rules() });
    board.run_for(0);
    let generation = board.status(forking).generation;
    assert!(generation.0 == 1 && state(&board, forking) == State::Starting);
    let now = board.now;
    assert_eq!(board.core.died(now, forking, generation), None);
    let (mut board, child) = settled(plain());
    let now = board.now;
    assert_eq!(board.core.died(now, child, Generation(1)), None);
}

#[test]
fn a_first_start_that_fails_pauses_and_pauses_double_up_to_the_cap() {
    let mut board = Board::quiet();
    let id = board.install(plain());
    board.kid(id).behaviour = Behaviour { dies_after: Some(0), exit: Exit::Code(1), ..Behaviour::GOOD };
    board.run_for(60_000);
    let times = board.spawn_times(id);
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (pause, nominal) in pauses.iter().zip([1000, 2000, 4000, 8000, 8000, 8000]) {
        assert!((nominal * 3 / 4..=nominal).contains(pause), "{pause} of {nominal}");
    }
    assert!((8..=11).contains(&times.len()), "{}", times.len());
}

#[test]
fn health_that_lasted_too_short_does_not_shorten_the_pause() {
    let mut board = Board::quiet();
    let id = board.install(plain());
    board.kid(id).behaviour = Behaviour { dies_after: Some(4900), ..Behaviour::GOOD };
    board.run_for(25_000);
    let times = board.spawn_times(id);
    assert!(times[1] - times[0] >= 4900 + 750, "{times:?}");
    assert!(times[2] - times[1] >= 4900 + 1500, "{times:?}");
    assert_eq!(board.status(id).failures, 3);
}

#[test]
fn a_silent_child_is_forced_and_killed_when_its_heartbeat_time_is_over() {
    let (mut board, child) = settled(rules());
    let last_beat = board.status(child).last_beat.expect("judged by its beat");
    board.hang(child);
    board.run_for(1000);
    let killed = board.log.iter().find(|(_, action)| matches!(action, Action::KillTree { .. }));
    let at = killed.expect("it is killed").0;
    assert!(at >= last_beat + ms(300) && at <= last_beat + ms(400), "{at:?} {last_beat:?}");
    assert_eq!(board.status(child).last_end, Some(End::Hung));
    assert_eq!(state(&board, child), State::Running);
}

#[test]
fn a_deadline_asked_to_be_extended_is_extended() {
    let (mut board, child) = settled(rules());
    let until = board.now + ms(2000);
    board.tell(Event::DeadlineExtended { child, generation: Generation(1), until });
    board.hang(child);
    board.run_for(1999);
    assert_eq!(orders(&mut board), []);
    board.run_for(2);
    assert_eq!(board.status(child).last_end, Some(End::Hung));
}

#[test]
fn a_late_supervisor_kills_nobody_who_beat_meanwhile() {
    let (mut board, child) = settled(rules());
    board.oversleep(5000);
    board.run_for(6000);
    assert_eq!(orders(&mut board), []);
    assert_eq!(state(&board, child), State::Running);
}

#[test]
fn a_late_supervisor_still_asks_a_ready_check_before_it_gives_up() {
    let mut board = Board::quiet();
    let id = board.install(Rules { ready: Ready::Check(ms(50)), ..plain() });
    board.kid(id).luck = HookLuck::Fail;
    board.run_for(100);
    board.kid(id).luck = HookLuck::Succeed;
    board.oversleep(5000);
    board.run_for(6000);
    assert_eq!(board.status(id).last_end, None);
    assert_eq!(state(&board, id), State::Running);
}

#[test]
fn a_child_that_is_not_ready_in_time_is_killed_and_started_again() {
    let mut board = Board::quiet();
    let id = board.install(plain());
    board.kid(id).behaviour.ready_after = 5000;
    board.run_for(2500);
    assert_eq!(state(&board, id), State::Backoff);
    assert_eq!(board.status(id).last_end, Some(End::StartTimedOut));
    board.kid(id).behaviour.ready_after = 10;
    board.run_for(1500);
    assert_eq!(state(&board, id), State::Running);
}

#[test]
fn outputs_stuck_past_their_limit_starve_the_watchdog_until_they_are_confirmed() {
    let (mut board, id) = settled(rules());
    board.set_watchdog(Some(ms(100)));
    board.run_for(1000);
    board.log.clear();
    let failed = board.now;
    board.kid(id).stuck_until = failed + ms(2000);
    board.crash(id, Exit::Signal(9));
    board.run_for(3000);
    let feeds = board.log.iter().filter(|(_, action)| *action == Action::Feed);
    let feeds: Vec<u64> = feeds.map(|(at, _)| at.since(failed).0).collect();
    assert_eq!(feeds.iter().filter(|at| **at < 500).count(), 4);
    assert!(!feeds.iter().any(|at| (500..2000).contains(at)), "{feeds:?}");
    assert!(feeds.iter().filter(|at| **at >= 2000).count() >= 9, "{feeds:?}");
    let forces = board.count(|action| matches!(action, Action::Force { .. }));
    assert!(forces >= 200, "forced every 10 ms: {forces}");
    assert_eq!(state(&board, id), State::Running);
}

#[test]
fn a_writer_in_state_d_is_forced_every_10_ms_and_not_followed_by_a_spawn() {
    let mut board = Board::quiet();
    let id = board.install(rules());
    board.kid(id).behaviour = Behaviour { undying: 4000, writes_on: true, ..Behaviour::GOOD };
    board.run_for(6000);
    board.log.clear();
    board.kid(id).behaviour = Behaviour::GOOD;
    board.hang(id);
    board.run_for(4200);
    assert_eq!(board.count(|action| matches!(action, Action::Spawn { .. })), 0);
    assert!(!board.status(id).outputs_safe);
    assert!(board.count(|action| matches!(action, Action::Force { .. })) >= 350);
    board.run_for(300);
    assert_eq!(board.count(|action| matches!(action, Action::Spawn { .. })), 1);
}

#[test]
fn a_silent_guard_starves_the_watchdog() {
    let mut board = Board::quiet();
    board.set_watchdog(Some(ms(1000)));
    board.run_for(10_000);
    board.log.clear();
    board.guard_alive = false;
    board.run_for(20_000);
    assert_eq!(board.count(|action| *action == Action::Feed), 3);
}

#[test]
fn a_failed_spawn_and_a_failed_on_start_are_failed_starts() {
    let mut board = Board::quiet();
    let spawn = board.install(rules());
    board.kid(spawn).behaviour.spawn_fails = true;
    let mut hooked = rules();
    hooked.hooks.on_start = Some(ms(100));
    let hook = board.install(hooked);
    board.kid(hook).luck = HookLuck::Fail;
    board.run_for(500);
    assert_eq!(board.status(spawn).last_end, Some(End::NotSpawned));
    assert_eq!(board.status(hook).last_end, Some(End::HookFailed));
    assert_eq!((state(&board, spawn), state(&board, hook)), (State::Backoff, State::Backoff));
    assert_eq!(board.spawn_times(hook), []);
}

/// Without any delay configured: the pauses between the attempts of one second.
fn pauses_without_delay(rules: Rules, spoil: impl Fn(&mut Kid), attempt: fn(&Action) -> bool) -> Vec<u64> {
    let mut board = Board::quiet();
    let id = board.install(Rules { delay: ms(0), ..rules });
    spoil(board.kid(id));
    board.run_for(1000);
    let times: Vec<Instant> =
        board.log.iter().filter(|(_, action)| attempt(action)).map(|(at, _)| *at).collect();
    times.windows(2).map(|pair| pair[1].since(pair[0]).0).collect()
}

#[test]
fn without_a_delay_a_start_that_fails_at_once_is_tried_again_after_10_ms() {
    let spawn = |action: &Action| matches!(action, Action::Spawn { .. });
    let every_10_ms = vec![10; 100];
    for rules in [plain(), rules(), Rules { health_time: ms(0), start_time: ms(0), ..plain() }] {
        let pauses = pauses_without_delay(rules, |kid| kid.behaviour.spawn_fails = true, spawn);
        assert_eq!(pauses, every_10_ms, "the spawn fails");
        let gone = Behaviour { dies_after: Some(0), exit: Exit::Code(1), ..Behaviour::GOOD };
        let pauses = pauses_without_delay(rules, |kid| kid.behaviour = gone, spawn);
        assert_eq!(pauses, every_10_ms, "it ends as it starts");
    }
    let mut hooked = plain();
    hooked.hooks.on_start = Some(ms(100));
    let hook = |action: &Action| matches!(action, Action::Run { hook: Hook::OnStart, .. });
    let fail_now = |kid: &mut Kid| (kid.luck, kid.hook_time) = (HookLuck::Fail, 0);
    assert_eq!(pauses_without_delay(hooked, fail_now, hook), every_10_ms, "on_start fails");
}

#[test]
fn without_a_delay_a_start_that_took_its_time_to_fail_is_tried_again_without_pause() {
    let late = Behaviour { dies_after: Some(7), exit: Exit::Code(1), ..Behaviour::GOOD };
    let spawn = |action: &Action| matches!(action, Action::Spawn { .. });
    let pauses = pauses_without_delay(plain(), |kid| kid.behaviour = late, spawn);
    assert!(pauses.len() > 100 && pauses.iter().all(|pause| *pause == 7), "{pauses:?}");
}

#[test]
fn retries_are_counted_as_failed_starts_in_a_row() {
    let mut board = Board::quiet();
    let id = board.install(Rules { retries: Some(3), ..plain() });
    board.kid(id).behaviour = Behaviour { dies_after: Some(0), ..Behaviour::GOOD };
    board.run_for(60_000);
    assert_eq!((state(&board, id), board.spawn_times(id).len()), (State::Fatal, 4));
    board.kid(id).behaviour = Behaviour::GOOD;
    board.order(id, Order::Start);
    board.run_for(1000);
    assert_eq!(state(&board, id), State::Running);
}

#[test]
fn expected_ends_are_restarted_only_by_always() {
    let answers = [
        (Restart::Always, State::Running),
        (Restart::Unexpected, State::Exited),
        (Restart::Never, State::Exited),
    ];
    for (restart, expected) in answers {
        let mut rules = Rules { restart, ..plain() };
        rules.expected.insert(0);
        let (mut board, id) = settled(rules);
        board.crash(id, Exit::Code(0));
        board.run_for(100);
        assert_eq!(state(&board, id), expected, "{restart:?}");
    }
}

#[test]
fn a_child_started_once_is_not_started_again() {
    let mut board = Board::quiet();
    let id = board.install(Rules { autostart: false, ..plain() });
    board.run_for(1000);
    assert_eq!(state(&board, id), State::Stopped);
    board.order(id, Order::Once);
    board.run_for(1000);
    board.crash(id, Exit::Signal(11));
    board.run_for(10_000);
    assert_eq!((state(&board, id), board.spawn_times(id).len()), (State::Exited, 1));
}

#[test]
fn an_ordered_stop_asks_then_kills_then_forces_then_runs_on_stop() {
    let mut hooked = rules();
    hooked.hooks.on_stop = Some(ms(100));
    let mut board = Board::quiet();
    let child = board.install(hooked);
    board.kid(child).behaviour.deaf = true;
    board.run_for(6000);
    board.log.clear();
    board.order(child, Order::Stop);
    board.run_for(999);
    let generation = Generation(1);
    let asked = Action::Signal { child, generation, signal: SignalKind::Stop };
    assert_eq!(orders(&mut board), [asked]);
    board.run_for(100);
    let expected = [
        Action::Force { child, attempt: 2, level: Level::Safe },
        Action::KillTree { child, generation },
        Action::Force { child, attempt: 3, level: Level::Safe },
        Action::Run { child, generation, hook: Hook::OnStop },
    ];
    assert_eq!(orders(&mut board), expected);
    assert_eq!(state(&board, child), State::Stopped);
    assert_eq!(board.status(child).last_end, Some(End::Stopped(Exit::Signal(9))));
}

#[test]
fn a_stop_command_replaces_the_signal_unless_it_fails() {
    for (luck, signals) in [(HookLuck::Succeed, 0), (HookLuck::Fail, 1), (HookLuck::Hang, 1)] {
        let mut hooked = plain();
        hooked.hooks.stop_command = Some(ms(200));
        let (mut board, id) = settled(hooked);
        board.kid(id).luck = luck;
        board.order(id, Order::Stop);
        board.run_for(900);
        assert_eq!(board.count(|action| matches!(action, Action::Signal { .. })), signals, "{luck:?}");
        assert_eq!(state(&board, id), State::Stopped, "{luck:?}");
    }
}

#[test]
fn a_stop_while_the_spawn_is_unconfirmed_stops_the_process_that_comes() {
    let mut board = Board::quiet();
    let id = board.install(plain());
    board.tell(Event::Ordered { child: id, order: Order::Start });
    board.wake(false);
    board.order(id, Order::Stop);
    board.wake(false);
    assert_eq!(state(&board, id), State::Stopping);
    board.run_for(500);
    assert_eq!((state(&board, id), board.spawn_times(id).len()), (State::Stopped, 1));
}

#[test]
fn an_ordered_restart_has_no_pause_and_holds_what_requires_it() {
    let mut board = Board::quiet();
    let below = board.install(plain());
    let above = board.install(requiring(&[below]));
    board.run_for(1000);
    board.log.clear();
    board.order(below, Order::Restart);
    board.run_for(500);
    let generations: Vec<(ChildId, bool)> = board
        .log
        .iter()
        .filter_map(|(_, action)| match action {
            Action::Signal { child, .. } => Some((*child, false)),
            Action::Spawn { child, .. } => Some((*child, true)),
            _ => None,
        })
        .collect();
    assert_eq!(generations, [(above, false), (below, false), (below, true), (above, true)]);
    assert_eq!((state(&board, below), state(&board, above)), (State::Running, State::Running));
}

#[test]
fn what_requires_a_stopped_child_goes_down_first_and_is_held() {
    let mut board = Board::quiet();
    let below = board.install(plain());
    let above = board.install(requiring(&[below]));
    board.run_for(1000);
    board.order(below, Order::Stop);
    board.run_for(500);
    assert_eq!((state(&board, below), state(&board, above)), (State::Stopped, State::Held));
    assert!(board.status(above).wanted);
    board.order(above, Order::Start);
    board.run_for(500);
    assert_eq!((state(&board, below), state(&board, above)), (State::Running, State::Running));
}

#[test]
fn a_required_child_that_crashes_does_not_stop_what_requires_it() {
    let mut board = Board::quiet();
    let below = board.install(plain());
    let above = board.install(requiring(&[below]));
    board.run_for(1000);
    board.crash(below, Exit::Signal(11));
    board.run_for(3000);
    assert_eq!((board.spawn_times(below).len(), board.spawn_times(above).len()), (2, 1));
}

#[test]
fn a_requirement_that_fails_while_a_start_is_prepared_holds_it() {
    let mut board = Board::quiet();
    let below = board.install(plain());
    let mut rules = requiring(&[below]);
    rules.hooks.on_start = Some(ms(500));
    let above = board.install(rules);
    board.kid(above).hook_time = 200;
    board.run_for(100);
    board.crash(below, Exit::Signal(11));
    board.run_for(400);
    assert_eq!((state(&board, below), state(&board, above)), (State::Backoff, State::Held));
    board.run_for(1500);
    assert_eq!((state(&board, below), state(&board, above)), (State::Running, State::Running));
}

#[test]
fn a_first_start_waits_for_the_first_success_or_failure_of_those_before() {
    let mut board = Board::quiet();
    let slow = board.install(plain());
    board.kid(slow).behaviour.ready_after = 500;
    let mut rules = plain();
    rules.after.insert(slow);
    let next = board.install(rules);
    board.run_for(499);
    assert_eq!(state(&board, next), State::Held);
    board.run_for(100);
    assert_eq!(board.spawn_times(next), [500]);

    let mut board = Board::quiet();
    let broken = board.install(plain());
    board.kid(broken).behaviour = Behaviour { dies_after: Some(100), ready_after: 900, ..Behaviour::GOOD };
    let next = board.install(rules);
    board.run_for(1000);
    assert_eq!(board.spawn_times(next), [100]);
}

#[test]
fn a_oneshot_that_succeeded_is_ready_for_ever() {
    let mut board = Board::quiet();
    let once = board.install(Rules { kind: Kind::Oneshot, ..plain() });
    let user = board.install(requiring(&[once]));
    board.run_for(1000);
    assert_eq!((state(&board, once), state(&board, user)), (State::Exited, State::Running));
    board.crash(user, Exit::Code(1));
    board.run_for(3000);
    assert_eq!((board.spawn_times(once).len(), board.spawn_times(user).len()), (1, 2));
}

#[test]
fn a_oneshot_that_fails_is_retried_and_its_users_are_held() {
    let mut board = Board::quiet();
    let once = board.install(Rules { kind: Kind::Oneshot, ..plain() });
    board.kid(once).behaviour = Behaviour { dies_after: Some(50), exit: Exit::Code(3), ..Behaviour::GOOD };
    let user = board.install(requiring(&[once]));
    board.run_for(500);
    assert_eq!((state(&board, once), state(&board, user)), (State::Backoff, State::Held));
    board.kid(once).behaviour.exit = Exit::Code(0);
    board.run_for(2000);
    assert_eq!((state(&board, once), state(&board, user)), (State::Exited, State::Running));
}

#[test]
fn a_forking_child_is_ready_when_its_main_process_is_found() {
    let mut board = Board::quiet();
    let id = board.install(Rules { kind: Kind::Forking, ..plain() });
    board.run_for(1000);
    assert_eq!(state(&board, id), State::Running);
    assert_eq!(board.count(|action| matches!(action, Action::Run { hook: Hook::FindMain, .. })), 1);
    board.crash(id, Exit::Unknown);
    board.run_for(100);
    assert_eq!(board.status(id).last_end, Some(End::Exited(Exit::Unknown)));
}

#[test]
fn a_paused_child_is_safe_and_not_judged_and_goes_on_when_resumed() {
    let (mut board, child) = settled(rules());
    board.order(child, Order::Pause);
    board.run_for(10_000);
    assert_eq!(state(&board, child), State::Paused);
    assert!(board.status(child).outputs_safe);
    let generation = Generation(1);
    let pause = Action::Signal { child, generation, signal: SignalKind::Pause };
    let expected = [
        pause,
        Action::Force { child, attempt: 2, level: Level::Safe },
        Action::Force { child, attempt: 3, level: Level::Safe },
    ];
    assert_eq!(orders(&mut board), expected);
    board.order(child, Order::Resume);
    board.run_for(10_000);
    assert_eq!(state(&board, child), State::Running);
    let resume = Action::Signal { child, generation, signal: SignalKind::Resume };
    assert_eq!(orders(&mut board), [Action::Serve { child, generation }, resume]);
}

#[test]
fn a_paused_child_whose_process_dies_has_failed_and_is_restarted() {
    let (mut board, child) = settled(rules());
    board.order(child, Order::Pause);
    board.run_for(1000);
    assert_eq!(state(&board, child), State::Paused);
    board.log.clear();
    // SIGKILL reaches a stopped process, too.
    let (dead, next) = (Generation(1), Generation(2));
    let exit = Exit::Signal(9);
    board.kid(child).tree = None;
    board.tell(Event::Exited { child, generation: dead, exit });
    board.run_for(0);
    assert_eq!(board.status(child).last_end, Some(End::Exited(exit)));
    assert_eq!(board.status(child).failures, 1);
    // Paused it proved no health: the pause is that of a first failure.
    assert_eq!(state(&board, child), State::Backoff);
    let expected = [
        Action::Force { child, attempt: 4, level: Level::Safe },
        Action::KillTree { child, generation: dead },
        Action::Force { child, attempt: 5, level: Level::Safe },
    ];
    assert_eq!(orders(&mut board), expected);
    board.run_for(1000);
    let serve = Action::Serve { child, generation: next };
    assert_eq!(orders(&mut board), [Action::Spawn { child, generation: next }, serve]);
    board.run_for(1000);
    assert_eq!(state(&board, child), State::Running);
}

#[test]
fn a_paused_child_that_is_stopped_goes_on_first() {
    let (mut board, child) = settled(plain());
    board.order(child, Order::Pause);
    board.run_for(100);
    board.order(child, Order::Stop);
    board.run_for(500);
    let signals: Vec<SignalKind> = orders(&mut board)
        .into_iter()
        .filter_map(|action| match action {
            Action::Signal { signal, .. } => Some(signal),
            _ => None,
        })
        .collect();
    assert_eq!(signals, [SignalKind::Pause, SignalKind::Resume, SignalKind::Stop]);
    assert_eq!(state(&board, child), State::Stopped);
}

#[test]
fn everything_ordered_down_stops_in_order_and_finishes_once() {
    let mut board = Board::quiet();
    let last = board.install(plain());
    let first = board.install(plain());
    let mut rules = plain();
    rules.stops_after.insert(first);
    board.amend(last, rules);
    board.run_for(1000);
    board.log.clear();
    board.stop_all();
    board.run_for(5000);
    let signals: Vec<ChildId> = orders(&mut board)
        .into_iter()
        .filter_map(|action| match action {
            Action::Signal { child, .. } => Some(child),
            _ => None,
        })
        .collect();
    assert_eq!(signals, [first, last]);
    assert_eq!(board.oracle.finish_count, 1);
    board.stop_all();
    board.run_for(1000);
    assert_eq!(board.oracle.finish_count, 1);
}

#[test]
fn a_child_that_comes_to_own_an_output_while_it_waits_has_it_forced_at_once() {
    let mut board = Board::quiet();
    let child = board.install(plain());
    board.kid(child).behaviour = Behaviour { dies_after: Some(0), ..Behaviour::GOOD };
    board.run_for(100);
    assert_eq!(state(&board, child), State::Backoff);
    board.amend(child, rules());
    board.kid(child).behaviour = Behaviour::GOOD;
    board.log.clear();
    board.run_for(10);
    assert_eq!(orders(&mut board), [Action::Force { child, attempt: 1, level: Level::Safe }]);
    assert!(board.status(child).outputs_safe);
    board.run_for(2000);
    let generation = Generation(2);
    assert_eq!(
        orders(&mut board),
        [Action::Spawn { child, generation }, Action::Serve { child, generation }]
    );
}

#[test]
fn a_circle_of_requirements_still_stops() {
    let mut board = Board::quiet();
    let (one, other) = (board.install(plain()), board.install(plain()));
    board.run_for(1000);
    board.amend(one, requiring(&[other]));
    board.amend(other, requiring(&[one]));
    board.stop_all();
    board.run_for(2000);
    assert_eq!(board.oracle.finish_count, 1);
}

#[test]
fn a_retired_child_is_stopped_and_its_slot_is_free() {
    let (mut board, id) = settled(rules());
    board.retire(id);
    board.run_for(500);
    assert!(board.core.is_free(id));
    assert_eq!(board.core.status(id), None);
    let again = board.install(rules());
    board.run_for(100);
    assert_eq!((again, board.status(again).generation), (id, Generation(2)));
}

#[test]
fn a_supervisor_that_is_replaced_restarts_nothing_and_moves_no_output() {
    for murder in [Murder::BeforePerforming, Murder::AfterPerforming] {
        let (mut board, id) = settled(rules());
        board.murder = Some(murder);
        board.run_for(10_000);
        let touched = board.count(|action| {
            !matches!(action, Action::Feed | Action::Signal { signal: SignalKind::Resume, .. })
        });
        assert_eq!((touched, state(&board, id)), (0, State::Running));
        assert_eq!(board.status(id).generation, Generation(1));
    }
}

#[test]
fn orders_lost_with_a_supervisor_are_given_by_the_next() {
    let (mut board, id) = settled(rules());
    board.hang(id);
    board.murder = None;
    board.run_for(250);
    board.murder = Some(Murder::BeforePerforming);
    board.run_for(500);
    assert_eq!(board.status(id).generation, Generation(2));
    assert_eq!(state(&board, id), State::Running);
}

#[test]
fn all_children_failing_at_once_fit_into_the_list() {
    let mut board = Board::quiet();
    let ids: Vec<ChildId> = (0..PROGRAM_COUNT_MAX).map(|_| board.install(rules())).collect();
    board.run_for(6000);
    board.log.clear();
    for id in &ids {
        board.crash(*id, Exit::Signal(11));
    }
    board.run_for(1000);
    assert_eq!(board.count(|action| matches!(action, Action::KillTree { .. })), PROGRAM_COUNT_MAX);
    assert_eq!(board.count(|action| matches!(action, Action::Spawn { .. })), PROGRAM_COUNT_MAX);
    assert!(ids.iter().all(|id| state(&board, *id) == State::Running));
}

#[test]
fn forces_of_all_children_come_before_any_other_order() {
    let mut board = Board::quiet();
    let ids: Vec<ChildId> = (0..4).map(|_| board.install(rules())).collect();
    board.run_for(6000);
    board.log.clear();
    for id in &ids {
        board.crash(*id, Exit::Signal(11));
    }
    board.run_for(0);
    let forces = board.log.iter().take(4).all(|(_, action)| matches!(action, Action::Force { .. }));
    assert!(forces, "{:?}", board.log);
}

#[test]
fn a_clock_at_its_end_neither_panics_nor_spins() {
    let mut board = Board::new(3, Instant::NEVER);
    board.set_watchdog(Some(ms(1000)));
    let id = board.install(rules());
    for order in [Order::Start, Order::Restart, Order::Pause, Order::Stop, Order::Start] {
        board.order(id, order);
        board.wake(false);
        assert_eq!(board.core.next_deadline(), None);
    }
}

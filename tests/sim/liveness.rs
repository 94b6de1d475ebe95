//! Known answers about heartbeats, checks, levels of outputs and the gate.

use multusd::supervisor::{
    Action, CheckRules, ChildId, End, Event, Exit, Generation, Hook, Level, Order, Rules, SignalKind, State,
    Withheld,
};

use multusd::time::Instant;

use crate::board::{Board, HookLuck, Murder, ms, rules};
use crate::known_answers::{orders, plain, settled, state};

const FIRST: Generation = Generation(1);

#[test]
fn a_beat_counts_from_its_own_time_and_one_from_the_future_from_now() {
    let (mut board, child) = settled(rules());
    board.hang(child);
    let at = board.now;
    board.run_for(200);
    board.tell(Event::Beat { child, generation: FIRST, at: at + ms(50) });
    board.tell(Event::Beat { child, generation: FIRST, at });
    board.run_for(0);
    assert_eq!(board.status(child).last_beat, Some(at + ms(50)));
    board.tell(Event::Beat { child, generation: FIRST, at: at + ms(100_000) });
    board.run_for(0);
    assert_eq!(board.status(child).last_beat, Some(board.now));
}

#[test]
fn a_child_that_says_it_hangs_is_killed_at_once() {
    let (mut board, child) = settled(rules());
    board.tell(Event::Hung { child, generation: FIRST });
    board.run_for(0);
    assert_eq!(board.status(child).last_end, Some(End::Hung));
}

#[test]
fn another_heartbeat_time_holds_for_the_incarnation_that_asked_and_for_a_successor() {
    let (mut board, child) = settled(rules());
    board.tell(Event::HeartbeatChanged { child, generation: FIRST, limit: ms(900) });
    board.hang(child);
    board.run_for(100);
    board.murder = Some(Murder::AfterPerforming);
    board.wake(false);
    board.run_for(850);
    assert_eq!(state(&board, child), State::Running, "adopted, it has its whole time once more");
    board.run_for(100);
    assert_eq!(board.status(child).last_end, Some(End::Hung));
    board.run_for(3000);
    let beat = board.status(child).last_beat.unwrap();
    board.hang(child);
    board.run_for(400);
    assert_eq!(board.status(child).failures, 2, "the next one is judged by the rules again: {beat:?}");
}

#[test]
fn a_withheld_feed_has_a_reason() {
    let (mut board, id) = settled(rules());
    assert_eq!(board.core.withheld(board.now), None, "there is no watchdog");
    board.set_watchdog(Some(ms(100)));
    board.run_for(1000);
    assert_eq!(board.core.withheld(board.now), None);
    board.kid(id).stuck_until = board.now + ms(2000);
    board.crash(id, Exit::Signal(9));
    board.run_for(1000);
    assert_eq!(board.core.withheld(board.now), Some(Withheld::Outputs(id)));
    board.run_for(2000);
    assert_eq!(board.core.withheld(board.now), None);
    board.guard_alive = false;
    board.run_for(1000);
    assert_eq!(board.core.withheld(board.now), Some(Withheld::Guard));
}

fn checked(failures: u8, of: u8) -> (Board, ChildId) {
    let mut rules = Rules { check: Some(CheckRules { interval: ms(100), failures, of }), ..plain() };
    rules.hooks.check = ms(50);
    settled(rules)
}

#[test]
fn one_failed_check_is_no_failure_where_two_are_wanted_but_the_second_in_the_window_is() {
    let (mut board, child) = checked(2, 3);
    board.kid(child).luck = HookLuck::Fail;
    while !orders(&mut board).contains(&Action::Run { child, generation: FIRST, hook: Hook::Check }) {
        board.run_for(1);
    }
    board.run_for(20);
    board.kid(child).luck = HookLuck::Succeed;
    board.run_for(130);
    assert_eq!(state(&board, child), State::Running);
    board.kid(child).luck = HookLuck::Fail;
    board.run_for(130);
    assert_eq!(board.status(child).last_end, Some(End::CheckFailed));
    assert_eq!(board.status(child).failures, 1);
}

#[test]
fn failures_that_are_further_apart_than_the_window_are_forgotten() {
    let (mut board, child) = checked(2, 2);
    for _ in 0..20 {
        for luck in [HookLuck::Fail, HookLuck::Succeed, HookLuck::Succeed] {
            board.kid(child).luck = luck;
            while !orders(&mut board).iter().any(|action| matches!(action, Action::Run { .. })) {
                board.run_for(1);
            }
            board.run_for(20);
        }
    }
    assert_eq!(board.status(child).failures, 0);
}

#[test]
fn a_check_that_takes_too_long_has_failed() {
    let (mut board, child) = checked(1, 1);
    board.kid(child).luck = HookLuck::Hang;
    board.run_for(300);
    assert_eq!(board.status(child).last_end, Some(End::CheckFailed));
}

#[test]
fn outputs_are_forced_to_boot_until_the_first_start_and_to_safe_ever_after() {
    let mut board = Board::quiet();
    let child = board.install(Rules { autostart: false, ..rules() });
    board.run_for(100);
    assert_eq!(orders(&mut board), [Action::Force { child, attempt: 1, level: Level::Boot }]);
    board.order(child, Order::Start);
    board.run_for(500);
    let generation = FIRST;
    assert_eq!(
        orders(&mut board),
        [Action::Spawn { child, generation }, Action::Serve { child, generation }]
    );
    board.order(child, Order::Stop);
    board.run_for(3000);
    assert_eq!(state(&board, child), State::Stopped);
    let forces = orders(&mut board);
    let levels = forces.iter().filter_map(|action| match action {
        Action::Force { level, .. } => Some(*level),
        _ => None,
    });
    assert!(levels.clone().count() >= 2 && levels.clone().all(|level| level == Level::Safe), "{forces:?}");
}

#[test]
fn a_closed_gate_takes_everything_down_in_order_and_holds_it_until_it_opens() {
    let mut board = Board::quiet();
    board.set_watchdog(Some(ms(1000)));
    let base = board.install(rules());
    let mut needs = rules();
    needs.requires.insert(base);
    let top = board.install(needs);
    let idle = board.install(Rules { autostart: false, ..rules() });
    board.run_for(6000);
    board.log.clear();
    board.tell(Event::GateClosed);
    board.run_for(20_000);
    for child in [base, top] {
        assert_eq!(state(&board, child), State::Held);
        assert!(board.status(child).outputs_safe && board.status(child).failures == 0);
    }
    let signalled: Vec<ChildId> = board
        .log
        .iter()
        .filter_map(|(_, action)| match action {
            Action::Signal { child, .. } => Some(*child),
            _ => None,
        })
        .collect();
    assert_eq!(signalled, [top, base]);
    assert_eq!(board.count(|action| *action == Action::Feed), 20, "the watchdog is fed");
    assert_eq!(board.oracle.finish_count, 0);
    board.tell(Event::GateOpened);
    board.run_for(6000);
    for (child, expected) in [(base, State::Running), (top, State::Running), (idle, State::Stopped)] {
        assert_eq!(state(&board, child), expected);
    }
}

#[test]
fn a_gate_that_opens_takes_back_no_stop_of_everything() {
    let (mut board, child) = settled(plain());
    board.tell(Event::GateClosed);
    board.stop_all();
    board.tell(Event::GateOpened);
    board.run_for(5000);
    assert_eq!(state(&board, child), State::Stopped);
    assert_eq!(board.oracle.finish_count, 1);
}

/// Since `begun`, in milliseconds: what was ordered of this child.
fn since(board: &mut Board, begun: Instant) -> Vec<(u64, Action)> {
    let log = std::mem::take(&mut board.log);
    log.into_iter().map(|(at, action)| (at.since(begun).0, action)).collect()
}

#[test]
fn who_said_that_it_ends_has_its_stop_time_then_the_signal_then_its_stop_time_again() {
    let (mut board, child) = settled(plain());
    board.kid(child).behaviour.deaf = true;
    if let Some(tree) = &mut board.kid(child).tree {
        tree.behaviour.deaf = true;
    }
    let (generation, begun) = (FIRST, board.now);
    board.tell(Event::LeaveAnnounced { child, generation });
    board.run_for(700);
    // Said again it means nothing new.
    board.tell(Event::LeaveAnnounced { child, generation });
    board.run_for(1400);
    assert_eq!(
        since(&mut board, begun)[..2],
        [
            (1000, Action::Signal { child, generation, signal: SignalKind::Stop }),
            (2000, Action::KillTree { child, generation })
        ]
    );
    assert_eq!(board.status(child).last_end, Some(End::Hung));
    board.run_for(6000);
    // The next one has said nothing.
    assert_eq!((state(&board, child), board.status(child).failures), (State::Running, 1));
}

#[test]
fn who_said_that_it_ends_and_hears_the_signal_is_restarted_as_after_any_end() {
    let (mut board, child) = settled(plain());
    board.tell(Event::LeaveAnnounced { child, generation: FIRST });
    board.run_for(1100);
    assert_eq!(board.status(child).last_end, Some(End::Exited(Exit::Signal(15))));
    assert_eq!((board.status(child).failures, board.status(child).generation), (1, Generation(2)));
}

#[test]
fn an_owner_of_outputs_that_said_it_ends_and_stays_is_killed_when_its_stop_time_is_over() {
    for rules in [rules(), Rules { heartbeat: None, ..rules() }, Rules { output_limit: None, ..rules() }] {
        let (mut board, child) = settled(rules);
        let (generation, begun) = (FIRST, board.now);
        // Neither its silence nor a failing check is held against it until then.
        board.hang(child);
        board.tell(Event::LeaveAnnounced { child, generation });
        board.run_for(999);
        assert_eq!(state(&board, child), State::Running);
        board.tell(Event::DeadlineExtended { child, generation, until: begun + ms(1500) });
        board.run_for(500);
        assert_eq!(state(&board, child), State::Running, "it asked for more");
        board.run_for(1);
        assert_eq!(board.status(child).last_end, Some(End::Hung));
        let log = since(&mut board, begun);
        assert!(log.contains(&(1500, Action::KillTree { child, generation })), "{log:?}");
        assert!(!log.iter().any(|(_, action)| matches!(action, Action::Signal { .. })), "{log:?}");
    }
}

#[test]
fn a_successor_knows_who_said_that_it_ends_and_gives_its_time_anew() {
    let (mut board, child) = settled(plain());
    board.tell(Event::LeaveAnnounced { child, generation: FIRST });
    board.run_for(900);
    board.murder = Some(Murder::AfterPerforming);
    board.wake(false);
    board.run_for(950);
    assert_eq!(state(&board, child), State::Running);
    board.run_for(100);
    assert_eq!(board.status(child).last_end, Some(End::Exited(Exit::Signal(15))));
}

#[test]
fn checks_of_who_said_that_it_ends_are_over() {
    let (mut board, child) = checked(1, 1);
    board.tell(Event::LeaveAnnounced { child, generation: FIRST });
    board.run_for(0);
    board.kid(child).luck = HookLuck::Fail;
    board.run_for(990);
    assert_eq!(state(&board, child), State::Running);
}

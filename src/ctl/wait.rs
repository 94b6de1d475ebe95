//! `--wait`: until the programs are where the order wants them. Events say when to look, the
//! status says what is; a lost event costs at most a second.

use super::daemon::Daemon;
use super::{Exit, Failure, Outcome, complain, print, words};
use crate::protocol::{LastExit, Name, ProgramStatus, State};
use crate::sys::clock::now;
use crate::time::Millis;

/// How often the status is read when no event comes: an event may have been lost (a gap in `seq`).
const LOOK_AGAIN: Millis = Millis(1000);

/// Where the programs are meant to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Running.
    Up,
    /// Running, in another process than before.
    UpAgain,
    /// Not running, and not about to.
    Down,
    /// Ended by itself.
    Over,
}

/// What is known about one program that is waited for.
struct Waited {
    before: ProgramStatus,
    /// It has changed since the order: what it is now is not what it was before the order.
    moved: bool,
    /// It has been running since the order.
    ran: bool,
    done: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    NotYet,
    Reached,
    Failed(String),
}

/// Waits for these programs (as they were before the order). `Failed` if one of them got somewhere
/// from where it will not reach the goal.
pub fn programs(daemon: &mut Daemon, news: &mut Daemon, before: Vec<ProgramStatus>, goal: Goal) -> Outcome {
    let mut waited: Vec<Waited> =
        before.into_iter().map(|before| Waited { before, moved: false, ran: false, done: false }).collect();
    let mut exit = Exit::Ok;
    loop {
        let current = daemon.programs()?;
        for one in waited.iter_mut().filter(|one| !one.done) {
            let name = words::clean(&one.before.name);
            let status = current.iter().find(|status| status.name == one.before.name);
            match status.map(|status| (judge(one, status, goal), status)) {
                Some((Verdict::NotYet, _)) => continue,
                Some((Verdict::Reached, status)) => {
                    print(&[&*name, ": ", status.state.name(), "\n"].concat())?;
                }
                Some((Verdict::Failed(why), _)) => {
                    complain(&[&*name, ": ", &why].concat());
                    exit = Exit::Failed;
                }
                // Taken out of the configuration meanwhile: as down as can be.
                None if goal == Goal::Down => {}
                None => {
                    complain(&[&*name, ": is not in the configuration any more"].concat());
                    exit = Exit::Failed;
                }
            }
            one.done = true;
        }
        if waited.iter().all(|one| one.done) {
            return Ok(exit);
        }
        let missing = waited.iter().filter(|one| !one.done).map(|one| one.before.name.clone());
        look_out(daemon, news, &current, missing.collect(), |name, to| {
            for one in waited.iter_mut().filter(|one| one.before.name == name) {
                one.moved = true;
                one.ran |= to == State::Running;
            }
        })?;
    }
}

/// Waits until no program is on its way up or down. `Failed` if one is given up on meanwhile.
pub fn settled(daemon: &mut Daemon, news: &mut Daemon) -> Outcome {
    let mut exit = Exit::Ok;
    loop {
        let current = daemon.programs()?;
        let on_its_way = |status: &&ProgramStatus| {
            matches!(status.state, State::Starting | State::Stopping | State::Backoff)
        };
        let missing: Vec<Name> =
            current.iter().filter(on_its_way).map(|status| status.name.clone()).collect();
        if missing.is_empty() {
            return Ok(exit);
        }
        look_out(daemon, news, &current, missing, |name, to| {
            if to == State::Fatal {
                complain(&[&*words::clean(name), ": fatal"].concat());
                exit = Exit::Failed;
            }
        })?;
    }
}

/// Waits for events, and hands them over; or for a while; or to the end, which is a failure that
/// names who is missing.
fn look_out(
    daemon: &Daemon,
    news: &mut Daemon,
    current: &[ProgramStatus],
    missing: Vec<Name>,
    mut seen: impl FnMut(&str, State),
) -> Result<(), Failure> {
    let mut until = (now() + LOOK_AGAIN).min(daemon.deadline());
    loop {
        let events = news.events(until)?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            seen(&event.name, event.to);
        }
        // What came with it, without waiting for more.
        until = now();
    }
    if now() < daemon.deadline() {
        return Ok(());
    }
    let mut failure = daemon.timed_out();
    for name in missing {
        let state =
            current.iter().find(|status| status.name == name).map_or("gone", |status| status.state.name());
        failure.text += &[", ", &words::clean(&name), " is ", state].concat();
    }
    Err(failure)
}

fn judge(waited: &mut Waited, status: &ProgramStatus, goal: Goal) -> Verdict {
    let before = &waited.before;
    waited.moved |=
        status.state != before.state || status.pid != before.pid || status.restarts != before.restarts;
    waited.ran |= waited.moved && status.state == State::Running;
    match goal {
        Goal::Down => match status.state {
            State::Stopped | State::Exited | State::Fatal => Verdict::Reached,
            _ => Verdict::NotYet,
        },
        Goal::Up if status.state == State::Running => Verdict::Reached,
        Goal::UpAgain if status.state == State::Running => {
            // The same process: the order has not come to it yet.
            let same = before.pid != 0 && status.pid == before.pid;
            if waited.moved && !same { Verdict::Reached } else { Verdict::NotYet }
        }
        Goal::Up | Goal::UpAgain | Goal::Over if !waited.moved => Verdict::NotYet,
        Goal::Over => match (status.state, status.last_exit) {
            (State::Exited | State::Stopped, Some(LastExit { code: Some(0), .. })) => Verdict::Reached,
            (State::Exited | State::Stopped | State::Fatal, _) => failed(status),
            _ => Verdict::NotYet,
        },
        Goal::Up | Goal::UpAgain => match status.state {
            State::Exited if waited.ran => Verdict::Reached,
            State::Exited | State::Fatal => failed(status),
            // For a restart this is the way through; for a start, somebody else's order.
            State::Stopped if goal == Goal::Up && before.state != State::Stopping => {
                Verdict::Failed("was stopped meanwhile".to_string())
            }
            _ => Verdict::NotYet,
        },
    }
}

fn failed(status: &ProgramStatus) -> Verdict {
    let why = match status.last_exit {
        _ if !status.reason.is_empty() => words::clean(&status.reason),
        Some(exit) => words::last_exit(exit),
        None => String::new(),
    };
    let colon = if why.is_empty() { "" } else { ": " };
    Verdict::Failed([status.state.name(), colon, &why].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: State, pid: u32) -> ProgramStatus {
        ProgramStatus {
            name: "pump".try_into().unwrap(),
            state,
            pid,
            restarts: 0,
            failures: 0,
            uptime_ms: 0,
            since_ms: 0,
            next_start_ms: None,
            last_exit: None,
            reason: heapless::String::new(),
            status_text: heapless::String::new(),
            heartbeat: None,
            outputs: heapless::Vec::new(),
        }
    }

    fn waited(state: State, pid: u32) -> Waited {
        Waited { before: status(state, pid), moved: false, ran: false, done: false }
    }

    #[test]
    fn an_old_failure_is_not_the_answer_to_a_new_start() {
        let mut one = waited(State::Fatal, 0);
        assert_eq!(judge(&mut one, &status(State::Fatal, 0), Goal::Up), Verdict::NotYet);
        assert_eq!(judge(&mut one, &status(State::Starting, 5), Goal::Up), Verdict::NotYet);
        assert_eq!(judge(&mut one, &status(State::Fatal, 0), Goal::Up), Verdict::Failed("fatal".to_string()));
    }

    #[test]
    fn a_restart_is_over_only_in_another_process() {
        let mut one = waited(State::Running, 5);
        assert_eq!(judge(&mut one, &status(State::Running, 5), Goal::UpAgain), Verdict::NotYet);
        one.moved = true;
        assert_eq!(judge(&mut one, &status(State::Running, 5), Goal::UpAgain), Verdict::NotYet);
        assert_eq!(judge(&mut one, &status(State::Stopped, 0), Goal::UpAgain), Verdict::NotYet);
        assert_eq!(judge(&mut one, &status(State::Running, 6), Goal::UpAgain), Verdict::Reached);
    }

    #[test]
    fn a_program_that_ran_and_ended_was_started() {
        let mut one = waited(State::Stopped, 0);
        one.ran = true;
        assert_eq!(judge(&mut one, &status(State::Exited, 0), Goal::Up), Verdict::Reached);
    }

    #[test]
    fn backoff_is_waited_through() {
        for goal in [Goal::Up, Goal::UpAgain, Goal::Down, Goal::Over] {
            let mut one = waited(State::Stopped, 0);
            assert_eq!(judge(&mut one, &status(State::Backoff, 0), goal), Verdict::NotYet);
        }
    }

    #[test]
    fn once_is_reached_by_a_good_end_only() {
        let mut one = waited(State::Exited, 0);
        let mut end = status(State::Exited, 0);
        end.last_exit = Some(LastExit { code: Some(0), signal: None });
        assert_eq!(judge(&mut one, &end, Goal::Over), Verdict::NotYet, "that was the end before");
        one.moved = true;
        assert_eq!(judge(&mut one, &end, Goal::Over), Verdict::Reached);
        end.last_exit = Some(LastExit { code: None, signal: Some(9) });
        assert_eq!(
            judge(&mut one, &end, Goal::Over),
            Verdict::Failed("exited: killed by SIGKILL".to_string())
        );
    }
}

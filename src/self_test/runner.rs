//! Runs the checks one after the other: each in a process of its own that is told from outside when
//! its time is over, with everything it started gone before the next.

use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::cgroup::Hierarchy;
use crate::sys::{SysError, clock, file, poll, process, signal};
use crate::time::Millis;

use super::table::{Check, check};
use super::verdict::{self, Verdict, got, in_words, refused};
use super::{Place, complain, say};

/// What a check may take. Milliseconds are enough everywhere; an emulator on a busy machine needs more.
const CHECK_TIME: Millis = Millis(6000);
/// How long what a check left is waited for.
const LEAVING_TIME: Millis = Millis(5000);
/// Words of a check that are read: one line, at most.
const ANSWER_BYTES_MAX: usize = 512;

/// Verdicts by number, in twelve columns; the last two are not reported.
const WORDS: [&str; 6] = ["ok          ", "absent      ", "FAILED      ", "left out    ", "", ""];

/// The last line.
const SUMMARY: &[(Verdict, &str, &str)] = &[
    (Verdict::Ok, ": ", " ok"),
    (Verdict::Failed, ", ", " failed"),
    (Verdict::Absent, ", ", " absent"),
    (Verdict::LeftOut, ", ", " left out"),
];

/// Makes the chosen checks and reports each; the exit code. In a process of its own: it kills whatever
/// comes to it as a child, and what we were executed with may have children.
pub fn run(dir: Option<&str>, chosen: u64) -> u8 {
    // Ctrl-C is noticed between two looks, so that nothing is left then either. Where this fails, the
    // check of it says so.
    let _ = signal::block();
    let own = std::process::id();
    let runner = match process::fork() {
        Ok(Some(runner)) => runner,
        Ok(None) if process::die_with(own) => run_apart(dir, chosen),
        Ok(None) => process::end(1),
        Err(error) => {
            complain(&[&in_words(&error)]);
            return 1;
        }
    };
    let mut is_over = false;
    loop {
        // Told again: while it tidies up after a check, it is deaf.
        is_over |= is_interrupted(100);
        if is_over {
            process::kill_if_there(runner as i32, signal::END);
        }
        if let Some((signalled, value)) = end_of(runner) {
            return if signalled { 1 } else { value };
        }
    }
}

/// Somebody wants us to end, now or in so many milliseconds.
fn is_interrupted(milliseconds: u64) -> bool {
    signal::wait(Some(clock::now() + Millis(milliseconds))).is_some_and(signal::is_order_to_end)
}

/// How a child has ended: by a signal, and its number or the exit code. Takes away whatever else has.
fn end_of(pid: u32) -> Option<(bool, u8)> {
    let mut end = None;
    while let Some((child, signalled, value)) = process::next_ended() {
        process::reap(child);
        if child == pid {
            end = Some((signalled, value));
        }
    }
    end
}

fn run_apart(dir: Option<&str>, chosen: u64) -> ! {
    let name = ["multusd-self-test-", &std::process::id().to_string()].concat();
    let place = Place { dir: scratch(dir, &name), name };
    // Where this fails, its check says so; only less can be tidied up.
    let _ = process::become_subreaper();
    let mut counts = [0; WORDS.len()];
    let mut code = 0;
    let mut number = 0;
    while let Some(check) = check(number) {
        let verdict = if chosen >> number & 1 == 0 {
            report(&check, Verdict::LeftOut, "")
        } else {
            attempt(&check, &place)
        };
        number += 1;
        counts[verdict as usize] += 1;
        match verdict {
            Verdict::Failed if check.is_required => code = 1,
            Verdict::Interrupted => break,
            _ => {}
        }
    }
    if let Ok(dir) = &place.dir {
        file::remove_directory(dir.as_ref());
    }
    if counts[Verdict::Interrupted as usize] > 0 {
        complain(&["interrupted"]);
        process::end(1)
    }
    say(&["self-test"]);
    for (verdict, before, after) in SUMMARY {
        let count = counts[*verdict as usize];
        if *verdict != Verdict::LeftOut || count > 0 {
            say(&[before, &count.to_string(), after]);
        }
    }
    say(&["\n"]);
    process::end(code)
}

/// Says how a check ended, which for something helpful that the kernel refused means that it is not here.
fn report(check: &Check, verdict: Verdict, why: &str) -> Verdict {
    let verdict = match verdict {
        Verdict::Refused if !check.is_required => Verdict::Absent,
        Verdict::Refused => Verdict::Failed,
        _ => verdict,
    };
    let line = [WORDS[verdict as usize], check.name, ": ", why, ". Without it ", check.lost];
    say(if why.is_empty() { &line[..2] } else { &line });
    say(&["\n"]);
    verdict
}

/// A fresh directory that only we may enter: in the one given, or where multusd would have its own, or
/// where anybody may.
fn scratch(dir: Option<&str>, name: &str) -> Result<String, SysError> {
    let make = |parent: &str| {
        let path = [parent, "/", name].concat();
        file::make_own_directory(path.as_ref()).map(|()| path)
    };
    let [first, second] = dir.map_or(["/run", "/tmp"], |dir| [dir, dir]);
    make(first).or_else(|_| make(second))
}

/// Makes one check and reports it.
fn attempt(check: &Check, place: &Place) -> Verdict {
    let verdict = begin(check, place);
    process::kill_children(clock::now() + LEAVING_TIME);
    if check.in_group {
        // Empty now.
        if let Ok(hierarchy) = Hierarchy::open_for_trial(&place.name) {
            hierarchy.remove();
        }
    }
    verdict
}

fn begin(check: &Check, place: &Place) -> Verdict {
    let own = std::process::id();
    let begun = file::pipe(false).and_then(|pipe| Ok((pipe, process::fork()?)));
    let ((read, write), pid) = match begun {
        Ok(begun) => begun,
        Err(error) => return report(check, Verdict::Failed, &in_words(&error)),
    };
    if let Some(pid) = pid {
        drop(write);
        return await_answer(check, pid, read.as_fd());
    }
    if !process::die_with(own) {
        process::end(1)
    }
    verdict::tell_by(&write);
    if check.in_directory {
        match &place.dir {
            Ok(dir) => got(file::enter(dir.as_ref())),
            Err(error) => refused(error),
        }
    }
    (check.run)(place);
    verdict::tell(Verdict::Ok, "")
}

/// Waits for the words of the process that makes a check, for its end, or for the end of its time.
fn await_answer(check: &Check, pid: u32, answer: BorrowedFd) -> Verdict {
    let until = clock::now() + CHECK_TIME;
    loop {
        // Its end is looked for first: what it had written by then is there to be read.
        let end = end_of(pid);
        // In slices: its death does not end the wait where something it started has the pipe too.
        if poll::wait_readable(answer, Some(100)) {
            let mut bytes = [0; ANSWER_BYTES_MAX];
            let length = nix::unistd::read(answer, &mut bytes).unwrap_or(0);
            if let Some((&verdict, words)) = bytes[..length].split_first() {
                let words = words.split(|byte| *byte == b'\n').next().unwrap_or_default();
                let all = [Verdict::Ok, Verdict::Absent, Verdict::Refused];
                let known = all.into_iter().find(|known| *known as u8 == verdict);
                return report(check, known.unwrap_or(Verdict::Failed), &String::from_utf8_lossy(words));
            }
            // The pipe's other end is closed, so the process is about to end: how is worth a moment.
            file::pause(5);
        }
        if let Some((signalled, value)) = end {
            let how =
                if signalled { "the check was killed by signal " } else { "the check ended with code " };
            return report(check, Verdict::Failed, &[how, &value.to_string()].concat());
        }
        if clock::now() >= until {
            return report(check, Verdict::Failed, "no answer within its time");
        }
        if is_interrupted(0) {
            return Verdict::Interrupted;
        }
    }
}

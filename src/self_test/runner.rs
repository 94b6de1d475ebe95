//! Runs the checks one after the other: each in a process of its own that is told from outside when
//! its time is over, with everything it started gone before the next.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::sys::cgroup::Hierarchy;
use crate::sys::{SysError, clock, file, poll, process, signal};
use crate::time::Millis;

use super::table::{CHECKS, Check, Need};
use super::{Finding, Place, in_words, say};

/// What a check may take. Milliseconds are enough everywhere; an emulator on a busy machine needs more.
const CHECK_TIME: Millis = Millis(6000);
/// How long what a check left is waited for.
const LEAVING_TIME: Millis = Millis(5000);

/// How one check ended.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Verdict {
    Ok = 1,
    Absent,
    Failed,
    LeftOut,
}

impl Verdict {
    /// In twelve columns.
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok          ",
            Verdict::Absent => "absent      ",
            Verdict::Failed => "FAILED      ",
            Verdict::LeftOut => "left out    ",
        }
    }
}

/// Makes the chosen checks and reports each; the exit code. In a process of its own: it kills whatever
/// comes to it as a child, and what we were executed with may have children.
pub fn run(dir: Option<PathBuf>, chosen: &[bool]) -> u8 {
    // Ctrl-C is noticed between two looks, so that nothing is left then either. Where this fails, the
    // check of it says so.
    let _ = signal::block();
    let own = std::process::id();
    let runner = process::fork(|| if process::die_with(own) { run_apart(dir, chosen).into() } else { 1 });
    let runner = match runner {
        Ok(runner) => runner,
        Err(error) => {
            super::complain(&in_words(&error));
            return 1;
        }
    };
    loop {
        if signal::wait(Some(clock::now() + Millis(100))).is_some_and(signal::is_order_to_end) {
            process::kill_if_there(runner as i32, signal::END);
        }
        while let Some((pid, signalled, value)) = process::next_ended() {
            process::reap(pid);
            if pid == runner {
                return if signalled { 1 } else { value };
            }
        }
    }
}

fn run_apart(dir: Option<PathBuf>, chosen: &[bool]) -> u8 {
    let name = ["multusd-self-test-", &std::process::id().to_string()].concat();
    let place = Place { dir: scratch(dir, &name), group: name };
    // Where this fails, its check says so; only less can be tidied up.
    let _ = process::become_subreaper();
    let mut counts = [0_usize; Verdict::LeftOut as usize + 1];
    let mut required_failed = false;
    let mut interrupted = false;
    for (check, chosen) in CHECKS.iter().zip(chosen) {
        let (verdict, why) = match chosen {
            false => (Verdict::LeftOut, String::new()),
            true => match attempt(check, &place) {
                Some(outcome) => outcome,
                None => {
                    interrupted = true;
                    break;
                }
            },
        };
        report(check, verdict, &why);
        counts[verdict as usize] += 1;
        required_failed |= verdict == Verdict::Failed && check.need == Need::Required;
    }
    if let Ok(dir) = &place.dir {
        // What a check was killed over may lie in it.
        let _ = fs::remove_dir_all(dir);
    }
    if interrupted {
        super::complain("interrupted");
        return 1;
    }
    let [_, ok, absent, failed, left_out] = counts.map(|count| count.to_string());
    say(&["self-test: ", &ok, " ok, ", &failed, " failed, ", &absent, " absent"].concat());
    say(&match counts[Verdict::LeftOut as usize] {
        0 => "\n".to_owned(),
        _ => [", ", &left_out, " left out\n"].concat(),
    });
    u8::from(required_failed)
}

fn report(check: &Check, verdict: Verdict, why: &str) {
    let mut line = [verdict.word(), check.name].concat();
    if !why.is_empty() {
        line += &[": ", why, ". Without it ", check.lost].concat();
    }
    say(&(line + "\n"));
}

/// A fresh directory that only we may enter: in the one given, or where multusd would have its own, or
/// where anybody may.
fn scratch(dir: Option<PathBuf>, name: &str) -> Result<PathBuf, SysError> {
    let make = |parent: &Path| {
        let path = parent.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(path),
            Err(error) => Err(SysError { operation: "mkdir", errno: error.raw_os_error().unwrap_or(5) }),
        }
    };
    match dir {
        Some(dir) => make(&std::path::absolute(&dir).unwrap_or(dir)),
        None => make(Path::new("/run")).or_else(|_| make(&std::env::temp_dir())),
    }
}

/// Makes one check; `None`: somebody wants us to end.
fn attempt(check: &Check, place: &Place) -> Option<(Verdict, String)> {
    let begun = file::pipe(false).and_then(|(read, write)| {
        let own = std::process::id();
        let mut write = File::from(write);
        let pid = process::fork(|| {
            if process::die_with(own) {
                let (verdict, why) = judge(check, (check.run)(place));
                // A whole message or none: it is shorter than what a pipe takes at once.
                let _ = write.write_all(&[&[verdict as u8], why.as_bytes()].concat());
            }
            0
        })?;
        Ok((pid, File::from(read)))
    });
    let outcome = match begun {
        Ok((pid, answer)) => await_answer(pid, answer),
        Err(error) => Some((Verdict::Failed, in_words(&error))),
    };
    process::kill_children(clock::now() + LEAVING_TIME);
    if check.in_group && outcome.as_ref().is_none_or(|(verdict, _)| *verdict == Verdict::Failed) {
        // It may have been killed before it could tidy up.
        if let Ok(hierarchy) = Hierarchy::open_for_trial(&place.group) {
            hierarchy.remove();
        }
    }
    outcome
}

fn judge(check: &Check, tried: Result<(), Finding>) -> (Verdict, String) {
    match tried {
        Ok(()) => (Verdict::Ok, String::new()),
        Err(Finding::Refused(error)) if check.need == Need::Helpful => (Verdict::Absent, in_words(&error)),
        Err(Finding::Refused(error)) => (Verdict::Failed, in_words(&error)),
        Err(Finding::Absent(why)) => (Verdict::Absent, why.into()),
        Err(Finding::Failed(why)) => (Verdict::Failed, why.into()),
    }
}

/// Waits for the verdict of the process that makes a check, for its end, or for the end of its time.
fn await_answer(pid: u32, mut answer: File) -> Option<(Verdict, String)> {
    let until = clock::now() + CHECK_TIME;
    loop {
        // Its end is looked for first: what it had written by then is there to be read.
        let mut ended = None;
        while let Some((child, signalled, value)) = process::next_ended() {
            process::reap(child);
            if child == pid {
                ended = Some((signalled, value));
            }
        }
        // In slices: its death does not end the wait where something it started has the pipe too.
        if poll::wait_readable(answer.as_fd(), Some(100)) {
            let mut bytes = [0; 1024];
            let length = answer.read(&mut bytes).unwrap_or(0);
            if let Some((verdict, why)) = bytes[..length].split_first() {
                let known = [Verdict::Ok, Verdict::Absent].into_iter().find(|known| *known as u8 == *verdict);
                let why = String::from_utf8_lossy(why).into_owned();
                return Some((known.unwrap_or(Verdict::Failed), why));
            }
            // The pipe's other end is closed, so the process is about to end: how is worth a moment.
            ended = ended.or_else(|| end_of(pid));
            ended = ended.or(Some((false, 0)));
        }
        if let Some((signalled, value)) = ended {
            let how =
                if signalled { "the check was killed by signal " } else { "the check ended with code " };
            return Some((Verdict::Failed, [how, &value.to_string()].concat()));
        }
        if clock::now() >= until {
            return Some((Verdict::Failed, "no answer within its time".into()));
        }
        while let Some(signal) = signal::wait(Some(clock::now())) {
            if signal::is_order_to_end(signal) {
                return None;
            }
        }
    }
}

/// How a process ends that is about to.
fn end_of(pid: u32) -> Option<(bool, u8)> {
    let until = clock::now() + Millis(1000);
    while clock::now() < until {
        if let Some((child, signalled, value)) = process::next_ended() {
            process::reap(child);
            if child == pid {
                return Some((signalled, value));
            }
        } else {
            file::pause(5);
        }
    }
    None
}

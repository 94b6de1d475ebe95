//! TRIES THE KERNEL: `multusd self-test` exercises, on the machine it runs on, every facility that
//! multusd rests on, by the very functions the product uses, and says in words what is not there.
//!
//! Each check runs in a process of its own with a deadline, so that none can hang or kill the rest, and
//! whatever a check started is killed before the next. To come to a verdict it needs processes, a pipe
//! and poll(2) only, so it has one on a kernel that lacks all the rest.

mod files;
mod groups;
mod memory;
mod processes;
mod runner;
mod sockets;
mod starts;
mod table;
mod verdict;

use std::ffi::OsString;

use crate::sys::{SysError, console, file};
use table::check;

/// Its options, as they are written, and what each does.
pub const OPTIONS: &[(&str, &str)] = &[
    ("--dir DIR", "use a fresh directory in DIR for files and sockets, not one in /run or /tmp"),
    ("--only NAME[,NAME...]", "make only these checks"),
    ("--except NAME[,NAME...]", "leave these checks out"),
    ("--list", "list the checks: what each tries, and what is lost without it"),
    ("--time-of FILE", "only print when FILE was last written, in seconds since 1970"),
    ("--help", "show help and exit"),
];

/// Milliseconds that something takes at most which is there: far more than it needs.
const MOMENT_MS: u16 = 2000;

/// What a check needs of its surroundings.
struct Place {
    /// The fresh directory, or why there is none.
    dir: Result<String, SysError>,
    /// What it and the control group for trials are called.
    name: String,
}

/// What the command line asks for. Its words are leaked: the process ends with them.
struct Call {
    todo: Todo,
    path: Option<&'static str>,
    /// Checks, by bit.
    chosen: u64,
}

enum Todo {
    Run,
    List,
    Help,
    TimeOf,
    /// We are the program that a check starts.
    BeTheProgram,
}

/// What is wrong with a command line: a phrase and the word it ends with.
type Wrong = (&'static str, &'static str);

/// Runs `self-test` with the arguments after its name. 0: nothing that is required failed; 1: something
/// did; 2: the command line makes no sense.
pub fn main(arguments: &mut dyn Iterator<Item = OsString>) -> u8 {
    match read(arguments) {
        Ok(Call { todo, path, chosen }) => match todo {
            Todo::Run => runner::run(path, chosen),
            Todo::List => list(),
            Todo::Help => help(),
            Todo::TimeOf => time_of(path.unwrap_or_default()),
            Todo::BeTheProgram => starts::be_the_program(),
        },
        Err((why, word)) => {
            complain(&[why, word, "\nTry: multusd self-test --help, or --list for the names of checks"]);
            2
        }
    }
}

fn read(arguments: &mut dyn Iterator<Item = OsString>) -> Result<Call, Wrong> {
    let mut call = Call { todo: Todo::Run, path: None, chosen: u64::MAX };
    let mut next = || Some(&*arguments.next()?.to_string_lossy().into_owned().leak());
    while let Some(argument) = next() {
        let (option, given) = match argument.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (argument, None),
        };
        match option {
            "--list" => call.todo = Todo::List,
            "--help" | "-h" => call.todo = Todo::Help,
            // Not for people, so not among the options.
            "--as-program" => call.todo = Todo::BeTheProgram,
            "--time-of" | "--dir" | "--only" | "--except" => {
                let value = given.or_else(&mut next).ok_or(("a value is missing after ", option))?;
                match option {
                    "--only" => call.chosen &= names(value)?,
                    "--except" => call.chosen &= !names(value)?,
                    _ => call.path = Some(value),
                }
                if option == "--time-of" {
                    call.todo = Todo::TimeOf;
                }
                continue;
            }
            _ => return Err(("there is no option ", option)),
        }
        if given.is_some() {
            return Err(("no value belongs to ", option));
        }
    }
    Ok(call)
}

/// Which checks a list of names names.
fn names(list: &'static str) -> Result<u64, Wrong> {
    let mut named = 0;
    for name in list.split(',') {
        let mut number = 0;
        while check(number).ok_or(("there is no check ", name))?.name != name {
            number += 1;
        }
        named |= 1 << number;
    }
    Ok(named)
}

fn list() -> u8 {
    let mut number = 0;
    while let Some(check) = check(number) {
        let need = if check.is_required { " (required): " } else { " (helpful): " };
        say(&[check.name, need, check.what, ". Without it ", check.lost, ".\n"]);
        number += 1;
    }
    0
}

fn help() -> u8 {
    say(&["usage: multusd self-test [OPTION]…\n\n"]);
    for (option, what) in OPTIONS {
        say(&["  ", option, "\n      ", what, "\n"]);
    }
    say(&["\nExit code: 0 nothing required failed, 1 something did, 2 usage.\n"]);
    0
}

fn time_of(path: &str) -> u8 {
    match file::modified(path.as_ref()) {
        Ok(seconds) => {
            say(&[&seconds.to_string(), "\n"]);
            0
        }
        Err(error) => {
            complain(&[path, ": ", &verdict::in_words(&error)]);
            1
        }
    }
}

/// Writes to stdout, at once: should the next check take the machine down, its predecessor is known.
fn say(words: &[&str]) {
    // Whoever closed it does not want to know.
    let _ = console::output(words.concat().as_bytes());
}

fn complain(words: &[&str]) {
    console::complain(&["multusd self-test: ", &words.concat()].concat());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(words: &[&str]) -> Result<Call, Wrong> {
        read(&mut words.iter().map(OsString::from))
    }

    fn checks() -> Vec<table::Check> {
        (0..).map_while(check).collect()
    }

    fn chosen(words: &[&str]) -> Vec<&'static str> {
        match call(words) {
            Ok(Call { chosen, todo: Todo::Run, .. }) => {
                let checks = checks().into_iter().enumerate();
                checks.filter(|(at, _)| chosen >> at & 1 == 1).map(|(_, check)| check.name).collect()
            }
            _ => panic!("{words:?} is not understood"),
        }
    }

    #[test]
    fn checks_are_chosen_by_name() {
        assert_eq!(chosen(&[]).len(), checks().len());
        assert_eq!(chosen(&["--only", "pidfd,epoll"]), ["epoll", "pidfd"]);
        assert_eq!(chosen(&["--only=pidfd,epoll", "--except", "epoll"]), ["pidfd"]);
        assert!(!chosen(&["--except", "epoll"]).contains(&"epoll"));
    }

    #[test]
    fn a_name_that_is_none_is_named() {
        for (words, name) in
            [(["--except", "epol"], "epol"), (["--only", "epoll,"], ""), (["--only", ""], "")]
        {
            assert_eq!(call(&words).err(), Some(("there is no check ", name)), "{words:?}");
        }
        for words in [&["epoll"][..], &["--only"], &["--list=all"], &["--lst"]] {
            assert!(call(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn every_documented_option_is_understood() {
        for (option, _) in OPTIONS {
            let (long, value) = option.split_once(' ').unwrap_or((option, ""));
            let words = if value.is_empty() { vec![long] } else { vec![long, "epoll"] };
            assert!(call(&words).is_ok(), "{option}");
        }
    }

    #[test]
    fn the_table_is_well_formed() {
        let names: Vec<&str> = checks().iter().map(|check| check.name).collect();
        assert!(names.len() == table::COUNT && names.len() < 64);
        for (index, check) in checks().iter().enumerate() {
            let mut bytes = check.name.bytes();
            assert!(bytes.all(|byte| byte.is_ascii_lowercase() || b"0123456789-".contains(&byte)));
            assert!(!check.what.is_empty() && !check.lost.is_empty(), "{}", check.name);
            assert!(!names[..index].contains(&check.name), "{}", check.name);
        }
    }
}

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
use std::path::{Path, PathBuf};

use crate::sys::{SysError, console, file};
use table::{CHECKS, Need};

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
    dir: Result<PathBuf, SysError>,
    /// What it and the control group for trials are called.
    name: String,
}

/// What the command line asks for.
struct Call {
    todo: Todo,
    path: Option<PathBuf>,
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

/// Runs `self-test` with the arguments after its name. 0: nothing that is required failed; 1: something
/// did; 2: the command line makes no sense.
pub fn main(arguments: &mut dyn Iterator<Item = OsString>) -> u8 {
    match read(arguments) {
        Ok(Call { todo, path, chosen }) => match todo {
            Todo::Run => runner::run(path, chosen),
            Todo::List => list(),
            Todo::Help => help(),
            Todo::TimeOf => time_of(&path.unwrap_or_default()),
            Todo::BeTheProgram => starts::be_the_program(),
        },
        Err(text) => {
            complain(&[&text, "\nTry: multusd self-test --help"]);
            2
        }
    }
}

fn read(arguments: &mut dyn Iterator<Item = OsString>) -> Result<Call, String> {
    let mut call = Call { todo: Todo::Run, path: None, chosen: u64::MAX };
    while let Some(argument) = arguments.next() {
        let argument = argument.to_string_lossy();
        let (option, given) = match argument.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (&*argument, None),
        };
        let todo = match (option, given) {
            ("--list", None) => Todo::List,
            ("--help" | "-h", None) => Todo::Help,
            // Not for people, so not among the options.
            ("--as-program", None) => Todo::BeTheProgram,
            ("--time-of", _) => Todo::TimeOf,
            ("--dir" | "--only" | "--except", _) => Todo::Run,
            _ => return Err(["there is no option ", option].concat()),
        };
        if matches!(todo, Todo::Run | Todo::TimeOf) {
            let Some(value) = given.map(OsString::from).or_else(|| arguments.next()) else {
                return Err(["a value is missing after ", option].concat());
            };
            match option {
                "--only" => call.chosen &= names(&value)?,
                "--except" => call.chosen &= !names(&value)?,
                _ => call.path = Some(value.into()),
            }
        }
        if !matches!(todo, Todo::Run) {
            return Ok(Call { todo, ..call });
        }
    }
    Ok(call)
}

/// Which checks a list of names names.
fn names(list: &OsString) -> Result<u64, String> {
    let mut named = 0;
    for name in list.to_string_lossy().split(',') {
        match CHECKS.iter().position(|check| check.name() == name) {
            Some(index) => named |= 1 << index,
            None => {
                let mut text = ["there is no check `", name, "`; there are"].concat();
                for check in CHECKS {
                    text += " ";
                    text += check.name();
                }
                return Err(text);
            }
        }
    }
    Ok(named)
}

fn list() -> u8 {
    for check in CHECKS {
        let [name, what, lost] = check.words();
        let need = if check.need == Need::Required { " (required): " } else { " (helpful): " };
        say(&[name, need, what, ". Without it ", lost, ".\n"]);
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

fn time_of(path: &Path) -> u8 {
    match file::modified(path) {
        Ok(seconds) => {
            say(&[&seconds.to_string(), "\n"]);
            0
        }
        Err(error) => {
            complain(&[&path.to_string_lossy(), ": ", &verdict::in_words(&error)]);
            1
        }
    }
}

/// Writes to stdout, at once: should the next check take the machine down, its predecessor is known.
fn say(words: &[&str]) {
    // Whoever closed it does not want to know.
    let _ = console::output(&words.concat());
}

fn complain(words: &[&str]) {
    console::complain(&["multusd self-test: ", &words.concat()].concat());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(words: &[&str]) -> Result<Call, String> {
        read(&mut words.iter().map(OsString::from))
    }

    fn chosen(words: &[&str]) -> Vec<&'static str> {
        match call(words) {
            Ok(Call { chosen, todo: Todo::Run, .. }) => CHECKS
                .iter()
                .enumerate()
                .filter(|(at, _)| chosen >> at & 1 == 1)
                .map(|(_, c)| c.name())
                .collect(),
            _ => panic!("{words:?} is not understood"),
        }
    }

    #[test]
    fn checks_are_chosen_by_name() {
        assert_eq!(chosen(&[]).len(), CHECKS.len());
        assert_eq!(chosen(&["--only", "pidfd,epoll"]), ["epoll", "pidfd"]);
        assert_eq!(chosen(&["--only=pidfd,epoll", "--except", "epoll"]), ["pidfd"]);
        assert!(!chosen(&["--except", "epoll"]).contains(&"epoll"));
    }

    #[test]
    fn a_name_that_is_none_is_answered_by_those_there_are() {
        for words in [["--except", "epol"], ["--only", "epoll,"], ["--only", ""]] {
            assert!(call(&words).is_err_and(|text| text.contains("there are clock ")), "{words:?}");
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
    fn names_are_unique_and_fit_a_command_line() {
        assert!(CHECKS.len() <= 64, "each has its bit");
        for (index, check) in CHECKS.iter().enumerate() {
            assert!(check.words().iter().all(|words| !words.is_empty()));
            assert!(
                check.name().bytes().all(|byte| byte.is_ascii_lowercase() || b"0123456789-".contains(&byte))
            );
            assert!(CHECKS[..index].iter().all(|other| other.name() != check.name()), "{}", check.name());
        }
    }
}

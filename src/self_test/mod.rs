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

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::sys::{SysError, describe, file};
use table::{CHECKS, Check, Need};

/// Its options, as they are written, and what each does.
pub const OPTIONS: &[(&str, &str)] = &[
    (
        "--dir DIR",
        "use a fresh directory in DIR for files and sockets, instead of one in /run, or in $TMPDIR or /tmp where /run may not be written",
    ),
    ("--only NAME[,NAME...]", "make only these checks"),
    ("--except NAME[,NAME...]", "leave these checks out"),
    ("--list", "list the checks: what each tries, and what is lost without it"),
    ("--time-of FILE", "only print when FILE was last written, in seconds since 1970"),
    ("--help", "show help and exit"),
];

/// Milliseconds that something takes at most which is there: far more than it needs.
const MOMENT_MS: u16 = 2000;

/// What a check needs of its surroundings.
pub struct Place {
    /// The fresh directory, or why there is none.
    dir: Result<PathBuf, SysError>,
    /// What the control group for trials is called.
    group: String,
}

impl Place {
    /// A path in the fresh directory.
    fn path(&self, name: &str) -> Result<PathBuf, Finding> {
        match &self.dir {
            Ok(dir) => Ok(dir.join(name)),
            Err(error) => Err(Finding::Refused(*error)),
        }
    }
}

/// What a check found; nothing wrong, or why it did not come to that.
type Tried = Result<(), Finding>;

/// Why a check did not pass. Sentences that are put together are leaked: the process ends with them.
#[derive(Clone, Copy)]
enum Finding {
    /// The kernel refused a call: for something helpful that means it is not here.
    Refused(SysError),
    /// It is not here, in words.
    Absent(&'static str),
    /// It is here, and does not do what it should.
    Failed(&'static str),
}

impl From<SysError> for Finding {
    fn from(error: SysError) -> Self {
        Finding::Refused(error)
    }
}

/// `Ok` where it is so, else the sentence.
fn expect(is_so: bool, otherwise: &'static str) -> Tried {
    if is_so { Ok(()) } else { Err(Finding::Failed(otherwise)) }
}

/// What the standard library reports, as the rest of the product has it.
fn refused(operation: &'static str) -> impl FnOnce(std::io::Error) -> Finding {
    // An error without a number is none of the kernel's; 5 is EIO.
    move |error| Finding::Refused(SysError { operation, errno: error.raw_os_error().unwrap_or(5) })
}

/// A failed call, of which a helper process has told by its exit code.
fn in_helper(operation: &'static str, errno: u8) -> Finding {
    Finding::Refused(SysError { operation, errno: errno.into() })
}

/// The same words as everywhere, and the number, for whoever looks it up.
fn in_words(error: &SysError) -> String {
    [error.operation, ": ", describe(error.errno), " (errno ", &error.errno.to_string(), ")"].concat()
}

/// What the command line asks for.
enum Call {
    Run {
        dir: Option<PathBuf>,
        chosen: Vec<bool>,
    },
    Print(String),
    TimeOf(PathBuf),
    /// We are the program that a check starts.
    Probe,
}

/// Runs `self-test` with the arguments after its name. 0: nothing that is required failed; 1: something
/// did; 2: the command line makes no sense.
pub fn main(arguments: &mut dyn Iterator<Item = OsString>) -> u8 {
    match read(arguments) {
        Ok(Call::Run { dir, chosen }) => runner::run(dir, &chosen),
        Ok(Call::Print(text)) => {
            say(&text);
            0
        }
        Ok(Call::TimeOf(path)) => time_of(&path),
        Ok(Call::Probe) => starts::be_the_program(),
        Err(text) => {
            complain(&[&text, "\nTry: multusd self-test --help"].concat());
            2
        }
    }
}

fn read(arguments: &mut dyn Iterator<Item = OsString>) -> Result<Call, String> {
    use lexopt::prelude::*;
    let mut dir = None;
    let mut chosen = vec![true; CHECKS.len()];
    let mut parser = lexopt::Parser::from_args(arguments);
    let in_words = |error: lexopt::Error| error.to_string();
    while let Some(argument) = parser.next().map_err(in_words)? {
        match argument {
            Long("dir") => dir = Some(parser.value().map_err(in_words)?.into()),
            Long("only") => {
                let named = names(&parser.value().map_err(in_words)?)?;
                chosen.iter_mut().zip(named).for_each(|(chosen, named)| *chosen &= named);
            }
            Long("except") => {
                let named = names(&parser.value().map_err(in_words)?)?;
                chosen.iter_mut().zip(named).for_each(|(chosen, named)| *chosen &= !named);
            }
            Long("list") => return Ok(Call::Print(list())),
            Long("time-of") => return Ok(Call::TimeOf(parser.value().map_err(in_words)?.into())),
            Long("help") | Short('h') => return Ok(Call::Print(help())),
            // Not for people, so not among the options.
            Long("as-program") => return Ok(Call::Probe),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Call::Run { dir, chosen })
}

/// Which checks a list of names names.
fn names(list: &OsString) -> Result<Vec<bool>, String> {
    let list = list.to_string_lossy();
    let mut named = vec![false; CHECKS.len()];
    for name in list.split(',') {
        match CHECKS.iter().position(|check| check.name == name) {
            Some(index) => named[index] = true,
            None => {
                let known: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
                return Err(["there is no check `", name, "`; there are ", &known.join(", ")].concat());
            }
        }
    }
    Ok(named)
}

fn list() -> String {
    let mut text = String::new();
    for Check { name, need, what, lost, .. } in CHECKS {
        let need = if *need == Need::Required { "required" } else { "helpful" };
        text += &[name, " (", need, "): ", what, ". Without it ", lost, ".\n"].concat();
    }
    text
}

fn help() -> String {
    let mut text = String::from(
        "Tries every facility of this machine's kernel that multusd rests on.\n\n\
         usage: multusd self-test [OPTION]…\n\n",
    );
    for (option, what) in OPTIONS {
        text += &["  ", option, "\n      ", what, "\n"].concat();
    }
    text + "\nExit code: 0 nothing required failed, 1 something did, 2 usage.\n"
}

fn time_of(path: &Path) -> u8 {
    match file::modified(path) {
        Ok(seconds) => {
            say(&[&seconds.to_string(), "\n"].concat());
            0
        }
        Err(error) => {
            complain(&[&path.to_string_lossy(), ": ", &in_words(&error)].concat());
            1
        }
    }
}

/// Writes to stdout, at once: should the next check take the machine down, its predecessor is known.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever closed it does not want to know.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(text: &str) {
    let _ = std::io::stderr().write_all(["multusd self-test: ", text, "\n"].concat().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(words: &[&str]) -> Result<Call, String> {
        read(&mut words.iter().map(OsString::from))
    }

    fn chosen(words: &[&str]) -> Vec<&'static str> {
        match call(words) {
            Ok(Call::Run { chosen, .. }) => {
                CHECKS.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(check, _)| check.name).collect()
            }
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
            assert!(call(&words).is_err_and(|text| text.contains("there are clock,")), "{words:?}");
        }
        assert!(call(&["epoll"]).is_err());
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
        for (index, check) in CHECKS.iter().enumerate() {
            assert!(
                check.name.bytes().all(|byte| byte.is_ascii_lowercase() || b"0123456789-".contains(&byte))
            );
            assert!(CHECKS[..index].iter().all(|other| other.name != check.name), "{}", check.name);
        }
    }
}

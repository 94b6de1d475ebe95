//! `multusctl`: words to requests, replies to words. Decides nothing about programs; everything it
//! knows it asked the daemon for, and the daemon is never waited for without a deadline.
#![forbid(unsafe_code)]

pub mod complete;
pub mod man;
pub mod offline;
pub mod table;
mod values;

mod beat;
mod daemon;
mod daemon_call;
mod json;
mod key;
mod lines;
mod log;
mod nearest;
mod new;
mod orders;
mod reasons;
mod signals;
mod status;
mod wait;
mod watchdog;
mod words;

pub use daemon_call::{DaemonCall, daemon_call};

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::{Children, replaced};
use crate::sys::{console, describe};
use crate::time::Millis;
use table::Command;

/// Where the daemon's socket is unless the caller says otherwise.
const RUN_DIR: &str = "/run/multusd";

/// How a command ends. The numbers are promised to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or ordered.
    Ok = 0,
    /// Tried, without success.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A named program is not running.
    NotRunning = 3,
    /// No program has that name.
    NoSuchProgram = 4,
    /// The daemon does not allow it.
    Refused = 5,
    /// Not in time.
    TimedOut = 6,
    /// Nobody answers.
    NoDaemon = 7,
}

/// An end with a sentence for a person.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// How it ends.
    pub exit: Exit,
    /// Why; goes to stderr after `multusctl: `.
    pub text: String,
}

/// How a command ends, or why it could not get there.
pub type Outcome = Result<Exit, Failure>;

/// The command line, understood.
#[derive(Debug, Default)]
pub struct Call {
    children: Children,
    run_dir: PathBuf,
    timeout: Option<Millis>,
    json: bool,
    watch: bool,
    wait: bool,
    dry: bool,
    cancel: bool,
    force: bool,
    show: bool,
    set: bool,
    ready: bool,
    stopping: bool,
    follow: bool,
    sync: bool,
    usage: bool,
    stdout: bool,
    stderr: bool,
    past: bool,
    lines: Option<usize>,
    since: Option<Millis>,
    status: Option<String>,
    after: Option<Millis>,
    lasting: Option<Millis>,
    unit: Option<String>,
    language: Option<String>,
    arguments: Vec<String>,
    /// `check FILE`: the daemon's own, handed down.
    check: Option<fn(&str) -> u8>,
}

fn fail<T>(exit: Exit, text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { exit, text: text.into() })
}

/// Runs `multusctl` with these arguments (without argv[0]) and returns the exit code. `check` is what
/// `multusd --check` does.
pub fn main(arguments: impl Iterator<Item = OsString>, children: Children, check: fn(&str) -> u8) -> u8 {
    let outcome = match read(arguments.collect()) {
        Ok((call, Todo::Run(command))) => (command.run)(&Call { check: Some(check), children, ..call }),
        Ok((_, Todo::Print(text))) => print(&text),
        Err(failure) => Err(failure),
    };
    let exit = outcome.unwrap_or_else(|failure| {
        complain(&failure.text);
        failure.exit
    });
    exit as u8
}

/// What a command line asks for.
enum Todo {
    Run(&'static Command),
    Print(String),
}

fn read(arguments: Vec<OsString>) -> Result<(Call, Todo), Failure> {
    let mut call = Call { run_dir: RUN_DIR.into(), ..Call::default() };
    let mut command: Option<&'static Command> = None;
    let mut help = false;
    let mut given = Vec::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    loop {
        let argument = match parser.next() {
            Ok(Some(argument)) => argument,
            Ok(None) => break,
            Err(error) => return usage(command, &misunderstood(&error)),
        };
        let name = match argument {
            lexopt::Arg::Long(name) => name.to_string(),
            lexopt::Arg::Short(letter) => match table::LETTERS.iter().find(|known| known.0 == letter) {
                Some((_, long)) => long.to_string(),
                None => {
                    return usage(
                        command,
                        &["there is no option -", letter.encode_utf8(&mut [0; 4])].concat(),
                    );
                }
            },
            lexopt::Arg::Value(value) => {
                let Ok(value) = value.into_string() else {
                    return usage(command, "an argument is not UTF-8");
                };
                match command {
                    None => command = Some(known_command(&value)?),
                    Some(_) => call.arguments.push(value),
                }
                continue;
            }
        };
        match name.as_str() {
            "help" => help = true,
            "version" => return Ok((call, Todo::Print(version_line()))),
            _ => set(&mut call, &mut parser, command, &name)?,
        }
        given.push(name);
    }
    let Some(command) = command else {
        return if help { Ok((call, Todo::Print(table::help_all()))) } else { usage(None, "which command?") };
    };
    if help {
        return Ok((call, Todo::Print(table::help_one(command))));
    }
    // An option may stand before its command, so whether it belongs there is known only now.
    let allowed = || command.options.iter().chain(&table::COMMON);
    if let Some(other) = given.iter().find(|name| !allowed().any(|opt| opt.long == name.as_str())) {
        return usage(Some(command), &["multusctl ", command.name, " has no option --", other].concat());
    }
    if !command.count.contains(&call.arguments.len()) {
        let few = call.arguments.len() < *command.count.start();
        return usage(Some(command), if few { "an argument is missing" } else { "too many arguments" });
    }
    Ok((call, Todo::Run(command)))
}

/// Notes one option other than help and version.
fn set(
    call: &mut Call,
    parser: &mut lexopt::Parser,
    command: Option<&Command>,
    name: &str,
) -> Result<(), Failure> {
    let mut value = || parser.value().or_else(|error| usage(command, &misunderstood(&error)));
    match name {
        "run-dir" => call.run_dir = value()?.into(),
        "timeout" => call.timeout = Some(duration(command, name, &value()?)?),
        "in" => call.after = Some(duration(command, name, &value()?)?),
        "for" => call.lasting = Some(duration(command, name, &value()?)?),
        "unit" => call.unit = Some(value()?.to_string_lossy().into_owned()),
        "lang" => call.language = Some(value()?.to_string_lossy().into_owned()),
        "json" => call.json = true,
        "watch" => call.watch = true,
        "wait" => call.wait = true,
        "dry-run" => call.dry = true,
        "cancel" => call.cancel = true,
        "force" => call.force = true,
        "show" => call.show = true,
        "set" => call.set = true,
        "ready" => call.ready = true,
        "stopping" => call.stopping = true,
        "follow" => call.follow = true,
        "sync" => call.sync = true,
        "usage" => call.usage = true,
        "stdout" => call.stdout = true,
        "stderr" => call.stderr = true,
        "past" => call.past = true,
        "since" => call.since = Some(duration(command, name, &value()?)?),
        "lines" => {
            let value = value()?;
            let text = value.to_string_lossy();
            let Ok(count) = text.parse() else {
                let words = ["--lines ", &words::clean(&text), ": write how many, such as 100"];
                return usage(command, &words.concat());
            };
            call.lines = Some(count);
        }
        "status" => call.status = Some(value()?.to_string_lossy().into_owned()),
        _ => {
            let all = || table::COMMANDS.iter().flat_map(|command| command.options).chain(&table::COMMON);
            let hint = replaced(&nearest::suggestion(name, all().map(|opt| opt.long)), "mean ", "mean --");
            return usage(command, &["there is no option --", &words::clean(name), &hint].concat());
        }
    }
    Ok(())
}

fn duration(command: Option<&Command>, name: &str, value: &OsString) -> Result<Millis, Failure> {
    let text = value.to_string_lossy();
    match crate::config::read_duration(&text) {
        Some(time) => Ok(time),
        None => usage(
            command,
            &[
                "--",
                name,
                " ",
                &words::clean(&text),
                ": a time is a number and its unit, such as 500ms, 10s, 5min, 2h",
            ]
            .concat(),
        ),
    }
}

fn known_command(name: &str) -> Result<&'static Command, Failure> {
    match table::find(name) {
        Some(command) => Ok(command),
        None => {
            let hint = nearest::suggestion(name, table::shown().map(|command| command.name));
            usage(None, &["there is no command ", &words::clean(name), &hint].concat())
        }
    }
}

fn usage<T>(command: Option<&Command>, text: &str) -> Result<T, Failure> {
    let line = match command {
        Some(command) => ["\nusage: multusctl ", &table::usage(command)].concat(),
        None => "\nTry: multusctl --help".to_string(),
    };
    fail(Exit::Usage, [text, &line].concat())
}

/// What is wrong with a command line, as lexopt says it. It quotes by `{:?}`, for which there is no code
/// in an executable that ships.
fn misunderstood(error: &lexopt::Error) -> String {
    use lexopt::Error::{UnexpectedArgument, UnexpectedValue};
    let quoted = |value: &OsString| ["\"", &words::clean(&value.to_string_lossy()), "\""].concat();
    match error {
        UnexpectedArgument(value) => ["unexpected argument ", &quoted(value)].concat(),
        UnexpectedValue { option, value } => {
            ["unexpected argument for option '", option, "': ", &quoted(value)].concat()
        }
        other => other.to_string(),
    }
}

fn version_line() -> String {
    ["multusctl ", env!("CARGO_PKG_VERSION"), "\n"].concat()
}

fn version(_: &Call) -> Outcome {
    print(&version_line())
}

fn check(call: &Call) -> Outcome {
    Ok(offline_exit(call.check.map_or(Exit::Failed as u8, |check| check(&call.arguments[0]))))
}

fn help(call: &Call) -> Outcome {
    match call.arguments.first().map(String::as_str) {
        None => print(&table::help_all()),
        Some("keys") => Ok(offline_exit(offline::help(None, call.children))),
        Some(name) => match table::find(name) {
            Some(command) => print(&table::help_one(command)),
            None => Ok(offline_exit(offline::help(Some(name), call.children))),
        },
    }
}

fn offline_exit(code: u8) -> Exit {
    table::EXITS.iter().map(|(exit, ..)| *exit).find(|exit| *exit as u8 == code).unwrap_or(Exit::Failed)
}

fn completion(call: &Call) -> Outcome {
    match complete::script(&call.arguments[0]) {
        Some(script) => print(&script),
        None => usage(table::find("completion"), "the shell is bash, zsh or fish"),
    }
}

/// Writes to stdout, at once: a reader never sees half a table. `Failed` when nobody reads.
pub fn print(text: &str) -> Outcome {
    print_bytes(text.as_bytes())
}

/// The same of bytes that may be anything.
pub fn print_bytes(bytes: &[u8]) -> Outcome {
    match console::output(bytes) {
        Ok(()) => Ok(Exit::Ok),
        // A reader that went away (`| head`) knows why; anything else is worth a word.
        Err(error) if error.errno == libc::EPIPE => Ok(Exit::Failed),
        Err(error) => fail(Exit::Failed, ["cannot write: ", describe(error.errno)].concat()),
    }
}

/// The same for a program that is called otherwise.
pub fn complain_as(name: &str, text: &str) {
    console::complain(&[name, ": ", text].concat());
}

/// A sentence for stderr. A stderr that is closed is no reason to fail.
fn complain(text: &str) {
    complain_as("multusctl", text);
}

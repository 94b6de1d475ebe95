//! The one table of commands and options. Help, manual pages and shell completion are derived
//! from it, so a new command is one row here and one function.

use super::{Call, Exit, Outcome, beat, key, lines, log, new, orders, reasons, status, values, watchdog};

/// What an argument is, for completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// No arguments.
    Nothing,
    /// Program names and patterns.
    Programs,
    /// Program names, the last argument is a signal.
    ProgramsAndSignal,
    /// A file.
    File,
    /// A level to set.
    Level,
    /// A shell's name.
    Shell,
    /// A command's name or a configuration key.
    Key,
}

/// An option.
#[derive(Debug, PartialEq, Eq)]
pub struct Opt {
    /// Its name, without the dashes.
    pub long: &'static str,
    /// What its value is called; empty: it takes none.
    pub value: &'static str,
    /// What it does: a phrase that follows the option in a list.
    pub what: &'static str,
}

/// What help and manual page say of an applet: another program in this binary.
#[derive(Debug)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// What it does: a phrase that follows the name in a list.
    pub what: &'static str,
    /// Its options, as they are written, with what each does; none where it has a page of its own.
    pub options: &'static [(&'static str, &'static str)],
}

/// A command.
#[derive(Debug)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, as they stand in the usage line.
    pub arguments: &'static str,
    /// How many it takes.
    pub count: std::ops::RangeInclusive<usize>,
    /// What they are.
    pub takes: Takes,
    /// Options besides the common ones.
    pub options: &'static [&'static Opt],
    /// What it does, in one sentence. Empty: the command is not shown.
    pub what: &'static str,
    /// The rest of what there is to say; empty: nothing.
    pub more: &'static str,
    /// Does it.
    pub run: fn(&Call) -> Outcome,
}

/// Options every command takes.
pub const COMMON: [&Opt; 4] = [
    &Opt {
        long: "run-dir",
        value: "DIR",
        what: "talk to the daemon whose run directory is DIR, instead of /run/multusd",
    },
    &Opt {
        long: "timeout",
        value: "TIME",
        what: "give up after TIME (such as 500ms, 10s, 5min); 10s, with --wait 60s",
    },
    &Opt { long: "help", value: "", what: "show help, of the command if there is one, and exit" },
    &Opt { long: "version", value: "", what: "show the version and exit" },
];

const JSON: &Opt = &Opt { long: "json", value: "", what: "write JSON for programs" };
const WATCH: &Opt = &Opt { long: "watch", value: "", what: "stay and show every change; Ctrl-C ends" };
const WAIT: &Opt =
    &Opt { long: "wait", value: "", what: "return when it has happened, not when it is ordered" };
const DRY_RUN: &Opt = &Opt { long: "dry-run", value: "", what: "only say what would change" };
const IN: &Opt = &Opt { long: "in", value: "TIME", what: "do it after TIME, such as 5min" };
const FOR: &Opt = &Opt {
    long: "for",
    value: "TIME",
    what: "it is to be believed for TIME, such as 30s; else until it changes",
};
const LANG: &Opt = &Opt { long: "lang", value: "LANGUAGE", what: "rust, c, python or sh" };
const UNIT: &Opt = &Opt { long: "unit", value: "UNIT", what: "what it is measured in" };
const CANCEL: &Opt = &Opt { long: "cancel", value: "", what: "take a pending reboot or poweroff back" };

const FORCE: &Opt = &Opt { long: "force", value: "", what: "do it even while its program runs" };
const REPLACE: &Opt = &Opt { long: "force", value: "", what: "replace the key that is there" };
const SHOW: &Opt =
    &Opt { long: "show", value: "", what: "print the key, to be brought to the other machine" };
const SET: &Opt =
    &Opt { long: "set", value: "", what: "take the key from standard input instead of making one" };
const READY: &Opt = &Opt { long: "ready", value: "", what: "say that the program serves (ready = notify)" };
const STATUS: &Opt =
    &Opt { long: "status", value: "TEXT", what: "say TEXT of the program, which status shows" };

const STOPPING: &Opt = &Opt { long: "stopping", value: "", what: "say that the program is about to end" };

const FOLLOW: &Opt = &Opt { long: "follow", value: "", what: "go on with what comes; Ctrl-C ends" };
const LINES: &Opt = &Opt { long: "lines", value: "N", what: "the last N; 100 unless --since says when" };
const SINCE: &Opt = &Opt { long: "since", value: "TIME", what: "what is not older than TIME, such as 5min" };
const STDOUT: &Opt = &Opt { long: "stdout", value: "", what: "only what went to standard output" };
const STDERR: &Opt = &Opt { long: "stderr", value: "", what: "only what went to standard error" };
const SYNC: &Opt = &Opt {
    long: "sync",
    value: "",
    what: "instead, return when everything that programs have written by now is on storage",
};
const USAGE: &Opt =
    &Opt { long: "usage", value: "", what: "instead, show what each log has cost storage, today and in all" };
const PAST: &Opt = &Opt { long: "past", value: "", what: "only what has happened by now" };
const LAST: &Opt = &Opt { long: "lines", value: "N", what: "first the last N, at most 256" };

/// The letters of options that have one besides their name.
pub const LETTERS: [(char, &str); 3] = [('h', "help"), ('f', "follow"), ('n', "lines")];

const NAMES: &str = "NAME...|all";

/// The commands, in the order in which they are shown. Never sorted: what is needed most is first.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "status",
        arguments: "[NAME...]",
        count: 0..=usize::MAX,
        takes: Takes::Programs,
        options: &[JSON, WATCH],
        what: "Shows the daemon and every program, or the named programs.",
        more: "With names it exits with 3 if one of them is in another state than running.",
        run: status::status,
    },
    Command {
        name: "start",
        arguments: NAMES,
        count: 1..=usize::MAX,
        takes: Takes::Programs,
        options: &[WAIT],
        what: "Runs programs and keeps them running.",
        more: "With --wait it returns when they are running (ready, where they tell).",
        run: orders::start,
    },
    Command {
        name: "stop",
        arguments: NAMES,
        count: 1..=usize::MAX,
        takes: Takes::Programs,
        options: &[WAIT],
        what: "Stops programs; they stay stopped until they are started.",
        more: "With --wait it returns when nothing of them is left.",
        run: orders::stop,
    },
    Command {
        name: "restart",
        arguments: NAMES,
        count: 1..=usize::MAX,
        takes: Takes::Programs,
        options: &[WAIT],
        what: "Stops programs and starts them again.",
        more: "With --wait it returns when their new processes are running.",
        run: orders::restart,
    },
    Command {
        name: "once",
        arguments: NAMES,
        count: 1..=usize::MAX,
        takes: Takes::Programs,
        options: &[WAIT],
        what: "Runs programs once, without starting them again when they end.",
        more: "With --wait it returns when they have ended, with 1 unless all ended with exit code 0.",
        run: orders::once,
    },
    Command {
        name: "pause",
        arguments: NAMES,
        count: 1..=usize::MAX,
        takes: Takes::Programs,
        options: &[],
        what: "Freezes programs (SIGSTOP); their outputs go to the safe level.",
        more: "",
        run: orders::pause,
    },
    Command {
        name: "cont",
        arguments: NAMES,
        count: 1..=usize::MAX,
        takes: Takes::Programs,
        options: &[],
        what: "Lets paused programs continue (SIGCONT).",
        more: "",
        run: orders::cont,
    },
    Command {
        name: "signal",
        arguments: "NAME... SIGNAL",
        count: 2..=usize::MAX,
        takes: Takes::ProgramsAndSignal,
        options: &[],
        what: "Sends a signal to the main processes of programs.",
        more: "SIGNAL is a name (HUP, SIGHUP), a number (1), or reload for what the program's \
               configuration says under reload.",
        run: orders::signal,
    },
    Command {
        name: "reload",
        arguments: "",
        count: 0..=0,
        takes: Takes::Nothing,
        options: &[DRY_RUN, WAIT],
        what: "Reads the configuration again and applies what changed.",
        more: "A configuration with errors changes nothing and exits with 1. With --wait it returns \
               when no program is on its way up or down any more.",
        run: orders::reload,
    },
    Command {
        name: "log",
        arguments: "[NAME...]",
        count: 0..=usize::MAX,
        takes: Takes::Programs,
        options: &[FOLLOW, LINES, SINCE, STDOUT, STDERR, JSON, SYNC, USAGE],
        what: "Shows what programs write, wherever it is by now: the last lines of all, or of the named programs.",
        more: "Also what is in no file yet, or never will be. Lines of several programs stand in the order of their \
               dates, with the name before the text; -- begins what multusd says. It costs nobody anything who reads, \
               or does not read, this. With --json each line is an object on its own line.",
        run: log::log,
    },
    Command {
        name: "events",
        arguments: "",
        count: 0..=0,
        takes: Takes::Nothing,
        options: &[LAST, PAST, JSON],
        what: "Shows every change of state from now on; Ctrl-C ends.",
        more: "The time is in seconds since boot. Events are numbered: what is missing is said. multusd remembers 256. \
               With --json each event is an object on its own line.",
        run: status::events,
    },
    Command {
        name: "inputs",
        arguments: "",
        count: 0..=0,
        takes: Takes::Nothing,
        options: &[JSON],
        what: "Shows every input: its level, how often and when it last changed.",
        more: "",
        run: lines::inputs,
    },
    Command {
        name: "outputs",
        arguments: "[set NAME high|low|on|off]",
        count: 0..=3,
        takes: Takes::Level,
        options: &[JSON, FORCE],
        what: "Shows every output: its level and whose that is; or sets one.",
        more: "high and low are the voltage, on and off what it means. Setting one is for putting a machine \
               into service; it is refused while the output's program runs. The next start makes it safe \
               first.",
        run: lines::outputs,
    },
    Command {
        name: "beat",
        arguments: "[OUTPUT=on|off...]",
        count: 0..=usize::MAX,
        takes: Takes::Nothing,
        options: &[READY, STATUS, STOPPING],
        what: "Says that the program that calls it makes progress: for scripts that multusd runs.",
        more: "By whatever means its heartbeat has, and on NOTIFY_SOCKET; one by tcp needs a program that stays \
               connected. Before that it switches outputs that the program owns.",
        run: beat::beat,
    },
    Command {
        name: "watchdog",
        arguments: "",
        count: 0..=0,
        takes: Takes::Nothing,
        options: &[JSON],
        what: "Shows the watchdogs, whether they are fed, and the temperature.",
        more: "It exits with 1 if one of them is not armed or not fed.",
        run: watchdog::watchdog,
    },
    Command {
        name: "values",
        arguments: "",
        count: 0..=0,
        takes: Takes::Nothing,
        options: &[JSON],
        what: "Shows the values that programs publish for others, and how old they are.",
        more: "multusd.failing counts programs that are down and will be tried again; multusd.failed what is given up or held, \
               outputs that are not confirmed safe, watchdogs that are not fed.",
        run: values::values,
    },
    Command {
        name: "publish",
        arguments: "NAME=VALUE",
        count: 1..=1,
        takes: Takes::Nothing,
        options: &[FOR, UNIT],
        what: "Publishes a value for programs that look for it, such as tank=12.5 or tank=unknown.",
        more: "A program's own are called after it: MULTUSD_VALUE=outside -23.5 unit=C for=5s on the NOTIFY_SOCKET of the program \
               sensors is sensors.outside.",
        run: values::publish,
    },
    Command {
        name: "reasons",
        arguments: "",
        count: 0..=0,
        takes: Takes::Nothing,
        options: &[JSON],
        what: "Shows the last 16 boots of the machine, how each ended and why, the newest first.",
        more: "They are kept in state_dir. Reset by the watchdog is what its driver says; that of a Raspberry Pi says \
               nothing, and then a feed that was withheld is what there is to know.",
        run: reasons::reasons,
    },
    Command {
        name: "reboot",
        arguments: "",
        count: 0..=0,
        takes: Takes::Nothing,
        options: &[IN, CANCEL],
        what: "Stops everything in order and reboots the machine.",
        more: "",
        run: orders::reboot,
    },
    Command {
        name: "poweroff",
        arguments: "",
        count: 0..=0,
        takes: Takes::Nothing,
        options: &[IN, CANCEL],
        what: "Stops everything in order and powers the machine off.",
        more: "",
        run: orders::power_off,
    },
    Command {
        name: "renew",
        arguments: "",
        count: 0..=0,
        takes: Takes::Nothing,
        options: &[],
        what: "Goes on as the multusd that is on storage now, another version maybe; programs run on.",
        more: "It is tried first. One that does not run here, or cannot take over from this version, changes nothing.",
        run: orders::renew,
    },
    Command {
        name: "quit",
        arguments: "",
        count: 0..=0,
        takes: Takes::Nothing,
        options: &[WAIT],
        what: "Stops everything in order and ends the daemon.",
        more: "With --wait it returns when the daemon has ended.",
        run: orders::quit,
    },
    Command {
        name: "check",
        arguments: "FILE",
        count: 1..=1,
        takes: Takes::File,
        options: &[],
        what: "Reads a configuration file and reports all its errors; needs no daemon.",
        more: "",
        run: super::check,
    },
    Command {
        name: "new",
        arguments: "NAME",
        count: 1..=1,
        takes: Takes::Nothing,
        options: &[LANG],
        what: "Writes a program for multusd to begin with, its section and a test that breaks it, into the directory NAME.",
        more: "Needs no daemon.",
        run: new::new,
    },
    Command {
        name: "key",
        arguments: "NAME",
        count: 1..=1,
        takes: Takes::Nothing,
        options: &[SHOW, SET, REPLACE],
        what: "Makes a key that this machine shares with another, in /etc/multusd/keys.",
        more: "Needs no daemon. Only root and dido can read it. The other machine gets it by: multusctl key --show hall-2 | \
               ssh root@OTHER multusctl key --set hall-2. A path instead of a name is taken, too.",
        run: key::key,
    },
    Command {
        name: "help",
        arguments: "[COMMAND|KEY|keys]",
        count: 0..=1,
        takes: Takes::Key,
        options: &[],
        what: "Explains a command or a configuration key; needs no daemon.",
        more: "multusctl help keys lists the configuration keys.",
        run: super::help,
    },
    Command {
        name: "version",
        arguments: "",
        count: 0..=0,
        takes: Takes::Nothing,
        options: &[],
        what: "Shows the version; needs no daemon.",
        more: "",
        run: super::version,
    },
    Command {
        name: "completion",
        arguments: "bash|zsh|fish",
        count: 1..=1,
        takes: Takes::Shell,
        options: &[],
        what: "Writes the completion script for a shell; needs no daemon.",
        more: "",
        run: super::completion,
    },
    Command {
        name: "names",
        arguments: "",
        count: 0..=0,
        takes: Takes::Nothing,
        options: &[],
        what: "",
        more: "",
        run: status::names,
    },
];

/// What NAME means, wherever it stands.
pub const NAMES_HELP: &str = "NAME is a program's name, a pattern (web_* is every name that begins with web_; quote \
                              it), or all. Nothing is done unless every name is known.";

/// Exit codes, each with its word and what it says.
pub const EXITS: [(Exit, &str, &str); 8] = [
    (Exit::Ok, "ok", "done, or ordered"),
    (Exit::Failed, "failed", "it was tried and did not succeed, or the configuration has errors"),
    (Exit::Usage, "usage", "the command line makes no sense"),
    (Exit::NotRunning, "not running", "a named program is not running"),
    (Exit::NoSuchProgram, "no such program", "no program has that name"),
    (Exit::Refused, "refused", "the daemon does not allow it, or does not know the request"),
    (Exit::TimedOut, "timed out", "there was no answer, or it did not happen, in time"),
    (Exit::NoDaemon, "no daemon", "nobody answers in the run directory, or the daemon went away"),
];

/// Commands that are shown.
pub fn shown() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().filter(|command| !command.what.is_empty())
}

/// The command with this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// An option as it is written: `--in TIME`.
pub fn spelled(opt: &Opt) -> String {
    let gap = if opt.value.is_empty() { "" } else { " " };
    ["--", opt.long, gap, opt.value].concat()
}

/// The letter of an option, with its dash, or nothing.
pub fn letter(opt: &Opt) -> String {
    let letter = LETTERS[1..].iter().find(|(_, long)| *long == opt.long);
    letter.map_or_else(String::new, |(letter, _)| ['-', *letter].iter().collect())
}

/// An option with its letter: `-f, --follow`.
pub fn both(opt: &Opt) -> String {
    let letter = letter(opt);
    let comma = if letter.is_empty() { "" } else { ", " };
    [&*letter, comma, &spelled(opt)].concat()
}

/// The usage line of a command, without `multusctl`.
pub fn usage(command: &Command) -> String {
    let mut line = command.name.to_string();
    for opt in command.options {
        line += &[" [", &spelled(opt), "]"].concat();
    }
    if !command.arguments.is_empty() {
        line += " ";
        line += command.arguments;
    }
    line
}

/// Help for everything.
pub fn help_all() -> String {
    let mut text = String::from("usage: multusctl [OPTION...] COMMAND [ARGUMENT...]\n\ncommands:\n");
    for command in shown() {
        entry(
            &mut text,
            &[command.name, if command.arguments.is_empty() { "" } else { " " }, command.arguments].concat(),
            command.what,
        );
    }
    text += "\noptions:\n";
    for opt in COMMON {
        entry(&mut text, &spelled(opt), opt.what);
    }
    text += "\n";
    wrapped(&mut text, 0, NAMES_HELP);
    text += "\nexit codes:\n";
    for (exit, word, what) in EXITS {
        entry(&mut text, &[&(exit as u8).to_string(), " ", word].concat(), what);
    }
    text
}

/// Help for one command.
pub fn help_one(command: &Command) -> String {
    let mut text = String::new();
    wrapped(&mut text, 0, &["usage: multusctl ", &usage(command)].concat());
    text += "\n";
    wrapped(&mut text, 0, command.what);
    wrapped(&mut text, 0, command.more);
    if matches!(command.takes, Takes::Programs | Takes::ProgramsAndSignal) {
        wrapped(&mut text, 0, NAMES_HELP);
    }
    text += "\noptions:\n";
    for opt in command.options.iter().chain(&COMMON) {
        entry(&mut text, &both(opt), opt.what);
    }
    text
}

/// Columns of the help texts: what an 80 column serial console shows.
const WIDTH: usize = 79;

/// Column where the explanations begin.
const INDENT: usize = 29;

/// One line of a list: what on the left, its explanation on the right.
fn entry(text: &mut String, left: &str, right: &str) {
    *text += "  ";
    *text += left;
    let column = 2 + left.len();
    if column + 2 > INDENT {
        *text += "\n";
        wrapped(text, INDENT, right);
        return;
    }
    let mut explanation = String::new();
    wrapped(&mut explanation, INDENT, right);
    *text += &explanation[column.min(explanation.len())..];
}

/// Appends words, broken into lines that begin at `indent`.
fn wrapped(text: &mut String, indent: usize, words: &str) {
    let mut column = 0;
    for word in words.split_whitespace() {
        if column == 0 || column + 1 + word.len() > WIDTH {
            if column > 0 {
                *text += "\n";
            }
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else {
            *text += " ";
            column += 1;
        }
        *text += word;
        column += word.len();
    }
    if column > 0 {
        *text += "\n";
    }
}

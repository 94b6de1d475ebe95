//! The table of keys: every key is one row, and everything said or done about it comes from there.
//!
//! This file has what a row is; the rows stand in [`super::program_keys`] (what runs and when) and
//! [`super::process_keys`] (what a process is given).

use super::assemble::Draft;
use super::child::{self, Child, Children};
use super::text::short;
use super::value::{self, DURATION_MS_MAX, Wrong};
use super::words;
use crate::limits::{INPUT_COUNT_MAX, OUTPUT_COUNT_MAX, PROGRAM_COUNT_MAX, WATCHDOG_COUNT_MAX};
use crate::time::Millis;

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `[multusd]`
    Daemon,
    /// `[program:NAME]`
    Program,
    /// `[include]`
    Include,
    /// `[input:NAME]`
    Input,
    /// `[output:NAME]`
    Output,
    /// `[watchdog]`, `[watchdog:NAME]`
    Watchdog,
    /// `[temperature]`
    Temperature,
    /// `[log]`
    Log,
    /// `[system]`
    System,
    /// `[modbus]`, `[dido:NAME]`: one of a bundled child.
    Child(&'static Child),
}

/// Whether a section has a name after its colon.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Never,
    Maybe,
    Always,
}

impl Section {
    pub(super) fn header(self) -> &'static str {
        match self {
            Section::Daemon => "[multusd]",
            Section::Program => "[program:NAME]",
            Section::Include => "[include]",
            Section::Input => "[input:NAME]",
            Section::Output => "[output:NAME]",
            Section::Watchdog => "[watchdog]",
            Section::Temperature => "[temperature]",
            Section::Log => "[log]",
            Section::System => "[system]",
            Section::Child(child) => child.header,
        }
    }

    /// Before the colon.
    pub(super) fn word(self) -> &'static str {
        self.header().trim_start_matches('[').split([':', ']']).next().unwrap_or("")
    }

    pub(super) fn named(self) -> Named {
        match self {
            Section::Program | Section::Input | Section::Output => Named::Always,
            Section::Watchdog => Named::Maybe,
            Section::Child(child) if child.named => Named::Always,
            _ => Named::Never,
        }
    }

    /// How many there may be, what they are called, and where they are counted.
    pub(super) fn count_max(self) -> (usize, &'static str, usize) {
        match self {
            Section::Program => (PROGRAM_COUNT_MAX, "programs", 0),
            Section::Input => (INPUT_COUNT_MAX, "inputs", 1),
            Section::Output => (OUTPUT_COUNT_MAX, "outputs", 2),
            Section::Watchdog => (WATCHDOG_COUNT_MAX, "watchdogs", 3),
            _ => (usize::MAX, "", COUNTED),
        }
    }

    /// All of them.
    pub(super) fn all(children: Children) -> impl Iterator<Item = Section> {
        groups(children).map(|group| group.section)
    }
}

/// Where sections are counted that may be there any number of times.
pub(super) const COUNTED: usize = 4;

/// One key.
pub struct Key {
    /// Name, default, example and help, separated by NUL. One text, because each further one costs
    /// 16 bytes and a relocation of 24 in every row.
    texts: &'static str,
    /// What a value is, and where it goes.
    pub(super) kind: Kind,
    /// The web page may change it. Never what makes a program run something, or run as somebody:
    /// whoever may set that is root.
    pub(super) web: bool,
    /// A running program has to be restarted for it.
    pub(super) restart: bool,
}

/// A row: name, kind, default (as it would be written, or in words in parentheses), example (a value
/// that is right, or two with " or " between them), help (sentences, of which the first must do alone).
macro_rules! key {
    ($name:literal, $kind:expr, $default:literal, $example:literal, $help:literal $(,)?) => {
        $crate::config::row(concat!($name, "\0", $default, "\0", $example, "\0", $help), $kind)
    };
}
pub(crate) use key;

/// A row of its texts.
pub const fn row(texts: &'static str, kind: Kind) -> Key {
    Key { texts, kind, web: false, restart: false }
}

impl Key {
    /// The web page may change it.
    pub(super) const fn web(mut self) -> Self {
        self.web = true;
        self
    }

    /// A change restarts the program.
    pub(super) const fn restart(mut self) -> Self {
        self.restart = true;
        self
    }

    fn text(&self, index: usize) -> &'static str {
        self.texts.split('\0').nth(index).unwrap_or("")
    }

    pub(super) fn name(&self) -> &'static str {
        self.text(0)
    }

    /// As it would be written, or in words in parentheses.
    pub(super) fn default(&self) -> &'static str {
        self.text(1)
    }

    /// The default's text, none where it is only described.
    pub(super) fn default_text(&self) -> Option<&'static str> {
        let text = self.default();
        if text.starts_with('(') { None } else { Some(text) }
    }

    /// A value that is right; two are separated by " or ".
    pub(super) fn example(&self) -> &'static str {
        self.text(2)
    }

    /// The same, one by one.
    pub(super) fn examples(&self) -> impl Iterator<Item = &'static str> {
        let text = self.example();
        let (first, second) = match words::find(text, " or ") {
            None => (text, None),
            Some(at) => (&text[..at], Some(&text[at + 4..])),
        };
        [first].into_iter().chain(second)
    }

    /// Sentences. The first one does alone.
    pub(super) fn help(&self) -> &'static str {
        self.text(3)
    }

    /// Reads `text` and puts it where it belongs.
    pub(super) fn set(&self, draft: &mut Draft, text: &str) -> Result<(), String> {
        self.kind.set(draft, text).map_err(|wrong| {
            let example = self.example();
            match wrong {
                Wrong::Kind => format!("is not {}; write for example {example}", self.kind.noun()),
                Wrong::Range => {
                    format!("is out of range ({}); write for example {example}", self.kind.range())
                }
                Wrong::Unit => format!("has no unit; write for example {example}"),
                Wrong::Say(says) => says,
            }
        })
    }
}

/// `key = "value" <why>`.
pub(super) fn sentence(key: &Key, value: &str, why: &str) -> String {
    if value.is_empty() {
        return format!("{} {why}", key.name());
    }
    // Who may enter with which password is not for everybody who reads what is wrong.
    let value = match value.split_once("://") {
        Some((scheme, rest)) => [scheme, "://…", rest.rfind('@').map_or("", |at| &rest[at..])].concat(),
        None => short(value),
    };
    format!("{} = \"{value}\" {why}", key.name())
}

/// What a value is. The function puts it where it belongs.
pub enum Kind {
    /// Accepted for Supervisor's sake, without effect.
    NoEffect,
    /// A word.
    Word(fn(&mut Draft, String)),
    /// An absolute path.
    Path(fn(&mut Draft, String)),
    /// `true` or `false`.
    Bool(fn(&mut Draft, bool)),
    /// A whole number from … to.
    Number(i64, i64, fn(&mut Draft, i64)),
    /// A time of at least so many milliseconds; without unit it is seconds.
    Seconds(u64, fn(&mut Draft, Millis)),
    /// A time of at least so many milliseconds; the unit must be written.
    Duration(u64, fn(&mut Draft, Millis)),
    /// The same, or `never`.
    DurationOrNever(u64, fn(&mut Draft, Option<Millis>)),
    /// A size of at least so many bytes.
    Size(u64, fn(&mut Draft, u64)),
    /// One of these words.
    Choice(&'static [&'static str], fn(&mut Draft, usize)),
    /// A command.
    Command(fn(&mut Draft, Vec<String>)),
    /// Names, separated by commas or spaces; may be empty.
    Names(fn(&mut Draft, Vec<String>)),
    /// A resource limit by its RLIMIT_ number (as on every architecture but MIPS), in bytes or not.
    Limit(u32, bool),
    /// Something of its own: what it is called, and how it is read.
    Other(&'static str, fn(&mut Draft, &str) -> Result<(), Wrong>),
    /// The same of a child, which reads it by itself.
    Own(&'static str, fn(&str) -> Result<(), Wrong>),
}

impl Kind {
    fn set(&self, draft: &mut Draft, text: &str) -> Result<(), Wrong> {
        let at_least = |min: u64, value: Millis| if value.0 < min { Err(Wrong::Range) } else { Ok(value) };
        match self {
            Kind::NoEffect => {}
            Kind::Word(_) if text.chars().any(|c| c.is_whitespace() || c.is_control()) => {
                return Err(Wrong::Kind);
            }
            Kind::Word(set) => set(draft, text.into()),
            Kind::Path(set) => set(draft, path(text)?),
            Kind::Bool(set) => set(draft, value::boolean(text)?),
            Kind::Number(min, max, set) => set(draft, value::number(text, *min, *max)?),
            Kind::Seconds(min, set) => set(draft, at_least(*min, value::duration(text, true)?)?),
            Kind::Duration(min, set) => set(draft, at_least(*min, value::duration(text, false)?)?),
            Kind::DurationOrNever(_, set) if text == "never" => set(draft, None),
            Kind::DurationOrNever(min, set) => {
                set(draft, Some(at_least(*min, value::duration(text, false)?)?))
            }
            Kind::Size(min, set) => match value::size(text)? {
                size if size < *min => return Err(Wrong::Range),
                size => set(draft, size),
            },
            Kind::Choice(words, set) => {
                let index = words.iter().position(|word| word.eq_ignore_ascii_case(text));
                set(draft, index.ok_or(Wrong::Kind)?);
            }
            Kind::Command(set) => set(draft, words::command(text)?),
            Kind::Names(set) => set(draft, words::names(text)),
            Kind::Limit(resource, bytes) => {
                let read = if *bytes { value::size } else { value::unsigned };
                let (soft, hard) = value::limit(text, read)?;
                draft.program.rlimits.push((*resource, soft, hard));
            }
            Kind::Other(_, set) => set(draft, text)?,
            Kind::Own(_, check) => check(text)?,
        }
        Ok(())
    }

    /// Whether `key =` with nothing after it says something.
    pub(super) fn may_be_empty(&self) -> bool {
        match self {
            Kind::Names(_) | Kind::NoEffect => true,
            Kind::Other(noun, _) => *noun == ENVIRONMENT,
            _ => false,
        }
    }

    /// What it is, after "is" or "is not".
    pub(super) fn noun(&self) -> String {
        match self {
            Kind::NoEffect => "anything",
            Kind::Word(_) => "a word without spaces",
            Kind::Path(_) => "an absolute path",
            Kind::Bool(_) => "true or false",
            Kind::Number(..) => "a whole number",
            Kind::Seconds(..) => "a number of seconds",
            Kind::Duration(..) => "a time with its unit (ms, s, min, h, d)",
            Kind::DurationOrNever(..) => "a time with its unit (ms, s, min, h, d) or never",
            Kind::Size(..) => "a size (bytes, or with KB, MB, GB)",
            Kind::Choice(words, _) => return format!("one of {}", words.join(", ")),
            Kind::Command(_) => "a command",
            Kind::Names(_) => "a list of names",
            Kind::Limit(_, true) => "a limit (SIZE, SOFT:HARD or unlimited)",
            Kind::Limit(_, false) => "a limit (NUMBER, SOFT:HARD or unlimited)",
            Kind::Other(noun, _) | Kind::Own(noun, _) => noun,
        }
        .into()
    }

    /// The bounds; empty where there are none.
    pub(super) fn range(&self) -> String {
        match self {
            Kind::Number(min, max, _) => format!("{min} to {max}"),
            Kind::Seconds(min, _) | Kind::Duration(min, _) | Kind::DurationOrNever(min, _) => {
                format!(
                    "{} to {}d",
                    if *min == 0 { "0".into() } else { format!("{min}ms") },
                    DURATION_MS_MAX / 86_400_000
                )
            }
            Kind::Size(min, _) if *min > 0 => format!("{min} bytes or more"),
            Kind::Other(noun, _) => match *noun {
                EXIT_CODES => "0 to 255",
                SIGNAL | RELOAD => "signals 1 to 64",
                UMASK => "0 to 0777",
                CPUS => "CPUs 0 to 127",
                SCHEDULING => "1 to 99",
                IOPRIO => "0 to 7",
                READY => "descriptors 3 to 1023",
                RETRIES => "0 to 4294967295",
                LINE => "0 to 57 on the header",
                DEGREES => "-999.999 to 999.999",
                CHECKS => "1 to 32",
                RING => "64KB to 16MB",
                _ => "",
            }
            .into(),
            Kind::Size(..) | Kind::Limit(..) => "0 to 18446744073709551615".into(),
            _ => String::new(),
        }
    }
}

// What the kinds of their own are called.
pub(super) const ENVIRONMENT: &str = "a list such as KEY=\"value\",OTHER=\"value\"";
pub(super) const EXIT_CODES: &str = "a list of exit codes";
pub(super) const SIGNAL: &str = "the name or number of a signal";
pub(super) const RELOAD: &str = "a signal or a command";
pub(super) const UMASK: &str = "an octal number";
pub(super) const CPUS: &str = "a list of CPUs";
pub(super) const SCHEDULING: &str = "other, batch, idle, fifo:N or rr:N";
pub(super) const IOPRIO: &str = "idle, best-effort:N or realtime:N";
pub(super) const READY: &str = "one of uptime, notify, fd, fd:N, pidfile, check";
pub(super) const RETRIES: &str = "a whole number or forever";
pub(super) const LINE: &str = "a line (NUMBER, CHIP-LABEL:NUMBER or its name)";
pub(super) const DEGREES: &str = "a temperature in degrees Celsius";
pub(super) const RING: &str = "a size of memory";
pub(super) const SYSLOG: &str = "no, local or udp:ADDRESS:PORT (names are not looked up)";
pub(super) const CHECK: &str = "a command, tcp:HOST:PORT, unix:PATH or http://HOST[:PORT]/PATH";
pub(super) const CHECKS: &str = "a number or NUMBER of NUMBER";

/// An absolute path.
pub(super) fn path(text: &str) -> Result<String, Wrong> {
    if text.starts_with('/') && !text.as_bytes().contains(&b'\n') {
        Ok(text.into())
    } else {
        Err(Wrong::Kind)
    }
}

/// Keys that belong together, for the documentation.
#[derive(Clone, Copy)]
pub(super) struct Group {
    pub(super) section: Section,
    pub(super) title: &'static str,
    pub(super) keys: &'static [Key],
}

/// All keys, in the order of the documentation.
static GROUPS: [Group; 17] = [
    Group { section: Section::Daemon, title: "The daemon", keys: super::program_keys::DAEMON },
    Group { section: Section::Include, title: "Further files", keys: super::program_keys::INCLUDE },
    Group { section: Section::Program, title: "What runs", keys: super::program_keys::WHAT },
    Group { section: Section::Program, title: "Starting and restarting", keys: super::program_keys::START },
    Group { section: Section::Program, title: "Order and readiness", keys: super::program_keys::READINESS },
    Group { section: Section::Program, title: "Health, inputs and outputs", keys: super::board_keys::HEALTH },
    Group { section: Section::Program, title: "Stopping and reloading", keys: super::program_keys::STOP },
    Group { section: Section::Program, title: "Output", keys: super::process_keys::OUTPUT },
    Group { section: Section::Program, title: "Lines of output", keys: super::log_keys::PROGRAM },
    Group { section: Section::Program, title: "Rights and resources", keys: super::process_keys::RESOURCES },
    Group { section: Section::Program, title: "Without effect", keys: super::process_keys::NO_EFFECT },
    Group { section: Section::Input, title: "An input", keys: super::board_keys::INPUT },
    Group { section: Section::Output, title: "An output", keys: super::board_keys::OUTPUT },
    Group { section: Section::Watchdog, title: "A watchdog", keys: super::board_keys::WATCHDOG },
    Group { section: Section::Temperature, title: "Too hot, too cold", keys: super::board_keys::TEMPERATURE },
    Group { section: Section::Log, title: "Logs", keys: super::log_keys::LOG },
    Group { section: Section::System, title: "The machine", keys: super::system_keys::SYSTEM },
];

/// The same, and those of children behind them.
pub(super) fn groups(children: Children) -> impl Iterator<Item = Group> {
    let own = |child: &'static Child| Group {
        section: Section::Child(child),
        title: child.title,
        keys: child.keys,
    };
    GROUPS.iter().copied().chain(children.iter().map(own))
}

/// The keys of a section.
pub(super) fn of(section: Section) -> impl Iterator<Item = &'static Key> {
    let own = match section {
        Section::Child(child) => child.keys,
        _ => &[],
    };
    let has = move |group: &Group, key: &Key| match section {
        Section::Child(child) => match group.section {
            Section::Program => child::is_shared(child, key),
            Section::Output => child.drives && child::is_of_output(key),
            _ => false,
        },
        section => group.section == section,
    };
    let others = GROUPS.iter().flat_map(move |group| group.keys.iter().filter(move |key| has(group, key)));
    own.iter().chain(others)
}

/// The key of that name in a section.
pub(super) fn find(section: Section, name: &str) -> Option<&'static Key> {
    of(section).find(|key| key.name() == name)
}

/// The first key of that name in any section.
pub(super) fn find_anywhere(name: &str, children: Children) -> Option<(Section, &'static Key)> {
    groups(children)
        .find_map(|group| Some((group.section, group.keys.iter().find(|key| key.name() == name)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_complete_and_their_defaults_and_examples_are_right() {
        let mut names = Vec::new();
        for group in &GROUPS {
            for key in group.keys {
                let name = key.name();
                assert!(!names.contains(&(group.section, name)), "{name} twice");
                names.push((group.section, name));
                assert!(key.help().ends_with('.'), "{name}: help is sentences");
                for example in key.examples() {
                    assert_eq!(key.set(&mut Draft::default(), example), Ok(()), "{name} = {example}");
                }
                if let Some(default) = key.default_text() {
                    assert_eq!(key.set(&mut Draft::default(), default), Ok(()), "{name} = {default}");
                }
            }
        }
    }

    #[test]
    fn what_decides_who_runs_what_is_not_for_the_web() {
        for key in GROUPS.iter().flat_map(|group| group.keys) {
            let executes = matches!(key.kind, Kind::Command(_) | Kind::Path(_));
            assert!(!(key.web && executes), "{}", key.name());
        }
        for name in [
            "command",
            "user",
            "group",
            "environment",
            "environment_file",
            "capabilities",
            "reload",
            "on_start",
            "check",
        ] {
            assert!(!find_anywhere(name, &[]).unwrap().1.web, "{name}");
        }
    }
}

//! Sections of bundled children. Which there are is not known here: whoever reads a configuration hands their table over.

use super::board::{Level, Output, Target};
use super::keys::{self, Key, Kind, Section};
use super::report::Report;
use super::text::{Block, Entry};
use super::value::Wrong;
use crate::packed::packed;

/// One bundled child: a row of the table.
pub struct Child {
    /// `template` for `[template]`; also the applet's name.
    pub word: &'static str,
    /// `[template]`, `[dido:NAME]`.
    pub header: &'static str,
    /// There may be several, `[word:NAME]`.
    pub named: bool,
    /// For the documentation: what it is, in a few words.
    pub title: &'static str,
    /// It may have an output of its own in its section: keys of an `[output:NAME]` with [`OUTPUT_KEYS`].
    pub drives: bool,
    /// Its own keys. Those of a program that make sense for it come on top: see [`is_shared`].
    pub keys: &'static [Key],
    /// How its process is supervised: lines of a `[program:NAME]`, of which its section may say some otherwise.
    pub program: &'static str,
    /// What its keys say together; an error names the key it is told at.
    pub check: fn(&Settings) -> Result<(), (&'static str, String)>,
    /// Runs it; the exit code.
    pub run: fn(&Settings) -> u8,
}

/// All of them.
pub type Children = &'static [Child];

impl PartialEq for Child {
    fn eq(&self, other: &Child) -> bool {
        self.word == other.word
    }
}
impl Eq for Child {}

impl core::fmt::Debug for Child {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        f.write_str(self.word)
    }
}

/// A key of a child, as its section has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub name: String,
    /// Its value, expanded; it was found to be right.
    pub value: String,
}
packed!(Setting { name, value });

/// An output that a child owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driven {
    /// Its name.
    pub name: String,
    /// It is a file; else a line, or driven by a command, and nothing is handed over.
    pub is_file: bool,
    /// What is written to the file when it is on, and when it is off.
    pub on: String,
    /// See above.
    pub off: String,
    /// Whether it is on when it is safe.
    pub safe: bool,
}
packed!(Driven { name, is_file, on, off, safe });

/// What a child is told: its section, as far as it is its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Which child.
    pub word: String,
    /// NAME of `[word:NAME]`.
    pub instance: String,
    /// Outputs that its process owns.
    pub outputs: Vec<Driven>,
    /// Inputs that it reads.
    pub inputs: Vec<String>,
    /// Keys that the section has.
    pub settings: Vec<Setting>,
    /// Its process has ended, and what it drove is to be made safe. The section has nothing of it.
    pub is_over: bool,
    /// Inputs and outputs of the machine, for [`Child::check`] alone: no child is another one because there is one more.
    pub lines: Vec<String>,
}
packed!(Settings { word, instance, outputs, inputs, settings, is_over, lines });

impl Settings {
    /// The value of a key, or its default's; empty where it has neither.
    pub fn text<'a>(&'a self, keys: &'static [Key], name: &str) -> &'a str {
        match self.settings.iter().find(|setting| setting.name == name) {
            Some(setting) => &setting.value,
            None => keys.iter().find(|key| key.name() == name).and_then(Key::default_text).unwrap_or(""),
        }
    }
}

/// Keys of a program that say what it is: a child is what it is.
const ITS_OWN: &str = " command process_name numprocs numprocs_start type pidfile directory umask environment_file autorestart \
    exitcodes ready ready_check ready_check_interval ready_check_timeout start_timeout heartbeat_kind heartbeat_file \
    heartbeat_port stopsignal stopasgroup killasgroup stop_command stop_command_timeout reload reload_timeout capabilities \
    no_new_privs state_directory ";

/// Whether a key of a program may stand in the section of a child, too. Not where the child itself needs it to be safe.
pub(super) fn is_shared(child: &Child, key: &Key) -> bool {
    let name = [" ", key.name(), " "].concat();
    let own = ["\n", key.name(), " = multusd "].concat();
    super::words::find(ITS_OWN, &name).is_none()
        && super::words::find(child.program, &own).is_none()
        && !matches!(key.kind, Kind::NoEffect)
}

/// Keys of an output that a child's section may have.
const OUTPUT_KEYS: &str = " gpio path write_high write_low active drive safe boot limit ";

/// Whether this is one of them.
pub(super) fn is_of_output(key: &Key) -> bool {
    let name = [" ", key.name(), " "].concat();
    super::words::find(OUTPUT_KEYS, &name).is_some()
        && keys::of(Section::Output).any(|own| core::ptr::eq(own, key))
}

/// The sections with those of outputs that children have in theirs.
pub(super) fn with_outputs(blocks: &mut Vec<Block>, report: &mut Report) {
    for index in 0..blocks.len() {
        let block = &blocks[index];
        let Section::Child(child) = block.section else { continue };
        let mut entries: Vec<Entry> =
            block.entries.iter().filter(|entry| is_of_output(entry.key)).map(Entry::again).collect();
        if entries.is_empty() {
            continue;
        }
        let (name, place) = (process_name(child, &block.name), block.place);
        // What it drives is a lamp or the like: dark, whatever voltage that is.
        if let Some(key) = keys::find(Section::Output, "safe").filter(|_| block.entry("safe").is_none()) {
            entries.push(Entry { key, place, value: "off".into(), damaged: false });
        }
        let is_same = |other: &&Block| other.section == Section::Output && other.name == name;
        if let Some(other) = blocks.iter().find(is_same) {
            let first = report.refer(other.place, place);
            report.error(place, format_args!("its output is called {name}, as that in {first}"));
        }
        blocks.push(Block { section: Section::Output, name, place, entries });
    }
}

/// What the process of a child is told of an output.
pub(super) fn driven(output: &Output) -> Driven {
    let (is_file, high, low) = match &output.target {
        Target::Path { high, low, .. } => (true, high.as_str(), low.as_str()),
        _ => (false, "", ""),
    };
    let (on, off) = if output.active_low { (low, high) } else { (high, low) };
    let safe = (output.safe == Level::High) != output.active_low;
    Driven { name: output.name.clone(), is_file, on: on.into(), off: off.into(), safe }
}

/// Whether a key of this section is the child's own.
pub(super) fn is_own(section: Section, key: &Key) -> bool {
    matches!(section, Section::Child(child) if child.keys.iter().any(|own| core::ptr::eq(own, key)))
}

/// The account of a child's own, and the number that it has where there is no such account.
pub fn account(word: &str) -> (String, u32) {
    let number = 61184 + crate::packed::digest(word.as_bytes()) % (65520 - 61184);
    (["multusd-", word].concat(), number as u32)
}

/// What a key that two machines share may be written as: its digits, a path, or a name (see [`key_path`]).
pub fn is_key(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    // Digits of which some are missing are no name, which would be said.
    let is_name = text.len() < 32 && !text.starts_with(['.', '-']) && !text.is_empty();
    key_digits(text).is_some() || text.starts_with('/') || (is_name && text.bytes().all(is_plain))
}

/// 256 bits from 64 hexadecimal digits.
pub fn key_digits(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (index, digit) in text.chars().enumerate() {
        key[index / 2] = key[index / 2] << 4 | digit.to_digit(16)? as u8;
    }
    Some(key)
}

/// Where a key of this name is.
pub fn key_path(name: &str) -> String {
    if name.starts_with('/') { name.into() } else { ["/etc/multusd/keys/", name].concat() }
}

/// Its process's name: `dido-hall` for `[dido:hall]`.
pub(super) fn process_name(child: &Child, instance: &str) -> String {
    if instance.is_empty() { child.word.into() } else { [child.word, "-", instance].concat() }
}

/// A child with this key in its section has a companion: a program of its own beside ours, because what it needs is too much
/// for our image. It is called after the child and what the key's value begins with (`recorder-mysql` for `mysql://…`), follows what
/// the child writes, and is treated as the child is; `…_program` says where it is.
const COMPANION: &str = "database";

/// The companion's section, and what it is told.
pub(super) fn companion(
    child: &'static Child,
    settings: &Settings,
    block: &Block,
) -> Option<(Block, Settings)> {
    let entry = block.entry(COMPANION)?;
    let text = |name: &str| settings.text(child.keys, name);
    let (scheme, _) = text(COMPANION).split_once("://")?;
    let name = [child.word, "-", scheme].concat();
    let own = text("database_program");
    let command = if own.is_empty() { ["multusd-", &name].concat() } else { own.into() };
    let lines = child.program.lines().filter_map(|line| line.split_once(" = "));
    let entries = [("command", command.as_str()), ("after", child.word)].into_iter().chain(lines).filter_map(
        |(key, value)| {
            let key = keys::find(Section::Program, key)?;
            Some(Entry { key, place: entry.place, value: value.into(), damaged: false })
        },
    );
    let program = Block {
        section: Section::Program,
        name: name.clone(),
        place: entry.place,
        entries: entries.collect(),
    };
    Some((program, Settings { word: name, instance: child.word.into(), ..settings.clone() }))
}

/// The section of a program that supervises it.
pub(super) fn program(child: &'static Child, block: &Block) -> Block {
    let defaults = child.program.lines().filter_map(|line| {
        let (name, value) = line.split_once(" = ")?;
        let key = keys::find(Section::Program, name).filter(|_| block.entry(name).is_none())?;
        Some(Entry { key, place: block.place, value: value.into(), damaged: false })
    });
    let given =
        block.entries.iter().filter(|entry| !is_own(block.section, entry.key) && !is_of_output(entry.key));
    let given = given.map(Entry::again);
    let name = process_name(child, &block.name);
    let drives = block.entries.iter().any(|entry| is_of_output(entry.key));
    let outputs =
        keys::find(Section::Program, "outputs").filter(|_| drives && block.entry("outputs").is_none());
    let outputs = outputs.map(|key| Entry { key, place: block.place, value: name.clone(), damaged: false });
    let command = keys::find(Section::Program, "command").map(|key| Entry {
        key,
        place: block.place,
        value: ["multusd ", child.word].concat(),
        damaged: false,
    });
    Block {
        section: Section::Program,
        name,
        place: block.place,
        entries: command.into_iter().chain(outputs).chain(defaults).chain(given).collect(),
    }
}

// ---------------------------------------------------------------- what rows of children are made of

/// A word without spaces.
pub const fn word() -> Kind {
    Kind::Word(|_, _| {})
}

/// An absolute path.
pub const fn path() -> Kind {
    Kind::Path(|_, _| {})
}

/// `true` or `false`.
pub const fn boolean() -> Kind {
    Kind::Bool(|_, _| {})
}

/// A whole number from … to.
pub const fn number(min: i64, max: i64) -> Kind {
    Kind::Number(min, max, |_, _| {})
}

/// A time of at least so many milliseconds, with its unit.
pub const fn duration(min_ms: u64) -> Kind {
    Kind::Duration(min_ms, |_, _| {})
}

/// A size of at least so many bytes.
pub const fn size(min: u64) -> Kind {
    Kind::Size(min, |_, _| {})
}

/// One of these words.
pub const fn choice(words: &'static [&'static str]) -> Kind {
    Kind::Choice(words, |_, _| {})
}

/// Something of its own: what it is called, and how it is checked.
pub const fn other(noun: &'static str, check: fn(&str) -> Result<(), Wrong>) -> Kind {
    Kind::Own(noun, check)
}

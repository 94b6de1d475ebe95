//! READS TEXT. Bytes in, tables or "file:line: what was read, what would be right" out. Knows no
//! child, no process and no file system: whoever calls hands over bytes and names.
//!
//! Four steps, one file each, so that every error of every step is reported at once:
//!
//! 1. `text` cuts bytes into sections, keys and values, and replaces what depends on the machine
//!    (`%(ENV_X)s`, `%(here)s`, `%(host_node_name)s`). From here on nothing but text is needed.
//! 2. `canonical` prints that as one text, the copy that is kept as "last good".
//! 3. `assemble` sets one value after the other by the rows of `keys` and checks what goes
//!    together.
//! 4. `links` turns names of other programs into indexes and finds cycles.
//!
//! Everything said about a key anywhere (help, sample file, manual) is made from its row.
#![forbid(unsafe_code)]

mod assemble;
mod assemble_board;
mod board;
mod board_keys;
mod canonical;
pub mod child;
mod compare;
mod document;
mod expand;
mod firmware;
mod help;
mod keys;
mod links;
mod live;
mod log_keys;
mod log_settings;
mod nearest;
mod process_keys;
mod program;
mod program_keys;
mod report;
mod system_keys;
mod target;
mod text;
mod value;
mod words;

pub use board::*;
pub use child::{Child, Children, Driven, Setting, Settings};
pub use compare::{Changes, compare, same};
pub use document::{man_page, reference_markdown, sample};
pub use firmware::firmware_lines;
pub use help::{key_help, nearest_key, web_editable};
pub(crate) use keys::key;
pub use keys::{Key, Kind, row};
pub use live::{Live, pace_ms};
pub use log_settings::{LogSettings, StreamSettings};
pub use nearest::nearest;
pub use program::*;
pub use report::{Error, Errors};
pub use target::{CheckTarget, Server};
pub use value::{Wrong, milli_text, read_boolean, read_duration, read_size, thousandths};
pub use words::{find, replaced};

use crate::limits::CONFIG_BYTES_MAX;

/// Files by name, in the order read; index 0 is the main file. [`Place::file`] indexes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Paths as they were asked for.
    pub names: Vec<String>,
}

/// What reading a configuration needs from the machine, handed in so that this room stays pure.
pub trait Files {
    /// Reads one file fully, or says in a sentence why not.
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String>;
    /// Paths that match a pattern, sorted; a missing directory is just empty.
    fn glob(&mut self, pattern: &str) -> Vec<String>;
    /// The machine's name, for `%(host_node_name)s`.
    fn host_name(&mut self) -> String;
    /// A variable of the daemon's own environment, for `%(ENV_X)s`.
    fn env(&mut self, name: &str) -> Option<String>;
    /// The bundled children there are.
    fn children(&self) -> Children;
}

/// A configuration without errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// The files it came from.
    pub sources: Sources,
    /// What is accepted and yet probably not meant.
    pub warnings: Vec<Error>,
    /// The same as one self-contained text: includes merged, nothing left that depends on the
    /// machine, defaults not printed. [`load_kept`] makes an equal [`Config`] of it, but for places.
    pub canonical: String,
}

/// Reads the file at `path` and what it includes. A file without any section is an error: that is what an editor or a
/// file system leaves that lost power, and nobody's wish.
pub fn load(files: &mut dyn Files, path: &str) -> Result<Loaded, Errors> {
    let mut document = text::read(files, path);
    if document.blocks.is_empty() && document.report.error_count() == 0 {
        let sentence =
            "has no section: was it cut off? A machine that supervises nothing is written as [multusd]";
        document.report.error(Place::default(), format_args!("{sentence}"));
    }
    understand(document)
}

fn understand(document: text::Document) -> Result<Loaded, Errors> {
    let canonical = canonical::print(&document.blocks);
    let (config, mut report) = assemble::assemble(document);
    if canonical.len() > CONFIG_BYTES_MAX {
        report.error(
            Place::default(),
            format_args!(
                "the configuration is larger than {CONFIG_BYTES_MAX} bytes when everything is expanded"
            ),
        );
    }
    let (sources, warnings) = report.finish()?;
    Ok(Loaded { config, sources, warnings, canonical })
}

/// Reads a text that stands for itself, as [`Loaded::canonical`] does: nothing can be included and
/// no environment is there. An empty one is every default.
/// Bundled children may be in it.
pub fn load_kept(text: &str, children: Children) -> Result<Loaded, Errors> {
    understand(text::read(&mut OneText(text, children), "text"))
}

/// The same of a text without bundled children.
pub fn load_text(text: &str) -> Result<Loaded, Errors> {
    load_kept(text, &[])
}

/// The machine as [`load_kept`] sees it: one file.
struct OneText<'a>(&'a str, Children);

impl Files for OneText<'_> {
    fn read(&mut self, _path: &str) -> Result<Vec<u8>, String> {
        Ok(self.0.as_bytes().to_vec())
    }
    fn glob(&mut self, _pattern: &str) -> Vec<String> {
        Vec::new()
    }
    fn host_name(&mut self) -> String {
        "localhost".into()
    }
    fn env(&mut self, _name: &str) -> Option<String> {
        None
    }
    fn children(&self) -> Children {
        self.1
    }
}

//! Step 1: bytes to sections, keys and values. Knows which keys there are, not what they mean.
//!
//! After this step nothing depends on the machine any more: files are merged, and values hold
//! only `%(…)s` of the process.

use super::child::Children;
use super::expand::{Meaning, VALUE_BYTES_MAX, expand, too_long};
use super::keys::{self, COUNTED, Key, Named, Section};
use super::nearest::nearest;
use super::report::{Report, one_line};
use super::words::{self, name_fault, names};
use super::{Files, Place};
use crate::limits::{CONFIG_BYTES_MAX, INCLUDE_COUNT_MAX, LINE_NAME_BYTES_MAX};

/// One `key = value`. Lines of the value are separated by `\n` and have no space around them.
pub(super) struct Entry {
    pub(super) key: &'static Key,
    pub(super) place: Place,
    pub(super) value: String,
    /// Reported already: it counts as being there, and is not read.
    pub(super) damaged: bool,
}

impl Entry {
    /// The same in another section.
    pub(super) fn again(&self) -> Entry {
        Entry { value: self.value.clone(), ..*self }
    }
}

/// One section.
pub(super) struct Block {
    pub(super) section: Section,
    /// NAME of `[program:NAME]`, else empty.
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) entries: Vec<Entry>,
}

impl Block {
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.name() == key)
    }

    /// Where `key` stands, or the section where it does not.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.entry(key).map_or(self.place, |entry| entry.place)
    }
}

/// All files as one.
#[derive(Default)]
pub(super) struct Document {
    pub(super) blocks: Vec<Block>,
    pub(super) report: Report,
    /// A file could not be read: names that are not found may be in it.
    pub(super) incomplete: bool,
    bytes: usize,
    /// Sections read so far, by [`Section::count_max`].
    counts: [usize; COUNTED + 1],
}

/// Reads the main file, then what its `[include]` names.
pub(super) fn read(files: &mut dyn Files, path: &str) -> Document {
    let mut document = Document::default();
    read_file(&mut document, files, path);
    let include = document.blocks.iter().position(|block| block.section == Section::Include);
    let Some(include) = include.map(|index| document.blocks.remove(index)) else { return document };
    for entry in &include.entries {
        let here = directory(path);
        // The second pass, in which no name means anything.
        let value = expand(&entry.value, false, &mut |name| Meaning::Nothing(unknown_expansion(name)));
        match value {
            Ok(value) => include_files(&mut document, files, here, entry.place, &value),
            Err(why) => {
                document.report.explain(entry.place, &|| keys::sentence(entry.key, &entry.value, &why))
            }
        }
    }
    document
}

fn include_files(document: &mut Document, files: &mut dyn Files, here: &str, place: Place, patterns: &str) {
    for pattern in names(patterns) {
        let full = if pattern.starts_with('/') { pattern.clone() } else { format!("{here}/{pattern}") };
        let paths = files.glob(&full);
        if paths.is_empty() && !pattern.contains(['*', '?', '[']) {
            document.report.warning(place, format!("files: there is no {full}"));
        }
        for path in paths {
            let plain = |path: &'_ str| path.strip_prefix("./").unwrap_or(path).to_string();
            let known = document.report.sources.names.iter().any(|name| plain(name) == plain(&path));
            if known || path.ends_with(".disabled") {
                continue;
            }
            if document.report.sources.names.len() > INCLUDE_COUNT_MAX {
                document.incomplete = true;
                document
                    .report
                    .error(place, format_args!("files: more than {INCLUDE_COUNT_MAX} files match"));
                return;
            }
            read_file(document, files, &path);
        }
    }
}

fn directory(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((directory, _)) => directory,
        None => ".",
    }
}

fn unknown_expansion(name: &str) -> String {
    format!("holds the unknown name %({name}); known are here, host_node_name and ENV_NAME")
}

fn read_file(document: &mut Document, files: &mut dyn Files, path: &str) {
    let file = document.report.sources.names.len() as u16;
    document.report.sources.names.push(path.into());
    let place = |line| Place { file, line };
    let mut fail = |place: Place, message: String| {
        document.incomplete = true;
        document.report.error(place, format_args!("{message}"));
    };
    let bytes = match files.read(path) {
        Ok(bytes) => bytes,
        Err(why) => return fail(place(0), format!("cannot be read: {why}")),
    };
    document.bytes = document.bytes.saturating_add(bytes.len());
    if document.bytes > CONFIG_BYTES_MAX {
        return fail(place(0), format!("is too large; all files together may have {CONFIG_BYTES_MAX} bytes"));
    }
    match decode(&bytes) {
        Ok(text) => parse(document, files, file, text),
        Err((line, message)) => fail(place(line), message),
    }
}

/// The text in `bytes`, without byte order mark; or the line and what is wrong with it.
fn decode(bytes: &[u8]) -> Result<&str, (u32, String)> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err((0, "is UTF-16; save it as UTF-8".into()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let line = |at: usize| line_of(bytes, at);
    let bad = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r') || *byte == 0x7f;
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err((line(at), "the file is damaged: it holds a NUL byte; copy it here again".into()));
    }
    if let Some(at) = bytes.iter().position(bad) {
        return Err((
            line(at),
            format!("holds the control character 0x{:02x}; is this a text file?", bytes[at]),
        ));
    }
    core::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        (line(at), format!("holds the byte 0x{:02x}, which is not UTF-8; save the file as UTF-8", bytes[at]))
    })
}

/// The line in which byte `at` stands.
fn line_of(bytes: &[u8], at: usize) -> u32 {
    let ends = |at: &usize| match bytes[*at] {
        b'\n' => true,
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    };
    1 + (0..at).filter(ends).count() as u32
}

/// Lines that end with LF, CRLF or CR.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else { return rest.take() };
        let skip = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[end + skip..]);
        Some(&text[..end])
    })
}

/// A key whose value may go on in the next line.
struct Open {
    /// None: unknown, reported; only its further lines are skipped.
    key: Option<&'static Key>,
    name: String,
    place: Place,
    indent: usize,
    lines: Vec<(Place, String)>,
}

/// Where a line stands.
enum Inside {
    /// Before the first section.
    Nothing,
    /// In a section that was reported and is not kept.
    Skipped,
    /// In `blocks[…]`.
    Block(usize),
}

struct Parser<'a> {
    document: &'a mut Document,
    files: &'a mut dyn Files,
    file: u16,
    inside: Inside,
    open: Option<Open>,
}

fn parse(document: &mut Document, files: &mut dyn Files, file: u16, text: &str) {
    let mut parser = Parser { document, files, file, inside: Inside::Nothing, open: None };
    for (index, line) in lines(text).enumerate() {
        parser.line(line, Place { file, line: index as u32 + 1 });
    }
    parser.close();
}

impl Parser<'_> {
    fn line(&mut self, line: &str, place: Place) {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        let text = strip_comment(line);
        if text.is_empty() {
            return;
        }
        if let Some(open) = &mut self.open
            && indent > open.indent
        {
            open.lines.push((place, text.into()));
            return;
        }
        self.close();
        if text.starts_with('[') {
            self.header(text, place);
            return;
        }
        let Some(at) = text.find(['=', ':']) else {
            self.document
                .report
                .error(place, format_args!("`{}` is neither a [section] nor a key = value", short(text)));
            return;
        };
        let (name, value) =
            (text[..at].trim_end().to_ascii_lowercase(), text[at + 1..].trim_start_matches([' ', '\t']));
        let key = match self.inside {
            Inside::Block(index) => self.key(self.document.blocks[index].section, &name, place),
            Inside::Skipped => None,
            Inside::Nothing => {
                self.document
                    .report
                    .error(place, format_args!("`{}` stands before the first [section]", short(&name)));
                None
            }
        };
        self.open = Some(Open { key, name, place, indent, lines: vec![(place, value.into())] });
    }

    fn key(&mut self, section: Section, name: &str, place: Place) -> Option<&'static Key> {
        let key = keys::find(section, name);
        if key.is_some() {
            return key;
        }
        let children = self.files.children();
        self.document.report.explain(place, &|| {
            if let Some((other, _)) = keys::find_anywhere(name, children) {
                return format!("`{name}` belongs in {}", other.header());
            }
            match nearest(name, keys::of(section).map(|key| key.name())) {
                Some(known) => format!("unknown key `{name}`; did you mean `{known}`?"),
                None => format!("unknown key `{}`; `multusctl help` lists all keys", short(name)),
            }
        });
        None
    }

    fn header(&mut self, text: &str, place: Place) {
        self.inside = Inside::Skipped;
        let Some((name, after)) = text[1..].split_once(']') else {
            return self.document.report.error(place, format_args!("`{}` has no closing ]", short(text)));
        };
        if !after.is_empty() {
            let after = after.trim_start_matches([' ', '\t']);
            return self
                .document
                .report
                .error(place, format_args!("`{}` stands after the section's ]", short(after)));
        }
        let name = name.trim();
        let (word, own) = name.split_once(':').map_or((name, None), |(word, own)| (word, Some(own.trim())));
        let children = self.files.children();
        let section = Section::all(children).find(|section| section.word() == word);
        let fits = |section: &Section| match section.named() {
            Named::Always => own.is_some(),
            Named::Never => own.is_none(),
            Named::Maybe => true,
        };
        let Some(section) = section.filter(fits) else {
            return self.document.report.explain(place, &|| unknown_section(name, children));
        };
        let name = own.unwrap_or("");
        if let Some(fault) = own.and_then(|name| section_name_fault(section, name)) {
            return self
                .document
                .report
                .error(place, format_args!("the {word} name \"{}\" {fault}", short(name)));
        }
        if section == Section::Include && self.file != 0 {
            return self.document.report.error(place, format_args!("[include] works in the main file only"));
        }
        if let Some(first) =
            self.document.blocks.iter().find(|block| block.section == section && block.name == name)
        {
            let first = self.document.report.refer(first.place, place);
            return self
                .document
                .report
                .error(place, format_args!("duplicate section {text}; the first is in {first}"));
        }
        let (max, things, counter) = section.count_max();
        let count = &mut self.document.counts[counter];
        *count += 1;
        if *count > max {
            if *count == max + 1 {
                self.document
                    .report
                    .error(place, format_args!("more than {max} {things}; this is the first too many"));
            }
            return;
        }
        self.document.blocks.push(Block { section, name: name.into(), place, entries: Vec::new() });
        self.inside = Inside::Block(self.document.blocks.len() - 1);
    }

    /// The value is complete.
    fn close(&mut self) {
        let Some(Open { key, name, place, lines, .. }) = self.open.take() else { return };
        let (Some(key), Inside::Block(block)) = (key, &self.inside) else { return };
        let block = *block;
        if let Some(first) = self.document.blocks[block].entry(key.name()) {
            let first = first.place.line;
            self.document
                .report
                .error(place, format_args!("duplicate key `{name}`; the first is in line {first}"));
            return;
        }
        let entry = match self.value(key, &lines) {
            Ok(value) => Entry { key, place, value, damaged: false },
            Err((at, why)) => {
                self.document.report.error(at, format_args!("{why}"));
                Entry { key, place, value: String::new(), damaged: true }
            }
        };
        self.document.blocks[block].entries.push(entry);
    }

    /// Joins the lines of a value, with what depends on the machine replaced.
    fn value(&mut self, key: &Key, lines: &[(Place, String)]) -> Result<String, (Place, String)> {
        let here = directory(&self.document.report.sources.names[usize::from(self.file)]).to_string();
        let mut value = String::new();
        for (index, (place, text)) in lines.iter().enumerate() {
            let line = expand(text, true, &mut |name| machine(self.files, &here, name));
            let line = line.map_err(|why| (*place, keys::sentence(key, text, &why)))?;
            let line = line.trim_matches([' ', '\t']);
            if index > 0 && looks_like_a_line(key, line, self.files.children()) {
                let line = short(line);
                return Err((
                    *place,
                    format!("an indented line continues {}; move `{line}` to the left", key.name()),
                ));
            }
            if !value.is_empty() && !line.is_empty() {
                value.push('\n');
            }
            value.push_str(line);
            if value.len() > VALUE_BYTES_MAX {
                return Err((*place, keys::sentence(key, &value, &too_long())));
            }
        }
        if value.len() + plain_comment_signs(&value) > VALUE_BYTES_MAX {
            return Err((lines[0].0, keys::sentence(key, &value, &too_long())));
        }
        Ok(value)
    }
}

/// By how much the canonical text can be longer than the value: the canonical text of a value that
/// is accepted must be accepted as well.
fn plain_comment_signs(value: &str) -> usize {
    let bytes = value.as_bytes();
    let plain = |at: &usize| matches!(bytes[*at], b';' | b'#') && (*at == 0 || bytes[*at - 1] != b'%');
    (0..bytes.len()).filter(plain).count()
}

/// What `%(name)s` is on this machine.
fn machine(files: &mut dyn Files, here: &str, name: &str) -> Meaning {
    let text = match name {
        "here" => here.into(),
        "host_node_name" => files.host_name(),
        _ => match name.strip_prefix("ENV_") {
            Some(variable) => match files.env(variable) {
                Some(text) => text,
                None => {
                    return Meaning::Nothing(format!(
                        "needs {variable}, which is not in multusd's environment"
                    ));
                }
            },
            None => return Meaning::Later,
        },
    };
    // A line end would become part of the file's syntax in the canonical text.
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Meaning::Nothing(format!("needs %({name})s, which holds a control character"));
    }
    Meaning::Text(text.trim_matches([' ', '\t']).into())
}

/// An indented line continues the value above, as in Supervisor; that a `user = …` disappears that
/// way inside a command, and the program runs as root, must not happen silently.
fn looks_like_a_line(key: &Key, line: &str, children: Children) -> bool {
    let header = line.strip_prefix('[').and_then(|rest| rest.split([':', ']']).next());
    if header.is_some_and(|word| Section::all(children).any(|section| section.word() == word)) {
        return true;
    }
    if key.name() == "environment" {
        return false;
    }
    let name = line.split(['=', ':']).next().unwrap_or("").trim_end();
    name.len() < line.len() && keys::find_anywhere(&name.to_ascii_lowercase(), children).is_some()
}

/// Sections of later versions. Their names are taken, so that no file has to be changed then.
const RESERVED: [&str; 8] = ["status-led", "modbus", "dido", "lan", "reach", "openvpn", "web", "children"];

/// Supervisor's sections that have no counterpart.
const SUPERVISORS: [&str; 8] = [
    "supervisord",
    "supervisorctl",
    "unix_http_server",
    "inet_http_server",
    "rpcinterface",
    "group",
    "eventlistener",
    "fcgi-program",
];

fn unknown_section(name: &str, children: Children) -> String {
    let (kind, program) = name.split_once(':').unwrap_or((name, ""));
    let headers = || headers(children);
    let of = |word: &str| Section::all(children).find(|section| section.word() == word);
    if RESERVED.contains(&kind) && of(kind).is_none() {
        return format!("[{name}] is for a later version; this one has {}", headers());
    }
    if SUPERVISORS.contains(&kind) {
        return format!("[{name}] is Supervisor's and has no counterpart here; remove it");
    }
    match of(kind).map(Section::named) {
        Some(Named::Always) => return format!("[{kind}] has no name; write for example [{kind}:pump]"),
        Some(_) => return format!("[{kind}] has no name; write [{kind}]"),
        None => {}
    }
    match nearest(kind, Section::all(children).map(Section::word)) {
        Some(known) => match of(known).map_or(Named::Never, Section::named) {
            Named::Always if program.is_empty() => {
                format!("unknown section [{name}]; did you mean [{known}:NAME]?")
            }
            Named::Always => format!("unknown section [{name}]; did you mean [{known}:{program}]?"),
            _ => format!("unknown section [{name}]; did you mean [{known}]?"),
        },
        None => format!("unknown section [{}]; known are {}", short(name), headers()),
    }
}

/// All sections, for a message.
fn headers(children: Children) -> String {
    let mut out = String::new();
    for section in Section::all(children) {
        let header = section.header();
        if words::find(&out, header).is_none() {
            out.push_str(if out.is_empty() { "" } else { ", " });
            out.push_str(header);
        }
    }
    out
}

/// What is wrong with the name in a section's header. Those of inputs and outputs travel in an environment
/// variable, as name=descriptor.
fn section_name_fault(section: Section, name: &str) -> Option<String> {
    if matches!(section, Section::Program) {
        return name_fault(name);
    }
    if name.len() > LINE_NAME_BYTES_MAX {
        return Some(format!("is longer than {LINE_NAME_BYTES_MAX} bytes"));
    }
    if name.as_bytes().contains(&b'=') {
        return Some("holds the character =".into());
    }
    name_fault(name)
}

/// A piece of a line that fits into a message.
pub(super) fn short(text: &str) -> String {
    one_line(text, 60)
}

/// The line without comment and without space around it. A comment begins at the start of the
/// line or after white space, and not inside quotes; a quote that is not closed in the line is no quote.
fn strip_comment(line: &str) -> &str {
    let bytes = line.as_bytes();
    let mut at = 0;
    let mut space = true;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b';' | b'#' if space => break,
            b'\\' => at += 1,
            b'"' | b'\'' => at = closing(bytes, at).unwrap_or(at),
            _ => {}
        }
        space = matches!(byte, b' ' | b'\t');
        at += 1;
    }
    line[..at.min(line.len())].trim_matches([' ', '\t'])
}

/// Where the quotation that opens at `start` ends.
fn closing(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = bytes[start];
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' => at += 1,
            byte if byte == quote => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments() {
        for (line, text) in [
            ("; all", ""),
            ("  # all", ""),
            ("a = b ; c", "a = b"),
            ("a = b;c #d", "a = b;c"),
            ("a = \"b ; c\" ; d", "a = \"b ; c\""),
            ("a = 'b # c' # d", "a = 'b # c'"),
            ("a = it's ; so", "a = it's"),
            (r#"a = "\" ; b" ; c"#, r#"a = "\" ; b""#),
            (r"a = \' ; b", r"a = \'"),
            ("a = b\\", "a = b\\"),
            ("a = %;b", "a = %;b"),
            ("a = x %; y", "a = x %; y"),
            ("a = \\ü ; ü", "a = \\ü"),
        ] {
            assert_eq!(strip_comment(line), text, "{line}");
        }
    }

    #[test]
    fn line_ends() {
        assert_eq!(lines("a\nb\r\nc\rd").collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(lines("\r\n\n").collect::<Vec<_>>(), ["", "", ""]);
    }

    #[test]
    fn undecodable_bytes_have_a_line() {
        assert_eq!(decode(b"\xef\xbb\xbfa").unwrap(), "a");
        assert_eq!(decode(b"a\nb\0").unwrap_err().0, 2);
        assert_eq!(decode(b"a\r\nb\r\n\xff").unwrap_err().0, 3);
        assert_eq!(decode(b"\x01").unwrap_err().0, 1);
    }
}

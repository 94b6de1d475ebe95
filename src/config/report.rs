//! Collects what is wrong, with its place, so that one run reports everything. Bounded: a file of
//! noise makes as many errors as it has lines, and nobody reads more than a screen of them.

use core::fmt;

use super::{Place, Sources};

/// Errors handed out; a further one says how many were left out.
const SHOWN_COUNT_MAX: usize = 100;

/// Errors kept until they are sorted. Above the number shown, so that what is shown is (nearly
/// always) the first of the file although the steps report one after the other; not much above it,
/// because composing a message (finding the nearest key) is the slow part of a noisy file.
const KEPT_COUNT_MAX: usize = 400;

/// The longest message: what is quoted in it may be anything.
const MESSAGE_CHARS_MAX: usize = 500;

/// `text` on one line, with its end cut off where it is too long.
pub(super) fn one_line(text: &str, chars_max: usize) -> String {
    let mut out: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars_max).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

/// One thing that is wrong, or (in [`super::Loaded::warnings`]) looks wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Where; line 0 is the file as a whole.
    pub place: Place,
    /// The file's name.
    pub file: String,
    /// What was read and what would be right.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{}: {}", self.file, line, self.message),
        }
    }
}

/// All errors of one configuration, sorted by place; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<Error>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

/// Inserts behind everything of the same place. (The lists are short; std's sort is 4 kB of code.)
fn insert(list: &mut Vec<(Place, String)>, place: Place, message: String) {
    let at = list.partition_point(|(other, _)| (other.file, other.line) <= (place.file, place.line));
    list.insert(at, (place, message));
}

/// The collector.
#[derive(Default)]
pub(super) struct Report {
    pub(super) sources: Sources,
    errors: Vec<(Place, String)>,
    error_count: usize,
    warnings: Vec<(Place, String)>,
}

impl Report {
    /// Records an error; the message is composed only while there is room for it.
    #[inline(never)]
    pub(super) fn error(&mut self, place: Place, message: core::fmt::Arguments) {
        self.error_count += 1;
        if self.errors.len() < KEPT_COUNT_MAX {
            insert(&mut self.errors, place, one_line(&message.to_string(), MESSAGE_CHARS_MAX));
        }
    }

    /// The same where composing it takes some work.
    #[inline(never)]
    pub(super) fn explain(&mut self, place: Place, message: &dyn Fn() -> String) {
        self.error_count += 1;
        if self.errors.len() < KEPT_COUNT_MAX {
            insert(&mut self.errors, place, one_line(&message(), MESSAGE_CHARS_MAX));
        }
    }

    pub(super) fn warning(&mut self, place: Place, message: String) {
        if self.warnings.len() < SHOWN_COUNT_MAX {
            insert(&mut self.warnings, place, message);
        }
    }

    pub(super) fn error_count(&self) -> usize {
        self.error_count
    }

    /// `line 7`, or `other.cfg:7` as seen from another file.
    pub(super) fn refer(&self, place: Place, seen_from: Place) -> String {
        if place.file == seen_from.file {
            return format!("line {}", place.line);
        }
        format!("{}:{}", self.file_name(place), place.line)
    }

    fn file_name(&self, place: Place) -> &str {
        self.sources.names.get(usize::from(place.file)).map_or("", String::as_str)
    }

    fn named(&self, list: Vec<(Place, String)>) -> Vec<Error> {
        let name = |(place, message)| Error { place, file: self.file_name(place).into(), message };
        list.into_iter().map(name).collect()
    }

    /// The sources and the warnings, or all errors.
    pub(super) fn finish(mut self) -> Result<(Sources, Vec<Error>), Errors> {
        let warnings = core::mem::take(&mut self.warnings);
        let warnings = self.named(warnings);
        if self.error_count == 0 {
            return Ok((self.sources, warnings));
        }
        let errors = core::mem::take(&mut self.errors);
        let kept = errors.len();
        let mut errors = self.named(errors);
        // The processes of one section can all have the same to say.
        errors.dedup();
        self.error_count -= kept - errors.len();
        errors.truncate(SHOWN_COUNT_MAX);
        let hidden = self.error_count - errors.len();
        if hidden > 0 {
            let file = self.file_name(Place::default()).into();
            errors.push(Error {
                place: Place::default(),
                file,
                message: format!("and {hidden} more errors"),
            });
        }
        Err(Errors(errors))
    }
}

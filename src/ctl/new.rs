//! `new NAME --lang LANGUAGE`: a program for multusd to begin with, with its section and a test that breaks it.

use std::path::Path;

use super::{Call, Exit, Outcome, fail, print, words};
use crate::config::replaced;
use crate::limits::NAME_BYTES_MAX;
use crate::sys::file;

/// A language: its name, what the source's name ends with (empty: it is the program), how it becomes the program, the source.
const LANGUAGES: [(&str, &str, &str, &str); 4] = [
    ("rust", ".rs", "rustc -O -o @NAME@ @NAME@.rs", include_str!("new/rust.txt")),
    ("c", ".c", "cc -O2 -Wall -o @NAME@ @NAME@.c", include_str!("new/c.txt")),
    ("python", "", "", include_str!("new/python.txt")),
    ("sh", "", "", include_str!("new/sh.txt")),
];
const SECTION: &str = include_str!("new/section.txt");
const TEST: &str = include_str!("new/test.txt");

/// `new NAME`
pub fn new(call: &Call) -> Outcome {
    let name = call.arguments[0].as_str();
    let wanted = call.language.as_deref().unwrap_or("");
    let Some((_, ending, build, source)) = LANGUAGES.iter().find(|language| language.0 == wanted) else {
        return fail(Exit::Usage, "new NAME --lang rust|c|python|sh");
    };
    // It becomes a section, files and a word of a shell.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('-') || !name.bytes().all(is_plain)
    {
        let text = [words::clean(name).as_str(), " is no name: letters, digits, - and _"].concat();
        return fail(Exit::Usage, text);
    }
    let folder = &Path::new(".").join(name);
    if file::exists(name) {
        return fail(Exit::Failed, [name, " is there already"].concat());
    }
    let files = [
        ([name, ending].concat(), *source, if ending.is_empty() { 0o755 } else { 0o644 }),
        ([name, ".cfg"].concat(), SECTION, 0o644),
        ("test".to_string(), TEST, 0o755),
    ];
    let write = || {
        file::make_directory(folder, 0o755)?;
        files.iter().try_for_each(|(file_name, text, mode)| {
            let text = replaced(&replaced(text, "@BUILD@", build), "@NAME@", name);
            file::replace_with(&folder.join(file_name), text.as_bytes(), *mode)
        })
    };
    if let Err(error) = write() {
        return fail(Exit::Failed, [name, ": ", &error.to_string()].concat());
    }
    print(&[name, "/test runs it and breaks it; ", name, "/", name, ".cfg is its section\n"].concat())
}

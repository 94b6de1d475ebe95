//! What `multusctl help` prints, from the table.

use super::child::Children;
use super::keys::{self, Key, Section};
use super::nearest::nearest;
use super::words;

/// Help for one key, or (with none) the list of all; none: there is no such key.
pub fn key_help(name: Option<&str>, children: Children) -> Option<String> {
    let Some(name) = name else { return Some(list(children)) };
    let name = name.to_ascii_lowercase();
    // Some names are used in several sections.
    let mut out = String::new();
    for group in keys::groups(children) {
        for key in group.keys.iter().filter(|key| key.name() == name) {
            out.push_str(if out.is_empty() { "" } else { "\n" });
            out.push_str(&one(group.section, key));
        }
    }
    (!out.is_empty()).then_some(out)
}

/// The key that was probably meant.
pub fn nearest_key(name: &str, children: Children) -> Option<&'static str> {
    nearest(name, keys::groups(children).flat_map(|group| group.keys).map(|key| key.name()))
}

/// Whether the key may be changed from the web page; none: there is no such key.
pub fn web_editable(name: &str, children: Children) -> Option<bool> {
    Some(keys::find_anywhere(name, children)?.1.web)
}

/// One line per key, by section.
fn list(children: Children) -> String {
    let mut out = String::new();
    for group in keys::groups(children) {
        if !out.is_empty() {
            out.push('\n');
        }
        for text in [group.section.header(), "  ", group.title, "\n"] {
            out.push_str(text);
        }
        for key in group.keys {
            out.push_str("  ");
            out.push_str(key.name());
            for _ in key.name().len()..24 {
                out.push(' ');
            }
            out.push_str(first_sentence(key.help()));
            out.push('\n');
        }
    }
    out
}

/// The first sentence, without its full stop.
fn first_sentence(help: &str) -> &str {
    let end = words::find(help, ". ").map_or(help.len(), |at| at + 1);
    help[..end].trim_end_matches('.')
}

fn one(section: Section, key: &Key) -> String {
    let mut out = format!("{} in {}\n\n{}\n\n", key.name(), section.header(), key.help());
    for (title, text) in facts(key) {
        out.push_str(&format!("  {title:<9} {text}\n"));
    }
    out
}

/// What there is to know besides the sentences.
pub(super) fn facts(key: &Key) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Value:", key.kind.noun())];
    let range = key.kind.range();
    if !range.is_empty() {
        facts.push(("Range:", range));
    }
    facts.push(("Default:", key.default().trim_matches(['(', ')']).into()));
    for (title, example) in ["Example:", "or:"].into_iter().zip(key.examples()) {
        facts.push((title, format!("{} = {example}", key.name())));
    }
    if key.restart {
        facts.push(("Change:", "restarts the program".into()));
    }
    facts
}

//! Step 2: prints the document as one text that needs no machine to be read again.
//!
//! It is printed from the document, not from the resulting configuration: the reader meets the
//! same values again, so equality follows from the reader alone and no value needs a printer.

use super::keys::{Kind, Section};
use super::text::Block;

/// First line, for whoever finds the file.
const HEAD: &str = "; Written by multusd: its configuration with everything included and expanded.\n";

/// All sections in order; keys that have their default's value are left out.
pub(super) fn print(blocks: &[Block]) -> String {
    let mut out = String::from(HEAD);
    for block in blocks {
        match block.section {
            Section::Include => continue,
            section => {
                let colon = if block.name.is_empty() { "" } else { ":" };
                for part in ["\n[", section.word(), colon, &block.name, "]\n"] {
                    out.push_str(part);
                }
            }
        }
        for entry in &block.entries {
            // What a child's program has by default is the child's to say.
            let is_of_child = matches!(block.section, Section::Child(_));
            let default = !is_of_child && entry.key.default_text() == Some(entry.value.as_str());
            if default || matches!(entry.key.kind, Kind::NoEffect) {
                continue;
            }
            out.push_str(entry.key.name());
            out.push_str(" = ");
            push_value(&mut out, &entry.value);
            out.push('\n');
        }
    }
    out
}

/// Further lines are indented, and nothing in the value looks like a comment.
fn push_value(out: &mut String, value: &str) {
    let mut space = true;
    for c in value.chars() {
        if space && matches!(c, ';' | '#') {
            out.push('%');
        }
        out.push(c);
        space = matches!(c, ' ' | '\t' | '\n');
        if c == '\n' {
            out.push_str("    ");
        }
    }
}

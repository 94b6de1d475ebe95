//! Documents made from the table: the sample file, the reference and the manual page. Nothing of
//! this is in the binary; a test writes the files and keeps them equal to the table.

use super::child::Children;
use super::keys::{self, Key, Section};

/// Columns of the sample file; a Notepad window shows them.
const COLUMNS: usize = 96;

/// What the sample file says before its keys.
const SAMPLE_HEAD: &str = "\
; Configuration of multusd. Any text editor will do, also Notepad.
;
; [section], then key = value. A line that begins with ; or # is a comment, and so is the rest of a
; line after a space and ; or #. An indented line continues the value above it. Times have units (200ms,
; 2.5s, 5min, 1h), sizes too (64KB, 1MB). A key that is commented out shows its default or, where
; there is none, an example. Check the file with `multusctl check FILE`, ask about a key with
; `multusctl help KEY`.
";

/// The working part of the sample file.
const SAMPLE_PROGRAM: &str = "\
[program:hello]
command = /bin/sh -c \"while :; do echo I am alive; sleep 60; done\"
";

/// The sample configuration, as installed in `board/multusd.cfg`. It loads without errors.
pub fn sample(children: Children) -> String {
    let mut out = String::from(SAMPLE_HEAD);
    let mut section = None;
    for group in keys::groups(children) {
        if section != Some(group.section) {
            section = Some(group.section);
            out.push('\n');
            match group.section {
                super::keys::Section::Daemon => out.push_str("[multusd]\n"),
                super::keys::Section::Include => out.push_str("[include]\n"),
                super::keys::Section::Program => out.push_str(SAMPLE_PROGRAM),
                // Commented out: what they stand for is not on every board.
                section => out.push_str(&format!(";{}\n", section.header())),
            }
        }
        if group.title == "Without effect" {
            continue;
        }
        out.push_str(&format!("\n; --- {} ---\n", group.title));
        for key in
            group.keys.iter().filter(|key| group.section != Section::Program || key.name() != "command")
        {
            out.push('\n');
            wrap(&mut out, "; ", key.help());
            let value = key.default_text().or(key.examples().next()).unwrap_or("");
            out.push_str(&format!(";{} = {value}\n", key.name()));
        }
    }
    out
}

fn wrap(out: &mut String, prefix: &str, text: &str) {
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > COLUMNS {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            out.push_str(prefix);
            column = prefix.len();
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

/// Paragraphs that the reference and the manual page share: title, then paragraphs.
const SYNTAX: [(&str, &[&str]); 4] = [
    (
        "File",
        &[
            "The file is UTF-8, with or without byte order mark, with line ends of any kind. It has sections, [multusd], [include], [program:NAME], [input:NAME], [output:NAME], [watchdog] (and [watchdog:NAME]), [temperature] and [log], and in them lines of key = value. Names of keys are those of Supervisor where Supervisor has the key. They may be written in upper or lower case.",
            "A comment begins with ; or # at the start of a line, or after white space outside of quotes. A line that is indented more than its key continues the value. A section or key that is there twice is an error, and so is one that is not known.",
            "All errors are reported at once, with file and line. A file with errors changes nothing: the configuration that is running stays.",
        ],
    ),
    (
        "Values",
        &[
            "Times are a number and a unit: ms, s, min, h or d, for example 2.5s. Only the keys that Supervisor gives in seconds take a number without unit. Sizes are a number, or a number with KB, MB or GB, in steps of 1024.",
            "Commands are split into words without a shell. '…' takes everything literally; in \"…\" a backslash escapes a quote or a backslash; elsewhere it escapes any character.",
            "Names of programs have at most 63 bytes, no space, colon, slash, comma or quote, and do not begin with a dot or hyphen.",
        ],
    ),
    (
        "Expansions",
        &[
            "In every value, %(program_name)s (and %(group_name)s) is the section's name, %(process_num)d the number of the process (%(process_num)02d with two digits), %(numprocs)d their count, %(here)s the directory of the file, %(host_node_name)s the name of the machine, %(ENV_NAME)s a variable of multusd's environment.",
            "%% is a percent sign; %; and %# are a semicolon and a hash sign that start no comment.",
        ],
    ),
    (
        "Several files",
        &[
            "files in [include] names further files. To switch one off, rename it so that its name ends with .disabled.",
        ],
    ),
];

/// The reference, `docs/configuration.md`.
pub fn reference_markdown(children: Children) -> String {
    let mut out = String::from(
        "# Configuration\n\nThis page is made from the table of keys; edit that, not this page.\n",
    );
    for (title, paragraphs) in SYNTAX {
        out.push_str(&format!("\n## {title}\n"));
        for paragraph in paragraphs {
            out.push('\n');
            wrap(&mut out, "", &escape_markdown(paragraph));
        }
    }
    for group in keys::groups(children) {
        out.push_str(&format!("\n## `{}` {}\n", group.section.header(), group.title));
        for key in group.keys {
            out.push_str(&format!("\n### {}\n\n", key.name()));
            wrap(&mut out, "", &escape_markdown(key.help()));
            out.push('\n');
            for (title, text) in super::help::facts(key) {
                let code = matches!(title, "Example:" | "or:")
                    || title == "Default:" && key.default_text().is_some();
                let text = if code { format!("`{text}`") } else { escape_markdown(&text) };
                out.push_str(&format!("- {title} {text}\n"));
            }
        }
    }
    out
}

fn escape_markdown(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if matches!(c, '_' | '*' | '[' | ']' | '<' | '#' | '`' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The manual page, `man/multusd.cfg.5`.
pub fn man_page(children: Children) -> String {
    let mut out = String::from(
        ".TH MULTUSD.CFG 5 \"\" \"multusd\" \"File Formats\"\n.SH NAME\nmultusd.cfg \\- configuration of multusd\n",
    );
    out.push_str(".SH DESCRIPTION\nThe configuration of\n.BR multusd (8),\na fail-safe supervisor for embedded Linux.\n");
    for (title, paragraphs) in SYNTAX {
        out.push_str(&format!(".SS {title}\n"));
        for (index, paragraph) in paragraphs.iter().enumerate() {
            if index > 0 {
                out.push_str(".PP\n");
            }
            roff(&mut out, paragraph);
        }
    }
    for group in keys::groups(children) {
        out.push_str(&format!(".SH \"{} {}\"\n", group.section.header(), group.title.to_uppercase()));
        for key in group.keys {
            man_key(&mut out, key);
        }
    }
    out.push_str(".SH SEE ALSO\n.BR multusd (8),\n.BR multusctl (1)\n");
    out
}

fn man_key(out: &mut String, key: &Key) {
    out.push_str(&format!(".TP\n.B {}\n", key.name()));
    roff(out, key.help());
    for (title, text) in super::help::facts(key) {
        out.push_str(".br\n");
        roff(out, &format!("{title} {text}"));
    }
}

/// One line of text, safe for roff: a dot or quote at its start would be a command.
fn roff(out: &mut String, text: &str) {
    if text.starts_with(['.', '\'']) {
        out.push_str("\\&");
    }
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '…' => out.push_str("..."),
            _ => out.push(c),
        }
    }
    out.push('\n');
}

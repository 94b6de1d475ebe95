//! Keeps the house in order: which room may know which, where unsafe code and clock reads live, how
//! long a file and a function may grow. Reads the source as text, so that a violation is a failing
//! test with file and line and needs no tool. Each rule is followed by a test in which it catches
//! a snippet that breaks it: a rule that finds nothing because it looks at nothing is worse than none.
//!
//! The tables up here are what changes when the house changes; ARCHITECTURE.md tells the same story.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Which room may name which. `limits`, `time` and `packed` are known to all; `lib` only lists the rooms.
const EDGES: &[(&str, &[&str])] = &[
    ("main", &["guard", "service", "daemon", "ctl", "child", "applets"]),
    ("applets", &["daemon", "ctl", "child", "config", "probe", "self_test"]),
    ("probe", &["config", "sys"]),
    ("self_test", &["sys"]),
    ("guard", &["sys"]),
    ("service", &["guard", "sys"]),
    ("daemon", &["supervisor", "config", "protocol", "sys"]),
    ("ctl", &["client", "protocol", "config", "log_text", "sys"]),
    ("client", &["sys"]),
    ("child", &["client", "config", "log_text", "protocol", "sys"]),
    ("supervisor", &[]),
    ("config", &[]),
    ("log_text", &["config"]),
    ("protocol", &[]),
    ("sys", &[]),
    ("limits", &[]),
    ("time", &[]),
    ("packed", &[]),
];

/// The rooms that can do nothing but think, and what they must not name.
const PURE: &[&str] = &["supervisor", "config", "log_text"];
const IMPURE: &[&str] = &["crate::sys", "std::fs", "std::process", "std::time"];

/// The one file that reads a clock: everywhere else time is an argument.
const CLOCK_FILE: &str = "src/sys/clock.rs";
const CLOCK_READS: &[&str] = &["clock_gettime", "Instant::now", "SystemTime::now"];

/// Lines in a file, its tests included. What is longer stands in the ratchet with the length it has;
/// it may shrink, never grow, and leaves the list when it fits.
const FILE_LINES_MAX: usize = 600;
const LONG_FILES: &[(&str, usize)] = &[];

/// Lines in a function, from `fn` to its closing brace, test code exempt. Ratchet as above, by
/// `file::function`.
const FUNCTION_LINES_MAX: usize = 90;
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

/// Places, by `file::line's code`, that may unwrap. Empty, and meant to stay so: an error becomes an
/// event, a log line or a retry, never an exit.
const UNWRAPS: &[&str] = &[];

/// Promises to write code later are issues, not code.
const UNFINISHED: &[&str] = &["todo", "unimplemented"];

// ------------------------------------------------------------ reading

/// One source file, in three degrees of undress. All keep the lines where they were.
struct Source {
    /// As in `src/sys/clock.rs`.
    path: String,
    /// As written.
    raw: String,
    /// Comments and the insides of literals blanked.
    code: String,
    /// Like `code`, and items under `#[cfg(test)]` blanked too.
    product: String,
}

impl Source {
    fn new(path: &str, raw: &str) -> Source {
        let code = blank_comments_and_literals(raw);
        let product = if is_test_file(path) { blank(&code) } else { blank_tests(&code) };
        Source { path: path.into(), raw: raw.into(), code, product }
    }

    /// `main` for src/main.rs, `sys` for src/sys/clock.rs.
    fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split(['/', '.']).next().unwrap_or(inside)
    }

    fn found(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// A file that is only compiled for tests: `mod tests;` in a file of its own.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")), "src", &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(root: &Path, directory: &str, found: &mut Vec<Source>) {
    for entry in fs::read_dir(root.join(directory)).expect("src is readable") {
        let entry = entry.expect("an entry of src");
        let path = format!("{directory}/{}", entry.file_name().to_str().expect("source names are ASCII"));
        if entry.file_type().expect("its type").is_dir() {
            collect(root, &path, found);
        } else if path.ends_with(".rs") {
            found.push(Source::new(&path, &fs::read_to_string(root.join(&path)).expect("source is text")));
        }
    }
}

/// Spaces for everything but the line ends.
fn blank(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// What a `'` begins at `at`: the length of a character literal, or none for a lifetime.
fn char_literal(text: &[char], at: usize) -> Option<usize> {
    match text.get(at + 1)? {
        '\\' => {
            // The escaped character itself may be a quote.
            let end = text[at + 3..].iter().take(12).position(|&c| c == '\'')?;
            Some(end + 4)
        }
        _ => (text.get(at + 2) == Some(&'\'')).then_some(3),
    }
}

/// What begins at `at`: the length of a string literal of any kind, or none.
fn string_literal(text: &[char], at: usize) -> Option<usize> {
    let mut begin = at;
    while matches!(text.get(begin), Some('b' | 'c' | 'r')) && begin - at < 2 {
        begin += 1;
    }
    let is_raw = begin > at && text[begin - 1] == 'r';
    let hashes = text[begin..].iter().take_while(|&&c| c == '#').count();
    if text.get(begin + hashes) != Some(&'"') || (hashes > 0 && !is_raw) {
        return None;
    }
    let mut end = begin + hashes + 1;
    while end < text.len() {
        match text[end] {
            '\\' if !is_raw => end += 1,
            '"' if text[end + 1..].iter().take_while(|&&c| c == '#').count() >= hashes => {
                return Some(end + 1 + hashes - at);
            }
            _ => {}
        }
        end += 1;
    }
    Some(text.len() - at)
}

/// What begins at `at`: the length of a comment, or none.
fn comment(text: &[char], at: usize) -> Option<usize> {
    let rest = &text[at..];
    if rest.starts_with(&['/', '/']) {
        return Some(rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with(&['/', '*']) {
        return None;
    }
    let (mut depth, mut end) = (0usize, 0);
    while end < rest.len() {
        if rest[end..].starts_with(&['/', '*']) {
            depth += 1;
            end += 2;
        } else if rest[end..].starts_with(&['*', '/']) {
            depth -= 1;
            end += 2;
            if depth == 0 {
                return Some(end);
            }
        } else {
            end += 1;
        }
    }
    Some(rest.len())
}

fn blank_comments_and_literals(raw: &str) -> String {
    let text: Vec<char> = raw.chars().collect();
    let mut out = String::with_capacity(raw.len());
    let mut at = 0;
    while at < text.len() {
        let after_word = at > 0 && is_word(text[at - 1]);
        let length = comment(&text, at)
            .or_else(|| if after_word { None } else { string_literal(&text, at) })
            .or_else(|| if text[at] == '\'' { char_literal(&text, at) } else { None });
        match length {
            Some(length) => {
                let end = (at + length).min(text.len());
                out.extend(text[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
                at = end;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// One word or one other visible character, with its line (from 1) and where it begins and ends.
struct Token<'t> {
    text: &'t str,
    line: usize,
    begin: usize,
    end: usize,
}

/// Tokens of blanked code; `::` is one token.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut line, mut at) = (1, 0);
    while let Some(c) = code[at..].chars().next() {
        let length = if is_word(c) {
            code[at..].find(|c| !is_word(c)).unwrap_or(code.len() - at)
        } else if code[at..].starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        if c == '\n' {
            line += 1;
        }
        if !c.is_whitespace() {
            found.push(Token { text: &code[at..at + length], line, begin: at, end: at + length });
        }
        at += length;
    }
    found
}

/// The index of the token that closes the bracket at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth -= 1;
                if depth == 0 {
                    return index;
                }
            }
            _ => {}
        }
    }
    tokens.len() - 1
}

/// The index of the token that ends the item beginning at `from`: its `;`, or the `}` of its body.
fn item_end(tokens: &[Token], from: usize) -> usize {
    let mut at = from;
    while at < tokens.len() {
        match tokens[at].text {
            ";" => return at,
            "{" => return closing(tokens, at),
            "(" | "[" => at = closing(tokens, at),
            _ => {}
        }
        at += 1;
    }
    tokens.len() - 1
}

/// Code without the items under `#[cfg(test)]`, also in company (`#[cfg(all(test, …))]`).
fn blank_tests(code: &str) -> String {
    let tokens = tokens(code);
    let mut out = String::with_capacity(code.len());
    let (mut kept, mut at) = (0, 0);
    while at < tokens.len() {
        let is_cfg = tokens[at].text == "#" && tokens.get(at + 2).is_some_and(|t| t.text == "cfg");
        if is_cfg {
            let end = closing(&tokens, at + 1);
            let words: Vec<&str> = tokens[at + 2..end].iter().map(|t| t.text).collect();
            if words.contains(&"test") && !words.contains(&"not") && !words.contains(&"any") {
                let end = item_end(&tokens, end + 1);
                out.push_str(&code[kept..tokens[at].begin]);
                out.push_str(&blank(&code[tokens[at].begin..tokens[end].end]));
                kept = tokens[end].end;
                at = end;
            }
        }
        at += 1;
    }
    out + &code[kept..]
}

/// Every path in the code with its line; `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn paths(code: &str) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = if tokens[at].text.starts_with(is_word) { path_at(&tokens, at, "", &mut found) } else { at + 1 };
    }
    found
}

/// Reads the path at token `at` below `prefix`; returns the index after it.
fn path_at(tokens: &[Token], mut at: usize, prefix: &str, found: &mut Vec<(usize, String)>) -> usize {
    let mut path = prefix.to_string();
    while let Some(token) = tokens.get(at) {
        if token.text == "{" && path.ends_with("::") {
            let end = closing(tokens, at);
            at += 1;
            while at < end {
                at = if tokens[at].text.starts_with(is_word) || tokens[at].text == "{" {
                    path_at(tokens, at, &path, found)
                } else {
                    at + 1
                };
            }
            return end + 1;
        }
        path += token.text;
        if tokens.get(at + 1).is_none_or(|next| next.text != "::") {
            found.push((token.line, path));
            return at + 1;
        }
        path += "::";
        at += 2;
    }
    found.push((tokens.last().map_or(1, |t| t.line), path));
    at
}

/// `path` is `whole` or lies below it.
fn is_below(path: &str, whole: &str) -> bool {
    path.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

// ------------------------------------------------------------ the rules

fn unsafe_only_in_sys(source: &Source) -> Vec<String> {
    if source.room() == "sys" {
        return Vec::new();
    }
    let found =
        tokens(&source.code).into_iter().filter(|token| token.text == "unsafe").map(|token| token.line);
    found.map(|line| source.found(line, "unsafe code lives in src/sys/ only")).collect()
}

fn clocks_only_in_their_file(source: &Source) -> Vec<String> {
    if source.path == CLOCK_FILE {
        return Vec::new();
    }
    let reads =
        |path: &str| CLOCK_READS.iter().any(|read| path == *read || path.ends_with(&format!("::{read}")));
    let found = paths(&source.product).into_iter().filter(|(_, path)| reads(path));
    found.map(|(line, path)| source.found(line, format!("{path}: only {CLOCK_FILE} reads a clock"))).collect()
}

fn pure_rooms_stay_pure(source: &Source) -> Vec<String> {
    if !PURE.contains(&source.room()) {
        return Vec::new();
    }
    let found =
        paths(&source.product).into_iter().filter(|(_, path)| IMPURE.iter().any(|no| is_below(path, no)));
    found.map(|(line, path)| source.found(line, format!("{path}: this room is pure"))).collect()
}

fn rooms_know_only_their_neighbours(source: &Source) -> Vec<String> {
    let room = source.room();
    if room == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == room) else {
        return vec![
            source.found(1, format!("the room `{room}` has no line in EDGES: which rooms may it know?")),
        ];
    };
    let mut found = Vec::new();
    for (line, path) in paths(&source.product) {
        let mut parts = path.split("::");
        let other = match parts.next() {
            Some("crate" | "multusd") => parts.next().unwrap_or(""),
            _ => continue,
        };
        let known =
            other == room || ["limits", "time", "packed"].contains(&other) || allowed.contains(&other);
        if EDGES.iter().any(|(name, _)| *name == other) && !known {
            found.push(source.found(line, format!("{path}: `{room}` does not know `{other}`")));
        }
    }
    found
}

/// What is no child and known to all of them.
const OF_ALL_CHILDREN: &[&str] = &["mod", "life"];

/// The child a file belongs to: `modbus` for src/child/modbus.rs and for src/child/modbus/frame.rs.
fn child_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("src/child/")?.split(['/', '.']).next()?;
    (!OF_ALL_CHILDREN.contains(&name)).then_some(name)
}

fn children_are_strangers(source: &Source, children: &BTreeSet<String>) -> Vec<String> {
    let Some(own) = child_of(&source.path) else { return Vec::new() };
    // How many `super` it takes to stand in src/child/.
    let depth = source.path.matches('/').count() - 1 - usize::from(source.path.ends_with("/mod.rs"));
    let up = format!("{}::", vec!["super"; depth].join("::"));
    let mut found = Vec::new();
    for (line, path) in paths(&source.product) {
        let inside = path.strip_prefix("crate::child::").or_else(|| path.strip_prefix(&up));
        let other = inside.and_then(|rest| rest.split("::").next()).unwrap_or("");
        if other != own && children.contains(other) {
            found.push(source.found(
                line,
                format!("{path}: `{own}` does not know `{other}`; a child never names another"),
            ));
        }
    }
    found
}

/// The ratchet: `length` against the limit, or against what the list grants.
fn ratchet(
    name: &str,
    length: usize,
    limit: usize,
    list: &[(&str, usize)],
    list_name: &str,
) -> Option<String> {
    match list.iter().find(|(listed, _)| *listed == name) {
        Some((_, granted)) if length > *granted => {
            Some(format!("{name}: {length} lines, {granted} when it was granted"))
        }
        Some(_) if length <= limit => {
            Some(format!("{name}: {length} lines fit now; take it off {list_name}"))
        }
        Some(_) => None,
        None => (length > limit).then(|| format!("{name}: {length} lines; {limit} are readable. Split it")),
    }
}

fn files_are_short(source: &Source) -> Vec<String> {
    let lines = source.raw.lines().count();
    ratchet(&source.path, lines, FILE_LINES_MAX, LONG_FILES, "LONG_FILES").into_iter().collect()
}

/// Name and length in lines of every function that has a body.
fn functions(code: &str) -> Vec<(String, usize)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        // `fn` without a name is a type: `fn(u32) -> u32`.
        let Some(name) = tokens.get(at + 1).filter(|next| next.text.starts_with(is_word)) else { continue };
        if tokens[at].text == "fn" {
            let end = item_end(&tokens, at);
            if tokens[end].text == "}" {
                found.push((name.text.to_string(), tokens[end].line - tokens[at].line + 1));
            }
        }
    }
    found
}

fn functions_are_short(source: &Source) -> Vec<String> {
    let found = functions(&source.product).into_iter().filter_map(|(name, lines)| {
        let name = format!("{}::{name}", source.path);
        ratchet(&name, lines, FUNCTION_LINES_MAX, LONG_FUNCTIONS, "LONG_FUNCTIONS")
    });
    found.collect()
}

fn files_say_what_they_are_for(source: &Source) -> Vec<String> {
    if source.raw.starts_with("//!") {
        return Vec::new();
    }
    vec![source.found(1, "a file opens with `//!`: what it is for and what it must never do")]
}

fn nothing_is_left_to_do(source: &Source) -> Vec<String> {
    let tokens = tokens(&source.code);
    let macros = tokens.windows(2).filter(|pair| pair[1].text == "!" && UNFINISHED.contains(&pair[0].text));
    let mut found: Vec<String> = macros
        .map(|pair| source.found(pair[0].line, format!("{}!: write it or open an issue", pair[0].text)))
        .collect();
    for (index, line) in source.raw.lines().enumerate() {
        if line.contains("FIXME") {
            found.push(source.found(index + 1, "FIXME: fix it or open an issue"));
        }
    }
    found
}

/// `make release` compiles no Debug formatting (release/build): a text made with it is empty there, and
/// only there.
fn no_text_is_made_by_debug(source: &Source) -> Vec<String> {
    let lines = source.raw.lines().zip(source.product.lines()).enumerate();
    lines
        .filter(|(_, (raw, product))| raw.contains("?}") && !product.trim().is_empty())
        .map(|(index, _)| source.found(index + 1, "{:?} prints nothing in what ships; say it in words"))
        .collect()
}

fn nobody_unwraps(source: &Source) -> Vec<String> {
    let tokens = tokens(&source.product);
    let mut found = Vec::new();
    for triple in tokens.windows(3) {
        let is_call = [".", "::"].contains(&triple[0].text) && triple[2].text == "(";
        if is_call && ["unwrap", "expect", "unwrap_err", "expect_err"].contains(&triple[1].text) {
            let line = triple[1].line;
            let text = source.raw.lines().nth(line - 1).unwrap_or("").trim();
            if !UNWRAPS.contains(&format!("{}::{text}", source.path).as_str()) {
                found.push(
                    source.found(line, format!("`{text}`: an error is an event, a log line or a retry")),
                );
            }
        }
    }
    found
}

/// Every dependency has its own reason in a comment on the line above it.
fn dependencies_have_reasons(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut inside, mut depth) = (false, 0i32);
    let mut before = "";
    for (index, line) in manifest.lines().enumerate() {
        let text = line.trim();
        if text.starts_with('[') && depth == 0 {
            inside = text.trim_end_matches(']').ends_with("dependencies");
            if !inside && text.contains("dependencies.") {
                found.push(format!(
                    "Cargo.toml:{}: {text}: write it as one line below [dependencies]",
                    index + 1
                ));
            }
        } else if inside
            && depth == 0
            && text.contains('=')
            && !text.starts_with('#')
            && !before.starts_with('#')
        {
            let name = text.split('=').next().unwrap_or(text).trim();
            found.push(format!("Cargo.toml:{}: `{name}` is here without a reason above it", index + 1));
        }
        if !text.starts_with('#') && !text.starts_with('[') {
            depth += text.matches(['[', '{']).count() as i32 - text.matches([']', '}']).count() as i32;
        }
        before = text;
    }
    found
}

// ------------------------------------------------------------ the rules on the house

/// Fails with every finding of a rule, not only the first.
fn check(rule: impl Fn(&Source) -> Vec<String>) {
    let sources = sources();
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the walk found no source");
    report(sources.iter().flat_map(rule).collect());
}

fn report(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn house_unsafe() {
    check(unsafe_only_in_sys);
}

#[test]
fn house_clocks() {
    check(clocks_only_in_their_file);
}

#[test]
fn house_pure() {
    check(pure_rooms_stay_pure);
}

#[test]
fn house_edges() {
    check(rooms_know_only_their_neighbours);
}

#[test]
fn house_children() {
    let sources = sources();
    let children = sources.iter().filter_map(|source| child_of(&source.path)).map(String::from).collect();
    report(sources.iter().flat_map(|source| children_are_strangers(source, &children)).collect());
}

#[test]
fn house_file_length() {
    check(files_are_short);
}

#[test]
fn house_function_length() {
    check(functions_are_short);
}

#[test]
fn house_ratchets_name_what_exists() {
    let sources = sources();
    let mut names: BTreeSet<String> = sources.iter().map(|source| source.path.clone()).collect();
    for source in &sources {
        names.extend(
            functions(&source.product).into_iter().map(|(name, _)| format!("{}::{name}", source.path)),
        );
    }
    let gone = LONG_FILES.iter().chain(LONG_FUNCTIONS).filter(|(name, _)| !names.contains(*name));
    report(gone.map(|(name, _)| format!("{name} is in a ratchet and nowhere else")).collect());
}

#[test]
fn house_opening_comments() {
    check(files_say_what_they_are_for);
}

#[test]
fn house_unfinished() {
    check(nothing_is_left_to_do);
}

#[test]
fn house_debug() {
    check(no_text_is_made_by_debug);
}

#[test]
fn house_unwraps() {
    check(nobody_unwraps);
}

#[test]
fn house_dependencies() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    report(dependencies_have_reasons(&fs::read_to_string(manifest).expect("Cargo.toml")));
}

// ------------------------------------------------------------ the rules on what breaks them

/// The lines on which a rule finds something in a snippet.
fn lines_found(rule: impl Fn(&Source) -> Vec<String>, path: &str, text: &str) -> Vec<usize> {
    let line = |finding: String| {
        finding[path.len() + 1..].split(':').next().map(|line| line.parse().expect("a line"))
    };
    rule(&Source::new(path, text)).into_iter().filter_map(line).collect()
}

#[test]
fn catches_unsafe_outside_sys_but_not_the_word() {
    let text = "// unsafe\nlet a = \"unsafe\";\nunsafe { f() }\n#![deny(unsafe_code)]\n";
    assert_eq!(lines_found(unsafe_only_in_sys, "src/daemon/mod.rs", text), [3]);
    assert_eq!(lines_found(unsafe_only_in_sys, "src/sys/spawn.rs", text), [0; 0]);
}

#[test]
fn catches_clock_reads_of_every_spelling() {
    let text = "use std::time::Instant;\nlet a = Instant::now();\nlet b = std::time::SystemTime::now();\n\
                nix::time::clock_gettime(c);\nlet d = Instant(5);\n#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }\n";
    assert_eq!(lines_found(clocks_only_in_their_file, "src/daemon/mod.rs", text), [2, 3, 4]);
    assert_eq!(lines_found(clocks_only_in_their_file, CLOCK_FILE, text), [0; 0]);
}

#[test]
fn catches_a_pure_room_that_reaches_out() {
    let text = "use std::{fmt, fs};\nuse crate::sys;\nfn f() { std::process::exit(1) }\n\
                use std::time::Duration;\nuse std::fmt::Write;\nuse crate::system;\n";
    assert_eq!(lines_found(pure_rooms_stay_pure, "src/config/mod.rs", text), [1, 2, 3, 4]);
    assert_eq!(lines_found(pure_rooms_stay_pure, "src/daemon/mod.rs", text), [0; 0]);
}

#[test]
fn catches_an_edge_that_is_not_in_the_map() {
    let text = "use crate::{limits, sys};\nuse crate::{config::{Config, Daemon}};\nfn f() { crate::daemon::run() }\n";
    assert_eq!(lines_found(rooms_know_only_their_neighbours, "src/guard.rs", text), [2, 2, 3]);
    assert_eq!(lines_found(rooms_know_only_their_neighbours, "src/main.rs", "multusd::config::f();\n"), [1]);
    assert_eq!(
        lines_found(rooms_know_only_their_neighbours, "src/daemon/a.rs", "use crate::daemon::b;\n"),
        [0; 0]
    );
    assert_eq!(
        lines_found(rooms_know_only_their_neighbours, "src/attic.rs", ""),
        [1],
        "a room nobody planned"
    );
}

#[test]
fn catches_a_child_that_names_another() {
    let children = ["modbus", "led"].map(String::from).into();
    let rule = |source: &Source| children_are_strangers(source, &children);
    assert_eq!(lines_found(rule, "src/child/led.rs", "use super::modbus::Frame;\nuse super::keys;\n"), [1]);
    assert_eq!(
        lines_found(rule, "src/child/led.rs", "crate::child::modbus::run();\ncrate::child::led::f();\n"),
        [1]
    );
    assert_eq!(
        lines_found(rule, "src/child/modbus/frame.rs", "use super::super::led;\nuse super::led;\n"),
        [1]
    );
    assert_eq!(lines_found(rule, "src/child/modbus/mod.rs", "use super::led;\n"), [1]);
    assert_eq!(lines_found(rule, "src/child/mod.rs", "use self::led::run;\nmod modbus;\n"), [0; 0]);
}

#[test]
fn catches_a_file_that_is_too_long() {
    let long = "x\n".repeat(FILE_LINES_MAX + 1);
    assert_eq!(files_are_short(&Source::new("src/a.rs", &long)).len(), 1);
    assert!(files_are_short(&Source::new("src/a.rs", &long[2..])).is_empty());
}

#[test]
fn catches_a_ratchet_that_slips_or_has_done_its_work() {
    let list = &[("a", 700)];
    assert!(ratchet("a", 701, 600, list, "LIST").is_some_and(|text| text.contains("700 when")));
    assert_eq!(ratchet("a", 700, 600, list, "LIST"), None);
    assert!(ratchet("a", 600, 600, list, "LIST").is_some_and(|text| text.contains("take it off LIST")));
    assert!(ratchet("b", 601, 600, list, "LIST").is_some());
}

#[test]
fn catches_a_function_that_is_too_long() {
    let body = "    f();\n".repeat(FUNCTION_LINES_MAX - 1);
    let text = format!("fn long(a: [u8; 3])\n{{\n{body}}}\nfn short() {{}}\ntype F = fn(u32) -> u32;\n");
    assert_eq!(functions(&text), [("long".to_string(), FUNCTION_LINES_MAX + 2), ("short".to_string(), 1)]);
    assert_eq!(functions_are_short(&Source::new("src/a.rs", &text)).len(), 1);
    let in_tests = format!("#[cfg(test)]\nmod tests {{\n{text}}}\n");
    assert!(functions_are_short(&Source::new("src/a.rs", &in_tests)).is_empty());
}

#[test]
fn catches_a_file_without_a_purpose() {
    assert_eq!(lines_found(files_say_what_they_are_for, "src/a.rs", "use std::fmt;\n//! Late.\n"), [1]);
    assert_eq!(lines_found(files_say_what_they_are_for, "src/a.rs", "//! Opens.\n"), [0; 0]);
}

#[test]
fn catches_unfinished_work() {
    // In two pieces, so that this file does not contain what it forbids.
    let text = [
        "fn f() { todo!() }\nunimplemented!(\"x\");\n// FIX",
        "ME later\nlet todo = 1;\n// todo! in prose\n",
    ]
    .concat();
    assert_eq!(lines_found(nothing_is_left_to_do, "src/a.rs", &text), [1, 2, 3]);
}

#[test]
fn catches_unwraps_outside_tests() {
    let text = "a.unwrap();\nb.expect(\"x\");\nc.unwrap_or(1);\n// d.unwrap()\nmap(Option::unwrap);\nResult::unwrap(e);\n\
                #[cfg(test)]\nmod tests { fn f() { g.unwrap() } }\nh\n    .unwrap();\n";
    assert_eq!(lines_found(nobody_unwraps, "src/a.rs", text), [1, 2, 6, 10]);
    assert_eq!(lines_found(nobody_unwraps, "src/daemon/tests.rs", text), [0; 0]);
}

#[test]
fn catches_a_text_made_by_debug() {
    let text = "fn a() {\n    say(\"{x:?}\");\n    say(\"{:#?}\", x);\n    // \"{x:?}\"\n    say(\"{x}?\");\n}\n\
                #[cfg(test)]\nmod tests {\n    fn b() { assert!(x, \"{x:?}\"); }\n}\n";
    assert_eq!(lines_found(no_text_is_made_by_debug, "src/a.rs", text), [2, 3]);
}

#[test]
fn catches_a_dependency_without_a_reason() {
    let text = "[package]\nname = \"x\"\n[dependencies]\n# Why a.\na = \"1\"\nb = \"1\"\n\
                # Why c.\nc = { version = \"1\", features = [\n  \"x=y\",\n] }\n[dev-dependencies]\nd = \"1\"\n\
                [target.'cfg(unix)'.dependencies]\ne = \"1\"\n[dependencies.f]\nversion = \"1\"\n[lib]\npath = \"x\"\n";
    let lines: Vec<usize> = dependencies_have_reasons(text)
        .iter()
        .filter_map(|finding| finding.split(':').nth(1))
        .map(|line| line.parse().expect("a line"))
        .collect();
    assert_eq!(lines, [6, 12, 14, 15]);
}

#[test]
fn blanking_sees_literals_and_comments_as_the_compiler_does() {
    let text = "a 'x' b '\\'' c 'long d \"q\\\"x\" e r#\"x\"x\"# f b\"x\" /* x /* x */ x */ g // x\nh '\"' i '\\u{1F600}' j br\"x\\\" k";
    let words: Vec<&str> = {
        let code = Box::leak(blank_comments_and_literals(text).into_boxed_str());
        tokens(code).into_iter().map(|token| token.text).collect()
    };
    assert_eq!(words, ["a", "b", "c", "'", "long", "d", "e", "f", "g", "h", "i", "j", "k"]);
}

#[test]
fn blanking_tests_keeps_the_rest_and_the_lines() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { [1, 2]; }\n}\n#[cfg(not(test))]\nfn c() {}\n\
                #[cfg(test)]\nuse x;\n#[cfg(all(test, unix))]\nfn d() -> [u8; 2] { [0; 2] }\nfn e() {}\n";
    let product = blank_tests(text);
    assert_eq!(product.lines().count(), text.lines().count());
    let names: Vec<String> = functions(&product).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "c", "e"]);
}

#[test]
fn paths_come_out_of_groups_whole() {
    let found: Vec<String> =
        paths("use a::{b, c::{d, e as f}};\ng::h(i);").into_iter().map(|(_, path)| path).collect();
    for wanted in ["a::b", "a::c::d", "a::c::e", "g::h", "i"] {
        assert!(found.iter().any(|path| path == wanted), "{wanted} is not in {found:?}");
    }
}

//! The environment of a program, complete: the file's, the section's, and what multusd tells it.

use std::path::Path;

use crate::config::{HeartbeatKind, Program};
use crate::sys::{file, proc};

use super::spec::{Surroundings, beat_descriptor, uses_notify};

/// What a program's environment has beyond the inherited: the file's, then the section's, then ours;
/// later ones win.
pub fn of(program: &Program, around: &Surroundings) -> Result<Vec<String>, String> {
    let mut environment = Vec::new();
    let mut set = |name: &str, value: &str| {
        let entry = [name, "=", value].concat();
        match environment.iter_mut().find(|known: &&mut String| value_of(known, name).is_some()) {
            Some(known) => *known = entry,
            None => environment.push(entry),
        }
    };
    if let Some(from) = &program.environment_file {
        match file::read_bounded(Path::new(&from.path), crate::limits::CONFIG_BYTES_MAX) {
            Ok(bytes) => parse(&String::from_utf8_lossy(&bytes), &mut set),
            Err(error) if from.optional && error.errno == libc::ENOENT => {}
            Err(error) => return Err(format!("environment_file {}: {error}", from.path)),
        }
    }
    for (name, value) in &program.environment {
        set(name, value);
    }
    set(proc::MARKER, &format!("{:016x}/{}", around.life, program.name));
    if uses_notify(program) {
        let socket = around.run_dir.join("notify").join(&program.name);
        set("NOTIFY_SOCKET", &socket.to_string_lossy());
    }
    if let Some(heartbeat) = &program.heartbeat {
        let micros = (heartbeat.limit.0 * 1000).to_string();
        let number = beat_descriptor(program).unwrap_or_default();
        set("MULTUSD_HEARTBEAT_USEC", &micros);
        let means = match &heartbeat.kind {
            HeartbeatKind::Notify => {
                set("WATCHDOG_USEC", &micros);
                set("WATCHDOG_PID", "");
                "notify".into()
            }
            HeartbeatKind::Fd => format!("fd:{number}"),
            HeartbeatKind::Counter => format!("counter:{number}"),
            HeartbeatKind::File(path) => format!("file:{path}"),
            HeartbeatKind::Tcp(port) => format!("tcp:{port}"),
        };
        set("MULTUSD_HEARTBEAT", &means);
    }
    // Its order is none of the program's business, and must not make it another one.
    environment.sort_unstable();
    Ok(environment)
}

pub fn find<'a>(environment: &'a [String], name: &str) -> Option<&'a str> {
    environment.iter().find_map(|entry| value_of(entry, name))
}

/// The value, if the entry is of this name.
pub fn value_of<'a>(entry: &'a str, name: &str) -> Option<&'a str> {
    entry.strip_prefix(name)?.strip_prefix('=')
}

/// `NAME=value` lines; `#` and `;` begin a comment line; a value may be quoted.
fn parse(text: &str, set: &mut dyn FnMut(&str, &str)) {
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let Some((name, value)) = line.strip_prefix("export ").unwrap_or(line).split_once('=') else {
            continue;
        };
        let value = value.trim();
        let unquoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        let name = name.trim();
        if !name.is_empty() {
            set(name, unquoted.unwrap_or(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_may_have_comments_exports_and_quotes() {
        let text = "# no\nA=1\n export B=\"two words\"\n;C=3\nD='x'\n=bad\nE = e \n";
        let mut read = Vec::new();
        parse(text, &mut |name, value| read.push((name.to_owned(), value.to_owned())));
        let expected = [("A", "1"), ("B", "two words"), ("D", "x"), ("E", "e")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}

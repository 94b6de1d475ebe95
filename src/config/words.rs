//! Cuts values into words: commands without a shell, environments, lists of names.

use super::nearest::nearest;
use super::text::short;
use super::value::Wrong;
use crate::limits::NAME_BYTES_MAX;

/// Reads characters one by one, with the rules of quoting that commands and environments share:
/// `'…'` is literal, in `"…"` a backslash escapes `"` and `\`.
struct Reader<'a> {
    rest: core::iter::Peekable<core::str::Chars<'a>>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Reader { rest: text.chars().peekable() }
    }

    /// Appends the rest of a quotation that `quote` opened.
    fn quoted(&mut self, quote: char, out: &mut String) -> Result<(), Wrong> {
        while let Some(c) = self.rest.next() {
            match c {
                _ if c == quote => return Ok(()),
                '\\' if quote == '"' => match self.rest.next() {
                    Some(next @ ('"' | '\\')) => out.push(next),
                    Some(next) => out.extend(['\\', next]),
                    None => break,
                },
                _ => out.push(c),
            }
        }
        Err(Wrong::Say(format!("has a {quote} that is not closed")))
    }
}

/// Splits a command as a shell would, and does nothing else a shell does.
pub(super) fn command(text: &str) -> Result<Vec<String>, Wrong> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut reader = Reader::new(text);
    while let Some(c) = reader.rest.next() {
        if c.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match c {
            '\'' | '"' => reader.quoted(c, word)?,
            '\\' => match reader.rest.next() {
                Some(next) => word.push(next),
                None => return Err(Wrong::Say("ends with a backslash that escapes nothing".into())),
            },
            _ => word.push(c),
        }
    }
    words.extend(word);
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err(Wrong::Say("has no program to run".into())),
    }
}

/// Reads `KEY="v",K2=v2`; commas or white space stand between variables.
pub(super) fn environment(text: &str) -> Result<Vec<(String, String)>, Wrong> {
    let mut list: Vec<(String, String)> = Vec::new();
    let mut reader = Reader::new(text);
    let between = |c: &char| c.is_ascii_whitespace() || *c == ',';
    loop {
        while reader.rest.next_if(between).is_some() {}
        let mut name = String::new();
        while let Some(c) = reader.rest.next_if(|c| *c != '=' && !between(c)) {
            name.push(c);
        }
        while reader.rest.next_if(char::is_ascii_whitespace).is_some() {}
        match reader.rest.next() {
            None if name.is_empty() => return Ok(list),
            Some('=') => {}
            _ => {
                let name = short(&name);
                return Err(Wrong::Say(format!("has {name} without a value; write for example {name}=1")));
            }
        }
        if !is_variable(&name) {
            return Err(Wrong::Say(format!("has {}, which cannot be the name of a variable", short(&name))));
        }
        while reader.rest.next_if(char::is_ascii_whitespace).is_some() {}
        let mut value = String::new();
        while let Some(c) = reader.rest.next_if(|c| !between(c)) {
            match c {
                '\'' | '"' => reader.quoted(c, &mut value)?,
                _ => value.push(c),
            }
        }
        if list.iter().any(|(known, _)| *known == name) {
            return Err(Wrong::Say(format!("sets {name} twice")));
        }
        list.push((name, value));
    }
}

fn is_variable(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(word)
}

/// Words between commas or white space.
pub(super) fn names(text: &str) -> Vec<String> {
    let words = text.split(|c: char| c == ',' || c.is_ascii_whitespace());
    words.filter(|word| !word.is_empty()).map(String::from).collect()
}

/// Why a text cannot be the name of a program, which is also a file name and a word to type.
pub(super) fn name_fault(name: &str) -> Option<String> {
    let says = match name {
        "" => "is empty",
        // `multusctl stop all` means all of them.
        "all" => "means all programs",
        // What keeps the lines of all others has its row among them.
        "log" => "means multusd's own log",
        _ if name.starts_with(['.', '-']) => "begins with a dot or a hyphen",
        _ if name.len() > NAME_BYTES_MAX => return Some(format!("is longer than {NAME_BYTES_MAX} bytes")),
        _ => match name
            .chars()
            .find(|c| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | ',' | '"' | '\''))
        {
            Some(c) if c.is_whitespace() => "holds a space",
            Some(c) if c.is_control() => "holds a control character",
            Some(c) => return Some(format!("holds the character {c}")),
            None => return None,
        },
    };
    Some(says.into())
}

/// A host name: what `sethostname` and a name server both take.
pub(super) fn is_host_name(name: &str) -> bool {
    name.len() <= 64 && are_labels(name)
}

/// The name of another machine, or its address.
pub(super) fn is_server(name: &str) -> bool {
    let is_v6 = |byte: u8| byte.is_ascii_hexdigit() || b":.".contains(&byte);
    name.len() <= 253 && (are_labels(name) || name.contains(':') && name.bytes().all(is_v6))
}

/// Labels of RFC 1123 with dots between them.
fn are_labels(name: &str) -> bool {
    name.split('.').all(|label| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let has_hyphen = label.starts_with('-') || label.ends_with('-');
        (1..=63).contains(&label.len()) && !has_hyphen && label.bytes().all(is_plain)
    })
}

/// Capabilities by number.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// A set of capabilities, `none` or names with or without `CAP_`.
pub(super) fn capabilities(text: &str) -> Result<u64, Wrong> {
    let words = names(text);
    if let [word] = words.as_slice()
        && word == "none"
    {
        return Ok(0);
    }
    let mut set = 0;
    for word in &words {
        let name = word.to_ascii_lowercase();
        let name = name.strip_prefix("cap_").unwrap_or(&name);
        let Some(number) = CAPABILITIES.iter().position(|known| *known == name) else {
            return Err(Wrong::Say(match nearest(name, CAPABILITIES.into_iter()) {
                Some(known) => format!("has the unknown capability {word}; did you mean {known}?"),
                None => format!("has the unknown capability {word}; see capabilities(7)"),
            }));
        };
        set |= 1 << number;
    }
    if set == 0 { Err(Wrong::Kind) } else { Ok(set) }
}

/// Where a part, which is not empty, first stands in a text. The standard library's way to find it
/// is made for long texts and costs 2 kB.
pub fn find(text: &str, part: &str) -> Option<usize> {
    text.as_bytes().windows(part.len()).position(|window| window == part.as_bytes())
}

/// The text with another in place of every part.
pub fn replaced(mut text: &str, part: &str, by: &str) -> String {
    let mut out = String::new();
    while let Some(at) = find(text, part) {
        out = [&out, &text[..at], by].concat();
        text = &text[at + part.len()..];
    }
    out + text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_called_as_rfc_1123_allows() {
        let read = is_host_name;
        let (label, whole) = ("a".repeat(63), ["a".repeat(31), "b".repeat(32)].join("."));
        for good in ["pump-7", "7", "pump-7.hall.example", &label, &whole] {
            assert!(read(good), "{good}");
        }
        for bad in ["", ".", "-a", "a-", "a..b", "a.-b", "a-.b", "a.", "a_b", "pump 7", "pümp"] {
            assert!(!read(bad), "{bad}");
        }
        assert!(!read(&"a".repeat(64)) && !read(&[&*label, "b"].join(".")));
    }

    #[test]
    fn commands_are_split_as_a_shell_splits() {
        for (text, words) in [
            ("a", &["a"][..]),
            ("  /bin/x  -p 3\t4 ", &["/bin/x", "-p", "3", "4"]),
            (r#"sh -c "a 'b' \"c\" \n""#, &["sh", "-c", r#"a 'b' "c" \n"#]),
            (r"a 'b \ c' d\ e", &["a", r"b \ c", "d e"]),
            (r#"a"b"'c'd "" ''"#, &["abcd", "", ""]),
            ("a\nb", &["a", "b"]),
        ] {
            assert_eq!(command(text).unwrap(), words, "{text}");
        }
        for text in ["", "  ", "''", "a 'b", "a \"b", "a \"b\\", "a\\"] {
            assert!(command(text).is_err(), "{text}");
        }
    }

    #[test]
    fn environments() {
        let pairs = |text: &str| -> Vec<(String, String)> { environment(text).unwrap() };
        let own = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        assert_eq!(pairs(""), own(&[]));
        assert_eq!(
            pairs(r#"A="x, y",B=2 , C='q' D="#),
            own(&[("A", "x, y"), ("B", "2"), ("C", "q"), ("D", "")])
        );
        assert_eq!(pairs("A = \"1\",\nB=\"2\","), own(&[("A", "1"), ("B", "2")]));
        assert_eq!(pairs(r#"P=/a/b:"c d"/e"#), own(&[("P", "/a/b:c d/e")]));
        for text in ["A", "A B=1", "=1", "1A=2", "A=1,A=2", "A=\"1"] {
            assert!(environment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_programs() {
        for good in ["a", "pump-2", "größe", "w_01", "a.b"] {
            assert_eq!(name_fault(good), None, "{good}");
        }
        for bad in ["", ".a", "-a", "a b", "a:b", "a/b", "a\u{1}", "a\u{a0}b", "all", "a,b", &"x".repeat(64)]
        {
            assert!(name_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn capability_sets() {
        assert_eq!(capabilities("none"), Ok(0));
        assert_eq!(capabilities("CAP_NET_BIND_SERVICE, chown"), Ok(1 << 10 | 1));
        assert_eq!(capabilities("cap_checkpoint_restore"), Ok(1 << 40));
        assert_eq!(
            capabilities("net_bind_servce"),
            Err(Wrong::Say(
                "has the unknown capability net_bind_servce; did you mean net_bind_service?".into()
            ))
        );
        assert!(capabilities(",").is_err());
    }
}

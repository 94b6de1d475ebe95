//! Paths that match a pattern, as the shell has them: `*`, `?`, `[a-z]`, `[!a-z]`, `\` before what is
//! to stand for itself, in every part of the path. A leading dot is only matched by a dot.
//!
//! Of our own because the C library's brings 22 kB: home directories and who knows them, letters of
//! all scripts, a sort, buffered files. A byte is a character here, as in the C library without locale.

use super::file;

/// Paths that match, sorted; those that are not UTF-8 are left out.
pub fn glob(pattern: &str) -> Vec<String> {
    let mut found = Vec::new();
    let root = if pattern.starts_with('/') { "/" } else { "" };
    walk(root, pattern, &mut found);
    found.sort_unstable();
    found
}

/// Adds what matches below `before`, which is empty or ends with a slash.
fn walk(before: &str, pattern: &str, found: &mut Vec<String>) {
    let pattern = pattern.trim_start_matches('/');
    let end = pattern.bytes().position(|byte| byte == b'/').unwrap_or(pattern.len());
    let (part, rest) = pattern.split_at(end);
    let mut names = Vec::new();
    if part.bytes().any(|byte| b"*?[".contains(&byte)) {
        let directory = if before.is_empty() { "." } else { before };
        file::each_name(directory.as_ref(), &mut |name, _| {
            if let Ok(name) = name.to_str()
                && (name.starts_with('.') <= part.starts_with('.')
                    && matches(part.as_bytes(), name.as_bytes()))
            {
                names.push(name.to_owned());
            }
        });
    } else {
        names.push(unescaped(part));
    }
    for name in names {
        let path = [before, &name].concat();
        if !rest.is_empty() {
            walk(&(path + "/"), rest, found);
        } else if file::exists(&path) {
            found.push(path);
        }
    }
}

fn unescaped(part: &str) -> String {
    let mut escaped = false;
    let stays = |letter: &char| {
        escaped = *letter == '\\' && !escaped;
        !escaped
    };
    part.chars().filter(stays).collect()
}

/// Whether a name, without slashes, matches.
fn matches(mut pattern: &[u8], mut name: &[u8]) -> bool {
    // What follows the last star, and what is left of the name if the star took nothing more.
    let mut star = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            star = Some((rest, name));
            pattern = rest;
            continue;
        }
        let taken = match name {
            [] => return pattern.is_empty(),
            [byte, after @ ..] => take(pattern, *byte).map(|rest| (rest, after)),
        };
        (pattern, name) = match (taken, star) {
            (Some(next), _) => next,
            (None, Some((rest, [_, after @ ..]))) => {
                star = Some((rest, after));
                (rest, after)
            }
            (None, _) => return false,
        };
    }
}

/// What is left of a pattern whose first element is this byte.
fn take(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (is_it, rest) = match pattern {
        [] => return None,
        [b'?', rest @ ..] => (true, rest),
        [b'\\', escaped, rest @ ..] => (*escaped == byte, rest),
        // A bracket that nothing closes is a bracket.
        [b'[', rest @ ..] => set(rest, byte).unwrap_or((byte == b'[', rest)),
        [literal, rest @ ..] => (*literal == byte, rest),
    };
    is_it.then_some(rest)
}

/// Whether the set that begins here holds the byte, and what follows it; none if it is not closed.
fn set(set: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut set) = match set {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let (mut holds, mut first) = (false, true);
    loop {
        (holds, set) = match set {
            [] => return None,
            [b']', rest @ ..] if !first => return Some((holds != negated, rest)),
            [low, b'-', high, rest @ ..] if *high != b']' => (holds | (low..=high).contains(&&byte), rest),
            [one, rest @ ..] => (holds | (*one == byte), rest),
        };
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::fs;

    /// Every word of at most so many of these letters.
    fn words(letters: &str, length: usize) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut from = 0;
        for _ in 0..length {
            let to = words.len();
            for index in from..to {
                words.extend(
                    letters
                        .chars()
                        .map(|letter| words[index].clone() + &letter.to_string())
                        .collect::<Vec<_>>(),
                );
            }
            from = to;
        }
        words
    }

    #[test]
    fn matches_what_the_c_library_matches() {
        let names: Vec<_> =
            words("ab-]", 3).into_iter().map(|name| (CString::new(&*name).unwrap(), name)).collect();
        let mut count = 0;
        // A backslash within brackets is itself to POSIX, and to musl, and an escape to glibc.
        for pattern in words("ab*?[]!-", 5).into_iter().chain(words("ab*\\?", 5)) {
            let c_pattern = CString::new(&*pattern).unwrap();
            // A backslash at the end, a range backwards: nobody means anything by it.
            if pattern.ends_with('\\')
                || pattern.contains("b-a")
                || pattern.contains("--")
                || pattern.contains("]-")
            {
                continue;
            }
            for (c_name, name) in &names {
                // SAFETY: two C strings.
                let expected = unsafe { libc::fnmatch(c_pattern.as_ptr(), c_name.as_ptr(), 0) } == 0;
                assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
                count += 1;
            }
        }
        assert!(count > 100_000);
    }

    #[test]
    fn finds_paths_sorted_in_every_part_but_no_hidden_ones() {
        let root = std::env::temp_dir().join(format!("multusd-glob-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for directory in ["b.d", "a.d", ".c.d", "e[1]"] {
            fs::create_dir_all(root.join(directory)).unwrap();
            for name in ["2.cfg", "1.cfg", ".3.cfg", "4.cfg.disabled", "5"] {
                fs::write(root.join(directory).join(name), "").unwrap();
            }
        }
        let root = root.to_str().unwrap();
        for (pattern, expected) in [
            ("*.d/*.cfg", &["a.d/1.cfg", "a.d/2.cfg", "b.d/1.cfg", "b.d/2.cfg"][..]),
            ("a.d/1.cfg", &["a.d/1.cfg"]),
            ("a.d//1.cfg", &["a.d/1.cfg"]),
            ("a.d/[!1-4]", &["a.d/5"]),
            ("a.d/.*.cfg", &["a.d/.3.cfg"]),
            (".?.d/1*", &[".c.d/1.cfg"]),
            ("e\\[1]/1.cfg", &["e[1]/1.cfg"]),
            ("e\\[1\\]/1.c*", &["e[1]/1.cfg"]),
            ("a.d/", &["a.d/"]),
            ("a.d/9.cfg", &[]),
            ("x/*", &[]),
            ("a.d/1.cfg/*", &[]),
        ] {
            let found = glob(&format!("{root}/{pattern}"));
            let expected: Vec<_> = expected.iter().map(|path| format!("{root}/{path}")).collect();
            assert_eq!(found, expected, "{pattern}");
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_pattern_without_directory_is_looked_for_here() {
        assert_eq!(glob("Cargo.t?ml"), ["Cargo.toml"]);
        assert_eq!(glob("./Cargo.t?ml"), ["./Cargo.toml"]);
        assert_eq!(glob(""), [""; 0]);
    }
}

//! `%(name)s`: replaces names in a value by what they stand for.
//!
//! Twice: the first pass replaces what depends on the machine, and leaves text that needs no
//! machine; the second replaces what depends on the process. `%%` is a percent sign; `%;` and `%#`
//! are the two characters where they would otherwise start a comment.

/// What a name stands for.
pub(super) enum Meaning {
    /// Left as it is, for the second pass.
    Later,
    /// A text.
    Text(String),
    /// A number, which may have a width: `%(process_num)02d`.
    Number(u32),
    /// Nothing: why.
    Nothing(String),
}

/// The longest value, expanded. Longer ones are mistakes, and they could grow without bound.
pub(super) const VALUE_BYTES_MAX: usize = 32 * 1024;

pub(super) fn too_long() -> String {
    format!("is longer than {VALUE_BYTES_MAX} bytes")
}

/// Replaces every name in `text`. With `first`, the result is text for the second pass.
pub(super) fn expand(
    text: &str,
    first: bool,
    meaning: &mut dyn FnMut(&str) -> Meaning,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match rest.as_bytes().get(1) {
            Some(b'%' | b';' | b'#') => {
                out.push_str(&rest[usize::from(!first)..2]);
                2
            }
            Some(b'(') => replace(rest, first, meaning, &mut out)?,
            _ if first => {
                out.push('%');
                1
            }
            _ => return Err("holds a single %; write %% for a percent sign".into()),
        };
        rest = &rest[taken..];
        if out.len() > VALUE_BYTES_MAX {
            break;
        }
    }
    out.push_str(rest);
    if out.len() > VALUE_BYTES_MAX {
        return Err(too_long());
    }
    Ok(out)
}

/// Replaces the `%(name)s` at the start of `rest`; returns its length.
fn replace(
    rest: &str,
    first: bool,
    meaning: &mut dyn FnMut(&str) -> Meaning,
    out: &mut String,
) -> Result<usize, String> {
    let Some((name, width, zero, kind, length)) = parse(rest) else {
        if first {
            out.push('%');
            return Ok(1);
        }
        return Err(
            "holds a %( that is not complete; write for example %(program_name)s, or %% for a percent sign"
                .into(),
        );
    };
    let text = match meaning(name) {
        Meaning::Later => {
            out.push_str(&rest[..length]);
            return Ok(length);
        }
        Meaning::Nothing(why) => return Err(why),
        Meaning::Number(number) => number.to_string(),
        Meaning::Text(_) if kind == b'd' => {
            return Err(format!("holds %({name})d, which is not a number; write %({name})s"));
        }
        Meaning::Text(text) => text,
    };
    for _ in text.len()..width {
        out.push(if zero { '0' } else { ' ' });
    }
    if first {
        out.push_str(&text.replace('%', "%%"));
    } else {
        out.push_str(&text);
    }
    Ok(length)
}

/// Cuts `%(name)02d` into name, width, zero, `d` or `s`, and length.
fn parse(rest: &str) -> Option<(&str, usize, bool, u8, usize)> {
    let close = rest.find(')')?;
    let name = &rest[2..close];
    let bytes = rest.as_bytes();
    let mut at = close + 1;
    let zero = bytes.get(at) == Some(&b'0');
    let mut width = 0;
    while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
        width = width * 10 + usize::from(digit - b'0');
        // A name is at most 63 bytes; more zeros than this are a slip of the finger.
        if width > 20 {
            return None;
        }
        at += 1;
    }
    match bytes.get(at) {
        Some(kind @ (b's' | b'd')) => Some((name, width, zero && *kind == b'd', *kind, at + 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(name: &str) -> Meaning {
        match name {
            "n" => Meaning::Number(7),
            "t" => Meaning::Text("a%b".into()),
            "later" => Meaning::Later,
            _ => Meaning::Nothing(format!("no {name}")),
        }
    }

    #[test]
    fn second_pass_replaces_and_unescapes() {
        for (text, expected) in [
            ("", Ok("")),
            ("x%%y%;z%#", Ok("x%y;z#")),
            ("%(n)s-%(n)d-%(n)02d-%(n)3d", Ok("7-7-07-  7")),
            ("%(t)s", Ok("a%b")),
            ("%(t)d", Err("holds %(t)d, which is not a number; write %(t)s")),
            ("50%", Err("holds a single %; write %% for a percent sign")),
            ("%(x)s", Err("no x")),
        ] {
            assert_eq!(
                expand(text, false, &mut meaning),
                expected.map(String::from).map_err(String::from),
                "{text}"
            );
        }
        assert!(expand("%(n", false, &mut meaning).is_err());
        assert!(expand("%(n)", false, &mut meaning).is_err());
        assert!(expand("%(n)99999999999999999999d", false, &mut meaning).is_err());
    }

    #[test]
    fn first_pass_leaves_text_for_the_second() {
        let first = expand("%%%;50% %(later)02d %(t)s %(open", true, &mut meaning);
        assert_eq!(first.as_deref(), Ok("%%%;50% %(later)02d a%%b %(open"));
    }

    #[test]
    fn growth_is_bounded() {
        let mut big = |_: &str| Meaning::Text("x".repeat(20_000));
        assert_eq!(expand(&"%(a)s".repeat(1000), false, &mut big), Err("is longer than 32768 bytes".into()));
    }
}

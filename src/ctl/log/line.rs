//! One line, wherever it was read, and how it is shown.

use super::super::{json, words};
use crate::config::{LogStamp, StreamSettings};
use crate::log_text::{lines::When, stamp};

/// Bytes of a date and its space, as [`stamp::wall`] writes it.
const WALL_BYTES: usize = 25;

/// A line without its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// When it was said, by the wall clock, as a file has it; empty: it does not say.
    pub wall: String,
    /// The same in milliseconds since boot.
    pub mono_ms: Option<u64>,
    /// What was said.
    pub text: Vec<u8>,
}

/// How lines are shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// One JSON object each.
    pub json: bool,
    /// Whose they are stands before each.
    pub named: bool,
    /// Nothing that could move the cursor.
    pub clean: bool,
}

/// `12345.678 `: the milliseconds, and how long that is.
fn monotonic(bytes: &[u8]) -> Option<(u64, usize)> {
    let point = bytes.iter().position(|byte| *byte == b'.')?;
    if bytes.get(point + 4) != Some(&b' ') {
        return None;
    }
    let number = |bytes: &[u8]| -> Option<u64> {
        let digits = bytes.iter().all(u8::is_ascii_digit);
        str::from_utf8(bytes).ok().filter(|_| digits)?.parse().ok()
    };
    let seconds = number(&bytes[..point])?;
    let ms = number(&bytes[point + 1..point + 4])?;
    Some((seconds.checked_mul(1000)? + ms, point + 5))
}

impl Line {
    /// A line of a file, whose lines begin with a stamp of this kind, or did once.
    pub fn of_file(mut bytes: &[u8], kind: LogStamp) -> Line {
        let mut line = Line::default();
        if kind != LogStamp::None {
            let is_date = |bytes: &[u8]| {
                bytes.iter().zip(b"dddd-dd-ddTdd:dd:dd.dddZ ").all(|(byte, like)| match like {
                    b'd' => byte.is_ascii_digit(),
                    sign => byte == sign,
                })
            };
            if let Some(date) = bytes.get(..WALL_BYTES).filter(|date| is_date(date)) {
                line.wall = String::from_utf8_lossy(&date[..WALL_BYTES - 1]).into_owned();
                bytes = &bytes[WALL_BYTES..];
            }
            if let Some((ms, length)) = monotonic(bytes) {
                line.mono_ms = Some(ms);
                bytes = &bytes[length..];
            }
        }
        line.text = bytes.to_vec();
        line
    }

    /// A line that was heard at this time.
    pub fn heard(when: When, text: Vec<u8>) -> Line {
        let mut wall = Vec::new();
        stamp::wall(&mut wall, when.wall_ms);
        Line { wall: String::from_utf8_lossy(&wall).into_owned(), mono_ms: Some(when.mono_ms), text }
    }

    /// Whether it was said before another, as far as their stamps say.
    pub fn is_before(&self, other: &Line) -> bool {
        if self.wall.is_empty() || other.wall.is_empty() {
            self.mono_ms < other.mono_ms
        } else {
            self.wall < other.wall
        }
    }

    /// Appends it, with its end.
    pub fn show(&self, stream: &StreamSettings, look: Look, out: &mut Vec<u8>) {
        let text = || String::from_utf8_lossy(&self.text);
        if look.json {
            let line = json::log_line(&stream.name, stream.is_err, &self.wall, self.mono_ms, &text());
            return out.extend_from_slice(line.as_bytes());
        }
        if matches!(stream.stamp, LogStamp::Both | LogStamp::Wall) && !self.wall.is_empty() {
            out.extend_from_slice(self.wall.as_bytes());
            out.push(b' ');
        }
        if let Some(ms) =
            self.mono_ms.filter(|_| matches!(stream.stamp, LogStamp::Both | LogStamp::Monotonic))
        {
            stamp::stamp(out, LogStamp::Monotonic, 0, ms);
        }
        if look.named {
            out.extend_from_slice(stream.name.as_bytes());
            out.extend_from_slice(b": ");
        }
        match look.clean {
            true => out.extend_from_slice(words::clean(&text()).as_bytes()),
            false => out.extend_from_slice(&self.text),
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_file_is_shown_as_it_stands_there() {
        for text in [
            "2026-11-21T17:20:01.123Z 12345.678 text",
            "2026-11-21T17:20:01.123Z text",
            "12345.678 text",
            "2026-11-21T17:20:01.123Z 12345.678 12345.678 2026-11-21T17:20:01.123Z x",
            "text",
            "",
            "1.23 x",
            "2026-11-21 17:20:01.123Z 1",
        ] {
            let stream = StreamSettings::default();
            let line = Line::of_file(text.as_bytes(), LogStamp::Both);
            let mut out = Vec::new();
            line.show(&stream, Look::default(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text.to_owned() + "\n");
        }
        let line = Line::of_file(b"2026-11-21T17:20:01.123Z 12345.678 text", LogStamp::Both);
        let heard = When { mono_ms: 12_345_678, wall_ms: 1_795_281_601_123 };
        assert_eq!(line, Line::heard(heard, b"text".to_vec()));
        assert_eq!(Line::of_file(b"12345.678 text", LogStamp::None).mono_ms, None);
    }

    #[test]
    fn what_a_program_says_moves_no_cursor() {
        let line = Line { text: b"\x1b[2Jx\xff".to_vec(), ..Line::default() };
        let mut out = Vec::new();
        let stream = StreamSettings { name: "pump".into(), ..StreamSettings::default() };
        line.show(&stream, Look { named: true, clean: true, json: false }, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "pump: ?[2Jx\u{fffd}\n");
    }
}

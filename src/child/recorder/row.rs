//! Rows of the record: a line of CSV each, with a number that grows by one for as long as there is the record, and a check, so
//! that what a power cut left of a line is known for what it is. Pure.

use crate::log_text::stamp;

/// The first line of every file.
pub const HEADER: &[u8] = b"row,time,synchronised,boot,monotonic,kind,name,state,unit,lasted,edges,check\n";

/// Letters of a unit that are kept; a publisher has no more.
const UNIT_BYTES_MAX: usize = 16;

/// What stands in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row<'a> {
    /// When, CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// `input`, `output`, `value`; `recorder` and `clock` are the recorder's own.
    pub kind: &'a str,
    /// Whose state.
    pub name: &'a str,
    /// Thousandths; none: it is not known.
    pub milli: Option<i64>,
    /// What it is measured in.
    pub unit: &'a str,
    /// How long the state before lasted, milliseconds.
    pub lasted_ms: Option<u64>,
    /// Edges since it was requested.
    pub edges: Option<u64>,
}

/// When and where rows are written: what is the same for all that come at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// CLOCK_MONOTONIC nanoseconds.
    pub now_ns: u64,
    /// CLOCK_BOOTTIME nanoseconds: goes on while the machine is suspended.
    pub boot_ns: u64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// The kernel takes the date for right.
    pub synchronised: bool,
}

/// FNV-1a, 32 bit: nobody attacks it, it has to notice a torn write.
fn check(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn hex(out: &mut Vec<u8>, value: u32) {
    for shift in (0..8).rev() {
        out.push(b"0123456789abcdef"[(value >> (shift * 4) & 15) as usize]);
    }
}

/// `-23.5`
fn thousandths(out: &mut Vec<u8>, milli: i64) {
    if milli < 0 {
        out.push(b'-');
    }
    stamp::number(out, milli.unsigned_abs() / 1000, 1);
    let rest = milli.unsigned_abs() % 1000;
    if rest > 0 {
        out.push(b'.');
        stamp::number(out, rest, 3);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Words that others chose: nothing in them ends a field, or is a formula for whoever opens the file as a table.
fn word(out: &mut Vec<u8>, text: &str) {
    for (at, byte) in text.bytes().take(crate::limits::NAME_BYTES_MAX.max(UNIT_BYTES_MAX)).enumerate() {
        let is_bad =
            byte < b' ' || byte == 0x7f || b"\",;".contains(&byte) || at == 0 && b"=+-@".contains(&byte);
        out.push(if is_bad { b'_' } else { byte });
    }
}

/// Appends a row.
pub fn write(out: &mut Vec<u8>, number: u64, boot: &str, moment: &Moment, row: &Row) {
    let begin = out.len();
    stamp::number(out, number, 1);
    out.push(b',');
    let ago_ms = moment.now_ns.saturating_sub(row.at_ns) / 1_000_000;
    stamp::wall(out, moment.wall_ms.saturating_sub(ago_ms));
    out.extend_from_slice(if moment.synchronised { b",1," } else { b",0," });
    word(out, boot);
    out.push(b',');
    stamp::number(out, row.at_ns / 1_000_000_000, 1);
    out.push(b'.');
    stamp::number(out, row.at_ns % 1_000_000_000, 9);
    for text in [row.kind, row.name] {
        out.push(b',');
        word(out, text);
    }
    out.push(b',');
    if let Some(milli) = row.milli {
        thousandths(out, milli);
    }
    out.push(b',');
    word(out, row.unit);
    out.push(b',');
    if let Some(lasted) = row.lasted_ms {
        thousandths(out, lasted as i64);
    }
    out.push(b',');
    if let Some(edges) = row.edges {
        stamp::number(out, edges, 1);
    }
    let sum = check(&out[begin..]);
    out.push(b',');
    hex(out, sum);
    out.push(b'\n');
}

/// The number of the row that a line (with its end) is; none: it is no row, or not a whole one.
pub fn number(line: &[u8]) -> Option<u64> {
    let (text, sum) = line.strip_suffix(b"\n")?.split_at_checked(line.len().checked_sub(10)?)?;
    let mut right = Vec::with_capacity(8);
    hex(&mut right, check(text));
    if sum.strip_prefix(b",") != Some(&right) {
        return None;
    }
    let digits = text.split(|byte| *byte == b',').next()?;
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment() -> Moment {
        let wall_ms = 1_795_332_012_345;
        Moment { now_ns: 5_000_000_000, boot_ns: 6_000_000_000, wall_ms, synchronised: true }
    }

    fn text(row: &Row) -> String {
        let mut out = Vec::new();
        write(&mut out, 17, "3fa9c1d2", &moment(), row);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_row_says_when_by_both_clocks_and_of_whom_what_and_for_how_long() {
        let row = Row {
            at_ns: 4_000_000_001,
            kind: "input",
            name: "door",
            milli: Some(1000),
            unit: "",
            lasted_ms: Some(12_340),
            edges: Some(7),
        };
        let line = text(&row);
        let expected = "17,2026-11-22T07:20:11.346Z,1,3fa9c1d2,4.000000001,input,door,1,,12.34,7,";
        assert_eq!(&line[..line.len() - 9], expected);
        assert_eq!(line.matches(',').count(), HEADER.iter().filter(|byte| **byte == b',').count());
        let value = Row { kind: "value", name: "io.t", milli: Some(-23_050), unit: "°C", ..Row::default() };
        assert!(text(&value).contains(",value,io.t,-23.05,°C,,,"), "{}", text(&value));
        assert!(text(&Row { milli: None, ..value }).contains(",io.t,,°C,,,"));
    }

    #[test]
    fn what_others_chose_ends_no_field_and_is_no_formula() {
        let row = Row { kind: "value", name: "=1+1", unit: "a,\"b\";\n", ..Row::default() };
        assert!(text(&row).contains(",value,_1+1,,a__b___,,,"), "{}", text(&row));
    }

    #[test]
    fn of_a_line_only_the_whole_is_a_row() {
        let line = text(&Row { kind: "input", name: "door", milli: Some(0), ..Row::default() });
        assert_eq!(number(line.as_bytes()), Some(17));
        for end in 0..line.len() {
            assert_eq!(number(&line.as_bytes()[..end]), None, "{end}");
        }
        for at in 0..line.len() {
            let mut bytes = line.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(number(&bytes), None, "{at}");
        }
        assert_eq!(number(HEADER), None);
    }
}

//! Reads single values: numbers, durations, sizes, signals, levels. Every function says only *how*
//! a text is wrong; the sentence is made in one place, from the key's row.

use crate::time::Millis;

/// How a value is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is not what this key takes.
    Kind,
    /// It is too small or too large.
    Range,
    /// A duration without a unit.
    Unit,
    /// In particular: how the sentence goes on after the value.
    Say(String),
}

/// The longest duration accepted: ten years. Beyond it a number is a mistake, and sums with a
/// clock must not come near the end of 64 bits.
pub(super) const DURATION_MS_MAX: u64 = 3650 * 86_400_000;

/// Units of durations, with their milliseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Units of sizes, as Supervisor has them: in steps of 1024.
const SIZE_UNITS: [(&str, u64); 4] = [("", 1), ("KB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30)];

/// `true` or `false` in Supervisor's words.
pub(super) fn boolean(text: &str) -> Result<bool, Wrong> {
    let is = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(["true", "yes", "on", "1"]) {
        return Ok(true);
    }
    if is(["false", "no", "off", "0"]) {
        return Ok(false);
    }
    Err(Wrong::Kind)
}

/// Digits only; no sign, so that `+5` and `-0` have one spelling.
pub(super) fn unsigned(text: &str) -> Result<u64, Wrong> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::Kind);
    }
    text.parse().map_err(|_| Wrong::Range)
}

/// A whole number within bounds.
pub(super) fn number(text: &str, min: i64, max: i64) -> Result<i64, Wrong> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let size = i64::try_from(unsigned(digits)?).map_err(|_| Wrong::Range)?;
    let number = if negative { -size } else { size };
    if number < min || number > max { Err(Wrong::Range) } else { Ok(number) }
}

/// A duration with its unit, for whoever reads one elsewhere (a command line); `None`: it is none.
/// Without a unit it is nothing: half of the people would mean seconds and half of them milliseconds.
pub fn read_duration(text: &str) -> Option<Millis> {
    duration(text, false).ok()
}

/// A duration such as `200ms`, `2.5s`, `5 min`. Without a unit it is seconds where `bare` allows.
pub(super) fn duration(text: &str, bare: bool) -> Result<Millis, Wrong> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = (&text[..end], text[end..].trim_start_matches(' '));
    let scale = match TIME_UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, scale)) => *scale,
        None if !unit.is_empty() => return Err(Wrong::Kind),
        None if bare => 1000,
        None => {
            return Err(if decimal(digits, 1000).is_err_and(|wrong| wrong == Wrong::Kind) {
                Wrong::Kind
            } else {
                Wrong::Unit
            });
        }
    };
    let ms = decimal(digits, scale)?;
    if ms > DURATION_MS_MAX { Err(Wrong::Range) } else { Ok(Millis(ms)) }
}

/// `digits` times `scale`; what is finer than one is an error, not rounded.
fn decimal(digits: &str, scale: u64) -> Result<u64, Wrong> {
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let sum = unsigned(whole)?.checked_mul(scale).ok_or(Wrong::Range)?;
    if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::Kind);
    }
    // The finest part of any unit that is a whole millisecond has fewer than 9 digits.
    let part = part.trim_end_matches('0');
    let power = 10u64.pow(part.len().min(9) as u32);
    let scaled = part.get(..part.len().min(9)).and_then(|part| part.parse().ok()).unwrap_or(0) * scale;
    if part.len() > 9 || !scaled.is_multiple_of(power) {
        return Err(Wrong::Say("is finer than a millisecond".into()));
    }
    Ok(sum.saturating_add(scaled / power))
}

/// A size such as `64KB`, `1MB`, `4096`.
pub(super) fn size(text: &str) -> Result<u64, Wrong> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = text[end..].trim_start_matches(' ');
    let scale = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(Wrong::Kind)?.1;
    unsigned(&text[..end])?.checked_mul(scale).ok_or(Wrong::Range)
}

/// An octal mode, 0 to 0777.
pub(super) fn octal(text: &str) -> Result<u32, Wrong> {
    if text.is_empty() || !text.bytes().all(|byte| matches!(byte, b'0'..=b'7')) {
        return Err(Wrong::Kind);
    }
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(Wrong::Range),
    }
}

/// Names of the signals 1 to 31, by number, as on every architecture but MIPS.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal by name (`TERM`, `SIGTERM`) or number.
pub(super) fn signal(text: &str) -> Result<i32, Wrong> {
    let name = match text.get(..3) {
        Some(prefix) if prefix.eq_ignore_ascii_case("SIG") => &text[3..],
        _ => text,
    };
    if let Some(index) = SIGNALS.iter().position(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(index as i32 + 1);
    }
    Ok(number(text, 1, 64)? as i32)
}

/// Soft and hard limit: `N`, `N:M`, `unlimited`; `read` reads one number.
pub(super) fn limit(text: &str, read: fn(&str) -> Result<u64, Wrong>) -> Result<(u64, u64), Wrong> {
    let one = |text: &str| if text == "unlimited" { Ok(u64::MAX) } else { read(text) };
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    let (soft, hard) = (one(soft.trim())?, one(hard.trim())?);
    if soft > hard {
        return Err(Wrong::Say("has a soft limit above the hard limit; write the smaller first".into()));
    }
    Ok((soft, hard))
}

/// CPUs 0 to 127: `0,2-3`.
pub(super) fn cpus(text: &str) -> Result<u128, Wrong> {
    let mut set = 0u128;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first.trim(), 0, 127)?, number(last.trim(), 0, 127)?);
        if first > last {
            return Err(Wrong::Kind);
        }
        for cpu in first..=last {
            set |= 1 << cpu;
        }
    }
    Ok(set)
}

/// Scheduling policies: name, SCHED_ number, whether a priority from 1 to 99 follows.
const POLICIES: [(&str, i32, bool); 5] =
    [("other", 0, false), ("batch", 3, false), ("idle", 5, false), ("fifo", 1, true), ("rr", 2, true)];

/// `other`, `batch`, `idle`, `fifo:N`, `rr:N`.
pub(super) fn scheduling(text: &str) -> Result<(i32, i32), Wrong> {
    let (name, level) = split_level(text);
    let (_, policy, real_time) = POLICIES.iter().find(|(known, _, _)| *known == name).ok_or(Wrong::Kind)?;
    match (real_time, level) {
        (false, None) => Ok((*policy, 0)),
        (true, Some(level)) => Ok((*policy, number(level, 1, 99)? as i32)),
        (true, None) => Err(Wrong::Say("has no priority; write for example fifo:10".into())),
        (false, Some(_)) => Err(Wrong::Say("takes no priority; only fifo and rr do".into())),
    }
}

/// `idle`, `best-effort:N`, `realtime:N`; 4 is the kernel's own level where none is given.
pub(super) fn ioprio(text: &str) -> Result<(u8, u8), Wrong> {
    let (name, level) = split_level(text);
    let class = match name {
        "realtime" => 1,
        "best-effort" => 2,
        "idle" if level.is_none() => return Ok((3, 0)),
        _ => return Err(Wrong::Kind),
    };
    Ok((class, level.map_or(Ok(4), |level| number(level, 0, 7))? as u8))
}

fn split_level(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((name, level)) => (name.trim_end(), Some(level.trim_start())),
        None => (text, None),
    }
}

/// A size, as any key takes it.
pub fn read_size(text: &str) -> Option<u64> {
    size(text).ok()
}

/// `true` or `false`, as any key takes them.
pub fn read_boolean(text: &str) -> Option<bool> {
    boolean(text).ok()
}

/// A number with up to three decimals, in thousandths; at most a billion.
pub fn thousandths(text: &str) -> Option<i64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 3 {
        return None;
    }
    let scale = [100, 10, 1][fraction.len() - 1];
    let whole = number(whole, 0, 1_000_000_000).ok()?;
    let value = whole * 1000 + number(fraction, 0, 999).ok()? * scale;
    Some(if negative { -value } else { value })
}

/// Thousandths as people write them: `-23.5`.
pub fn milli_text(milli: i64) -> String {
    let (whole, rest) = (milli.unsigned_abs() / 1000, milli.unsigned_abs() % 1000);
    let fraction = (1000 + rest).to_string();
    let fraction = fraction[1..].trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    [if milli < 0 { "-" } else { "" }, &whole.to_string(), point, fraction].concat()
}

/// Exit codes, separated by commas.
pub(super) fn exit_codes(text: &str) -> Result<Vec<u8>, Wrong> {
    text.split(',').map(|code| number(code.trim(), 0, 255).map(|code| code as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, bare, expected) in [
            ("0", true, Ok(0)),
            ("1", true, Ok(1000)),
            ("2.5", true, Ok(2500)),
            ("1.001", true, Ok(1001)),
            ("200ms", false, Ok(200)),
            ("2.5s", false, Ok(2500)),
            ("5min", false, Ok(300_000)),
            ("1.5 h", false, Ok(5_400_000)),
            ("2d", false, Ok(172_800_000)),
            ("0.00001h", false, Ok(36)),
            ("1.500000000000s", false, Ok(1500)),
            ("0.00001", true, Err(Wrong::Say("is finer than a millisecond".into()))),
            ("0.000000000000000000000000001d", true, Err(Wrong::Say("is finer than a millisecond".into()))),
            ("0.1111111111111111111111111s", true, Err(Wrong::Say("is finer than a millisecond".into()))),
            ("0.5ms", false, Err(Wrong::Say("is finer than a millisecond".into()))),
            ("30", false, Err(Wrong::Unit)),
            ("abc", true, Err(Wrong::Kind)),
            ("", true, Err(Wrong::Kind)),
            ("", false, Err(Wrong::Kind)),
            ("1.", true, Err(Wrong::Kind)),
            (".5s", true, Err(Wrong::Kind)),
            ("1.2.3s", true, Err(Wrong::Kind)),
            ("-1", true, Err(Wrong::Kind)),
            ("5m", true, Err(Wrong::Kind)),
            ("99999999999999999999s", true, Err(Wrong::Range)),
            ("99999999999999999s", true, Err(Wrong::Range)),
            ("3651d", true, Err(Wrong::Range)),
        ] {
            assert_eq!(duration(text, bare), expected.map(Millis), "{text}");
        }
    }

    #[test]
    fn sizes_and_limits() {
        assert_eq!(size("64KB"), Ok(65536));
        assert_eq!(size("1 mb"), Ok(1 << 20));
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("1TB"), Err(Wrong::Kind));
        assert_eq!(size("99999999999GB"), Err(Wrong::Range));
        assert_eq!(limit("1:unlimited", unsigned), Ok((1, u64::MAX)));
        assert_eq!(limit("1KB : 2KB", size), Ok((1024, 2048)));
        assert!(limit("2:1", unsigned).is_err());
    }

    #[test]
    fn signals() {
        for (text, expected) in [
            ("TERM", Ok(15)),
            ("sigusr2", Ok(12)),
            ("9", Ok(9)),
            ("64", Ok(64)),
            ("65", Err(Wrong::Range)),
            ("0", Err(Wrong::Range)),
            ("SIG", Err(Wrong::Kind)),
            ("ü€", Err(Wrong::Kind)),
        ] {
            assert_eq!(signal(text), expected, "{text}");
        }
    }

    #[test]
    fn levels_and_sets() {
        assert_eq!(scheduling("fifo:10"), Ok((1, 10)));
        assert_eq!(scheduling("idle"), Ok((5, 0)));
        assert_eq!(scheduling("rr:100"), Err(Wrong::Range));
        assert_eq!(ioprio("best-effort:7"), Ok((2, 7)));
        assert_eq!(ioprio("realtime"), Ok((1, 4)));
        assert_eq!(ioprio("idle:3"), Err(Wrong::Kind));
        assert_eq!(cpus("0, 2-3"), Ok(0b1101));
        assert_eq!(cpus("127"), Ok(1 << 127));
        assert_eq!(cpus("3-2"), Err(Wrong::Kind));
        assert_eq!(cpus("128"), Err(Wrong::Range));
        assert_eq!(octal("022"), Ok(0o22));
        assert_eq!(octal("1000"), Err(Wrong::Range));
        assert_eq!(octal("8"), Err(Wrong::Kind));
        assert_eq!(exit_codes("0, 2"), Ok(vec![0, 2]));
        assert_eq!(exit_codes("0,,2"), Err(Wrong::Kind));
    }

    #[test]
    fn thousandths_are_written_without_zeros_that_say_nothing() {
        for (milli, text) in
            [(0, "0"), (1000, "1"), (-23_500, "-23.5"), (5, "0.005"), (-5, "-0.005"), (100_020, "100.02")]
        {
            assert_eq!(milli_text(milli), text);
        }
        assert_eq!(milli_text(i64::MIN), "-9223372036854775.808");
    }
}

//! What a line in a file begins with: the date by the wall clock (UTC), and seconds since boot, because boards
//! have no clock that can be trusted. Pure.

use crate::config::LogStamp;

const MS_PER_DAY: u64 = 86_400_000;

/// The last millisecond of the year 9999: what is later has no date of four digits.
const WALL_MS_MAX: u64 = 253_402_300_799_999;

/// Appends a number, with zeros before it where it has fewer digits than `width` (at most 20).
pub fn number(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while value > 0 || at == digits.len() {
        at -= 1;
        digits[at] += (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&digits[at.min(digits.len() - width)..]);
}

/// Year, month and day, both from 1, of a day since 1970-01-01 (Howard Hinnant's days_from_civil, turned round:
/// the year begins in March, so that the leap day is its last).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + later, month, date)
}

/// `2026-11-21T17:20:01.123Z`, as RFC 5424 has it too.
pub fn wall(out: &mut Vec<u8>, wall_ms: u64) {
    let wall_ms = wall_ms.min(WALL_MS_MAX);
    let (year, month, day) = civil(wall_ms / MS_PER_DAY);
    let ms = wall_ms % MS_PER_DAY;
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (ms / 3_600_000, 2, b':'),
        (ms / 60_000 % 60, 2, b':'),
        (ms / 1000 % 60, 2, b'.'),
        (ms % 1000, 3, b'Z'),
    ];
    for (value, width, sign) in parts {
        number(out, value, width);
        out.push(sign);
    }
}

/// `12345.678`
fn monotonic(out: &mut Vec<u8>, mono_ms: u64) {
    number(out, mono_ms / 1000, 1);
    out.push(b'.');
    number(out, mono_ms % 1000, 3);
}

/// Appends the stamp of a kind and a space, or nothing.
pub fn stamp(out: &mut Vec<u8>, kind: LogStamp, wall_ms: u64, mono_ms: u64) {
    if matches!(kind, LogStamp::Both | LogStamp::Wall) {
        wall(out, wall_ms);
        out.push(b' ');
    }
    if matches!(kind, LogStamp::Both | LogStamp::Monotonic) {
        monotonic(out, mono_ms);
        out.push(b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (68_169_599, "1972-02-28T23:59:59.000Z"),
            (68_169_600, "1972-02-29T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (978_307_199, "2000-12-31T23:59:59.000Z"),
            (1_795_281_601, "2026-11-21T17:20:01.000Z"),
            (2_147_483_647, "2038-01-19T03:14:07.000Z"),
            (2_147_483_648, "2038-01-19T03:14:08.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(text(|out| wall(out, seconds * 1000)), date);
        }
        assert_eq!(text(|out| wall(out, u64::MAX)), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn every_day_of_two_hundred_years_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 0);
        for days in 0..73_050 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                _ if day == length => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
            assert_eq!(civil(days), (year, month, day));
        }
        assert_eq!(year, 2170);
    }

    #[test]
    fn a_stamp_has_what_its_kind_says() {
        let kind = |kind| text(|out| stamp(out, kind, 1_795_281_601_123, 12_345_678));
        assert_eq!(kind(LogStamp::Both), "2026-11-21T17:20:01.123Z 12345.678 ");
        assert_eq!(kind(LogStamp::Wall), "2026-11-21T17:20:01.123Z ");
        assert_eq!(kind(LogStamp::Monotonic), "12345.678 ");
        assert_eq!(kind(LogStamp::None), "");
        assert_eq!(text(|out| monotonic(out, 7)), "0.007");
        assert_eq!(text(|out| number(out, u64::MAX, 1)), u64::MAX.to_string());
    }
}

//! What is recorded: every change of what is watched, but not more often than is good for a card. Reads no clock and touches
//! nothing.

use super::row::{Moment, Row};
use crate::sys::values::{Name, Unit};
use crate::time::{Instant, Millis};

/// What the wall clock may be off by against the time since boot before it was set: less is steering.
const STEP_MS_MIN: u64 = 500;

/// What it is: the index among [`KINDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An input.
    Input,
    /// An output.
    Output,
    /// A value.
    Value,
}

/// As rows have it.
pub const KINDS: [&str; 3] = ["input", "output", "value"];

/// Lines have none.
pub const NO_UNIT: Unit = Unit::new();

/// One of the things that are watched, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// Thousandths; none: not known.
    pub milli: Option<i64>,
    /// What they are of.
    pub unit: Unit,
    /// Edges, where it has some.
    pub edges: Option<u64>,
    /// When it became so.
    pub at: Instant,
}

/// How much is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Two rows of the same input or output are so far apart.
    pub interval: Millis,
    /// Two rows of the same value.
    pub value_interval: Millis,
    /// A value that has changed by less has not.
    pub value_step: i64,
}

struct Item {
    seen: Seen,
    /// When it was recorded.
    recorded: Instant,
    /// It is still there.
    is_there: bool,
}

/// The recorder.
pub struct Recorder {
    limits: Limits,
    items: Vec<Item>,
    /// The wall clock's milliseconds at the boot.
    offset_ms: Option<u64>,
}

/// Takes one row.
pub type Take<'a> = &'a mut dyn FnMut(&Row);

impl Recorder {
    /// Nothing is known.
    pub fn new(limits: Limits) -> Recorder {
        Recorder { limits, items: Vec::new(), offset_ms: None }
    }

    /// The wall clock: a row where it was set.
    pub fn clock(&mut self, moment: &Moment, take: Take) {
        let offset = moment.wall_ms.saturating_sub(moment.boot_ns / 1_000_000);
        if let Some(before) = self.offset_ms.replace(offset)
            && offset.abs_diff(before) >= STEP_MS_MIN
        {
            let milli = Some(offset.wrapping_sub(before) as i64);
            take(&Row {
                at_ns: moment.now_ns,
                kind: "clock",
                name: "set",
                milli,
                unit: "s",
                ..Row::default()
            });
        }
    }

    /// One that is there: a row where it has changed; when to look again, where it has changed too soon.
    pub fn see(&mut self, now: Instant, seen: Seen, take: Take) -> Option<Instant> {
        let known =
            self.items.iter_mut().find(|item| item.seen.kind == seen.kind && item.seen.name == seen.name);
        let Some(item) = known else {
            // Its state is older than this process: what is recorded is that it is so.
            let seen = Seen { at: now, ..seen };
            take(&row(&seen, None));
            self.items.push(Item { seen, recorded: now, is_there: true });
            return None;
        };
        item.is_there = true;
        let Limits { interval, value_interval, value_step } = &self.limits;
        let (interval, changed) = match (seen.kind, seen.milli.zip(item.seen.milli)) {
            (Kind::Value, Some((new, old))) => {
                (*value_interval, new.abs_diff(old) >= (*value_step).max(1) as u64)
            }
            (Kind::Value, None) => (Millis::ZERO, seen.milli != item.seen.milli),
            _ => (*interval, seen.milli != item.seen.milli || seen.edges != item.seen.edges),
        };
        if !changed {
            return None;
        }
        let due = item.recorded + interval;
        if now < due {
            return Some(due);
        }
        // Not before the row before, nor later than now: what is not known has no time, and publishers say what they like.
        let is_dated = seen.milli.is_some() && seen.at > item.seen.at && seen.at <= now;
        let at = if is_dated { seen.at } else { now };
        let lasted = at.since(item.seen.at);
        item.seen = Seen { at, ..seen };
        item.recorded = now;
        take(&row(&item.seen, Some(lasted)));
        None
    }

    /// All that are there have been seen: the others are gone.
    pub fn seen_all(&mut self, now: Instant, take: Take) {
        for item in &mut self.items {
            if !core::mem::take(&mut item.is_there) && item.seen.milli.is_some() {
                let lasted = now.since(item.seen.at);
                (item.seen.milli, item.seen.edges, item.seen.at, item.recorded) = (None, None, now, now);
                take(&row(&item.seen, Some(lasted)));
            }
        }
    }
}

fn row(seen: &Seen, lasted: Option<Millis>) -> Row<'_> {
    Row {
        at_ns: seen.at.0,
        kind: KINDS[seen.kind as usize],
        name: &seen.name,
        milli: seen.milli,
        unit: &seen.unit,
        lasted_ms: lasted.map(|lasted| lasted.0),
        edges: seen.edges,
    }
}

/// `door`, `sensors.*`, `output:*`: one `*` stands for anything.
fn fits(pattern: &str, kind: Kind, name: &str) -> bool {
    let name_pattern = match pattern.split_once(':') {
        Some((word, rest)) if word == KINDS[kind as usize] => rest,
        Some(_) => return false,
        None => pattern,
    };
    match name_pattern.split_once('*') {
        None => name_pattern == name,
        Some((begin, end)) => name.strip_prefix(begin).is_some_and(|rest| rest.ends_with(end)),
    }
}

/// Whether it is recorded: one of the patterns fits, and none that begins with `!`.
pub fn is_wanted(patterns: &[String], kind: Kind, name: &str) -> bool {
    let mut wanted = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(pattern) if fits(pattern, kind, name) => return false,
            None => wanted = wanted || fits(pattern, kind, name),
            Some(_) => {}
        }
    }
    wanted
}

/// Whether this can be a pattern.
pub fn is_pattern(text: &str) -> bool {
    let text = text.strip_prefix('!').unwrap_or(text);
    let name = match text.split_once(':') {
        Some((word, rest)) if KINDS.contains(&word) => rest,
        Some(_) => return false,
        None => text,
    };
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\",;:!".contains(&byte);
    !name.is_empty() && name.bytes().all(is_plain) && name.matches('*').count() <= 1
}

/// A name from a page.
pub fn name(text: &str) -> Name {
    // Those of lines are shorter than those of values.
    text.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { interval: Millis(100), value_interval: Millis(1000), value_step: 500 };

    fn at(ms: u64) -> Instant {
        Instant(0) + Millis(ms)
    }

    fn input(on: bool, edges: u64, ms: u64) -> Seen {
        let milli = Some(1000 * i64::from(on));
        Seen { kind: Kind::Input, name: name("door"), milli, unit: NO_UNIT, edges: Some(edges), at: at(ms) }
    }

    fn value(milli: Option<i64>, ms: u64) -> Seen {
        Seen {
            kind: Kind::Value,
            name: name("io.t"),
            milli,
            unit: "C".try_into().unwrap(),
            edges: None,
            at: at(ms),
        }
    }

    /// What a row says: when, milliseconds; its state; how long the one before lasted; edges.
    type Said = (u64, Option<i64>, Option<u64>, Option<u64>);

    fn see(recorder: &mut Recorder, now: u64, seen: Seen) -> (Vec<Said>, Option<Instant>) {
        let mut rows = Vec::new();
        let mut take = |row: &Row| rows.push((row.at_ns / 1_000_000, row.milli, row.lasted_ms, row.edges));
        let again = recorder.see(at(now), seen, &mut take);
        (rows, again)
    }

    #[test]
    fn a_pulse_is_two_rows_with_the_times_of_its_edges_and_what_is_faster_is_counted() {
        let mut recorder = Recorder::new(LIMITS);
        let first = (vec![(10, Some(0), None, Some(4))], None);
        assert_eq!(see(&mut recorder, 10, input(false, 4, 3)), first, "as it is, since now");
        assert_eq!(see(&mut recorder, 500, input(false, 4, 3)), (vec![], None), "nothing happened");
        let on = (vec![(600, Some(1000), Some(590), Some(5))], None);
        assert_eq!(see(&mut recorder, 601, input(true, 5, 600)), on);
        // Off 5 ms later: told when it may be, with the time when it was.
        assert_eq!(see(&mut recorder, 606, input(false, 6, 605)), (vec![], Some(at(701))));
        let off = (vec![(605, Some(0), Some(5), Some(6))], None);
        assert_eq!(see(&mut recorder, 701, input(false, 6, 605)), off);
        // As before, and yet two edges: that is a row.
        let twice = (vec![(900, Some(0), Some(295), Some(8))], None);
        assert_eq!(see(&mut recorder, 901, input(false, 8, 900)), twice);
    }

    #[test]
    fn a_value_is_recorded_when_it_has_moved_far_enough_and_at_once_when_it_is_lost_or_back() {
        let mut recorder = Recorder::new(LIMITS);
        assert_eq!(see(&mut recorder, 0, value(Some(20_000), 0)).0, [(0, Some(20_000), None, None)]);
        assert_eq!(see(&mut recorder, 5000, value(Some(20_499), 5000)), (vec![], None));
        assert_eq!(see(&mut recorder, 6000, value(Some(19_501), 6000)), (vec![], None));
        assert_eq!(
            see(&mut recorder, 7000, value(Some(20_500), 6990)).0,
            [(6990, Some(20_500), Some(6990), None)]
        );
        assert_eq!(see(&mut recorder, 7500, value(Some(30_000), 7500)), (vec![], Some(at(8000))), "too soon");
        assert_eq!(see(&mut recorder, 7600, value(None, 7500)).0, [(7600, None, Some(610), None)]);
        assert_eq!(
            see(&mut recorder, 7700, value(Some(20_500), 7690)).0,
            [(7690, Some(20_500), Some(90), None)]
        );
        // A publisher whose clock is not ours.
        assert_eq!(see(&mut recorder, 9000, value(Some(1), 99_000)).0, [(9000, Some(1), Some(1310), None)]);
        assert_eq!(
            see(&mut recorder, 10_100, value(Some(5000), 3)).0,
            [(10_100, Some(5000), Some(1100), None)]
        );
    }

    #[test]
    fn what_is_gone_is_not_known_once() {
        let mut recorder = Recorder::new(LIMITS);
        see(&mut recorder, 0, input(true, 1, 0));
        let mut gone = |now| {
            let mut rows = Vec::new();
            recorder.seen_all(at(now), &mut |row: &Row| {
                rows.push((row.name.to_string(), row.milli, row.lasted_ms))
            });
            rows
        };
        assert_eq!(gone(10), [], "it was there");
        assert_eq!(gone(20), [("door".to_string(), None, Some(20))]);
        assert_eq!(gone(30), []);
    }

    #[test]
    fn a_clock_that_is_set_is_a_row_and_one_that_is_steered_is_not() {
        let mut recorder = Recorder::new(LIMITS);
        let mut steps = |boot_ms: u64, wall_ms| {
            let moment = Moment { boot_ns: boot_ms * 1_000_000, wall_ms, ..Moment::default() };
            let mut rows = Vec::new();
            recorder.clock(&moment, &mut |row: &Row| rows.push((row.kind.to_string(), row.milli)));
            rows
        };
        assert_eq!(steps(1000, 5_000), []);
        assert_eq!(steps(2000, 6_499), [], "499 ms in a second");
        assert_eq!(steps(3000, 7_900), []);
        let year = 1_795_332_012_345;
        assert_eq!(steps(4000, year), [("clock".to_string(), Some(year as i64 - 8_900))]);
        assert_eq!(steps(5000, year + 1000), []);
        assert_eq!(steps(6000, year + 2000 - 3_600_000), [("clock".to_string(), Some(-3_600_000))]);
    }

    #[test]
    fn names_are_fitted_by_patterns_and_the_first_that_says_no_is_right() {
        let wanted = |patterns: &str, kind, name: &str| {
            let patterns: Vec<String> = patterns.split(' ').map(String::from).collect();
            assert!(patterns.iter().all(|pattern| is_pattern(pattern)), "{patterns:?}");
            is_wanted(&patterns, kind, name)
        };
        assert!(wanted("*", Kind::Value, "io.t"));
        assert!(wanted("door", Kind::Input, "door") && wanted("door", Kind::Output, "door"));
        assert!(!wanted("door", Kind::Input, "door-2"));
        assert!(wanted("input:door", Kind::Input, "door") && !wanted("input:door", Kind::Output, "door"));
        assert!(wanted("pump-*-relay", Kind::Output, "pump-7-relay"));
        assert!(!wanted("ab*ba", Kind::Output, "aba"), "the same letter is not both");
        assert!(!wanted("* !sensors.*", Kind::Value, "sensors.noise"));
        assert!(wanted("* !value:sensors.*", Kind::Input, "sensors.noise"));
        for wrong in ["", "!", "input:", "relay:a", "a*b*c", "!!a", "a:b:c"] {
            assert!(!is_pattern(wrong), "{wrong}");
        }
    }
}

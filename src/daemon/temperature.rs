//! The temperature gate: a process that reads (what sysfs gives may come from a firmware that takes its
//! time) and publishes in the page, and the judgement: too hot or too cold, and everything is stopped.

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use crate::config::Temperature;
use crate::protocol::{self, Text};
use crate::supervisor::Event;
use crate::sys::page::{Keep, Page};
use crate::sys::{clock, file, poll, process};
use crate::time::{Instant, Millis};

use super::jobs::Job;
use super::table::write_cut;
use super::{Daemon, RETRY_PAUSE};

/// Readings that may be missing before the reader counts as silent, and what it may take besides.
const SILENT_READINGS: u64 = 3;
const READER_SLACK: Millis = Millis(1000);

/// What the page says of the gate: nothing is judged, or nothing yet; and then the judgement.
const UNKNOWN: u32 = 0;
const OPEN: u32 = 1;
/// For heat, or cold: until a reading says otherwise.
const CLOSED: u32 = 2;
/// Nothing starts before the first reading.
const CLOSED_AT_FIRST: u32 = 3;
/// Because it cannot be read.
const BLIND: u32 = 4;

/// A reading in the page: below this bit the temperature, as an i32.
const READ: u64 = 1 << 32;
/// It could not be read.
const UNREADABLE: u64 = 1 << 33;

/// The most a file with one number has.
const FILE_BYTES_MAX: usize = 64;

/// What a reading means, whatever was before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Unreadable,
    TooCold,
    Good,
    /// Good for what runs; what was stopped stays so.
    Warm,
    TooHot,
}

fn class(reading: Option<i32>, config: &Temperature) -> Class {
    match reading {
        None => Class::Unreadable,
        Some(value) if value < config.min => Class::TooCold,
        Some(value) if value > config.max => Class::TooHot,
        Some(value) if value < config.max.saturating_sub(config.hysteresis) => Class::Good,
        Some(_) => Class::Warm,
    }
}

/// The gate after a reading, by the gate before it.
fn judge(class: Class, gate: u32, unreadable_is_hot: bool) -> u32 {
    match class {
        // That nothing can be read any more makes nothing cooler.
        Class::Unreadable | Class::Warm if gate == CLOSED => CLOSED,
        Class::Unreadable if unreadable_is_hot => BLIND,
        Class::Warm if gate == BLIND => BLIND,
        Class::Unreadable | Class::Good | Class::Warm => OPEN,
        Class::TooCold | Class::TooHot => CLOSED,
    }
}

fn is_closed(gate: u32) -> bool {
    matches!(gate, CLOSED | BLIND)
}

/// The reader: for as long as the guard lives.
fn read_for_ever(page: &Page, config: &Temperature) -> i32 {
    process::set_title(c"multusd-temp");
    // Copies of everything the supervisor has open came with the fork.
    let wake = page.kept(Keep::Wake).unwrap_or(0);
    file::close_all_but(&mut [wake]);
    let mut before = None;
    loop {
        let reading = file::read_bounded(Path::new(&config.path), FILE_BYTES_MAX).ok();
        let text = reading.as_deref().and_then(|bytes| str::from_utf8(bytes).ok());
        let reading = text.and_then(|text| text.trim().parse::<i32>().ok());
        let word = reading.map_or(UNREADABLE, |value| READ | u64::from(value as u32));
        page.temperature.store(word, SeqCst);
        page.temperature_at.store(clock::now().0, SeqCst);
        let class = class(reading, config);
        if before.replace(class) != Some(class) {
            poll::wake(poll::borrow(wake));
        }
        let mut left = config.interval.0.max(1);
        while left > 0 {
            let part = left.min(60_000);
            file::pause(part as u16);
            left -= part;
        }
    }
}

/// Thousandths of a degree for a person.
struct Degrees(i32);

impl core::fmt::Display for Degrees {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        let (sign, value) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let (whole, rest) = (value / 1000, value % 1000);
        match rest % 100 {
            0 => write!(f, "{sign}{whole}.{} °C", rest / 100),
            _ => write!(f, "{sign}{whole}.{rest:03} °C"),
        }
    }
}

impl Daemon {
    /// Brings the gate in line with the configuration in force. `at_first`: a life begins, and
    /// nothing runs yet.
    pub(super) fn apply_temperature(&mut self, before: Option<&Temperature>, at_first: bool) {
        let slot = self.page.job(Job::Temperature as usize);
        let config = self.in_force.config.board.temperature.as_ref();
        if config != before && slot.is_alive() {
            // The next one reads by the new words.
            process::kill_if_there(slot.spawned() as i32, libc::SIGKILL);
        }
        if config != before {
            self.page.temperature.store(0, SeqCst);
            self.page.temperature_at.store(clock::now().0, SeqCst);
        }
        match (config, self.page.gate.load(SeqCst)) {
            (None, gate) => {
                self.page.gate.store(UNKNOWN, SeqCst);
                if gate != UNKNOWN {
                    self.observe(Event::GateOpened);
                }
            }
            (Some(_), UNKNOWN) if at_first => {
                self.page.gate.store(CLOSED_AT_FIRST, SeqCst);
                self.observe(Event::GateClosed);
            }
            // As a former supervisor judged.
            (Some(_), CLOSED | CLOSED_AT_FIRST | BLIND) => self.observe(Event::GateClosed),
            (Some(_), _) => {}
        }
        self.tend_reader();
    }

    /// One reader, while there is something to read; called when nothing else is to do.
    pub(super) fn tend_reader(&mut self) {
        let slot = self.page.job(Job::Temperature as usize);
        let Some(config) = &self.in_force.config.board.temperature else { return };
        if slot.is_alive() || self.end.has_begun() {
            return;
        }
        let now = clock::now();
        // One that ended by itself a moment ago is not started again at once.
        if slot.has_begun() && Instant(slot.spawned_at.load(SeqCst)) + RETRY_PAUSE > now {
            return self.try_again_soon();
        }
        let page = self.page;
        if let Err(error) = process::spawn_job(slot, 1, || read_for_ever(page, config)) {
            say!("temperature: {error}");
            self.try_again_soon();
        }
    }

    /// When a reader that says nothing is given up.
    pub(super) fn temperature_deadline(&self) -> Option<Instant> {
        let config = self.in_force.config.board.temperature.as_ref()?;
        let patience = Millis(config.interval.0.saturating_mul(SILENT_READINGS)) + READER_SLACK;
        Some(Instant(self.page.temperature_at.load(SeqCst)) + patience)
    }

    /// The last reading; none where the reader is silent.
    pub(super) fn reading(&self) -> Option<i32> {
        let word = self.page.temperature.load(SeqCst);
        (word & READ != 0).then_some(word as u32 as i32)
    }

    /// After every wake-up.
    pub(super) fn judge_temperature(&mut self) {
        let Some(until) = self.temperature_deadline() else { return };
        let slot = self.page.job(Job::Temperature as usize);
        if until.is_due(clock::now()) {
            // It waits for what will not come, or is gone. The next one may have better luck.
            process::kill_if_there(slot.spawned() as i32, libc::SIGKILL);
            self.page.temperature.store(UNREADABLE, SeqCst);
            self.page.temperature_at.store(clock::now().0, SeqCst);
        }
        if self.page.temperature.load(SeqCst) == 0 {
            return;
        }
        self.publish_temperature();
        let reading = self.reading();
        let Some(config) = &self.in_force.config.board.temperature else { return };
        let class = class(reading, config);
        let gate = self.page.gate.load(SeqCst);
        let now = judge(class, gate, config.unreadable_is_hot);
        if self.page.gate.swap(now, SeqCst) == now {
            return;
        }
        let open = now == OPEN;
        self.observe(if open { Event::GateOpened } else { Event::GateClosed });
        if !open || is_closed(gate) {
            let text = self.describe_temperature();
            self.tell(format_args!("{text}"));
        }
    }

    /// How it stands, in a sentence.
    fn describe_temperature(&self) -> Text {
        let mut text = Text::new();
        let Some(config) = &self.in_force.config.board.temperature else { return text };
        let reading = self.reading();
        let gate = self.page.gate.load(SeqCst);
        let is_closed = is_closed(gate);
        let (class, value) = (class(reading, config), Degrees(reading.unwrap_or_default()));
        let below = Degrees(config.max.saturating_sub(config.hysteresis));
        let path = &config.path;
        match (class, is_closed) {
            (Class::Unreadable, true) if gate == CLOSED => write_cut(
                &mut text,
                format_args!(
                    "too hot or too cold before, and now the temperature cannot be read from {path}: \
                     programs are stopped until it can"
                ),
            ),
            (Class::Unreadable, true) => write_cut(
                &mut text,
                format_args!("temperature cannot be read from {path}, programs are stopped"),
            ),
            (Class::Unreadable, false) => {
                write_cut(&mut text, format_args!("temperature cannot be read from {path}, which is ignored"))
            }
            (Class::TooCold, _) => write_cut(
                &mut text,
                format_args!("too cold: {value}, programs are stopped below {}", Degrees(config.min)),
            ),
            (_, true) => write_cut(
                &mut text,
                format_args!("too hot: {value}, programs are stopped until it is below {below}"),
            ),
            _ => write_cut(
                &mut text,
                format_args!("{value}, programs run from {} to {}", Degrees(config.min), Degrees(config.max)),
            ),
        }
        text
    }

    /// While the gate is closed: why.
    pub(super) fn why_gate_is_closed(&self) -> Option<Text> {
        is_closed(self.page.gate.load(SeqCst)).then(|| self.describe_temperature())
    }

    /// For `multusctl watchdog`.
    pub(super) fn temperature_report(&self, now: Instant) -> Option<protocol::Temperature> {
        let config = self.in_force.config.board.temperature.as_ref()?;
        let read_at = Instant(self.page.temperature_at.load(SeqCst));
        let reading = self.reading();
        Some(protocol::Temperature {
            now: reading,
            min: config.min,
            max: config.max,
            hysteresis: config.hysteresis,
            age_ms: reading.map(|_| now.since(read_at).0),
            open: self.page.gate.load(SeqCst) <= OPEN,
            text: self.describe_temperature(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_for_heat_waits_for_the_hysteresis() {
        let config = Temperature { min: -10_000, max: 80_000, hysteresis: 5000, ..Temperature::default() };
        let open = |value, was_closed| {
            let gate = if was_closed { CLOSED } else { OPEN };
            judge(class(value, &config), gate, true) == OPEN
        };
        for (value, running, stopped) in [
            (-10_001, false, false),
            (-10_000, true, true),
            (74_999, true, true),
            (75_000, true, false),
            (80_000, true, false),
            (80_001, false, false),
        ] {
            assert_eq!((open(Some(value), false), open(Some(value), true)), (running, stopped), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_any_more_opens_no_gate_that_heat_or_cold_closed() {
        let config = Temperature { min: 0, max: 80_000, hysteresis: 5000, ..Temperature::default() };
        let after = |values: &[Option<i32>], unreadable_is_hot| {
            let gate = values
                .iter()
                .fold(CLOSED_AT_FIRST, |gate, value| judge(class(*value, &config), gate, unreadable_is_hot));
            gate == OPEN
        };
        let (good, warm, hot, cold) = (Some(20_000), Some(78_000), Some(81_000), Some(-1));
        for is_hot in [true, false] {
            assert_eq!(after(&[good, None], is_hot), !is_hot);
            assert_eq!(after(&[None], is_hot), !is_hot);
            for closing in [hot, cold] {
                assert!(!after(&[good, closing, None], is_hot));
                assert!(!after(&[closing, None, None], is_hot));
                assert!(!after(&[closing, None, warm], is_hot), "the hysteresis holds all the same");
                assert!(after(&[closing, None, good], is_hot));
                assert_eq!(after(&[closing, None, good, None], is_hot), !is_hot);
            }
            assert_eq!(after(&[good, None, warm], is_hot), !is_hot);
        }
    }

    #[test]
    fn degrees_have_as_many_digits_as_it_takes() {
        let shown = |value| Degrees(value).to_string();
        assert_eq!(
            [81_000, 80_001, -1_500, -7, 0].map(shown),
            ["81.0 °C", "80.001 °C", "-1.5 °C", "-0.007 °C", "0.0 °C"]
        );
    }
}

//! `[io:NAME]`: one chip, measured and set: temperatures, voltages, lines of an expander, pulse widths, what is in a file. What is
//! measured is published as values; what is set follows a value of somebody else's, and is safe whenever that is not known.
//!
//! One process for each chip: what hangs on its bus holds nobody else up, and is killed and safe alone. A chip that does not
//! answer is asked for ever; nothing but its values is unknown then.

mod chip;
mod row;
mod section;

use std::path::Path;

use crate::config::{Child, Settings, milli_text};
use crate::sys::bus::{self, Wire};
use crate::sys::values::Value;
use crate::sys::{SysError, clock, console, file, glob};
use crate::time::Millis;

use super::life::{Life, live};
use chip::{CHANNEL_COUNT_MAX, Chip, Measured};
use row::Row;
use section::{Board, KEYS};

/// A file with one number has less.
const FILE_BYTES_MAX: usize = 4096;
/// How long its last words may take to be heard.
const HEARD_MS: u16 = 200;
/// A chip that failed and answers again has to do so for so many rounds before that is news.
const GOOD_ROUNDS: u8 = 10;

/// Its row. What it drives is made safe by a process of its own whenever the one that drove it has ended, however that was.
pub const CHILD: Child = Child {
    word: "io",
    header: "[io:NAME]",
    named: true,
    drives: false,
    title: "Chips: sensors, converters, expanders",
    keys: KEYS,
    program: concat!(
        super::supervised!(),
        "capabilities = none\non_failure = multusd io\non_failure_timeout = 2s\non_stop = multusd io\non_stop_timeout = 2s\n"
    ),
    check: |settings| Board::read(settings).map(drop),
    run: |settings| match settings.is_over {
        true => make_safe(settings),
        false => live(c"multusd-io", |life| serve(life, settings)),
    },
};

/// What each row's channel is to be at; none: off, or nothing that is set.
type Codes = heapless::Vec<Option<u16>, CHANNEL_COUNT_MAX>;

/// What an output is to be at, by the value it follows.
fn wanted(chip: Chip, row: &Row, value: Option<i64>) -> Option<u16> {
    let source = row.source.as_ref()?;
    Some(row.code(value.or(source.safe)?, chip.most()))
}

/// Whether it answers, and what is news of that. Reads no clock.
#[derive(Default)]
struct Health {
    failed: Option<SysError>,
    good: u8,
}

impl Health {
    /// After a round; what has changed: Some(None) is well again.
    fn after(&mut self, result: Result<(), SysError>) -> Option<Option<SysError>> {
        match (result, self.failed) {
            (Ok(()), None) => None,
            (Ok(()), Some(_)) => {
                self.good += 1;
                (self.good >= GOOD_ROUNDS).then(|| {
                    *self = Health::default();
                    None
                })
            }
            (Err(error), before) => {
                *self = Health { failed: Some(error), good: 0 };
                before.is_none().then_some(Some(error))
            }
        }
    }
}

/// The chip, as far as it answers.
struct Device {
    board: Board,
    wire: Option<Box<dyn Wire>>,
}

impl Device {
    /// Does something over its wire, which is opened anew after a failure.
    fn with<T>(
        &mut self,
        act: impl FnOnce(&Board, &mut dyn Wire) -> Result<T, SysError>,
    ) -> Result<T, SysError> {
        if self.wire.is_none()
            && let Some(place) = self.board.place
        {
            self.wire = Some(bus::open(place)?);
        }
        let Some(wire) = &mut self.wire else {
            return Err(SysError { operation: "no bus", errno: libc::ENODEV });
        };
        let result = act(&self.board, &mut **wire);
        if result.is_err() {
            self.wire = None;
        }
        result
    }

    fn set(&mut self, codes: &Codes) -> Result<(), SysError> {
        self.with(|board, wire| board.chip.write(wire, &board.rows, codes, board.period_ns))
    }

    fn measure(&mut self, channel: usize) -> Result<Measured, SysError> {
        let board = &self.board;
        if board.place.is_some() {
            return self.with(|board, wire| board.chip.read(wire, channel));
        }
        let is_flag = board.chip == Chip::Cpu && channel > 0;
        let pattern = if is_flag { &board.flags } else { &board.path };
        let found = glob::glob(pattern);
        let bytes = file::read_bounded(Path::new(found.first().unwrap_or(pattern)), FILE_BYTES_MAX)?;
        let text = str::from_utf8(&bytes).unwrap_or("");
        let measured = if is_flag { chip::flag(text, channel) } else { chip::number(text) };
        measured.ok_or(SysError { operation: "a number", errno: libc::EINVAL })
    }

    /// Measures everything, and says it; the first failure.
    fn publish(&mut self, codes: &Codes, is_set: &Result<(), SysError>) -> (String, Result<(), SysError>) {
        let (mut lines, mut result) = (String::new(), *is_set);
        let believed = self.board.believed();
        for index in 0..self.board.rows.len() {
            let (channel, row) = &self.board.rows[index];
            let (channel, is_output) = (*channel, row.source.is_some());
            let (raw, milli) = if is_output {
                let code = codes[index].filter(|_| is_set.is_ok());
                (code.unwrap_or(0).into(), code.map(|code| row.milli(code)))
            } else {
                // One failure a round: each may take as long as the bus waits for its chip.
                let measured = result.and_then(|()| self.measure(channel));
                // A board without such a firmware is no broken one.
                let is_flag = self.board.chip == Chip::Cpu && channel > 0;
                if let (Err(error), false) = (measured, is_flag) {
                    result = Err(error);
                }
                let row = &self.board.rows[index].1;
                measured.map_or((0, None), |measured| (measured.raw, row.value(measured.number)))
            };
            say(&mut lines, &self.board.rows[index].1, raw, milli, believed);
        }
        (lines, result)
    }
}

/// Adds a line for multusd.
fn say(lines: &mut String, row: &Row, raw: i64, milli: Option<i64>, believed: Millis) {
    let number = milli.map_or("unknown".into(), milli_text);
    let (raw, believed) = (raw.to_string(), believed.0.to_string());
    let unit = if row.unit.is_empty() { "" } else { " unit=" };
    lines.extend([
        "MULTUSD_VALUE=",
        &row.name,
        " ",
        &number,
        unit,
        &row.unit,
        " raw=",
        &raw,
        " for=",
        &believed,
        "ms\n",
    ]);
}

/// For whoever drove the outputs and has ended.
fn make_safe(settings: &Settings) -> u8 {
    let Ok(board) = Board::read(settings) else { return 1 };
    if !board.has_outputs() {
        return 0;
    }
    let safe = board.safe();
    match (Device { board, wire: None }).set(&safe) {
        Ok(()) => 0,
        Err(error) => {
            console::complain(&["outputs are not made safe: ", &error.to_string()].concat());
            1
        }
    }
}

const CHANGES: u64 = 0;

fn serve(life: &mut Life, settings: &Settings) -> Result<(), SysError> {
    // It was found to be right where the configuration was read.
    let Ok(board) = Board::read(settings) else {
        return Err(SysError { operation: "section", errno: libc::EINVAL });
    };
    let (has_outputs, safe) = (board.has_outputs(), board.safe());
    let mut device = Device { board, wire: None };
    if has_outputs {
        // Whatever it was left at. Whether it answers is seen in the first round.
        let _ = device.set(&safe);
        life.changes(CHANGES)?;
    }
    life.multusd.ready()?;
    let result = rounds(life, &mut device);
    if has_outputs {
        let _ = device.set(&safe);
    }
    let mut lines = String::new();
    device.board.rows.iter().for_each(|(_, row)| say(&mut lines, row, 0, None, Millis(0)));
    if life.multusd.try_say(&lines) {
        // Of who has ended nothing is believed.
        life.multusd.wait_until_heard(HEARD_MS);
    }
    result
}

/// Until it is to end.
fn rounds(life: &mut Life, device: &mut Device) -> Result<(), SysError> {
    let has_outputs = device.board.has_outputs();
    let mut health = Health::default();
    let mut next = clock::now();
    let mut set: Option<Codes> = None;
    loop {
        let now = clock::now();
        let is_due = now >= next;
        let mut until = None;
        let mut codes = Codes::new();
        for (_, row) in &device.board.rows {
            let published = row.source.as_ref().and_then(|source| life.multusd.published(&source.from));
            let value = published.as_ref().and_then(|value| value.now(now));
            let ends = published.filter(|_| value.is_some()).and_then(|Value { until, .. }| until);
            until = [until, ends].into_iter().flatten().min();
            let _ = codes.push(wanted(device.board.chip, row, value));
        }
        if is_due || set.as_ref() != Some(&codes) && health.failed.is_none() {
            let is_set = if has_outputs { device.set(&codes) } else { Ok(()) };
            let (lines, result) = device.publish(&codes, &is_set);
            set = Some(codes);
            life.multusd.try_say(&lines);
            if let Some(news) = health.after(result) {
                let words = news.map_or("it answers".into(), |error| error.to_string());
                super::report(format_args!("{words}"));
                life.multusd.try_say(&["STATUS=", &words].concat());
            }
        }
        if is_due {
            next = (next + device.board.every).max(now);
        }
        if life.wait([Some(next), until].into_iter().flatten().min())?.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::chip::tests::Simulated;
    use super::section::tests::settings;
    use super::*;

    fn device(keys: &[(&str, &str)], wire: Simulated) -> Device {
        let Ok(board) = Board::read(&settings(keys)) else { panic!("a right section") };
        Device { board, wire: Some(Box::new(wire)) }
    }

    /// A wire that is cut.
    struct Cut;
    impl Wire for Cut {
        fn exchange(&mut self, _: &[u8], _: &mut [u8]) -> Result<(), SysError> {
            Err(SysError { operation: "I2C read", errno: libc::EREMOTEIO })
        }
    }

    #[test]
    fn what_is_measured_is_published_raw_and_scaled_and_for_how_long() {
        let mut outside = device(&[("chip", "lm75"), ("every", "2s")], Simulated::Lm75([0xe7, 0]));
        let (lines, result) = outside.publish(&Codes::new(), &Ok(()));
        assert_eq!(
            (lines.as_str(), result),
            ("MULTUSD_VALUE=temperature -25 unit=C raw=-6400 for=6000ms\n", Ok(()))
        );
        let keys = [
            ("chip", "mcp3208"),
            ("every", "100ms"),
            ("ch1", "tank scale=0..4095:0..250 unit=l valid=10..4090"),
            ("ch7", "boiler scale=0..4095:80..200 pt100"),
        ];
        let mut adc = device(&keys, Simulated::Mcp3208([0, 2048, 0, 0, 0, 0, 0, 683], true));
        let (lines, _) = adc.publish(&Codes::new(), &Ok(()));
        assert_eq!(
            lines,
            "MULTUSD_VALUE=tank 125.031 unit=l raw=2048 for=1000ms\nMULTUSD_VALUE=boiler 0.037 unit=C raw=683 for=1000ms\n"
        );
        let mut adc = device(&keys, Simulated::Mcp3208([0, 4095, 0, 0, 0, 0, 0, 683], true));
        let (lines, result) = adc.publish(&Codes::new(), &Ok(()));
        assert!(lines.starts_with("MULTUSD_VALUE=tank unknown unit=l raw=4095 "), "a wire is off: {lines}");
        assert_eq!(result, Ok(()), "which is no failure of the chip");
    }

    #[test]
    fn nothing_of_a_chip_that_does_not_answer_is_known() {
        let mut lines =
            device(&[("chip", "pcf8574"), ("ch0", "door"), ("ch1", "lamp from=a safe=0")], Simulated::Pwm(0));
        lines.wire = Some(Box::new(Cut));
        let is_set = lines.set(&lines.board.safe());
        assert!(is_set.is_err() && lines.wire.is_none(), "it is opened anew");
        let (text, result) = lines.publish(&lines.board.safe(), &is_set);
        assert_eq!(
            text,
            "MULTUSD_VALUE=door unknown raw=0 for=3000ms\nMULTUSD_VALUE=lamp unknown raw=0 for=3000ms\n"
        );
        assert_eq!(result, is_set);
    }

    #[test]
    fn an_output_follows_its_value_and_is_safe_where_that_is_not_known() {
        let keys =
            [("chip", "mcp4922"), ("ch0", "valve from=a.b safe=2.5"), ("ch1", "pump from=a.c safe=off")];
        let mut dac = device(&keys, Simulated::Mcp4922([None; 2]));
        let row = dac.board.rows[0].1.clone();
        assert_eq!(wanted(Chip::Mcp4922, &row, Some(10_000)), Some(4095));
        assert_eq!(wanted(Chip::Mcp4922, &row, Some(-1)), Some(0));
        assert_eq!(wanted(Chip::Mcp4922, &row, None), Some(1024));
        let safe = dac.board.safe();
        assert_eq!(safe[..], [Some(1024), None]);
        let is_set = dac.set(&safe);
        let (lines, _) = dac.publish(&safe, &is_set);
        assert_eq!(
            lines,
            "MULTUSD_VALUE=valve 2.501 unit=V raw=1024 for=3000ms\nMULTUSD_VALUE=pump unknown unit=V raw=0 for=3000ms\n"
        );
    }

    #[test]
    fn a_failure_is_news_once_and_well_again_after_some_rounds() {
        let mut health = Health::default();
        let error = SysError { operation: "I2C read", errno: libc::EREMOTEIO };
        assert_eq!(health.after(Ok(())), None);
        assert_eq!(health.after(Err(error)), Some(Some(error)));
        let mut news = 0;
        for round in 0..1000 {
            // A loose contact.
            news += usize::from(health.after(if round % 5 == 0 { Err(error) } else { Ok(()) }).is_some());
        }
        assert_eq!(news, 0);
        let well: Vec<_> = (0..20).filter_map(|_| health.after(Ok(()))).collect();
        assert_eq!(well, [None]);
        assert_eq!(health.after(Err(error)), Some(Some(error)), "and once more");
    }
}

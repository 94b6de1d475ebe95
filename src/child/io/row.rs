//! What a channel's row says (`tank scale=0..4095:0..250 unit=l valid=10..4090`), and what becomes of what was measured: pure.

use crate::config::thousandths;

/// A straight line through two points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    from: (f64, f64),
    to: (f64, f64),
}

impl Scale {
    /// x0..x1 becomes y0..y1.
    pub const fn new(from: (f64, f64), to: (f64, f64)) -> Scale {
        Scale { from, to }
    }

    /// `0..4095:0..10`; none: it is no scale, or its first two are the same.
    fn read(text: &str) -> Option<Scale> {
        let (from, to) = text.split_once(':')?;
        let (from, to) = (range(from)?, range(to)?);
        (from.0 != from.1).then_some(Scale { from, to })
    }

    fn at(self, x: f64) -> f64 {
        self.to.0 + (x - self.from.0) * (self.to.1 - self.to.0) / (self.from.1 - self.from.0)
    }

    fn back(self) -> Scale {
        Scale { from: self.to, to: self.from }
    }
}

/// The original's: 0 to 10 V of an MCP3208, its current transformers, and its PT100 by the volts of its amplifier
/// (103800/1589 U − 223777/7945, 1 mV a step).
const NAMED: [(&str, &str, Scale); 3] = [
    ("multus-10v", "V", Scale::new((0.0, 4096.0), (0.0, 10.0))),
    ("multus-current", "A", Scale::new((0.0, 2930.0), (0.0, 0.8))),
    (
        "multus-pt100",
        "C",
        Scale::new((0.0, 1_589_000.0), (-223_777.0 / 7945.0, 103_800.0 - 223_777.0 / 7945.0)),
    ),
];

/// Where an output's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The value's name.
    pub from: String,
    /// What does no harm, in thousandths of the value's unit; none: off.
    pub safe: Option<i64>,
}

/// One channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What its value is called.
    pub name: String,
    /// What that is measured in.
    pub unit: String,
    scale: Scale,
    /// Of what was measured; outside of it something is broken.
    valid: Option<(f64, f64)>,
    /// What the scale gives are ohms.
    is_pt100: bool,
    /// It is an output.
    pub source: Option<Source>,
    /// A DAC's reference doubled.
    pub has_gain: bool,
    /// A DAC's reference buffered.
    pub is_buffered: bool,
}

fn range(text: &str) -> Option<(f64, f64)> {
    let (first, second) = text.split_once("..")?;
    Some((thousandths(first)? as f64 / 1000.0, thousandths(second)? as f64 / 1000.0))
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.bytes().all(is_plain) && !name.starts_with('.') && !name.ends_with('.')
}

fn rounded(number: f64) -> i64 {
    (number + 0.5_f64.copysign(number)) as i64
}

impl Row {
    /// Reads one, of a chip whose numbers mean this and are measured in that; or the word that is wrong.
    pub fn read<'a>(text: &'a str, scale: Scale, unit: &str) -> Result<Row, &'a str> {
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        let name = words.next().filter(|name| is_name(name)).ok_or(text)?;
        let mut row = Row {
            name: name.into(),
            unit: unit.into(),
            scale,
            valid: None,
            is_pt100: false,
            source: None,
            has_gain: false,
            is_buffered: false,
        };
        let (mut from, mut safe) = (None, None);
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "scale" => match NAMED.iter().find(|(name, ..)| *name == value) {
                    Some((_, unit, scale)) => (row.unit, row.scale) = ((*unit).into(), *scale),
                    None => row.scale = Scale::read(value).ok_or(word)?,
                },
                "valid" => row.valid = Some(range(value).ok_or(word)?),
                "from" if !value.is_empty() && is_name(value) => from = Some(value),
                "safe" if value == "off" => safe = Some(None),
                "safe" => safe = Some(Some(thousandths(value).ok_or(word)?)),
                "pt100" if value.is_empty() => (row.is_pt100, row.unit) = (true, "C".into()),
                "gain" if value == "2" => row.has_gain = true,
                "buffered" if value.is_empty() => row.is_buffered = true,
                "unit" if value.len() <= crate::limits::UNIT_BYTES_MAX => {}
                _ => return Err(word),
            }
        }
        // Whatever the order: what a person writes counts more than what a kind brings along.
        if let Some(unit) = text.split(' ').find_map(|word| word.strip_prefix("unit=")) {
            row.unit = unit.into();
        }
        row.source = match (from, safe) {
            (Some(from), Some(safe)) => Some(Source { from: from.into(), safe }),
            (None, None) => None,
            // What of the two is missing.
            (Some(_), None) => return Err("safe"),
            (None, Some(_)) => return Err("from"),
        };
        Ok(row)
    }

    /// Thousandths of its unit; none: what was measured cannot be.
    pub fn value(&self, measured: f64) -> Option<i64> {
        if self.valid.is_some_and(|(low, high)| !(low..=high).contains(&measured)) {
            return None;
        }
        let scaled = self.scale.at(measured);
        Some(rounded(if self.is_pt100 { pt100(scaled)? } else { scaled } * 1000.0))
    }

    /// What a chip that takes 0 to `most` is to be at for so many thousandths.
    pub fn code(&self, milli: i64, most: u16) -> u16 {
        rounded(self.scale.at(milli as f64 / 1000.0)).clamp(0, most.into()) as u16
    }

    /// Thousandths, of what a chip is at.
    pub fn milli(&self, code: u16) -> i64 {
        rounded(self.scale.back().at(code.into()) * 1000.0)
    }
}

/// Degrees Celsius of a PT100 of so many ohms (IEC 60751); none: below −200 or above 850.
fn pt100(ohms: f64) -> Option<f64> {
    const A: f64 = 3.9083e-3;
    const B: f64 = -5.775e-7;
    const C: f64 = -4.183e-12;
    let ratio = ohms / 100.0;
    if !(0.1851..=3.9049).contains(&ratio) {
        return None;
    }
    let mut degrees = ((A * A - 4.0 * B * (1.0 - ratio)).sqrt() - A) / (2.0 * B);
    if ratio < 1.0 {
        // Below zero there is a term of the fourth power; the parabola is near enough to begin with.
        for _ in 0..4 {
            let cube = degrees * degrees * degrees;
            let is = 1.0 + A * degrees + B * degrees * degrees + C * (degrees - 100.0) * cube;
            let slope = A + 2.0 * B * degrees + C * (4.0 * cube - 300.0 * degrees * degrees);
            degrees -= (is - ratio) / slope;
        }
    }
    Some(degrees)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Scale = Scale::new((0.0, 1.0), (0.0, 1.0));

    fn row(text: &str) -> Row {
        Row::read(text, PLAIN, "").unwrap()
    }

    #[test]
    fn a_row_is_a_name_and_words_in_any_order() {
        let tank = row("tank  scale=0..4095:0..250 unit=l valid=10..4090");
        assert_eq!((tank.name.as_str(), tank.unit.as_str()), ("tank", "l"));
        for (measured, milli) in
            [(9, None), (10, Some(611)), (2048, Some(125_031)), (4090, Some(249_695)), (4091, None)]
        {
            assert_eq!(tank.value(f64::from(measured)), milli, "{measured}");
        }
        assert_eq!(row("a unit=F scale=multus-10v").unit, "F");
        assert_eq!(row("a scale=multus-10v unit=F").unit, "F");
        assert_eq!(row("a scale=-10..10:1..-1").value(-5.0), Some(500));
        let valve = row("valve from=control.valve safe=2.5 gain=2 buffered");
        assert_eq!(valve.source, Some(Source { from: "control.valve".into(), safe: Some(2500) }));
        assert!(valve.has_gain && valve.is_buffered);
        assert_eq!(row("v from=a safe=off").source.unwrap().safe, None);
    }

    #[test]
    fn what_is_wrong_in_a_row_is_named() {
        for (text, wrong) in [
            ("", ""),
            ("=x", "=x"),
            (".a", ".a"),
            ("a/b", "a/b"),
            ("a b", "b"),
            ("a scale=0..1", "scale=0..1"),
            ("a scale=1..1:0..1", "scale=1..1:0..1"),
            ("a scale=0..x:0..1", "scale=0..x:0..1"),
            ("a valid=5", "valid=5"),
            ("a from=", "from="),
            ("a from=b", "safe"),
            ("a safe=1", "from"),
            ("a from=b safe=low", "safe=low"),
            ("a gain=3", "gain=3"),
            ("a unit=sixteen-letters-", "unit=sixteen-letters-"),
            ("a pt100=1", "pt100=1"),
        ] {
            assert_eq!(Row::read(text, PLAIN, ""), Err(wrong), "{text}");
        }
    }

    #[test]
    fn the_originals_formulas_are_its_own() {
        let volts = row("a scale=multus-10v");
        assert_eq!(
            (volts.value(0.0), volts.value(2048.0), volts.value(4095.0)),
            (Some(0), Some(5000), Some(9998))
        );
        assert_eq!(volts.unit, "V");
        let current = row("a scale=multus-current");
        assert_eq!((current.value(2930.0), current.value(1465.0)), (Some(800), Some(400)));
        // 103800 / 1589 * 1.5 - 223777 / 7945, by hand: 97.98615 - 28.16576.
        let pt100 = row("a scale=multus-pt100");
        assert_eq!(pt100.value(1500.0), Some(69_820));
        assert_eq!((pt100.value(0.0), pt100.value(431.0)), (Some(-28_166), Some(-11)));
    }

    #[test]
    fn a_pt100_follows_the_table_of_iec_60751() {
        let sensor = row("boiler pt100");
        assert_eq!(sensor.unit, "C");
        for (ohms, degrees) in [
            (18.520, -200),
            (39.723, -150),
            (60.256, -100),
            (80.306, -50),
            (96.086, -10),
            (100.0, 0),
            (103.903, 10),
            (119.397, 50),
            (138.506, 100),
            (175.856, 200),
            (247.092, 400),
            (313.708, 600),
            (375.704, 800),
            (390.481, 850),
        ] {
            let is = pt100(ohms).unwrap();
            // The table has three decimals of an ohm: a hundredth of a degree at the least steep of its places.
            assert!((is - f64::from(degrees)).abs() < 0.005, "{ohms}: {is}");
        }
        assert_eq!(sensor.value(119.397), Some(50_000));
        for broken in [0.0, 18.5, 390.5, 1e9, -1.0] {
            assert_eq!(sensor.value(broken), None, "{broken}");
        }
    }

    #[test]
    fn an_output_takes_what_its_chip_can() {
        let volts = Row::read("a from=b safe=0", Scale::new((0.0, 10.0), (0.0, 4095.0)), "V").unwrap();
        for (milli, code) in
            [(0, 0), (10_000, 4095), (5000, 2048), (2500, 1024), (-1, 0), (10_001, 4095), (i64::MAX, 4095)]
        {
            assert_eq!(volts.code(milli, 4095), code, "{milli}");
        }
        assert_eq!((volts.milli(2048), volts.milli(4095), volts.milli(0)), (5001, 10_000, 0));
        let low = row("a from=b safe=0 scale=0..1:1..0");
        assert_eq!((low.code(0, 1), low.code(1000, 1), low.code(7000, 1), low.milli(1)), (1, 0, 0, 0));
        // A scale that gives always the same goes nowhere back, and breaks nothing.
        assert_eq!(row("a from=b safe=0 scale=0..1:1..1").milli(1), 0);
    }
}

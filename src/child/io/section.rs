//! What a section says, and what can be wrong with it: pure.

use crate::config::child::{choice, duration, number, other, path};
use crate::config::{Key, Settings, Wrong, key, read_duration};
use crate::sys::bus::Place;
use crate::time::Millis;

use super::chip::{self, CHANNEL_COUNT_MAX, Chip};
use super::row::Row;
use super::{Codes, wanted};

/// Measurements that may be missing before a value is not believed any more, and what they may take at the least.
const MISSING_MAX: u64 = 3;
const BELIEVED_MS_MIN: u64 = 1000;

const CHANNELS: [&str; CHANNEL_COUNT_MAX] = ["ch0", "ch1", "ch2", "ch3", "ch4", "ch5", "ch6", "ch7"];
const CHANNEL: &str = "a channel such as tank scale=0..4095:0..250 unit=l";

macro_rules! channel {
    ($name:literal, $example:literal, $help:literal) => {
        key!($name, other(CHANNEL, judge_row), "(none)", $example, $help)
    };
}

pub static KEYS: &[Key] = &[
    key!(
        "chip",
        choice(chip::WORDS),
        "(none)",
        "lm75",
        "What it is; tmp75 is every chip that has an LM75's register with up to 12 bits, cpu this machine, file a number in a file."
    ),
    key!(
        "bus",
        number(0, 255),
        "(1 for I2C, else 0)",
        "0",
        "Number of the I2C bus (/dev/i2c-1), of the SPI bus (/dev/spidev0.…), or of the PWM chip (pwmchip0)."
    ),
    key!(
        "address",
        other("a number such as 0x48 or 72", |text| address(text).map(drop).ok_or(Wrong::Kind)),
        "(0x48 of an LM75, 0x20 of a PCF8574, else 0)",
        "0x49",
        "Its I2C address, its SPI chip select (/dev/spidev….0), or the PWM's channel."
    ),
    key!(
        "path",
        path(),
        "/sys/class/thermal/thermal_zone0/temp",
        "/sys/bus/w1/devices/28-*/temperature",
        "File with the number, of file and cpu; the first that matches a pattern."
    ),
    key!(
        "flags",
        path(),
        "/sys/devices/platform/soc/soc:firmware/get_throttled",
        "/sys/class/throttled",
        "File with the firmware's flags, of cpu; where there is none they are not known."
    ),
    key!("frequency", number(1, 10_000_000), "1000", "25000", "Of a PWM, in hertz."),
    key!("every", duration(50), "1s", "10s", "It is measured, and set anew, so often."),
    channel!(
        "ch0",
        "tank scale=0..4095:0..250 unit=l valid=10..4090",
        "Name of its first channel's value, then what is made of it: scale (a line through two points, or multus-10v, multus-current, multus-pt100), unit, valid (what may be measured), pt100 (the scale gives ohms). An output has from, the value it follows, and safe, what it is at while that is not known; of a DAC also safe=off, gain=2 and buffered."
    ),
    channel!("ch1", "valve from=control.valve safe=0", "The same of the second."),
    channel!("ch2", "boiler scale=0..4095:80..200 pt100", "The same of the third."),
    channel!("ch3", "current scale=multus-current", "The same of the fourth."),
    channel!("ch4", "door", "The same of the fifth."),
    channel!("ch5", "door", "The same of the sixth."),
    channel!("ch6", "door", "The same of the seventh."),
    channel!("ch7", "door", "The same of the eighth."),
];

/// A whole number, hexadecimal behind 0x.
fn address(text: &str) -> Option<u8> {
    match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn judge_row(text: &str) -> Result<(), Wrong> {
    let (scale, unit) = Chip::File.scale(0);
    Row::read(text, scale, unit).map(drop).map_err(|word| {
        Wrong::Say(match word {
            "from" | "safe" => {
                ["is an output without ", word, "=; write for example valve from=control.valve safe=0"]
                    .concat()
            }
            word => ["has `", word, "`, which says nothing of a channel; write for example tank scale=0..4095:0..250 unit=l valid=10..4090"].concat(),
        })
    })
}

/// What a section says.
pub struct Board {
    pub chip: Chip,
    /// None: files.
    pub place: Option<Place>,
    pub period_ns: u64,
    pub path: String,
    pub flags: String,
    pub every: Millis,
    /// By their channels.
    pub rows: Vec<(usize, Row)>,
}

pub type Fault = (&'static str, String);

impl Board {
    /// Or the key that is wrong together with others, and how.
    pub fn read(settings: &Settings) -> Result<Board, Fault> {
        let text = |name: &str| settings.text(KEYS, name);
        let no_chip = || ("chip", "has no chip; write for example chip = lm75".to_string());
        let chip = Chip::named(text("chip")).ok_or_else(no_chip)?;
        let has = |name: &str| settings.settings.iter().any(|setting| setting.name == name);
        if chip == Chip::File && !has("path") {
            return Err((
                "path",
                "has no file; write for example path = /sys/bus/w1/devices/28-*/temperature".into(),
            ));
        }
        let (is_i2c, first, default) = match chip {
            Chip::Lm75 | Chip::Tmp75 => (true, 3, 0x48),
            Chip::Pcf8574 => (true, 3, 0x20),
            _ => (false, 0, 0),
        };
        let last = match chip {
            _ if is_i2c => 0x77,
            Chip::Pwm => 255,
            _ => 2,
        };
        let bus = text("bus").parse().unwrap_or(u8::from(is_i2c));
        let address = address(text("address")).unwrap_or(default);
        if !(first..=last).contains(&address) {
            return Err(("address", format!("this chip's is {first} to {last}")));
        }
        let hertz = text("frequency").parse::<u64>().unwrap_or(1000).max(1);
        let period_ns = 1_000_000_000 / hertz;
        let place = match chip {
            Chip::Cpu | Chip::File => None,
            Chip::Pwm => Some(Place::Pwm(bus, address, period_ns)),
            _ if is_i2c => Some(Place::I2c(bus, address)),
            _ if bus > 6 => return Err(("bus", "an SPI bus is 0 to 6".into())),
            _ => Some(Place::Spi(bus, address)),
        };
        Ok(Board {
            chip,
            place,
            period_ns,
            path: text("path").into(),
            flags: text("flags").into(),
            every: read_duration(text("every")).unwrap_or(Millis(1000)),
            rows: rows(settings, chip)?,
        })
    }

    pub fn has_outputs(&self) -> bool {
        self.rows.iter().any(|(_, row)| row.source.is_some())
    }

    /// How long what was measured is to be believed.
    pub fn believed(&self) -> Millis {
        Millis((self.every.0 * MISSING_MAX).max(BELIEVED_MS_MIN))
    }

    /// What does no harm.
    pub fn safe(&self) -> Codes {
        self.rows.iter().map(|(_, row)| wanted(self.chip, row, None)).collect()
    }
}

fn rows(settings: &Settings, chip: Chip) -> Result<Vec<(usize, Row)>, Fault> {
    let mut texts: Vec<(usize, &str)> = CHANNELS
        .iter()
        .map(|name| settings.text(KEYS, name))
        .enumerate()
        .filter(|(_, text)| !text.is_empty())
        .collect();
    if texts.is_empty() {
        texts = chip.default_rows().iter().copied().enumerate().collect();
    }
    if texts.is_empty() {
        return Err((
            "chip",
            "has no channel; write for example ch0 = tank scale=0..4095:0..250 unit=l".into(),
        ));
    }
    let mut rows: Vec<(usize, Row)> = Vec::new();
    for (channel, text) in texts {
        let fault = |words: &str| (CHANNELS[channel], words.to_string());
        let (scale, unit) = chip.scale(channel);
        // It was found to be right by itself.
        let Ok(row) = Row::read(text, scale, unit) else { return Err(fault("is no channel")) };
        let (may_drive, may_measure) = chip.directions();
        if channel >= chip.channel_count() {
            return Err((CHANNELS[channel], format!("this chip has {}, from ch0 on", chip.channel_count())));
        }
        match &row.source {
            Some(_) if !may_drive => return Err(fault("this chip has no outputs")),
            None if !may_measure => {
                return Err(fault(
                    "this chip has outputs only: say which value it follows (from=) and what is safe (safe=)",
                ));
            }
            Some(source) if source.safe.is_none() && chip != Chip::Mcp4922 => {
                return Err(fault("only a DAC can be off; write for example safe=0"));
            }
            _ => {}
        }
        if (row.has_gain || row.is_buffered) && chip != Chip::Mcp4922 {
            return Err(fault("only a DAC has a gain and a buffer"));
        }
        if rows.iter().any(|(_, other)| other.name == row.name) {
            return Err(fault("there is a channel of this name already"));
        }
        rows.push((channel, row));
    }
    Ok(rows)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::config::Setting;

    pub fn settings(keys: &[(&str, &str)]) -> Settings {
        let setting = |(name, value): &(&str, &str)| Setting { name: (*name).into(), value: (*value).into() };
        Settings { settings: keys.iter().map(setting).collect(), ..Settings::default() }
    }

    #[test]
    fn every_wrong_section_is_told_at_its_key() {
        for (keys, key, why) in [
            (&[][..], "chip", "has no chip; write for example chip = lm75"),
            (
                &[("chip", "file")],
                "path",
                "has no file; write for example path = /sys/bus/w1/devices/28-*/temperature",
            ),
            (&[("chip", "lm75"), ("address", "0x78")], "address", "this chip's is 3 to 119"),
            (&[("chip", "mcp3208"), ("address", "3")], "address", "this chip's is 0 to 2"),
            (&[("chip", "mcp3208"), ("bus", "7")], "bus", "an SPI bus is 0 to 6"),
            (
                &[("chip", "mcp3208")],
                "chip",
                "has no channel; write for example ch0 = tank scale=0..4095:0..250 unit=l",
            ),
            (&[("chip", "lm75"), ("ch1", "a")], "ch1", "this chip has 1, from ch0 on"),
            (&[("chip", "lm75"), ("ch0", "a from=b safe=0")], "ch0", "this chip has no outputs"),
            (
                &[("chip", "pwm"), ("ch0", "fan")],
                "ch0",
                "this chip has outputs only: say which value it follows (from=) and what is safe (safe=)",
            ),
            (
                &[("chip", "pwm"), ("ch0", "fan from=a safe=off")],
                "ch0",
                "only a DAC can be off; write for example safe=0",
            ),
            (&[("chip", "lm75"), ("ch0", "a buffered")], "ch0", "only a DAC has a gain and a buffer"),
            (
                &[("chip", "pcf8574"), ("ch2", "a"), ("ch5", "a")],
                "ch5",
                "there is a channel of this name already",
            ),
        ] {
            let Err(fault) = Board::read(&settings(keys)) else { panic!("{keys:?}") };
            assert_eq!(fault, (key, why.into()), "{keys:?}");
        }
    }

    #[test]
    fn places_are_those_of_the_kernels_devices() {
        let place = |keys| Board::read(&settings(keys)).ok().and_then(|board| board.place);
        assert_eq!(place(&[("chip", "lm75")]), Some(Place::I2c(1, 0x48)));
        assert_eq!(place(&[("chip", "tmp75"), ("bus", "0"), ("address", "73")]), Some(Place::I2c(0, 0x49)));
        assert_eq!(place(&[("chip", "mcp3208"), ("address", "1"), ("ch0", "a")]), Some(Place::Spi(0, 1)));
        let fan = [("chip", "pwm"), ("address", "2"), ("frequency", "25000"), ("ch0", "fan from=a safe=100")];
        assert_eq!(place(&fan), Some(Place::Pwm(0, 2, 40_000)));
        assert_eq!(place(&[("chip", "cpu")]), None);
    }
}

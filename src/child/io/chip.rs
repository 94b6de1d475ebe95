//! What is said to each chip, and what its bytes mean, by its datasheet. Pure but for the wire, behind which may be a simulation.

use crate::sys::SysError;
use crate::sys::bus::Wire;

use super::row::{Row, Scale};

/// What can be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// Temperature, 9 bits.
    Lm75,
    /// The same register with up to 12 bits: TMP75, TMP102, LM75B, DS1775.
    Tmp75,
    /// 8 channels of 12 bits.
    Mcp3208,
    /// 2 channels of 12 bits, outputs.
    Mcp4922,
    /// 8 lines, each an input or an output.
    Pcf8574,
    /// Temperature, and what the firmware does about it.
    Cpu,
    /// A number in a file.
    File,
    /// A pulse width, an output.
    Pwm,
}

/// Their words, in this order.
pub const WORDS: &[&str] = &["lm75", "tmp75", "mcp3208", "mcp4922", "pcf8574", "cpu", "file", "pwm"];
const ALL: [Chip; 8] =
    [Chip::Lm75, Chip::Tmp75, Chip::Mcp3208, Chip::Mcp4922, Chip::Pcf8574, Chip::Cpu, Chip::File, Chip::Pwm];

/// Channels of the largest.
pub const CHANNEL_COUNT_MAX: usize = 8;
/// A PWM is set in hundredths of a percent.
const PWM_STEPS: u16 = 10_000;

/// A measurement: as it is, and as the number that is scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// As the chip has it.
    pub raw: i64,
    /// What that is.
    pub number: f64,
}

impl Measured {
    fn of(raw: i64) -> Measured {
        Measured { raw, number: raw as f64 }
    }
}

/// No chip answers so: a line is at one level all the time.
const NOT_THERE: SysError = SysError { operation: "no answer of the chip", errno: libc::EIO };

impl Chip {
    /// By its word.
    pub fn named(word: &str) -> Option<Chip> {
        WORDS.iter().zip(ALL).find(|(known, _)| **known == word).map(|(_, chip)| chip)
    }

    /// Its channels, where a section says nothing of them.
    pub fn default_rows(self) -> &'static [&'static str] {
        match self {
            Chip::Lm75 | Chip::Tmp75 => &["temperature"],
            Chip::Cpu => &["temperature", "undervoltage", "capped", "throttled", "hot"],
            Chip::File => &["value"],
            _ => &[],
        }
    }

    /// How many channels it has.
    pub fn channel_count(self) -> usize {
        match self {
            Chip::Mcp3208 | Chip::Pcf8574 => 8,
            Chip::Mcp4922 => 2,
            chip => chip.default_rows().len().max(1),
        }
    }

    /// What the numbers of a channel mean, unless its row says otherwise, and in which unit.
    pub fn scale(self, channel: usize) -> (Scale, &'static str) {
        match self {
            Chip::Lm75 | Chip::Tmp75 => (Scale::new((0.0, 256.0), (0.0, 1.0)), "C"),
            Chip::Cpu if channel == 0 => (Scale::new((0.0, 1000.0), (0.0, 1.0)), "C"),
            Chip::Mcp4922 => (Scale::new((0.0, 10.0), (0.0, 4095.0)), "V"),
            Chip::Pwm => (Scale::new((0.0, 100.0), (0.0, PWM_STEPS as f64)), "%"),
            _ => (Scale::new((0.0, 1.0), (0.0, 1.0)), ""),
        }
    }

    /// Whether a channel can be an output, and an input.
    pub fn directions(self) -> (bool, bool) {
        match self {
            Chip::Mcp4922 | Chip::Pwm => (true, false),
            Chip::Pcf8574 => (true, true),
            _ => (false, true),
        }
    }

    /// The most a channel of it can be set to.
    pub fn most(self) -> u16 {
        match self {
            Chip::Mcp4922 => 4095,
            Chip::Pwm => PWM_STEPS,
            _ => 1,
        }
    }

    /// Measures one channel.
    pub fn read(self, wire: &mut dyn Wire, channel: usize) -> Result<Measured, SysError> {
        Ok(Measured::of(match self {
            Chip::Lm75 | Chip::Tmp75 => {
                let mut bytes = [0; 2];
                wire.exchange(&[0], &mut bytes)?;
                temperature(bytes, self == Chip::Tmp75).into()
            }
            Chip::Mcp3208 => {
                let mut bytes = [0; 3];
                wire.exchange(&question(channel), &mut bytes)?;
                answer(bytes).ok_or(NOT_THERE)?.into()
            }
            _ => {
                let mut byte = [0];
                wire.exchange(&[], &mut byte)?;
                i64::from(byte[0] >> channel & 1)
            }
        }))
    }

    /// Sets outputs: `codes` has one for each channel that is one; none: off. `period_ns` is a PWM's.
    pub fn write(
        self,
        wire: &mut dyn Wire,
        rows: &[(usize, Row)],
        codes: &[Option<u16>],
        period_ns: u64,
    ) -> Result<(), SysError> {
        let outputs = rows.iter().zip(codes).filter(|((_, row), _)| row.source.is_some());
        match self {
            Chip::Pcf8574 => {
                // What is an input, or nothing, is high: so weakly that whatever is there can pull it down.
                let byte = outputs.fold(0xff, |byte, ((channel, _), code)| match code {
                    Some(1..) => byte,
                    _ => byte & !(1 << channel),
                });
                wire.exchange(&[byte], &mut [])
            }
            Chip::Mcp4922 => outputs.into_iter().try_for_each(|((channel, row), code)| {
                wire.exchange(&frame(*channel, *code, row.has_gain, row.is_buffered), &mut [0; 2])
            }),
            _ => outputs.into_iter().try_for_each(|(_, code)| {
                let part = period_ns * u64::from(code.unwrap_or(0)) / u64::from(PWM_STEPS);
                wire.exchange(&part.to_be_bytes(), &mut [])
            }),
        }
    }
}

/// 256ths of a degree. The bits that are less than half of one are nobody's where it has 9.
fn temperature(bytes: [u8; 2], is_fine: bool) -> i16 {
    i16::from_be_bytes(bytes) & if is_fine { !0xf } else { !0x7f }
}

/// Start, single-ended, channel; then clocks for the answer.
fn question(channel: usize) -> [u8; 3] {
    let channel = channel as u8 & 7;
    [0b110 | channel >> 2, channel << 6, 0]
}

/// 12 bits behind a zero; none: where it has to be is none.
fn answer(bytes: [u8; 3]) -> Option<u16> {
    (bytes[1] & 0x10 == 0).then_some(u16::from_be_bytes([bytes[1] & 0xf, bytes[2]]))
}

/// Channel, buffered reference, gain (low is two), not shut down, 12 bits.
fn frame(channel: usize, code: Option<u16>, has_gain: bool, is_buffered: bool) -> [u8; 2] {
    let bits = |is: bool, bit: u16| u16::from(is) << bit;
    let head =
        bits(channel == 1, 15) | bits(is_buffered, 14) | bits(!has_gain, 13) | bits(code.is_some(), 12);
    (head | code.unwrap_or(0).min(4095)).to_be_bytes()
}

/// What is in a file: a number with up to three decimals.
pub fn number(text: &str) -> Option<Measured> {
    let milli = crate::config::thousandths(text.trim())?;
    Some(Measured { raw: milli / 1000, number: milli as f64 / 1000.0 })
}

/// What the firmware says of itself (`50005`, hexadecimal): of a channel of [`Chip::Cpu`], 1 if it is so now; and as it was
/// measured, 2 besides if it has been so since it was started.
pub fn flag(text: &str, channel: usize) -> Option<Measured> {
    let bits = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()?;
    let bit = channel.checked_sub(1)?;
    let (now, before) = (bits >> bit & 1, bits >> (bit + 16) & 1);
    Some(Measured { raw: (now | before << 1).into(), number: now.into() })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Chips as their datasheets have them. Each is asked as it would be on its wires, and knows nothing of who asks.
    pub enum Simulated {
        /// Register 0, as it comes: the high byte first.
        Lm75([u8; 2]),
        /// Channels; and whether it is there.
        Mcp3208([u16; 8], bool),
        /// A and B: what it has taken, as volts of a reference of 1 in 4096ths; none: shut down.
        Mcp4922([Option<u16>; 2]),
        /// What it holds, and who pulls lines down from outside (a 0).
        Pcf8574(u8, u8),
        Pwm(u64),
    }

    impl Wire for Simulated {
        fn exchange(&mut self, send: &[u8], receive: &mut [u8]) -> Result<(), SysError> {
            match self {
                Simulated::Lm75(register) => {
                    assert_eq!(send, [0], "the pointer of the temperature");
                    receive.copy_from_slice(register);
                }
                Simulated::Mcp3208(channels, is_there) => {
                    receive.copy_from_slice(&adc(channels, *is_there, send))
                }
                Simulated::Mcp4922(outputs) => {
                    let word = u16::from_be_bytes(send.try_into().unwrap());
                    let gain = if word & 0x2000 == 0 { 2 } else { 1 };
                    let code = (word & 0x1000 != 0).then_some((word & 0xfff) * gain);
                    outputs[usize::from(word >> 15)] = code;
                    assert_eq!(receive.len(), 2);
                }
                Simulated::Pcf8574(held, outside) => match (send, receive) {
                    ([byte], []) => *held = *byte,
                    ([], [byte]) => *byte = *held & *outside,
                    _ => panic!("it has no registers"),
                },
                Simulated::Pwm(nanos) => *nanos = u64::from_be_bytes(send.try_into().unwrap()),
            }
            Ok(())
        }
    }

    /// An MCP3208, bit by bit (its figure 5-1): after the start bit come single or differential and three of the channel, then
    /// a clock to sample in, a zero, and 12 bits, the highest first.
    fn adc(channels: &[u16; 8], is_there: bool, send: &[u8]) -> [u8; 3] {
        assert_eq!(send.len(), 3);
        let bit = |at: usize| send[at / 8] >> (7 - at % 8) & 1;
        let start = (0..24).find(|at| bit(*at) == 1).expect("a start bit");
        assert_eq!(bit(start + 1), 1, "single-ended");
        let channel = (2..5).fold(0, |number, at| number << 1 | usize::from(bit(start + at)));
        let mut out = [0xff; 3];
        if is_there {
            let mut set = |at: usize, high: bool| {
                let mask = 1 << (7 - at % 8);
                out[at / 8] = if high { out[at / 8] | mask } else { out[at / 8] & !mask };
            };
            set(start + 6, false);
            (0..12).for_each(|at| set(start + 7 + at, channels[channel] >> (11 - at) & 1 == 1));
        }
        out
    }

    fn rows(chip: Chip, texts: &[(usize, &str)]) -> Vec<(usize, Row)> {
        let read = |(channel, text): &(usize, &'static str)| {
            let (scale, unit) = chip.scale(*channel);
            (*channel, Row::read(text, scale, unit).unwrap())
        };
        let texts: Vec<(usize, &'static str)> =
            texts.iter().map(|(channel, text)| (*channel, &*text.to_string().leak())).collect();
        texts.iter().map(read).collect()
    }

    fn milli(chip: Chip, wire: &mut Simulated) -> Option<i64> {
        let (_, row) = rows(chip, &[(0, chip.default_rows()[0])]).remove(0);
        row.value(chip.read(wire, 0).unwrap().number)
    }

    #[test]
    fn an_lm75_says_its_datasheets_temperatures() {
        for (register, expected) in [
            (0x7d00, 125_000),
            (0x1900, 25_000),
            (0x0080, 500),
            (0x0000, 0),
            (0xff80, -500),
            (0xe700, -25_000),
            (0xc900, -55_000),
            // Bits that it does not have.
            (0x197f, 25_000),
        ] {
            let mut wire = Simulated::Lm75(u16::to_be_bytes(register));
            assert_eq!(milli(Chip::Lm75, &mut wire), Some(expected), "{register:#x}");
        }
    }

    #[test]
    fn a_tmp75_says_its_datasheets_temperatures() {
        for (register, expected) in [
            (0x7ff0, 127_938),
            (0x6400, 100_000),
            (0x5000, 80_000),
            (0x4b00, 75_000),
            (0x1900, 25_000),
            (0x0040, 250),
            (0x0000, 0),
            (0xffc0, -250),
            (0xe700, -25_000),
            (0xc900, -55_000),
        ] {
            let mut wire = Simulated::Lm75(u16::to_be_bytes(register));
            assert_eq!(milli(Chip::Tmp75, &mut wire), Some(expected), "{register:#x}");
        }
    }

    #[test]
    fn an_mcp3208_is_asked_for_each_channel_and_one_that_is_not_there_is_no_value() {
        // Table 5-1 and figure 6-1 of its datasheet: 0 0 0 0 0 start single D2, D1 D0 x x x x x x.
        assert_eq!(question(0), [0b110, 0, 0]);
        assert_eq!(question(5), [0b111, 0b0100_0000, 0]);
        assert_eq!(question(7), [0b111, 0b1100_0000, 0]);
        let channels = [0, 1, 4095, 2048, 0xa5a, 0x5a5, 17, 4094];
        let mut wire = Simulated::Mcp3208(channels, true);
        for (channel, expected) in channels.iter().enumerate() {
            let measured = Chip::Mcp3208.read(&mut wire, channel).unwrap();
            assert_eq!((measured.raw, measured.number), ((*expected).into(), f64::from(*expected)));
        }
        let mut wire = Simulated::Mcp3208(channels, false);
        assert_eq!(Chip::Mcp3208.read(&mut wire, 3), Err(NOT_THERE));
    }

    #[test]
    fn an_mcp4922_takes_the_originals_frames() {
        let word = |channel, code, gain, buffered| u16::from_be_bytes(frame(channel, code, gain, buffered));
        assert_eq!((word(0, Some(0), false, false), word(1, Some(0), false, false)), (0x3000, 0xb000));
        assert_eq!((word(0, Some(0), true, false), word(1, Some(0), true, false)), (0x1000, 0x9000));
        assert_eq!((word(0, Some(0), false, true), word(1, Some(0), false, true)), (0x7000, 0xf000));
        assert_eq!((word(0, None, false, false), word(1, None, false, false)), (0x2000, 0xa000));
        assert_eq!(word(1, Some(0xabc), false, false), 0xbabc);
        let mut wire = Simulated::Mcp4922([None; 2]);
        let both = rows(Chip::Mcp4922, &[(0, "a from=x safe=0"), (1, "b from=y safe=off gain=2")]);
        let codes = |milli| Some(both[0].1.code(milli, Chip::Mcp4922.most()));
        Chip::Mcp4922.write(&mut wire, &both, &[codes(10_000), codes(2500)], 0).unwrap();
        assert!(matches!(wire, Simulated::Mcp4922([Some(4095), Some(2048)])));
        Chip::Mcp4922.write(&mut wire, &both, &[codes(0), None], 0).unwrap();
        assert!(matches!(wire, Simulated::Mcp4922([Some(0), None])));
    }

    #[test]
    fn a_pcf8574_reads_its_inputs_past_its_outputs() {
        let mut wire = Simulated::Pcf8574(0, 0b1111_0110);
        let lines = rows(
            Chip::Pcf8574,
            &[(0, "door"), (1, "lamp from=x safe=0"), (2, "pump from=x safe=0"), (3, "float")],
        );
        Chip::Pcf8574.write(&mut wire, &lines, &[None, Some(0), Some(1), None], 0).unwrap();
        assert!(matches!(wire, Simulated::Pcf8574(0b1111_1101, _)));
        let levels = [0, 1, 2, 3, 4].map(|line| Chip::Pcf8574.read(&mut wire, line).unwrap().raw);
        assert_eq!(levels, [0, 0, 1, 0, 1]);
    }

    #[test]
    fn a_pwm_is_on_for_its_part_of_the_period() {
        let mut wire = Simulated::Pwm(1);
        let fan = rows(Chip::Pwm, &[(0, "fan from=x safe=100")]);
        for (milli, nanos) in
            [(0, 0), (100_000, 40_000), (50_000, 20_000), (33_330, 13_332), (120_000, 40_000)]
        {
            let code = fan[0].1.code(milli, Chip::Pwm.most());
            Chip::Pwm.write(&mut wire, &fan, &[Some(code)], 40_000).unwrap();
            assert!(matches!(wire, Simulated::Pwm(is) if is == nanos), "{milli}");
        }
    }

    #[test]
    fn the_firmwares_flags_are_what_is_now_and_what_was() {
        // Under-voltage and throttled now; both, and nothing else, since it was started.
        let levels = [1, 2, 3, 4].map(|channel| flag("50005\n", channel).unwrap());
        assert_eq!(levels.map(|level| level.number), [1.0, 0.0, 1.0, 0.0]);
        assert_eq!(levels.map(|level| level.raw), [3, 0, 3, 0]);
        assert_eq!(flag("0x80000", 4), Some(Measured { raw: 2, number: 0.0 }));
        assert_eq!((flag("0", 1), flag("", 1), flag("x", 1)), (Some(Measured::of(0)), None, None));
        assert_eq!(number("-23437\n").unwrap(), Measured::of(-23437));
        assert_eq!(number(" 12.5 ").unwrap(), Measured { raw: 12, number: 12.5 });
        assert_eq!(number("t=23437"), None);
    }
}

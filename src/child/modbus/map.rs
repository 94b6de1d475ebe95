//! What stands at which address. Pure: inputs, outputs and values are an [`Io`]'s, which says what they are and switches them.

use super::keys::SETPOINT_COUNT_MAX;
use super::pdu::{Exception, Tables};
use crate::limits::OUTPUT_COUNT_MAX;

/// What the machine has, by the numbers the map gives it.
pub trait Io {
    /// Whether an input is on; none: it is not read now.
    fn input(&mut self, index: usize) -> Option<bool>;
    /// How often an input has become on or off.
    fn edges(&mut self, index: usize) -> u32;
    /// Whether an output is on; none: that is not known.
    fn output(&mut self, index: usize) -> Option<bool>;
    /// Switches an output; false: it could not be.
    fn switch(&mut self, index: usize, on: bool) -> bool;
    /// A value, in thousandths of its unit; none: it is not known.
    fn value(&mut self, index: usize) -> Option<i64>;
    /// A program's state by its number, and how often it was started again; none: there is no such program.
    fn program(&mut self, index: usize) -> Option<(u8, u32)>;
    /// A value that can be written, as it was written; none: it was not, or is not any more.
    fn setpoint(&mut self, index: usize) -> Option<i32>;
    /// Writes those from this one on; false: nobody takes them now.
    fn set(&mut self, first: usize, to: &[i32]) -> bool;
}

/// Things of one kind, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The address of the first.
    pub start: u16,
    /// How many there are.
    pub count: u16,
    /// Addresses that each has.
    pub width: u16,
}

impl Range {
    fn end(&self) -> u32 {
        u32::from(self.start) + u32::from(self.count) * u32::from(self.width)
    }

    /// Which of them stands at an address, and which of its parts.
    fn at(&self, address: u16) -> Option<(usize, u16)> {
        let offset = address.checked_sub(self.start).filter(|_| u32::from(address) < self.end())?;
        Some((usize::from(offset / self.width), offset % self.width))
    }

    /// They have an address in common, or one that there is not.
    pub fn collides(&self, other: &Range) -> bool {
        self.count > 0
            && other.count > 0
            && u32::from(self.start) < other.end()
            && u32::from(other.start) < self.end()
    }

    /// All of it is at addresses that there are.
    pub fn fits(&self) -> bool {
        self.end() <= 0x1_0000
    }
}

/// The map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// Inputs: discrete inputs, and registers that are 1 while they are on.
    pub inputs: Range,
    /// Outputs: coils.
    pub coils: Range,
    /// Outputs: registers that are 1 while they are on.
    pub outputs: Range,
    /// Edges of inputs: two registers each, the high word first.
    pub counters: Range,
    /// Values: thousandths with a sign, two registers each, the high word first; 0x80000000 is not known.
    pub values: Range,
    /// Programs: state, and how often they were started again.
    pub programs: Range,
    /// Values that can be written, as values.
    pub setpoints: Range,
    /// Nothing may be written.
    pub is_read_only: bool,
    /// Vendor, product, version, and so on (see `Tables::object`).
    pub name: String,
}

/// What stands for the state of a program that there is not.
const NO_PROGRAM: u16 = u16::MAX;
/// What stands for a value that is not known.
const UNKNOWN: i32 = i32::MIN;

/// The map with what it is a map of.
pub struct Mapped<'a> {
    /// Where.
    pub map: &'a Map,
    /// What.
    pub io: &'a mut dyn Io,
}

impl Mapped<'_> {
    /// Switches outputs from this one on: all of them, or none where one cannot be.
    fn switch(
        &mut self,
        first: usize,
        levels: &mut dyn ExactSizeIterator<Item = bool>,
    ) -> Result<(), Exception> {
        let mut before = heapless::Vec::<Option<bool>, OUTPUT_COUNT_MAX>::new();
        for (index, on) in levels.enumerate() {
            let was = self.io.output(first + index);
            if before.push(was).is_ok() && self.io.switch(first + index, on) {
                continue;
            }
            for (index, was) in before.iter().enumerate() {
                if let Some(was) = was {
                    self.io.switch(first + index, *was);
                }
            }
            return Err(Exception::Device);
        }
        Ok(())
    }

    /// Writes values: whole ones, and all of them.
    fn set_values(
        &mut self,
        address: u16,
        words: &mut dyn ExactSizeIterator<Item = u16>,
    ) -> Result<(), Exception> {
        let first = self.outputs_at(self.map.setpoints, address, words.len() / 2)?;
        if self.map.setpoints.at(address).is_none_or(|(_, part)| part != 0) || !words.len().is_multiple_of(2)
        {
            return Err(Exception::Address);
        }
        let mut values = heapless::Vec::<i32, SETPOINT_COUNT_MAX>::new();
        while let (Some(high), Some(low)) = (words.next(), words.next()) {
            let value = (u32::from(high) << 16 | u32::from(low)) as i32;
            values.push(value).map_err(|_| Exception::Address)?;
        }
        if self.io.set(first, &values) { Ok(()) } else { Err(Exception::Device) }
    }

    /// The first of so many that stand from this address on.
    fn outputs_at(&self, range: Range, address: u16, count: usize) -> Result<usize, Exception> {
        if self.map.is_read_only {
            return Err(Exception::Address);
        }
        let (first, _) = range.at(address).ok_or(Exception::Address)?;
        if first + count <= usize::from(range.count) { Ok(first) } else { Err(Exception::Address) }
    }
}

/// The high word or the low one.
fn half(number: u32, part: u16) -> u16 {
    if part == 0 { (number >> 16) as u16 } else { number as u16 }
}

impl Tables for Mapped<'_> {
    fn bit(&mut self, is_coil: bool, address: u16) -> Result<bool, Exception> {
        let found = match is_coil {
            true => self.map.coils.at(address).map(|(index, _)| self.io.output(index)),
            false => self.map.inputs.at(address).map(|(index, _)| self.io.input(index)),
        };
        found.ok_or(Exception::Address)?.ok_or(Exception::Device)
    }

    /// Holding and input registers are the same ones, as the original's were.
    fn word(&mut self, _is_holding: bool, address: u16) -> Result<u16, Exception> {
        let level = |level: Option<bool>| level.map(u16::from).ok_or(Exception::Device);
        if let Some((index, _)) = self.map.inputs.at(address) {
            return level(self.io.input(index));
        }
        if let Some((index, _)) = self.map.outputs.at(address) {
            return level(self.io.output(index));
        }
        if let Some((index, part)) = self.map.counters.at(address) {
            return Ok(half(self.io.edges(index), part));
        }
        if let Some((index, part)) = self.map.programs.at(address) {
            let program = self.io.program(index);
            return Ok(match part {
                0 => program.map_or(NO_PROGRAM, |(state, _)| state.into()),
                _ => program.map_or(0, |(_, restarts)| restarts.try_into().unwrap_or(u16::MAX)),
            });
        }
        if let Some((index, part)) = self.map.setpoints.at(address) {
            return Ok(half(self.io.setpoint(index).unwrap_or(UNKNOWN) as u32, part));
        }
        let (index, part) = self.map.values.at(address).ok_or(Exception::Address)?;
        let value = self.io.value(index).and_then(|milli| i32::try_from(milli).ok()).unwrap_or(UNKNOWN);
        Ok(half(value as u32, part))
    }

    fn set_bits(
        &mut self,
        address: u16,
        bits: &mut dyn ExactSizeIterator<Item = bool>,
    ) -> Result<(), Exception> {
        let first = self.outputs_at(self.map.coils, address, bits.len())?;
        self.switch(first, bits)
    }

    fn set_words(
        &mut self,
        address: u16,
        words: &mut dyn ExactSizeIterator<Item = u16>,
    ) -> Result<(), Exception> {
        if self.map.setpoints.at(address).is_some() {
            return self.set_values(address, words);
        }
        let first = self.outputs_at(self.map.outputs, address, words.len())?;
        let mut levels = heapless::Vec::<bool, OUTPUT_COUNT_MAX>::new();
        for word in words {
            if word > 1 {
                return Err(Exception::Value);
            }
            levels.push(word == 1).map_err(|_| Exception::Address)?;
        }
        self.switch(first, &mut levels.iter().copied())
    }

    fn object(&self, number: u8) -> Option<&str> {
        match number {
            0 => Some("multusd"),
            1 => Some("multusd modbus"),
            2 => Some(env!("CARGO_PKG_VERSION")),
            // What whoever set it up calls the machine.
            5 => Some(&self.map.name).filter(|name| !name.is_empty()).map(String::as_str),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pdu::answer;
    use super::*;

    /// Two inputs (the second is not read), three outputs of which the last cannot be switched, one value.
    #[derive(Default)]
    struct Toy {
        outputs: [bool; 3],
        switched: Vec<(usize, bool)>,
        set: Vec<i32>,
    }

    impl Io for Toy {
        fn input(&mut self, index: usize) -> Option<bool> {
            [Some(true), None][index]
        }
        fn edges(&mut self, index: usize) -> u32 {
            [0x0001_0002, 3][index]
        }
        fn output(&mut self, index: usize) -> Option<bool> {
            Some(self.outputs[index])
        }
        fn switch(&mut self, index: usize, on: bool) -> bool {
            if index == 2 {
                return false;
            }
            self.switched.push((index, on));
            self.outputs[index] = on;
            true
        }
        fn value(&mut self, index: usize) -> Option<i64> {
            [Some(-23_500), None][index]
        }
        fn program(&mut self, index: usize) -> Option<(u8, u32)> {
            [Some((2, 70_000)), None][index]
        }
        fn setpoint(&mut self, index: usize) -> Option<i32> {
            self.set.get(index).copied()
        }
        fn set(&mut self, first: usize, to: &[i32]) -> bool {
            self.set.truncate(first);
            self.set.extend(to);
            true
        }
    }

    fn map() -> Map {
        let range = |start, count, width| Range { start, count, width };
        Map {
            inputs: range(0, 2, 1),
            coils: range(0, 3, 1),
            outputs: range(10, 3, 1),
            counters: range(100, 2, 2),
            values: range(200, 2, 2),
            programs: range(400, 2, 2),
            setpoints: range(600, 2, 2),
            is_read_only: false,
            name: "pump-7".into(),
        }
    }

    fn asked(toy: &mut Toy, map: &Map, request: &[u8]) -> Vec<u8> {
        answer(&[&[1], request].concat(), &mut Mapped { map, io: toy })[1..].to_vec()
    }

    #[test]
    fn everything_stands_where_the_map_says_and_nowhere_else() {
        let (mut toy, map) = (Toy::default(), map());
        let mut read = |function, address: u16, count: u16| {
            let [high, low] = address.to_be_bytes();
            asked(&mut toy, &map, &[function, high, low, 0, count as u8])
        };
        assert_eq!(read(2, 0, 1), [2, 1, 1]);
        assert_eq!(read(3, 0, 1), [3, 2, 0, 1]);
        assert_eq!(read(4, 0, 1), [4, 2, 0, 1]);
        assert_eq!(read(2, 1, 1), [0x82, 4], "an input that is not read is no level");
        assert_eq!(read(2, 2, 1), [0x82, 2]);
        assert_eq!(read(1, 0, 3), [1, 1, 0]);
        assert_eq!(read(3, 10, 3), [3, 6, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read(4, 100, 4), [4, 8, 0, 1, 0, 2, 0, 0, 0, 3]);
        let minus = (-23_500_i32).to_be_bytes();
        assert_eq!(read(4, 200, 4), [&[4, 8][..], &minus, &[0x80, 0, 0, 0]].concat());
        assert_eq!(
            read(4, 400, 4),
            [4, 8, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0],
            "more restarts than there are numbers"
        );
        assert_eq!(read(3, 600, 2), [3, 4, 0x80, 0, 0, 0], "nobody has written it");
        for address in [2, 9, 13, 99, 104, 199, 204, 399, 404, 599, 604, 65535] {
            assert_eq!(read(3, address, 1), [0x83, 2], "{address}");
        }
        assert_eq!(
            asked(&mut toy, &map, &[43, 14, 4, 5]),
            [&[43, 14, 4, 0x83, 0, 0, 1, 5, 6][..], b"pump-7"].concat()
        );
    }

    #[test]
    fn several_outputs_are_switched_as_a_whole_or_not_at_all() {
        let (mut toy, map) = (Toy::default(), map());
        assert_eq!(asked(&mut toy, &map, &[15, 0, 0, 0, 2, 1, 3]), [15, 0, 0, 0, 2]);
        assert_eq!(toy.outputs, [true, true, false]);
        // The third cannot be switched: the others are as before.
        assert_eq!(asked(&mut toy, &map, &[15, 0, 0, 0, 3, 1, 4]), [0x8f, 4]);
        assert_eq!(toy.outputs, [true, true, false]);
        assert_eq!(asked(&mut toy, &map, &[16, 0, 10, 0, 2, 4, 0, 0, 0, 2]), [0x90, 3], "2 is no level");
        assert_eq!(toy.outputs, [true, true, false]);
        assert_eq!(asked(&mut toy, &map, &[16, 0, 10, 0, 2, 4, 0, 0, 0, 1]), [16, 0, 10, 0, 2]);
        assert_eq!(toy.outputs, [false, true, false]);
        assert_eq!(asked(&mut toy, &map, &[15, 0, 2, 0, 2, 1, 3]), [0x8f, 2], "one more than there is");
        assert_eq!(asked(&mut toy, &map, &[6, 0, 0, 0, 1]), [0x86, 2], "an input");
        let read_only = Map { is_read_only: true, ..map };
        toy.switched.clear();
        for request in
            [&[5, 0, 0, 0xff, 0][..], &[6, 0, 10, 0, 1], &[15, 0, 0, 0, 1, 1, 1], &[16, 0, 10, 0, 1, 2, 0, 1]]
        {
            assert_eq!(asked(&mut toy, &read_only, request), [request[0] | 0x80, 2]);
        }
        assert_eq!(toy.switched, []);
    }

    #[test]
    fn values_are_written_whole_and_all_of_them() {
        let (mut toy, map) = (Toy::default(), map());
        let minus = (-23_500_i32).to_be_bytes();
        let both = [&[16, 2, 88, 0, 4, 8][..], &minus, &[0, 0, 0, 7]].concat();
        assert_eq!(asked(&mut toy, &map, &both), [16, 2, 88, 0, 4]);
        assert_eq!(toy.set, [-23_500, 7]);
        assert_eq!(asked(&mut toy, &map, &[3, 2, 88, 0, 2]), [&[3, 4][..], &minus].concat());
        for half in [
            &[6, 2, 88, 0, 1][..],
            &[16, 2, 88, 0, 1, 2, 0, 1],
            &[16, 2, 89, 0, 2, 4, 0, 1, 0, 1],
            &[16, 2, 90, 0, 4, 8, 0, 1, 0, 1, 0, 1, 0, 1],
            &[22, 2, 88, 0, 0, 0, 1],
        ] {
            assert_eq!(asked(&mut toy, &map, half), [half[0] | 0x80, 2], "{half:?}");
        }
        let read_only = Map { is_read_only: true, ..map };
        assert_eq!(asked(&mut toy, &read_only, &both), [0x90, 2]);
        assert_eq!(toy.set, [-23_500, 7]);
    }

    #[test]
    fn ranges_know_where_they_end_and_whether_they_meet() {
        let range = |start, count, width| Range { start, count, width };
        assert!(range(65534, 1, 2).fits() && !range(65535, 1, 2).fits());
        assert!(range(0, 4, 2).collides(&range(7, 1, 1)) && !range(0, 4, 2).collides(&range(8, 1, 1)));
        assert!(!range(0, 0, 2).collides(&range(0, 1, 1)));
    }
}

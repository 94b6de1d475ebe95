//! The Modbus server's frames and requests: no bytes make it panic, an answer is one that the specification has, and only a
//! whole request of a function that writes writes. The first byte says how the rest comes in: at once or in pieces, by TCP,
//! serially, or as one request.
#![no_main]

use embedded_io::{ErrorKind, ErrorType, Read, Write};
use libfuzzer_sys::fuzz_target;
use multusd::child::modbus::frame::{RtuFrames, TcpFrames};
use multusd::child::modbus::map::{Io, Map, Mapped, Range};
use multusd::child::modbus::pdu::{self, ANSWER_BYTES_MAX};

/// Gives bytes some at a time.
struct Port<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl ErrorType for Port<'_> {
    type Error = ErrorKind;
}

impl Read for Port<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let count = self.rest.len().min(buffer.len()).min(self.piece);
        let (now, rest) = self.rest.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.rest = rest;
        Ok(count)
    }
}

impl Write for Port<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

/// Four outputs, of which the last cannot be switched, and two values.
#[derive(Default)]
struct Machine {
    outputs: [bool; 4],
    values: [Option<i32>; 2],
    written: bool,
}

impl Io for Machine {
    fn input(&mut self, index: usize) -> Option<bool> {
        [Some(true), None][index]
    }
    fn edges(&mut self, index: usize) -> u32 {
        [u32::MAX, 3][index]
    }
    fn output(&mut self, index: usize) -> Option<bool> {
        Some(self.outputs[index])
    }
    fn switch(&mut self, index: usize, on: bool) -> bool {
        self.written = true;
        self.outputs[index] = on;
        index != 3
    }
    fn value(&mut self, index: usize) -> Option<i64> {
        [Some(i64::MAX), None][index]
    }
    fn program(&mut self, index: usize) -> Option<(u8, u32)> {
        [Some((2, u32::MAX)), None][index]
    }
    fn setpoint(&mut self, index: usize) -> Option<i32> {
        self.values[index]
    }
    fn set(&mut self, first: usize, to: &[i32]) -> bool {
        self.written = true;
        for (value, to) in self.values[first..].iter_mut().zip(to) {
            *value = Some(*to);
        }
        assert!(first + to.len() <= 2);
        true
    }
}

fn map(is_read_only: bool) -> Map {
    let range = |start, count, width| Range { start, count, width };
    Map {
        inputs: range(0, 2, 1),
        coils: range(0, 4, 1),
        outputs: range(10, 4, 1),
        counters: range(100, 2, 2),
        values: range(200, 2, 2),
        programs: range(400, 2, 2),
        setpoints: range(65532, 2, 2),
        is_read_only,
        name: "pump-7".into(),
    }
}

fn answered(request: &[u8], machine: &mut Machine, map: &Map) -> pdu::Answer {
    machine.written = false;
    let answer = pdu::answer(request, &mut Mapped { map, io: machine });
    assert!((3..=ANSWER_BYTES_MAX).contains(&answer.len()));
    assert_eq!(answer[0], request[0]);
    assert_eq!(answer[1] & 0x7f, request[1] & 0x7f, "another function's answer");
    match answer[1] & 0x80 {
        0 => assert!(pdu::length(request) == Some(request.len()), "answered what is not whole"),
        _ => assert!(answer.len() == 3 && (1..=4).contains(&answer[2])),
    }
    let may_write = matches!(request[1], 5 | 6 | 15 | 16 | 22 | 23) && !map.is_read_only;
    assert!(!machine.written || may_write && pdu::length(request) == Some(request.len()));
    answer
}

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else { return };
    let (mut machine, map) = (Machine::default(), map(how & 0x80 != 0));
    let mut port = Port { rest, piece: 1 + usize::from(how >> 2 & 0x1f) * 9 };
    let mut answering = |request: &[u8]| Some(answered(request, &mut machine, &map));
    match how & 3 {
        0 => {
            let mut frames = TcpFrames::default();
            while !port.rest.is_empty() || frames.has_more() {
                if !matches!(frames.turn(&mut port, &mut answering), Ok(true)) {
                    break;
                }
            }
        }
        1 => {
            let mut frames = RtuFrames::default();
            while !port.rest.is_empty() {
                let had = port.rest.len();
                let goes_on = frames.turn(&mut port, &mut answering);
                // A line falls silent where nothing more fits, and now and then.
                if had == port.rest.len() || had % 3 == 0 {
                    let _ = frames.fall_silent(&mut port, &mut answering);
                }
                if goes_on.is_err() {
                    break;
                }
            }
        }
        _ if (2..=pdu::REQUEST_BYTES_MAX).contains(&rest.len()) => drop(answering(rest)),
        _ => {}
    }
});

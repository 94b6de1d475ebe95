//! A machine that speaks nothing but Modbus over TCP: its coils are written, or its inputs read, one request at a time. `Talk` says
//! what is to be done next; reads no clock, knows no connection. `Client` does it.

use rmodbus::client::ModbusRequest;

use crate::sys::SysError;
use crate::sys::net::{self, Stream};
use crate::time::{Instant, Millis};

use super::super::life::Life;
use super::packet::Level;
use super::section::Remote;

/// Bytes of the largest answer: 2000 bits, and a header.
const ANSWER_BYTES_MAX: usize = 260;
const HEADER_BYTES: usize = 6;
/// Who does not answer is tried again after a repeat, then after twice as long, and so on up to this.
const BACKOFF_MAX: Millis = Millis(10_000);

type Frame = heapless::Vec<u8, ANSWER_BYTES_MAX>;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Begin a connection.
    Connect,
    /// End it.
    Close,
    /// Say what there is to say.
    Ask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Connecting,
    Idle,
    Asked,
}

/// How far it is with one machine.
pub struct Talk {
    timeout: Millis,
    repeat: Millis,
    state: State,
    /// When that began, or of what is closed when it is tried again.
    at: Instant,
    /// When to ask next.
    due: Instant,
    backoff: Millis,
    live_until: Instant,
}

impl Talk {
    fn new(timeout: Millis, repeat: Millis, now: Instant) -> Talk {
        Talk {
            timeout,
            repeat,
            state: State::Closed,
            at: now,
            due: now,
            backoff: repeat,
            live_until: Instant(0),
        }
    }

    /// When to look again.
    fn next(&self) -> Instant {
        match self.state {
            State::Closed => self.at,
            State::Idle => self.due,
            State::Connecting | State::Asked => self.at + self.timeout,
        }
    }

    fn step(&mut self, now: Instant) -> Option<Order> {
        if !self.next().is_due(now) {
            return None;
        }
        Some(match self.state {
            State::Closed => {
                (self.state, self.at) = (State::Connecting, now);
                Order::Connect
            }
            State::Idle => {
                (self.state, self.at, self.due) = (State::Asked, now, now + self.repeat);
                Order::Ask
            }
            State::Connecting | State::Asked => {
                self.fail(now);
                Order::Close
            }
        })
    }

    fn is_connected(&mut self, now: Instant) {
        (self.state, self.at, self.due) = (State::Idle, now, now);
    }

    /// It broke, or what came made no sense.
    fn fail(&mut self, now: Instant) {
        (self.state, self.at) = (State::Closed, now + self.backoff);
        self.backoff = Millis(2 * self.backoff.0).min(BACKOFF_MAX).max(self.repeat);
    }

    /// It answered; whether with what was asked for. That is believed from when it was asked.
    fn answer(&mut self, right: bool) {
        if right {
            self.live_until = self.at + self.timeout;
            self.backoff = self.repeat;
        }
        self.state = State::Idle;
    }

    /// Something has changed: that is said as soon as the last answer is there.
    fn change(&mut self, now: Instant) {
        self.due = now;
    }
}

/// What a request is answered with.
#[derive(Debug, PartialEq, Eq)]
enum Answer<'a> {
    /// Not all of it is there.
    Part,
    /// Bits, eight in a byte; none, where some were written.
    Right(&'a [u8]),
    /// It does not do that.
    Refused,
    /// This is no answer to that.
    Wrong,
}

/// Judges it before anybody believes its lengths.
fn understand<'a>(asked: &[u8], bytes: &'a [u8]) -> Answer<'a> {
    let Some(header) = bytes.get(..HEADER_BYTES) else { return Answer::Part };
    let length = HEADER_BYTES + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if !(HEADER_BYTES + 3..=ANSWER_BYTES_MAX).contains(&length) {
        return Answer::Wrong;
    }
    match bytes.len() {
        have if have < length => return Answer::Part,
        have if have > length => return Answer::Wrong,
        _ => {}
    }
    let (function, count) = (asked[7], usize::from(u16::from_be_bytes([asked[10], asked[11]])));
    let is_header = bytes[..4] == asked[..4] && bytes[6] == asked[6];
    if is_header && bytes[7] == function | 0x80 {
        return Answer::Refused;
    }
    // Reading: bytes that follow; writing: first and number, as they were asked.
    let is_right = match function {
        1 | 2 => usize::from(bytes[8]) == count.div_ceil(8) && length == 9 + count.div_ceil(8),
        _ => bytes[8..] == asked[8..12],
    };
    match is_header && is_right && bytes[7] == function {
        true => Answer::Right(if function > 2 { &[] } else { &bytes[9..] }),
        false => Answer::Wrong,
    }
}

/// One machine.
pub struct Client {
    remote: Remote,
    /// So many inputs are read; 0: its coils are written.
    count: u16,
    talk: Talk,
    stream: Option<Stream>,
    request: ModbusRequest,
    asked: Frame,
    answer: Frame,
    /// It was told so.
    pub was_live: bool,
}

impl Client {
    /// Reads `count` bits of it, or (0) writes its coils.
    pub fn new(remote: &Remote, count: u16, timeout: Millis, repeat: Millis, now: Instant) -> Client {
        Client {
            request: ModbusRequest::new_tcp_udp(remote.unit, 0),
            remote: remote.clone(),
            count,
            talk: Talk::new(timeout, repeat, now),
            stream: None,
            asked: Frame::new(),
            answer: Frame::new(),
            was_live: false,
        }
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.remote.name
    }

    /// When to look again.
    pub fn next(&self) -> Instant {
        if self.was_live { self.talk.next().min(self.talk.live_until) } else { self.talk.next() }
    }

    /// It has answered, and what it said is believed.
    pub fn is_live(&self, now: Instant) -> bool {
        now < self.talk.live_until
    }

    /// Something has changed.
    pub fn change(&mut self, now: Instant) {
        self.talk.change(now);
    }

    fn close(&mut self, life: &Life) {
        if let Some(stream) = self.stream.take() {
            use std::os::fd::AsFd;
            life.forget(stream.as_fd());
        }
        self.answer.clear();
    }

    /// Makes the request; what nobody knows is written as off.
    fn ask(&mut self, levels: &[Level]) -> Option<()> {
        self.request.tr_id = self.request.tr_id.wrapping_add(1);
        self.asked.clear();
        self.answer.clear();
        let (start, request, asked) = (self.remote.start, &mut self.request, &mut self.asked);
        let made = match (self.count, self.remote.coils) {
            (0, _) => {
                let bits: heapless::Vec<bool, { super::packet::STATE_COUNT_MAX }> =
                    levels.iter().map(|level| *level == Level::On).collect();
                request.generate_set_coils_bulk(start, &bits, asked)
            }
            (count, true) => request.generate_get_coils(start, count, asked),
            (count, false) => request.generate_get_discretes(start, count, asked),
        };
        made.ok()
    }

    /// Does what is due. `ready`: its connection was made, or has brought something. What was read is given to `heard`.
    pub fn turn(
        &mut self,
        life: &Life,
        (token, ready): (u64, bool),
        now: Instant,
        levels: &[Level],
        heard: &mut dyn FnMut(&[u8]) -> Result<(), SysError>,
    ) -> Result<(), SysError> {
        use embedded_io::{Read, Write};
        use std::os::fd::AsFd;
        if ready && let Some(stream) = &mut self.stream {
            if self.talk.state == State::Connecting {
                match net::connected(stream.as_fd()) {
                    true => self.talk.is_connected(now),
                    false => self.lose(life, now),
                }
            } else {
                // All there is: it is said once.
                let mut bytes = [0; ANSWER_BYTES_MAX];
                loop {
                    match stream.read(&mut bytes) {
                        Err(embedded_io::ErrorKind::Interrupted) => break,
                        Ok(count @ 1..) if self.answer.extend_from_slice(&bytes[..count]).is_ok() => {}
                        _ => {
                            self.lose(life, now);
                            break;
                        }
                    }
                }
                self.hear(life, now, heard)?;
            }
        }
        while let Some(order) = self.talk.step(now) {
            match order {
                Order::Connect => match net::connect(self.remote.address, self.remote.port) {
                    Ok(stream) => {
                        life.watch_edges(stream.as_fd(), token)?;
                        self.stream = Some(stream);
                    }
                    Err(_) => self.lose(life, now),
                },
                Order::Close => self.close(life),
                Order::Ask => {
                    let asked = self.ask(levels);
                    let (Some(stream), Some(())) = (&mut self.stream, asked) else { continue };
                    if stream.write_all(&self.asked).is_err() {
                        self.lose(life, now);
                    }
                }
            }
        }
        Ok(())
    }

    fn lose(&mut self, life: &Life, now: Instant) {
        self.close(life);
        self.talk.fail(now);
    }

    fn hear(
        &mut self,
        life: &Life,
        now: Instant,
        heard: &mut dyn FnMut(&[u8]) -> Result<(), SysError>,
    ) -> Result<(), SysError> {
        let answer = match (self.talk.state, self.answer.is_empty()) {
            (_, true) | (State::Closed, _) => return Ok(()),
            (State::Asked, _) => understand(&self.asked, &self.answer),
            // Nothing was asked.
            _ => Answer::Wrong,
        };
        match answer {
            Answer::Part => {}
            Answer::Refused => self.talk.answer(false),
            Answer::Wrong => self.lose(life, now),
            Answer::Right(bits) => {
                self.talk.answer(true);
                // One that was asked longer ago than it is believed says nothing any more.
                if now < self.talk.live_until {
                    heard(bits)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(0) + Millis(ms)
    }

    #[test]
    fn it_asks_at_once_then_every_repeat_and_sooner_when_something_changes() {
        let mut talk = Talk::new(Millis(3000), Millis(1000), at(0));
        assert_eq!(talk.step(at(0)), Some(Order::Connect));
        assert_eq!(talk.step(at(1)), None);
        talk.is_connected(at(5));
        assert_eq!(talk.step(at(5)), Some(Order::Ask));
        assert_eq!((talk.step(at(6)), talk.next()), (None, at(3005)));
        talk.answer(true);
        assert_eq!((talk.live_until, talk.next()), (at(3005), at(1005)), "believed from when it was asked");
        talk.change(at(200));
        assert_eq!(talk.step(at(200)), Some(Order::Ask));
        talk.change(at(201));
        assert_eq!(talk.step(at(202)), None, "one at a time");
        talk.answer(true);
        assert_eq!(talk.step(at(203)), Some(Order::Ask), "and then what changed meanwhile");
    }

    #[test]
    fn who_does_not_answer_is_tried_again_at_growing_intervals() {
        let mut talk = Talk::new(Millis(3000), Millis(1000), at(0));
        let mut tried = Vec::new();
        let mut now = at(0);
        while tried.len() < 7 {
            match talk.step(now) {
                Some(Order::Connect) => tried.push(now),
                Some(Order::Close) | None => now = talk.next(),
                Some(Order::Ask) => unreachable!(),
            }
        }
        let gaps: Vec<u64> = tried.windows(2).map(|pair| pair[1].since(pair[0]).0).collect();
        assert_eq!(
            gaps,
            [4000, 5000, 7000, 11_000, 13_000, 13_000],
            "three seconds to connect, and the pause"
        );
        // One that answers again is asked as often as ever.
        talk.is_connected(now);
        talk.step(now);
        talk.answer(true);
        talk.fail(now);
        assert_eq!(talk.next(), now + Millis(1000));
    }

    #[test]
    fn an_answer_is_believed_only_when_it_is_exactly_one_to_what_was_asked() {
        let mut request = ModbusRequest::new_tcp_udp(7, 0x1234);
        let mut asked = Frame::new();
        request.generate_get_discretes(100, 10, &mut asked).unwrap();
        let right = [0x12, 0x34, 0, 0, 0, 5, 7, 2, 2, 0b101, 0b10];
        assert_eq!(understand(&asked, &right), Answer::Right(&[0b101, 0b10]));
        for length in 0..right.len() {
            assert_eq!(understand(&asked, &right[..length]), Answer::Part, "{length}");
        }
        // Transaction, protocol, length, unit, function, number of bytes; the bits may be any.
        for at in 0..9 {
            for bit in 0..8 {
                let mut touched = right;
                touched[at] ^= 1 << bit;
                let answer = understand(&asked, &touched);
                assert!(!matches!(answer, Answer::Right(_)), "{at} {bit}");
            }
        }
        assert_eq!(understand(&asked, &[0x12, 0x34, 0, 0, 0, 3, 7, 0x82, 2]), Answer::Refused);
        assert_eq!(understand(&asked, &[&right[..], &[0]].concat()), Answer::Wrong);
        let mut asked = Frame::new();
        request.generate_set_coils_bulk(3, &[true, false, true], &mut asked).unwrap();
        assert_eq!(asked[..], [0x12, 0x34, 0, 0, 0, 8, 7, 15, 0, 3, 0, 3, 1, 0b101]);
        let right = [0x12, 0x34, 0, 0, 0, 6, 7, 15, 0, 3, 0, 3];
        assert_eq!(understand(&asked, &right), Answer::Right(&[]));
        assert_eq!(understand(&asked, &[0x12, 0x34, 0, 0, 0, 6, 7, 15, 0, 3, 0, 4]), Answer::Wrong);
        // Anything at all: it never panics.
        let mut random = 1_u64;
        for _ in 0..100_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bytes = random.to_be_bytes();
            let frame =
                [&[0x12, 0x34, 0, 0, 0, bytes[0] % 12, 7][..], &bytes[1..1 + usize::from(bytes[1] % 7)]]
                    .concat();
            understand(&asked, &frame);
        }
    }
}

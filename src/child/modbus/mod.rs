//! `[modbus]`: a Modbus server over TCP and a serial line, for inputs, outputs and values.

pub mod frame;
mod keys;
mod line;
pub mod map;
pub mod pdu;

use core::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::path::Path;

use crate::config::{Child, Settings, read_boolean, read_duration};
use crate::sys::net::{self, Stream};
use crate::sys::serial::{Serial, Speed};
use crate::sys::{SysError, clock};
use crate::time::{Instant, Millis};

use super::life::{Drive, Events, Life, live};
use frame::TcpFrames;
use keys::{Allowed, KEYS, SETPOINT_COUNT_MAX, list, whole};
use line::Line;
use map::{Io, Map, Mapped};
use pdu::Answer;

/// Clients at the same time; one more takes the place of who has been silent for longest.
const CLIENT_COUNT_MAX: usize = 64;
/// Who has been silent for less keeps its place: the newcomer is sent away.
const SILENCE_MIN: Millis = Millis(1000);

/// Its row.
pub const CHILD: Child = Child {
    word: "modbus",
    header: "[modbus]",
    named: false,
    drives: false,
    title: "Modbus over TCP and a serial line",
    keys: KEYS,
    program: concat!(super::supervised!(), "capabilities = CAP_NET_BIND_SERVICE\n"),
    check: keys::check,
    run: |settings| live(c"multusd-modbus", |life| serve(life, settings)),
};

/// Inputs, outputs and values as they are.
struct Board<'a> {
    life: &'a Life,
    inputs: &'a [String],
    outputs: &'a [Option<Drive>],
    names: &'a Names,
    setpoints: &'a mut Setpoints,
    /// For how long what is written is to be believed.
    life_time: Option<Millis>,
}

/// A line that publishes a value.
fn say_value(words: &mut String, name: &str, milli: Option<i32>, life_time: Option<Millis>) {
    words.extend(["MULTUSD_VALUE=", name, " "]);
    match milli {
        None => words.push_str("unknown"),
        Some(milli) => {
            let (whole, rest) = (milli.unsigned_abs() / 1000, milli.unsigned_abs() % 1000);
            let rest = (1000 + rest).to_string();
            words.extend([if milli < 0 { "-" } else { "" }, &whole.to_string(), ".", &rest[1..]]);
            words.extend([" raw=", &milli.to_string()]);
        }
    }
    if let Some(Millis(time)) = life_time.filter(|_| milli.is_some()) {
        words.extend([" for=", &time.to_string(), "ms"]);
    }
    words.push('\n');
}

/// Those whose names the section lists.
struct Names {
    values: Vec<String>,
    programs: Vec<String>,
    setpoints: Vec<String>,
}

/// Values as masters have written them; none: they have not, or are gone.
type Setpoints = [Option<i32>; SETPOINT_COUNT_MAX];

impl Io for Board<'_> {
    fn input(&mut self, index: usize) -> Option<bool> {
        self.life.multusd.input(self.inputs.get(index)?)?.on
    }
    fn edges(&mut self, index: usize) -> u32 {
        let input = self.inputs.get(index).and_then(|name| self.life.multusd.input(name));
        input.map_or(0, |input| input.seen.edges as u32)
    }
    fn output(&mut self, index: usize) -> Option<bool> {
        self.outputs.get(index)?.as_ref()?.level()
    }
    fn switch(&mut self, index: usize, on: bool) -> bool {
        matches!(self.outputs.get(index), Some(Some(output)) if output.set(on).is_ok())
    }
    fn value(&mut self, index: usize) -> Option<i64> {
        self.life.multusd.value(self.names.values.get(index)?)
    }
    fn program(&mut self, index: usize) -> Option<(u8, u32)> {
        self.life.multusd.program(self.names.programs.get(index)?)
    }
    fn setpoint(&mut self, index: usize) -> Option<i32> {
        *self.setpoints.get(index)?
    }
    fn set(&mut self, first: usize, to: &[i32]) -> bool {
        let mut words = String::new();
        for (name, value) in self.names.setpoints.iter().skip(first).zip(to) {
            say_value(&mut words, name, Some(*value), self.life_time);
        }
        let is_said = self.life.multusd.try_say(&words);
        for (setpoint, value) in self.setpoints.iter_mut().skip(first).zip(to).filter(|_| is_said) {
            *setpoint = Some(*value);
        }
        is_said
    }
}

/// One TCP client.
struct Client {
    stream: Stream,
    frames: TcpFrames,
    /// When it last asked something.
    heard: Instant,
}

/// Whether those who write are still there; reads no clock.
struct Contact {
    timeout: Option<Millis>,
    /// Until then; none: it was lost, and outputs are safe.
    until: Option<Instant>,
}

impl Contact {
    fn wrote(&mut self, now: Instant) {
        self.until = self.timeout.map(|timeout| now + timeout);
    }

    /// It has been lost just now.
    fn is_lost(&mut self, now: Instant) -> bool {
        self.until.take_if(|until| now >= *until).is_some()
    }
}

const LISTENER: u64 = 100;
const SERIAL: u64 = 101;

struct Server<'a> {
    settings: &'a Settings,
    map: Map,
    unit: u8,
    names: Names,
    setpoints: Setpoints,
    outputs: Vec<Option<Drive>>,
    contact: Contact,
    allowed: Allowed,
    idle: Millis,
    /// Each has its buffer from when it comes: most servers have one or two.
    clients: [Option<Box<Client>>; CLIENT_COUNT_MAX],
    line: Option<Line>,
}

/// Answers one request; `wrote` is told of one that has changed something.
fn answered(request: &[u8], tables: &mut Mapped, wrote: &mut bool) -> Answer {
    let answer = pdu::answer(request, tables);
    *wrote |= matches!(request[1], 5 | 6 | 15 | 16 | 22 | 23) && answer.get(1) == Some(&request[1]);
    answer
}

fn serve(life: &mut Life, settings: &Settings) -> Result<(), SysError> {
    let time = |name| read_duration(settings.text(KEYS, name));
    let port = whole(settings, "port");
    let listener = match port {
        0 => None,
        port => Some(net::listen(
            net::address(settings.text(KEYS, "bind")).unwrap_or(Ipv6Addr::UNSPECIFIED),
            port,
        )?),
    };
    let baud = settings.text(KEYS, "baud").parse().unwrap_or(19200);
    let speed = Speed {
        baud,
        even: match settings.text(KEYS, "parity") {
            "none" => None,
            parity => Some(parity == "even"),
        },
        rs485: read_boolean(settings.text(KEYS, "rs485")).unwrap_or(false),
    };
    let direction = settings.outputs.iter().find(|driven| Some(&*driven.name) == keys::direction(settings));
    let line = match settings.text(KEYS, "serial") {
        "" => None,
        path => {
            let serial = Serial::open(Path::new(path), speed)?;
            Some(Line::new(serial, baud, direction.and_then(|driven| life.drive(driven)))?)
        }
    };
    let coils = settings.outputs.iter().filter(|driven| direction.is_none_or(|own| own.name != driven.name));
    let mut server = Server {
        settings,
        map: keys::map(settings),
        unit: whole(settings, "unit") as u8,
        names: Names {
            values: list(settings, "values"),
            programs: list(settings, "programs"),
            setpoints: list(settings, "setpoints"),
        },
        setpoints: [None; SETPOINT_COUNT_MAX],
        outputs: coils.map(|driven| life.drive(driven)).collect(),
        contact: Contact { timeout: time("output_timeout"), until: None },
        allowed: Allowed::read(settings.text(KEYS, "allow")).unwrap_or_default(),
        idle: time("idle_timeout").unwrap_or(Millis::from_secs(300)),
        clients: [const { None }; CLIENT_COUNT_MAX],
        line,
    };
    if let Some(listener) = &listener {
        life.watch(listener.as_fd(), LISTENER)?;
    }
    if let Some(line) = &server.line {
        life.watch(line.descriptor(), SERIAL)?;
    }
    life.multusd.ready()?;
    loop {
        let Some(events) = life.wait(server.deadline())? else { return Ok(()) };
        if let Some(listener) = listener.as_ref().filter(|_| events.contains(&LISTENER)) {
            server.accept(life, listener)?;
        }
        server.turn(life, &events)?;
    }
}

impl Server<'_> {
    /// When something is to be done though nothing comes.
    fn deadline(&self) -> Option<Instant> {
        let clients = self.clients.iter().flatten();
        let idle = clients.clone().map(|client| client.heard + self.idle);
        // Requests that wait for their turn.
        let more = clients.filter(|client| client.frames.has_more()).map(|_| Instant(0));
        let line = self.line.as_ref().and_then(Line::deadline);
        idle.chain(more).chain(self.contact.until).chain(line).min()
    }

    fn accept(&mut self, life: &Life, listener: &std::os::fd::OwnedFd) -> Result<(), SysError> {
        let Some((stream, peer)) = net::accept(listener) else { return Ok(()) };
        let now = clock::now();
        if !self.allowed.has(peer) {
            return Ok(());
        }
        let free = self.clients.iter().position(Option::is_none);
        let silent = || {
            let heard = |index: &usize| self.clients[*index].as_ref().map_or(now, |client| client.heard);
            (0..CLIENT_COUNT_MAX).min_by_key(heard).filter(|index| now.since(heard(index)) >= SILENCE_MIN)
        };
        let Some(place) = free.or_else(silent) else { return Ok(()) };
        self.drop_client(life, place);
        life.watch(stream.as_fd(), place as u64)?;
        self.clients[place] = Some(Box::new(Client { stream, frames: TcpFrames::default(), heard: now }));
        Ok(())
    }

    fn drop_client(&mut self, life: &Life, place: usize) {
        if let Some(client) = self.clients[place].take() {
            life.forget(client.stream.as_fd());
        }
    }

    /// What nobody stands for any more is not known.
    fn forget_setpoints(&mut self, life: &Life) {
        let mut words = String::new();
        for (name, setpoint) in self.names.setpoints.iter().zip(&mut self.setpoints) {
            if setpoint.take().is_some() {
                say_value(&mut words, name, None, None);
            }
        }
        // Where multusd does not listen now they are too old at the same moment.
        if !words.is_empty() {
            life.multusd.try_say(&words);
        }
    }

    fn turn(&mut self, life: &Life, events: &Events) -> Result<(), SysError> {
        let now = clock::now();
        let mut wrote = false;
        let mut board = Board {
            life,
            inputs: &self.settings.inputs,
            outputs: &self.outputs,
            names: &self.names,
            setpoints: &mut self.setpoints,
            life_time: self.contact.timeout,
        };
        let mut tables = Mapped { map: &self.map, io: &mut board };
        let unit = self.unit;
        let mut leaving = heapless::Vec::<usize, CLIENT_COUNT_MAX>::new();
        for (place, slot) in self.clients.iter_mut().enumerate() {
            let Some(client) = slot else { continue };
            if !events.contains(&(place as u64)) && !client.frames.has_more() {
                if now.since(client.heard) >= self.idle {
                    let _ = leaving.push(place);
                }
                continue;
            }
            let mut asked = false;
            let result = client.frames.turn(&mut client.stream, &mut |request| {
                asked = true;
                if request[0] == unit || matches!(request[0], 0 | 255) {
                    return Some(answered(request, &mut tables, &mut wrote));
                }
                // Nobody behind us has this number: gateway target device failed to respond.
                Answer::from_slice(&[request[0], request[1] | 0x80, 11]).ok()
            });
            if asked {
                client.heard = now;
            }
            if !matches!(result, Ok(true)) {
                let _ = leaving.push(place);
            }
        }
        if let Some(line) = &mut self.line {
            let mut answering = |request: &[u8]| {
                matches!(request[0], number if number == unit || number == 0)
                    .then(|| answered(request, &mut tables, &mut wrote))
            };
            line.turn(events.contains(&SERIAL), &mut answering)?;
        }
        for place in leaving {
            self.drop_client(life, place);
        }
        if wrote {
            self.contact.wrote(now);
        }
        if self.contact.is_lost(now) {
            life.multusd.status("nobody writes: outputs are safe")?;
            self.outputs.iter().flatten().try_for_each(Drive::make_safe)?;
            self.forget_setpoints(life);
        } else if wrote {
            life.multusd.status("")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contact_is_lost_once_and_kept_by_writing() {
        let at = |ms: u64| Instant(0) + Millis(ms);
        let mut contact = Contact { timeout: Some(Millis(500)), until: None };
        assert!(!contact.is_lost(at(10_000)), "nobody has written yet: outputs are as safe as they were");
        contact.wrote(at(0));
        contact.wrote(at(400));
        assert!(!contact.is_lost(at(899)));
        assert!(contact.is_lost(at(900)));
        assert!(!contact.is_lost(at(901)), "once");
        contact.wrote(at(1000));
        assert!(contact.is_lost(at(1500)));
        let mut never = Contact { timeout: None, until: None };
        never.wrote(at(0));
        assert!(!never.is_lost(at(u64::MAX / 2_000_000)));
    }
}

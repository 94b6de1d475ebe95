//! `[modbus]`: a Modbus server over TCP and a serial line, for inputs, outputs and values.

mod frame;
mod map;
mod pdu;

use core::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::path::Path;

use crate::config::child::{boolean, choice, duration, number, other, path};
use crate::config::{Child, Key, Settings, Wrong, key, read_duration};
use crate::sys::net::{self, Stream};
use crate::sys::serial::{BAUDS, Serial, Speed};
use crate::sys::{SysError, clock};
use crate::time::{Instant, Millis};

use super::life::{Drive, Events, Life, live};
use frame::{RtuFrames, TcpFrames};
use map::{Io, Map, Mapped, Range};
use pdu::Answer;

/// Clients at the same time; one more takes the place of who has been silent for longest.
const CLIENT_COUNT_MAX: usize = 64;
/// Who has been silent for less keeps its place: the newcomer is sent away.
const SILENCE_MIN: Millis = Millis(1000);
/// Addresses and networks that may be named.
const ALLOWED_COUNT_MAX: usize = 32;
/// A serial line has fallen silent: 3.5 characters, and at the least what an adapter at a USB port makes of a pause within a frame.
const SILENCE_MS_MIN: u64 = 20;

const ADDRESS: &str = "an address such as 0.0.0.0, 192.168.1.5 or ::";
const ADDRESSES: &str = "a list of addresses and networks such as 192.168.1.0/24";
const BAUD: &str = "1200, 2400, 4800, 9600, 19200, 38400, 57600 or 115200";

static KEYS: &[Key] = &[
    key!("port", number(0, 65535), "5020", "502", "TCP port; 502 is Modbus' own, 0 is none."),
    key!(
        "bind",
        other(ADDRESS, |text| is(net::address(text).is_some())),
        "::",
        "192.168.1.5",
        "Address to listen at; :: is every one, of both versions of IP."
    ),
    key!(
        "allow",
        other(ADDRESSES, |text| is(Allowed::read(text).is_some())),
        "(everybody)",
        "192.168.1.0/24, fd00::/8",
        "Who may connect."
    ),
    key!(
        "idle_timeout",
        duration(1000),
        "5min",
        "30s",
        "A client that has asked nothing for so long is disconnected."
    ),
    key!(
        "unit",
        number(1, 247),
        "1",
        "17",
        "Unit that is answered; over TCP also 0 and 255, which mean the machine that is connected to."
    ),
    key!("read_only", boolean(), "false", "true", "Nothing may be written."),
    key!(
        "output_timeout",
        duration(50),
        "(never)",
        "5s",
        "Where nothing valid has been written for so long all its outputs are made safe, until something is."
    ),
    key!(
        "serial",
        path(),
        "(none)",
        "/dev/ttyUSB0",
        "Serial line on which the same is served as Modbus RTU."
    ),
    key!(
        "baud",
        other(BAUD, |text| is(BAUDS.iter().any(|baud| baud.to_string() == text))),
        "19200",
        "9600",
        "Its speed."
    ),
    key!(
        "parity",
        choice(&["even", "odd", "none"]),
        "even",
        "none",
        "Its parity; without there are two stop bits."
    ),
    key!(
        "rs485",
        boolean(),
        "false",
        "true",
        "The line's driver switches the direction (RTS while sending)."
    ),
    key!(
        "input_start",
        number(0, 65535),
        "0",
        "1000",
        "Address of the first of its inputs: discrete inputs, and registers that are 1 while an input is on."
    ),
    key!("coil_start", number(0, 65535), "0", "1000", "Address of the first of its outputs as coils."),
    key!(
        "output_start",
        number(0, 65535),
        "10",
        "2000",
        "Address of the first of its outputs as registers, 1 while it is on."
    ),
    key!(
        "counter_start",
        number(0, 65535),
        "100",
        "3000",
        "Address of the edges of its first input: two registers each, the high word first."
    ),
    key!(
        "values",
        other("a list of values", |_| Ok(())),
        "(none)",
        "io.outside, io.tank",
        "Values that can be read, in this order (see `multusctl values`)."
    ),
    key!(
        "value_start",
        number(0, 65535),
        "200",
        "4000",
        "Address of the first of them: thousandths with a sign, two registers each, the high word first; 0x80000000 is not known."
    ),
    key!(
        "name",
        other("a text of at most 60 bytes", |text| is(text.len() <= 60)),
        "(none)",
        "pump in hall 7",
        "What it says of itself (function 43, object 5)."
    ),
];

/// Its row.
pub const CHILD: Child = Child {
    word: "modbus",
    header: "[modbus]",
    named: false,
    drives: false,
    title: "Modbus over TCP and a serial line",
    keys: KEYS,
    program: concat!(super::supervised!(), "capabilities = CAP_NET_BIND_SERVICE\n"),
    check,
    run: |settings| live(c"multusd-modbus", |life| serve(life, settings)),
};

fn is(right: bool) -> Result<(), Wrong> {
    if right { Ok(()) } else { Err(Wrong::Kind) }
}

/// Networks, by address and length of their prefix.
struct Allowed(heapless::Vec<(u128, u32), ALLOWED_COUNT_MAX>);

impl Allowed {
    fn read(text: &str) -> Option<Allowed> {
        let mut networks = heapless::Vec::new();
        for word in text.split([',', ' ', '\n']).filter(|word| !word.is_empty()) {
            let (address, length) =
                word.split_once('/').map_or((word, None), |(address, length)| (address, Some(length)));
            let is_four = !address.contains(':');
            let address = net::address(address)?;
            let most = if is_four { 32 } else { 128 };
            let length = match length {
                Some(length) => length.parse::<u32>().ok().filter(|length| *length <= most)?,
                None => most,
            };
            networks.push((address.to_bits(), if is_four { 96 + length } else { length })).ok()?;
        }
        Some(Allowed(networks))
    }

    /// Nobody named is everybody.
    fn has(&self, peer: Ipv6Addr) -> bool {
        let is_in = |(network, length): &(u128, u32)| {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            network & mask == peer.to_bits() & mask
        };
        self.0.is_empty() || self.0.iter().any(is_in)
    }
}

fn list(settings: &Settings, name: &str) -> Vec<String> {
    let words = settings.text(KEYS, name).split([',', ' ', '\n']);
    words.filter(|word| !word.is_empty()).map(String::from).collect()
}

/// Its numbers were found to be right where the configuration was read.
fn whole(settings: &Settings, name: &str) -> u16 {
    settings.text(KEYS, name).parse().unwrap_or(0)
}

fn flag(settings: &Settings, name: &str) -> bool {
    crate::config::read_boolean(settings.text(KEYS, name)).unwrap_or(false)
}

fn map(settings: &Settings) -> Map {
    let range =
        |name, count: usize, width| Range { start: whole(settings, name), count: count as u16, width };
    let (inputs, outputs) = (settings.inputs.len(), settings.outputs.len());
    Map {
        inputs: range("input_start", inputs, 1),
        coils: range("coil_start", outputs, 1),
        outputs: range("output_start", outputs, 1),
        counters: range("counter_start", inputs, 2),
        values: range("value_start", list(settings, "values").len(), 2),
        is_read_only: flag(settings, "read_only"),
        name: settings.text(KEYS, "name").into(),
    }
}

fn check(settings: &Settings) -> Result<(), (&'static str, String)> {
    let map = map(settings);
    let registers = [
        ("input_start", map.inputs),
        ("output_start", map.outputs),
        ("counter_start", map.counters),
        ("value_start", map.values),
    ];
    for (index, (name, range)) in registers.iter().enumerate() {
        if !range.fits() || !map.coils.fits() {
            return Err((name, "what it begins goes beyond the last address, 65535".into()));
        }
        if let Some((other, _)) = registers[..index].iter().find(|(_, other)| other.collides(range)) {
            return Err((name, format!("its registers meet those of {other}")));
        }
    }
    if whole(settings, "port") == 0 && settings.text(KEYS, "serial").is_empty() {
        return Err((
            "port",
            "is neither served by TCP nor on a serial line; write for example port = 502".into(),
        ));
    }
    Ok(())
}

/// Inputs, outputs and values as they are.
struct Board<'a> {
    life: &'a Life,
    inputs: &'a [String],
    outputs: &'a [Drive],
    values: &'a [String],
}

impl Io for Board<'_> {
    fn input(&mut self, index: usize) -> Option<bool> {
        self.life.multusd.input(self.inputs.get(index)?)?.on
    }
    fn edges(&mut self, index: usize) -> u32 {
        let input = self.inputs.get(index).and_then(|name| self.life.multusd.input(name));
        input.map_or(0, |input| input.seen.edges as u32)
    }
    fn output(&mut self, index: usize) -> Option<bool> {
        self.outputs.get(index)?.level()
    }
    fn switch(&mut self, index: usize, on: bool) -> bool {
        self.outputs.get(index).is_some_and(|output| output.set(on).is_ok())
    }
    fn value(&mut self, index: usize) -> Option<i64> {
        self.life.multusd.value(self.values.get(index)?)
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
    values: Vec<String>,
    outputs: Vec<Drive>,
    contact: Contact,
    allowed: Allowed,
    idle: Millis,
    clients: [Option<Client>; CLIENT_COUNT_MAX],
    serial: Option<(Serial, RtuFrames)>,
    /// When the serial line will have fallen silent.
    silent_at: Option<Instant>,
    silence: Millis,
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
        rs485: flag(settings, "rs485"),
    };
    let serial = match settings.text(KEYS, "serial") {
        "" => None,
        path => Some((Serial::open(Path::new(path), speed)?, RtuFrames::default())),
    };
    let mut server = Server {
        settings,
        map: map(settings),
        unit: whole(settings, "unit") as u8,
        values: list(settings, "values"),
        outputs: life.outputs(settings),
        contact: Contact { timeout: time("output_timeout"), until: None },
        allowed: Allowed::read(settings.text(KEYS, "allow")).unwrap_or(Allowed(heapless::Vec::new())),
        idle: time("idle_timeout").unwrap_or(Millis::from_secs(300)),
        clients: [const { None }; CLIENT_COUNT_MAX],
        serial,
        silent_at: None,
        // 3.5 characters of 11 bits.
        silence: Millis((38_500 / u64::from(baud)).max(SILENCE_MS_MIN)),
    };
    if let Some(listener) = &listener {
        life.watch(listener.as_fd(), LISTENER)?;
    }
    if let Some((line, _)) = &server.serial {
        life.watch(line.as_fd(), SERIAL)?;
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
        idle.chain(more).chain(self.contact.until).chain(self.silent_at).min()
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
        self.clients[place] = Some(Client { stream, frames: TcpFrames::default(), heard: now });
        Ok(())
    }

    fn drop_client(&mut self, life: &Life, place: usize) {
        if let Some(client) = self.clients[place].take() {
            life.forget(client.stream.as_fd());
        }
    }

    fn turn(&mut self, life: &Life, events: &Events) -> Result<(), SysError> {
        let now = clock::now();
        let mut wrote = false;
        let mut board =
            Board { life, inputs: &self.settings.inputs, outputs: &self.outputs, values: &self.values };
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
        if let Some((line, frames)) = &mut self.serial {
            let mut answering = |request: &[u8]| {
                matches!(request[0], number if number == unit || number == 0)
                    .then(|| answered(request, &mut tables, &mut wrote))
            };
            // A line that is gone is opened again by who starts this process anew.
            let broken = |_| SysError { operation: "serial line", errno: libc::EIO };
            if events.contains(&SERIAL) {
                if !frames.turn(line, &mut answering).map_err(broken)? {
                    return Err(broken(embedded_io::ErrorKind::BrokenPipe));
                }
                self.silent_at = frames.is_waiting().then(|| now + self.silence);
            }
            if self.silent_at.take_if(|at| now >= *at).is_some() {
                frames.fall_silent(line, &mut answering).map_err(broken)?;
            }
        }
        for place in leaving {
            self.drop_client(life, place);
        }
        if wrote {
            self.contact.wrote(now);
        }
        if self.contact.is_lost(now) {
            life.multusd.status("nobody writes: outputs are safe")?;
            self.outputs.iter().try_for_each(Drive::make_safe)?;
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
    fn who_is_in_a_network_may_connect_and_nobody_else() {
        let allowed = Allowed::read("192.168.1.0/24, 10.0.0.7 fd00::/8").unwrap();
        let has = |text| allowed.has(net::address(text).unwrap());
        for inside in ["192.168.1.1", "192.168.1.255", "10.0.0.7", "fd12::1"] {
            assert!(has(inside), "{inside}");
        }
        for outside in ["192.168.2.1", "10.0.0.8", "fe80::1", "::1", "127.0.0.1"] {
            assert!(!has(outside), "{outside}");
        }
        assert!(Allowed::read("").unwrap().has(Ipv6Addr::LOCALHOST), "nobody named is everybody");
        assert!(Allowed::read("0.0.0.0/0").unwrap().has(net::address("8.8.8.8").unwrap()));
        assert!(!Allowed::read("0.0.0.0/0").unwrap().has(Ipv6Addr::LOCALHOST));
        assert!(Allowed::read("::/0").unwrap().has(Ipv6Addr::LOCALHOST));
        for wrong in ["a", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3/8"] {
            assert!(Allowed::read(wrong).is_none(), "{wrong}");
        }
    }

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

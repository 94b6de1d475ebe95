//! What `[modbus]` may say, what its keys must say together, and what they mean.

use core::net::Ipv6Addr;

use crate::config::child::{boolean, choice, duration, number, other, path};
use crate::config::{Driven, Key, Settings, Wrong, key};
use crate::limits::LINE_NAME_BYTES_MAX;
use crate::sys::net;
use crate::sys::serial::BAUDS;

use super::map::{Map, Range};

/// Values that may be written: all of them are said at once.
pub const SETPOINT_COUNT_MAX: usize = 32;
/// Addresses and networks that may be named.
const ALLOWED_COUNT_MAX: usize = 32;

const ADDRESS: &str = "an address such as 0.0.0.0, 192.168.1.5 or ::";
const ADDRESSES: &str = "a list of addresses and networks such as 192.168.1.0/24";
const BAUD: &str = "1200, 2400, 4800, 9600, 19200, 38400, 57600 or 115200";

pub static KEYS: &[Key] = &[
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
        other("true, false or the name of an output", |_| Ok(())),
        "false",
        "tx-enable",
        "Who switches the direction of two wires: true is the line's driver (RTS while sending), a name is one of its outputs, on while sending."
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
        "programs",
        other("a list of programs", |_| Ok(())),
        "(none)",
        "pump, log",
        "Programs whose state can be read, in this order."
    ),
    key!(
        "program_start",
        number(0, 65535),
        "400",
        "5000",
        "Address of the first of them: two registers each, state and how often it was started again."
    ),
    key!(
        "setpoints",
        other("a list of names", |text| is(list_of(text).all(is_word))),
        "(none)",
        "speed, valve",
        "Values that can be written, in this order; NAME is published as the value modbus.NAME."
    ),
    key!(
        "setpoint_start",
        number(0, 65535),
        "600",
        "6000",
        "Address of the first of them: as values, both registers by one request."
    ),
    key!(
        "name",
        other("a text of at most 60 bytes", |text| is(text.len() <= 60)),
        "(none)",
        "pump in hall 7",
        "What it says of itself (function 43, object 5)."
    ),
];

fn is(right: bool) -> Result<(), Wrong> {
    if right { Ok(()) } else { Err(Wrong::Kind) }
}

/// Networks, by address and length of their prefix.
#[derive(Default)]
pub struct Allowed(heapless::Vec<(u128, u32), ALLOWED_COUNT_MAX>);

impl Allowed {
    /// What people write; none: it is no such list.
    pub fn read(text: &str) -> Option<Allowed> {
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
    pub fn has(&self, peer: Ipv6Addr) -> bool {
        let is_in = |(network, length): &(u128, u32)| {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            network & mask == peer.to_bits() & mask
        };
        self.0.is_empty() || self.0.iter().any(is_in)
    }
}

/// A list of names.
pub fn list(settings: &Settings, name: &str) -> Vec<String> {
    list_of(settings.text(KEYS, name)).map(String::from).collect()
}

fn list_of(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\n']).filter(|word| !word.is_empty())
}

/// It can be a part of a value's name.
fn is_word(text: &str) -> bool {
    text.len() <= LINE_NAME_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// The output that switches the direction of the serial line; it is nobody's coil.
pub fn direction(settings: &Settings) -> Option<&str> {
    let word = settings.text(KEYS, "rs485");
    crate::config::read_boolean(word).is_none().then_some(word)
}

/// Its numbers were found to be right where the configuration was read.
pub fn whole(settings: &Settings, name: &str) -> u16 {
    settings.text(KEYS, name).parse().unwrap_or(0)
}

/// Whether it says so.
pub fn flag(settings: &Settings, name: &str) -> bool {
    crate::config::read_boolean(settings.text(KEYS, name)).unwrap_or(false)
}

/// What stands where.
pub fn map(settings: &Settings) -> Map {
    let range =
        |name, count: usize, width| Range { start: whole(settings, name), count: count as u16, width };
    let is_coil = |driven: &&Driven| Some(&*driven.name) != direction(settings);
    let (inputs, outputs) = (settings.inputs.len(), settings.outputs.iter().filter(is_coil).count());
    Map {
        inputs: range("input_start", inputs, 1),
        coils: range("coil_start", outputs, 1),
        outputs: range("output_start", outputs, 1),
        counters: range("counter_start", inputs, 2),
        values: range("value_start", list(settings, "values").len(), 2),
        programs: range("program_start", list(settings, "programs").len(), 2),
        setpoints: range("setpoint_start", list(settings, "setpoints").len(), 2),
        is_read_only: flag(settings, "read_only"),
        name: settings.text(KEYS, "name").into(),
    }
}

/// The keys together.
pub fn check(settings: &Settings) -> Result<(), (&'static str, String)> {
    let map = map(settings);
    let registers = [
        ("input_start", map.inputs),
        ("output_start", map.outputs),
        ("counter_start", map.counters),
        ("value_start", map.values),
        ("program_start", map.programs),
        ("setpoint_start", map.setpoints),
    ];
    for (index, (name, range)) in registers.iter().enumerate() {
        if !range.fits() || !map.coils.fits() {
            return Err((name, "what it begins goes beyond the last address, 65535".into()));
        }
        if let Some((other, _)) = registers[..index].iter().find(|(_, other)| other.collides(range)) {
            return Err((name, format!("its registers meet those of {other}")));
        }
    }
    if let Some(name) = direction(settings).filter(|name| settings.outputs.iter().all(|o| o.name != *name)) {
        return Err(("rs485", format!("{name} is none of its outputs; write it into outputs, too")));
    }
    if map.setpoints.count as usize > SETPOINT_COUNT_MAX {
        return Err(("setpoints", format!("more than {SETPOINT_COUNT_MAX} are too many")));
    }
    if whole(settings, "port") == 0 && settings.text(KEYS, "serial").is_empty() {
        return Err((
            "port",
            "is neither served by TCP nor on a serial line; write for example port = 502".into(),
        ));
    }
    Ok(())
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
}

//! What a section says: who is spoken to, what is said, and what is driven by what. Pure; a mistake is told with the key it is in.

use core::net::Ipv6Addr;

use crate::config::child::{is_key, key_digits};
use crate::config::{Key as ConfigKey, Settings, read_duration};
use crate::sys::net;
use crate::time::Millis;

use super::packet::{STATE_COUNT_MAX, STATES_BYTES_MAX, state_bytes};

/// Other machines of one instance.
pub const PEER_COUNT_MAX: usize = 16;
/// Of them those that speak Modbus.
pub const REMOTE_COUNT_MAX: usize = 8;
/// The port of Modbus.
const MODBUS_PORT: u16 = 502;
/// The longest name of a state.
const NAME_BYTES_MAX: usize = 63;

/// What follows a Modbus source follows none of the peers.
const NO_PEER: usize = usize::MAX;

/// Which key is wrong, and how the sentence goes on.
pub type Fault = (&'static str, String);

/// Another multusd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Address and port as they were written.
    pub place: String,
    /// Where it is.
    pub address: Ipv6Addr,
    /// Its port.
    pub port: u16,
    /// The key that it shares with us, or where that is: as it was written.
    pub key: String,
}

impl Peer {
    /// What people call it: its key's name, its address where that is no name.
    pub fn name(&self) -> &str {
        if key_digits(&self.key).is_some() { &self.place } else { &self.key }
    }
}

/// A machine that speaks Modbus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// As it was written.
    pub name: String,
    /// Where it is.
    pub address: Ipv6Addr,
    /// Its port.
    pub port: u16,
    /// Its unit.
    pub unit: u8,
    /// Coils, else discrete inputs.
    pub coils: bool,
    /// The first of them.
    pub start: u16,
}

/// Where a state that is sent comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// An input of the machine, or the state of an output.
    Line,
    /// A value: anything but 0 is on.
    Value,
}

/// A state that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// What it is read from.
    pub from: From,
    /// Its name there.
    pub source: String,
    /// On is off.
    pub inverted: bool,
    /// What it is called on the way.
    pub name: String,
}

/// What an output follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follows {
    /// Index of the output.
    pub output: usize,
    /// The state's name; of a Modbus source its address.
    pub name: String,
    /// On is off.
    pub inverted: bool,
    /// Index of the peer that may say so; [`NO_PEER`] where the source does.
    pub peer: usize,
    /// When nobody knows it stays as it is; else it is made safe.
    pub holds: bool,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Other multusds.
    pub peers: Vec<Peer>,
    /// Whose coils are written.
    pub targets: Vec<Remote>,
    /// Whose inputs are read, instead of hearing from peers.
    pub source: Option<Remote>,
    /// What is said, in this order.
    pub sent: Vec<Sent>,
    /// What is driven.
    pub follows: Vec<Follows>,
    /// How long what was heard is believed.
    pub timeout: Millis,
    /// How often everything is said again.
    pub repeat: Millis,
}

/// What stands between separators and is not empty.
#[inline(never)]
fn pieces<'a>(text: &'a str, separators: &[u8]) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let end = rest.bytes().position(|byte| separators.contains(&byte)).unwrap_or(rest.len());
        let piece = rest[..end].trim_ascii();
        if !piece.is_empty() {
            found.push(piece);
        }
        match rest.get(end + 1..) {
            Some(more) => rest = more,
            None => return found,
        }
    }
}

fn list(text: &str) -> Vec<&str> {
    pieces(text, b",\n")
}

fn words(item: &str) -> Vec<&str> {
    pieces(item, b" \t")
}

/// `192.168.0.7:502`, `[fd00::2]:502`; without a port where there is one that is usual.
fn socket_address(text: &str, usual: Option<u16>) -> Option<(Ipv6Addr, u16)> {
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            (address, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(address, port)| (address, Some(port))),
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => usual?,
    };
    Some((net::address(address)?, port))
}

#[inline(never)]
fn item_fault(key: &'static str, item: &str, why: &str) -> Fault {
    (key, [key, ": ", item, " ", why].concat())
}

fn peer(item: &str, usual: &str) -> Result<Peer, Fault> {
    let mut words = words(item).into_iter();
    // What follows the address may be a key: it is never said.
    let place = words.next().unwrap_or("");
    let Some((address, port)) = socket_address(place, None) else {
        let why = "is no address and port; write for example 192.168.0.100:9190 or [fd00::2]:9190 (names are not looked up)";
        // A key in its place is not said.
        return Err(item_fault("peer", if place.len() < 64 { place } else { "its first word" }, why));
    };
    let key = words.next().unwrap_or(usual);
    if words.next().is_some() {
        return Err(item_fault(
            "peer",
            place,
            "has more than a key behind it; put a comma between two peers",
        ));
    }
    if key.is_empty() {
        return Err(item_fault(
            "peer",
            place,
            "has no key; write for example 192.168.0.100:9190 hall-2, or key = hall-2",
        ));
    }
    if !is_key(key) {
        return Err(item_fault(
            "peer",
            place,
            "has no key behind it but something else; write its name, its path, or 64 hexadecimal digits",
        ));
    }
    Ok(Peer { place: place.into(), address, port, key: key.into() })
}

/// `modbus://192.168.0.7:502/1/coil/0`
fn remote(key: &'static str, item: &str) -> Result<Remote, Fault> {
    let read = || {
        let mut parts = item.strip_prefix("modbus://")?.split('/');
        let (address, port) = socket_address(parts.next()?, Some(MODBUS_PORT))?;
        let unit = parts.next()?.parse().ok()?;
        let coils = match parts.next()? {
            "coil" => true,
            "input" if key == "source" => false,
            _ => return None,
        };
        let start = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Remote { name: item.into(), address, port, unit, coils, start })
    };
    match read() {
        Some(remote) => Ok(remote),
        None => Err(item_fault(
            key,
            item,
            "is no machine that speaks Modbus; write for example modbus://192.168.0.7:502/1/coil/0: address, unit, coil (or input, of a source) and the first",
        )),
    }
}

fn inverted(word: &str) -> (bool, &str) {
    word.strip_prefix('!').map_or((false, word), |rest| (true, rest))
}

fn sent(item: &str) -> Result<Sent, Fault> {
    let why = "is nothing to send; write for example float-switch, !gate, or value:sensors.full as full";
    let words = words(item);
    let (source, name) = match words[..] {
        [source] => (source, None),
        [source, "as", name] => (source, Some(name)),
        _ => return Err(item_fault("send", item, why)),
    };
    let (inverted, source) = inverted(source);
    let (from, source) =
        source.strip_prefix("value:").map_or((From::Line, source), |value| (From::Value, value));
    let name = name.unwrap_or(source);
    if source.is_empty() || name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('!') {
        return Err(item_fault("send", item, why));
    }
    Ok(Sent { from, source: source.into(), inverted, name: name.into() })
}

impl Plan {
    /// From its section.
    pub fn read(settings: &Settings, keys: &'static [ConfigKey]) -> Result<Plan, Fault> {
        let text = |name: &str| settings.text(keys, name);
        // These two were found to be right where the configuration was read.
        let time = |name| read_duration(text(name)).unwrap_or(Millis(1000));
        let mut plan = Plan { timeout: time("timeout"), repeat: time("repeat"), ..Plan::default() };
        let key = text("key");
        if !key.is_empty() && !is_key(key) {
            return Err(("key", "key is neither a name, nor a path, nor 64 hexadecimal digits".into()));
        }
        for item in list(text("peer")) {
            let peer = peer(item, key)?;
            if plan.peers.iter().any(|other| other.key == peer.key) {
                return Err(item_fault(
                    "peer",
                    item.split(' ').next().unwrap_or(""),
                    "has the key of another; every pair has its own",
                ));
            }
            plan.peers.push(peer);
        }
        for item in list(text("target")) {
            plan.targets.push(remote("target", item)?);
        }
        for item in list(text("source")) {
            if plan.source.replace(remote("source", item)?).is_some() {
                return Err(item_fault(
                    "source",
                    item,
                    "is one too many; a second source has a section of its own",
                ));
            }
        }
        if plan.peers.len() > PEER_COUNT_MAX || plan.targets.len() > REMOTE_COUNT_MAX {
            return Err(("peer", "there are at most 16 peers and 8 targets".into()));
        }
        if plan.peers.is_empty() && plan.targets.is_empty() && plan.source.is_none() {
            return Err((
                "peer",
                "has nobody to speak to; write for example peer = 192.168.0.100:9190 hall-2".into(),
            ));
        }
        plan.read_sent(text("send"))?;
        plan.read_follows(settings, text("receive"), text("on_loss") == "hold")?;
        plan.judge(text("port"))?;
        Ok(plan)
    }

    fn read_sent(&mut self, text: &str) -> Result<(), Fault> {
        for item in list(text) {
            let sent = sent(item)?;
            if self.sent.iter().any(|other| other.name == sent.name) {
                return Err(item_fault(
                    "send",
                    item,
                    "is sent by this name already; write for example door as door-2",
                ));
            }
            self.sent.push(sent);
        }
        let bytes: usize = self.sent.iter().map(|sent| state_bytes(&sent.name)).sum();
        if self.sent.len() > STATE_COUNT_MAX || bytes > STATES_BYTES_MAX {
            return Err((
                "send",
                "these are more than fit into a packet: 64 states, and 1080 bytes of names with two more for each".into(),
            ));
        }
        Ok(())
    }

    /// `valve from !gate-closed of hall-2 hold`
    fn read_follows(&mut self, settings: &Settings, text: &str, holds: bool) -> Result<(), Fault> {
        let index_of = |name: &str| settings.outputs.iter().position(|output| output.name == name);
        for item in list(text) {
            let mut words = words(item).into_iter().peekable();
            let output = words.next().unwrap_or("");
            let Some(index) = index_of(output) else {
                return Err(item_fault(
                    "receive",
                    item,
                    "begins with none of its outputs; write for example valve from float-switch",
                ));
            };
            if self.follows.iter().any(|other| other.output == index) {
                return Err(item_fault(
                    "receive",
                    item,
                    "is one too many: this output follows something already",
                ));
            }
            let mut after = |word: &str| {
                words.next_if_eq(&word)?;
                Some(words.next().unwrap_or(""))
            };
            let from = after("from").unwrap_or(output);
            let of = after("of");
            let holds = match words.next() {
                None => holds,
                Some("hold") => true,
                Some("safe") => false,
                Some(_) => {
                    return Err(item_fault(
                        "receive",
                        item,
                        "is not understood; write for example valve from !gate of hall-2 hold",
                    ));
                }
            };
            let (inverted, name) = inverted(from);
            if words.next().is_some() || name.is_empty() {
                return Err(item_fault(
                    "receive",
                    item,
                    "is not understood; write for example valve from !gate of hall-2 hold",
                ));
            }
            let peer = self.peer_of(of).ok_or_else(|| {
                item_fault("receive", item, "does not say which peer, by its key or its address; write for example valve from gate of hall-2")
            })?;
            self.follows.push(Follows { output: index, name: name.into(), inverted, peer, holds });
        }
        for (output, driven) in settings.outputs.iter().enumerate() {
            if self.follows.iter().any(|follows| follows.output == output) {
                continue;
            }
            let Some(peer) = self.peer_of(None) else {
                let why = "could follow several peers; write for example receive = valve from gate of hall-2";
                return Err(item_fault("outputs", &driven.name, why));
            };
            self.follows.push(Follows { output, name: driven.name.clone(), inverted: false, peer, holds });
        }
        match self.source {
            Some(_) => self.address_follows(settings),
            None => Ok(()),
        }
    }

    /// Of a Modbus source states are called by their addresses; those not named follow one after the other.
    fn address_follows(&mut self, settings: &Settings) -> Result<(), Fault> {
        let start = self.source.as_ref().map_or(0, |source| source.start);
        for follows in &mut self.follows {
            let output = &settings.outputs[follows.output].name;
            if follows.name == *output {
                follows.name = (usize::from(start) + follows.output).to_string();
            }
            // As many as one request can ask for.
            let is_there = follows
                .name
                .parse::<u16>()
                .is_ok_and(|address| (start..start.saturating_add(2000)).contains(&address));
            if !is_there {
                return Err(item_fault(
                    "receive",
                    output,
                    "follows none of the 2000 addresses from that of the source on; write for example valve from 3",
                ));
            }
        }
        Ok(())
    }

    /// The place of what an output follows among the bits of the source.
    pub fn place(&self, follows: &Follows) -> usize {
        let start = self.source.as_ref().map_or(0, |source| usize::from(source.start));
        follows.name.parse::<usize>().unwrap_or(0).saturating_sub(start)
    }

    /// How many bits of the source are read.
    pub fn bits(&self) -> u16 {
        self.follows.iter().map(|follows| self.place(follows) + 1).max().unwrap_or(1) as u16
    }

    fn peer_of(&self, of: Option<&str>) -> Option<usize> {
        if self.source.is_some() {
            return of.is_none().then_some(NO_PEER);
        }
        match of {
            None => (self.peers.len() == 1).then_some(0),
            Some(word) => self
                .peers
                .iter()
                .position(|peer| peer.key == word || net::address(word) == Some(peer.address)),
        }
    }

    /// What is sent is there.
    pub fn judge_lines(&self, lines: &[String]) -> Result<(), Fault> {
        for sent in &self.sent {
            if sent.from == From::Line && !lines.contains(&sent.source) {
                let why = "is neither an input nor an output; write for example value:sensors.full where it is a value";
                return Err(item_fault("send", &sent.source, why));
            }
        }
        Ok(())
    }

    fn judge(&self, port: &str) -> Result<(), Fault> {
        if self.sent.is_empty() && self.follows.is_empty() {
            return Err((
                "send",
                "has nothing to send and no outputs; write for example send = float-switch".into(),
            ));
        }
        if port.is_empty() && !self.peers.is_empty() {
            return Err(("port", "has no port; write for example port = 9190".into()));
        }
        if self.sent.is_empty() && !self.targets.is_empty() {
            return Err(("target", "has nothing to be told; write for example send = float-switch".into()));
        }
        if let Some(target) =
            self.targets.iter().find(|target| usize::from(target.start) + self.sent.len() > 0x1_0000)
        {
            return Err(("target", [&target.name, " goes beyond the last coil, 65535"].concat()));
        }
        if self.timeout.0 < 2 * self.repeat.0 {
            return Err((
                "timeout",
                "timeout is less than twice repeat: every second packet would have to arrive".into(),
            ));
        }
        Ok(())
    }
}

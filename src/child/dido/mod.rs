//! `[dido:NAME]`: inputs and states of outputs of this machine drive outputs of others, and theirs drive ours (docs/dido.md). What
//! is heard is believed for a time and no longer: then each output is made safe, or held, as its section says.

pub mod packet;

mod link;
mod remote;
mod section;
#[cfg(test)]
mod tests;

use core::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::path::Path;

use crate::config::child::{choice, duration, key_digits, key_path, number, other};
use crate::config::{Child, Key as ConfigKey, Settings, Wrong, key};
use crate::sys::net::{self, Datagrams};
use crate::sys::{SysError, clock, console, file, machine};
use crate::time::{Instant, Millis};

use super::life::{Drive, Events, Life, live};
use link::{Link, Verdict};
use packet::{Body, Head, Key, Level, PACKET_BYTES_MAX, Session, State};
use remote::Client;
use section::{Follows, From, Plan, Sent};

/// Packets that are taken between two looks at everything else: a flood does not keep this from its heartbeat.
const PACKETS_PER_TURN_MAX: usize = 32;
/// What is counted is said so often at the most.
const TELL_PACE: Millis = Millis(1000);
/// Where it changes all the time it is said so often, and nobody wakes up for that.
const TELL_ANYWAY: Millis = Millis(60_000);
/// So often the kernel is asked for a random number as long as it has none.
const RANDOM_PACE: Millis = Millis(100);

const ADDRESS: &str = "an address such as 0.0.0.0, 192.168.1.5 or ::";

macro_rules! any {
    ($what:literal) => {
        other($what, |_| Ok(()))
    };
}

static KEYS: &[ConfigKey] = &[
    key!(
        "port",
        number(1, 65535),
        "(none)",
        "9190",
        "UDP port on which peers are heard, and from which they are spoken to."
    ),
    key!(
        "bind",
        other(ADDRESS, |text| if net::address(text).is_some() { Ok(()) } else { Err(Wrong::Kind) }),
        "::",
        "192.168.1.5",
        "Address to be heard at; :: is every one, of both versions of IP."
    ),
    key!(
        "peer",
        any!("a list of addresses with ports and keys"),
        "(none)",
        "192.168.0.100:9190 hall-2, [fd00::2]:9190 hall-3",
        "Other machines' dido: address, port, and the key shared with it (see `key`). All get what is sent."
    ),
    key!(
        "key",
        any!("a key"),
        "(none)",
        "hall-2",
        "Key of a peer that names none: its name in /etc/multusd/keys (see `multusctl key`), a path, or its 64 hexadecimal digits."
    ),
    key!(
        "send",
        any!("a list of inputs and outputs"),
        "(none)",
        "float-switch, !gate as gate-closed, value:sensors.full as full",
        "Inputs of this machine, states of its outputs, and values (anything but 0 is on) that are sent, by their name or another; ! is inverted."
    ),
    key!(
        "receive",
        any!("a list of outputs and what they follow"),
        "(what is called as they are)",
        "valve from float-switch, horn from !gate-closed hold",
        "What each of its outputs follows: OUTPUT from NAME, with `of PEER` where there are several; `hold` or `safe` is what becomes of it when nobody knows."
    ),
    key!(
        "on_loss",
        choice(&["safe", "hold"]),
        "safe",
        "hold",
        "What becomes of outputs that do not say so themselves when their peer is silent, or does not know."
    ),
    key!(
        "timeout",
        duration(50),
        "3s",
        "5s",
        "What was heard is believed for so long; at least twice repeat."
    ),
    key!("repeat", duration(20), "1s", "200ms", "Everything is said so often though nothing changes."),
    key!(
        "target",
        any!("a list of Modbus addresses"),
        "(none)",
        "modbus://192.168.0.7:502/1/coil/0",
        "Modbus servers whose coils are written, from that one on, in the order of send."
    ),
    key!(
        "source",
        any!("a Modbus address"),
        "(none)",
        "modbus://192.168.0.7:502/1/input/0",
        "Modbus server whose discrete inputs (or coils) are read every `repeat`; outputs follow them, one after the other or by address."
    ),
];

/// Its row.
pub const CHILD: Child = Child {
    word: "dido",
    header: "[dido:NAME]",
    named: true,
    drives: false,
    title: "Inputs and outputs of several machines",
    keys: KEYS,
    program: super::SUPERVISED,
    check: |settings| Plan::read(settings, KEYS)?.judge_lines(&settings.lines),
    run,
};

/// What came and what became of it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Counts([u64; COUNTED.len()]);

/// Names of the counters, in this order.
const COUNTED: [&str; 6] = ["accepted", "wrong-key", "replayed", "stale", "malformed", "unknown"];
const ACCEPTED: usize = 0;
const WRONG_KEY: usize = 1;
const REPLAYED: usize = 2;
const STALE: usize = 3;
const MALFORMED: usize = 4;
const UNKNOWN: usize = 5;

/// Another machine.
struct Partner {
    key: Key,
    link: Link,
    was_live: bool,
    /// Names in its last packet that nobody here follows.
    unknown: u64,
}

/// An output, what it follows, and what it is at.
struct Driven {
    output: Drive,
    follows: Follows,
    /// None: safe.
    at: Option<bool>,
}

impl Driven {
    /// Whoever it follows says so.
    fn hear(&mut self, level: Level) -> Result<(), SysError> {
        let wanted = match level {
            Level::Unknown if self.follows.holds => return Ok(()),
            Level::Unknown => None,
            Level::Off | Level::On => Some((level == Level::On) != self.follows.inverted),
        };
        if wanted != self.at {
            match wanted {
                Some(on) => self.output.set(on)?,
                None => self.output.make_safe()?,
            }
            self.at = wanted;
        }
        Ok(())
    }
}

const CHANGES: u64 = 0;
const SOCKET: u64 = 1;
const CLIENTS: u64 = 2;

/// What the inputs of a Modbus source say; none: nobody knows.
fn follow_bits(driven: &mut [Driven], plan: &Plan, bits: Option<&[u8]>) -> Result<(), SysError> {
    driven.iter_mut().try_for_each(|driven| {
        let place = plan.place(&driven.follows);
        let byte = bits.and_then(|bits| bits.get(place / 8));
        driven.hear(byte.map_or(Level::Unknown, |byte| Level::of(byte >> (place % 8) & 1 == 1)))
    })
}

/// A key as its section has it, or why there is none.
fn read_key(text: &str) -> Result<Key, String> {
    if let Some(key) = key_digits(text) {
        return Ok(key);
    }
    let path = key_path(text);
    let bytes = file::read_bounded(Path::new(&path), 128)
        .map_err(|error| [&path, ": ", &error.to_string(), "; `multusctl key` makes a key"].concat())?;
    let digits = str::from_utf8(&bytes).unwrap_or("").trim();
    key_digits(digits).ok_or_else(|| [&path, ": these are not 64 hexadecimal digits"].concat())
}

fn run(settings: &Settings) -> u8 {
    // It was found to be right where the configuration was read.
    let Ok(plan) = Plan::read(settings, KEYS) else { return 2 };
    let mut keys = Vec::with_capacity(plan.peers.len());
    for peer in &plan.peers {
        match read_key(&peer.key) {
            Ok(key) => keys.push(key),
            Err(why) => {
                console::complain(&why);
                return 1;
            }
        }
    }
    live(c"multusd-dido", |life| serve(life, settings, plan, &keys))
}

struct Instance<'a> {
    life: &'a mut Life,
    plan: Plan,
    socket: Option<Datagrams>,
    partners: Vec<Partner>,
    /// Modbus: targets, and behind them the source.
    clients: Vec<Client>,
    levels: Vec<Level>,
    driven: Vec<Driven>,
    counts: Counts,
    told: Option<(Counts, usize)>,
    told_at: Instant,
}

/// A number that no process of ours ever had; the kernel may not have one yet when the machine has just been switched on. None:
/// the child is to end.
fn session(life: &mut Life) -> Result<Option<Session>, SysError> {
    loop {
        if let (Ok(one), Ok(two)) = (machine::kernel_random(), machine::kernel_random()) {
            let mut session = [0; 16];
            session[..8].copy_from_slice(&one.to_ne_bytes());
            session[8..].copy_from_slice(&two.to_ne_bytes());
            return Ok(Some(session));
        }
        if life.wait(Some(clock::now() + RANDOM_PACE))?.is_none() {
            return Ok(None);
        }
    }
}

fn serve(life: &mut Life, settings: &Settings, plan: Plan, keys: &[Key]) -> Result<(), SysError> {
    let Some(session) = session(life)? else { return Ok(()) };
    let now = clock::now();
    let repeat = (!plan.sent.is_empty()).then_some(plan.repeat);
    let mut partners = Vec::with_capacity(keys.len());
    for key in keys {
        let link = Link::new(session, plan.timeout, repeat, now);
        partners.push(Partner { key: *key, link, was_live: false, unknown: 0 });
    }
    let socket = match keys.is_empty() {
        true => None,
        false => {
            let bind = net::address(settings.text(KEYS, "bind")).unwrap_or(Ipv6Addr::UNSPECIFIED);
            Some(Datagrams::open(bind, settings.text(KEYS, "port").parse().unwrap_or(0))?)
        }
    };
    if let Some(socket) = &socket {
        life.watch(socket.as_fd(), SOCKET)?;
    }
    life.changes(CHANGES)?;
    let mut drives = life.outputs(settings).into_iter().peekable();
    let mut driven = Vec::with_capacity(settings.outputs.len());
    for (index, output) in settings.outputs.iter().enumerate() {
        // One that a command drives is not handed over.
        let is_there = life.multusd.output(&output.name).is_some();
        let Some(output) = drives.next_if(|_| is_there) else {
            console::complain(&[&output.name, " is not driven: that takes a line or a file"].concat());
            continue;
        };
        if let Some(follows) = plan.follows.iter().find(|follows| follows.output == index) {
            driven.push(Driven { output, follows: follows.clone(), at: None });
        }
    }
    let mut clients = Vec::with_capacity(plan.targets.len() + 1);
    for remote in plan.targets.iter().chain(&plan.source) {
        // The last, where there is a source, is read.
        let count = if clients.len() < plan.targets.len() { 0 } else { plan.bits() };
        clients.push(Client::new(remote, count, plan.timeout, plan.repeat, now));
    }
    let levels = vec![Level::Unknown; plan.sent.len()];
    let mut instance = Instance {
        life,
        plan,
        socket,
        partners,
        clients,
        levels,
        driven,
        counts: Counts::default(),
        told: None,
        told_at: Instant(0),
    };
    instance.life.multusd.ready()?;
    let mut events = Events::new();
    loop {
        instance.turn(&events)?;
        let deadline = instance.deadline();
        match instance.life.wait(Some(deadline))? {
            Some(come) => events = come,
            None => return Ok(()),
        }
    }
}

fn level(life: &Life, sent: &Sent) -> Level {
    let multusd = &life.multusd;
    let on = match sent.from {
        From::Line => {
            let line = multusd.input(&sent.source).or_else(|| multusd.output_level(&sent.source));
            line.and_then(|line| line.on)
        }
        From::Value => multusd.value(&sent.source).map(|milli| milli != 0),
    };
    match on {
        None => Level::Unknown,
        Some(on) => Level::of(on != sent.inverted),
    }
}

impl Instance<'_> {
    /// When something is to be done though nothing comes.
    fn deadline(&self) -> Instant {
        let mut next = if self.told == Some(self.news()) { Instant::NEVER } else { self.told_at + TELL_PACE };
        for partner in &self.partners {
            next = next.min(partner.link.next());
            if partner.was_live {
                next = next.min(partner.link.live_until());
            }
        }
        for client in &self.clients {
            next = next.min(client.next());
        }
        next
    }

    fn turn(&mut self, events: &Events) -> Result<(), SysError> {
        self.hear()?;
        let now = clock::now();
        self.look(now);
        for index in 0..self.partners.len() {
            let partner = &mut self.partners[index];
            if partner.was_live && !partner.link.is_live(now) {
                partner.was_live = false;
                self.lose(index)?;
            }
            let link = &mut self.partners[index].link;
            if link.next().is_due(now) {
                let (head, body) = link.ask(now);
                self.say(index, &head, body);
            }
        }
        self.turn_clients(now, events)?;
        self.tell(now);
        Ok(())
    }

    fn turn_clients(&mut self, now: Instant, events: &Events) -> Result<(), SysError> {
        for (index, client) in self.clients.iter_mut().enumerate() {
            let token = CLIENTS + index as u64;
            let (driven, plan) = (&mut self.driven, &self.plan);
            let mut heard = |bits: &[u8]| follow_bits(driven, plan, Some(bits));
            client.turn(self.life, (token, events.contains(&token)), now, &self.levels, &mut heard)?;
            let is_source = index >= self.plan.targets.len();
            let is_live = client.is_live(now);
            if core::mem::replace(&mut client.was_live, is_live) && !is_live && is_source {
                follow_bits(&mut self.driven, &self.plan, None)?;
            }
        }
        Ok(())
    }

    /// Looks at what is sent.
    fn look(&mut self, now: Instant) {
        let mut changed = false;
        for (sent, was) in self.plan.sent.iter().zip(&mut self.levels) {
            let level = level(self.life, sent);
            changed |= level != *was;
            *was = level;
        }
        if changed {
            self.partners.iter_mut().for_each(|partner| partner.link.change(now));
            self.clients.iter_mut().take(self.plan.targets.len()).for_each(|client| client.change(now));
        }
    }

    fn say(&self, index: usize, head: &Head, body: Body) {
        let (Some(socket), peer) = (&self.socket, &self.plan.peers[index]) else { return };
        let states = self.plan.sent.iter().zip(&self.levels);
        let states = states.map(|(sent, level)| State { name: &sent.name, level: *level }).collect();
        // What does not get through now is said again; it was found to fit where the configuration was read.
        if let Some(packet) = packet::seal(&self.partners[index].key, head, &Body { states, ..body }) {
            socket.send(peer.address, peer.port, &packet);
        }
    }

    /// Takes what has come, but not more than so much at once.
    fn hear(&mut self) -> Result<(), SysError> {
        let mut buffer = [0; PACKET_BYTES_MAX + 1];
        for _ in 0..PACKETS_PER_TURN_MAX {
            let Some(length) = self.socket.as_ref().and_then(|socket| socket.receive(&mut buffer)) else {
                break;
            };
            self.hear_one(&mut buffer[..length])?;
        }
        Ok(())
    }

    fn hear_one(&mut self, bytes: &mut [u8]) -> Result<(), SysError> {
        if !packet::is_one(bytes) {
            self.counts.0[MALFORMED] += 1;
            return Ok(());
        }
        // Whose key opens it made it, wherever it comes from.
        let opened = |partner: &Partner| packet::open(&partner.key, bytes);
        let found =
            self.partners.iter().map(opened).enumerate().find_map(|(index, head)| Some((index, head?)));
        let Some((index, head)) = found else {
            self.counts.0[WRONG_KEY] += 1;
            return Ok(());
        };
        let Some(body) = packet::read(bytes) else {
            self.counts.0[MALFORMED] += 1;
            return Ok(());
        };
        let now = clock::now();
        let (verdict, answer) = self.partners[index].link.take(now, &head, &body);
        match verdict {
            Verdict::Taken => {
                self.counts.0[ACCEPTED] += 1;
                self.partners[index].was_live = true;
                self.follow(index, &body.states)?;
            }
            Verdict::Stale => self.counts.0[STALE] += 1,
            Verdict::Replayed => self.counts.0[REPLAYED] += 1,
        }
        if let Some(heard) = answer {
            let (head, body) = self.partners[index].link.answer(now, heard);
            self.say(index, &head, body);
        }
        Ok(())
    }

    /// What a peer says is so.
    fn follow(&mut self, index: usize, states: &[State]) -> Result<(), SysError> {
        let mut known = 0;
        for driven in self.driven.iter_mut().filter(|driven| driven.follows.peer == index) {
            let state = states.iter().find(|state| state.name == driven.follows.name);
            driven.hear(state.map_or(Level::Unknown, |state| state.level))?;
        }
        for state in states {
            let follows = |driven: &Driven| driven.follows.peer == index && driven.follows.name == state.name;
            known += u64::from(self.driven.iter().any(follows));
        }
        // Said with every packet, counted once.
        let unknown = states.len() as u64 - known;
        let before = core::mem::replace(&mut self.partners[index].unknown, unknown);
        self.counts.0[UNKNOWN] += unknown.saturating_sub(before);
        Ok(())
    }

    /// Nobody knows any more what a peer has said.
    fn lose(&mut self, index: usize) -> Result<(), SysError> {
        let followers = self.driven.iter_mut().filter(|driven| driven.follows.peer == index);
        followers.into_iter().try_for_each(|driven| driven.hear(Level::Unknown))
    }

    /// What people are told: errors, and how many links there are. What is accepted changes all the time: it is said with
    /// the rest.
    fn news(&self) -> (Counts, usize) {
        let mut counts = self.counts;
        counts.0[ACCEPTED] = 0;
        let links = self.partners.iter().filter(|partner| partner.was_live).count();
        (counts, links + self.clients.iter().filter(|client| client.was_live).count())
    }

    /// Says it, where there is news.
    fn tell(&mut self, now: Instant) {
        let news = self.news();
        let is_old = now >= self.told_at + TELL_ANYWAY;
        if !is_old && (self.told == Some(news) || now < self.told_at + TELL_PACE) {
            return;
        }
        let (_, live) = news;
        let all = self.partners.len() + self.clients.len();
        let mut words = String::from("MULTUSD_VALUE=link ");
        words += if live == all { "1" } else { "0" };
        let mut status = [&live.to_string(), " of ", &all.to_string(), " linked"].concat();
        let mut silent = |name: &str| {
            status += ", silent: ";
            status += name;
        };
        for (peer, partner) in self.plan.peers.iter().zip(&self.partners) {
            if !partner.was_live {
                silent(peer.name());
            }
        }
        for client in &self.clients {
            if !client.was_live {
                silent(client.name());
            }
        }
        for (name, count) in COUNTED.iter().zip(self.counts.0) {
            let count = [name, " ", &count.to_string()].concat();
            words += "\nMULTUSD_VALUE=";
            words += &count;
            status += ", ";
            status += &count;
        }
        words += "\nSTATUS=";
        words += &status;
        if self.life.multusd.try_say(&words) {
            self.told = Some(news);
        }
        self.told_at = now;
    }
}

//! The watchdogs: opened last, fed as a conclusion and by nothing else, disarmed by order only. And the
//! beat by which guard and supervisor watch each other while anything is watched.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use crate::config::{Line, Watchdog, WatchdogTarget, pace_ms};
use crate::limits::{ECHO_SILENCE_MS_MAX, WATCHDOG_COUNT_MAX};
use crate::protocol::{self, Reply, Text};
use crate::supervisor::{Event, Withheld};
use crate::sys::watchdog::{self, Number, flag};
use crate::sys::{SysError, clock, file, gpio, poll, process};
use crate::time::{Instant, Millis};

use super::lines::Spot;
use super::spec::digest;
use super::table::write_cut;
use super::{Daemon, report};

/// Between two tries of a watchdog that is missing or taken. They ride on the beat.
const RETRY_PAUSE: Millis = Millis(10_000);

/// Pulses are given by the loop, which waits for nothing.
pub const MAY_WAIT: &str =
    "this line is behind a bus, and may wait; a watchdog needs one of the processor itself";

/// A pulse that takes longer is said: its line may wait, although nothing told so.
const PULSE_TIME_MAX: Millis = Millis(20);

/// What is said of one that its driver never stops, when it is to be disarmed.
const FOR_EVER: &str = "a watchdog that left the configuration cannot be disarmed (nowayout): \
                        it is fed on, and multusd's end is the board's reset";

/// What is said of one that does not take its feed.
const NOT_FED: &str = "watchdog not fed: ";

/// What systemd does here, as far as it is a watchdog's master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Systemd {
    /// It is not the first process.
    Absent,
    /// It is, and does not feed by its configuration.
    Idle,
    /// It feeds the watchdog: `RuntimeWatchdogSec`.
    Feeds,
}

/// How one watchdog of the page stands.
#[derive(Default)]
pub struct Watched {
    /// Its place in the configuration; none: the place is free.
    config: Option<usize>,
    /// The timeout in force; none: it is not armed by us.
    timeout: Option<Millis>,
    /// The warning in force, zero: none.
    pretimeout: Millis,
    /// A pulse is under way until then.
    pulse_until: Option<Instant>,
    /// A pulse that took its time was said.
    is_slow: bool,
    /// What was said of it last.
    note: Text,
}

impl Watched {
    /// What there is to know of it.
    fn sentence(&self, config: &Watchdog) -> Text {
        let mut text = Text::new();
        let armed = if self.timeout.is_some() { "" } else { "not armed: " };
        write_cut(&mut text, format_args!("{}: {armed}{}", Named(config), self.note));
        text
    }
}

/// The beat, and all watchdogs, by their places in the page.
#[derive(Default)]
pub struct Watch {
    each: [Watched; WATCHDOG_COUNT_MAX],
    /// Milliseconds between two beats, as the core knows them.
    pace: Option<u64>,
    /// The last echo that was heard.
    echo: u64,
    /// When the guard's answer was looked for last.
    asked: Instant,
    /// Silence of the guard, in beats.
    missed: Millis,
    /// When what could not be opened is tried again.
    retry_at: Option<Instant>,
    /// A feed is being withheld, and that was said.
    withheld: bool,
}

/// One that is another's at the next reload has another number.
fn identity(watchdog: &Watchdog) -> u64 {
    let mut text = Text::new();
    match &watchdog.target {
        WatchdogTarget::Device(path) => write_cut(&mut text, format_args!("{path}")),
        WatchdogTarget::Pulse { feed, enable, .. } => {
            write_line(&mut text, feed);
            enable.iter().for_each(|line| write_line(&mut text, line));
        }
    }
    digest(text.as_bytes()).max(1)
}

/// A line, as it is written in the configuration.
fn write_line(text: &mut impl core::fmt::Write, line: &Line) {
    // Cut where it does not fit.
    let _ = match line {
        Line::Header(number) => write!(text, "gpio {number}"),
        Line::Offset { chip, offset } => write!(text, "{chip}:{offset}"),
        Line::Name(name) => write!(text, "{name}"),
    };
}

impl Watch {
    /// A feed is being withheld.
    pub(super) fn is_withheld(&self) -> bool {
        self.withheld
    }

    /// Whether a former supervisor withheld the feed.
    pub(super) fn adopt_withheld(&mut self, withheld: bool) {
        self.withheld = withheld;
    }

    /// Something that was missing was found.
    pub(super) fn try_again_at_once(&mut self) {
        self.retry_at = Some(Instant(0));
    }
}

impl Daemon {
    /// Brings the watchdogs in line with the configuration in force.
    pub(super) fn apply_watchdogs(&mut self) {
        let config = &self.in_force.config.board.watchdogs;
        for (slot, watched) in self.page.watchdogs.iter().zip(&mut self.watch.each) {
            let own = slot.identity.load(SeqCst);
            watched.config = config.iter().position(|watchdog| identity(watchdog) == own);
            if watched.config.is_none() && own != 0 {
                let device = slot.descriptors()[0].filter(|_| slot.is_for_ever.load(SeqCst) != 0);
                if let Some(device) = device.map(poll::borrow) {
                    // To let go of it is a reset, and nobody has ordered one.
                    let timeout = watchdog::number(device, Number::Timeout).unwrap_or(1);
                    watched.timeout = Some(Millis::from_secs(timeout.into()));
                    if watched.note != FOR_EVER {
                        write_cut(&mut watched.note, format_args!("{FOR_EVER}"));
                        say!("{FOR_EVER}");
                    }
                    continue;
                }
                // It left the configuration, and that was an order.
                slot.disarm();
                *watched = Watched::default();
            }
        }
        for (index, watchdog) in config.iter().enumerate() {
            if self.watch.each.iter().any(|watched| watched.config == Some(index)) {
                continue;
            }
            // The configuration has no more of them than there are places.
            let is_free = |watched: &Watched| watched.config.is_none() && watched.timeout.is_none();
            if let Some(free) = self.watch.each.iter().position(is_free) {
                self.watch.each[free].config = Some(index);
                self.page.watchdogs[free].identity.store(identity(watchdog), SeqCst);
            }
        }
        (0..WATCHDOG_COUNT_MAX).for_each(|place| self.arm(place));
        self.set_pace();
    }

    /// How often guard and supervisor beat; not at all where nothing is watched.
    fn set_pace(&mut self) {
        let config = &self.in_force.config;
        let expected = self.page.expected();
        let watched = !config.board.watchdogs.is_empty()
            || self.armed_watchdogs().next().is_some()
            || !config.board.outputs.is_empty()
            || expected.is_some()
            || config.programs.iter().any(|program| program.heartbeat.is_some());
        let pace = if watched { pace_ms(self.armed_watchdogs().chain(expected).min()) } else { 0 };
        if self.watch.pace.replace(pace) == Some(pace) {
            return;
        }
        let now = clock::now();
        self.core.set_watchdog(now, watched.then_some(Millis(pace)));
        self.watch.asked = now;
        self.page.beat.store(now.0, SeqCst);
        if self.page.pace.swap(pace as u32, SeqCst) != pace as u32 {
            // It may be asleep for good.
            process::kill_if_there(self.page.guard.load(SeqCst) as i32, libc::SIGALRM);
        }
    }

    /// Opens one watchdog, unless it is open, and makes it what the configuration says.
    fn arm(&mut self, place: usize) {
        let (slot, watched) = (&self.page.watchdogs[place], &mut self.watch.each[place]);
        let in_force = &self.in_force;
        let Some(at) = watched.config else { return };
        let Some((config, spots)) = in_force.config.board.watchdogs.get(at).zip(in_force.watchdogs.get(at))
        else {
            return;
        };
        let mut note = Text::new();
        // What a former supervisor opened and said need not be said again.
        let is_news = slot.descriptors()[0].is_none() || watched.timeout.is_some();
        let opened = match slot.descriptors()[0] {
            Some(number) => Ok(number),
            None => open(config, spots, in_force.systemd).map(|(first, enable)| {
                slot.is_lines.store(matches!(config.target, WatchdogTarget::Pulse { .. }).into(), SeqCst);
                slot.keep(first, enable);
                slot.descriptors()[0].unwrap_or(-1)
            }),
        };
        match opened {
            Ok(number) => match &config.target {
                WatchdogTarget::Device(path) => {
                    self.boots.note_cause(set_up(poll::borrow(number), config, watched, &mut note));
                    let is_for_ever = cannot_be_stopped(path);
                    slot.is_for_ever.store(is_for_ever.into(), SeqCst);
                    if is_for_ever {
                        add(
                            &mut note,
                            format_args!("cannot be disarmed (nowayout): multusd's end is the board's reset"),
                        );
                    }
                }
                WatchdogTarget::Pulse { .. } => {
                    // Where a former supervisor died in a pulse, it ends now.
                    watched.pulse_until = Some(clock::now());
                    watched.timeout = Some(config.timeout);
                }
            },
            Err(why) => {
                watched.timeout = None;
                write_cut(&mut note, format_args!("{why}"));
                if why.is_worth_another_try() {
                    self.watch.retry_at = Some(clock::now() + RETRY_PAUSE);
                }
            }
        }
        let is_other = watched.note != note;
        watched.note = note;
        if is_other && is_news && !watched.note.is_empty() {
            say!("{}", watched.sentence(config));
        }
    }

    /// After every wake-up: the supervisor's beat, the guard's echo, and what rides on them.
    pub(super) fn beat_to_guard(&mut self) {
        let pace = Millis(self.page.pace.load(SeqCst).into());
        if pace == Millis::ZERO {
            return;
        }
        let now = clock::now();
        self.page.beat.store(now.0, SeqCst);
        self.end_pulses(now);
        let echo = self.page.echo.load(SeqCst);
        if echo != self.watch.echo {
            (self.watch.echo, self.watch.missed) = (echo, Millis::ZERO);
            self.core.observe(now, Event::GuardEchoed);
        }
        if self.watch.asked + pace > now {
            return;
        }
        self.watch.asked = now;
        self.watch.missed = self.watch.missed + pace;
        if self.watch.missed.0 > ECHO_SILENCE_MS_MAX
            && self.watch.each.iter().all(|one| one.timeout.is_none())
        {
            say!("the guard does not answer");
            // No watchdog to leave it to: its death is the end of everything, and that is safe.
            process::kill_if_there(self.page.guard.load(SeqCst) as i32, libc::SIGKILL);
        }
        let withheld = self.core.withheld(now).filter(|_| self.has_watchdogs());
        if withheld.is_some() != std::mem::replace(&mut self.watch.withheld, withheld.is_some()) {
            let why = withheld.map(|why| self.why_withheld(why)).unwrap_or_default();
            match withheld {
                Some(_) => self.tell(format_args!("no watchdog is fed: {why}")),
                None => self.tell(format_args!("watchdogs are fed again")),
            }
            self.note_withheld(&why);
            self.publish_health();
        }
        if self.watch.retry_at.is_some_and(|at| at <= now) {
            self.watch.retry_at = None;
            self.look_for_lines();
            for place in 0..WATCHDOG_COUNT_MAX {
                if self.watch.each[place].timeout.is_none() {
                    self.arm(place);
                }
            }
            self.set_pace();
        }
    }

    /// `Action::Feed`: every watchdog, once.
    pub(super) fn feed(&mut self) {
        let now = clock::now();
        for (slot, watched) in self.page.watchdogs.iter().zip(&mut self.watch.each) {
            let Some(number) = slot.descriptors()[0].filter(|_| watched.timeout.is_some()) else { continue };
            let config = watched.config.and_then(|index| self.in_force.config.board.watchdogs.get(index));
            let done = match config.map(|config| &config.target) {
                Some(WatchdogTarget::Pulse { pulse, .. }) => {
                    watched.pulse_until = Some(now + *pulse);
                    gpio::drive(poll::borrow(number), gpio::flag::OUTPUT, true)
                }
                _ => watchdog::feed(poll::borrow(number)),
            };
            match done {
                Ok(()) => {
                    slot.fed_at.store(now.0, SeqCst);
                    let took = clock::now().since(now);
                    if took > PULSE_TIME_MAX && !std::mem::replace(&mut watched.is_slow, true) {
                        say!("feeding a watchdog took {} ms, in which nothing else was done", took.0);
                    }
                }
                Err(error) if !watched.note.starts_with(NOT_FED) => {
                    write_cut(&mut watched.note, format_args!("{NOT_FED}{error}"));
                    say!("{}", watched.note);
                }
                Err(_) => {}
            }
        }
    }

    /// When the first pulse is over.
    pub(super) fn pulse_deadline(&self) -> Option<Instant> {
        self.watch.each.iter().filter_map(|watched| watched.pulse_until).min()
    }

    fn end_pulses(&mut self, now: Instant) {
        for (slot, watched) in self.page.watchdogs.iter().zip(&mut self.watch.each) {
            if watched.pulse_until.is_some_and(|until| until <= now) {
                watched.pulse_until = None;
                if let [Some(number), _] = slot.descriptors() {
                    // What fails here fails at the next feed, and is said there.
                    let _ = gpio::drive(poll::borrow(number), gpio::flag::OUTPUT, false);
                }
            }
        }
    }

    /// Why no watchdog is fed.
    fn why_withheld(&self, withheld: Withheld) -> Text {
        let mut text = Text::new();
        match withheld {
            Withheld::Guard => write_cut(&mut text, format_args!("the guard does not answer")),
            Withheld::Outputs(child) => {
                let entry = self.table.get(child.index()).and_then(Option::as_ref);
                let name = entry.map_or("", |entry| entry.name());
                write_cut(&mut text, format_args!("outputs of {name} are not confirmed safe"));
            }
        }
        text
    }

    /// Timeouts of those that are armed.
    pub(super) fn armed_watchdogs(&self) -> impl Iterator<Item = Millis> {
        self.watch.each.iter().filter_map(|watched| watched.timeout)
    }

    pub(super) fn has_watchdogs(&self) -> bool {
        !self.in_force.config.board.watchdogs.is_empty() || self.armed_watchdogs().next().is_some()
    }

    /// What an operator must know of the watchdogs, a sentence each, as long as it is so.
    pub(super) fn watch_limitations(&self, add: &mut dyn FnMut(core::fmt::Arguments)) {
        let config = &self.in_force.config.board.watchdogs;
        for watched in &self.watch.each {
            match watched.config.and_then(|index| config.get(index)) {
                _ if watched.note.is_empty() => {}
                Some(config) => add(format_args!("{}", watched.sentence(config))),
                None => add(format_args!("{}", watched.note)),
            }
        }
        if let Some(why) = self.core.withheld(clock::now()).filter(|_| self.has_watchdogs()) {
            add(format_args!("no watchdog is fed: {}", self.why_withheld(why)));
        }
    }

    /// For `multusctl watchdog`.
    pub(super) fn watch_report(&self) -> Reply {
        let now = clock::now();
        let mut watchdogs = heapless::Vec::new();
        for (index, config) in self.in_force.config.board.watchdogs.iter().enumerate() {
            let own = |watched: &Watched| watched.config == Some(index);
            let Some(place) = self.watch.each.iter().position(own) else { continue };
            let (slot, watched) = (&self.page.watchdogs[place], &self.watch.each[place]);
            let mut what = heapless::String::new();
            let mut left_ms = None;
            match (&config.target, slot.descriptors()) {
                (WatchdogTarget::Device(path), [number, _]) => {
                    write_cut(&mut what, format_args!("{path}"));
                    let left =
                        number.and_then(|number| watchdog::number(poll::borrow(number), Number::TimeLeft));
                    left_ms = left.map(|left| u64::from(left) * 1000);
                }
                (WatchdogTarget::Pulse { feed, .. }, _) => write_line(&mut what, feed),
            }
            let fed_at = slot.fed_at.load(SeqCst);
            // There is a place for each.
            let _ = watchdogs.push(protocol::Watchdog {
                name: report::name(&config.name),
                what,
                asked_ms: config.timeout.0,
                timeout_ms: watched.timeout.map(|timeout| timeout.0),
                pretimeout_ms: Some(watched.pretimeout.0).filter(|time| *time > 0),
                left_ms,
                fed_ms: (fed_at != 0).then(|| now.since(Instant(fed_at)).0),
                note: watched.note.clone(),
            });
        }
        Reply::Watchdogs {
            watchdogs,
            withheld: self.core.withheld(now).map_or_else(Text::new, |why| self.why_withheld(why)),
            temperature: self.temperature_report(now),
        }
    }
}

/// A watchdog by its name or, where it has none, by what it is.
struct Named<'a>(&'a Watchdog);

impl core::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        match &self.0.target {
            _ if !self.0.name.is_empty() => write!(f, "watchdog {}", self.0.name),
            WatchdogTarget::Device(path) => f.write_str(path),
            WatchdogTarget::Pulse { .. } => f.write_str("watchdog"),
        }
    }
}

/// Why a watchdog is not ours.
enum Trouble {
    /// It is systemd's.
    Systemd,
    /// Its line may wait.
    MayWait,
    /// The kernel says no.
    Sys(SysError),
}

impl Trouble {
    fn is_worth_another_try(&self) -> bool {
        matches!(self, Trouble::Sys(_))
    }
}

impl core::fmt::Display for Trouble {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        match self {
            Trouble::Systemd => f.write_str("left to systemd"),
            Trouble::MayWait => f.write_str(MAY_WAIT),
            Trouble::Sys(error) => error.fmt(f),
        }
    }
}

/// Opens a device, or requests its lines: armed from here on.
fn open(
    config: &Watchdog,
    spots: &[Option<Spot>; 2],
    systemd: u8,
) -> Result<(OwnedFd, Option<OwnedFd>), Trouble> {
    match &config.target {
        WatchdogTarget::Device(_) if systemd == Systemd::Feeds as u8 => Err(Trouble::Systemd),
        WatchdogTarget::Device(path) => match watchdog::open(path) {
            Ok(device) => Ok((device, None)),
            Err(error) if error.errno == libc::EBUSY && systemd != Systemd::Absent as u8 => {
                Err(Trouble::Systemd)
            }
            Err(error) => Err(Trouble::Sys(error)),
        },
        WatchdogTarget::Pulse { .. } if spots.iter().flatten().any(|spot| spot.may_wait) => {
            Err(Trouble::MayWait)
        }
        WatchdogTarget::Pulse { enable, .. } => {
            let line = |spot: &Option<Spot>, high| {
                let spot = spot.as_ref().ok_or(SysError { operation: "GPIO line", errno: libc::ENODEV })?;
                spot.open()?.request(spot.offset, gpio::flag::OUTPUT, Some(high), 0)
            };
            let feed = line(&spots[0], false).map_err(Trouble::Sys)?;
            // High arms it.
            let enable = enable.as_ref().map(|_| line(&spots[1], true)).transpose().map_err(Trouble::Sys)?;
            Ok((feed, enable))
        }
    }
}

/// Sets the times of a device, which may not take them, and notes what there is to know of it; what it says of the
/// last reset.
fn set_up(device: BorrowedFd, config: &Watchdog, watched: &mut Watched, note: &mut Text) -> u32 {
    let mut add = |words: core::fmt::Arguments| add(note, words);
    let seconds = |time: Millis| time.0.div_ceil(1000).clamp(1, i32::MAX as u64) as u32;
    let asked = seconds(config.timeout);
    let got = watchdog::set_timeout(device, asked).unwrap_or(asked);
    watched.timeout = Some(Millis::from_secs(got.into()));
    if watched.timeout != Some(config.timeout) {
        add(format_args!("timeout = {}ms is not possible here, it is {got}s", config.timeout.0));
    }
    let asked = config.pretimeout.map_or(0, seconds);
    let got = watchdog::set_pretimeout(device, asked);
    watched.pretimeout = Millis::from_secs(got.into());
    if got != asked {
        add(format_args!("pretimeout = {asked}s is not possible here, it is {got}s"));
    }
    let cause = watchdog::number(device, Number::BootStatus).unwrap_or(0);
    for (bit, words) in [
        (flag::CARD_RESET, "the last reset was the watchdog's"),
        (flag::OVERHEAT, "the last reset was for heat"),
        (flag::POWER_UNDER, "the last reset was for low voltage"),
    ] {
        if cause & bit != 0 {
            add(format_args!("{words}"));
        }
    }
    if watchdog::flags(device).is_ok_and(|flags| flags & flag::MAGIC_CLOSE == 0) {
        add(format_args!("disarmed by whatever closes it: no reset if guard and supervisor die together"));
    }
    cause
}

/// One more thing to know of a watchdog; what does not fit is left out.
fn add(note: &mut Text, words: core::fmt::Arguments) {
    let gap = if note.is_empty() { "" } else { "; " };
    let _ = core::fmt::write(note, format_args!("{gap}{words}"));
}

/// The driver was told never to stop it. /dev/watchdog is the first one.
fn cannot_be_stopped(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or("");
    let name = if name == "watchdog" { "watchdog0" } else { name };
    let path = ["/sys/class/watchdog/", name, "/nowayout"].concat();
    file::read_bounded(Path::new(&path), 16).is_ok_and(|text| text.starts_with(b"1"))
}

/// Whether systemd is in charge, and feeds a watchdog; for jobs, as it reads files.
pub fn systemd(root: &Path) -> Systemd {
    let first = file::read(&root.join("proc/1/comm")).unwrap_or_default();
    if first != b"systemd\n" {
        return Systemd::Absent;
    }
    let mut value = String::new();
    let mut read = |path: &Path| {
        let text = String::from_utf8(file::read(path).unwrap_or_default()).unwrap_or_default();
        let said = |line: &str| {
            Some(line.trim().strip_prefix("RuntimeWatchdogSec")?.trim().strip_prefix('=')?.trim().to_owned())
        };
        text.lines().filter_map(said).for_each(|said| value = said);
    };
    read(&root.join("etc/systemd/system.conf"));
    for folder in ["usr/lib", "run", "etc"] {
        let folder = root.join(folder).join("systemd/system.conf.d");
        let mut names = Vec::new();
        file::each_name(&folder, &mut |name, _| {
            names.extend(name.to_str().ok().filter(|name| name.ends_with(".conf")).map(str::to_owned));
        });
        names.sort_unstable();
        names.iter().for_each(|name| read(&folder.join(name)));
    }
    if ["", "0", "off", "infinity", "default"].contains(&value.as_str()) {
        Systemd::Idle
    } else {
        Systemd::Feeds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_watchdog_that_systemd_feeds_is_found_out() {
        let root = std::env::temp_dir().join(format!("multusd-systemd-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        };
        put("etc/systemd/system.conf", "[Manager]\nRuntimeWatchdogSec=30s\n");
        assert_eq!(systemd(&root), Systemd::Absent, "no such first process");
        put("proc/1/comm", "init\n");
        assert_eq!(systemd(&root), Systemd::Absent);
        put("proc/1/comm", "systemd\n");
        assert_eq!(systemd(&root), Systemd::Feeds);
        put("etc/systemd/system.conf", "[Manager]\n#RuntimeWatchdogSec=30s\n");
        assert_eq!(systemd(&root), Systemd::Idle);
        put(
            "usr/lib/systemd/system.conf.d/40-rpi-enable-watchdog.conf",
            "[Manager]\nRuntimeWatchdogSec = 1m\n",
        );
        assert_eq!(systemd(&root), Systemd::Feeds);
        put("etc/systemd/system.conf.d/mine.conf", "[Manager]\nRuntimeWatchdogSec=off\n");
        assert_eq!(systemd(&root), Systemd::Idle, "the last word counts");
        fs::remove_dir_all(root).unwrap();
    }
}

//! `[status-led]`: how everything is, for whoever stands before the machine: one lamp, and a pattern for each state. What is
//! wrong comes before what is merely missing; the state that was longest in the original's hands (network, VPN) blinks as there.

use crate::config::child::{other, word};
use crate::config::{Child, Key, Settings, Wrong, key, read_duration};
use crate::sys::{SysError, clock};
use crate::time::{Instant, Millis};

use super::life::{Life, live};

/// Parts of a pattern.
const STEP_COUNT_MAX: usize = 16;
/// The shortest part: nobody sees less.
const STEP_MS_MIN: u64 = 20;

const PATTERN: &str = "a pattern such as on, off or 1s on, 200ms off";

/// States, the most urgent first; each has a key.
const STATES: [&str; 7] = ["updating", "failure", "degraded", "unknown", "no_network", "no_vpn", "good"];

macro_rules! pattern {
    ($name:literal, $default:literal, $help:literal) => {
        key!($name, other(PATTERN, |text| check(text)), $default, "200ms on, 1s off", $help)
    };
}

static KEYS: &[Key] = &[
    key!(
        "network",
        word(),
        "(none)",
        "reach.lan",
        "Value that is not 0 while there is a network (see `multusctl values`), or input that is on; none: it is taken to be there."
    ),
    key!("vpn", word(), "(none)", "openvpn.up", "The same for the VPN."),
    key!(
        "update",
        word(),
        "(none)",
        "updater.busy",
        "Value that is not 0 while software is being replaced: nobody should cut the power."
    ),
    pattern!("pattern.updating", "100ms on, 100ms off, 100ms on, 700ms off", "While software is replaced."),
    pattern!(
        "pattern.failure",
        "100ms on, 100ms off",
        "A program is given up or held, an output is not confirmed safe, a watchdog is not fed."
    ),
    pattern!("pattern.degraded", "1900ms on, 100ms off", "A program is down and will be tried again."),
    pattern!("pattern.unknown", "off", "Network or VPN: whoever should know does not say."),
    pattern!("pattern.no_network", "1s on, 1s off", "No network."),
    pattern!("pattern.no_vpn", "3s on, 3s off", "Network, but no VPN."),
    pattern!("pattern.good", "on", "All is well."),
];

/// Its row.
pub const CHILD: Child = Child {
    word: "status-led",
    header: "[status-led]",
    named: false,
    drives: true,
    title: "A lamp that shows how everything is",
    keys: KEYS,
    program: super::SUPERVISED,
    check: |settings| match settings.outputs.is_empty() {
        true => Err((
            "gpio",
            "has no lamp; write for example gpio = 21, or path = /sys/class/leds/ACT/brightness".into(),
        )),
        false => Ok(()),
    },
    run: |settings| live(c"multusd-status-led", |life| serve(life, settings)),
};

/// On for so long, off for so long, and again from the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(heapless::Vec<(bool, Millis), STEP_COUNT_MAX>);

impl Pattern {
    fn read(text: &str) -> Option<Pattern> {
        let mut steps = heapless::Vec::new();
        if let Some(on) = level(text.trim()) {
            let _ = steps.push((on, Millis(0)));
            return Some(Pattern(steps));
        }
        for step in text.split(',') {
            let (time, on) = step.trim().split_once(' ')?;
            let time = read_duration(time).filter(|time| time.0 >= STEP_MS_MIN)?;
            steps.push((level(on.trim())?, time)).ok()?;
        }
        Some(Pattern(steps))
    }

    /// The level so long after its beginning, and how long it stays so (none: for ever).
    fn at(&self, passed: Millis) -> (bool, Option<Millis>) {
        let all: u64 = self.0.iter().map(|(_, time)| time.0).sum();
        if all == 0 {
            return (self.0.first().is_some_and(|(on, _)| *on), None);
        }
        let mut left = passed.0 % all;
        for (on, time) in &self.0 {
            if left < time.0 {
                return (*on, Some(Millis(time.0 - left)));
            }
            left -= time.0;
        }
        (false, None)
    }
}

fn level(word: &str) -> Option<bool> {
    match word {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn check(text: &str) -> Result<(), Wrong> {
    Pattern::read(text).map(drop).ok_or(Wrong::Kind)
}

/// What is known of the machine. None: nobody says; outer none of the first three: nobody is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    network: Option<Option<bool>>,
    vpn: Option<Option<bool>>,
    update: Option<Option<bool>>,
    failed: Option<bool>,
    failing: Option<bool>,
}

/// The index of the state among [`STATES`].
fn state(seen: &Seen) -> usize {
    match seen {
        Seen { update: Some(Some(true)), .. } => 0,
        Seen { failed: Some(true), .. } => 1,
        Seen { failing: Some(true), .. } => 2,
        Seen { failed: None, .. } | Seen { failing: None, .. } | Seen { network: Some(None), .. } => 3,
        Seen { network: Some(Some(false)), .. } => 4,
        Seen { vpn: Some(None), .. } => 3,
        Seen { vpn: Some(Some(false)), .. } => 5,
        _ => 6,
    }
}

/// The lamp; reads no clock and touches nothing.
struct Lamp {
    patterns: [Pattern; STATES.len()],
    state: usize,
    /// When the state's pattern began.
    since: Instant,
}

impl Lamp {
    /// The level from now on, and when to look again (none: nothing changes by itself).
    fn step(&mut self, now: Instant, seen: &Seen) -> (bool, Option<Instant>) {
        let state = state(seen);
        if state != self.state {
            (self.state, self.since) = (state, now);
        }
        let (level, left) = self.patterns[state].at(now.since(self.since));
        (level, left.map(|left| now + left))
    }
}

/// Token of what was published.
const CHANGES: u64 = 0;

fn serve(life: &mut Life, settings: &Settings) -> Result<(), SysError> {
    let text = |name: &str| settings.text(KEYS, name);
    let patterns = STATES.map(|state| {
        // It was found to be right where the configuration was read.
        Pattern::read(text(&["pattern.", state].concat())).unwrap_or(Pattern(heapless::Vec::new()))
    });
    let [network, vpn, update] = ["network", "vpn", "update"].map(text);
    let mut lamp = Lamp { patterns, state: STATES.len(), since: Instant(0) };
    let outputs = life.outputs(settings);
    let mut shown = None;
    life.changes(CHANGES)?;
    loop {
        let is = |name: &str| match life.multusd.published(name) {
            Some(value) => value.now(clock::now()).map(|milli| milli != 0),
            // An input may say it as well: a switch for service, say.
            None => life.multusd.input(name)?.on,
        };
        let asked = |name: &str| (!name.is_empty()).then(|| is(name));
        let seen = Seen {
            network: asked(network),
            vpn: asked(vpn),
            update: asked(update),
            failed: is("multusd.failed"),
            failing: is("multusd.failing"),
        };
        let before = lamp.state;
        let (level, until) = lamp.step(clock::now(), &seen);
        if shown.replace(level) != Some(level) {
            outputs.iter().try_for_each(|output| output.set(level))?;
        }
        if before != lamp.state {
            life.multusd.status(STATES[lamp.state])?;
            if before == STATES.len() {
                life.multusd.ready()?;
            }
        }
        if life.wait(until)?.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::read(text).unwrap()
    }

    #[test]
    fn a_pattern_is_on_or_off_or_times_of_both() {
        assert_eq!(pattern("on").at(Millis(7)), (true, None));
        assert_eq!(pattern(" off ").at(Millis(7)), (false, None));
        let three = pattern("1s on, 200ms off,50ms on");
        for (passed, expected) in [
            (0, (true, 1000)),
            (999, (true, 1)),
            (1000, (false, 200)),
            (1200, (true, 50)),
            (1250, (true, 1000)),
            (125_000_001_100, (false, 100)),
        ] {
            let (level, left) = three.at(Millis(passed));
            assert_eq!((level, left.unwrap().0), expected, "{passed}");
        }
        let long = vec!["1s on"; STEP_COUNT_MAX + 1].join(",");
        for wrong in ["", "blink", "1s", "1 on", "1s on,", "on, off", "19ms on, 1s off", "1s on off", &long] {
            assert_eq!(Pattern::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_state_is_reached_and_the_most_urgent_is_shown() {
        let good = Seen {
            network: Some(Some(true)),
            vpn: Some(Some(true)),
            update: Some(Some(false)),
            failed: Some(false),
            failing: Some(false),
        };
        let named = |seen: Seen| STATES[state(&seen)];
        assert_eq!(named(good), "good");
        assert_eq!(named(Seen { network: None, vpn: None, update: None, ..good }), "good", "nobody is asked");
        assert_eq!(named(Seen { vpn: Some(Some(false)), ..good }), "no_vpn");
        assert_eq!(named(Seen { vpn: Some(None), ..good }), "unknown");
        let no_network = Seen { network: Some(Some(false)), vpn: Some(None), ..good };
        assert_eq!(named(no_network), "no_network", "without it a VPN is no question");
        assert_eq!(named(Seen { network: Some(None), ..good }), "unknown");
        assert_eq!(named(Seen { failed: None, ..good }), "unknown");
        assert_eq!(named(Seen { failing: Some(true), ..no_network }), "degraded");
        let failure = Seen { failed: Some(true), failing: Some(true), ..no_network };
        assert_eq!(named(failure), "failure");
        assert_eq!(named(Seen { update: Some(Some(true)), ..failure }), "updating");
        assert_eq!(
            named(Seen { update: Some(None), ..good }),
            "good",
            "an updater that is gone updates nothing"
        );
    }

    #[test]
    fn a_new_state_begins_its_pattern_and_an_old_one_goes_on_without_drifting() {
        let patterns = STATES.map(|state| pattern(if state == "good" { "on" } else { "1s off, 1s on" }));
        let mut lamp = Lamp { patterns, state: STATES.len(), since: Instant(0) };
        let at = |ms: u64| Instant(0) + Millis(ms);
        let good = Seen { failed: Some(false), failing: Some(false), ..Seen::default() };
        let failing = Seen { failing: Some(true), ..good };
        assert_eq!(lamp.step(at(0), &good), (true, None));
        assert_eq!(lamp.step(at(5500), &failing), (false, Some(at(6500))));
        // Late by 13 ms: the next change is not.
        assert_eq!(lamp.step(at(6513), &failing), (true, Some(at(7500))));
        assert_eq!(lamp.step(at(8000), &good), (true, None));
    }
}

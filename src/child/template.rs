//! `[template]`: the smallest useful child, to be copied for one's own (docs/children.md). It switches its outputs on and
//! off, like a lamp that blinks.

use crate::config::child::{duration, number};
use crate::config::{Child, Key, Settings, key, read_duration};
use crate::sys::{SysError, clock};
use crate::time::{Instant, Millis};

use super::life::{Life, live};

static KEYS: &[Key] = &[
    key!("on", duration(10), "1s", "200ms", "Its outputs are on for so long."),
    key!("off", duration(10), "1s", "2s", "Then they are off for so long."),
    key!("times", number(0, 1_000_000), "0", "3", "After so many times they stay off; 0 is never."),
];

/// Its row.
pub const CHILD: Child = Child {
    word: "template",
    header: "[template:NAME]",
    named: true,
    drives: true,
    title: "A child to copy",
    keys: KEYS,
    program: super::SUPERVISED,
    check: |settings| match settings.outputs.is_empty() {
        true => Err(("outputs", "has no outputs to switch; write for example outputs = lamp".into())),
        false => Ok(()),
    },
    run,
};

/// What it does; reads no clock and touches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Blinker {
    on: Millis,
    off: Millis,
    /// None: for ever.
    left: Option<u64>,
    is_on: bool,
    /// When it changes.
    until: Instant,
}

impl Blinker {
    fn new(on: Millis, off: Millis, times: u64, now: Instant) -> Blinker {
        Blinker { on, off, left: (times > 0).then_some(times), is_on: false, until: now }
    }

    /// The level from now on, and when to ask again (never: nothing changes any more).
    fn step(&mut self, now: Instant) -> (bool, Option<Instant>) {
        if now < self.until {
            return (self.is_on, Some(self.until));
        }
        if !self.is_on && self.left == Some(0) {
            return (false, None);
        }
        self.is_on = !self.is_on;
        if self.is_on {
            self.left = self.left.map(|left| left - 1);
        }
        self.until = now + if self.is_on { self.on } else { self.off };
        (self.is_on, Some(self.until))
    }
}

fn run(settings: &Settings) -> u8 {
    live(c"multusd-template", |life| serve(life, settings))
}

fn serve(life: &mut Life, settings: &Settings) -> Result<(), SysError> {
    // They were found to be right where the configuration was read.
    let time = |name| read_duration(settings.text(KEYS, name)).unwrap_or(Millis(1000));
    let times = settings.text(KEYS, "times").parse().unwrap_or(0);
    let mut blinker = Blinker::new(time("on"), time("off"), times, clock::now());
    let outputs = life.outputs(settings);
    life.multusd.ready()?;
    loop {
        let (level, until) = blinker.step(clock::now());
        for output in &outputs {
            output.set(level)?;
        }
        if life.wait(until)?.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_on_and_off_for_as_long_as_it_says_and_as_often() {
        let at = |ms: u64| Instant(0) + Millis(ms);
        let mut blinker = Blinker::new(Millis(200), Millis(300), 2, at(0));
        let mut changes = Vec::new();
        let mut now = at(0);
        while let (level, Some(next)) = blinker.step(now) {
            changes.push((now, level));
            now = next;
        }
        assert_eq!(changes, [(at(0), true), (at(200), false), (at(500), true), (at(700), false)]);
        assert_eq!(blinker.step(at(5000)), (false, None));
    }

    #[test]
    fn asked_too_early_it_changes_nothing() {
        let mut blinker = Blinker::new(Millis(200), Millis(300), 0, Instant(0));
        let first = blinker.step(Instant(0));
        assert_eq!(blinker.step(Instant(1)), first);
    }
}

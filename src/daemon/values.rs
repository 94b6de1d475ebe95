//! Values that programs publish (`MULTUSD_VALUE=` on their NOTIFY_SOCKET), or somebody by `multusctl publish`; and how
//! everything is, which is published too. They stand on a page that bundled children read (its layout: `sys/values.rs`).

use crate::config::{read_duration, thousandths};
use crate::protocol::{Refusal, Reply, Text, ValueStatus};
use crate::supervisor::{ChildId, State};
use crate::sys::page::Keep;
use crate::sys::values::{Name, Value, Values};
use crate::sys::{SysError, clock, poll};
use crate::time::Instant;

use super::Daemon;
use super::control::refused;
use super::news::travel;
use super::report;

/// Programs that are down although they are to run: some try again.
pub const FAILING: &str = "multusd.failing";
/// Programs that are given up or held, outputs that are not confirmed safe, watchdogs that are not fed.
pub const FAILED: &str = "multusd.failed";
/// 1: the watchdogs are fed, 0: they are not; there is none where there are no watchdogs.
pub const WATCHDOG: &str = "multusd.watchdog";
/// Thousandths of a degree, where a temperature is watched.
pub const TEMPERATURE: &str = "multusd.temperature";

/// What a value may be called: it stands in configurations and tables.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name.bytes().all(is_plain) && !name.starts_with('.') && !name.ends_with('.')
}

/// `outside -23.5 unit=C raw=17 for=5s`: the name, and the value; `unknown` is none.
fn understand(words: &str, now: Instant) -> Option<(&str, Value)> {
    let mut words = words.split(' ').filter(|word| !word.is_empty());
    let (name, value) = (words.next()?, words.next()?);
    let milli = if value == "unknown" { None } else { Some(thousandths(value)?) };
    let mut value = Value { milli, at: now, ..Value::default() };
    for word in words {
        match word.split_once('=')? {
            ("unit", unit) => value.unit = unit.try_into().ok()?,
            ("raw", raw) => value.raw = raw.parse().ok()?,
            ("for", time) => value.until = Some(now + read_duration(time)?),
            _ => return None,
        }
    }
    is_name(name).then_some((name, value))
}

impl Daemon {
    /// The page, made when it is needed first.
    pub(super) fn open_values(&mut self) -> Result<Values, SysError> {
        if let Some(values) = self.values {
            return Ok(values);
        }
        if self.page.kept(Keep::Values).is_none() {
            let (memory, read) = Values::create()?;
            self.page.keep(Keep::ValuesRead, Some(read));
            self.page.keep(Keep::Values, Some(memory));
        }
        let number = self.page.kept(Keep::Values).unwrap_or(-1);
        let values = Values::map(poll::borrow(number))?;
        self.values = Some(values);
        self.publish_health();
        self.publish_temperature();
        Ok(values)
    }

    /// What a former supervisor's programs published is still so.
    pub(super) fn adopt_values(&mut self) {
        if self.page.kept(Keep::Values).is_some()
            && let Err(error) = self.open_values()
        {
            say!("no values: {error}");
        }
    }

    fn publish_value(&mut self, name: &str, value: &Value) -> Result<(), SysError> {
        let full = SysError { operation: "value", errno: libc::ENOSPC };
        let has_room = self.open_values()?.publish(name, value);
        self.say_changes();
        if has_room { Ok(()) } else { Err(full) }
    }

    /// A program has published one: it is called after it.
    pub(super) fn take_value(&mut self, child: ChildId, words: &str) {
        let now = clock::now();
        let Some(entry) = self.table[child.index()].as_ref() else { return };
        let mut name = Name::new();
        let taken = match understand(words, now) {
            Some((own, value)) if [entry.name(), ".", own].iter().all(|part| name.push_str(part).is_ok()) => {
                self.publish_value(&name, &value)
            }
            _ => Err(SysError { operation: "MULTUSD_VALUE", errno: libc::EINVAL }),
        };
        // Said once, not at every measurement.
        if let (Err(error), Some(entry)) = (taken, self.entry(child))
            && !entry.value_refused
        {
            entry.value_refused = true;
            let name = report::name(entry.name());
            self.tell(format_args!("{name}: a value that is not taken ({error}): {words}"));
        }
    }

    /// It leaves, and so does what it has published.
    pub(super) fn forget_values(&mut self, program: &str) {
        if let Some(values) = self.values {
            values.remove(program);
            self.say_changes();
        }
    }

    /// `multusctl publish`
    pub(super) fn publish_by_hand(&mut self, words: &str) -> Reply {
        let Some((name, value)) = understand(words, clock::now()) else {
            return refused(Refusal::BadRequest, format_args!("this is no value"));
        };
        match self.publish_value(name, &value) {
            Ok(()) => Reply::Done { text: Text::new() },
            Err(error) => refused(Refusal::Failed, format_args!("{error}")),
        }
    }

    /// How everything is, where anybody looks at it.
    pub(super) fn publish_health(&self) {
        let Some(values) = self.values else { return };
        let (mut failing, mut failed, mut is_new) = (0, 0, false);
        for index in 0..self.table.len() {
            let status = self.core.status(ChildId(index as u16));
            let Some((status, entry)) = status.zip(self.table[index].as_ref()) else {
                is_new |= values.publish_program(index, "", 0, 0, Instant(0));
                continue;
            };
            let state = travel(status.state) as u8;
            is_new |= values.publish_program(index, entry.name(), state, status.restarts, status.since);
            match status.state {
                State::Backoff => failing += 1,
                State::Fatal | State::Held => failed += 1,
                _ => {}
            }
        }
        failed += self.unconfirmed_outputs() as i64 + i64::from(self.watch.is_withheld());
        is_new |= self.publish_own(FAILING, Some(failing * 1000));
        is_new |= self.publish_own(FAILED, Some(failed * 1000));
        if self.has_watchdogs() {
            is_new |= self.publish_own(WATCHDOG, Some(1000 * i64::from(!self.watch.is_withheld())));
        }
        if is_new {
            self.say_changes();
        }
    }

    /// What the sensor says that decides whether programs may run; none: it cannot be read.
    pub(super) fn publish_temperature(&self) {
        let is_watched = self.in_force.config.board.temperature.is_some();
        if is_watched && self.publish_own(TEMPERATURE, self.reading().map(i64::from)) {
            self.say_changes();
        }
    }

    /// A value of multusd's own; there is a place for the few it has as long as nobody else has taken all. False: it
    /// is as it was.
    fn publish_own(&self, name: &str, milli: Option<i64>) -> bool {
        let Some(values) = self.values.filter(|values| values.milli(name) != Some(milli)) else {
            return false;
        };
        let unit = if name == TEMPERATURE { "C" } else { "" };
        let raw = milli.unwrap_or(0);
        let (unit, at) = (unit.try_into().unwrap_or_default(), clock::now());
        values.publish(name, &Value { milli, raw, unit, at, until: None })
    }

    /// A page of them for a client.
    pub(super) fn values_page(&self, from: u16) -> Reply {
        let mut all = heapless::Vec::new();
        let now = clock::now();
        for index in usize::from(from).. {
            let Some((name, value)) = self.values.and_then(|values| values.at(index)) else { break };
            if name.is_empty() {
                continue;
            }
            if all.is_full() {
                return Reply::Values { values: all, next: Some(index as u16) };
            }
            // Not full, so there is a place.
            let _ = all.push(ValueStatus {
                name: report::name(&name),
                milli: value.now(now),
                raw: value.raw,
                unit: value.unit.clone(),
                age_ms: now.since(value.at).0,
                left_ms: value.until.map(|until| until.since(now).0),
            });
        }
        Reply::Values { values: all, next: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Millis;

    #[test]
    fn a_value_has_a_name_a_number_and_maybe_more() {
        let at = Instant(0) + Millis(1000);
        let read = |words| understand(words, at).map(|(name, value)| (name.to_owned(), value));
        let plain = Value { milli: Some(-23_500), at, ..Value::default() };
        assert_eq!(read("outside -23.5"), Some(("outside".into(), plain.clone())));
        let full = Value { raw: -17, unit: "C".try_into().unwrap(), until: Some(at + Millis(5000)), ..plain };
        assert_eq!(read("outside -23.5 unit=C raw=-17 for=5s"), Some(("outside".into(), full)));
        assert_eq!(read("a unknown").unwrap().1.milli, None);
        for wrong in [
            "",
            "a",
            "a b",
            "a 1.2345",
            "a 1 unit",
            "a 1 unit=sixteen-letters-",
            "a 1 for=5",
            "a 1 raw=x",
            "a=1",
            ".a 1",
            "a. 1",
            "a/b 1",
            "a 1 x=2",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}

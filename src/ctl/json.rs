//! `--json`: the names and shapes promised to programs, fixed by a golden test. They are written
//! down here a second time so that the wire may change without them. Nothing is ever left out:
//! what there is not is null.

use nanoserde::{SerJson, SerJsonState};

use super::lines::{state, voltage};
use super::log::{LogUse, RingUse};
use crate::protocol::{
    Boot, DaemonStatus, Event, InputStatus, LiveTimes, OutputStatus, ProgramStatus, State, Temperature,
    ValueStatus, Watchdog,
};

/// Text that grows, field by field. What stands in a list has the name "".
struct Json(String);

impl Json {
    /// What every command writes: one object.
    fn new() -> Json {
        Json("{".into())
    }

    /// On a line of its own.
    fn end(self) -> String {
        self.0 + "}\n"
    }

    fn key(&mut self, name: &str) {
        if !self.0.ends_with(['{', '[']) {
            self.0.push(',');
        }
        if !name.is_empty() {
            self.quoted(name);
            self.0.push(':');
        }
    }

    fn quoted(&mut self, text: &str) {
        let mut state = SerJsonState::new(std::mem::take(&mut self.0));
        text.ser_json(0, &mut state);
        self.0 = state.out;
    }

    fn open(&mut self, name: &str, bracket: char) {
        self.key(name);
        self.0.push(bracket);
    }

    fn close(&mut self, bracket: char) {
        self.0.push(bracket);
    }

    /// Something that is written as it is: a number, true, false, null.
    fn word(&mut self, name: &str, word: &str) {
        self.key(name);
        self.0 += word;
    }

    fn text(&mut self, name: &str, text: &str) {
        self.key(name);
        self.quoted(text);
    }

    /// A text, or null where it is empty.
    fn some(&mut self, name: &str, text: &str) {
        if text.is_empty() { self.word(name, "null") } else { self.text(name, text) }
    }

    fn flag(&mut self, name: &str, flag: Option<bool>) {
        self.word(name, flag.map_or("null", |flag| if flag { "true" } else { "false" }));
    }

    fn level(&mut self, high: Option<bool>) {
        self.some("level", high.map_or("", voltage));
    }

    fn number(&mut self, name: &str, number: u64) {
        self.word(name, &number.to_string());
    }

    fn maybe(&mut self, name: &str, number: Option<u64>) {
        match number {
            Some(number) => self.number(name, number),
            None => self.word(name, "null"),
        }
    }

    fn signed(&mut self, name: &str, number: i32) {
        self.word(name, &number.to_string());
    }
}

/// The watchdogs and the temperature, as one object on one line.
pub fn watchdogs(watchdogs: &[Watchdog], withheld: &str, temperature: Option<&Temperature>) -> String {
    let mut json = Json::new();
    json.open("watchdogs", '[');
    for watchdog in watchdogs {
        json.open("", '{');
        json.text("name", &watchdog.name);
        json.text("what", &watchdog.what);
        json.number("asked_ms", watchdog.asked_ms);
        json.maybe("timeout_ms", watchdog.timeout_ms);
        json.maybe("pretimeout_ms", watchdog.pretimeout_ms);
        json.maybe("left_ms", watchdog.left_ms);
        json.maybe("fed_ms", watchdog.fed_ms);
        json.some("note", &watchdog.note);
        json.close('}');
    }
    json.close(']');
    json.some("withheld", withheld);
    if let Some(temperature) = temperature {
        json.open("temperature", '{');
        match temperature.now {
            Some(now) => json.signed("millidegrees", now),
            None => json.word("millidegrees", "null"),
        }
        json.signed("min", temperature.min);
        json.signed("max", temperature.max);
        json.signed("hysteresis", temperature.hysteresis);
        json.maybe("age_ms", temperature.age_ms);
        json.flag("open", Some(temperature.open));
        json.text("text", &temperature.text);
        json.close('}');
    } else {
        json.word("temperature", "null");
    }
    json.end()
}

/// The last boots, as one object on one line.
pub fn boots(boots: &[Boot]) -> String {
    let mut json = Json::new();
    json.open("boots", '[');
    for boot in boots {
        json.open("", '{');
        json.number("number", boot.number.into());
        json.text("end", boot.end.names().0);
        json.some("why", &boot.why);
        json.close('}');
    }
    json.close(']');
    json.end()
}

/// The daemon and programs, as one object on one line.
pub fn status(daemon: &DaemonStatus, live: &LiveTimes, boots: &[Boot], programs: &[ProgramStatus]) -> String {
    let mut json = Json::new();
    json.text("version", &daemon.version);
    json.number("guard_pid", daemon.guard_pid.into());
    json.number("supervisor_pid", daemon.supervisor_pid.into());
    json.number("uptime_ms", daemon.uptime_ms);
    json.number("supervisor_restarts", daemon.supervisor_restarts.into());
    json.maybe("shutdown_in_ms", daemon.shutdown_in_ms);
    json.some("config_note", &daemon.config_note);
    json.open("limitations", '[');
    for limitation in &daemon.limitations {
        json.text("", limitation);
    }
    json.close(']');
    if live.outputs > 0 {
        json.open("live_ms", '{');
        json.maybe("crash", live.crash_ms);
        json.maybe("hang", live.hang_ms);
        json.maybe("supervisor", live.supervisor_ms);
        json.maybe("guard", live.guard_ms);
        json.maybe("kernel", live.kernel_ms);
        json.close('}');
    } else {
        json.word("live_ms", "null");
    }
    if let [now, before, ..] = boots {
        json.open("boot", '{');
        json.number("number", now.number.into());
        json.text("after", before.end.names().0);
        json.some("why", &before.why);
        json.close('}');
    } else {
        json.word("boot", "null");
    }
    json.open("programs", '[');
    for one in programs {
        program(&mut json, one);
    }
    json.close(']');
    json.end()
}

fn program(json: &mut Json, program: &ProgramStatus) {
    let alive = program.pid != 0;
    json.open("", '{');
    json.text("name", &program.name);
    json.text("state", program.state.name());
    json.maybe("pid", alive.then_some(program.pid.into()));
    json.number("restarts", program.restarts.into());
    json.number("failures", program.failures.into());
    json.maybe("uptime_ms", alive.then_some(program.uptime_ms));
    json.number("since_ms", program.since_ms);
    json.maybe("next_start_ms", program.next_start_ms);
    if let Some(exit) = program.last_exit {
        json.open("last_exit", '{');
        json.maybe("code", exit.code.map(u64::from));
        json.maybe("signal", exit.signal.map(u64::from));
        json.close('}');
    } else {
        json.word("last_exit", "null");
    }
    json.some("reason", &program.reason);
    json.some("status_text", &program.status_text);
    if let Some(beat) = program.heartbeat {
        json.open("heartbeat", '{');
        json.number("age_ms", beat.age_ms);
        json.number("limit_ms", beat.limit_ms);
        json.close('}');
    } else {
        json.word("heartbeat", "null");
    }
    json.open("outputs", '[');
    for output in &program.outputs {
        json.open("", '{');
        json.text("name", &output.name);
        json.level(output.level);
        json.flag("safe", Some(output.safe));
        json.close('}');
    }
    json.close(']');
    json.close('}');
}

/// One event, as one object on one line.
pub fn event(event: &Event) -> String {
    // An event without a program is about the daemon, which has none of the states.
    let state = |state: State| if event.name.is_empty() { "" } else { state.name() };
    let mut json = Json::new();
    json.number("seq", event.seq);
    json.number("at_ms", event.at_ms);
    json.some("name", &event.name);
    json.some("from", state(event.from));
    json.some("to", state(event.to));
    json.maybe("pid", (event.pid != 0).then_some(event.pid.into()));
    json.some("reason", &event.reason);
    json.end()
}

/// A line that a program wrote, as an object on a line of its own.
pub fn log_line(name: &str, is_err: bool, date: &str, at_ms: Option<u64>, text: &str) -> String {
    let mut json = Json::new();
    json.text("name", name);
    json.text("stream", if is_err { "stderr" } else { "stdout" });
    json.some("date", date);
    json.maybe("at_ms", at_ms);
    json.text("text", text);
    json.end()
}

/// What logs cost, as one object on one line.
pub fn log_usage(ring: &RingUse, programs: &[LogUse]) -> String {
    let mut json = Json::new();
    json.number("ring_bytes", ring.size);
    json.number("waiting_bytes", ring.waiting);
    json.flag("storage_fails", Some(ring.storage_fails));
    json.open("programs", '[');
    for program in programs {
        json.open("", '{');
        json.text("name", program.name);
        json.number("said_bytes", program.said);
        json.number("written_today_bytes", program.today);
        json.number("written_bytes", program.written);
        json.number("dropped_lines", program.dropped);
        json.number("unrelayed_lines", program.unrelayed);
        json.close('}');
    }
    json.close(']');
    json.end()
}

/// Inputs, as one object on one line.
pub fn inputs(inputs: &[InputStatus]) -> String {
    let mut json = Json::new();
    json.open("inputs", '[');
    for input in inputs {
        json.open("", '{');
        json.text("name", &input.name);
        json.text("wire", &input.wire);
        json.level(input.level);
        json.flag("active", input.level.map(|high| high != input.active_low));
        json.number("edges", input.edges);
        json.maybe("age_ms", input.age_ms);
        json.some("reason", &input.reason);
        json.close('}');
    }
    json.close(']');
    json.end()
}

/// Values, likewise.
pub fn values(values: &[ValueStatus]) -> String {
    let mut json = Json::new();
    json.open("values", '[');
    for value in values {
        json.open("", '{');
        json.text("name", &value.name);
        json.word("value", &value.milli.map_or("null".into(), crate::config::milli_text));
        json.word("raw", &value.raw.to_string());
        json.text("unit", &value.unit);
        json.number("age_ms", value.age_ms);
        json.maybe("left_ms", value.left_ms);
        json.close('}');
    }
    json.close(']');
    json.end()
}

/// Outputs, likewise.
pub fn outputs(outputs: &[OutputStatus]) -> String {
    let mut json = Json::new();
    json.open("outputs", '[');
    for output in outputs {
        json.open("", '{');
        json.text("name", &output.name);
        json.text("wire", &output.wire);
        json.level(output.level);
        json.flag("active", output.level.map(|high| high != output.active_low));
        json.text("state", state(output.state));
        json.flag("safe", Some(output.safe));
        json.maybe("confirmed_ms", output.confirmed_ms);
        json.some("owner", &output.owner);
        json.some("reason", &output.reason);
        json.close('}');
    }
    json.close(']');
    json.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nanoserde::DeJson;

    #[test]
    fn every_letter_comes_back() {
        let all: String = ('\0'..='\u{ff}').chain(['\u{2028}', '€', '😀']).collect();
        let mut json = Json::new();
        json.text(&all, &all);
        json.text("plain", "\x1f\x7f");
        let line = json.end();
        assert!(!line.trim_end_matches('\n').contains(|letter: char| letter.is_ascii_control()), "{line}");
        assert!(line.ends_with("\"plain\":\"\\u001f\\u007f\"}\n"), "{line}");
        let read = std::collections::HashMap::<String, String>::deserialize_json(&line).unwrap();
        assert_eq!(read.get(&all), Some(&all));
    }
}

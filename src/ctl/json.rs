//! `--json`: the names and shapes promised to programs, fixed by a golden test. They are written
//! down here a second time so that the wire may change without them. Nothing is ever left out:
//! what there is not is null. nanoserde does that, and escapes what has to be.

use nanoserde::SerJson;

use super::lines::{state, voltage};
use crate::protocol::{
    self, DaemonStatus, Event, InputStatus, LiveTimes, OutputStatus, ProgramStatus, State,
};

#[derive(SerJson)]
#[nserde(serialize_none_as_null)]
struct Status {
    version: String,
    guard_pid: u32,
    supervisor_pid: u32,
    uptime_ms: u64,
    supervisor_restarts: u32,
    shutdown_in_ms: Option<u64>,
    config_note: Option<String>,
    limitations: Vec<String>,
    live_ms: Option<Live>,
    programs: Vec<Program>,
}

#[derive(SerJson)]
#[nserde(serialize_none_as_null)]
struct Live {
    crash: Option<u64>,
    hang: Option<u64>,
    supervisor: Option<u64>,
    guard: Option<u64>,
    kernel: Option<u64>,
}

#[derive(SerJson)]
#[nserde(serialize_none_as_null)]
struct Program {
    name: String,
    state: String,
    pid: Option<u32>,
    restarts: u32,
    failures: u32,
    uptime_ms: Option<u64>,
    since_ms: u64,
    next_start_ms: Option<u64>,
    last_exit: Option<LastExit>,
    reason: Option<String>,
    status_text: Option<String>,
    heartbeat: Option<Heartbeat>,
    outputs: Vec<Output>,
}

#[derive(SerJson)]
#[nserde(serialize_none_as_null)]
struct LastExit {
    code: Option<u8>,
    signal: Option<u8>,
}

#[derive(SerJson)]
struct Heartbeat {
    age_ms: u64,
    limit_ms: u64,
}

#[derive(SerJson)]
#[nserde(serialize_none_as_null)]
struct Output {
    name: String,
    level: Option<String>,
    safe: bool,
}

#[derive(SerJson)]
struct Inputs {
    inputs: Vec<InputLine>,
}

#[derive(SerJson)]
struct Outputs {
    outputs: Vec<OutputLine>,
}

#[derive(SerJson)]
#[nserde(serialize_none_as_null)]
struct InputLine {
    name: String,
    wire: String,
    level: Option<String>,
    active: Option<bool>,
    edges: u64,
    age_ms: Option<u64>,
    reason: Option<String>,
}

#[derive(SerJson)]
#[nserde(serialize_none_as_null)]
struct OutputLine {
    name: String,
    wire: String,
    level: Option<String>,
    active: Option<bool>,
    state: String,
    safe: bool,
    confirmed_ms: Option<u64>,
    owner: Option<String>,
    reason: Option<String>,
}

#[derive(SerJson)]
#[nserde(serialize_none_as_null)]
struct Change {
    seq: u64,
    at_ms: u64,
    name: Option<String>,
    from: Option<String>,
    to: Option<String>,
    pid: Option<u32>,
    reason: Option<String>,
}

#[derive(SerJson)]
#[nserde(serialize_none_as_null)]
struct Watchdogs {
    watchdogs: Vec<Watchdog>,
    withheld: Option<String>,
    temperature: Option<Temperature>,
}

#[derive(SerJson)]
#[nserde(serialize_none_as_null)]
struct Watchdog {
    name: String,
    what: String,
    asked_ms: u64,
    timeout_ms: Option<u64>,
    pretimeout_ms: Option<u64>,
    left_ms: Option<u64>,
    fed_ms: Option<u64>,
    note: Option<String>,
}

#[derive(SerJson)]
#[nserde(serialize_none_as_null)]
struct Temperature {
    millidegrees: Option<i32>,
    min: i32,
    max: i32,
    hysteresis: i32,
    age_ms: Option<u64>,
    open: bool,
    text: String,
}

/// The watchdogs and the temperature, as one object on one line.
pub fn watchdogs(
    watchdogs: &[protocol::Watchdog],
    withheld: &str,
    temperature: Option<&protocol::Temperature>,
) -> String {
    let watchdogs = watchdogs.iter().map(|watchdog| Watchdog {
        name: watchdog.name.to_string(),
        what: watchdog.what.to_string(),
        asked_ms: watchdog.asked_ms,
        timeout_ms: watchdog.timeout_ms,
        pretimeout_ms: watchdog.pretimeout_ms,
        left_ms: watchdog.left_ms,
        fed_ms: watchdog.fed_ms,
        note: some(&watchdog.note),
    });
    let temperature = temperature.map(|temperature| Temperature {
        millidegrees: temperature.now,
        min: temperature.min,
        max: temperature.max,
        hysteresis: temperature.hysteresis,
        age_ms: temperature.age_ms,
        open: temperature.open,
        text: temperature.text.to_string(),
    });
    Watchdogs { watchdogs: watchdogs.collect(), withheld: some(withheld), temperature }.serialize_json()
        + "\n"
}

/// The daemon and programs, as one object on one line.
pub fn status(daemon: &DaemonStatus, live: &LiveTimes, programs: &[ProgramStatus]) -> String {
    let live_ms = (live.outputs > 0).then_some(Live {
        crash: live.crash_ms,
        hang: live.hang_ms,
        supervisor: live.supervisor_ms,
        guard: live.guard_ms,
        kernel: live.kernel_ms,
    });
    let status = Status {
        version: daemon.version.to_string(),
        guard_pid: daemon.guard_pid,
        supervisor_pid: daemon.supervisor_pid,
        uptime_ms: daemon.uptime_ms,
        supervisor_restarts: daemon.supervisor_restarts,
        shutdown_in_ms: daemon.shutdown_in_ms,
        config_note: some(&daemon.config_note),
        limitations: daemon.limitations.iter().map(|text| text.to_string()).collect(),
        live_ms,
        programs: programs.iter().map(program).collect(),
    };
    status.serialize_json() + "\n"
}

/// One event, as one object on one line.
pub fn event(event: &Event) -> String {
    // An event without a program is about the daemon, which has none of the states.
    let state = |state: State| (!event.name.is_empty()).then(|| state.name().to_string());
    let change = Change {
        seq: event.seq,
        at_ms: event.at_ms,
        name: some(&event.name),
        from: state(event.from),
        to: state(event.to),
        pid: (event.pid != 0).then_some(event.pid),
        reason: some(&event.reason),
    };
    change.serialize_json() + "\n"
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

fn program(program: &ProgramStatus) -> Program {
    Program {
        name: program.name.to_string(),
        state: program.state.name().to_string(),
        pid: (program.pid != 0).then_some(program.pid),
        restarts: program.restarts,
        failures: program.failures,
        uptime_ms: (program.pid != 0).then_some(program.uptime_ms),
        since_ms: program.since_ms,
        next_start_ms: program.next_start_ms,
        last_exit: program.last_exit.map(|exit| LastExit { code: exit.code, signal: exit.signal }),
        reason: some(&program.reason),
        status_text: some(&program.status_text),
        heartbeat: program.heartbeat.map(|beat| Heartbeat { age_ms: beat.age_ms, limit_ms: beat.limit_ms }),
        outputs: program.outputs.iter().map(output).collect(),
    }
}

fn output(output: &crate::protocol::Output) -> Output {
    Output { name: output.name.to_string(), level: level(output.level), safe: output.safe }
}

fn level(high: Option<bool>) -> Option<String> {
    high.map(|high| voltage(high).to_string())
}

/// Inputs, as one object on one line.
pub fn inputs(inputs: &[InputStatus]) -> String {
    let line = |input: &InputStatus| InputLine {
        name: input.name.to_string(),
        wire: input.wire.to_string(),
        level: level(input.level),
        active: input.level.map(|high| high != input.active_low),
        edges: input.edges,
        age_ms: input.age_ms,
        reason: some(&input.reason),
    };
    Inputs { inputs: inputs.iter().map(line).collect() }.serialize_json() + "\n"
}

/// Outputs, likewise.
pub fn outputs(outputs: &[OutputStatus]) -> String {
    let line = |output: &OutputStatus| OutputLine {
        name: output.name.to_string(),
        wire: output.wire.to_string(),
        level: level(output.level),
        active: output.level.map(|high| high != output.active_low),
        state: state(output.state).to_string(),
        safe: output.safe,
        confirmed_ms: output.confirmed_ms,
        owner: some(&output.owner),
        reason: some(&output.reason),
    };
    Outputs { outputs: outputs.iter().map(line).collect() }.serialize_json() + "\n"
}

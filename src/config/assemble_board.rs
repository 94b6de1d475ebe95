//! Step 3 for the board: inputs, outputs, watchdogs, temperature, how a program's health is watched, and
//! who owns what.

use std::rc::Rc;

use super::assemble::Draft;
use super::board::{
    Board, Check, Heartbeat, HeartbeatKind, Input, Level, Line, Output, Target, Watchdog, WatchdogTarget,
};
use super::firmware::contradiction;
use super::keys::Section;
use super::links::Linked;
use super::nearest::nearest;
use super::report::Report;
use super::text::{Block, short};
use super::{Place, Program};
use crate::limits::OUTPUT_TEXT_BYTES_MAX;
use crate::time::Millis;

/// Names of what a program owns and reads.
#[derive(Default)]
pub(super) struct Owned {
    pub(super) outputs: Vec<String>,
    pub(super) inputs: Vec<String>,
}

/// What is opened where `[watchdog]` says nothing.
const WATCHDOG_DEVICE: &str = "/dev/watchdog";

/// Adds what one section of the board says, once its keys are set.
pub(super) fn add(board: &mut Board, draft: Draft, block: &Block, report: &mut Report) {
    match block.section {
        Section::Input => {
            let unset = draft.input.line.is_none() && block.entry("gpio").is_none();
            if unset {
                report
                    .error(block.place, format_args!("the section has no gpio; write for example gpio = 17"));
            }
            board.inputs.push(Rc::new(Input { name: block.name.clone(), ..draft.input }));
        }
        Section::Output => {
            if let Some(output) = output(draft, block, report) {
                board.outputs.push(Rc::new(output));
            }
        }
        Section::Watchdog => board.watchdogs.extend(watchdog(draft, block, report)),
        _ => {
            let temperature = draft.temperature;
            if temperature.min >= temperature.max - temperature.hysteresis {
                report.error(
                    block.place_of("min"),
                    format_args!(
                        "min must be below max by more than hysteresis: nothing would ever start again"
                    ),
                );
            }
            board.temperature = Some(temperature);
        }
    }
}

fn output(draft: Draft, block: &Block, report: &mut Report) -> Option<Output> {
    let kinds = ["gpio", "path", "command"].map(|key| block.entry(key));
    let mut named = kinds.iter().flatten();
    let (first, second) = (named.next(), named.next());
    match (first, second) {
        (None, _) => report.error(
            block.place,
            format_args!("the section has none of gpio, path, command; write for example gpio = 17"),
        ),
        (Some(first), Some(second)) => report.error(
            second.place,
            format_args!(
                "an output has one of gpio, path, command; {} is in line {}",
                first.key.name(),
                first.place.line
            ),
        ),
        _ => {}
    }
    for key in ["write_high", "write_low"] {
        if kinds[1].is_none() && block.entry(key).is_some() {
            report.error(block.place_of(key), format_args!("{key} is for a path"));
        }
    }
    for (key, text) in [("write_high", &draft.write_high), ("write_low", &draft.write_low)] {
        if text.len() > OUTPUT_TEXT_BYTES_MAX {
            report.error(
                block.place_of(key),
                format_args!("{key} is longer than {OUTPUT_TEXT_BYTES_MAX} bytes"),
            );
        }
    }
    if kinds[0].is_none() && block.entry("drive").is_some() {
        report.error(block.place_of("drive"), format_args!("drive is for a gpio"));
    }
    let target = match (draft.output_line, draft.output_path) {
        (Some(line), _) => Target::Gpio(line),
        (None, Some(path)) => Target::Path { path, high: draft.write_high, low: draft.write_low },
        (None, None) => Target::Command(draft.output_command),
    };
    let active_low = draft.output_active_low;
    // 0 and 1 are voltages; 2 and 3 are off and on.
    let level = |index: usize| match (index & 1 == 1) != (index >= 2 && active_low) {
        true => Level::High,
        false => Level::Low,
    };
    let [safe, boot, running] = draft.levels;
    let safe = level(safe.unwrap_or_default());
    if matches!(target, Target::Command(_)) && draft.output_timeout > draft.limit {
        report.warning(
            block.place_of("timeout"),
            "timeout is longer than limit: one slow attempt and no watchdog is fed".into(),
        );
    }
    let output = Output {
        name: block.name.clone(),
        target,
        active_low,
        drive: draft.drive,
        boot: boot.map_or(safe, level),
        running: running.map(level),
        safe,
        limit: draft.limit,
        timeout: draft.output_timeout,
    };
    if let Some(warning) = contradiction(&output) {
        report.warning(block.place_of("gpio"), warning);
    }
    Some(output)
}

fn watchdog(draft: Draft, block: &Block, report: &mut Report) -> Option<Watchdog> {
    let mut wrong = |key: &str, sentence: &str| report.error(block.place_of(key), format_args!("{sentence}"));
    if draft.feed.is_some() && draft.device.is_some() {
        wrong("gpio", "a watchdog has a device or a gpio, not both");
    }
    if draft.feed.is_none() {
        for key in ["enable", "pulse"] {
            if block.entry(key).is_some() {
                wrong(key, "is for a watchdog that is fed by a gpio");
            }
        }
        if draft.watchdog_timeout < Millis::from_secs(1) {
            wrong("timeout", "timeout is shorter than 1s, which no device can do");
        }
    } else if block.entry("pretimeout").is_some() {
        wrong("pretimeout", "pretimeout is for a device");
    }
    if draft.feed.is_some() && draft.pulse.0 * 4 > draft.watchdog_timeout.0 {
        wrong("pulse", "pulse is longer than a quarter of timeout");
    }
    if draft.pretimeout.is_some_and(|pretimeout| pretimeout >= draft.watchdog_timeout) {
        wrong("pretimeout", "pretimeout is not shorter than timeout");
    }
    let target = match draft.feed {
        Some(feed) => WatchdogTarget::Pulse { feed, enable: draft.enable, pulse: draft.pulse },
        None => WatchdogTarget::Device(draft.device.unwrap_or_else(|| WATCHDOG_DEVICE.into())),
    };
    let (name, timeout, pretimeout) = (block.name.clone(), draft.watchdog_timeout, draft.pretimeout);
    Some(Watchdog { name, target, timeout, pretimeout })
}

/// How a program's health is watched.
pub(super) fn health(draft: &mut Draft, block: &Block, report: &mut Report) {
    let by_keys = match (&draft.heartbeat_file, draft.heartbeat_port) {
        (Some(_), _) => 3,
        (None, Some(_)) => 4,
        (None, None) => 0,
    };
    let mut wrong = |key: &str, sentence: &str| report.error(block.place_of(key), format_args!("{sentence}"));
    let kind = match (draft.heartbeat_kind.unwrap_or(by_keys), &draft.heartbeat_file, draft.heartbeat_port) {
        (3, Some(file), None) => HeartbeatKind::File(file.clone()),
        (4, None, Some(port)) => HeartbeatKind::Tcp(port),
        (0, None, None) => HeartbeatKind::Notify,
        (1, None, None) => HeartbeatKind::Fd,
        (2, None, None) => HeartbeatKind::Counter,
        (kind, ..) => {
            wrong(
                "heartbeat_kind",
                match kind {
                    3 => "heartbeat_kind = file needs heartbeat_file, and no heartbeat_port",
                    4 => "heartbeat_kind = tcp needs heartbeat_port, and no heartbeat_file",
                    _ => "this heartbeat_kind needs neither heartbeat_file nor heartbeat_port",
                },
            );
            HeartbeatKind::Notify
        }
    };
    for key in ["heartbeat_kind", "heartbeat_file", "heartbeat_port"] {
        if block.entry(key).is_some() && block.entry("heartbeat").is_none() {
            wrong(key, "needs heartbeat; write for example heartbeat = 500ms");
        }
    }
    let has_check = block.entry("check").is_some();
    for key in ["check_interval", "check_timeout", "check_failures"] {
        if block.entry(key).is_some() && !has_check {
            wrong(key, "needs check; write for example check = tcp:127.0.0.1:80");
        }
    }
    if draft.program.kind == super::ProgramKind::Oneshot && (has_check || draft.heartbeat.is_some()) {
        wrong(
            if has_check { "check" } else { "heartbeat" },
            "is for a program that stays; type = oneshot ends",
        );
    }
    draft.program.heartbeat = draft.heartbeat.map(|limit| Heartbeat { limit, kind });
    draft.program.check = has_check.then(|| Check {
        command: core::mem::take(&mut draft.check),
        interval: draft.check_interval,
        timeout: draft.check_timeout,
        failures: draft.check_failures.0,
        of: draft.check_failures.1,
    });
}

/// Names become outputs; each has one owner, and each line and port one use.
pub(super) fn own(
    board: &mut Board,
    blocks: &[Block],
    linked: &mut [Linked],
    incomplete: bool,
    report: &mut Report,
) {
    lines(board, blocks, report);
    let mut owners: Vec<Option<Place>> = vec![None; board.outputs.len()];
    let mut ports: Vec<(u16, Place)> = Vec::new();
    for Linked { program, owned: (outputs_at, inputs_at, owned), name_place, .. } in linked {
        for name in &owned.outputs {
            let Some(index) = board.outputs.iter().position(|output| output.name == *name) else {
                let known = board.outputs.iter().map(|output| output.name.as_str());
                unknown(*outputs_at, "output", name, known, incomplete, report);
                continue;
            };
            if let Some(first) = owners[index].replace(*outputs_at) {
                let first = report.refer(first, *outputs_at);
                report.error(
                    *outputs_at,
                    format_args!("outputs: {name} has an owner already, in {first}; an output has one"),
                );
            }
            program.outputs.push(Rc::clone(&board.outputs[index]));
            if let Some(child) = &mut program.child {
                child.outputs.push(super::child::driven(&board.outputs[index]));
            }
        }
        for name in &owned.inputs {
            if board.inputs.iter().any(|input| input.name == *name) {
                program.inputs.push(name.clone());
            } else {
                let known = board.inputs.iter().map(|input| input.name.as_str());
                unknown(*inputs_at, "input", name, known, incomplete, report);
            }
        }
        port(program, *name_place, &mut ports, report);
    }
}

fn port(program: &Program, place: Place, ports: &mut Vec<(u16, Place)>, report: &mut Report) {
    let Some(Heartbeat { kind: HeartbeatKind::Tcp(port), .. }) = program.heartbeat else { return };
    if let Some((_, first)) = ports.iter().find(|(other, _)| *other == port) {
        let first = report.refer(*first, place);
        report.error(place, format_args!("heartbeat_port = {port} is used in {first} already"));
    }
    ports.push((port, place));
}

fn unknown<'a>(
    place: Place,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
    incomplete: bool,
    report: &mut Report,
) {
    if incomplete {
        return;
    }
    let meant = nearest(name, known);
    report.explain(place, &|| match meant {
        Some(meant) => format!("there is no {what} {}; did you mean {meant}?", short(name)),
        None => format!("there is no {what} {0}; add a section [{what}:{0}]", short(name)),
    });
}

/// A line can be requested once.
fn lines(board: &Board, blocks: &[Block], report: &mut Report) {
    let mut used: Vec<(&Line, Place)> = Vec::new();
    for block in blocks {
        let named = |name: &str| name == block.name;
        let found: [Option<(&str, &Line)>; 2] = match block.section {
            Section::Input => {
                let input = board.inputs.iter().find(|input| named(&input.name));
                [input.and_then(|input| Some(("gpio", input.line.as_ref()?))), None]
            }
            Section::Output => {
                match board.outputs.iter().find(|output| named(&output.name)).map(|o| &o.target) {
                    Some(Target::Gpio(line)) => [Some(("gpio", line)), None],
                    _ => [None, None],
                }
            }
            Section::Watchdog => {
                match board.watchdogs.iter().find(|dog| named(&dog.name)).map(|dog| &dog.target) {
                    Some(WatchdogTarget::Pulse { feed, enable, .. }) => {
                        [Some(("gpio", feed)), enable.as_ref().map(|line| ("enable", line))]
                    }
                    _ => [None, None],
                }
            }
            _ => [None, None],
        };
        for (key, line) in found.into_iter().flatten() {
            let place = block.place_of(key);
            if let Some((_, first)) = used.iter().find(|(other, _)| *other == line) {
                let first = report.refer(*first, place);
                report.error(place, format_args!("{key}: this line is used in {first} already"));
            }
            used.push((line, place));
        }
    }
}

//! Step 3: sets one value after the other, by the rows of the table, and checks what goes together.

use std::rc::Rc;

use super::assemble_board::{self, Owned};
use super::board::{Board, Drive, Input, Line, Temperature};
use super::child::{self, Child, Setting, Settings};
use super::expand::{Meaning, expand};
use super::keys::{self, Kind, Section};
use super::links::{self, Linked};
use super::live;
use super::report::Report;
use super::text::{Block, Document, Entry};
use super::words::{find, name_fault};
use super::{
    Config, Daemon, HookCommand, LogConfig, Program, ProgramKind, ProgramReady, Reload, SystemConfig,
};
use crate::limits::PROGRAM_COUNT_MAX;
use crate::time::Millis;

/// `start_timeout` where something is waited for and nothing is said.
const START_TIMEOUT: Millis = Millis::from_secs(60);

/// A section while its keys are being set: the result, and what becomes a part of it only when all
/// keys are known.
#[derive(Default)]
pub struct Draft {
    pub(super) daemon: Daemon,
    pub(super) program: Program,
    pub(super) numprocs: u32,
    pub(super) numprocs_start: u32,
    pub(super) after: Vec<String>,
    pub(super) requires: Vec<String>,
    pub(super) ready: Option<ReadyWord>,
    pub(super) ready_check: Vec<String>,
    pub(super) ready_check_interval: Millis,
    pub(super) ready_check_timeout: Millis,
    pub(super) start_timeout: Option<Option<Millis>>,
    pub(super) killasgroup: Option<bool>,
    pub(super) stop_command: Vec<String>,
    pub(super) stop_command_timeout: Millis,
    pub(super) reload: Option<Reload>,
    pub(super) reload_timeout: Millis,
    pub(super) on_start: Vec<String>,
    pub(super) on_start_timeout: Millis,
    pub(super) on_stop: Vec<String>,
    pub(super) on_stop_timeout: Millis,
    pub(super) on_failure: Vec<String>,
    pub(super) on_failure_timeout: Millis,
    pub(super) heartbeat: Option<Millis>,
    pub(super) heartbeat_kind: Option<usize>,
    pub(super) heartbeat_file: Option<String>,
    pub(super) heartbeat_port: Option<u16>,
    pub(super) check: Vec<String>,
    pub(super) check_interval: Millis,
    pub(super) check_timeout: Millis,
    pub(super) check_failures: (u8, u8),
    pub(super) outputs: Vec<String>,
    pub(super) inputs: Vec<String>,
    pub(super) input: Input,
    pub(super) output_line: Option<Line>,
    pub(super) output_path: Option<String>,
    pub(super) output_command: Vec<String>,
    pub(super) output_active_low: bool,
    pub(super) output_timeout: Millis,
    pub(super) write_high: String,
    pub(super) write_low: String,
    pub(super) drive: Drive,
    /// `safe`, `boot`, `running`; index into `board_keys::LEVELS`.
    pub(super) levels: [Option<usize>; 3],
    pub(super) limit: Millis,
    pub(super) device: Option<String>,
    pub(super) feed: Option<Line>,
    pub(super) enable: Option<Line>,
    pub(super) pulse: Millis,
    pub(super) watchdog_timeout: Millis,
    pub(super) pretimeout: Option<Millis>,
    pub(super) temperature: Temperature,
    pub(super) log: LogConfig,
    pub(super) system: SystemConfig,
}

/// `ready` as it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadyWord {
    Uptime,
    Notify,
    Descriptor(i32),
    PidFile,
    Check,
}

impl Draft {
    /// With all defaults.
    fn with_defaults() -> Draft {
        let mut draft = Draft::default();
        for key in keys::groups(&[]).flat_map(|group| group.keys) {
            if let Some(text) = key.default_text() {
                // That every default is right is tested with the table.
                let _ = key.set(&mut draft, text);
            }
        }
        draft
    }
}

/// The configuration that the document says; with errors in the report it is not complete.
pub(super) fn assemble(document: Document) -> (Config, Report) {
    let Document { mut blocks, mut report, incomplete, .. } = document;
    child::with_outputs(&mut blocks, &mut report);
    let mut children = Vec::new();
    let Draft { daemon, log, .. } = Draft::with_defaults();
    let mut config = Config { daemon, log, ..Config::default() };
    let mut linked: Vec<Linked> = Vec::new();
    for block in &blocks {
        match block.section {
            Section::Program => processes(block, &mut linked, &mut report),
            Section::Child(child) => {
                children.push((linked.len(), child, block));
                bundled(child, block, &mut linked, &mut report);
            }
            Section::Include => {}
            section => {
                let mut draft = Draft::with_defaults();
                fill(&mut draft, block, &mut report, &mut |name| Meaning::Nothing(unknown(name, "")));
                match section {
                    Section::Daemon => config.daemon = draft.daemon,
                    Section::Log => config.log = draft.log,
                    Section::System => config.system = draft.system,
                    _ => assemble_board::add(&mut config.board, draft, block, &mut report),
                }
            }
        }
    }
    assemble_board::own(&mut config.board, &blocks, &mut linked, incomplete, &mut report);
    if report.error_count() == 0 {
        children.iter().for_each(|(index, child, block)| {
            judge(child, block, &linked[*index], &config.board, &mut report)
        });
    }
    if linked.is_empty() && report.error_count() == 0 {
        report.warning(super::Place::default(), "has no [program:NAME] section: nothing will run".into());
    }
    if report.error_count() == 0 {
        live::warn(&config.board, &blocks, &linked, &mut report);
    }
    config.programs = links::link(linked, incomplete, &mut report).into_iter().map(Rc::new).collect();
    (config, report)
}

fn unknown(name: &str, also: &str) -> String {
    format!("holds the unknown name %({name}); known are {also}here, host_node_name and ENV_NAME")
}

/// What `%(name)s` is in one process.
fn meaning(name: &str, section: &str, number: u32, count: u32) -> Meaning {
    match name {
        "program_name" | "group_name" => Meaning::Text(section.into()),
        "process_num" => Meaning::Number(number),
        "numprocs" => Meaning::Number(count),
        _ => Meaning::Nothing(unknown(name, "program_name, process_num, numprocs, group_name, ")),
    }
}

/// Sets all keys of a section; every one that is wrong is an error.
fn fill(draft: &mut Draft, block: &Block, report: &mut Report, meaning: &mut dyn FnMut(&str) -> Meaning) {
    for entry in &block.entries {
        if let Err((value, why)) = set(draft, entry, meaning) {
            report.explain(entry.place, &|| keys::sentence(entry.key, &value, &why));
        }
    }
}

fn set(
    draft: &mut Draft,
    entry: &Entry,
    meaning: &mut dyn FnMut(&str) -> Meaning,
) -> Result<(), (String, String)> {
    if entry.damaged {
        return Ok(());
    }
    let key = entry.key;
    let value = expand(&entry.value, false, meaning).map_err(|why| (entry.value.clone(), why))?;
    if value.is_empty() && !key.kind.may_be_empty() {
        return Err((value, format!("has no value; write for example {}", key.example())));
    }
    key.set(draft, &value).map_err(|why| (value, why))
}

/// Every process of a `[program:NAME]`.
fn processes(block: &Block, linked: &mut Vec<Linked>, report: &mut Report) {
    // How many there are is needed before anything is expanded; what is wrong is reported below.
    let mut first = Draft::with_defaults();
    for entry in [block.entry("numprocs"), block.entry("numprocs_start")].into_iter().flatten() {
        let _ = set(&mut first, entry, &mut |name| meaning(name, &block.name, 0, 1));
    }
    let (mut count, start) = (first.numprocs, first.numprocs_start);
    let full = linked.len() + count as usize > PROGRAM_COUNT_MAX;
    if full {
        if linked.len() <= PROGRAM_COUNT_MAX {
            report.error(
                block.place,
                format_args!("more than {PROGRAM_COUNT_MAX} programs; this section has the first too many"),
            );
        }
        // Its values are still checked, once, and the sum stays above the limit.
        count = 1;
    }
    for entry in block.entries.iter().filter(|entry| matches!(entry.key.kind, Kind::NoEffect)) {
        report.warning(entry.place, format!("{} has no effect here", entry.key.name()));
    }
    let errors_before = report.error_count();
    for index in 0..count {
        let number = start + index;
        let mut draft = Draft::with_defaults();
        fill(&mut draft, block, report, &mut |name| meaning(name, &block.name, number, first.numprocs));
        draft.numprocs = first.numprocs;
        let process = finish(draft, block, number, report);
        unique(&process, linked, report);
        linked.push(process);
        // The same errors again for each process would help nobody.
        if report.error_count() > errors_before {
            break;
        }
    }
    if full {
        while linked.len() <= PROGRAM_COUNT_MAX {
            linked.push(Linked::default());
        }
    }
}

/// The process of a bundled child.
fn bundled(child: &'static Child, block: &Block, linked: &mut Vec<Linked>, report: &mut Report) {
    let mut scratch = Draft::default();
    let mut settings =
        Settings { word: child.word.into(), instance: block.name.clone(), ..Settings::default() };
    let own = |entry: &&Entry| child::is_own(block.section, entry.key);
    for entry in block.entries.iter().filter(own) {
        let mut meaning = |name: &str| meaning(name, &block.name, 0, 1);
        match set(&mut scratch, entry, &mut meaning) {
            Ok(()) => {
                let value = expand(&entry.value, false, &mut meaning).unwrap_or_default();
                settings.settings.push(Setting { name: entry.key.name().into(), value });
            }
            Err((value, why)) => report.explain(entry.place, &|| keys::sentence(entry.key, &value, &why)),
        }
    }
    let program = child::program(child, block);
    let mut draft = Draft::with_defaults();
    fill(&mut draft, &program, report, &mut |name| meaning(name, &program.name, 0, 1));
    settings.inputs.clone_from(&draft.inputs);
    let companion = child::companion(child, &settings, block);
    let mut add = |draft, program: &Block, settings| {
        let mut process = finish(draft, program, 0, report);
        process.program.child = Some(settings);
        unique(&process, linked, report);
        linked.push(process);
    };
    add(draft, &program, settings);
    if let Some((program, settings)) = companion {
        let mut draft = Draft::with_defaults();
        // They are ours, and one that is the user's was judged.
        program.entries.iter().for_each(|entry| drop(entry.key.set(&mut draft, &entry.value)));
        add(draft, &program, settings);
    }
}

/// What the keys of a child's section say together.
fn judge(child: &Child, block: &Block, process: &Linked, board: &Board, report: &mut Report) {
    let Some(mut settings) = process.program.child.clone() else { return };
    settings.lines.extend(board.inputs.iter().map(|input| input.name.clone()));
    settings.lines.extend(board.outputs.iter().map(|output| output.name.clone()));
    if let Err((key, why)) = (child.check)(&settings) {
        report.error(block.place_of(key), format_args!("{why}"));
    }
}

fn unique(process: &Linked, linked: &[Linked], report: &mut Report) {
    let program = &process.program;
    let Some(other) = linked.iter().find(|other| other.program.name == program.name) else { return };
    let place = process.name_place;
    let first = report.refer(other.name_place, place);
    report.error(
        place,
        format_args!("the program name \"{}\" is used twice; the first is in {first}", program.name),
    );
}

/// The program, once all keys of its section are set.
fn finish(mut draft: Draft, block: &Block, number: u32, report: &mut Report) -> Linked {
    check(&draft, block, report);
    name(&mut draft, block, number, report);
    let ready = ready_word(&draft, block);
    assemble_board::health(&mut draft, block, report);
    let owned =
        Owned { outputs: std::mem::take(&mut draft.outputs), inputs: std::mem::take(&mut draft.inputs) };
    let mut program = draft.program;
    program.section = block.name.clone();
    program.place = block.place;
    program.killasgroup = draft.killasgroup.unwrap_or(program.stopasgroup);
    program.stop_command = hook(draft.stop_command, draft.stop_command_timeout);
    program.on_start = hook(draft.on_start, draft.on_start_timeout);
    program.on_stop = hook(draft.on_stop, draft.on_stop_timeout);
    program.on_failure = hook(draft.on_failure, draft.on_failure_timeout);
    program.reload = match draft.reload {
        Some(Reload::Command(hook)) => {
            Some(Reload::Command(HookCommand { timeout: draft.reload_timeout, ..hook }))
        }
        signal => signal,
    };
    program.start_timeout = match (draft.start_timeout, program.kind, ready) {
        (Some(timeout), _, _) => timeout,
        (None, ProgramKind::Forking, _) => Some(START_TIMEOUT),
        (None, ProgramKind::Oneshot, _) | (None, _, ReadyWord::Uptime) => None,
        (None, ..) => Some(START_TIMEOUT),
    };
    program.ready = match ready {
        ReadyWord::Uptime => ProgramReady::Uptime,
        ReadyWord::Notify => ProgramReady::Notify,
        ReadyWord::Descriptor(number) => ProgramReady::Descriptor(number),
        ReadyWord::PidFile => ProgramReady::PidFile,
        ReadyWord::Check => ProgramReady::Check {
            check: HookCommand { command: draft.ready_check, timeout: draft.ready_check_timeout },
            interval: draft.ready_check_interval,
        },
    };
    Linked {
        program,
        after: (block.place_of("after"), draft.after),
        requires: (block.place_of("requires"), draft.requires),
        name_place: block.place_of("process_name"),
        owned: (block.place_of("outputs"), block.place_of("inputs"), owned),
    }
}

fn hook(command: Vec<String>, timeout: Millis) -> Option<HookCommand> {
    if command.is_empty() { None } else { Some(HookCommand { command, timeout }) }
}

/// `ready`, or its default by type.
fn ready_word(draft: &Draft, block: &Block) -> ReadyWord {
    draft.ready.unwrap_or(match draft.program.kind {
        ProgramKind::Notify => ReadyWord::Notify,
        _ if block.entry("ready_check").is_some() => ReadyWord::Check,
        _ => ReadyWord::Uptime,
    })
}

/// The process's name, and whether it can be one.
fn name(draft: &mut Draft, block: &Block, number: u32, report: &mut Report) {
    if let Some(entry) = block.entry("process_name") {
        if draft.numprocs > 1 && !entry.damaged && find(&entry.value, "%(process_num)").is_none() {
            report.error(
                entry.place,
                format_args!(
                    "process_name must contain %(process_num) where numprocs is above 1; \
                 write for example %(program_name)s_%(process_num)02d"
                ),
            );
        }
        return;
    }
    draft.program.name = block.name.clone();
    if draft.numprocs > 1 {
        draft.program.name = format!("{}_{number:02}", block.name);
        if let Some(fault) = name_fault(&draft.program.name) {
            report.error(block.place, format_args!("the program name \"{}\" {fault}", draft.program.name));
        }
    }
}

/// What two keys say together.
fn check(draft: &Draft, block: &Block, report: &mut Report) {
    let program = &draft.program;
    let has = |key: &str| block.entry(key).is_some();
    let mut wrong = |when: bool, key: &str, message: &str| {
        if when {
            report.error(block.place_of(key), format_args!("{message}"));
        }
    };
    wrong(
        !has("command"),
        "command",
        "the section has no command; write for example command = /usr/bin/pump --port 3",
    );
    wrong(
        program.stopasgroup && draft.killasgroup == Some(false),
        "killasgroup",
        "killasgroup = false cannot go with stopasgroup = true; remove killasgroup",
    );
    let ready = ready_word(draft, block);
    wrong(
        ready == ReadyWord::Check && !has("ready_check"),
        "ready",
        "ready = check needs a ready_check; add the command",
    );
    wrong(
        ready == ReadyWord::PidFile && !has("pidfile"),
        "ready",
        "ready = pidfile needs a pidfile; add its path",
    );
    let fd = matches!(ready, ReadyWord::Descriptor(_));
    wrong(
        fd && program.kind == ProgramKind::Forking,
        "ready",
        "ready = fd cannot go with type = forking, which closes its descriptors; use pidfile or check",
    );
    let asked = if draft.ready.is_some() { "ready" } else { "ready_check" };
    wrong(
        program.kind == ProgramKind::Oneshot && has(asked),
        asked,
        "type = oneshot is ready when it has ended; remove ready and ready_check",
    );
    wrong(
        program.kind == ProgramKind::Notify && (ready != ReadyWord::Notify || has("ready_check")),
        if ready == ReadyWord::Notify { "ready_check" } else { "ready" },
        "type = notify is ready when it says so; use type = simple for another way",
    );
    wrong(
        draft.ready.is_some_and(|word| word != ReadyWord::Check)
            && has("ready_check")
            && program.kind != ProgramKind::Notify,
        "ready_check",
        "ready_check is not used with this ready; write ready = check or remove one of them",
    );
    if program.restart_delay > program.restart_delay_max {
        let text = |key: &'static str| {
            let default = keys::find(Section::Program, key).map_or("", |key| key.default());
            block.entry(key).map_or(default, |entry| &entry.value)
        };
        let key = if has("restart_delay_max") { "restart_delay_max" } else { "restart_delay" };
        report.explain(block.place_of(key), &|| {
            let (delay, max) = (text("restart_delay"), text("restart_delay_max"));
            format!("restart_delay = {delay} is longer than restart_delay_max = {max}; raise the maximum or lower the delay")
        });
    }
}

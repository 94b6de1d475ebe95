//! From what the configuration says to what the kernel needs: users to numbers, commands to
//! paths, environments complete. Reads files (/etc/passwd, environment files), so it runs at the
//! start or in a job; its result travels as bytes and is all a later supervisor needs.

use std::ffi::CString;
use std::path::Path;
use std::rc::Rc;

use crate::config::{
    self, Config, HeartbeatKind, HookCommand, Line, LogFile, Program, ProgramKind, ProgramReady, Reload,
};
use crate::packed::{self, packed};
use crate::sys::process::{Identity, Recipe};
use crate::sys::users::Accounts;
use crate::sys::{file, process};

pub use crate::packed::digest;

use super::bundled::{capabilities, companion_of, has_log};
use super::commands::{check_command, command, hook_command, own_image};
use super::environment::{self, find};
use super::lines::{self, Spot};
use super::outputs;

/// Everything resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// One per program, in the configuration's order.
    pub specs: Vec<Spec>,
    /// Members of this group may give orders.
    pub control_group: Option<u32>,
    /// Where outputs are, in the configuration's order; none: no line, or not found.
    pub outputs: Vec<Option<Spot>>,
    /// Where inputs are.
    pub inputs: Vec<Option<Spot>>,
    /// Where the lines of watchdogs are: that which is pulsed, that which enables it.
    pub watchdogs: Vec<[Option<Spot>; 2]>,
    /// What systemd does here, where that matters: see `watchdog::Systemd`.
    pub systemd: u8,
    /// Lines keep their last level when nobody holds them any more.
    pub lines_persist: bool,
}

/// One program.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// What the running process was made from; a change means a restart.
    pub exec: Exec,
    /// Hooks, by [`HookKind`].
    pub hooks: [Option<Command>; HOOK_KINDS],
    /// What it needs and this machine has not (a user, a file): it cannot be started, and says so.
    pub missing: Option<String>,
    /// Where standard output goes; none: /dev/null.
    pub stdout: Option<Stream>,
    /// Where standard error goes, unless it goes where standard output goes.
    pub stderr: Option<Stream>,
}

/// What a process is made from.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    command: Command,
    environment: Vec<String>,
    directory: Option<String>,
    identity: Option<(u32, u32, Vec<u32>)>,
    umask: Option<u32>,
    limits: Vec<(u32, u64, u64)>,
    nice: Option<i32>,
    scheduling: Option<(i32, i32)>,
    affinity: Option<u128>,
    io_priority: Option<(u8, u8)>,
    oom_score: Option<i32>,
    capabilities: Option<u64>,
    no_new_privs: bool,
    /// Standard error goes where standard output goes.
    pub redirect_stderr: bool,
    /// It gets a NOTIFY_SOCKET.
    pub notify: bool,
    /// It gets a readiness descriptor with this number.
    pub ready_descriptor: Option<i32>,
    /// It gets a descriptor to beat by, with this number.
    pub beat_descriptor: Option<i32>,
    watched: Option<String>,
    stdout_is_null: bool,
    stderr_is_null: bool,
    /// A forking daemon is another thing than the same command staying.
    pub forking: bool,
    /// Its pid file.
    pub pidfile: Option<String>,
    /// Outputs it owns: name, the descriptor it is handed (-1: none), what tells it from a changed one.
    pub outputs: Vec<(String, i32, u64)>,
    /// The descriptor of the page of inputs.
    pub inputs: Option<i32>,
    /// The descriptor of the page of values.
    pub values: Option<i32>,
    /// The descriptor of the counter that says that something was published.
    pub changes: Option<i32>,
    /// What a bundled child finds at descriptor 0; empty: it is none.
    pub settings: Vec<u8>,
    /// The directory that is made for it.
    state: Option<String>,
}

/// A command with the paths to try.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Command {
    pub(super) paths: Vec<String>,
    pub(super) words: Vec<String>,
}

/// A log file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stream {
    /// Its path; none: its lines go to syslog or the kernel's log only.
    pub path: Option<String>,
    /// Rotated above this size; 0: never.
    pub maxbytes: u64,
    /// Rotated files kept.
    pub backups: u32,
}

packed!(Resolved { specs, control_group, outputs, inputs, watchdogs, systemd, lines_persist });
packed!(Spec { exec, hooks, missing, stdout, stderr });
packed!(Exec {
    command,
    environment,
    directory,
    identity,
    umask,
    limits,
    nice,
    scheduling,
    affinity,
    io_priority,
    oom_score,
    capabilities,
    no_new_privs,
    redirect_stderr,
    notify,
    ready_descriptor,
    beat_descriptor,
    watched,
    stdout_is_null,
    stderr_is_null,
    forking,
    pidfile,
    outputs,
    inputs,
    values,
    changes,
    settings,
    state,
});
packed!(Command { paths, words });
packed!(Stream { path, maxbytes, backups });

/// Commands a program has besides its own; index into [`Spec::hooks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum HookKind {
    /// `on_start`
    OnStart,
    /// `ready_check`
    ReadyCheck,
    /// `stop_command`
    StopCommand,
    /// `on_stop`
    OnStop,
    /// `on_failure`
    OnFailure,
    /// `reload`
    Reload,
    /// `check`, where it is a command
    Check,
}

/// Number of the above.
pub const HOOK_KINDS: usize = 7;

/// PATH of programs whose environment has none (what login(1) gives).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where in `state_dir` programs have directories of their own: away from what is ours there.
const STATE_DIRECTORIES: &str = "/programs/";

/// The key of a bundled child that names a file whose first line is for its companion only.
const PASSWORD_FILE: &str = "password_file";
const PASSWORD_BYTES_MAX: usize = 1024;

/// What is needed besides the configuration.
pub struct Surroundings<'a> {
    /// Users and groups.
    pub accounts: &'a Accounts,
    /// Where sockets are.
    pub run_dir: &'a Path,
    /// This life's number, for the marker.
    pub life: u64,
    /// The daemon's own environment, which programs inherit.
    pub base: &'a Base,
}

/// The environment that every program inherits: the daemon's own, which is its guard's, so that it is
/// the same for every supervisor of one life. Held once, whatever the number of programs.
#[derive(Clone)]
pub struct Base(Rc<[CString]>);

/// Variables by which our own starter addresses us; not theirs to hear.
const NOT_INHERITED: [&str; 15] = [
    "MULTUSD_ADOPTED",
    "MULTUSD_CHANGES",
    "MULTUSD_HEARTBEAT",
    "MULTUSD_HEARTBEAT_USEC",
    "MULTUSD_INPUTS",
    "MULTUSD_ORIGIN",
    "MULTUSD_OUTPUTS",
    "MULTUSD_VALUES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "INVOCATION_ID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

impl Base {
    /// This process's environment.
    pub fn inherit() -> Self {
        use std::os::unix::ffi::OsStringExt;
        let inherited =
            std::env::vars_os().filter(|(name, _)| !NOT_INHERITED.iter().any(|ours| name == ours));
        let entries = inherited.filter_map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            CString::new(entry).ok()
        });
        Base(entries.collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|entry| environment::value_of(entry.to_str().ok()?, name))
    }
}

/// Resolves everything, and says for every program (by its index) what it needs that is not there: it is
/// resolved to something that cannot be started. The index is the greatest for what is no program's.
pub fn resolve(config: &Config, around: &Surroundings) -> (Resolved, Vec<(usize, String)>) {
    let mut errors = Vec::new();
    let mut specs = Vec::new();
    for (index, program) in config.programs.iter().enumerate() {
        match spec(program, config, around) {
            Ok(spec) => specs.push(spec),
            Err(error) => {
                let missing = Some(error.clone());
                specs.push(Spec { missing, ..Spec::default() });
                errors.push((index, error));
            }
        }
    }
    let control_group = match &config.daemon.control_group {
        None => None,
        Some(name) => {
            let group = around.accounts.group(name);
            if group.is_none() {
                errors.push((usize::MAX, format!("control_group = `{name}`: no such group in /etc/group")));
            }
            group
        }
    };
    let mut taken: Vec<(Spot, String)> = Vec::new();
    let mut find = |what: &str, name: &str, line: Option<&Line>| {
        let section = ["[", what, ":", name, "]"].concat();
        let found = lines::find(line?);
        let why = match &found {
            // A line has more than one name.
            Ok(spot) => taken
                .iter()
                .find(|(other, _)| other == spot)
                .map(|(_, other)| ["this is the line of ", other, " by another name"].concat()),
            Err(why) => Some(why.clone()),
        };
        errors.extend(why.map(|why| (usize::MAX, [&section, ": gpio: ", &why].concat())));
        taken.extend(found.as_ref().ok().map(|spot| (spot.clone(), section)));
        found.ok()
    };
    let board = &config.board;
    let outputs = board.outputs.iter().map(|output| find("output", &output.name, output.line())).collect();
    let inputs = board.inputs.iter().map(|input| find("input", &input.name, input.line.as_ref())).collect();
    let watchdogs = board
        .watchdogs
        .iter()
        .map(|watchdog| lines::of_watchdog(watchdog).map(|line| find("watchdog", &watchdog.name, line)));
    let watchdogs: Vec<[Option<Spot>; 2]> = watchdogs.collect();
    for (watchdog, spots) in board.watchdogs.iter().zip(&watchdogs) {
        if spots.iter().flatten().any(|spot| spot.may_wait) {
            errors.push((
                usize::MAX,
                ["[watchdog:", &watchdog.name, "]: gpio: ", super::watchdog::MAY_WAIT].concat(),
            ));
        }
    }
    let systemd = match board.watchdogs.is_empty() {
        true => 0,
        false => super::watchdog::systemd(Path::new("/")) as u8,
    };
    let lines_persist =
        board.outputs.iter().any(|output| output.line().is_some()) && lines::persist(Path::new("/"));
    (Resolved { specs, control_group, outputs, inputs, watchdogs, systemd, lines_persist }, errors)
}

fn spec(program: &Program, config: &Config, around: &Surroundings) -> Result<Spec, String> {
    let own_user = own_user(program, around.accounts);
    let identity = match (program.user.as_ref().or(own_user.as_ref()), &program.group) {
        (Some(user), group) => Some(around.accounts.identity(user, group.as_deref())?),
        (None, Some(group)) => {
            let group = around.accounts.group(group).ok_or(format!("no group `{group}` in /etc/group"))?;
            Some(Identity { user: nix::unistd::geteuid().as_raw(), group, groups: vec![group] })
        }
        (None, None) => None,
    };
    let mut environment = environment::of(program, around)?;
    let path = find(&environment, "PATH").or(around.base.get("PATH")).unwrap_or(DEFAULT_PATH).to_owned();
    let log = |log: &crate::config::Log, stream: &str| {
        let path = match &log.file {
            LogFile::None => None,
            LogFile::Auto => Some(format!("{}/{}-{stream}.log", config.daemon.log_dir, program.name)),
            LogFile::Path(path) => Some(path.clone()),
        };
        has_log(program, stream == "stderr").then_some(Stream {
            path,
            maxbytes: log.maxbytes,
            backups: log.backups,
        })
    };
    let (stdout, stderr) = (log(&program.stdout, "stdout"), log(&program.stderr, "stderr"));
    let hook = |hook: &Option<HookCommand>| hook.as_ref().map(|hook| hook_command(program, hook, &path));
    let (ready_check, ready_descriptor) = match &program.ready {
        ProgramReady::Check { check, .. } => (Some(command(&check.command, &path)), None),
        ProgramReady::Descriptor(number) => (None, Some(*number)),
        _ => (None, None),
    };
    let reload = match &program.reload {
        Some(Reload::Command(hook)) => Some(command(&hook.command, &path)),
        _ => None,
    };
    let state = state(program, config, &mut environment);
    let HandedOver { outputs, inputs, values, changes } =
        handed_over(program, ready_descriptor, &mut environment);
    Ok(Spec {
        missing: None,
        hooks: [
            hook(&program.on_start),
            ready_check,
            hook(&program.stop_command),
            hook(&program.on_stop),
            hook(&program.on_failure),
            reload,
            program.check.as_ref().map(|check| check_command(&check.command, &path)),
        ],
        exec: Exec {
            command: match &program.child {
                Some(child) if companion_of(program).is_none() => own_image(&child.word, None),
                None if super::bundled::is_bundled(program) => own_image(&program.name, None),
                _ => command(&program.command, &path),
            },
            environment,
            directory: program.directory.clone(),
            identity: identity.map(|identity| (identity.user, identity.group, identity.groups)),
            umask: program.umask,
            limits: program.rlimits.clone(),
            nice: program.nice,
            scheduling: program.scheduling,
            affinity: program.cpu_affinity,
            io_priority: program.ioprio,
            oom_score: program.oom_score_adj,
            capabilities: capabilities(program),
            no_new_privs: program.no_new_privs,
            redirect_stderr: program.redirect_stderr,
            notify: uses_notify(program),
            ready_descriptor,
            beat_descriptor: beat_descriptor(program),
            watched: watched(program),
            stdout_is_null: stdout.is_none(),
            stderr_is_null: stderr.is_none(),
            forking: program.kind == ProgramKind::Forking,
            pidfile: program.pidfile.clone(),
            outputs,
            inputs,
            values,
            changes,
            settings: settings(program)?,
            state,
        },
        stdout,
        stderr,
    })
}

/// The directory that is made for it; its environment tells it. A companion is told that of its child.
fn state(program: &Program, config: &Config, environment: &mut Vec<String>) -> Option<String> {
    let companion_of = companion_of(program);
    let name = companion_of.unwrap_or(&program.name);
    let state = [&config.daemon.state_dir, STATE_DIRECTORIES, name].concat();
    if program.state_directory {
        environment.push(["STATE_DIRECTORY=", &state].concat());
    }
    Some(state).filter(|_| program.state_directory && companion_of.is_none())
}

/// What a bundled child or a companion is told. A companion cannot read the file its password is in: we do.
fn settings(program: &Program) -> Result<Vec<u8>, String> {
    let Some(mut child) = program.child.clone() else { return Ok(Vec::new()) };
    let is_companion = companion_of(program).is_some();
    let file = child.settings.iter_mut().find(|setting| is_companion && setting.name == PASSWORD_FILE);
    if let Some(file) = file {
        let bytes = file::read_bounded(Path::new(&file.value), PASSWORD_BYTES_MAX)
            .map_err(|error| [PASSWORD_FILE, " ", &file.value, ": ", &error.to_string()].concat())?;
        let text = String::from_utf8_lossy(&bytes);
        file.value = text.lines().next().unwrap_or("").trim_end().into();
    }
    Ok(packed::to_bytes(&mut child))
}

/// A bundled child runs as a user of its own: the account of its name where there is one, else a number that is the same on
/// every machine, of those that systemd keeps for users without an account (DynamicUser in systemd.exec(5)).
fn own_user(program: &Program, accounts: &Accounts) -> Option<String> {
    let child = program.child.as_ref().filter(|_| process::is_root())?;
    let (name, number) = config::child::account(&child.word);
    let is_there = accounts.identity(&name, None).is_ok();
    Some(if is_there { name } else { number.to_string() })
}

/// What a process is handed; see [`Exec`].
struct HandedOver {
    outputs: Vec<(String, i32, u64)>,
    inputs: Option<i32>,
    values: Option<i32>,
    changes: Option<i32>,
}

/// Outputs with the descriptors it is handed, and those of the pages of inputs and values; its environment tells it both.
fn handed_over(
    program: &Program,
    ready_descriptor: Option<i32>,
    environment: &mut Vec<String>,
) -> HandedOver {
    // Descriptors it is handed, numbered from 3 on around the one it chose itself, and the one it beats by.
    let taken = [ready_descriptor, beat_descriptor(program)];
    let mut numbers = (3..).filter(|number| !taken.contains(&Some(*number)));
    let outputs = program.outputs.iter().map(|output| {
        let number = if outputs::is_handed_over(output) { numbers.next() } else { None };
        (output.name.clone(), number.unwrap_or(-1), outputs::making(output))
    });
    let outputs: Vec<_> = outputs.collect();
    let is_child = program.child.is_some();
    let inputs = numbers.next().filter(|_| is_child || !program.inputs.is_empty());
    let values = numbers.next().filter(|_| is_child);
    let changes = numbers.next().filter(|_| is_child);
    let handed = outputs.iter().filter(|(_, number, _)| *number >= 0);
    let handed: Vec<String> =
        handed.map(|(name, number, _)| [name, "=", &number.to_string()].concat()).collect();
    if !handed.is_empty() {
        environment.push(["MULTUSD_OUTPUTS=", &handed.join(",")].concat());
    }
    let named = [("MULTUSD_INPUTS=", inputs), ("MULTUSD_VALUES=", values), ("MULTUSD_CHANGES=", changes)];
    for (name, number) in named {
        if let Some(number) = number {
            environment.push([name, &number.to_string()].concat());
        }
    }
    HandedOver { outputs, inputs, values, changes }
}

/// It is told a NOTIFY_SOCKET.
pub fn uses_notify(program: &Program) -> bool {
    let beats = program.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.kind == HeartbeatKind::Notify);
    let told = program.kind == ProgramKind::Notify || program.ready == ProgramReady::Notify || beats;
    told || super::bundled::is_bundled(program)
}

/// The number under which it finds what it beats by: the first that is free.
pub fn beat_descriptor(program: &Program) -> Option<i32> {
    let heartbeat = program.heartbeat.as_ref()?;
    let inherits = matches!(heartbeat.kind, HeartbeatKind::Fd | HeartbeatKind::Counter);
    let is_taken = program.ready == ProgramReady::Descriptor(3);
    inherits.then_some(if is_taken { 4 } else { 3 })
}

/// The directory in which its file beats.
fn watched(program: &Program) -> Option<String> {
    match &program.heartbeat.as_ref()?.kind {
        HeartbeatKind::File(path) => Some(Path::new(path).parent()?.to_string_lossy().into_owned()),
        _ => None,
    }
}

fn strings(list: &[String]) -> Vec<CString> {
    // The configuration has no zero bytes (checked where it is read).
    list.iter().filter_map(|text| CString::new(text.as_str()).ok()).collect()
}

/// By their bytes: code that compares field by field is larger, and this runs at a reload.
macro_rules! equal_by_bytes {
    ($($name:ident)*) => {
        $(impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                packed::to_bytes(&mut self.clone()) == packed::to_bytes(&mut other.clone())
            }
        })*
    };
}
equal_by_bytes!(Exec Spec);

impl Exec {
    /// Tells one making from another.
    pub fn digest(&self) -> u64 {
        digest(&packed::to_bytes(&mut self.clone()))
    }

    /// Owner of what the program must be able to open.
    pub fn owner(&self) -> Option<(u32, u32)> {
        self.identity.as_ref().map(|(user, group, _)| (*user, *group))
    }

    /// Ready for the kernel.
    pub fn recipe(&self, base: &Base) -> Recipe {
        let mut recipe = self.recipe_of(&self.command, base);
        recipe.watched = self.watched.as_deref().and_then(|path| CString::new(path).ok());
        recipe.state = self.state.as_deref().and_then(|path| CString::new(path).ok());
        recipe
    }

    /// The same surroundings for another command: a hook runs as its program does.
    pub fn recipe_of(&self, command: &Command, base: &Base) -> Recipe {
        let mut recipe = Recipe::new(
            strings(&command.paths),
            strings(&command.words),
            strings(&self.environment),
            &base.0,
        );
        recipe.directory = self.directory.as_deref().and_then(|path| CString::new(path).ok());
        recipe.identity = self.identity.as_ref().map(|(user, group, groups)| Identity {
            user: *user,
            group: *group,
            groups: groups.clone(),
        });
        recipe.umask = self.umask;
        recipe.limits.clone_from(&self.limits);
        recipe.nice = self.nice;
        recipe.scheduling = self.scheduling;
        recipe.affinity = self.affinity;
        recipe.io_priority = self.io_priority;
        recipe.oom_score = self.oom_score.and_then(|score| CString::new(score.to_string()).ok());
        recipe.capabilities = self.capabilities;
        recipe.no_new_privs = self.no_new_privs;
        recipe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_without_a_slash_is_searched_in_path() {
        let found = command(&["sleep".into(), "1".into()], "/a::/b");
        assert_eq!(found.paths, ["/a/sleep", "/b/sleep"]);
        assert_eq!(command(&["./x".into()], "/a").paths, ["./x"]);
    }
}

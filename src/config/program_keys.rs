//! Rows: the daemon, what a program is, when it starts and stops.

use super::assemble::{Draft, ReadyWord};
use super::keys::Kind::{
    Bool, Choice, Command, Duration, DurationOrNever, Names, Number, Other, Path, Seconds, Word,
};
use super::keys::{ENVIRONMENT, EXIT_CODES, Key, READY, RELOAD, RETRIES, SIGNAL, UMASK, key, path};
use super::value::{self, Wrong};
use super::words;
use super::{AutoRestart, Cgroup, HookCommand, OptionalFile, ProgramKind, Reload};
use crate::limits::PROGRAM_COUNT_MAX;
use crate::time::Millis;

pub(super) static DAEMON: &[Key] = &[
    key!("hostname", Other("a host name", host_name), "(left alone)", "pump-7",
        "Host name that is set at start. Needs root.").web(),
    key!("state_dir", Path(|d, v| d.daemon.state_dir = v), "/var/lib/multusd", "/data/multusd",
        "Directory for what must survive a reset: the last good configuration, the ledger of resets. Must be writable and lasting."),
    key!("run_dir", Path(|d, v| d.daemon.run_dir = v), "/run/multusd", "/run/multusd",
        "Directory for sockets and process data; should be in memory. The command line's --run-dir wins."),
    key!("log_dir", Path(|d, v| d.daemon.log_dir = v), "/var/log/multusd", "/data/log",
        "Directory for the output of programs whose logfile is AUTO."),
    key!("control_group", Word(|d, v| d.daemon.control_group = Some(v)), "(root only)", "operators",
        "Members of this group may give orders with multusctl."),
    key!("cgroup", Other("auto, off or an absolute path", cgroup), "auto", "off or /sys/fs/cgroup/multusd",
        "Use of control groups, version 2. With auto they are used where they are writable; a path names an existing directory to use."),
    key!("reload_watch", Duration(0, |d, v| d.daemon.reload_watch = v), "30s", "30s",
        "After a reload the programs are watched for this long; if one flaps, the former configuration is taken back.").web(),
    key!("save_counts", Duration(1000, |d, v| d.daemon.save_counts = v), "5min", "1h",
        "How often each input has changed is kept in state_dir so long after a change, and at the end; a power cut takes what came later."),
    key!("reboot_command", Command(|d, v| d.daemon.reboot_command = v), "/sbin/reboot", "/sbin/reboot -f",
        "What reboots the machine when `multusctl reboot` is due and everything is down. An absolute path. Should it fail, the kernel is asked."),
    key!("poweroff_command", Command(|d, v| d.daemon.poweroff_command = v), "/sbin/poweroff", "/sbin/poweroff -f",
        "The same for `multusctl poweroff`."),
    key!("lock_memory", Bool(|d, v| d.daemon.lock_memory = v), "false", "true",
        "Guard and supervisor keep their memory locked, so that they never wait for storage or swap. Costs some 150 kB. Without the right to do so that is said, and they go on."),
    key!("realtime_priority", Number(0, 98, |d, v| d.daemon.realtime_priority = v as u8), "0", "50",
        "Guard and supervisor run before everything of lower real-time priority (SCHED_FIFO); 0 is no real-time. Programs never inherit it, see scheduling. Without the right to do so that is said, and they go on."),
];

pub(super) static INCLUDE: &[Key] = &[key!(
    "files",
    Names(|_, _| {}),
    "(none)",
    "multusd.d/*.cfg",
    "Patterns of further files, separated by spaces, relative to this file's directory. Read in sorted order; files whose name ends with .disabled are left out. Included files cannot include.",
)];

pub(super) static WHAT: &[Key] = &[
    key!("command", Command(|d, v| d.program.command = v), "(required)", "/usr/bin/pump --port 3",
        "The program and its arguments. There is no shell: quotes and backslashes work, variables, pipes and ; do not. Without a slash the program is searched in PATH. It should stay in the foreground, or see type = forking.").restart(),
    key!("process_name", Other("a program name", process_name), "(the section's name)", "%(program_name)s-%(process_num)d",
        "Name of the process. With numprocs above 1 it must contain %(process_num) and defaults to %(program_name)s_%(process_num)02d."),
    key!("numprocs", Number(1, PROGRAM_COUNT_MAX as i64, |d, v| d.numprocs = v as u32), "1", "2",
        "How many processes of this kind run."),
    key!("numprocs_start", Number(0, 1_000_000, |d, v| d.numprocs_start = v as u32), "0", "1",
        "The first %(process_num)."),
    key!("type", Choice(&["simple", "notify", "forking", "oneshot"], |d, v| d.program.kind = KINDS[v]), "simple", "notify",
        "How it starts: simple runs in the foreground; notify does too and says READY=1 on NOTIFY_SOCKET; forking puts itself into the background and the command ends; oneshot does its work and ends.").restart(),
    key!("pidfile", Path(|d, v| d.program.pidfile = Some(v)), "(none)", "/run/pump.pid",
        "File in which a forking program writes its process id. Without it the main process is found among its descendants.").restart(),
    key!("directory", Path(|d, v| d.program.directory = Some(v)), "(multusd's)", "/data/pump",
        "Working directory.").restart(),
    key!("user", Word(|d, v| d.program.user = Some(v)), "(multusd's)", "pump",
        "User, by name or number, with all its groups. Needs root.").restart(),
    key!("group", Word(|d, v| d.program.group = Some(v)), "(the user's)", "dialout",
        "Main group, by name or number.").restart(),
    key!("umask", Other(UMASK, |d, v| { d.program.umask = Some(value::octal(v)?); Ok(()) }), "(multusd's)", "022",
        "Permissions that new files do not get, octal.").restart(),
    key!("environment", Other(ENVIRONMENT, |d, v| { d.program.environment = words::environment(v)?; Ok(()) }), "(none)", "PORT=\"3\",LANG=\"C\"",
        "Variables added to the environment.").restart(),
    key!("environment_file", Other("an absolute path, with a hyphen before it if it may be missing", environment_file), "(none)", "-/boot/pump.env",
        "File with one KEY=value per line, read when multusd starts and at a reload. With a hyphen before the path it may be missing. What environment says wins.").restart(),
];

pub(super) static START: &[Key] = &[
    key!("priority", Number(i32::MIN as i64, i32::MAX as i64, |d, v| d.program.priority = v as i32), "999", "10",
        "Order: low numbers start first and stop last. See after and requires for real dependencies.").web(),
    key!("autostart", Bool(|d, v| d.program.autostart = v), "true", "false",
        "Whether it starts with multusd.").web(),
    key!("autorestart", Other("true, false or unexpected", autorestart), "true", "unexpected",
        "Whether it starts again when it ends by itself: true, false, or unexpected (only after an exit code that is not in exitcodes, or a signal). Unlike in Supervisor the default is true, because a quiet exit must not leave a board dead.").web(),
    key!("exitcodes", Other(EXIT_CODES, |d, v| { d.program.exitcodes = value::exit_codes(v)?; Ok(()) }), "0", "0,2",
        "Exit codes that are no surprise.").web(),
    key!("startsecs", Seconds(0, |d, v| d.program.startsecs = v), "1", "1 or 2.5s",
        "It must run this long before its start counts as successful; with 0 it counts at once.").web(),
    key!("startretries", Other(RETRIES, start_retries), "forever", "forever or 10",
        "Failed starts in a row before it is given up. Unlike in Supervisor the default is forever.").web(),
    key!("restart_delay", Duration(0, |d, v| d.program.restart_delay = v), "100ms", "500ms",
        "Pause before the second restart in a row; the first one has none, and each further pause is twice the one before. A start that fails at once is always followed by a pause of 10ms or more.").web(),
    key!("restart_delay_max", Duration(0, |d, v| d.program.restart_delay_max = v), "1min", "5min",
        "The longest pause between restarts.").web(),
    key!("restart_reset", Duration(0, |d, v| d.program.restart_reset = v), "10s", "1min",
        "Ready for this long without a break proves health: the next failure begins a new series.").web(),
];

pub(super) static READINESS: &[Key] = &[
    key!("after", Names(|d, v| d.after = v), "(none)", "network",
        "Programs or sections, separated by commas or spaces, that go first: the first start waits until each of them is ready, has failed once, or is not wanted. Later failures of theirs do not matter.").web(),
    key!("requires", Names(|d, v| d.requires = v), "(none)", "network, database",
        "Programs or sections that this one needs: every start waits until each of them is ready, starting this one starts them, and when one of them is stopped, this one is stopped first and waits.").web(),
    key!("ready", Other(READY, ready), "(by type: notify with notify, check with ready_check, else uptime)", "fd",
        "How it is known to be ready: uptime (it ran for startsecs), notify (READY=1 on NOTIFY_SOCKET), fd or fd:N (a line end written to descriptor N, 3 by default), pidfile (the pid file names it), check (ready_check succeeds).").restart(),
    key!("ready_check", Command(|d, v| d.ready_check = v), "(none)", "/usr/bin/pump --ping",
        "Command that succeeds once the program is ready. Run as its user, again and again until then."),
    key!("ready_check_interval", Duration(10, |d, v| d.ready_check_interval = v), "1s", "500ms",
        "Pause between two runs of ready_check.").web(),
    key!("ready_check_timeout", Duration(1, |d, v| d.ready_check_timeout = v), "10s", "2s",
        "One run of ready_check may take this long.").web(),
    key!("start_timeout", DurationOrNever(1, |d, v| d.start_timeout = Some(v)), "(never with ready = uptime and type = oneshot, else and with type = forking 60s)", "30s or never",
        "The start has failed if it is not ready after this time.").web(),
];

pub(super) static STOP: &[Key] = &[
    key!(
        "stopsignal",
        Other(SIGNAL, |d, v| {
            d.program.stopsignal = value::signal(v)?;
            Ok(())
        }),
        "TERM",
        "INT",
        "Signal that asks it to end.",
    )
    .web(),
    key!(
        "stopwaitsecs",
        Seconds(0, |d, v| d.program.stopwaitsecs = v),
        "10",
        "5 or 500ms",
        "It may take this long to end; then all its processes are killed.",
    )
    .web(),
    key!(
        "stopasgroup",
        Bool(|d, v| d.program.stopasgroup = v),
        "false",
        "true",
        "Send the stop signal to the whole process group.",
    )
    .web(),
    key!(
        "killasgroup",
        Bool(|d, v| d.killasgroup = Some(v)),
        "(as stopasgroup)",
        "true",
        "Accepted for Supervisor's sake: killing always reaches all processes of a program.",
    )
    .web(),
    key!(
        "stop_command",
        Command(|d, v| d.stop_command = v),
        "(none)",
        "/usr/bin/pump --stop",
        "Command that asks it to end, in place of the stop signal, which follows when the command fails or its time is over.",
    ),
    key!(
        "stop_command_timeout",
        Duration(1, |d, v| d.stop_command_timeout = v),
        "10s",
        "10s",
        "stop_command may take this long.",
    )
    .web(),
    key!(
        "reload",
        Other(RELOAD, reload),
        "(none)",
        "HUP or /usr/bin/pump --reload",
        "Signal or command that makes the program read its own configuration again.",
    ),
    key!(
        "reload_timeout",
        Duration(1, |d, v| d.reload_timeout = v),
        "10s",
        "10s",
        "A reload command may take this long.",
    )
    .web(),
    key!(
        "on_start",
        Command(|d, v| d.on_start = v),
        "(none)",
        "/usr/bin/logger pump up",
        "Command that is run before each start; if it fails, so does the start.",
    ),
    key!(
        "on_start_timeout",
        Duration(1, |d, v| d.on_start_timeout = v),
        "10s",
        "10s",
        "on_start may take this long.",
    )
    .web(),
    key!(
        "on_stop",
        Command(|d, v| d.on_stop = v),
        "(none)",
        "/usr/bin/logger pump down",
        "Command that is run after an ordered stop, when nothing of it is alive.",
    ),
    key!(
        "on_stop_timeout",
        Duration(1, |d, v| d.on_stop_timeout = v),
        "10s",
        "10s",
        "on_stop may take this long.",
    )
    .web(),
    key!(
        "on_failure",
        Command(|d, v| d.on_failure = v),
        "(none)",
        "/usr/bin/logger pump failed",
        "Command that is run after each failure, when nothing of it is alive.",
    ),
    key!(
        "on_failure_timeout",
        Duration(1, |d, v| d.on_failure_timeout = v),
        "10s",
        "10s",
        "on_failure may take this long.",
    )
    .web(),
];

const KINDS: [ProgramKind; 4] =
    [ProgramKind::Simple, ProgramKind::Notify, ProgramKind::Forking, ProgramKind::Oneshot];

fn host_name(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    if !words::is_host_name(text) {
        return Err(Wrong::Kind);
    }
    draft.daemon.hostname = Some(text.into());
    Ok(())
}

fn cgroup(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    draft.daemon.cgroup = match text {
        "auto" => Cgroup::Auto,
        "off" => Cgroup::Off,
        _ => Cgroup::Path(path(text)?),
    };
    Ok(())
}

fn process_name(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    draft.program.name = text.into();
    match words::name_fault(text) {
        Some(fault) => Err(Wrong::Say(format!("cannot be a program's name: it {fault}"))),
        None => Ok(()),
    }
}

fn environment_file(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    let (text, optional) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
    draft.program.environment_file = Some(OptionalFile { path: path(text)?, optional });
    Ok(())
}

fn autorestart(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    draft.program.autorestart = match text {
        "unexpected" => AutoRestart::Unexpected,
        _ if value::boolean(text)? => AutoRestart::Always,
        _ => AutoRestart::Never,
    };
    Ok(())
}

fn start_retries(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    draft.program.startretries = match text {
        "forever" => None,
        _ => Some(value::number(text, 0, i64::from(u32::MAX))? as u32),
    };
    Ok(())
}

fn ready(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    draft.ready = Some(match text {
        "uptime" => ReadyWord::Uptime,
        "notify" => ReadyWord::Notify,
        "pidfile" => ReadyWord::PidFile,
        "check" => ReadyWord::Check,
        "fd" => ReadyWord::Descriptor(3),
        _ => match text.strip_prefix("fd:") {
            // 0 to 2 are the standard streams; 1023 is below every usual limit of descriptors.
            Some(number) => ReadyWord::Descriptor(value::number(number.trim(), 3, 1023)? as i32),
            None => return Err(Wrong::Kind),
        },
    });
    Ok(())
}

/// A single word that names a signal is one; anything else is a command.
fn reload(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    let looks_like_a_signal = text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("SIG"))
        || text.bytes().all(|byte| byte.is_ascii_digit());
    draft.reload = Some(match value::signal(text) {
        Ok(signal) => Reload::Signal(signal),
        Err(wrong) if looks_like_a_signal && !text.contains(['/', ' ']) => return Err(wrong),
        Err(_) => Reload::Command(HookCommand { command: words::command(text)?, timeout: Millis::ZERO }),
    });
    Ok(())
}

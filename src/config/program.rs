//! What the configuration says, after parsing, expansion and checking: plain data.

use std::rc::Rc;

use super::board::{Board, Check, Heartbeat, Output};
use super::child::Settings;
use crate::time::Millis;

/// Where something stands: which file (index into [`super::Sources`]) and which line, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Index of the file.
    pub file: u16,
    /// Line, counted from 1.
    pub line: u32,
}

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[multusd]`.
    pub daemon: Daemon,
    /// Every process of every `[program:…]`, numprocs expanded, sorted by priority (stable), at
    /// most `limits::PROGRAM_COUNT_MAX`.
    pub programs: Vec<Rc<Program>>,
    /// Inputs, outputs, watchdogs, temperature.
    pub board: Board,
    /// `[log]`.
    pub log: LogConfig,
    /// `[system]`
    pub system: SystemConfig,
}

/// `[multusd]`: the daemon's own settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Daemon {
    /// Host name to set at start (root only); none: left alone.
    pub hostname: Option<String>,
    /// Where what must survive a reset is kept (last good configuration, ledger).
    pub state_dir: String,
    /// Sockets, pid file, adoption data; lost at reset. The command line's `--run-dir` wins.
    pub run_dir: String,
    /// Program output.
    pub log_dir: String,
    /// Members of this group may give orders through the control socket; none: root (and the user
    /// the daemon runs as) only.
    pub control_group: Option<String>,
    /// Use of control groups.
    pub cgroup: Cgroup,
    /// How long a changed configuration is watched for flapping before it counts as good.
    pub reload_watch: Millis,
    /// After a change of an input, how long until its count is kept.
    pub save_counts: Millis,
    /// `reboot_command`, split.
    pub reboot_command: Vec<String>,
    /// `poweroff_command`, split.
    pub poweroff_command: Vec<String>,
    /// Guard and supervisor keep their memory out of the reach of storage.
    pub lock_memory: bool,
    /// SCHED_FIFO priority of the supervisor, the guard's is one above; 0: as everybody.
    pub realtime_priority: u8,
}

/// `cgroup =`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cgroup {
    /// Use version 2 where it is writable, else do without.
    #[default]
    Auto,
    /// Do without.
    Off,
    /// Use this existing directory of a version 2 hierarchy, or do without and say so.
    Path(String),
}

/// One process to supervise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// Unique; from `process_name`, by default the section's name (with `_NN` where numprocs > 1).
    pub name: String,
    /// The section it comes from, `pump` for `[program:pump]`.
    pub section: String,
    /// Line of that section's header.
    pub place: Place,
    /// It is a bundled child, and this is what it is told.
    pub child: Option<Settings>,
    /// `command`, split; element 0 is the program (searched in PATH when it has no slash).
    pub command: Vec<String>,
    /// `directory`
    pub directory: Option<String>,
    /// `user`: a name or a number.
    pub user: Option<String>,
    /// `group`: a name or a number.
    pub group: Option<String>,
    /// `umask`
    pub umask: Option<u32>,
    /// `environment`, in order.
    pub environment: Vec<(String, String)>,
    /// `environment_file`; a leading `-` (stripped here) makes it optional.
    pub environment_file: Option<OptionalFile>,
    /// `priority`
    pub priority: i32,
    /// `autostart`
    pub autostart: bool,
    /// `autorestart`
    pub autorestart: AutoRestart,
    /// `exitcodes`
    pub exitcodes: Vec<u8>,
    /// `startsecs`
    pub startsecs: Millis,
    /// `startretries`; none: for ever.
    pub startretries: Option<u32>,
    /// `stopsignal`, a signal number.
    pub stopsignal: i32,
    /// `stopwaitsecs`
    pub stopwaitsecs: Millis,
    /// `stopasgroup`: the stop signal goes to the process group.
    pub stopasgroup: bool,
    /// `killasgroup`: accepted for Supervisor's sake; SIGKILL always reaches the whole tree.
    pub killasgroup: bool,
    /// `stop_command`
    pub stop_command: Option<HookCommand>,
    /// `reload`: what `multusctl signal NAME reload` (and a reload by the program's own means) does.
    pub reload: Option<Reload>,
    /// `redirect_stderr`: standard error goes where standard output goes.
    pub redirect_stderr: bool,
    /// `stdout_logfile…`
    pub stdout: Log,
    /// `stderr_logfile…`
    pub stderr: Log,
    /// `log_…`
    pub log: ProgramLog,
    /// `type`
    pub kind: ProgramKind,
    /// `pidfile`
    pub pidfile: Option<String>,
    /// `after`: indexes into `Config::programs`, resolved (a section name means all its processes).
    pub after: Vec<usize>,
    /// `requires`: the same.
    pub requires: Vec<usize>,
    /// `ready`
    pub ready: ProgramReady,
    /// `start_timeout`; none: no limit.
    pub start_timeout: Option<Millis>,
    /// `restart_delay`
    pub restart_delay: Millis,
    /// `restart_delay_max`
    pub restart_delay_max: Millis,
    /// `restart_reset`: ready this long proves health.
    pub restart_reset: Millis,
    /// `limit_*`: resource number (RLIMIT_*), soft, hard; `u64::MAX` is unlimited.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// `memory_max`, bytes, by control group.
    pub memory_max: Option<u64>,
    /// `pids_max`, by control group.
    pub pids_max: Option<u32>,
    /// `nice`, -20..=19
    pub nice: Option<i32>,
    /// `scheduling`: policy (SCHED_*) and real-time priority.
    pub scheduling: Option<(i32, i32)>,
    /// `cpu_affinity`: allowed CPUs as a bit set (CPUs 0..=127).
    pub cpu_affinity: Option<u128>,
    /// `ioprio`: class (1 realtime, 2 best-effort, 3 idle) and level 0..=7.
    pub ioprio: Option<(u8, u8)>,
    /// `oom_score_adj`, -1000..=1000
    pub oom_score_adj: Option<i32>,
    /// `capabilities`: exactly these (bit set by capability number) are kept; none: not touched.
    pub capabilities: Option<u64>,
    /// `no_new_privs`
    pub no_new_privs: bool,
    /// `state_directory`: it has a directory of its own below `state_dir`.
    pub state_directory: bool,
    /// `heartbeat…`; none: not judged.
    pub heartbeat: Option<Heartbeat>,
    /// `check…`
    pub check: Option<Check>,
    /// `outputs`: those it owns.
    pub outputs: Vec<Rc<Output>>,
    /// `inputs`: names of those it reads.
    pub inputs: Vec<String>,
    /// `on_start`
    pub on_start: Option<HookCommand>,
    /// `on_stop`
    pub on_stop: Option<HookCommand>,
    /// `on_failure`
    pub on_failure: Option<HookCommand>,
}

/// A file that may be required to exist or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalFile {
    /// Its path.
    pub path: String,
    /// Its absence is no error.
    pub optional: bool,
}

/// A command with the longest it may take (`…_timeout`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCommand {
    /// The command, split.
    pub command: Vec<String>,
    /// Killed after this, which counts as failure.
    pub timeout: Millis,
}

/// `autorestart`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoRestart {
    /// `true`
    #[default]
    Always,
    /// `unexpected`
    Unexpected,
    /// `false`
    Never,
}

/// `type`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgramKind {
    /// `simple`
    #[default]
    Simple,
    /// `notify`: sd_notify
    Notify,
    /// `forking`
    Forking,
    /// `oneshot`
    Oneshot,
}

/// `ready`; the default follows `type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProgramReady {
    /// `uptime`: alive for `startsecs`.
    #[default]
    Uptime,
    /// `notify`: READY=1 on NOTIFY_SOCKET.
    Notify,
    /// `fd` or `fd:N`: a newline on descriptor N (default 3).
    Descriptor(i32),
    /// `pidfile`: the pid file names a process of this program.
    PidFile,
    /// `check`: `ready_check` succeeds; tried again every `ready_check_interval`.
    Check {
        /// The command and one run's timeout.
        check: HookCommand,
        /// Pause between runs.
        interval: Millis,
    },
}

/// `reload`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Send this signal to the main process.
    Signal(i32),
    /// Run this command.
    Command(HookCommand),
}

/// Where one output stream goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The file.
    pub file: LogFile,
    /// Rotated above this many bytes; 0: never.
    pub maxbytes: u64,
    /// Rotated files kept.
    pub backups: u32,
    /// `…_syslog`: lines go to syslog too.
    pub syslog: bool,
}

/// How the lines of a program are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramLog {
    /// `log_stamp`
    pub stamp: LogStamp,
    /// `log_sync`: every line is written and synced at once.
    pub sync: bool,
    /// `log_rate`: lines per second of each stream; 0: no limit.
    pub rate: u32,
    /// `log_fold`: repeated lines are counted.
    pub fold: bool,
    /// `log_kmsg`: lines go to the kernel's log too.
    pub kmsg: bool,
}

/// `log_stamp`: what a line in a file begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogStamp {
    /// `both`: first `wall`, then `monotonic`
    #[default]
    Both,
    /// `wall`: the date and time, UTC.
    Wall,
    /// `monotonic`: seconds since boot.
    Monotonic,
    /// `none`
    None,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// Bytes of the ring's data, `limits::LOG_RING_BYTES_MIN..=LOG_RING_BYTES_MAX`.
    pub ring: u64,
    /// Lines wait at most so long.
    pub flush: Millis,
    /// Bytes of all log files together.
    pub total_maxbytes: u64,
    /// No file is written.
    pub ram_only: bool,
    /// `compress`, split; empty: rotated files stay as they are.
    pub compress: Vec<String>,
    /// Where lines for syslog go.
    pub syslog: Syslog,
    /// Lines with `log_kmsg` go to the kernel's log.
    pub kmsg: bool,
    /// Bytes written per day and stream above which it is said; 0: never.
    pub daily_alarm: u64,
    /// User who writes the files; none: multusd's.
    pub user: Option<String>,
}

/// `syslog =`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Syslog {
    /// `no`
    #[default]
    No,
    /// `local`: /dev/log
    Local,
    /// `udp:ADDRESS:PORT`
    Udp {
        /// As inet_pton(3) takes it.
        host: String,
        /// It is one of IP version 6.
        is_six: bool,
        /// 1 to 65535.
        port: u16,
    },
}

/// `…_logfile`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogFile {
    /// `AUTO`: in `log_dir`, named after the program and the stream.
    #[default]
    Auto,
    /// `NONE`: /dev/null
    None,
    /// A path.
    Path(String),
}

/// `[system]`: the machine itself, where an image of multusd's runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemConfig {
    /// `ntp`; none: the clock is left alone.
    pub ntp: Vec<String>,
    /// `timezone`
    pub timezone: Option<String>,
    /// `root_password`
    pub root_password: Option<String>,
    /// `copy_programs`
    pub copy_programs: bool,
}

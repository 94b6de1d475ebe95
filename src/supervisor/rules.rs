//! What the supervisor must know of a program: numbers and sets only. How to start it is the
//! daemon's knowledge.

use crate::time::Millis;

use super::ChildSet;

/// What the spawned process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The process spawned is the program.
    Simple,
    /// The process spawned returns 0 and leaves a daemon behind: `FindMain` says which.
    Forking,
    /// Runs to completion; success is being ready, for ever.
    Oneshot,
}

/// What makes a started child ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Having been alive for `Rules::start_time`.
    Uptime,
    /// `ReadyReported`.
    Report,
    /// `Hook::ReadyCheck` succeeds; tried again after this pause.
    Check(Millis),
}

/// Which ends are followed by a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Every end.
    Always,
    /// Ends other than those in `Rules::expected`.
    Unexpected,
    /// None (after the child was ready).
    Never,
}

/// Exit codes that are no surprise, as a 256 bit set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCodes([u64; 4]);

impl ExitCodes {
    /// Adds a code.
    pub fn insert(&mut self, code: u8) {
        self.0[usize::from(code) / 64] |= 1 << (code % 64);
    }
    /// Whether the code is expected.
    pub fn contains(&self, code: u8) -> bool {
        self.0[usize::from(code) / 64] & (1 << (code % 64)) != 0
    }
}

/// When checks of a ready child make it a failed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckRules {
    /// From the end of one check (or from readiness) to the begin of the next.
    pub interval: Millis,
    /// So many failures …
    pub failures: u8,
    /// … among the last so many checks, at most `limits::CHECK_WINDOW_MAX`.
    pub of: u8,
}

/// Which hooks a child has, each with the longest it may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookTimes {
    /// `on_start`
    pub on_start: Option<Millis>,
    /// `stop_command`; the stop signal follows when it fails or its time is over.
    pub stop_command: Option<Millis>,
    /// `on_stop`
    pub on_stop: Option<Millis>,
    /// `on_failure`
    pub on_failure: Option<Millis>,
    /// One run of `ready_check`.
    pub ready_check: Millis,
    /// One run of `check`.
    pub check: Millis,
}

/// The supervisor's knowledge of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What the spawned process is.
    pub kind: Kind,
    /// What makes it ready.
    pub ready: Ready,
    /// Wanted from the daemon's start.
    pub autostart: bool,
    /// Which ends are followed by a start.
    pub restart: Restart,
    /// Exit codes that are no surprise.
    pub expected: ExitCodes,
    /// `startsecs`: an end sooner than this after the start is a failed start.
    pub start_time: Millis,
    /// Failed starts in a row before giving up (`fatal`); `None`: never.
    pub retries: Option<u32>,
    /// The second pause of a series of failures; the first restart after proven health has none,
    /// and every further pause is twice the one before. A start that failed at once pauses for
    /// `RESTART_PAUSE_MS_MIN` at least.
    pub delay: Millis,
    /// The longest pause.
    pub delay_max: Millis,
    /// Ready for this long without a break proves health: the next failure starts a new series.
    pub health_time: Millis,
    /// Not ready within this time after the spawn is a failed start; `None`: no such limit.
    pub start_timeout: Option<Millis>,
    /// From the stop signal to SIGKILL.
    pub stop_timeout: Millis,
    /// The hooks it has.
    pub hooks: HookTimes,
    /// Longest silence while ready; `None`: not judged.
    pub heartbeat: Option<Millis>,
    /// How its health is checked while it is ready.
    pub check: Option<CheckRules>,
    /// It owns outputs, and this is the shortest limit among them for being unconfirmed.
    pub output_limit: Option<Millis>,
    /// Its lasting failure is the machine's failure.
    pub critical: bool,
    /// First start waits until each of these is ready, has failed once, or is not wanted.
    pub after: ChildSet,
    /// Every start waits until each of these is ready; when one of them is ordered down, this
    /// child goes down first and is held.
    pub requires: ChildSet,
    /// When everything is ordered down, this child is stopped only when these are down.
    pub stops_after: ChildSet,
}

impl Rules {
    /// What a free slot of the table holds; no program has it.
    pub(super) const BLANK: Rules = Rules {
        kind: Kind::Simple,
        ready: Ready::Uptime,
        autostart: false,
        restart: Restart::Never,
        expected: ExitCodes([0; 4]),
        start_time: Millis::ZERO,
        retries: None,
        delay: Millis::ZERO,
        delay_max: Millis::ZERO,
        health_time: Millis::ZERO,
        start_timeout: None,
        stop_timeout: Millis::ZERO,
        hooks: HookTimes {
            on_start: None,
            stop_command: None,
            on_stop: None,
            on_failure: None,
            ready_check: Millis::ZERO,
            check: Millis::ZERO,
        },
        heartbeat: None,
        check: None,
        output_limit: None,
        critical: false,
        after: ChildSet::EMPTY,
        requires: ChildSet::EMPTY,
        stops_after: ChildSet::EMPTY,
    };
}

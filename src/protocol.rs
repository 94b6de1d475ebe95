//! What goes over the control socket: one request packet in, one reply packet out.
//!
//! SOCK_SEQPACKET on `RUN/control`. Byte 0 is the protocol's version, then what [`crate::packed`] makes of it.
//! Enums grow at their end only, and a struct that was released never changes (no field can be left out):
//! bytes that any released version wrote decode for ever (golden test).
//! Pure: encodes and decodes, knows no socket.

#![allow(missing_docs, reason = "each request has its sentence; its fields are named by what they carry")]

use crate::limits::{NAME_BYTES_MAX, WATCHDOG_COUNT_MAX};
use crate::packed::{self, Packed, packed};

/// Version of the protocol, byte 0 of every packet.
pub const VERSION: u8 = 1;

/// Programs in one page of a status reply; a page fits a packet (tested).
pub const STATUS_PAGE_COUNT: usize = 8;

/// Events in one packet of a subscription.
pub const EVENT_PAGE_COUNT: usize = 8;

/// Inputs or outputs in one page.
pub const LINE_PAGE_COUNT: usize = 8;

/// Values in one page.
pub const VALUE_PAGE_COUNT: usize = 16;

/// What an input or output is wired to, as the configuration has it; longer ones are cut.
pub type Wire = heapless::String<64>;

/// Sentences about what cannot be done here; more are said on standard error only.
pub const LIMITATION_COUNT_MAX: usize = 16;

/// A name as it travels; longer ones do not exist.
pub type Name = heapless::String<NAME_BYTES_MAX>;

/// A sentence for a person.
pub type Text = heapless::String<200>;

/// Boots that are remembered; all of them fit a packet (tested).
pub const BOOT_COUNT_MAX: usize = 16;

/// Why something is so, in words.
pub type Reason = heapless::String<120>;

/// What a client asks.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub enum Request {
    /// Who answers: `Reply::Daemon`.
    #[default]
    Daemon,
    /// Programs from this table position on, at most a page: `Reply::Status`.
    Status { from: u16 },
    /// One order for programs: `Reply::Done` when taken, or refused.
    Order { name: Name, order: Order },
    /// A signal number for one program's main process.
    Signal { name: Name, signal: u8 },
    /// The program's own `reload`.
    ReloadProgram { name: Name },
    /// Read the configuration again. `Reply::Done` when applied, `Refused` with the first error.
    /// With `dry`, only report what would change.
    Reload { dry: bool },
    /// Answered by `Reply::Done`; from then on this connection receives `Reply::Events`, and sends
    /// nothing more. The answer is what lets a client give an order without missing its events.
    Subscribe,
    /// Stop everything in order and end.
    Quit,
    /// Stop everything in order and reboot (or power off) the machine, after a pause.
    Shutdown { how: Shutdown, in_ms: u64 },
    /// Take a pending shutdown back.
    CancelShutdown,
    /// The whole text behind this connection's last `Reload` or `Refused` (whose own text is the
    /// beginning of it), from this byte on: `Reply::Page`, empty where there is none.
    Page { from: u32 },
    /// Inputs from this one on: `Reply::Inputs`.
    Inputs { from: u16 },
    /// Outputs from this table position on: `Reply::Outputs`.
    Outputs { from: u16 },
    /// Drive an output once. Refused while its program runs, unless `force`.
    SetOutput { name: Name, level: LevelWord, force: bool },
    /// How the watchdogs and the temperature stand: `Reply::Watchdogs`.
    Watchdogs,
    /// How long outputs can stay live: `Reply::Live`.
    Live,
    /// To read what programs write: `Reply::Log`. With `follow`, for as long as the connection lives its end is told of
    /// whatever is new.
    Log { follow: bool },
    /// What programs have written by now is to be on storage: `Reply::Log`.
    SyncLog,
    /// Events from this number on (or the oldest there is), at most a page: `Reply::Events`, empty: those were all.
    History { from: u64 },
    /// Why the machine booted: `Reply::Reasons`.
    Reasons,
    /// Values that are published, from this place on: `Reply::Values`.
    Values { from: u16 },
    /// Publish a value: `outside -23.5 unit=C raw=17 for=5s`.
    Publish { text: Text },
    /// Go on as the executable that is on storage now; programs run on. `Reply::Done` just before, then the connection ends.
    Renew,
}
packed!(enum Request {
    0 Daemon,
    1 Status { from },
    2 Order { name, order },
    3 Signal { name, signal },
    4 ReloadProgram { name },
    5 Reload { dry },
    6 Subscribe,
    7 Quit,
    8 Shutdown { how, in_ms },
    9 CancelShutdown,
    10 Page { from },
    11 Inputs { from },
    12 Outputs { from },
    13 SetOutput { name, level, force },
    14 Watchdogs,
    15 Live,
    16 Log { follow },
    17 SyncLog,
    18 History { from },
    19 Reasons,
    20 Values { from },
    21 Publish { text },
    22 Renew,
});

/// Begins the limitation that says why `Request::Renew` had no effect, though it was agreed to.
pub const NOT_RENEWED: &str = "the former multusd goes on: ";

/// A level by any of its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub enum LevelWord {
    /// The voltage.
    #[default]
    Low,
    /// The voltage.
    High,
    /// Inactive, whatever voltage that is.
    Off,
    /// Active.
    On,
}
packed!(enum LevelWord { 0 Low, 1 High, 2 Off, 3 On });

/// Which end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub enum Shutdown {
    /// Reboot.
    #[default]
    Reboot,
    /// Power off.
    PowerOff,
}
packed!(enum Shutdown { 0 Reboot, 1 PowerOff });

/// Orders, as `supervisor::Order`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub enum Order {
    /// Run it and keep it running.
    #[default]
    Start,
    /// Run it once.
    Once,
    /// Take it down.
    Stop,
    /// Down, then up.
    Restart,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
}
packed!(enum Order { 0 Start, 1 Once, 2 Stop, 3 Restart, 4 Pause, 5 Resume });

/// What the daemon answers.
#[allow(clippy::large_enum_variant, reason = "one at a time, on the stack: the loop does not allocate")]
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub enum Reply {
    /// Taken, or done. The text says what changed where there is something to say.
    Done { text: Text },
    /// Not done.
    Refused { why: Refusal, text: Text },
    /// The daemon itself.
    Daemon(DaemonStatus),
    /// A page of programs; `next` is the next page's `from`, none: that was the last.
    Status { programs: heapless::Vec<ProgramStatus, STATUS_PAGE_COUNT>, next: Option<u16> },
    /// News for a subscriber.
    Events { events: heapless::Vec<Event, EVENT_PAGE_COUNT> },
    /// A piece of a long text; `next` as above.
    Page { text: heapless::String<4096>, next: Option<u32> },
    /// A page of inputs; `next` as above.
    Inputs { inputs: heapless::Vec<InputStatus, LINE_PAGE_COUNT>, next: Option<u16> },
    /// A page of outputs; `next` as above.
    Outputs { outputs: heapless::Vec<OutputStatus, LINE_PAGE_COUNT>, next: Option<u16> },
    /// The watchdogs; why they are not fed (empty: they are); the temperature, where it is watched.
    Watchdogs {
        watchdogs: heapless::Vec<Watchdog, WATCHDOG_COUNT_MAX>,
        withheld: Text,
        temperature: Option<Temperature>,
    },
    /// How long outputs can stay live.
    Live(LiveTimes),
    /// Two descriptors come along (SCM_RIGHTS), open for reading only: the log ring (`sys/log_ring.rs`) and what `log`
    /// was told (`config::LogSettings`). Of `SyncLog`: it is done when the ring's `sync_done` is this.
    Log { sync: u32 },
    /// The last boots, the newest (which runs) first; none: nothing is known of them.
    Reasons { boots: heapless::Vec<Boot, BOOT_COUNT_MAX> },
    /// A page of values; `next` as above.
    Values { values: heapless::Vec<ValueStatus, VALUE_PAGE_COUNT>, next: Option<u16> },
}
packed!(enum Reply {
    0 Done { text },
    1 Refused { why, text },
    2 Daemon(status),
    3 Status { programs, next },
    4 Events { events },
    5 Page { text, next },
    6 Inputs { inputs, next },
    7 Outputs { outputs, next },
    8 Watchdogs { watchdogs, withheld, temperature },
    9 Live(times),
    10 Log { sync },
    11 Reasons { boots },
    12 Values { values, next },
});

/// Why not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub enum Refusal {
    /// The client may not.
    #[default]
    NotAllowed,
    /// No such program.
    NoSuchProgram,
    /// The program does not run.
    NotRunning,
    /// It cannot be done now, or here.
    Failed,
    /// The request made no sense.
    BadRequest,
    /// The configuration has errors.
    BadConfig,
}
packed!(enum Refusal { 0 NotAllowed, 1 NoSuchProgram, 2 NotRunning, 3 Failed, 4 BadRequest, 5 BadConfig });

/// The daemon itself.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct DaemonStatus {
    /// Version of multusd.
    pub version: heapless::String<24>,
    /// Process ids.
    pub guard_pid: u32,
    /// Process ids.
    pub supervisor_pid: u32,
    /// Milliseconds since the guard started.
    pub uptime_ms: u64,
    /// Times the supervisor was replaced.
    pub supervisor_restarts: u32,
    /// Programs in the table.
    pub programs: u16,
    /// Milliseconds until a pending shutdown.
    pub shutdown_in_ms: Option<u64>,
    /// The configuration in force is not the file's: why.
    pub config_note: Text,
    /// What cannot be done here (no control groups, not root, …), one sentence each, in pages.
    pub limitations: heapless::Vec<Text, LIMITATION_COUNT_MAX>,
}
packed!(DaemonStatus {
    version,
    guard_pid,
    supervisor_pid,
    uptime_ms,
    supervisor_restarts,
    programs,
    shutdown_in_ms,
    config_note,
    limitations,
});

/// One program, as `supervisor::Status` and what the daemon knows besides.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct ProgramStatus {
    /// Name.
    pub name: Name,
    /// State.
    pub state: State,
    /// Main process; 0: none.
    pub pid: u32,
    /// Starts beyond the first.
    pub restarts: u32,
    /// Failures in the current series.
    pub failures: u32,
    /// Milliseconds since the main process was started; 0: no process.
    pub uptime_ms: u64,
    /// Milliseconds in this state.
    pub since_ms: u64,
    /// Milliseconds until the next start.
    pub next_start_ms: Option<u64>,
    /// How the last process ended.
    pub last_exit: Option<LastExit>,
    /// Why, in words (`hung`, `exit code 1`, `exec /x: No such file or directory`).
    pub reason: heapless::String<120>,
    /// Its own words (`STATUS=`).
    pub status_text: heapless::String<120>,
    /// Heartbeat.
    pub heartbeat: Option<Heartbeat>,
    /// Outputs it owns.
    pub outputs: heapless::Vec<Output, 8>,
}
packed!(ProgramStatus {
    name,
    state,
    pid,
    restarts,
    failures,
    uptime_ms,
    since_ms,
    next_start_ms,
    last_exit,
    reason,
    status_text,
    heartbeat,
    outputs,
});

/// One watchdog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Watchdog {
    /// Its section's; empty for `[watchdog]`.
    pub name: Name,
    /// The device, or the line that is pulsed.
    pub what: heapless::String<120>,
    /// Milliseconds without a feed until it resets the machine, as configured.
    pub asked_ms: u64,
    /// The same, in force; none: it is not armed by us.
    pub timeout_ms: Option<u64>,
    /// Milliseconds before that at which it warns; none: it does not.
    pub pretimeout_ms: Option<u64>,
    /// Milliseconds left; none: it does not say.
    pub left_ms: Option<u64>,
    /// Milliseconds since the last feed; none: it was not fed yet.
    pub fed_ms: Option<u64>,
    /// Why it is not armed, or what else there is to know.
    pub note: Text,
}
packed!(Watchdog { name, what, asked_ms, timeout_ms, pretimeout_ms, left_ms, fed_ms, note });

/// The temperature that programs may run at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Temperature {
    /// Thousandths of a degree Celsius; none: it cannot be read.
    pub now: Option<i32>,
    /// Programs run from here …
    pub min: i32,
    /// … to here; once stopped, again from so much below.
    pub max: i32,
    pub hysteresis: i32,
    /// Milliseconds since it was read.
    pub age_ms: Option<u64>,
    /// Programs may run.
    pub open: bool,
    /// All that in a sentence.
    pub text: Text,
}
packed!(Temperature { now, min, max, hysteresis, age_ms, open, text });

/// For how long at most an output can stay live after a failure of each kind, in milliseconds; none: for
/// ever, because nobody would notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct LiveTimes {
    /// Outputs there are; with none the rest means nothing.
    pub outputs: u16,
    /// Its program ends.
    pub crash_ms: Option<u64>,
    /// Its program hangs.
    pub hang_ms: Option<u64>,
    /// Its program hangs while the supervisor does.
    pub supervisor_ms: Option<u64>,
    /// The guard fails.
    pub guard_ms: Option<u64>,
    /// The kernel or the processor fails.
    pub kernel_ms: Option<u64>,
}
packed!(LiveTimes { outputs, crash_ms, hang_ms, supervisor_ms, guard_ms, kernel_ms });

/// How a process ended: exactly one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct LastExit {
    /// Exit code.
    pub code: Option<u8>,
    /// Signal number.
    pub signal: Option<u8>,
}
packed!(LastExit { code, signal });

/// How a heartbeat stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Heartbeat {
    /// Milliseconds since the last beat.
    pub age_ms: u64,
    /// The longest silence allowed.
    pub limit_ms: u64,
}
packed!(Heartbeat { age_ms, limit_ms });

/// One output a program owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Output {
    /// Name.
    pub name: heapless::String<31>,
    /// Level that was read: true is high.
    pub level: Option<bool>,
    /// Whether that is its safe level, confirmed.
    pub safe: bool,
}
packed!(Output { name, level, safe });

/// One input.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct InputStatus {
    /// Name.
    pub name: Name,
    /// Where it is.
    pub wire: Wire,
    /// Its voltage: true is high. None: it is not read, `reason` says why.
    pub level: Option<bool>,
    /// High is off.
    pub active_low: bool,
    /// Edges since it was requested.
    pub edges: u64,
    /// Milliseconds since the last of them.
    pub age_ms: Option<u64>,
    /// What is wrong with it.
    pub reason: heapless::String<120>,
}
packed!(InputStatus { name, wire, level, active_low, edges, age_ms, reason });

/// Who an output's level is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub enum OutputState {
    /// It is to have a level and is not confirmed to have it: `reason` says why.
    #[default]
    Unconfirmed,
    /// Its `boot` level, read back.
    Boot,
    /// Its `safe` level, read back.
    Safe,
    /// Its program's, which runs.
    Driven,
    /// An operator's.
    Set,
}
packed!(enum OutputState { 0 Unconfirmed, 1 Boot, 2 Safe, 3 Driven, 4 Set });

/// One output.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct OutputStatus {
    /// Name.
    pub name: Name,
    /// Where it is.
    pub wire: Wire,
    /// Whose level it has.
    pub state: OutputState,
    /// Its voltage: true is high. None: not known.
    pub level: Option<bool>,
    /// High is off.
    pub active_low: bool,
    /// Its level is the safe one.
    pub safe: bool,
    /// Milliseconds since it was first confirmed to have this level.
    pub confirmed_ms: Option<u64>,
    /// The program that owns it; empty: none.
    pub owner: Name,
    /// What is wrong with it.
    pub reason: heapless::String<120>,
}
packed!(OutputStatus { name, wire, state, level, active_low, safe, confirmed_ms, owner, reason });

/// States, as `supervisor::State`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub enum State {
    /// Down, and meant to be.
    #[default]
    Stopped,
    /// On its way up.
    Starting,
    /// Ready.
    Running,
    /// Waiting for its next start.
    Backoff,
    /// On its way down.
    Stopping,
    /// Ended by itself.
    Exited,
    /// Given up.
    Fatal,
    /// SIGSTOPped.
    Paused,
    /// Waiting for what it requires.
    Held,
}
packed!(enum State { 0 Stopped, 1 Starting, 2 Running, 3 Backoff, 4 Stopping, 5 Exited, 6 Fatal, 7 Paused, 8 Held });

impl State {
    /// Its name, as it is shown and as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            State::Stopped => "stopped",
            State::Starting => "starting",
            State::Running => "running",
            State::Backoff => "backoff",
            State::Stopping => "stopping",
            State::Exited => "exited",
            State::Fatal => "fatal",
            State::Paused => "paused",
            State::Held => "held",
        }
    }
}

/// News: one program changed its state (or something happened to the daemon: empty name).
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Event {
    /// Counts up by one; a gap means that this subscriber was too slow.
    pub seq: u64,
    /// Milliseconds since boot (CLOCK_MONOTONIC).
    pub at_ms: u64,
    /// Program.
    pub name: Name,
    /// State before.
    pub from: State,
    /// State now.
    pub to: State,
    /// Main process, 0: none.
    pub pid: u32,
    /// Why, in words.
    pub reason: heapless::String<120>,
}
packed!(Event { seq, at_ms, name, from, to, pid, reason });

impl Default for Reply {
    fn default() -> Self {
        Reply::Done { text: Text::new() }
    }
}

/// Encodes a request or a reply (which that does not change) into a packet's bytes; the slice returned is what to send.
/// `None`: it does not fit the buffer (cannot happen with `limits::PACKET_BYTES_MAX`, tested).
pub fn encode<'b>(message: &mut impl Packed, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let (version, rest) = buffer.split_first_mut()?;
    *version = VERSION;
    let length = packed::write(message, rest)?;
    buffer.get(..=length)
}

/// Decodes a packet. `None`: another version, or not a message. Never panics, whatever the bytes.
pub fn decode<T: Packed + Default>(packet: &[u8]) -> Option<T> {
    match packet.split_first()? {
        (&VERSION, rest) => packed::read(rest).map(|(message, _)| message),
        _ => None,
    }
}

mod boots;
#[cfg(test)]
mod tests;
mod values;

pub use boots::{Boot, BootEnd};
pub use values::ValueStatus;

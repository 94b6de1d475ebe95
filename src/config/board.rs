//! What the configuration says of the board: inputs, outputs, watchdogs, temperature. Plain data.

use std::rc::Rc;

use crate::time::Millis;

/// Where a GPIO line is, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// `17`: the number (Broadcom's) of a line on the 40-pin header of a Raspberry Pi.
    Header(u32),
    /// `pinctrl-bcm2835:17`: a line of the chip with this label.
    Offset {
        /// The chip's label, never its number: that changes from boot to boot.
        chip: String,
        /// The line's number on the chip.
        offset: u32,
    },
    /// A line's own name.
    Name(String),
}

/// A voltage. `on` and `off` are resolved already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Low
    #[default]
    Low,
    /// High
    High,
}

/// `bias`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    /// As the firmware left it.
    #[default]
    AsIs,
    /// None.
    Disabled,
    /// Pulled up.
    PullUp,
    /// Pulled down.
    PullDown,
}

/// `drive`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drive {
    /// High and low are driven.
    #[default]
    PushPull,
    /// Only low is driven.
    OpenDrain,
    /// Only high is driven.
    OpenSource,
}

/// `[input:NAME]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// Unique among inputs; at most `limits::LINE_NAME_BYTES_MAX` bytes.
    pub name: String,
    /// `gpio`
    pub line: Option<Line>,
    /// `active`: on means low.
    pub active_low: bool,
    /// `bias`
    pub bias: Bias,
    /// `debounce`; zero: none.
    pub debounce: Millis,
}

/// What an output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A GPIO line.
    Gpio(Line),
    /// A file, of sysfs or any other.
    Path {
        /// The file.
        path: String,
        /// What is written for high.
        high: String,
        /// What is written for low.
        low: String,
    },
    /// A command, run with `high` or `low` as its last word.
    Command(Vec<String>),
}

/// `[output:NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Unique among outputs; at most `limits::LINE_NAME_BYTES_MAX` bytes.
    pub name: String,
    /// What it is.
    pub target: Target,
    /// `active`: on means low.
    pub active_low: bool,
    /// `drive`
    pub drive: Drive,
    /// From the start of multusd until its owner's first start.
    pub boot: Level,
    /// Set once when its owner is ready; none: left to the owner.
    pub running: Option<Level>,
    /// After whatever goes wrong, and after a stop.
    pub safe: Level,
    /// How long it may be unconfirmed before the watchdogs starve.
    pub limit: Millis,
    /// How long one attempt may take, where it can take time.
    pub timeout: Millis,
}

/// What is fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchdogTarget {
    /// A device of the kernel's watchdog interface.
    Device(String),
    /// A circuit outside, fed by pulses on a line.
    Pulse {
        /// The line.
        feed: Line,
        /// A line that is high while the watchdog watches.
        enable: Option<Line>,
        /// Length of a pulse.
        pulse: Millis,
    },
}

/// `[watchdog]` or `[watchdog:NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// Its name; empty for `[watchdog]`.
    pub name: String,
    /// What is fed.
    pub target: WatchdogTarget,
    /// Without a feed for this long the board is reset.
    pub timeout: Millis,
    /// So long before the reset the kernel is told; none: never.
    pub pretimeout: Option<Millis>,
}

/// `[temperature]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Temperature {
    /// The file it is read from, in thousandths of a degree Celsius.
    pub path: String,
    /// Below this everything is stopped, in thousandths of a degree.
    pub min: i32,
    /// Above this everything is stopped, in thousandths of a degree.
    pub max: i32,
    /// So far below `max` it must fall before anything is started again.
    pub hysteresis: i32,
    /// Between two readings.
    pub interval: Millis,
    /// What cannot be read counts as too hot.
    pub unreadable_is_hot: bool,
}

/// How a program shows that it makes progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The longest silence.
    pub limit: Millis,
    /// By what means.
    pub kind: HeartbeatKind,
}

/// `heartbeat_kind`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeartbeatKind {
    /// WATCHDOG=1 on NOTIFY_SOCKET.
    Notify,
    /// A byte on an inherited descriptor.
    Fd,
    /// The time, in a page of shared memory.
    Counter,
    /// A change of this file.
    File(String),
    /// Counting bytes on a connection to this port of the local host.
    Tcp(u16),
}

/// `check`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The command, or one of `tcp:`, `unix:`, `http:` as a single word.
    pub command: Vec<String>,
    /// Between two checks.
    pub interval: Millis,
    /// For one check.
    pub timeout: Millis,
    /// So many failures …
    pub failures: u8,
    /// … among so many checks.
    pub of: u8,
}

/// What the sections of the board say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Board {
    /// At most `limits::INPUT_COUNT_MAX`, in order.
    pub inputs: Vec<Rc<Input>>,
    /// At most `limits::OUTPUT_COUNT_MAX`, in order.
    pub outputs: Vec<Rc<Output>>,
    /// At most `limits::WATCHDOG_COUNT_MAX`.
    pub watchdogs: Vec<Watchdog>,
    /// `[temperature]`
    pub temperature: Option<Temperature>,
}

//! What the daemon tells its `log`: a memory file, its descriptor 0. Everything in it was checked where the
//! configuration was read.

use super::{LogStamp, Syslog};
use crate::packed::packed;

/// `[log]`, and every stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// Lines wait at most so long, milliseconds.
    pub flush_ms: u64,
    /// Bytes of all log files together.
    pub total_maxbytes: u64,
    /// No file is written.
    pub ram_only: bool,
    /// The filter through which a rotated file goes, with its arguments; empty: none.
    pub compress: Vec<String>,
    /// Where lines for syslog go.
    pub syslog: Syslog,
    /// Lines may go to the kernel's log.
    pub kmsg: bool,
    /// Bytes written per day and stream above which it is said; 0: never.
    pub daily_alarm: u64,
    /// Milliseconds after which the supervisor throws away what is not taken; the collector waits half of that
    /// for the storer at the most.
    pub overdue_ms: u64,
    /// Descriptors, inherited: the ring.
    pub ring: u32,
    /// The set of all pipes.
    pub poll: u32,
    /// The streams.
    pub streams: Vec<StreamSettings>,
}

/// One stream of one program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamSettings {
    /// Its number in the ring: twice the program's place in the table, and 1 for standard error.
    pub number: u16,
    /// Its generation there, the low half.
    pub generation: u16,
    /// The program's name.
    pub name: String,
    /// It is standard error.
    pub is_err: bool,
    /// The descriptor of its pipe, inherited.
    pub pipe: u32,
    /// Its file or device; none: it goes to syslog or the kernel's log only.
    pub path: Option<String>,
    /// Rotated above this size; 0: never.
    pub maxbytes: u64,
    /// Rotated files kept.
    pub backups: u32,
    /// What a line in the file begins with.
    pub stamp: LogStamp,
    /// Every line is written and synced at once.
    pub sync: bool,
    /// Lines per second; 0: no limit.
    pub rate: u32,
    /// Repeated lines are counted.
    pub fold: bool,
    /// Lines go to syslog too.
    pub syslog: bool,
    /// Lines go to the kernel's log too.
    pub kmsg: bool,
}

packed!(LogSettings {
    flush_ms,
    total_maxbytes,
    ram_only,
    compress,
    syslog,
    kmsg,
    daily_alarm,
    overdue_ms,
    ring,
    poll,
    streams
});
packed!(StreamSettings {
    number,
    generation,
    name,
    is_err,
    pipe,
    path,
    maxbytes,
    backups,
    stamp,
    sync,
    rate,
    fold,
    syslog,
    kmsg
});
packed!(enum LogStamp { 0 Both, 1 Wall, 2 Monotonic, 3 None });
packed!(enum Syslog { 0 No, 1 Local, 2 Udp { host, is_six, port } });

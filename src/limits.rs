//! Every capacity and time ceiling in one place, with compile-time asserts for how they relate.
//!
//! The tables of the supervisor are fixed: memory use is known when the binary is built, and one
//! thing more than fits is a configuration error that names its line, never a failure at run time.
//! A build with other capacities changes this file only.

/// Programs that may be configured.
pub const PROGRAM_COUNT_MAX: usize = 128;

/// The name of the bundled child that keeps the lines of all others; no program may be called so.
pub const LOG: &str = "log";

/// Bundled children: [`LOG`].
pub const BUNDLED_COUNT: usize = 1;

/// What one daemon supervises. Sizes the supervisor's table, the adoption page and `ChildSet`.
pub const CHILD_COUNT_MAX: usize = PROGRAM_COUNT_MAX + BUNDLED_COUNT;

/// Inputs that may be configured.
pub const INPUT_COUNT_MAX: usize = 64;

/// Outputs that may be configured.
pub const OUTPUT_COUNT_MAX: usize = 64;

/// Values that may be published: see `sys/values.rs`.
pub const VALUE_COUNT_MAX: usize = 64;

/// Bytes of what a value is measured in.
pub const UNIT_BYTES_MAX: usize = 15;

/// Watchdogs that may be configured: the processor's, one on the board, and one to spare for each.
pub const WATCHDOG_COUNT_MAX: usize = 4;

/// Bytes in the name of an input or an output; as the kernel's names of lines.
pub const LINE_NAME_BYTES_MAX: usize = 31;

/// Bytes of what is written to an output's path: they stand in the adoption page.
pub const OUTPUT_TEXT_BYTES_MAX: usize = 31;

/// Connections to the control socket served at once; one more takes the place of who has been silent for longest.
pub const CONTROL_CLIENT_COUNT_MAX: usize = 16;

/// Bytes in a program's name. It becomes a directory name, a file name and a table column.
pub const NAME_BYTES_MAX: usize = 63;

/// Bytes in the whole configuration, includes counted. A board's file is some kilobytes; what is
/// larger than this is not a configuration but a mistake (a picture, a core dump) and is refused
/// before it is read into memory.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;

/// Configuration files one `[include]` may bring in, all patterns counted.
pub const INCLUDE_COUNT_MAX: usize = 256;

/// Orders one child can receive in one `decide`: force, kill tree, end hook and one more.
pub const ACTIONS_PER_CHILD_MAX: usize = 4;

/// Orders of one `decide`: every child's, one feed and one finish.
pub const ACTION_COUNT_MAX: usize = CHILD_COUNT_MAX * ACTIONS_PER_CHILD_MAX + 2;

/// Bytes in one packet of the control protocol, either direction. Larger replies come in pages.
pub const PACKET_BYTES_MAX: usize = 8192;

/// Milliseconds after which outputs that are not confirmed safe are forced again, whether or not
/// anything else happened: a writer may still be alive (state D) and write once more.
pub const FORCE_AGAIN_MS: u64 = 10;

/// Milliseconds of pause, at the least, after a start that failed at once: no process came of it, its
/// `on_start` failed, or it ended in the millisecond of its start. Holds whatever `restart_delay` is:
/// where starting takes no time, a pause of none is a loop that never leaves the supervisor. Short
/// enough that nobody notices, long enough for everything else to have its turn.
pub const RESTART_PAUSE_MS_MIN: u64 = 10;

/// Milliseconds in which the main process of a forking child must be found once the process that
/// was spawned has returned. The job is the daemon's own and takes milliseconds; a pid file that
/// is not there after this time will not come.
pub const FIND_MAIN_MS_MAX: u64 = 10_000;

/// Checks among which failures are counted (`check_failures = 3 of 5`): one bit each in the child's memory.
pub const CHECK_WINDOW_MAX: u8 = 32;

/// Milliseconds of the shortest heartbeat: below, a busy board's scheduling is the longest silence.
pub const HEARTBEAT_MS_MIN: u64 = 10;

/// Bytes of the log ring's data, at the least: a pipe's worth, so that one read always has room.
pub const LOG_RING_BYTES_MIN: u64 = 64 << 10;

/// The same at the most: memory that is held for ever.
pub const LOG_RING_BYTES_MAX: u64 = 16 << 20;

/// Feed intervals after which the guard's last echo is stale and the watchdog starves. One echo is
/// asked for per interval: two may be late on a busy board, a third says that nobody answers.
pub const ECHO_INTERVALS_MAX: u64 = 3;

/// Milliseconds the supervisor may leave a reported exit unread before the guard takes it for
/// hung. Far above any scheduling delay seen on a loaded Pi, far below what an operator tolerates.
pub const SUPERVISOR_SILENCE_MS_MAX: u64 = 10_000;

/// Milliseconds between two beats of the supervisor and two echoes of the guard, at the most, while
/// anything is watched: one wake-up of each per second is what an idle pair may cost.
pub const PACE_MS_MAX: u64 = 1000;

/// Milliseconds without a beat after which the guard replaces the supervisor. Counted in beats that were
/// missed, so that a machine that stood still as a whole holds that against nobody.
pub const BEAT_SILENCE_MS_MAX: u64 = 3000;

/// The same for a successor's first beat: taking over reads the run directory, which may be on storage.
pub const FIRST_BEAT_MS_MAX: u64 = 10_000;

/// Milliseconds without an echo after which a supervisor that has no watchdog to leave that to kills the
/// guard, and by that ends everything.
pub const ECHO_SILENCE_MS_MAX: u64 = 10_000;

const _: () =
    assert!(ECHO_SILENCE_MS_MAX > BEAT_SILENCE_MS_MAX, "a supervisor that hangs is replaced, not obeyed");
const _: () = assert!(CHILD_COUNT_MAX <= 4096, "child ids are 16 bit and tables are scanned linearly");
const _: () = assert!(
    ACTION_COUNT_MAX >= CHILD_COUNT_MAX * ACTIONS_PER_CHILD_MAX + 2,
    "invariant 7: the action list cannot overflow"
);

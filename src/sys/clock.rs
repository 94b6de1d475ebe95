//! Reads clocks; the only file that does. Deadlines are CLOCK_MONOTONIC (clock_gettime(2)).

use core::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use crate::time::Instant;

fn read(clock: ClockId) -> u64 {
    // Only a clock that does not exist is an error, and these always exist on Linux.
    clock_gettime(clock).map_or(0, |time| {
        (time.tv_sec() as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec() as u64)
    })
}

/// Nanoseconds as the kernel takes them, of whatever widths its timespec has on this machine; the
/// end of time is 292 years after the start.
pub fn time_spec(nanos: u64) -> TimeSpec {
    TimeSpec::from_duration(Duration::from_nanos(nanos.min(i64::MAX as u64)))
}

/// Now, for deadlines and durations.
pub fn now() -> Instant {
    Instant(read(ClockId::CLOCK_MONOTONIC))
}

/// Nanoseconds since boot, suspension counted: what a process's start time in /proc is given in.
pub fn boot_nanos() -> u64 {
    read(ClockId::CLOCK_BOOTTIME)
}

/// Seconds since 1970. A label for people, never a basis for a decision: boards have no clock.
pub fn wall_seconds() -> u64 {
    read(ClockId::CLOCK_REALTIME) / 1_000_000_000
}

/// Milliseconds since 1970; the same.
pub fn wall_millis() -> u64 {
    read(ClockId::CLOCK_REALTIME) / 1_000_000
}

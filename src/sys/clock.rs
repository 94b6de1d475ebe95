//! Reads clocks; the only file that does. Deadlines are CLOCK_MONOTONIC (clock_gettime(2)).

use crate::time::Instant;

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = super::timespec(0);
    // SAFETY: `time` is a valid timespec to write to; these clocks always exist on Linux.
    unsafe { libc::clock_gettime(clock, &mut time) };
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

/// Now, for deadlines and durations.
pub fn now() -> Instant {
    Instant(read(libc::CLOCK_MONOTONIC))
}

/// Nanoseconds since boot, suspension counted: what a process's start time in /proc is given in.
pub fn boot_nanos() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

/// Seconds since 1970. A label for people, never a basis for a decision: boards have no clock.
pub fn wall_seconds() -> u64 {
    read(libc::CLOCK_REALTIME) / 1_000_000_000
}

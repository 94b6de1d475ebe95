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

/// The system call that takes 64-bit times everywhere (clock_adjtime64 since Linux 5.1; adjtimex is CLOCK_REALTIME's).
#[cfg(target_pointer_width = "32")]
const ADJUST: (libc::c_long, bool) = (405, true);
#[cfg(not(target_pointer_width = "32"))]
const ADJUST: (libc::c_long, bool) = (libc::SYS_adjtimex, false);

/// Somebody keeps the wall clock right, and told the kernel (adjtimex(2)).
pub fn is_synchronised() -> bool {
    // The kernel's structure has 208 bytes. That it is to change nothing is its first word, 0.
    let mut asked = [0_u64; 32];
    let (call, names_clock) = ADJUST;
    // SAFETY: more room than the kernel fills; the clock is an integer.
    let state = unsafe {
        match names_clock {
            true => libc::syscall(call, libc::CLOCK_REALTIME, asked.as_mut_ptr()),
            false => libc::syscall(call, asked.as_mut_ptr()),
        }
    };
    // TIME_ERROR is 5.
    (0..5).contains(&state)
}

/// Seconds since 1970. A label for people, never a basis for a decision: boards have no clock.
pub fn wall_seconds() -> u64 {
    read(ClockId::CLOCK_REALTIME) / 1_000_000_000
}

/// Milliseconds since 1970; the same.
pub fn wall_millis() -> u64 {
    read(ClockId::CLOCK_REALTIME) / 1_000_000
}

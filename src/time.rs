//! Points in time and durations. Arithmetic saturates; nothing here reads a clock.

use core::ops::{Add, Sub};

/// A duration in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// No time at all.
    pub const ZERO: Millis = Millis(0);
    /// Whole seconds as milliseconds, saturating.
    pub const fn from_secs(seconds: u64) -> Self {
        Millis(seconds.saturating_mul(1000))
    }
    /// The same duration in nanoseconds, saturating.
    pub const fn as_nanos(self) -> u64 {
        self.0.saturating_mul(1_000_000)
    }
}

/// A point on CLOCK_MONOTONIC, in nanoseconds since boot. Not a wall-clock time: a board without
/// a real-time clock steps its wall clock by decades, and nothing may be judged by that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The end of time: a deadline that never comes.
    pub const NEVER: Instant = Instant(u64::MAX);
    /// Time passed since `earlier`; zero if `earlier` lies in the future.
    pub const fn since(self, earlier: Instant) -> Millis {
        Millis(self.0.saturating_sub(earlier.0) / 1_000_000)
    }
    /// Whether this deadline has come. The end of time is no deadline, even for a clock that
    /// stands there: it is what saturating arithmetic makes of "far away".
    pub const fn is_due(self, now: Instant) -> bool {
        self.0 <= now.0 && self.0 != u64::MAX
    }
}

impl Add for Millis {
    type Output = Millis;
    fn add(self, other: Millis) -> Millis {
        Millis(self.0.saturating_add(other.0))
    }
}

impl Add<Millis> for Instant {
    type Output = Instant;
    fn add(self, duration: Millis) -> Instant {
        Instant(self.0.saturating_add(duration.as_nanos()))
    }
}

impl Sub<Millis> for Instant {
    type Output = Instant;
    fn sub(self, duration: Millis) -> Instant {
        Instant(self.0.saturating_sub(duration.as_nanos()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_to_the_end_of_time_stays_there() {
        assert_eq!(Instant::NEVER + Millis(1), Instant::NEVER);
        assert_eq!(Instant(5) + Millis(u64::MAX), Instant::NEVER);
    }

    #[test]
    fn time_since_the_future_is_zero() {
        assert_eq!(Instant(5).since(Instant::NEVER), Millis::ZERO);
        assert_eq!(Instant(7_000_000).since(Instant(1_000_000)), Millis(6));
    }
}

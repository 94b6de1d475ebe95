//! The feed of the hardware watchdog: when it is due, and whether the guard still answers.
//!
//! Must never stay due: a withheld feed moves its own deadline, or the loop would spin exactly when
//! the board is in trouble.

use crate::limits::ECHO_INTERVALS_MAX;
use crate::time::{Instant, Millis};

/// The watchdog's deadlines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    interval: Millis,
    next: Instant,
    echoed_at: Instant,
}

impl Watch {
    /// First due now.
    pub fn new(now: Instant, interval: Millis) -> Watch {
        Watch { interval: interval.max(Millis(1)), next: now, echoed_at: now }
    }

    /// The guard answered.
    pub fn echoed(&mut self, now: Instant) {
        self.echoed_at = now;
    }

    /// A feed is to be given or withheld now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_due(now)
    }

    /// Whether the feed that is due is given; either way the next one is an interval away.
    pub fn judge(&mut self, now: Instant, overdue: bool) -> bool {
        self.next = now + self.interval;
        !overdue && self.is_answered(now)
    }

    /// The guard answered lately.
    pub fn is_answered(&self, now: Instant) -> bool {
        now <= self.echoed_at + Millis(self.interval.0.saturating_mul(ECHO_INTERVALS_MAX))
    }

    /// When the next feed is due.
    pub fn deadline(&self) -> Instant {
        self.next
    }
}

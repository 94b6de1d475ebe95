//! What is known of one child's outputs: whether they are confirmed safe, since when they are not,
//! and which confirmations count.
//!
//! Must never call outputs safe on the word of an attempt that was ordered while a writer lived.

use crate::limits::FORCE_AGAIN_MS;
use crate::time::{Instant, Millis};

/// The forcing of one child's outputs. Only consulted for children that own outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outputs {
    /// Confirmed safe, and no process that could write was started since.
    pub safe: bool,
    /// They must be safe and are not confirmed: since when. Being forced exactly while this is so.
    pub danger: Option<Instant>,
    /// The last attempt ordered.
    pub attempt: u32,
    /// Only attempts from this one on prove anything: earlier ones may have had a living writer.
    pub counts_from: u32,
    /// When this supervisor ordered the last attempt.
    forced_at: Instant,
    /// An attempt is due whatever the time: none was ordered since the last change.
    urgent: bool,
}

impl Outputs {
    /// Of a child that never ran.
    pub const UNKNOWN: Outputs = Outputs {
        safe: false,
        danger: None,
        attempt: 0,
        counts_from: 1,
        forced_at: Instant(0),
        urgent: false,
    };

    /// They must be made safe now. Keeps the time of the first need: the limit runs from there.
    pub fn endanger(&mut self, now: Instant) {
        if self.danger.is_none() {
            self.danger = Some(now);
            self.renew(1);
        }
    }

    /// Only the `nth` attempt from now on counts; one is due at once.
    pub fn renew(&mut self, nth: u32) {
        self.safe = false;
        self.counts_from = self.attempt.saturating_add(nth);
        self.urgent = true;
    }

    /// The child drives them again: neither safe nor forced.
    pub fn release(&mut self) {
        self.safe = false;
        self.danger = None;
    }

    /// A former supervisor's attempts may or may not have been made: one is due at once.
    pub fn restored(safe: bool, danger: Option<Instant>, attempt: u32, counts_from: u32) -> Outputs {
        Outputs { safe, danger, attempt, counts_from, forced_at: Instant(0), urgent: true }
    }

    /// An attempt read back safe. The caller knows that no writer lives.
    pub fn confirm(&mut self, attempt: u32) {
        if self.danger.is_some() && attempt >= self.counts_from && attempt <= self.attempt {
            self.safe = true;
            self.danger = None;
        }
    }

    /// The attempt to order now, if one is due: a change of time is enough, because a writer may
    /// have written since the last.
    pub fn force(&mut self, now: Instant) -> Option<u32> {
        self.danger?;
        if !self.urgent && now <= self.forced_at {
            return None;
        }
        self.attempt = self.attempt.saturating_add(1);
        self.forced_at = now;
        self.urgent = false;
        Some(self.attempt)
    }

    /// When they are forced again even if nothing happens.
    pub fn deadline(&self) -> Instant {
        match self.danger {
            Some(_) => self.forced_at + Millis(FORCE_AGAIN_MS),
            None => Instant::NEVER,
        }
    }

    /// Unconfirmed for the limit or longer: the watchdog must starve.
    pub fn is_overdue(&self, now: Instant, limit: Millis) -> bool {
        self.danger.is_some_and(|since| (since + limit).is_due(now))
    }
}

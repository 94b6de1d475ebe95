//! Back-off: how long the pause before the next start is. Bounds the starts of a child that fails
//! again and again, and gives one that was healthy its first restart at once.
//!
//! Must never forget a series because a child merely started: only proven health or an operator does that.

use crate::time::Millis;

use super::Rules;

/// The failures of one child since it last proved health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// Failures in the series; for reports.
    pub failures: u32,
    /// Failed starts in a row; judged by `Rules::retries`.
    pub failed_starts: u32,
    /// The next pause: 0 is none, n is `delay` doubled n - 1 times.
    pub rung: u32,
}

impl Series {
    /// No failure, and no health proven: the first failure pauses for `delay`.
    pub const NEW: Series = Series { failures: 0, failed_starts: 0, rung: 1 };

    /// Counts a failure and returns the pause that follows it.
    pub fn fail(&mut self, proven: bool, failed_start: bool, rules: &Rules, jitter: &mut Jitter) -> Millis {
        if proven {
            self.failures = 0;
            self.rung = 0;
        }
        let pause = jitter.shorten(nominal_pause(self.rung, rules));
        self.failures = self.failures.saturating_add(1);
        self.rung = self.rung.saturating_add(1);
        self.failed_starts = if failed_start { self.failed_starts.saturating_add(1) } else { 0 };
        pause
    }

    /// Whether there were more failed starts in a row than are allowed.
    pub fn is_given_up(&self, rules: &Rules) -> bool {
        rules.retries.is_some_and(|retries| self.failed_starts > retries)
    }
}

fn nominal_pause(rung: u32, rules: &Rules) -> Millis {
    let Some(doublings) = rung.checked_sub(1) else { return Millis::ZERO };
    // 63 doublings exceed any cap that is not the end of time.
    let pause = rules.delay.0.saturating_mul(1 << doublings.min(63));
    Millis(pause.min(rules.delay_max.0))
}

/// A small generator of numbers (splitmix64): children that failed together do not start together.
/// Needs spread, not secrecy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jitter(pub u64);

impl Jitter {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A pause between three quarters of the nominal one and all of it.
    fn shorten(&mut self, nominal: Millis) -> Millis {
        let spread = nominal.0 / 4;
        Millis(nominal.0 - self.next() % (spread + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules { delay: Millis(1000), delay_max: Millis(10_000), ..Rules::BLANK }
    }

    #[test]
    fn pauses_double_up_to_the_cap_and_stay_there() {
        let nominal: Vec<u64> = (0..8).map(|rung| nominal_pause(rung, &rules()).0).collect();
        assert_eq!(nominal, [0, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000]);
        assert_eq!(nominal_pause(u32::MAX, &rules()).0, 10_000);
    }

    #[test]
    fn jitter_only_shortens_and_by_a_quarter_at_most() {
        let mut jitter = Jitter(1);
        let pauses: Vec<u64> = (0..1000).map(|_| jitter.shorten(Millis(1000)).0).collect();
        assert!(pauses.iter().all(|pause| (750..=1000).contains(pause)));
        assert!(pauses.iter().min() < Some(&760) && pauses.iter().max() > Some(&990));
    }

    #[test]
    fn the_first_failure_after_proven_health_has_no_pause() {
        let mut series = Series { failures: 9, failed_starts: 0, rung: 9 };
        assert_eq!(series.fail(true, false, &rules(), &mut Jitter(1)), Millis::ZERO);
        assert_eq!(series.failures, 1);
    }

    #[test]
    fn counters_at_their_maximum_stay_there() {
        let mut series = Series { failures: u32::MAX, failed_starts: u32::MAX, rung: u32::MAX };
        assert!(series.fail(false, true, &rules(), &mut Jitter(1)).0 <= 10_000);
        assert_eq!(series.failures, u32::MAX);
    }
}

//! How long to wait before trying again: doubling, capped, jittered.
//!
//! Owns the arithmetic only; callers sleep and own the budget. Invariant: a wait is
//! never above the cap and never zero, so a loop can neither stall nor spin.

use std::time::Duration;

/// A wait that doubles with every failure up to a cap. The jitter takes off up to half,
/// so that replicas which failed together do not try again together.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from `base` up to `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// Failures since the last [`Self::reset`].
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure and gives the wait after it. `random` is from 0 to 1.
    pub fn next(&mut self, random: f64) -> Duration {
        let doubled = self.base.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        let full = doubled.min(self.cap);
        full.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0).max(Duration::from_millis(1))
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_to_the_cap_and_starts_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (0..6).map(|_| backoff.next(0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next(1.0).as_millis(), 50);
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(base in 1u64..10_000, cap in 1u64..100_000, tries in 1..200, random: f64) {
            let mut backoff = Backoff::new(Duration::from_millis(base), Duration::from_millis(cap));
            for _ in 0..tries {
                let random = if random.is_nan() { 0.5 } else { random };
                let wait = backoff.next(random);
                prop_assert!(wait >= Duration::from_millis(1) && wait <= Duration::from_millis(cap.max(1)));
            }
        }
    }
}

//! How long to wait before trying again: full jitter, so that a thousand clients do not come back in one moment.

use crate::Backoff;
use rand::Rng;
use std::time::Duration;

/// Delays of tries in a row: each is drawn between 0 and a limit that doubles.
#[derive(Debug, Clone)]
pub struct Delays {
    base: Duration,
    cap: Duration,
    tries: u32,
}

impl Delays {
    /// Limits from `base` to `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, tries: 0 }
    }

    /// Takes the server's numbers.
    pub fn obey(&mut self, numbers: Backoff) {
        self.base = Duration::from_millis(numbers.base_ms);
        self.cap = Duration::from_millis(numbers.cap_ms);
    }

    /// It worked: the next delay is a first one again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// The server asked for patience: the next delay is drawn below the longest limit.
    pub fn lengthen(&mut self) {
        self.tries = u32::MAX;
    }

    /// The delay before the next try.
    pub fn next(&mut self, random: &mut impl Rng) -> Duration {
        let limit = self.base.saturating_mul(2_u32.saturating_pow(self.tries)).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        limit.mul_f64(random.random_range(0.0..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng as _, rngs::SmallRng};

    #[test]
    fn delays_are_spread_below_a_limit_that_doubles_up_to_the_cap() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut longest = [Duration::ZERO; 8];
        for _ in 0..1_000 {
            let mut backoff = Delays::new(Duration::from_millis(500), Duration::from_secs(30));
            for longest in &mut longest {
                *longest = backoff.next(&mut random).max(*longest);
            }
        }
        for (delay, limit) in longest.iter().zip([500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
            let limit = Duration::from_millis(limit);
            assert!(*delay <= limit && *delay > limit.mul_f64(0.9), "{delay:?} of {limit:?}");
        }
    }

    #[test]
    fn it_never_overflows_and_begins_anew_after_a_success() {
        let mut random = SmallRng::seed_from_u64(2);
        let mut backoff = Delays::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..100 {
            assert!(backoff.next(&mut random) <= Duration::from_secs(30));
        }
        backoff.reset();
        assert!(backoff.next(&mut random) <= Duration::from_secs(1));
    }

    #[test]
    fn asked_for_patience_the_next_limit_is_the_longest() {
        let mut random = SmallRng::seed_from_u64(3);
        let longest = (0..1_000).map(|_| {
            let mut backoff = Delays::new(Duration::from_millis(500), Duration::from_secs(30));
            backoff.lengthen();
            backoff.next(&mut random)
        });
        let longest = longest.max().expect("a thousand of them");
        assert!(longest > Duration::from_secs(27) && longest <= Duration::from_secs(30), "{longest:?}");
    }
}

//! A token bucket, kept as the time at which it is full again (GCRA): 16 bytes and no timer.

use std::time::Duration;
use tokio::time::Instant;

/// One bucket. How fast it fills and how much it holds is said with every use, so that many share one rule.
#[derive(Debug)]
pub struct Allowance {
    full_at: Instant,
}

impl Allowance {
    /// A full one.
    pub fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes one of `burst`, of which `per_second` come back. False when there is none.
    pub fn take(&mut self, per_second: u32, burst: u32, now: Instant) -> bool {
        let one = Duration::from_secs(1) / per_second;
        let full_at = self.full_at.max(now) + one;
        let allowed = full_at - now <= one * burst;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

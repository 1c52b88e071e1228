//! When to stop asking somebody who does not answer, without I/O: time and outcomes in, decisions out.
//!
//! Closed, every call is made. Enough failures within a while open it: no call is made, the caller does what it does
//! without an answer, at once. While it is open one probe at a time is due now and then; its success closes it.

use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// When it opens, and how it closes again.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// So many failures…
    pub failures: usize,
    /// …within this time open it. Successes between them do not count: one of several nodes may be well.
    pub within: Duration,
    /// How long after it opened, or after the probe before, the next probe is due.
    pub probe_every: Duration,
}

/// What stands between callers and one peer.
#[derive(Debug)]
pub struct Breaker {
    rules: Rules,
    /// The last failures, at most `rules.failures`, oldest first.
    failures: VecDeque<Instant>,
    /// When it is open: when the next probe is due.
    probe: Option<Instant>,
}

impl Breaker {
    /// Closed.
    pub fn new(rules: Rules) -> Self {
        Self { rules, failures: VecDeque::with_capacity(rules.failures), probe: None }
    }

    /// Whether calls are not to be made.
    pub fn is_open(&self) -> bool {
        self.probe.is_some()
    }

    /// A call failed, or took too long. True when that opened it.
    pub fn failed(&mut self, now: Instant) -> bool {
        // Of calls that were under way when it opened, and of probes.
        if self.is_open() {
            return false;
        }
        while self.failures.front().is_some_and(|oldest| now.duration_since(*oldest) >= self.rules.within) {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        if self.failures.len() < self.rules.failures {
            return false;
        }
        self.failures.clear();
        self.probe = Some(now + self.rules.probe_every);
        true
    }

    /// A call or a probe was answered in time. True when that closed it.
    pub fn succeeded(&mut self) -> bool {
        self.probe.take().is_some()
    }

    /// Whether to probe now; then the next one is due later.
    pub fn probe_is_due(&mut self, now: Instant) -> bool {
        let due = self.probe.is_some_and(|at| at <= now);
        if due {
            self.probe = Some(now + self.rules.probe_every);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RULES: Rules = Rules { failures: 3, within: Duration::from_secs(10), probe_every: SECOND };

    #[test]
    fn enough_failures_in_time_open_it_whatever_succeeds_between() {
        let (mut breaker, now) = (Breaker::new(RULES), Instant::now());
        assert!(!breaker.failed(now));
        assert!(!breaker.succeeded());
        assert!(!breaker.failed(now + SECOND) && !breaker.is_open());
        assert!(breaker.failed(now + 2 * SECOND) && breaker.is_open());
        assert!(!breaker.failed(now + 2 * SECOND), "it is open already");
    }

    #[test]
    fn failures_long_ago_do_not_count() {
        let (mut breaker, now) = (Breaker::new(RULES), Instant::now());
        for n in 0..100 {
            assert!(!breaker.failed(now + n * 5 * SECOND));
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_probe_is_due_each_while_and_its_success_closes_it() {
        let (mut breaker, now) = (Breaker::new(RULES), Instant::now());
        assert!(!breaker.probe_is_due(now), "closed, there is nothing to probe");
        let opened = [(); 3].map(|()| breaker.failed(now));
        assert_eq!(opened, [false, false, true]);
        assert!(!breaker.probe_is_due(now));
        assert!(breaker.probe_is_due(now + SECOND));
        assert!(!breaker.probe_is_due(now + SECOND), "one at a time");
        assert!(!breaker.failed(now + SECOND));
        assert!(breaker.probe_is_due(now + 2 * SECOND));
        assert!(breaker.succeeded() && !breaker.is_open());
        assert!(!breaker.failed(now + 2 * SECOND), "it counts from the beginning");
    }
}

//! How many connections are taken per second. When every client of a lost gateway comes at once, each that is let in
//! costs a handshake, a ticket and a route; the rest are told, before any of that, when there will be room.

use crate::allowance::Allowance;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The longest wait asked for.
const LONGEST: Duration = Duration::from_secs(30);

/// The bucket, and how many were turned away lately.
#[derive(Debug)]
pub(crate) struct Accepts {
    per_second: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    allowance: Allowance,
    /// Turned away and not yet come back, as far as the rate could have let them in since.
    waiting: f64,
    at: Instant,
}

impl Accepts {
    /// Takes `per_second` and as many at once.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let state = State { allowance: Allowance::full(now), waiting: 0.0, at: now };
        Self { per_second, state: Mutex::new(state) }
    }

    /// Takes a connection; or the time in which as many as now wait can be let in. Ask each to come back at a random
    /// moment of it.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        // Nothing in here panics half-way.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = f64::from(self.per_second);
        let let_in = rate * now.saturating_duration_since(state.at).as_secs_f64();
        state.waiting = (state.waiting - let_in).max(0.0);
        state.at = now;
        if state.allowance.take(self.per_second, self.per_second, now) {
            return Ok(());
        }
        state.waiting += 1.0;
        Err(Duration::from_secs_f64((state.waiting / rate).min(LONGEST.as_secs_f64())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_accepts_is_taken_at_once_and_then_the_rate() {
        let now = Instant::now();
        let accepts = Accepts::new(500, now);
        let taken = |now| (0..1_000).filter(|_| accepts.take(now).is_ok()).count();
        assert_eq!(taken(now), 500);
        assert_eq!(taken(now + Duration::from_millis(100)), 50);
    }

    #[test]
    fn the_more_wait_the_longer_they_are_asked_to_and_not_for_ever() {
        let mut now = Instant::now();
        let accepts = Accepts::new(500, now);
        let waits: Vec<_> = (0..20_000).filter_map(|_| accepts.take(now).err()).collect();
        assert!(waits.is_sorted());
        assert!(waits[0] < Duration::from_millis(10), "{:?}", waits[0]);
        assert_eq!(waits.last(), Some(&LONGEST));
        // Once all could have come there is no need to wait any more.
        now += Duration::from_secs(60);
        (0..500).for_each(|_| accepts.take(now).expect("room"));
        assert!(accepts.take(now).expect_err("no room") < Duration::from_millis(10));
    }
}

//! So many a second of those who come to one door. When all come at once, the rest are told when to come back, spread
//! over the time in which there will be room for them: told the same moment they would come together again.

use crate::allowance::Allowance;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The longest wait asked for: the longest pause of the client rules.
const LONGEST: Duration = Duration::from_secs(30);

/// The bucket, and how many were turned away lately.
#[derive(Debug)]
pub struct Turnstile {
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

impl Turnstile {
    /// Lets in `per_second` (at least 1), and as many at once.
    pub fn new(per_second: u32, now: Instant) -> Self {
        let state = State { allowance: Allowance::full(now), waiting: 0.0, at: now };
        Self { per_second, state: Mutex::new(state) }
    }

    /// Lets one in.
    ///
    /// # Errors
    /// In how long to come back, at most 30 s: another time for each.
    pub fn enter(&self, now: Instant) -> Result<(), Duration> {
        // Over twice the time that is needed, so that who comes back finds room.
        self.take(now).map_err(|needed| rand::random_range(Duration::ZERO..=(2 * needed).min(LONGEST)))
    }

    /// Lets one in; or the time in which as many as now wait can be let in.
    fn take(&self, now: Instant) -> Result<(), Duration> {
        // Nothing in here panics half-way.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = f64::from(self.per_second);
        let let_in = rate * now.saturating_duration_since(state.at).as_secs_f64();
        state.waiting = (state.waiting - let_in).max(0.0);
        state.at = now;
        if state.allowance.take(self.per_second, self.per_second, now) {
            return Ok(());
        }
        // More than come back in the longest wait are not counted: a flood that is over is soon forgotten.
        state.waiting = (state.waiting + 1.0).min(rate * LONGEST.as_secs_f64());
        Err(Duration::from_secs_f64(state.waiting / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_in_a_second_come_in_at_once_and_then_the_rate() {
        let now = Instant::now();
        let turnstile = Turnstile::new(500, now);
        let entered = |now| (0..1_000).filter(|_| turnstile.enter(now).is_ok()).count();
        assert_eq!(entered(now), 500);
        assert_eq!(entered(now + Duration::from_millis(100)), 50);
    }

    #[test]
    fn the_more_wait_the_longer_they_are_asked_to_and_not_for_ever() {
        let mut now = Instant::now();
        let turnstile = Turnstile::new(500, now);
        let waits: Vec<_> = (0..20_000).filter_map(|_| turnstile.take(now).err()).collect();
        assert!(waits.is_sorted());
        assert!(waits[0] < Duration::from_millis(10), "{:?}", waits[0]);
        assert_eq!(waits.last(), Some(&LONGEST));
        // Once all could have come there is no need to wait any more.
        now += Duration::from_secs(60);
        (0..500).for_each(|_| turnstile.take(now).expect("room"));
        assert!(turnstile.take(now).expect_err("no room") < Duration::from_millis(10));
    }

    #[test]
    fn those_without_a_place_are_told_to_come_back_spread_out() {
        let now = Instant::now();
        let turnstile = Turnstile::new(50, now);
        let waits: Vec<_> = (0..1_050).filter_map(|_| turnstile.enter(now).err()).collect();
        assert_eq!(waits.len(), 1_000);
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        // The last hundred have 18 to 20 s of others before them: they get all of the half minute.
        for part in 0..6 {
            let part = Duration::from_secs(5 * part)..=Duration::from_secs(5 * (part + 1));
            assert!(waits[900..].iter().any(|wait| part.contains(wait)), "{part:?}");
        }
    }
}

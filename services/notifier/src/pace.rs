//! How fast pushes may go out, without I/O: a token bucket whose rate gives way and recovers.
//!
//! The rate halves when the push service says that it is too much, and grows by 5 % of the maximum every 10 s (additive
//! increase, multiplicative decrease). After an outage it climbs from almost nothing within a minute, so that what
//! gathered does not knock the service over again.

use std::time::Duration;
use tokio::time::Instant;

/// What may go out at once after a lull.
const BURST: Duration = Duration::from_millis(100);
/// One flood of refusals counts once.
const HALVE_EVERY: Duration = Duration::from_secs(1);
/// How often the rate grows, by what part of the maximum.
const GROW_EVERY: Duration = Duration::from_secs(10);
const GROWTH: f64 = 0.05;
/// How long the way up takes, and where it begins (part of the maximum).
const CLIMB: Duration = Duration::from_secs(60);
const CLIMB_FROM: f64 = 0.02;
/// The lowest rate is this part of the maximum, and at least one push in a second unless the maximum is less.
const LOWEST: f64 = 0.001;

/// The pace of one push service.
#[derive(Debug)]
pub struct Pace {
    /// Pushes per second, at most.
    max: f64,
    /// Pushes per second that refusals have left of it…
    ceiling: f64,
    /// …since when it did not grow…
    grown: Instant,
    /// …and when it was halved last.
    halved: Option<Instant>,
    /// When the way up began.
    climbing: Option<Instant>,
    /// When the next push would go if pushes went evenly (GCRA's theoretical arrival time).
    next: Instant,
}

impl Pace {
    /// At most `max` pushes per second, beginning with all of them.
    pub fn new(max: u32, now: Instant) -> Self {
        let max = f64::from(max.max(1));
        Self { max, ceiling: max, grown: now, halved: None, climbing: None, next: now }
    }

    /// Pushes per second now.
    pub fn rate(&mut self, now: Instant) -> f64 {
        while now.saturating_duration_since(self.grown) >= GROW_EVERY && self.ceiling < self.max {
            self.grown += GROW_EVERY;
            self.ceiling = (self.ceiling + GROWTH * self.max).min(self.max);
        }
        let Some(begin) = self.climbing else { return self.ceiling };
        let way = now.saturating_duration_since(begin).as_secs_f64() / CLIMB.as_secs_f64();
        if way >= 1.0 {
            self.climbing = None;
            return self.ceiling;
        }
        let climbed = self.max * (CLIMB_FROM + (1.0 - CLIMB_FROM) * way);
        self.ceiling.min(climbed).max(self.lowest())
    }

    /// Takes the next place: when the push may go.
    ///
    /// # Errors
    /// How long it would have to wait, when that is longer than `patience`; then it has no place.
    pub fn take(&mut self, patience: Duration, now: Instant) -> Result<Instant, Duration> {
        let wait = self.wait(now);
        if wait > patience {
            return Err(wait);
        }
        self.next = self.next.max(now) + Duration::from_secs_f64(1.0 / self.rate(now));
        Ok(now + wait)
    }

    /// How many pushes could go within `soon`.
    pub fn places(&mut self, soon: Duration, now: Instant) -> usize {
        let wait = self.wait(now);
        if wait > soon {
            return 0;
        }
        let backlog = self.next.saturating_duration_since(now);
        let room = (soon + BURST).saturating_sub(backlog).as_secs_f64() * self.rate(now);
        // One goes even when the rate is so low that its turn lasts longer. The conversion saturates.
        1.max(room as usize)
    }

    /// How long the next push would have to wait.
    pub fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now).saturating_sub(BURST)
    }

    /// The service said that it is too much. True when that halved the rate.
    pub fn slow_down(&mut self, now: Instant) -> bool {
        if self.halved.is_some_and(|at| now.saturating_duration_since(at) < HALVE_EVERY) {
            return false;
        }
        self.ceiling = (self.rate(now) / 2.0).max(self.lowest());
        self.grown = now;
        self.halved = Some(now);
        true
    }

    /// The service is back after an outage.
    pub fn climb(&mut self, now: Instant) {
        self.climbing = Some(now);
    }

    fn lowest(&self) -> f64 {
        (self.max * LOWEST).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many pushes go in `length` when there is always one waiting.
    fn sent(pace: &mut Pace, begin: Instant, length: Duration) -> usize {
        let (mut now, mut sent) = (begin, 0);
        while let Ok(at) = pace.take(begin + length - now, now) {
            now = at;
            sent += 1;
        }
        sent
    }

    #[test]
    fn no_more_than_the_rate_goes_whenever_one_looks() {
        let begin = Instant::now();
        let mut pace = Pace::new(1_000, begin);
        let first = sent(&mut pace, begin, SECOND);
        assert!((1_000..=1_101).contains(&first), "{first}");
        let second = sent(&mut pace, begin + SECOND, SECOND);
        assert!((990..=1_010).contains(&second), "{second}");
        let after_a_lull = sent(&mut pace, begin + 1_000 * SECOND, SECOND);
        assert!((1_000..=1_101).contains(&after_a_lull), "{after_a_lull}");
    }

    #[test]
    fn one_flood_of_refusals_halves_it_once_and_it_grows_back() {
        let begin = Instant::now();
        let mut pace = Pace::new(1_000, begin);
        assert!(pace.slow_down(begin));
        for n in 0..100 {
            assert!(!pace.slow_down(begin + Duration::from_millis(9 * n)));
        }
        assert_eq!(pace.rate(begin), 500.0);
        assert!(pace.slow_down(begin + SECOND));
        assert_eq!(pace.rate(begin + SECOND), 250.0);
        assert_eq!(pace.rate(begin + 10 * SECOND), 250.0);
        assert_eq!(pace.rate(begin + 11 * SECOND), 300.0);
        assert_eq!(pace.rate(begin + 51 * SECOND), 500.0);
        assert_eq!(pace.rate(begin + 3_600 * SECOND), 1_000.0);
    }

    #[test]
    fn it_never_stands_still() {
        let begin = Instant::now();
        for max in [1, 8_000] {
            let mut pace = Pace::new(max, begin);
            for n in 0..100 {
                pace.slow_down(begin + n * SECOND);
            }
            let now = begin + 100 * SECOND;
            assert!(pace.rate(now) >= 1.0);
            assert!(pace.places(Duration::ZERO, now) >= 1);
        }
    }

    #[test]
    fn after_an_outage_it_climbs_for_a_minute() {
        let begin = Instant::now();
        let mut pace = Pace::new(6_000, begin);
        pace.climb(begin);
        let seconds: Vec<_> = (0..61).map(|n| pace.rate(begin + n * SECOND)).collect();
        assert_eq!(seconds[0], 120.0);
        assert!(seconds.windows(2).all(|two| two[0] < two[1] && two[1] - two[0] < 110.0), "{seconds:?}");
        assert_eq!(seconds[60], 6_000.0);
        pace.climb(begin + 61 * SECOND);
        pace.slow_down(begin + 91 * SECOND);
        assert_eq!(pace.rate(begin + 91 * SECOND), 1_530.0, "half of what it had climbed to");
    }

    #[test]
    fn who_would_wait_too_long_gets_no_place() {
        let begin = Instant::now();
        let mut pace = Pace::new(1, begin);
        assert_eq!(pace.take(SECOND, begin), Ok(begin));
        let second = pace.take(SECOND, begin).unwrap();
        assert_eq!(second - begin, SECOND - BURST);
        assert_eq!(pace.take(SECOND, begin), Err(2 * SECOND - BURST));
        assert_eq!(pace.places(SECOND, begin), 0);
        assert_eq!(pace.places(2 * SECOND, begin), 1);
    }

    #[test]
    fn it_says_how_many_could_go_soon() {
        let begin = Instant::now();
        let mut pace = Pace::new(1_000, begin);
        assert_eq!(pace.places(Duration::ZERO, begin), 100);
        assert_eq!(pace.places(SECOND, begin), 1_100);
        for _ in 0..100 {
            pace.take(Duration::ZERO, begin).unwrap();
        }
        assert!(pace.places(Duration::ZERO, begin) <= 1);
        assert!((1_000..=1_001).contains(&pace.places(SECOND, begin)));
    }
}

//! How many syncs of everybody together an api takes: when thousands of devices come back at once, those it has no room
//! for are told when to try again, spread out, instead of all of them waiting for all.

use crate::error::Error;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use rand::Rng as _;
use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The longest anybody is told to wait, in seconds: the longest pause of the client rules.
const LONGEST_S: u64 = 30;
/// Over so long refusals are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// The bucket all syncs share.
pub(crate) struct Admission {
    bucket: Option<DefaultDirectRateLimiter>,
    per_second: u32,
    refused: Mutex<Refused>,
}

/// How many were refused, in this window and in the one before.
#[derive(Clone, Copy)]
struct Refused {
    since: Instant,
    now: u64,
    before: u64,
}

impl Admission {
    /// So many a second, and as many at once after a pause; 0 for no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        let bucket = NonZeroU32::new(per_second).map(|number| RateLimiter::direct(Quota::per_second(number)));
        let refused = Mutex::new(Refused { since: Instant::now(), now: 0, before: 0 });
        Self { bucket, per_second, refused }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// `Busy` when there is none.
    pub(crate) fn admit(&self) -> Result<(), Error> {
        if self.bucket.as_ref().is_none_or(|bucket| bucket.check().is_ok()) {
            return Ok(());
        }
        let waiting = self.refuse(Instant::now());
        let longest = longest_wait_s(waiting, self.per_second);
        let retry_after_s = rand::rng().random_range(1..=longest);
        Err(Error::Busy { what: "too many devices sync at once", retry_after_s })
    }

    /// Counts a refusal; how many there were lately.
    fn refuse(&self, now: Instant) -> u64 {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let windows = now.duration_since(refused.since).as_millis() / WINDOW.as_millis();
        if windows > 0 {
            if refused.now > 0 {
                tracing::warn!(syncs.refused = refused.now, "more syncs than this api takes");
            }
            let before = if windows == 1 { refused.now } else { 0 };
            *refused = Refused { since: now, now: 0, before };
        }
        refused.now += 1;
        refused.now + refused.before
    }
}

/// By when everybody who was refused would have had a turn, in seconds.
fn longest_wait_s(waiting: u64, per_second: u32) -> u32 {
    let seconds = waiting.div_ceil(u64::from(per_second).max(1)) + 1;
    u32::try_from(seconds.clamp(2, LONGEST_S)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_without_a_place_are_told_to_come_back_spread_out() {
        let admission = Admission::new(50);
        let mut waits = Vec::new();
        for _ in 0..1_050 {
            match admission.admit() {
                Ok(()) => {}
                Err(Error::Busy { retry_after_s, .. }) => waits.push(retry_after_s),
                Err(other) => panic!("{other}"),
            }
        }
        assert!((900..=1_000).contains(&waits.len()), "{}", waits.len());
        assert!(waits.iter().all(|wait| (1..=30).contains(wait)));
        assert!(waits[900..].iter().any(|wait| *wait > 5) && waits[900..].iter().any(|wait| *wait <= 5));
    }

    #[test]
    fn the_wait_grows_with_those_who_wait_up_to_its_end() {
        assert_eq!([1, 100, 101, 1_000, 1_000_000].map(|waiting| longest_wait_s(waiting, 100)), [2, 2, 3, 11, 30]);
    }

    #[test]
    fn refusals_of_long_ago_do_not_count() {
        let (admission, start) = (Admission::new(1), Instant::now());
        for _ in 0..10 {
            admission.refuse(start);
        }
        assert_eq!(admission.refuse(start + WINDOW), 11);
        assert_eq!(admission.refuse(start + 5 * WINDOW), 1);
    }

    #[test]
    fn zero_is_no_limit() {
        let admission = Admission::new(0);
        assert!((0..100_000).all(|_| admission.admit().is_ok()));
    }
}

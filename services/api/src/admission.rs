//! How many syncs of everybody together an api takes: when thousands of devices come back at once, those it has no room
//! for are told when to try again, spread out, instead of all of them waiting for all.

use crate::error::Error;
use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use touchline_mesh::Turnstile;

/// Refusals are logged at most this often, with how many there were.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// The door all syncs share.
pub(crate) struct Admission {
    turnstile: Option<Turnstile>,
    unlogged: Mutex<Unlogged>,
}

/// Refusals since the last one that was logged, and when that was.
#[derive(Default)]
struct Unlogged {
    refused: u64,
    logged: Option<Instant>,
}

impl Admission {
    /// So many a second, and as many at once after a pause; 0 for no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        let turnstile = (per_second > 0).then(|| Turnstile::new(per_second, Instant::now()));
        Self { turnstile, unlogged: Mutex::default() }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// `Busy` when there is none.
    pub(crate) fn admit(&self) -> Result<(), Error> {
        let Some(turnstile) = &self.turnstile else { return Ok(()) };
        let now = Instant::now();
        turnstile.enter(now).map_err(|wait| {
            self.log(now);
            let retry_after_s = wait.as_secs_f64().ceil().max(1.0) as u32;
            Error::Busy { what: "too many devices sync at once", retry_after_s }
        })
    }

    fn log(&self, now: Instant) {
        let mut unlogged = self.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
        unlogged.refused += 1;
        if unlogged.logged.is_none_or(|at| now.saturating_duration_since(at) >= LOG_EVERY) {
            tracing::warn!(syncs.refused = mem::take(&mut unlogged.refused), "more syncs than this api takes");
            unlogged.logged = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn syncs_without_a_place_are_told_whole_seconds_and_find_one_later() {
        let admission = Admission::new(50);
        let mut waits = Vec::new();
        for _ in 0..1_050 {
            match admission.admit() {
                Ok(()) => {}
                Err(Error::Busy { retry_after_s, .. }) => waits.push(retry_after_s),
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(waits.len(), 1_000);
        assert!(waits.iter().all(|wait| (1..=30).contains(wait)));
        assert!(waits[900..].iter().any(|wait| *wait > 20) && waits[900..].iter().any(|wait| *wait <= 10));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..100).filter(|_| admission.admit().is_ok()).count(), 50);
    }

    #[test]
    fn zero_is_no_limit() {
        let admission = Admission::new(0);
        assert!((0..100_000).all(|_| admission.admit().is_ok()));
    }
}

//! Which notifications this notifier works on at the moment, and by which claim it holds each.
//!
//! When writing down what came of a push takes longer than its claim lives, because the database is away, this notifier
//! may claim the row again: then the work under way goes on under the new claim, and nothing is sent twice.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};
use touchline_ids::{ChannelId, UserId};
use uuid::Uuid;

type Key = (UserId, ChannelId);

/// Rows under way, each with its newest claim. As many as there are places for work.
#[derive(Default)]
pub(crate) struct UnderWay(Mutex<HashMap<Key, Uuid>>);

impl UnderWay {
    /// Whether work on a row that was just claimed may begin. If it is under way already, it goes on under this claim.
    pub(crate) fn enter(&self, key: Key, claim: Uuid) -> bool {
        match self.lock().entry(key) {
            Entry::Occupied(mut held) => {
                held.insert(claim);
                false
            }
            Entry::Vacant(place) => {
                place.insert(claim);
                true
            }
        }
    }

    /// By which claim it is held.
    pub(crate) fn claim(&self, key: Key) -> Uuid {
        self.lock().get(&key).copied().unwrap_or_default()
    }

    /// It was settled under `claim`. Answers the claim that came too late for that, if there is one.
    pub(crate) fn leave(&self, key: Key, claim: Uuid) -> Option<Uuid> {
        self.lock().remove(&key).filter(|newest| *newest != claim)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_again_while_it_is_under_way_is_not_begun_again() {
        let (under_way, key) = (UnderWay::default(), (UserId::new(), ChannelId::new()));
        let [first, second, third] = [1, 2, 3].map(Uuid::from_u128);
        assert!(under_way.enter(key, first));
        assert!(!under_way.enter(key, second));
        assert_eq!(under_way.claim(key), second, "settled under the claim that holds it");
        assert!(!under_way.enter(key, third));
        assert_eq!(under_way.leave(key, second), Some(third), "nobody works under this one: it is to be released");
        assert!(under_way.enter(key, first));
        assert_eq!(under_way.leave(key, first), None);
    }
}

//! What will happen when: ordered by time, and by when it was planned among equals, so that a seed runs one way only.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};
use tokio::time::Instant;

/// Events to come.
pub(crate) struct Schedule<E> {
    waiting: BinaryHeap<Reverse<Due<E>>>,
    planned: u64,
}

struct Due<E> {
    at: Instant,
    number: u64,
    event: E,
}

impl<E> Schedule<E> {
    pub(crate) fn new() -> Self {
        Self { waiting: BinaryHeap::new(), planned: 0 }
    }

    pub(crate) fn plan(&mut self, at: Instant, event: E) {
        self.planned += 1;
        self.waiting.push(Reverse(Due { at, number: self.planned, event }));
    }

    /// The next event that is due until `end`.
    pub(crate) fn next(&mut self, end: Instant) -> Option<(Instant, E)> {
        if self.waiting.peek().is_none_or(|Reverse(due)| due.at > end) {
            return None;
        }
        self.waiting.pop().map(|Reverse(due)| (due.at, due.event))
    }

    /// How many events were planned so far.
    pub(crate) fn planned(&self) -> u64 {
        self.planned
    }
}

impl<E> Due<E> {
    fn order(&self) -> (Instant, u64) {
        (self.at, self.number)
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

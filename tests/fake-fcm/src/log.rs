//! Every request to send, as the fake saw it.

use crate::world::Clock;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// One request to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// 0, 1, 2 …, in the order of arrival.
    pub number: u64,
    /// When the whole request was there: Unix milliseconds.
    pub at_ms: u64,
    /// The same, in microseconds since the fake's start. Never goes back.
    pub begun_us: u64,
    /// When it was answered, reset or given up, on the same clock. None while it is under way.
    pub ended_us: Option<u64>,
    /// The fake's number for the connection.
    pub connection: u32,
    /// HTTP/2's stream; over HTTP/1 how many requests the connection has carried.
    pub stream: u32,
    /// Which access token it came with: 1, 2, 3 … in the order of issue; 0 for none or an unknown one.
    pub bearer: u32,
    /// The message's token (or fid, topic, condition); empty when it has none.
    pub token: Arc<str>,
    /// `data.ch`.
    pub channel: Option<Arc<str>>,
    /// `data.seq`, if it is a number.
    pub seq: Option<u64>,
    /// `data.n`, if it is a number.
    pub n: Option<u64>,
    /// The same for the same body.
    pub body_hash: u64,
    /// The body's bytes.
    pub bytes: u32,
    /// Whether one of the needles ([`Change::needles`](crate::Change::needles)) is in the body.
    pub leaked: bool,
    /// Whether it counts as delivered, whatever the sender was told.
    pub processed: bool,
    /// What the sender was told.
    pub outcome: Outcome,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// How long the answer asked to wait, in seconds.
    pub retry_after: Option<u32>,
}

/// What a sender was told, as far as it must act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing yet.
    Pending,
    /// 200.
    Accepted,
    /// 200 to a message that was only to be validated.
    Validated,
    /// 400 about the message.
    Invalid,
    /// 400 about the token.
    BadToken,
    /// 404.
    Unregistered,
    /// 403 SENDER_ID_MISMATCH.
    WrongSender,
    /// 401 THIRD_PARTY_AUTH_ERROR.
    PlatformKey,
    /// 403 without a code.
    Forbidden,
    /// 401 about the access token.
    Unauthenticated,
    /// 429.
    Quota,
    /// 500 and above.
    ServerError,
    /// Another status.
    Other,
    /// The stream was reset.
    Reset,
    /// The stream was refused: nobody looked at it.
    Refused,
    /// The sender went before there was an answer.
    Gone,
}

impl Outcome {
    /// What a status alone says.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            200 => Self::Accepted,
            400 => Self::Invalid,
            401 => Self::Unauthenticated,
            403 => Self::Forbidden,
            404 => Self::Unregistered,
            429 => Self::Quota,
            500.. => Self::ServerError,
            _ => Self::Other,
        }
    }
}

/// Part of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Where the next page begins.
    pub next: u64,
    /// Entries that were forgotten for want of room since the start; with any the log is no longer whole.
    pub forgotten: u64,
    /// In the order of arrival.
    pub entries: Vec<Entry>,
}

/// The log: bounded, the oldest entries go first.
#[derive(Debug)]
pub struct Log {
    inner: Mutex<Inner>,
    /// Entries that are kept.
    most: usize,
    /// Bodies that are kept.
    most_bodies: usize,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Entry>,
    /// How many went.
    forgotten: u64,
    /// Each token and channel once.
    names: HashSet<Arc<str>>,
    /// With the entry's number.
    bodies: VecDeque<(u64, Bytes)>,
}

impl Log {
    pub(crate) fn new(most: usize, most_bodies: usize) -> Self {
        Self { inner: Mutex::default(), most: most.max(1), most_bodies, changed: Notify::new() }
    }

    /// At most `limit` entries from number `since` on.
    pub fn since(&self, since: u64, limit: usize) -> Page {
        let inner = self.inner();
        let skipped = usize::try_from(since.saturating_sub(inner.forgotten)).unwrap_or(usize::MAX);
        let entries: Vec<Entry> = inner.entries.iter().skip(skipped).take(limit).cloned().collect();
        let next = entries.last().map_or(since.max(inner.forgotten), |entry| entry.number + 1);
        Page { next, forgotten: inner.forgotten, entries }
    }

    /// All there is.
    pub fn all(&self) -> Vec<Entry> {
        self.since(0, usize::MAX).entries
    }

    /// Hands the entries and the number of forgotten ones to `judge`, without a copy. Requests wait meanwhile.
    pub fn judge<T>(&self, judge: impl FnOnce(&[Entry], u64) -> T) -> T {
        let mut inner = self.inner();
        let forgotten = inner.forgotten;
        judge(inner.entries.make_contiguous(), forgotten)
    }

    /// The number that the next request gets.
    pub fn next(&self) -> u64 {
        let inner = self.inner();
        inner.forgotten + inner.entries.len() as u64
    }

    /// The body of a request, if it is among the last ones.
    pub fn body(&self, number: u64) -> Option<Bytes> {
        self.inner().bodies.iter().rev().find(|(one, _)| *one == number).map(|(_, body)| body.clone())
    }

    /// Waits for an entry from number `since` on that is as `wanted`, also when it only becomes so later. Give it a
    /// deadline.
    pub async fn wait_for(&self, since: u64, wanted: impl Fn(&Entry) -> bool) -> Entry {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let inner = self.inner();
                let skipped = usize::try_from(since.saturating_sub(inner.forgotten)).unwrap_or(usize::MAX);
                if let Some(entry) = inner.entries.iter().skip(skipped).find(|entry| wanted(entry)) {
                    return entry.clone();
                }
            }
            changed.await;
        }
    }

    /// Forgets everything; numbers go on.
    pub fn clear(&self) {
        let mut inner = self.inner();
        inner.forgotten += inner.entries.len() as u64;
        inner.entries.clear();
        inner.names.clear();
        inner.bodies.clear();
    }

    /// Writes a request down; number and time of `entry` are settled here.
    pub(crate) fn begin<'l>(&'l self, mut entry: Entry, body: &Bytes, clock: &'l Clock) -> Open<'l> {
        let mut inner = self.inner();
        // In here, so that the order of arrival is the order in time.
        entry.begun_us = clock.mono_us();
        if inner.entries.len() >= self.most {
            inner.entries.pop_front();
            inner.forgotten += 1;
        }
        // Tokens of forgotten entries are dropped now and then, all at once.
        if inner.names.len() > 2 * self.most {
            inner.names.clear();
        }
        entry.token = inner.name(entry.token);
        entry.channel = entry.channel.map(|channel| inner.name(channel));
        entry.number = inner.forgotten + inner.entries.len() as u64;
        let number = entry.number;
        inner.entries.push_back(entry);
        if self.most_bodies > 0 {
            if inner.bodies.len() >= self.most_bodies {
                inner.bodies.pop_front();
            }
            inner.bodies.push_back((number, body.clone()));
        }
        drop(inner);
        self.changed.notify_waiters();
        Open { log: self, clock, number, ended: false }
    }

    fn update(&self, number: u64, change: impl FnOnce(&mut Entry)) {
        let mut inner = self.inner();
        let position = number.checked_sub(inner.forgotten).and_then(|position| usize::try_from(position).ok());
        if let Some(entry) = position.and_then(|position| inner.entries.get_mut(position)) {
            change(entry);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn name(&mut self, name: Arc<str>) -> Arc<str> {
        if let Some(known) = self.names.get(&name) {
            return Arc::clone(known);
        }
        self.names.insert(Arc::clone(&name));
        name
    }
}

/// A request under way. Dropped before its end: the sender is gone.
#[derive(Debug)]
pub(crate) struct Open<'l> {
    log: &'l Log,
    clock: &'l Clock,
    number: u64,
    ended: bool,
}

impl Open<'_> {
    /// From now on it counts as delivered.
    pub(crate) fn processed(&self) {
        self.log.update(self.number, |entry| entry.processed = true);
    }

    /// It is answered, or reset, now.
    pub(crate) fn end(mut self, outcome: Outcome, status: Option<u16>, retry_after: Option<u32>) {
        self.ended = true;
        let now = self.clock.mono_us();
        self.log.update(self.number, |entry| {
            entry.ended_us = Some(now);
            entry.outcome = outcome;
            entry.status = status;
            entry.retry_after = retry_after;
        });
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let now = self.clock.mono_us();
        self.log.update(self.number, |entry| {
            entry.ended_us = Some(now);
            entry.outcome = Outcome::Gone;
        });
    }
}

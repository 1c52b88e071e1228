//! Tells the apis what devices have acked, so that it survives this gateway: every other second, to the push stream
//! that has been open for longest. What was told to a stream that broke is told again to another, for it may not have
//! arrived.

use crate::{gateway::Gateway, hub::Ack};
use bytes::BytesMut;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;
use touchline_proto::{
    convert::ID_LEN,
    push::{Acks, PushAnswer},
};

/// Acks in one message; the proto says so.
const AT_ONCE: usize = 10_000;
/// What was told earlier has arrived.
const DOUBTED: Duration = Duration::from_secs(10);
/// Acks that may wait for an api, and that may be told again. Full: the oldest are let go; a sync's cursors, or the
/// next ack of the channel, make good for them.
const WAITING: usize = 200_000;
const TOLD: usize = 200_000;

/// Push streams: one for each api.
const STREAMS: usize = 256;

/// Where a push stream's answers go.
pub(crate) type Answers = mpsc::Sender<Result<PushAnswer, Status>>;

/// The open push streams, and what is to be told on them.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By age.
    streams: BTreeMap<u64, Answers>,
    next: u64,
    tale: Tale,
}

/// A stream's place among the open ones; dropping it says that the stream has ended.
pub(crate) struct Open {
    gateway: Arc<Gateway>,
    stream: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.gateway.relay.state();
        state.streams.remove(&self.stream);
        state.tale.broke(self.stream, Instant::now());
    }
}

impl Relay {
    /// How many apis have a push stream.
    pub(crate) fn streams(&self) -> usize {
        self.state().streams.len()
    }

    /// Forgets what is to be told: it is of a log that is no more.
    pub(crate) fn forget(&self) {
        self.state().tale = Tale::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A push stream began; none when there are as many as may be.
pub(crate) fn opened(gateway: &Arc<Gateway>, answers: Answers) -> Option<Open> {
    let mut state = gateway.relay.state();
    if state.streams.len() >= STREAMS {
        return None;
    }
    let stream = state.next;
    state.next += 1;
    state.streams.insert(stream, answers);
    Some(Open { gateway: Arc::clone(gateway), stream })
}

/// Tells what was acked, for as long as the gateway lives.
pub(crate) async fn tell_forever(gateway: Arc<Gateway>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        tell(&gateway);
    }
}

/// Tells what was acked until now. Without a stream it waits where it is; a stream that is full is passed over.
pub(crate) fn tell(gateway: &Gateway) {
    let mut state = gateway.relay.state();
    let State { streams, tale, .. } = &mut *state;
    if streams.is_empty() {
        return;
    }
    let let_go = tale.add(gateway.hub.take_acks());
    if let_go > 0 {
        tracing::warn!(acks = let_go, "acks are not told: no api takes them");
    }
    for (stream, answers) in streams {
        // First a place, then the acks: what is taken is told.
        while tale.waits()
            && let Ok(place) = answers.try_reserve()
        {
            place.send(Ok(packed(&tale.take(*stream, Instant::now())).into()));
        }
    }
}

pub(crate) fn packed(acks: &[Ack]) -> Acks {
    let mut users = BytesMut::with_capacity(acks.len() * ID_LEN);
    let mut channels = BytesMut::with_capacity(acks.len() * ID_LEN);
    for ack in acks {
        users.extend_from_slice(ack.user.as_bytes());
        channels.extend_from_slice(ack.channel.as_bytes());
    }
    Acks { users: users.freeze(), channels: channels.freeze(), seqs: acks.iter().map(|ack| ack.seq.0).collect() }
}

/// What is to be told, and what was told a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Tale {
    waiting: VecDeque<Ack>,
    told: VecDeque<Told>,
    told_acks: usize,
}

#[derive(Debug)]
struct Told {
    stream: u64,
    at: Instant,
    acks: Vec<Ack>,
}

impl Tale {
    /// More to tell. How many had to be let go.
    pub(crate) fn add(&mut self, acks: Vec<Ack>) -> usize {
        self.waiting.extend(acks);
        let too_many = self.waiting.len().saturating_sub(WAITING);
        self.waiting.drain(..too_many);
        too_many
    }

    pub(crate) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What to tell this stream now.
    pub(crate) fn take(&mut self, stream: u64, now: Instant) -> Vec<Ack> {
        let acks: Vec<_> = self.waiting.drain(..AT_ONCE.min(self.waiting.len())).collect();
        self.told_acks += acks.len();
        self.told.push_back(Told { stream, at: now, acks: acks.clone() });
        let old = |told: &Told| now.saturating_duration_since(told.at) > DOUBTED;
        while self.told.front().is_some_and(|told| old(told) || self.told_acks > TOLD) {
            self.told_acks -= self.told.pop_front().map_or(0, |told| told.acks.len());
        }
        acks
    }

    /// What this stream was told lately may not have arrived.
    pub(crate) fn broke(&mut self, stream: u64, now: Instant) {
        let (lost, kept) = self.told.drain(..).partition(|told| told.stream == stream);
        self.told = kept;
        self.told_acks = self.told.iter().map(|told| told.acks.len()).sum();
        let lost: VecDeque<Told> = lost;
        for told in lost.into_iter().filter(|told| now.saturating_duration_since(told.at) <= DOUBTED) {
            self.add(told.acks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchline_ids::{ChannelId, Seq, UserId};

    fn acks(count: usize) -> Vec<Ack> {
        (0..count).map(|_| Ack { user: UserId::new(), channel: ChannelId::new(), seq: Seq(1) }).collect()
    }

    #[test]
    fn acks_are_told_in_order_ten_thousand_at_once() {
        let (mut tale, now, acks) = (Tale::default(), Instant::now(), acks(25_000));
        assert_eq!(tale.add(acks.clone()), 0);
        let told: Vec<_> = (0..3).map(|_| tale.take(1, now)).collect();
        assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [10_000, 10_000, 5_000]);
        assert_eq!(told.concat(), acks);
        assert!(!tale.waits());
    }

    #[test]
    fn what_a_broken_stream_was_told_in_the_last_ten_seconds_is_told_again() {
        let (mut tale, begin, acks) = (Tale::default(), Instant::now(), acks(3));
        for (ack, (stream, after)) in acks.iter().zip([(1, 0), (2, 5), (1, 6)]) {
            tale.add(vec![*ack]);
            tale.take(stream, begin + Duration::from_secs(after));
        }
        tale.broke(1, begin + Duration::from_secs(11));
        assert_eq!(tale.take(2, begin + Duration::from_secs(11)), [acks[2]]);
        tale.broke(2, begin + Duration::from_secs(12));
        assert_eq!(tale.take(3, begin + Duration::from_secs(12)), [acks[1], acks[2]]);
    }

    #[test]
    fn what_waits_and_what_was_told_are_bounded_and_the_oldest_go() {
        let (mut tale, now) = (Tale::default(), Instant::now());
        let all = acks(WAITING + 100);
        assert_eq!(tale.add(all.clone()), 100);
        assert_eq!(tale.take(1, now)[0], all[100]);
        for _ in 0..40 {
            tale.add(acks(AT_ONCE));
            tale.take(1, now);
        }
        assert!(tale.told_acks <= TOLD && tale.told.len() <= TOLD / AT_ONCE);
        assert!(tale.waiting.len() <= WAITING);
    }
}

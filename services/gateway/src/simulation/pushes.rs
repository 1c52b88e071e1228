//! The simulated gateway's push streams: requests in, results and acks out.

use super::{Gateway, Output};
use crate::{
    awaiting::{Awaiting, HandedOut},
    hub::{Handed, User},
    push::{self, What},
    relay::{self, Tale},
};
use bytes::BytesMut;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;
use touchline_proto::push::{PushRequest, PushResult};

/// After how long acks are looked at for the first time, and how often apis are told of them.
const EARLY: Duration = Duration::from_millis(1_200);
const TELL_EVERY: Duration = Duration::from_secs(2);

/// A push stream, named by the simulator; the least is the oldest.
pub type Stream = u64;

/// Every open stream, and the acks to tell on one of them.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: BTreeMap<Stream, Awaiting>,
    tale: Tale,
    tell_at: Option<Instant>,
}

impl Gateway {
    /// An api opened a push stream.
    pub fn stream_opened(&mut self, stream: Stream) {
        self.streams.open.insert(stream, Awaiting::default());
    }

    /// It broke.
    pub fn stream_broke(&mut self, stream: Stream, now: Instant) {
        if self.streams.open.remove(&stream).is_some() {
            self.streams.tale.broke(stream, now);
        }
    }

    /// How many there are.
    pub fn streams(&self) -> usize {
        self.streams.open.len()
    }

    /// A request came on a stream.
    pub fn request(&mut self, stream: Stream, request: &PushRequest, now: Instant) {
        self.wake = Some(now);
        let push_id = request.push_id;
        if request.incarnation != self.incarnation.as_bytes().as_slice() {
            let stale = PushResult { push_id, stale_incarnation: true, ..PushResult::default() };
            return self.out.push_back(Output::Answer(stream, stale.into()));
        }
        let users = push::users(&request.recipients);
        let (mut gone, mut slow, mut taken) = (BytesMut::new(), BytesMut::new(), Vec::<Arc<User>>::new());
        let (channel, seq) = match push::order(request) {
            Ok(What::Show(message)) => {
                self.hub.hand(users.into_iter(), &message, |id, handed, user| match (handed, user) {
                    (Handed::Taken, Some(user)) => taken.push(Arc::clone(user)),
                    (Handed::Slow, _) => slow.extend_from_slice(id.as_bytes()),
                    (Handed::Gone | Handed::Taken, _) => gone.extend_from_slice(id.as_bytes()),
                });
                push::users(&gone).into_iter().for_each(|user| self.registrar.stale(user, now));
                (message.channel, message.seq)
            }
            Ok(What::Ask(channel, seq)) => {
                self.hub.find(users.into_iter(), |id, user| match user {
                    Some(user) => taken.push(Arc::clone(user)),
                    None => gone.extend_from_slice(id.as_bytes()),
                });
                (channel, seq)
            }
            Ok(What::Life(life)) => {
                if self.hub.begin_life(life) {
                    self.streams.tale = Tale::default();
                    self.resync(&[], now);
                }
                return self.out.push_back(Output::Answer(stream, done(push_id).into()));
            }
            Ok(What::Resync) => {
                self.resync(&users, now);
                return self.out.push_back(Output::Answer(stream, done(push_id).into()));
            }
            Err(_) => {
                let nobody = PushResult { gone: request.recipients.clone(), ..done(push_id) };
                return self.out.push_back(Output::Answer(stream, nobody.into()));
            }
        };
        let out = HandedOut { push_id, channel, seq, gone: gone.freeze(), slow: slow.freeze(), unacked: taken };
        let wait = Duration::from_millis(request.ack_wait_ms.into());
        let result = self.streams.open.get_mut(&stream).and_then(|awaiting| awaiting.add(out, EARLY, wait, now));
        self.out.extend(result.map(|result| Output::Answer(stream, result.into())));
    }

    /// What is due on the streams; when the next thing is.
    pub(super) fn serve_streams(&mut self, now: Instant) -> Option<Instant> {
        let Streams { open, tale, tell_at } = &mut self.streams;
        for (stream, awaiting) in open.iter_mut() {
            let results = awaiting.look(&self.hub, now);
            self.out.extend(results.into_iter().map(|result| Output::Answer(*stream, result.into())));
        }
        if now >= *tell_at.get_or_insert(now + TELL_EVERY) {
            *tell_at = Some(now + TELL_EVERY);
            if let Some(oldest) = open.keys().next().copied() {
                let mut acks = self.hub.take_acks();
                // One frame's cursors come in no order.
                acks.sort_unstable_by_key(|ack| (ack.user, ack.channel));
                tale.add(acks);
                while tale.waits() {
                    let acks = relay::packed(&tale.take(oldest, now));
                    self.out.push_back(Output::Answer(oldest, acks.into()));
                }
            }
        }
        open.values().filter_map(Awaiting::next_look).chain(*tell_at).min()
    }
}

fn done(push_id: u64) -> PushResult {
    PushResult { push_id, ..PushResult::default() }
}

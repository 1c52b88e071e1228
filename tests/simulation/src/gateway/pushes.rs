//! Pushes: messages into the hub, results by what was acked.

use super::Life;
use crate::world::{Packet, World, wires::WireId};
use bytes::BytesMut;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::Instant;
use touchline_gateway::simulation::{Handed, Order, User, encode};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_proto::{
    convert::{pack_users, unpack_users},
    push::{Acks, PushRequest, PushResult, push_request::Purpose},
};

pub(super) const FLUSH: Duration = Duration::from_secs(2);
const EARLY: Duration = Duration::from_millis(1_200);

/// One api's stream.
#[derive(Default)]
pub(super) struct PushStream {
    early: VecDeque<Pending>,
    late: VecDeque<Pending>,
}

/// A push whose acks are awaited.
struct Pending {
    result: PushResult,
    channel: ChannelId,
    seq: Seq,
    unacked: Vec<Arc<User>>,
    early: Instant,
    due: Instant,
}

impl PushStream {
    pub(super) fn next_check(&self) -> Option<Instant> {
        let early = self.early.front().map(|pending| pending.early);
        let late = self.late.front().map(|pending| pending.due);
        early.into_iter().chain(late).min()
    }
}

impl Life {
    pub(super) fn push(&mut self, world: &mut World, wire: WireId, push: &PushRequest) {
        let push_id = push.push_id;
        if push.incarnation != self.incarnation.as_bytes().as_slice() {
            let result = PushResult { push_id, stale_incarnation: true, ..PushResult::default() };
            return world.send(wire, self.node, Packet::PushAnswer(result.into()));
        }
        let users: Vec<UserId> = unpack_users(&push.recipients).into_iter().flatten().collect();
        let Ok(purpose) = Purpose::try_from(push.purpose) else { return };
        if purpose == Purpose::Resync {
            let members = if users.is_empty() { self.hub.members() } else { self.hub.members_of(&users) };
            members.iter().for_each(|member| member.queue.order(Order::Ready));
            let result = PushResult { push_id, ..PushResult::default() };
            return world.send(wire, self.node, Packet::PushAnswer(result.into()));
        }
        let Some(Ok(message)) = push.message.as_ref().map(encode) else { return };
        let (mut gone, mut slow, mut unacked) = (BytesMut::new(), BytesMut::new(), Vec::new());
        if purpose == Purpose::Show {
            self.hub.hand(users.into_iter(), &message, |id, handed, user| match (handed, user) {
                (Handed::Taken, Some(user)) => unacked.push(Arc::clone(user)),
                (Handed::Slow, _) => slow.extend_from_slice(id.as_bytes()),
                _ => gone.extend_from_slice(id.as_bytes()),
            });
        } else {
            self.hub.find(users.into_iter(), |id, user| match user {
                Some(user) => unacked.push(Arc::clone(user)),
                None => gone.extend_from_slice(id.as_bytes()),
            });
        }
        let wait = Duration::from_millis(push.ack_wait_ms.into());
        let result = PushResult { push_id, gone: gone.freeze(), slow: slow.freeze(), ..PushResult::default() };
        let (channel, seq, now) = (message.channel, message.seq, world.now);
        let pending = Pending { result, channel, seq, unacked, early: now + wait.min(EARLY), due: now + wait };
        let Some(stream) = self.streams.get_mut(&wire) else { return };
        if wait.is_zero() || pending.unacked.is_empty() {
            self.answer_push(world, wire, pending);
        } else {
            stream.early.push_back(pending);
        }
    }

    fn answer_push(&self, world: &mut World, wire: WireId, mut pending: Pending) {
        pending.unacked.retain(|user| !self.hub.has_acked(user, pending.channel, pending.seq));
        let users: Vec<_> = pending.unacked.iter().map(|user| user.id).collect();
        let result = PushResult { unacked: pack_users(users.iter()), ..pending.result };
        world.send(wire, self.node, Packet::PushAnswer(result.into()));
    }

    pub(super) fn pushes_on_time(&mut self, world: &mut World) {
        let now = world.now;
        for wire in self.streams.keys().copied().collect::<Vec<_>>() {
            while let Some(stream) = self.streams.get_mut(&wire) {
                let Some(mut pending) = stream.early.pop_front_if(|pending| now >= pending.early) else { break };
                pending.unacked.retain(|user| !self.hub.has_acked(user, pending.channel, pending.seq));
                if pending.unacked.is_empty() || now >= pending.due {
                    self.answer_push(world, wire, pending);
                } else {
                    stream.late.push_back(pending);
                }
            }
            while let Some(stream) = self.streams.get_mut(&wire) {
                let Some(pending) = stream.late.pop_front_if(|pending| now >= pending.due) else { break };
                self.answer_push(world, wire, pending);
            }
        }
        if now >= self.flush_at {
            self.flush_at = now + FLUSH;
            self.flush_acks(world);
        }
    }

    /// Tells one api what was acked.
    fn flush_acks(&mut self, world: &mut World) {
        let Some(wire) = self.streams.keys().next().copied() else { return };
        let acked: Vec<_> = std::mem::take(&mut self.acks).into_iter().collect();
        if acked.is_empty() {
            return;
        }
        let users: Vec<_> = acked.iter().map(|((user, _), _)| *user).collect();
        let mut channels = BytesMut::new();
        acked.iter().for_each(|((_, channel), _)| channels.extend_from_slice(channel.as_bytes()));
        let seqs = acked.iter().map(|(_, seq)| seq.0).collect();
        let acks = Acks { users: pack_users(users.iter()), channels: channels.freeze(), seqs };
        world.send(wire, self.node, Packet::PushAnswer(acks.into()));
    }
}

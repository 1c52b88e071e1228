//! One push stream to every live gateway incarnation, and what happens to pushes when it breaks.

use super::{Life, fan_out::Place};
use crate::world::{Node, Packet, World, wires::WireId};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;
use touchline_api::simulation::{Ask, Loss, Push, PushId};
use touchline_ids::{ChannelId, GatewayId, IncarnationId, Seq, UserId};
use touchline_proto::{
    convert::{pack_users, unpack_users},
    push::{Message, PushAnswer, PushRequest, push_answer::Answer, push_request::Purpose},
};
use touchline_registry::Lease;
use touchline_storage::Entry;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// A stream, or the tries to open one.
pub(super) struct Stream {
    lease: Lease,
    wire: Option<WireId>,
    open: bool,
    retry: Duration,
    retry_at: Option<Instant>,
    /// The last try to open it failed.
    undialable: bool,
    last_id: u64,
    pending: BTreeMap<u64, (Place, PushId)>,
    /// Who may have missed something there: told to sync by the next stream.
    owed: BTreeSet<UserId>,
    /// Pushes that wait for it to open.
    queued: Vec<PushRequest>,
}

impl Stream {
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.retry_at
    }
}

/// The number in a gateway's name.
pub(super) fn number_of(gateway: &GatewayId) -> usize {
    gateway.as_str().trim_start_matches("gw-").parse().unwrap_or_default()
}

impl Life {
    /// Opens what is to be open, and lets go of who is dead.
    pub(super) fn streams_on_time(&mut self, world: &mut World) {
        let alive = self.view.alive();
        let dead: Vec<_> = self.streams.keys().filter(|there| !alive.contains_key(there)).copied().collect();
        for incarnation in dead {
            self.drop_stream(world, incarnation);
        }
        for lease in alive.into_values() {
            self.stream_to(world, lease);
        }
        let now = world.now;
        for stream in self.streams.values_mut().filter(|stream| stream.retry_at.is_some_and(|at| at <= now)) {
            dial(self.node, stream, world);
        }
    }

    fn stream_to(&mut self, world: &mut World, lease: Lease) {
        if self.streams.contains_key(&lease.incarnation) {
            return;
        }
        let incarnation = lease.incarnation;
        let mut stream = Stream {
            lease,
            wire: None,
            open: false,
            retry: FIRST_RETRY,
            retry_at: None,
            undialable: false,
            last_id: 0,
            pending: BTreeMap::new(),
            owed: BTreeSet::new(),
            queued: Vec::new(),
        };
        dial(self.node, &mut stream, world);
        self.streams.insert(incarnation, stream);
    }

    fn drop_stream(&mut self, world: &mut World, incarnation: IncarnationId) {
        let Some(stream) = self.streams.remove(&incarnation) else { return };
        self.view.unvouch(incarnation);
        if let Some(wire) = stream.wire {
            world.close(wire, self.node);
        }
        self.lose(world, stream.pending.into_values().collect(), Loss::Broken);
    }

    fn by_wire(&mut self, wire: WireId) -> Option<&mut Stream> {
        self.streams.values_mut().find(|stream| stream.wire == Some(wire))
    }

    pub(super) fn stream_opened(&mut self, world: &mut World, wire: WireId) {
        let node = self.node;
        let Some(stream) = self.by_wire(wire) else { return };
        (stream.open, stream.undialable, stream.retry) = (true, false, FIRST_RETRY);
        let owed: Vec<_> = std::mem::take(&mut stream.owed).into_iter().collect();
        if !owed.is_empty() {
            stream.last_id += 1;
            let resync = PushRequest {
                push_id: stream.last_id,
                incarnation: Bytes::copy_from_slice(stream.lease.incarnation.as_bytes()),
                recipients: pack_users(owed.iter()),
                purpose: Purpose::Resync.into(),
                ..PushRequest::default()
            };
            world.send(wire, node, Packet::Push(resync));
        }
        for request in std::mem::take(&mut stream.queued) {
            world.send(wire, node, Packet::Push(request));
        }
        let lease = stream.lease.clone();
        self.view.vouch(lease);
    }

    pub(super) fn stream_broke(&mut self, world: &mut World, wire: WireId) {
        let now = world.now;
        let Some(stream) = self.by_wire(wire) else { return };
        let was_open = std::mem::take(&mut stream.open);
        stream.undialable = !was_open;
        stream.wire = None;
        stream.queued.clear();
        stream.retry_at = Some(now + stream.retry);
        stream.retry = (stream.retry * 2).min(LAST_RETRY);
        let pending: Vec<_> = std::mem::take(&mut stream.pending).into_values().collect();
        let incarnation = stream.lease.incarnation;
        self.view.unvouch(incarnation);
        for (place, push) in &pending {
            self.owe(incarnation, *place, *push);
        }
        let loss = if was_open { Loss::Broken } else { Loss::Unreachable };
        self.lose(world, pending, loss);
    }

    fn lose(&mut self, world: &mut World, pending: Vec<(Place, PushId)>, loss: Loss) {
        for (place, push) in pending {
            if let Some(fan) = self.fans.get_mut(&place) {
                fan.delivery.lost(push, loss);
                self.go_on(world, place);
            }
        }
    }

    /// Whom a push was for, they may have missed it.
    fn owe(&mut self, incarnation: IncarnationId, place: Place, push: PushId) {
        let Some(fan) = self.fans.get(&place) else { return };
        let users: Vec<_> = fan.message.members.users.clone();
        let _ = push;
        if let Some(stream) = self.streams.get_mut(&incarnation) {
            stream.owed.extend(users);
        }
    }

    /// Hands one push to its stream.
    pub(super) fn push(&mut self, world: &mut World, place: Place, push: &Push) {
        let (node, incarnation) = (self.node, push.gateway);
        if let Some(lease) = self.view.get(incarnation).cloned() {
            self.stream_to(world, lease);
        }
        let Some(fan) = self.fans.get_mut(&place) else { return };
        let request = request(&fan.message.entry, &fan.delivery.users(&push.users), push);
        let Some(stream) = self.streams.get_mut(&incarnation) else {
            return fan.delivery.lost(push.id, Loss::Broken);
        };
        let Some(wire) = stream.wire else {
            let loss = if stream.undialable { Loss::Unreachable } else { Loss::Broken };
            fan.delivery.lost(push.id, loss);
            return self.owe(incarnation, place, push.id);
        };
        stream.last_id += 1;
        let request = PushRequest { push_id: stream.last_id, ..request };
        stream.pending.insert(stream.last_id, (place, push.id));
        if stream.open {
            world.send(wire, node, Packet::Push(request));
        } else {
            stream.queued.push(request);
        }
    }

    pub(super) fn push_answer(&mut self, world: &mut World, wire: WireId, answer: &PushAnswer) {
        match &answer.answer {
            Some(Answer::Result(result)) => {
                let Some(stream) = self.by_wire(wire) else { return };
                let Some((place, push)) = stream.pending.remove(&result.push_id) else { return };
                if let Some(fan) = self.fans.get_mut(&place) {
                    fan.delivery.answered(push, result);
                    self.go_on(world, place);
                }
            }
            Some(Answer::Acks(acks)) => {
                let users = unpack_users(&acks.users).into_iter().flatten();
                let channels = acks.channels.chunks(16).filter_map(|id| ChannelId::from_slice(id).ok());
                for ((user, channel), seq) in users.zip(channels).zip(&acks.seqs) {
                    self.note_ack(user, channel, Seq(*seq));
                }
            }
            None => {}
        }
    }
}

fn dial(node: Node, stream: &mut Stream, world: &mut World) {
    stream.retry_at = None;
    stream.wire = Some(world.open(node, Node::Gateway(number_of(&stream.lease.gateway)), true));
}

fn request(entry: &Entry, users: &[UserId], push: &Push) -> PushRequest {
    let message = Message {
        channel_id: Bytes::copy_from_slice(entry.channel_id.as_bytes()).into(),
        seq: entry.seq.0,
        message_id: Bytes::copy_from_slice(entry.message_id.as_bytes()).into(),
        sender_id: Bytes::copy_from_slice(entry.sender_id.as_bytes()).into(),
        kind: entry.kind.as_str().to_owned(),
        content: Bytes::copy_from_slice(entry.content.as_bytes()),
        created_at_ms: entry.created_at_ms,
    };
    let (purpose, ack_wait_ms) = match push.ask {
        Ask::Show => (Purpose::Show, 3_000),
        Ask::Acked => (Purpose::Ask, 0),
    };
    PushRequest {
        push_id: 0,
        incarnation: Bytes::copy_from_slice(push.gateway.as_bytes()),
        recipients: pack_users(users.iter()),
        ack_wait_ms,
        traceparent: String::new(),
        message: Some(message),
        purpose: purpose.into(),
    }
}

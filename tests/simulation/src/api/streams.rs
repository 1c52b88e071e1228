//! One push stream to every live gateway incarnation, and what happens to pushes when it breaks.

use super::{
    Life,
    fan_out::{Place, TIMES},
};
use crate::world::{Node, Packet, World, wires::WireId};
use bytes::Bytes;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use touchline_api::simulation::{Ask, Loss, Owed, Push, PushId, message};
use touchline_ids::{ChannelId, GatewayId, IncarnationId, Seq, UserId};
use touchline_proto::{
    convert::{pack_users, unpack_users},
    push::{PushAnswer, PushRequest, push_answer::Answer, push_request::Purpose},
};
use touchline_registry::Lease;
use touchline_storage::Entry;

/// How long a gateway may take to answer the opening of a stream.
const OPENING: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// A stream, or the tries to open one.
pub(super) struct Stream {
    lease: Lease,
    wire: Option<WireId>,
    /// When it is given up, or has been open since.
    state: State,
    retry: Duration,
    /// Why the last try failed; then pushes are refused.
    failed: Option<Loss>,
    vouched: bool,
    last_id: u64,
    pending: BTreeMap<u64, Awaited>,
    owed: Owed,
    /// Pushes that wait for it to open.
    queued: Vec<u64>,
}

#[derive(Clone, Copy)]
enum State {
    Opening(Instant),
    Open(Instant),
    Waiting(Instant),
}

/// A push without a result.
struct Awaited {
    /// None: a resync, of which nobody waits for the result.
    push: Option<(Place, PushId)>,
    request: PushRequest,
    due: Instant,
}

impl Stream {
    fn new(lease: Lease, owed: Owed, now: Instant) -> Self {
        Self {
            lease,
            wire: None,
            state: State::Waiting(now),
            retry: FIRST_RETRY,
            failed: None,
            vouched: false,
            last_id: 0,
            pending: BTreeMap::new(),
            owed,
            queued: Vec::new(),
        }
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        match self.state {
            State::Opening(until) | State::Waiting(until) => Some(until),
            State::Open(_) if self.vouched => self.pending.values().map(|awaited| awaited.due).min(),
            State::Open(_) => None,
        }
    }

    fn add(&mut self, request: PushRequest, push: Option<(Place, PushId)>, now: Instant) -> u64 {
        self.last_id += 1;
        let due = now + TIMES.patience + Duration::from_millis(request.ack_wait_ms.into());
        let request = PushRequest { push_id: self.last_id, ..request };
        self.pending.insert(self.last_id, Awaited { push, request, due });
        self.last_id
    }

    fn tell_life(&mut self, world: &mut World, node: Node, life: Option<u64>) {
        let (State::Open(_), Some(wire), Some(life)) = (self.state, self.wire, life) else { return };
        let request = PushRequest {
            incarnation: Bytes::copy_from_slice(self.lease.incarnation.as_bytes()),
            purpose: Purpose::Life.into(),
            database_life: life.cast_signed(),
            ..PushRequest::default()
        };
        let id = self.add(request, None, world.now);
        if let Some(awaited) = self.pending.get(&id) {
            world.send(wire, node, Packet::Push(awaited.request.clone()));
        }
    }

    /// Tells the gateway to let those sync whom it may owe something.
    fn pay(&mut self, world: &mut World, node: Node) {
        let (State::Open(_), Some(wire)) = (self.state, self.wire) else { return };
        let Some(owed) = self.owed.take() else { return };
        // They come in no order.
        let mut users: Vec<_> = unpack_users(&owed).into_iter().flatten().collect();
        users.sort_unstable();
        let resync = PushRequest {
            incarnation: Bytes::copy_from_slice(self.lease.incarnation.as_bytes()),
            recipients: pack_users(users.iter()),
            purpose: Purpose::Resync.into(),
            ..PushRequest::default()
        };
        let id = self.add(resync, None, world.now);
        if let Some(awaited) = self.pending.get(&id) {
            world.send(wire, node, Packet::Push(awaited.request.clone()));
        }
    }

    /// Everything under way is lost, and owed.
    fn lose(&mut self) -> Vec<(Place, PushId)> {
        self.queued.clear();
        let mut lost = Vec::new();
        for awaited in std::mem::take(&mut self.pending).into_values() {
            match awaited.push {
                Some(push) => {
                    self.owed.add(&awaited.request.recipients);
                    lost.push(push);
                }
                None if awaited.request.purpose() == Purpose::Life => {}
                None => self.owed.put_back(&awaited.request.recipients),
            }
        }
        lost
    }
}

/// The number in a gateway's name.
pub(super) fn number_of(gateway: &GatewayId) -> usize {
    gateway.as_str().trim_start_matches("gw-").parse().unwrap_or_default()
}

impl Life {
    /// Opens what is to be open, and lets go of who is dead.
    pub(super) fn streams_on_time(&mut self, world: &mut World) {
        let (alive, now) = (self.view.alive(), world.now);
        let dead: Vec<_> = self.streams.keys().filter(|there| !alive.contains_key(there)).copied().collect();
        for incarnation in dead {
            self.drop_stream(world, incarnation);
        }
        for lease in alive.into_values() {
            self.stream_to(lease, now);
        }
        for incarnation in self.streams.keys().copied().collect::<Vec<_>>() {
            self.stream_on_time(world, incarnation);
        }
    }

    fn stream_to(&mut self, lease: Lease, now: Instant) {
        let Self { streams, debts, .. } = self;
        let incarnation = lease.incarnation;
        streams.entry(incarnation).or_insert_with(|| Stream::new(lease, debts.take(incarnation, now), now));
    }

    fn stream_on_time(&mut self, world: &mut World, incarnation: IncarnationId) {
        let (now, node) = (world.now, self.node);
        let Some(stream) = self.streams.get_mut(&incarnation) else { return };
        match stream.state {
            State::Waiting(until) if now >= until => {
                stream.wire = Some(world.open(node, Node::Gateway(number_of(&stream.lease.gateway)), true));
                stream.state = State::Opening(now + OPENING);
            }
            State::Opening(until) if now >= until => {
                if let Some(wire) = stream.wire {
                    world.close(wire, node);
                }
                self.not_opened(world, incarnation, Loss::Unreachable);
            }
            State::Open(_) if stream.vouched && stream.pending.values().any(|awaited| awaited.due <= now) => {
                // They stay pending: a gateway that was only stopped for a while still shows them.
                stream.vouched = false;
                self.view.unvouch(incarnation, now);
            }
            _ => {}
        }
    }

    fn drop_stream(&mut self, world: &mut World, incarnation: IncarnationId) {
        let Some(mut stream) = self.streams.remove(&incarnation) else { return };
        if let Some(wire) = stream.wire {
            world.close(wire, self.node);
        }
        let lost = stream.lose();
        self.debts.keep(incarnation, &stream.owed, world.now);
        self.lost(world, lost, Loss::Broken);
    }

    pub(super) fn tell_life(&mut self, world: &mut World) {
        for stream in self.streams.values_mut() {
            stream.tell_life(world, self.node, self.database_life);
        }
    }

    fn by_wire(&mut self, wire: WireId) -> Option<&mut Stream> {
        self.streams.values_mut().find(|stream| stream.wire == Some(wire))
    }

    pub(super) fn stream_opened(&mut self, world: &mut World, wire: WireId) {
        let (node, now, life) = (self.node, world.now, self.database_life);
        let Some(stream) = self.by_wire(wire) else { return };
        (stream.state, stream.failed, stream.vouched) = (State::Open(now), None, true);
        // First of all, so that nothing sent on this stream can be acked behind a hole, or for a log that is no more.
        stream.tell_life(world, node, life);
        stream.pay(world, node);
        for id in std::mem::take(&mut stream.queued) {
            if let Some(awaited) = stream.pending.get(&id) {
                world.send(wire, node, Packet::Push(awaited.request.clone()));
            }
        }
        let lease = stream.lease.clone();
        self.view.vouch(lease, now);
    }

    pub(super) fn stream_broke(&mut self, world: &mut World, wire: WireId, silent: bool) {
        let now = world.now;
        let Some(stream) = self.by_wire(wire) else { return };
        let incarnation = stream.lease.incarnation;
        let State::Open(since) = stream.state else {
            // Refused: whoever was there is gone, or goes.
            return self.not_opened(world, incarnation, Loss::Broken);
        };
        // Given up for its silence it may be well for others.
        let loss = if silent || !stream.vouched { Loss::Unreachable } else { Loss::Broken };
        (stream.wire, stream.vouched, stream.failed, stream.retry) = (None, false, None, FIRST_RETRY);
        // Most likely it can be opened again at once. One that breaks again and again must wait.
        let wait = if now >= since + LAST_RETRY { Duration::ZERO } else { FIRST_RETRY };
        stream.state = State::Waiting(now + wait);
        let lost = stream.lose();
        self.view.unvouch(incarnation, now);
        self.lost(world, lost, loss);
    }

    fn not_opened(&mut self, world: &mut World, incarnation: IncarnationId, loss: Loss) {
        let now = world.now;
        let Some(stream) = self.streams.get_mut(&incarnation) else { return };
        (stream.wire, stream.failed) = (None, Some(loss));
        stream.state = State::Waiting(now + stream.retry);
        stream.retry = (stream.retry * 2).min(LAST_RETRY);
        let lost = stream.lose();
        self.lost(world, lost, loss);
    }

    fn lost(&mut self, world: &mut World, lost: Vec<(Place, PushId)>, loss: Loss) {
        for (place, push) in lost {
            if let Some(fan) = self.fans.get_mut(&place) {
                fan.delivery.lost(push, loss);
                self.go_on(world, place);
            }
        }
    }

    /// Hands one push to its stream.
    pub(super) fn push(&mut self, world: &mut World, place: Place, push: &Push) {
        let (node, incarnation, now) = (self.node, push.gateway, world.now);
        if let Some(lease) = self.view.get(incarnation).cloned() {
            self.stream_to(lease, now);
            self.stream_on_time(world, incarnation);
        }
        let Some(fan) = self.fans.get_mut(&place) else { return };
        let request = request(&fan.message.entry, &fan.delivery.users(&push.users), push);
        let Some(stream) = self.streams.get_mut(&incarnation) else {
            return fan.delivery.lost(push.id, Loss::Broken);
        };
        if let Some(loss) = stream.failed {
            stream.owed.add(&request.recipients);
            return fan.delivery.lost(push.id, loss);
        }
        let id = stream.add(request, Some((place, push.id)), now);
        match (stream.state, stream.wire, stream.pending.get(&id)) {
            (State::Open(_), Some(wire), Some(awaited)) => {
                world.send(wire, node, Packet::Push(awaited.request.clone()));
            }
            _ => stream.queued.push(id),
        }
    }

    pub(super) fn push_answer(&mut self, world: &mut World, wire: WireId, answer: &PushAnswer) {
        let now = world.now;
        let Some(stream) = self.by_wire(wire) else { return };
        if !std::mem::replace(&mut stream.vouched, true) {
            let lease = stream.lease.clone();
            self.view.vouch(lease, now);
        }
        match &answer.answer {
            Some(Answer::Result(result)) => {
                let Some(stream) = self.by_wire(wire) else { return };
                let Some(awaited) = stream.pending.remove(&result.push_id) else { return };
                if let Some((place, push)) = awaited.push
                    && let Some(fan) = self.fans.get_mut(&place)
                {
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

fn request(entry: &Entry, users: &[UserId], push: &Push) -> PushRequest {
    let (purpose, wait) = match push.ask {
        Ask::Show => (Purpose::Show, TIMES.ack_wait),
        Ask::Acked => (Purpose::Ask, Duration::ZERO),
    };
    PushRequest {
        push_id: 0,
        incarnation: Bytes::copy_from_slice(push.gateway.as_bytes()),
        recipients: pack_users(users.iter()),
        ack_wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
        traceparent: String::new(),
        message: Some(message(entry)),
        purpose: purpose.into(),
        database_life: 0,
    }
}

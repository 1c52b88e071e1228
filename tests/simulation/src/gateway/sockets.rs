//! Sockets: frames go to the real [`Session`], its queue is written out, as the session's task does.

use super::{Admitting, Crash, Life, Purpose};
use crate::world::{
    Packet, World,
    wires::WireId,
};
use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use touchline_gateway::simulation::{
    Action, Close, CloseCode, Greeting, Member, Order, Queued, Received, Rules, Session, Taken, User,
};

/// How long a socket may say nothing before its hello, and take nothing after it.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// One socket.
pub(super) enum Socket {
    /// Nothing was said yet.
    Greeting { until: Instant },
    Admitting(Admitting),
    Live(Box<Live>),
}

/// A socket with a session.
pub(super) struct Live {
    pub(super) session: Session,
    pub(super) member: Arc<Member>,
    pub(super) user: Arc<User>,
    replies: VecDeque<Packet>,
    batch: VecDeque<Queued>,
    /// Since when nothing could be written.
    blocked: Option<Instant>,
}

impl Socket {
    pub(super) fn next_wake(&self, rules: &Rules) -> Option<Instant> {
        match self {
            Self::Greeting { until } => Some(*until),
            Self::Admitting(admitting) => Some(admitting.until),
            Self::Live(live) => {
                let session = live.session.next_wake(rules);
                Some(live.blocked.map_or(session, |since| session.min(since + WRITE_PATIENCE)))
            }
        }
    }
}

impl Live {
    pub(super) fn new(session: Session, member: Arc<Member>, user: Arc<User>, ready: Utf8Bytes) -> Self {
        let replies = VecDeque::from([Packet::Text(ready)]);
        Self { session, member, user, replies, batch: VecDeque::new(), blocked: None }
    }
}

impl Life {
    pub(super) fn greet(&mut self, world: &mut World, wire: WireId) {
        if !self.keeper.takes_sockets(world.now) {
            return world.close(wire, self.node);
        }
        self.sockets.insert(wire, Socket::Greeting { until: world.now + HELLO_PATIENCE });
    }

    pub(super) fn received(&mut self, world: &mut World, wire: WireId, packet: Packet) {
        let now = world.now;
        let text = match &packet {
            Packet::Text(text) => Some(text.clone()),
            Packet::Close(_) => return self.end(world, wire, None),
            _ => None,
        };
        let received = text.as_ref().map_or(Received::Control, |text| Received::Text(text));
        match self.sockets.get_mut(&wire) {
            Some(Socket::Greeting { .. }) => match Greeting::receive(received) {
                Ok(Some(hello)) => self.admit(world, wire, &hello),
                Ok(None) => {}
                Err((_, close)) => self.end(world, wire, Some(close)),
            },
            Some(Socket::Live(live)) => {
                let action = live.session.receive(&self.rules, received, now);
                self.carry_out(world, wire, action);
            }
            Some(Socket::Admitting(_)) | None => {}
        }
    }

    pub(super) fn carry_out(&mut self, world: &mut World, wire: WireId, action: Action) {
        let Some(Socket::Live(live)) = self.sockets.get_mut(&wire) else { return };
        match action {
            Action::Wait => {}
            Action::Reply(text) => live.replies.push_back(Packet::Text(text)),
            Action::Ping if live.blocked.is_some() => {}
            Action::Ping => live.replies.push_back(Packet::Ping),
            Action::Ack(cursors) => {
                if self.crash == Some(Crash::BeforeAck) {
                    self.crashed = true;
                    return;
                }
                live.user.ack(&cursors);
                let user = live.member.registration.user;
                for (channel, seq) in cursors {
                    let held = self.acks.entry((user, channel)).or_insert(seq);
                    *held = (*held).max(seq);
                }
            }
            Action::Renew(hello) => self.renew(world, wire, &hello),
            Action::Close(_, close) => self.end(world, wire, Some(close)),
            Action::Abandon => self.abandon(world, wire),
        }
    }

    pub(super) fn sockets_on_time(&mut self, world: &mut World) {
        let now = world.now;
        let due = self.sockets.iter().filter(|(_, socket)| socket.next_wake(&self.rules).is_some_and(|at| at <= now));
        for wire in due.map(|(wire, _)| *wire).collect::<Vec<_>>() {
            match self.sockets.get_mut(&wire) {
                Some(Socket::Live(live)) => {
                    if live.blocked.is_some_and(|since| now >= since + WRITE_PATIENCE) {
                        self.end(world, wire, Some(Close::new(CloseCode::Slow, "you do not read")));
                        continue;
                    }
                    let action = live.session.on_time(&self.rules, now);
                    self.carry_out(world, wire, action);
                }
                Some(Socket::Greeting { .. } | Socket::Admitting(_)) => {
                    self.end(world, wire, Some(Close::new(CloseCode::Overloaded, "too long")));
                }
                None => {}
            }
        }
    }

    /// Writes what waits in every queue, for as long as there is room.
    pub(super) fn pump(&mut self, world: &mut World) {
        for wire in self.sockets.keys().copied().collect::<Vec<_>>() {
            while let Some(order) = self.pump_one(world, wire) {
                let Some(Socket::Live(live)) = self.sockets.get_mut(&wire) else { break };
                match order {
                    Order::Close(close) => self.end(world, wire, Some(close)),
                    Order::Leave(after) => {
                        let action = live.session.leave(&self.rules, after, world.now);
                        self.carry_out(world, wire, action);
                    }
                    Order::Ready => {
                        let ready = live.session.ready(&self.rules, world.now);
                        live.replies.push_back(Packet::Text(ready));
                    }
                }
            }
        }
    }

    /// Writes until there is nothing left or no room; Some: an order.
    fn pump_one(&mut self, world: &mut World, wire: WireId) -> Option<Order> {
        let Some(Socket::Live(live)) = self.sockets.get_mut(&wire) else { return None };
        loop {
            let mut written = true;
            while !(live.replies.is_empty() && live.batch.is_empty()) {
                if !world.has_room(wire, self.node) {
                    written = false;
                    live.blocked.get_or_insert(world.now);
                    break;
                }
                live.blocked = None;
                let packet = match live.replies.pop_front() {
                    Some(reply) => reply,
                    None => {
                        let queued = live.batch.pop_front()?;
                        live.session.sent();
                        Packet::Text(queued.text)
                    }
                };
                world.send(wire, self.node, packet);
            }
            match live.member.queue.poll(&mut Context::from_waker(Waker::noop()), written) {
                Poll::Ready(Taken::Frames(frames)) => live.batch = frames,
                Poll::Ready(Taken::Order(order)) => return Some(order),
                Poll::Pending => return None,
            }
        }
    }

    /// Ends a socket with a close frame, if there is one, and its session with it.
    pub(super) fn end(&mut self, world: &mut World, wire: WireId, close: Option<Close>) {
        if let Some(close) = close {
            let code = close.code.rule().code;
            world.note(self.node, || format!("closes {wire:?}: {code} {}", close.detail));
            world.record.closed(code);
            world.send(wire, self.node, Packet::Close(code));
        }
        self.abandon(world, wire);
    }

    fn abandon(&mut self, world: &mut World, wire: WireId) {
        world.close(wire, self.node);
        self.socket_gone(world, wire);
    }

    /// The session goes, its route after it.
    pub(super) fn socket_gone(&mut self, world: &mut World, wire: WireId) {
        match self.sockets.remove(&wire) {
            Some(Socket::Live(live)) => self.leave(world, &live.user, &live.member),
            Some(Socket::Admitting(Admitting { joined: Some((member, user, _)), .. })) => {
                self.leave(world, &user, &member);
            }
            _ => {}
        }
    }

    fn leave(&mut self, world: &mut World, user: &Arc<User>, member: &Arc<Member>) {
        self.hub.leave(user, member);
        self.forget(world, member.registration.clone());
    }

    pub(super) fn ask_for(&mut self, world: &mut World, wire: WireId, question: crate::registry::Question) {
        self.ask(world, question, Purpose::Admit(wire));
    }
}

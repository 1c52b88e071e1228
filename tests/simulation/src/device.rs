//! One device: the real client rules between modelled sockets and REST calls.

use crate::{
    database,
    world::{
        Input, Node, Order, Packet, World,
        calls::{self, CallId, Failure, Outcome, Question, Reply, Rest, RestAnswer},
        wires::WireId,
    },
};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use touchline_client::{
    Backoff, ClientError, Closed, Connect, Cursor, Event, Frame, GatewayAddress, Message, Refusal, Synced,
    SyncedChannel,
    rules::{Action, Options, Ready, Rules, Sabotage},
};
use touchline_ids::{ConnectionNumber, UserId};
use touchline_storage::Entry;

/// How long a REST call may take; the rules have a limit of their own.
pub(crate) const REST_PATIENCE: Duration = Duration::from_secs(12);

pub(crate) struct Device {
    node: Node,
    number: usize,
    pub(crate) user: UserId,
    pub(crate) sabotage: Sabotage,
    /// What outlives the process.
    connection: ConnectionNumber,
    cursors: Vec<Cursor>,
    life: Option<Life>,
}

struct Life {
    rules: Rules,
    sockets: BTreeMap<ConnectionNumber, Socket>,
    calls: BTreeMap<CallId, Purpose>,
}

struct Socket {
    wire: WireId,
    ticket: String,
    ready: bool,
    /// The close frame that came.
    close: Option<u16>,
}

enum Purpose {
    Ticket(u64),
    Sync(u64),
}

impl Device {
    pub(crate) fn new(number: usize, user: UserId, sabotage: Sabotage) -> Self {
        let node = Node::Device(number);
        Self { node, number, user, sabotage, connection: ConnectionNumber(0), cursors: Vec::new(), life: None }
    }

    pub(crate) fn input(&mut self, world: &mut World, input: Input) {
        if let Input::Started = input {
            self.begin(world);
        }
        let (node, now) = (self.node, world.now);
        let Some(life) = &mut self.life else { return };
        match input {
            Input::Answer(call, outcome) => life.answer(call, outcome, now),
            Input::Opened(wire) => life.say_hello(world, node, self.number, wire),
            Input::Received(wire, packet) => life.received(world, node, wire, packet),
            Input::Broken(wire) | Input::Silent(wire) => life.broken(wire, now),
            Input::Order(Order::Reading(reading)) => {
                life.rules.set_reading(reading, now);
                life.sockets.values().for_each(|socket| world.set_reading(socket.wire, node, reading));
            }
            Input::Order(Order::Cut) => life.rules.cut(now),
            Input::Order(Order::Roam(linger)) => {
                for socket in life.sockets.values() {
                    world.leave_hanging(socket.wire, node, linger);
                }
                life.rules.cut(now);
            }
            _ => {}
        }
        life.rules.on_time(now);
        self.act(world);
    }

    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.life.as_ref().and_then(|life| life.rules.next_wake())
    }

    pub(crate) fn ended(&mut self) {
        self.life = None;
    }

    /// Whether its process runs.
    pub(crate) fn runs(&self) -> bool {
        self.life.is_some()
    }

    /// Whether a socket is ready.
    pub(crate) fn is_online(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.rules.is_online())
    }

    fn begin(&mut self, world: &mut World) {
        let options = Options {
            connection: self.connection,
            cursors: self.cursors.clone(),
            recent: 50,
            ack: true,
            raw: false,
            renewable: false,
            patience: Duration::from_secs(10),
            sabotage: self.sabotage,
        };
        let rng = SmallRng::seed_from_u64(world.chance.random());
        let rules = Rules::new(options, rng, world.now);
        self.life = Some(Life { rules, sockets: BTreeMap::new(), calls: BTreeMap::new() });
    }

    fn act(&mut self, world: &mut World) {
        let node = self.node;
        while let Some(life) = &mut self.life
            && let Some(action) = life.rules.next_action()
        {
            match action {
                Action::Tell(event) => self.tell(world, event),
                Action::AskTicket { call } => {
                    let rest = Rest::Connect { user: self.user, device: self.number };
                    let asked = ask_api(world, node, rest);
                    life.calls.insert(asked, Purpose::Ticket(call));
                }
                Action::Sync { call, cursors, recent } => {
                    let cursors = cursors.iter().map(cursor).collect();
                    let rest = Rest::Sync { user: self.user, cursors, recent: i64::from(recent) };
                    let asked = ask_api(world, node, rest);
                    life.calls.insert(asked, Purpose::Sync(call));
                }
                Action::Open { connection, gateway, ticket } => {
                    let wire = world.open(node, Node::Gateway(gateway.parse().unwrap_or_default()), false);
                    life.sockets.insert(connection, Socket { wire, ticket: ticket.0, ready: false, close: None });
                }
                Action::Ack { connection, cursors } => {
                    let cursors: Vec<_> = cursors.iter().map(|(id, seq)| format!(r#""{id}":{seq}"#)).collect();
                    let text = format!(r#"{{"type":"ack","cursors":{{{}}}}}"#, cursors.join(","));
                    life.send(world, node, connection, text);
                }
                Action::Ping { connection } => {
                    life.send(world, node, connection, r#"{"type":"ping"}"#.to_owned());
                }
                Action::Renew { connection, ticket } => {
                    let text = hello(&ticket.0, self.number, connection);
                    life.send(world, node, connection, text);
                }
                Action::Close { connection } => {
                    if let Some(socket) = life.sockets.remove(&connection) {
                        world.send(socket.wire, node, Packet::Close(1000));
                        world.close(socket.wire, node);
                    }
                }
                Action::Drop { connection } => {
                    if let Some(socket) = life.sockets.remove(&connection) {
                        world.close(socket.wire, node);
                    }
                }
                Action::RenewToken { .. } => {}
            }
        }
        if let Some(life) = &self.life {
            (self.connection, self.cursors) = (life.rules.connection(), life.rules.cursors());
        }
    }

    fn tell(&mut self, world: &mut World, event: Event) {
        let now = world.now;
        world.note(self.node, || brief(&event));
        let record = &mut world.record;
        match event {
            Event::Message(message) => {
                record.shown(self.number, message.channel_id, message.seq, message.message_id, now);
            }
            Event::Reset { channel_id, .. } | Event::Gone(channel_id) => record.forgot(self.number, channel_id),
            Event::CaughtUp { .. } => record.caught_up(self.number, now),
            Event::Offline { .. } => record.offline(self.number, now),
            Event::Ended(why) => record.violation(format!("device {} ended: {why}", self.number)),
            _ => {}
        }
    }
}

/// An event without a message's content.
fn brief(event: &Event) -> String {
    match event {
        Event::Message(message) => format!("shows {} {}", message.channel_id, message.seq),
        Event::Online { gateway, moved, .. } => format!("is online at {gateway}, moved: {moved}"),
        other => format!("{other:?}"),
    }
}

impl Life {
    fn answer(&mut self, call: CallId, outcome: Outcome, now: Instant) {
        let answer = match outcome {
            Ok(Reply::Api(answer)) => Ok(answer),
            Ok(_) => return,
            Err(failure) => Err(failure),
        };
        match self.calls.remove(&call) {
            Some(Purpose::Ticket(call)) => {
                let result = match answer {
                    Ok(RestAnswer::Connect { gateways, ticket }) => Ok(connect(&gateways, &ticket)),
                    other => Err(error(&other)),
                };
                self.rules.ticket(call, result, now);
            }
            Some(Purpose::Sync(call)) => {
                let result = match answer {
                    Ok(RestAnswer::Synced(found)) => Ok(synced(found)),
                    other => Err(error(&other)),
                };
                self.rules.synced(call, result, now);
            }
            None => {}
        }
    }

    fn by_wire(&mut self, wire: WireId) -> Option<(ConnectionNumber, &mut Socket)> {
        let socket = self.sockets.iter_mut().find(|(_, socket)| socket.wire == wire)?;
        Some((*socket.0, socket.1))
    }

    fn say_hello(&mut self, world: &mut World, node: Node, device: usize, wire: WireId) {
        let Some((connection, socket)) = self.by_wire(wire) else { return };
        let text = hello(&socket.ticket, device, connection);
        world.send(wire, node, Packet::Text(text.into()));
    }

    fn received(&mut self, world: &mut World, node: Node, wire: WireId, packet: Packet) {
        let Some((connection, socket)) = self.by_wire(wire) else { return };
        match packet {
            Packet::Text(text) => match Frame::parse(&text) {
                Frame::Ready { session_id, heartbeat_s, expires_in_s } if !socket.ready => {
                    socket.ready = true;
                    let (heartbeat, expires_in) = (Duration::from_secs(heartbeat_s), Duration::from_secs(expires_in_s));
                    let ready = Ready { session: session_id, heartbeat, expires_in };
                    self.rules.opened(connection, ready, world.now);
                }
                frame => self.rules.frame_in(connection, frame, world.now),
            },
            Packet::Ping => world.send(wire, node, Packet::Pong),
            Packet::Close(code) => socket.close = Some(code),
            _ => {}
        }
    }

    fn broken(&mut self, wire: WireId, now: Instant) {
        let Some((connection, socket)) = self.by_wire(wire) else { return };
        let (ready, close) = (socket.ready, socket.close);
        self.sockets.remove(&connection);
        let closed = Closed { code: close.unwrap_or(1006), reason: String::new() };
        match (ready, close) {
            (true, _) => self.rules.closed(connection, closed, now),
            (false, Some(_)) => self.rules.not_opened(connection, ClientError::NotReady(closed), now),
            (false, None) => self.rules.not_opened(connection, ClientError::TooSlow, now),
        }
    }

    fn send(&self, world: &mut World, node: Node, connection: ConnectionNumber, text: String) {
        if let Some(socket) = self.sockets.get(&connection) {
            world.send(socket.wire, node, Packet::Text(text.into()));
        }
    }
}

fn hello(ticket: &str, device: usize, connection: ConnectionNumber) -> String {
    let device = calls::device_id(device);
    format!(r#"{{"type":"hello","ticket":"{ticket}","device_id":"{}","connection":{connection}}}"#, device.as_str())
}

/// Asks one of the apis, by a load balancer that mostly knows which ones are there.
fn ask_api(world: &mut World, node: Node, rest: Rest) -> CallId {
    let api = world.some_api();
    world.ask(node, api, Question::Api(rest), REST_PATIENCE)
}

fn error(answer: &Result<RestAnswer, Failure>) -> ClientError {
    match answer {
        Ok(RestAnswer::Unavailable) | Err(Failure::Refused) => ClientError::Refused(Refusal {
            status: 503,
            code: "unavailable".into(),
            detail: String::new(),
            retry_after: Some(Duration::from_secs(1)),
        }),
        _ => ClientError::TooSlow,
    }
}

fn connect(gateways: &[usize], ticket: &calls::Ticket) -> Connect {
    Connect {
        gateways: gateways.iter().map(|number| GatewayAddress { url: number.to_string() }).collect(),
        ticket: ticket.text(),
        expires_in_s: 30,
        heartbeat_s: 25,
        backoff: Backoff { base_ms: 500, cap_ms: 30_000 },
    }
}

fn cursor(cursor: &Cursor) -> database::Cursor {
    database::Cursor { channel: cursor.channel_id, seq: cursor.seq, check: cursor.check }
}

fn synced(found: database::Synced) -> Synced {
    let channel = |channel: database::SyncedChannel| SyncedChannel {
        channel_id: channel.channel,
        head_seq: channel.head,
        messages: channel.entries.iter().map(message).collect(),
        more: channel.more,
        reset: channel.reset,
    };
    Synced { channels: found.channels.into_iter().map(channel).collect(), gone: found.gone }
}

fn message(entry: &Entry) -> Message {
    Message {
        channel_id: entry.channel_id,
        seq: entry.seq,
        message_id: entry.message_id,
        sender_id: entry.sender_id,
        kind: entry.kind.as_str().to_owned(),
        content: serde_json::Value::Null,
        created_at: String::new(),
        check: entry.message_id.check(),
        prev: entry.prev,
    }
}

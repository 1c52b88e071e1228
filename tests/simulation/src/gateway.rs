//! One gateway: the real sessions, hub, queues, way in, registrar and waits for acks, between modelled sockets, push
//! streams and a modelled registry.

mod greeting;
mod lease;
mod registry_side;
mod sockets;

use crate::world::{
    Input, Node, Packet, World,
    calls::{CallId, Outcome, Reply},
    wires::WireId,
};
use greeting::Greeting;
use lease::Keeper;
use registry_side::Asked;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};
use tokio::time::Instant;
use touchline_gateway::simulation::{self as real, Broken, Output};
use touchline_ids::IncarnationId;
use touchline_proto::push::PushRequest;

/// Frames that may wait for a socket: few, so that a small world can be too much for one.
const QUEUE: usize = 16;

/// Where a gateway may be made to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    BeforeAck,
    MidReregister,
}

pub(crate) struct Gateway {
    node: Node,
    number: usize,
    broken: Broken,
    /// Dies there, next time.
    pub(crate) crash: Option<Crash>,
    life: Option<Life>,
}

/// One life of it: an incarnation.
pub(super) struct Life {
    node: Node,
    number: usize,
    incarnation: IncarnationId,
    rules: real::Gateway,
    keeper: Keeper,
    /// Sockets without a session.
    greetings: BTreeMap<WireId, Greeting>,
    sockets: BTreeSet<WireId>,
    /// Since when nothing could be written to a socket.
    blocked: BTreeMap<WireId, Instant>,
    streams: BTreeSet<WireId>,
    /// Pushes that wait until this gateway knows what became of its lease.
    held: VecDeque<(WireId, PushRequest)>,
    calls: BTreeMap<CallId, Asked>,
    crash: Option<Crash>,
    crashed: bool,
    over: bool,
}

impl Gateway {
    pub(crate) fn new(number: usize, broken: Broken) -> Self {
        Self { node: Node::Gateway(number), number, broken, crash: None, life: None }
    }

    /// Whether it is on its way out.
    pub(crate) fn is_stopping(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.keeper.is_draining())
    }

    pub(crate) fn input(&mut self, world: &mut World, input: Input) {
        if let Input::Started = input {
            self.life = Some(Life::new(self.node, self.number, self.broken, world));
        }
        let Some(life) = &mut self.life else { return };
        life.crash = self.crash;
        life.input(world, input);
        if life.crashed {
            (self.crash, self.life) = (None, None);
            world.kill(self.node, false);
        } else if life.over {
            self.life = None;
            world.exit(self.node);
        }
    }

    pub(crate) fn next_wake(&self, world: &World) -> Option<Instant> {
        self.life.as_ref().map(|life| life.next_wake(world))
    }

    pub(crate) fn ended(&mut self) {
        self.life = None;
    }
}

impl Life {
    fn new(node: Node, number: usize, broken: Broken, world: &mut World) -> Self {
        let incarnation = world.names.incarnation();
        world.note(node, || format!("is {incarnation}"));
        let running = world.running(node);
        Self {
            node,
            number,
            incarnation,
            rules: real::Gateway::new(incarnation, QUEUE, broken, running),
            keeper: Keeper::new(world.now),
            greetings: BTreeMap::new(),
            sockets: BTreeSet::new(),
            blocked: BTreeMap::new(),
            streams: BTreeSet::new(),
            held: VecDeque::new(),
            calls: BTreeMap::new(),
            crash: None,
            crashed: false,
            over: false,
        }
    }

    fn input(&mut self, world: &mut World, input: Input) {
        match input {
            Input::Stop => self.drain(world, false),
            Input::Answer(call, outcome) => self.answer(world, call, outcome),
            Input::Accepted(wire) => self.accepted(world, wire),
            Input::Received(wire, Packet::Push(push)) => self.push(world, wire, push),
            Input::Received(wire, packet) => self.received(world, wire, packet),
            Input::Broken(wire) | Input::Silent(wire) => self.broken(world, wire),
            Input::Room(wire) => self.writable(world, wire),
            _ => {}
        }
        self.lease_on_time(world);
        self.greetings_on_time(world);
        self.blocked_on_time(world);
        self.carry_out(world);
    }

    fn accepted(&mut self, world: &mut World, wire: WireId) {
        match world.other_end(wire, self.node) {
            Some(Node::Api(_)) => {
                self.streams.insert(wire);
                self.rules.stream_opened(u64::from(wire.0));
                // The head of the answer.
                world.send(wire, self.node, Packet::Pong);
            }
            Some(Node::Device(_)) => self.greet(world, wire),
            _ => world.close(wire, self.node),
        }
    }

    fn broken(&mut self, world: &mut World, wire: WireId) {
        if self.streams.remove(&wire) {
            self.rules.stream_broke(u64::from(wire.0), world.running(self.node));
        }
        self.greetings.remove(&wire);
        self.socket_gone(world, wire);
    }

    fn answer(&mut self, world: &mut World, call: CallId, outcome: Outcome) {
        let Some(asked) = self.calls.remove(&call) else { return };
        let answer = match outcome {
            Ok(Reply::Registry(answer)) => Some(answer),
            _ => None,
        };
        self.registry_answers(world, asked, answer);
    }

    /// A message is shown only by a gateway that knows what became of its lease.
    fn push(&mut self, world: &mut World, wire: WireId, push: PushRequest) {
        if self.keeper.is_in_the_dark(world.now) || !self.held.is_empty() {
            self.held.push_back((wire, push));
        } else {
            self.rules.request(u64::from(wire.0), &push, world.running(self.node));
        }
    }

    /// Whatever the rules want done.
    fn carry_out(&mut self, world: &mut World) {
        while !self.keeper.is_in_the_dark(world.now)
            && let Some((wire, push)) = self.held.pop_front()
        {
            self.rules.request(u64::from(wire.0), &push, world.running(self.node));
        }
        while !self.crashed
            && let Some(output) = self.rules.next(world.running(self.node))
        {
            match output {
                Output::Text(socket, text) => self.write(world, socket, Packet::Text(text.into())),
                Output::Ping(socket) => self.write(world, socket, Packet::Ping),
                Output::Closed(socket, code) => self.closed(world, socket, code),
                Output::Answer(stream, answer) => {
                    world.send(wire_of(stream), self.node, Packet::PushAnswer(answer));
                }
                Output::Ask(question, ask) => self.ask_for(world, question, ask),
            }
        }
    }

    fn next_wake(&self, world: &World) -> Instant {
        let rules = self.rules.wake().map(|at| world.real(self.node, at));
        let greetings = self.greetings.values().map(|greeting| greeting.until());
        let blocked = self.blocked.values().map(|since| *since + sockets::WRITE_PATIENCE);
        let blocked = blocked.map(|at| world.real(self.node, at));
        greetings.chain(blocked).chain(rules).fold(self.keeper.next_wake(), Instant::min)
    }
}

/// Sockets and streams have the names of their wires.
fn wire_of(name: u64) -> WireId {
    WireId(u32::try_from(name).unwrap_or(u32::MAX))
}

/// How long a gateway waits for what ought to take no time.
const PATIENCE: Duration = Duration::from_secs(5);

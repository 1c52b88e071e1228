//! One gateway: the real sessions, hub, queues and registrar, between modelled sockets, push streams and registry.

mod admission;
mod lease;
mod pushes;
mod routes;
mod sockets;

use crate::{
    registry,
    world::{
        Input, Node, Packet, World,
        calls::{CallId, Outcome, Question, Reply},
        wires::WireId,
    },
};
use admission::Admitting;
use lease::Keeper;
use pushes::PushStream;
use routes::Routes;
use sockets::Socket;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use touchline_gateway::simulation::{Bounds, Hub, HubLimits, Rules};
use touchline_ids::{ChannelId, IncarnationId, Seq, UserId};

/// How long the registry may take.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(2);

/// Where a gateway may be made to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    BeforeAck,
    MidReregister,
}

/// Ways to break the rules on purpose.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sabotage {
    /// A client is told "ready" before its route is visible.
    pub(crate) ready_before_register: bool,
    /// Lost routes stay lost.
    pub(crate) no_re_registration: bool,
}

pub(crate) struct Gateway {
    node: Node,
    number: usize,
    sabotage: Sabotage,
    /// Dies there, next time.
    pub(crate) crash: Option<Crash>,
    life: Option<Life>,
}

/// One life of it: an incarnation.
pub(super) struct Life {
    node: Node,
    number: usize,
    incarnation: IncarnationId,
    sabotage: Sabotage,
    hub: Hub,
    rules: Rules,
    sockets: BTreeMap<WireId, Socket>,
    streams: BTreeMap<WireId, PushStream>,
    keeper: Keeper,
    routes: Routes,
    /// What devices acked lately and no api was told.
    acks: BTreeMap<(UserId, ChannelId), Seq>,
    flush_at: Instant,
    calls: BTreeMap<CallId, Purpose>,
    crash: Option<Crash>,
    crashed: bool,
    over: bool,
}

/// What an answer of the registry is for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    Lease,
    Admit(WireId),
    Renew(WireId),
    Restore(u64),
    Forget,
    Release,
}

impl Gateway {
    pub(crate) fn new(number: usize, sabotage: Sabotage) -> Self {
        Self { node: Node::Gateway(number), number, sabotage, crash: None, life: None }
    }

    /// Whether it is on its way out.
    pub(crate) fn is_stopping(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.keeper.is_draining())
    }

    pub(crate) fn input(&mut self, world: &mut World, input: Input) {
        if let Input::Started = input {
            self.life = Some(Life::new(self.node, self.number, self.sabotage, world));
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

    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.life.as_ref().map(Life::next_wake)
    }

    pub(crate) fn ended(&mut self) {
        self.life = None;
    }
}

impl Life {
    fn new(node: Node, number: usize, sabotage: Sabotage, world: &mut World) -> Self {
        let now = world.now;
        let incarnation = world.names.incarnation();
        world.note(node, || format!("is {incarnation}"));
        Self {
            node,
            number,
            incarnation,
            sabotage,
            hub: Hub::new(HubLimits { capacity: 100, sessions_per_user: 4, queue: Bounds { frames: 16, bytes: 64 * 1024 } }),
            rules: Rules {
                heartbeat: Duration::from_secs(25),
                dead_after: Duration::from_secs(60),
                frames_per_second: 20,
                frame_burst: 100,
                bad_frames: 10,
                leave_grace: Duration::from_secs(2),
            },
            sockets: BTreeMap::new(),
            streams: BTreeMap::new(),
            keeper: Keeper::new(now),
            routes: Routes::default(),
            acks: BTreeMap::new(),
            flush_at: now + pushes::FLUSH,
            calls: BTreeMap::new(),
            crash: None,
            crashed: false,
            over: false,
        }
    }

    fn input(&mut self, world: &mut World, input: Input) {
        match input {
            Input::Stop => self.drain(world),
            Input::Answer(call, outcome) => self.answer(world, call, outcome),
            Input::Accepted(wire) => self.accepted(world, wire),
            Input::Received(wire, Packet::Push(push)) => self.push(world, wire, &push),
            Input::Received(wire, packet) => self.received(world, wire, packet),
            Input::Broken(wire) => self.broken(world, wire),
            _ => {}
        }
        self.on_time(world);
        self.pump(world);
    }

    fn accepted(&mut self, world: &mut World, wire: WireId) {
        match world.other_end(wire, self.node) {
            Some(Node::Api(_)) => drop(self.streams.insert(wire, PushStream::default())),
            Some(Node::Device(_)) => self.greet(world, wire),
            _ => world.close(wire, self.node),
        }
    }

    fn broken(&mut self, world: &mut World, wire: WireId) {
        if self.streams.remove(&wire).is_none() {
            self.socket_gone(world, wire);
        }
    }

    fn ask(&mut self, world: &mut World, question: registry::Question, purpose: Purpose) {
        let call = world.ask(self.node, Node::Registry, Question::Registry(question), REGISTRY_PATIENCE);
        self.calls.insert(call, purpose);
    }

    fn answer(&mut self, world: &mut World, call: CallId, outcome: Outcome) {
        let Some(purpose) = self.calls.remove(&call) else { return };
        let answer = match outcome {
            Ok(Reply::Registry(answer)) => Some(answer),
            _ => None,
        };
        match purpose {
            Purpose::Lease => self.lease_renewed(world, answer),
            Purpose::Admit(wire) => self.admission_goes_on(world, wire, answer),
            Purpose::Renew(wire) => self.session_renewed(world, wire, answer),
            Purpose::Restore(batch) => self.restored(world, batch, answer),
            Purpose::Release => self.over = true,
            Purpose::Forget => {}
        }
    }

    fn on_time(&mut self, world: &mut World) {
        self.lease_on_time(world);
        self.sockets_on_time(world);
        self.pushes_on_time(world);
        self.routes_on_time(world);
    }

    fn next_wake(&self) -> Instant {
        let sockets = self.sockets.values().filter_map(|socket| socket.next_wake(&self.rules));
        let streams = self.streams.values().filter_map(PushStream::next_check);
        let rest = [self.keeper.next_wake(), self.routes.next_wake()].into_iter().flatten();
        sockets.chain(streams).chain(rest).fold(self.flush_at, Instant::min)
    }

    fn admitting(&mut self, wire: WireId) -> Option<&mut Admitting> {
        match self.sockets.get_mut(&wire)? {
            Socket::Admitting(admitting) => Some(admitting),
            _ => None,
        }
    }
}

//! Everything around the processes: time, chance, wires, calls, the database and the registry. Processes get inputs
//! from it and act on it; it never looks into them.

pub(crate) mod calls;
mod carry;
mod links;
pub(crate) mod network;
mod schedule;
pub(crate) mod wires;

use crate::{database::Database, names::Names, record::Record, registry::Registry};
use calls::{Call, CallId, Outcome, Rest};
use network::Network;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use schedule::Schedule;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use touchline_ids::{ChannelId, UserId};
use touchline_proto::{
    convert::unpack_users,
    push::{PushAnswer, PushRequest, PushResult, push_answer::Answer},
};
use wires::{Wire, WireId};

/// Somebody in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Node {
    Api(usize),
    Gateway(usize),
    Device(usize),
    /// A person's way to send: an application beside the devices.
    Sender(usize),
    Database,
    Registry,
}

/// What happens to a process.
#[derive(Debug)]
pub(crate) enum Input {
    /// It begins a life.
    Started,
    /// It stops softly.
    Stop,
    /// The time it asked for has come.
    Time,
    /// The answer to a question, or why there is none.
    Answer(CallId, Outcome),
    /// Somebody asks.
    Asked(CallId, Rest),
    /// The wire it opened stands.
    Opened(WireId),
    /// Somebody opened a wire to it.
    Accepted(WireId),
    /// Something came.
    Received(WireId, Packet),
    /// A wire that was full has room again.
    Room(WireId),
    /// A wire ended, or never stood.
    Broken(WireId),
    /// A wire was given up: the other end showed no sign of life.
    Silent(WireId),
    /// Something its owner does to it.
    Order(Order),
}

/// What an owner does to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Read, or leave everything in the socket.
    Reading(bool),
    /// Drop the connection and open another one.
    Cut,
    /// A new address: the far ends of old sockets learn of it so much later.
    Roam(Duration),
}

/// What travels on wires.
#[derive(Debug, Clone)]
pub(crate) enum Packet {
    Push(PushRequest),
    PushAnswer(PushAnswer),
    /// A text frame of the socket.
    Text(Utf8Bytes),
    /// WebSocket ping and pong.
    Ping,
    Pong,
    /// A close frame.
    Close(u16),
}

impl Packet {
    /// For the trace: without what is always the same.
    fn brief(&self) -> String {
        match self {
            Self::Push(push) => {
                let users = unpack_users(&push.recipients).into_iter().flatten().map(short);
                let users: Vec<_> = users.collect();
                let message = push.message.as_ref();
                let channel = message.and_then(|message| ChannelId::from_slice(&message.channel_id).ok());
                let place = channel.map(|channel| (channel, message.map(|message| message.seq)));
                format!("push {} purpose {} {place:?} for {users:?}", push.push_id, push.purpose)
            }
            Self::PushAnswer(PushAnswer { answer: Some(Answer::Result(result)) }) => {
                let users = |packed: &[u8]| unpack_users(packed).into_iter().flatten().map(short).collect::<Vec<_>>();
                let PushResult { push_id, gone, slow, unacked, stale_incarnation: stale } = result;
                let (gone, slow, unacked) = (users(gone), users(slow), users(unacked));
                format!("result {push_id}: gone {gone:?} slow {slow:?} unacked {unacked:?} stale {stale}")
            }
            Self::PushAnswer(_) => "acks".to_owned(),
            Self::Text(text) if text.contains(r#""message""#) => {
                let frame: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
                format!("message {} {} ({})", frame["channel_id"], frame["seq"], frame["check"])
            }
            Self::Text(text) if text.contains(r#""ready""#) => "ready".to_owned(),
            Self::Text(text) => text.to_string(),
            other => format!("{other:?}"),
        }
    }
}

/// The number in an id.
fn short(user: UserId) -> u64 {
    user.0.as_u64_pair().1
}

/// What the schedule holds.
#[derive(Debug)]
enum Event {
    Deliver { node: Node, life: u32, input: Input },
    Wake { node: Node, life: u32 },
    Arrive { wire: WireId, side: usize },
    Keepalive { wire: WireId, side: usize },
    Ask(CallId),
    GiveUp(CallId),
    Answered(CallId, Outcome),
    Fault(usize),
}

/// Whether a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Down,
    Up,
    /// Stopped by a signal; its kernel goes on.
    Paused,
}

struct Process {
    life: u32,
    state: State,
    /// What came while it was paused.
    backlog: VecDeque<Input>,
    /// When it wants to be woken.
    wake: Option<Instant>,
    paused_at: Instant,
    /// For how long it did not run in this life, but for a second each time: a process counts no more than that
    /// between two beats of its pulse.
    missed: Duration,
}

impl Process {
    fn new(life: u32, now: Instant) -> Self {
        let backlog = VecDeque::new();
        Self { life, state: State::Up, backlog, wake: None, paused_at: now, missed: Duration::ZERO }
    }
}

/// What may be wrong with a store.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trouble {
    pub(crate) away: bool,
    /// Every answer takes so much longer.
    pub(crate) slower: Duration,
    /// One in so many answers is lost after the deed; 0 for none.
    pub(crate) loses_one_in: u32,
}

/// What the simulation has to do next.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are inputs")]
pub(crate) enum Next {
    /// Give this to that process.
    Run(Node, Input),
    /// Let a fault begin or end.
    Fault(usize),
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) began: Instant,
    pub(crate) chance: SmallRng,
    pub(crate) names: Names,
    pub(crate) network: Network,
    pub(crate) database: Database,
    pub(crate) registry: Registry,
    pub(crate) database_trouble: Trouble,
    pub(crate) registry_trouble: Trouble,
    pub(crate) record: Record,
    schedule: Schedule<Event>,
    processes: BTreeMap<Node, Process>,
    wires: BTreeMap<WireId, Wire>,
    calls: BTreeMap<CallId, Call>,
    last_wire: u32,
    last_call: u64,
}

impl World {
    pub(crate) fn new(seed: u64, began: Instant, record: Record) -> Self {
        Self {
            now: began,
            began,
            chance: SmallRng::seed_from_u64(seed),
            names: Names::default(),
            network: Network::default(),
            database: Database::default(),
            registry: Registry::default(),
            database_trouble: Trouble::default(),
            registry_trouble: Trouble::default(),
            record,
            schedule: Schedule::new(),
            processes: BTreeMap::new(),
            wires: BTreeMap::new(),
            calls: BTreeMap::new(),
            last_wire: 0,
            last_call: 0,
        }
    }

    /// A time between two.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        Duration::from_micros(self.chance.random_range(least.as_micros() as u64..=most.as_micros() as u64))
    }

    /// Writes a line of the trace, when there is one.
    pub(crate) fn note(&mut self, who: Node, what: impl FnOnce() -> String) {
        let now = self.now.duration_since(self.began);
        self.record.note(now, who, what);
    }

    /// Lets a fault begin or end at that time.
    pub(crate) fn plan_fault(&mut self, at: Instant, number: usize) {
        self.schedule.plan(at, Event::Fault(number));
    }

    /// Gives a process an input at that time, if it still is in the same life then.
    pub(crate) fn deliver(&mut self, at: Instant, node: Node, input: Input) {
        let life = self.life(node);
        self.schedule.plan(at, Event::Deliver { node, life, input });
    }

    pub(crate) fn life(&self, node: Node) -> u32 {
        self.processes.get(&node).map_or(0, |process| process.life)
    }

    pub(crate) fn state(&self, node: Node) -> State {
        match node {
            Node::Database | Node::Registry => State::Up,
            _ => self.processes.get(&node).map_or(State::Down, |process| process.state),
        }
    }

    /// A process begins its first life at that time.
    pub(crate) fn start_at(&mut self, at: Instant, node: Node) {
        self.processes.insert(node, Process::new(1, self.now));
        self.schedule.plan(at, Event::Deliver { node, life: 1, input: Input::Started });
    }

    /// A process begins a life.
    pub(crate) fn start(&mut self, node: Node) {
        let life = self.life(node) + 1;
        self.processes.insert(node, Process::new(life, self.now));
        self.note(node, || "starts".to_owned());
        self.deliver(self.now, node, Input::Started);
    }

    /// It is stopped by a signal.
    pub(crate) fn pause(&mut self, node: Node) {
        if let Some(process) = self.processes.get_mut(&node).filter(|process| process.state == State::Up) {
            (process.state, process.paused_at) = (State::Paused, self.now);
            self.note(node, || "is paused".to_owned());
        }
    }

    /// It goes on. What came meanwhile is found in the order in which it came; its timers first, or last.
    pub(crate) fn resume(&mut self, node: Node) {
        let Some(process) = self.processes.get_mut(&node).filter(|process| process.state == State::Paused) else {
            return;
        };
        process.state = State::Up;
        process.missed += self.now.duration_since(process.paused_at).saturating_sub(Duration::from_secs(1));
        let life = process.life;
        let mut backlog = std::mem::take(&mut process.backlog);
        process.wake = None;
        if self.chance.random() {
            backlog.push_front(Input::Time);
        } else {
            backlog.push_back(Input::Time);
        }
        self.note(node, || format!("goes on, {} inputs behind", backlog.len()));
        for input in backlog {
            self.schedule.plan(self.now, Event::Deliver { node, life, input });
        }
    }

    /// Now on the clock of a process, which stands while it is paused.
    pub(crate) fn running(&self, node: Node) -> Instant {
        self.now - self.missed(node)
    }

    /// When it will be `then` on that clock.
    pub(crate) fn real(&self, node: Node, then: Instant) -> Instant {
        then + self.missed(node)
    }

    fn missed(&self, node: Node) -> Duration {
        self.processes.get(&node).map_or(Duration::ZERO, |process| process.missed)
    }

    /// The process wants to be woken then. An earlier wish stands.
    pub(crate) fn wake_at(&mut self, node: Node, at: Option<Instant>) {
        let (Some(at), Some(process)) = (at, self.processes.get_mut(&node)) else { return };
        let at = at.max(self.now);
        if process.wake.is_none_or(|wake| at < wake) {
            process.wake = Some(at);
            self.schedule.plan(at, Event::Wake { node, life: process.life });
        }
    }

    /// Goes on until a process or a fault has its turn. None: nothing happens any more before `end`.
    pub(crate) fn next(&mut self, end: Instant) -> Option<Next> {
        loop {
            let (at, event) = self.schedule.next(end)?;
            self.now = at;
            let next = match event {
                Event::Deliver { node, life, input } => self.hand_over(node, life, input),
                Event::Wake { node, life } => self.wake(node, life),
                Event::Fault(number) => Some(Next::Fault(number)),
                Event::Arrive { wire, side } => self.arrive(wire, side),
                Event::Keepalive { wire, side } => self.keepalive(wire, side),
                Event::Ask(call) => self.carry(call),
                Event::GiveUp(call) => self.answer_arrives(call, Err(calls::Failure::Unknown)),
                Event::Answered(call, outcome) => self.answered(call, outcome),
            };
            if next.is_some() {
                return next;
            }
        }
    }

    /// How many events there were.
    pub(crate) fn events(&self) -> u64 {
        self.schedule.planned()
    }

    fn wake(&mut self, node: Node, life: u32) -> Option<Next> {
        let now = self.now;
        let process = self.processes.get_mut(&node).filter(|process| process.life == life)?;
        // A wish that an earlier one overtook.
        if process.wake != Some(now) || process.state != State::Up {
            return None;
        }
        process.wake = None;
        Some(Next::Run(node, Input::Time))
    }

    /// An input reaches its process: at once, when it goes on, or never.
    fn hand_over(&mut self, node: Node, life: u32, input: Input) -> Option<Next> {
        let process = self.processes.get_mut(&node).filter(|process| process.life == life)?;
        match process.state {
            State::Up => Some(Next::Run(node, input)),
            State::Paused => {
                process.backlog.push_back(input);
                None
            }
            State::Down => None,
        }
    }

    /// A process ended by itself.
    pub(crate) fn exit(&mut self, node: Node) {
        self.note(node, || "has ended".to_owned());
        self.kill(node, false);
    }

    /// An api, as a load balancer chooses it: mostly one that is there.
    pub(crate) fn some_api(&mut self) -> Node {
        let apis: Vec<_> = self.processes.keys().filter(|node| matches!(node, Node::Api(_))).copied().collect();
        let there: Vec<_> = apis.iter().filter(|node| self.state(**node) != State::Down).copied().collect();
        let choice = if there.is_empty() || self.chance.random_ratio(1, 20) { apis } else { there };
        choice.get(self.chance.random_range(0..choice.len().max(1))).copied().unwrap_or(Node::Api(0))
    }

    /// The api after this one.
    pub(crate) fn other_api(&self, than: Node) -> Node {
        let apis = || self.processes.keys().filter(|node| matches!(node, Node::Api(_)));
        apis().find(|node| **node > than).or_else(|| apis().next()).copied().unwrap_or(than)
    }
}

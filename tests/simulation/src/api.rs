//! One api: the real [`Delivery`](touchline_api::simulation::Delivery) of each message and the real claims, between a
//! modelled REST side, database, registry and push streams.

mod fan_out;
mod rest;
mod settle;
mod streams;
mod view;

use crate::{
    database, registry,
    world::{
        Input, Node, Packet, World,
        calls::{CallId, Failure, Outcome, Question, Reply},
    },
};
use fan_out::{Fan, Place, Waiting};
use rand::Rng as _;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use streams::Stream;
use tokio::time::Instant;
use touchline_api::simulation::{Debts, Owners, Schedule};
use touchline_ids::{ChannelId, IncarnationId, Seq, UserId};
use view::View;

/// How long the database may take.
const DATABASE_PATIENCE: Duration = Duration::from_secs(5);
/// How often claims are renewed, acks written down and the view refreshed.
const RENEWAL: Duration = Duration::from_secs(2);
const FLUSH: Duration = Duration::from_secs(2);
const REFRESH: Duration = Duration::from_secs(1);
/// Most rows taken at once.
const TAKEN_AT_ONCE: usize = 64;

/// Where an api may be made to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    AfterCommit,
    BeforeResponse,
    AfterPush,
}

pub(crate) struct Api {
    node: Node,
    /// Test-only: takes no rows of others over.
    without_takeover: bool,
    /// Dies there, next time.
    pub(crate) crash: Option<Crash>,
    life: Option<Life>,
}

/// One life of it.
pub(super) struct Life {
    node: Node,
    owners: Owners,
    takeover: Schedule,
    view: View,
    streams: BTreeMap<IncarnationId, Stream>,
    debts: Debts,
    /// Which life of the database was seen last.
    database_life: Option<u64>,
    fans: BTreeMap<Place, Fan>,
    /// By channel: what waits for its look-up, in log order. The first one's is under way.
    lanes: BTreeMap<ChannelId, VecDeque<Waiting>>,
    calls: BTreeMap<CallId, Purpose>,
    acks: BTreeMap<(UserId, ChannelId), Seq>,
    /// What the database was not there for is tried again.
    again: Vec<(Instant, Purpose)>,
    clock: Clock,
    stopping: bool,
}

/// When what is done regularly is done next.
struct Clock {
    refresh: Instant,
    renewal: Instant,
    flush: Instant,
    poll: Instant,
}

/// What an answer is for.
pub(super) enum Purpose {
    Append(CallId),
    Change(CallId),
    Sync {
        request: CallId,
        user: UserId,
    },
    /// The first look-up of a message.
    Route(ChannelId),
    /// A later one of these members.
    Look(Place, Vec<u32>),
    /// A look-up that met an unknown incarnation waits for who is alive.
    Alive(Box<Purpose>, Vec<touchline_registry::Route>),
    View,
    Notified(Place, Vec<UserId>),
    Finished(Place),
    /// Rows let go that belong to one of these owners.
    Released(Place, Vec<uuid::Uuid>),
    Delivered(Vec<(UserId, ChannelId, Seq)>),
    Taken,
    Nothing,
}

impl Api {
    pub(crate) fn new(number: usize, without_takeover: bool) -> Self {
        Self { node: Node::Api(number), without_takeover, crash: None, life: None }
    }

    /// Whether it was told to stop and has not ended.
    pub(crate) fn is_stopping(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.stopping)
    }

    pub(crate) fn input(&mut self, world: &mut World, input: Input) {
        if let Input::Started = input {
            self.life = Some(Life::new(self.node, self.without_takeover, world));
            return;
        }
        let Some(life) = &mut self.life else { return };
        let mut crash = Crashing { wanted: self.crash, done: false };
        match input {
            Input::Stop => life.stop(world),
            Input::Time => {}
            Input::Answer(call, outcome) => life.answer(world, call, outcome, &mut crash),
            Input::Asked(call, rest) => life.asked(world, call, rest),
            Input::Received(wire, Packet::Pong) => life.stream_opened(world, wire),
            Input::Broken(wire) => life.stream_broke(world, wire, false),
            Input::Silent(wire) => life.stream_broke(world, wire, true),
            Input::Received(wire, Packet::PushAnswer(answer)) => life.push_answer(world, wire, &answer),
            _ => {}
        }
        if crash.done {
            self.crash = None;
            self.life = None;
            world.kill(self.node, false);
            return;
        }
        life.on_time(world);
        if life.is_done() {
            self.life = None;
            world.exit(self.node);
        }
    }

    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.life.as_ref().map(Life::next_wake)
    }

    /// Forgets everything, as a process that ended does.
    pub(crate) fn ended(&mut self) {
        self.life = None;
    }
}

/// Whether this is where the api is to die.
pub(super) struct Crashing {
    wanted: Option<Crash>,
    pub(super) done: bool,
}

impl Crashing {
    pub(super) fn at(&mut self, here: Crash) -> bool {
        self.done |= self.wanted == Some(here);
        self.done
    }
}

impl Life {
    fn new(node: Node, without_takeover: bool, world: &mut World) -> Self {
        let now = world.now;
        let owners = Owners::new(world.names.uuid());
        let takeover = if without_takeover { Schedule::never() } else { Schedule::default() };
        let clock = Clock {
            refresh: now,
            renewal: now + RENEWAL,
            flush: now + FLUSH,
            poll: now + Schedule::pause(world.chance.random()),
        };
        Self {
            node,
            owners,
            takeover,
            view: View::default(),
            streams: BTreeMap::new(),
            debts: Debts::default(),
            database_life: None,
            fans: BTreeMap::new(),
            lanes: BTreeMap::new(),
            calls: BTreeMap::new(),
            acks: BTreeMap::new(),
            again: Vec::new(),
            clock,
            stopping: false,
        }
    }

    fn ask_database(&mut self, world: &mut World, question: database::Question, purpose: Purpose) {
        let call = world.ask(self.node, Node::Database, Question::Database(question), DATABASE_PATIENCE);
        self.calls.insert(call, purpose);
    }

    fn ask_registry(&mut self, world: &mut World, question: registry::Question, patience: Duration, purpose: Purpose) {
        let call = world.ask(self.node, Node::Registry, Question::Registry(question), patience);
        self.calls.insert(call, purpose);
    }

    fn answer(&mut self, world: &mut World, call: CallId, outcome: Outcome, crash: &mut Crashing) {
        let Some(purpose) = self.calls.remove(&call) else { return };
        match outcome {
            Ok(Reply::Database(answer)) => {
                if let database::Answer::Appended(_) | database::Answer::Synced(_) = &answer {
                    self.look_at_life(world);
                }
                self.database_answers(world, purpose, Ok(answer), crash);
            }
            Ok(Reply::Registry(answer)) => self.registry_answers(world, purpose, Ok(answer), crash),
            Ok(Reply::Api(_)) => {}
            Err(failure) => match purpose {
                Purpose::Route(_) | Purpose::Look(..) | Purpose::Alive(..) | Purpose::View | Purpose::Nothing => {
                    self.registry_answers(world, purpose, Err(failure), crash);
                }
                _ => self.database_answers(world, purpose, Err(failure), crash),
            },
        }
    }

    /// A database that began another life may have lost the end of what devices hold.
    fn look_at_life(&mut self, world: &mut World) {
        let life = world.database.epoch;
        let before = self.database_life.replace(life);
        if before == Some(life) {
            return;
        }
        if before.is_some() {
            world.note(self.node, || "sees another life of the database".to_owned());
            // Rows may be back that nobody works on, and acks are of a log that is no more.
            let fresh = world.names.uuid();
            self.owners.doubt(fresh, world.now);
            self.acks.clear();
        }
        self.tell_life(world);
    }

    fn registry_answers(
        &mut self,
        world: &mut World,
        purpose: Purpose,
        answer: Result<registry::Answer, Failure>,
        crash: &mut Crashing,
    ) {
        match (purpose, answer) {
            (Purpose::View, Ok(registry::Answer::Gateways(leases))) => self.view.refreshed(leases, world.now),
            (Purpose::Alive(purpose, routes), answer) => {
                let users = self.asked_users(&purpose);
                if let Ok(registry::Answer::Gateways(leases)) = answer {
                    self.view.refreshed(leases, world.now);
                    self.view.absent(&routes);
                    let groups = self.view.group(&routes, users.len(), world.now);
                    self.grouped(world, *purpose, groups, &users, crash);
                } else {
                    self.broadcast(world, *purpose, &users, crash);
                }
            }
            (purpose @ (Purpose::Route(_) | Purpose::Look(..)), answer) => {
                self.looked_up(world, purpose, answer, crash);
            }
            _ => {}
        }
    }

    fn on_time(&mut self, world: &mut World) {
        let now = world.now;
        if now >= self.clock.refresh {
            self.clock.refresh = now + REFRESH;
            let patience = Duration::from_secs(2);
            self.ask_registry(world, registry::Question::Gateways, patience, Purpose::View);
        }
        if now >= self.clock.renewal {
            self.clock.renewal = now + RENEWAL;
            for owner in self.owners.all(now) {
                self.ask_database(world, database::Question::RenewClaims(owner), Purpose::Nothing);
            }
        }
        if now >= self.clock.flush {
            self.clock.flush = now + FLUSH;
            self.write_acks(world);
        }
        if now >= self.clock.poll {
            self.clock.poll = now + Schedule::pause(world.chance.random());
            if !self.stopping && self.takeover.is_due() {
                let owner = self.owners.present();
                let question =
                    database::Question::TakeExpired { owner, limit: TAKEN_AT_ONCE, waited: self.takeover.waited(now) };
                self.ask_database(world, question, Purpose::Taken);
            }
        }
        self.streams_on_time(world);
        self.fans_on_time(world);
        self.again_on_time(world);
    }

    fn next_wake(&self) -> Instant {
        let Clock { refresh, renewal, flush, poll } = self.clock;
        let regular = refresh.min(renewal).min(flush).min(poll);
        let streams = self.streams.values().filter_map(|stream| stream.next_wake());
        let fans = self.fans.values().filter_map(|fan| fan.wake);
        let again = self.again.iter().map(|(at, _)| *at);
        streams.chain(fans).chain(again).fold(regular, Instant::min)
    }

    /// Softly: nothing new, what is not finished goes to others.
    fn stop(&mut self, world: &mut World) {
        self.stopping = true;
        let owners = self.owners.all(world.now);
        self.fans.clear();
        self.lanes.clear();
        self.again.clear();
        self.write_acks(world);
        self.ask_database(world, database::Question::ReleaseAll(owners), Purpose::Nothing);
    }

    fn is_done(&self) -> bool {
        self.stopping && self.calls.is_empty()
    }
}

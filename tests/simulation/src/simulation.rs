//! One world from its beginning to its end.

use crate::{
    Figures, Setting,
    api::Api,
    database::Database,
    device::Device,
    faults::{self, Fault, What},
    gateway::{self, Gateway},
    record::Record,
    sender::Sender,
    shape::{APIS, END, GATEWAYS, Shape},
    world::{Input, Next, Node, Order, State, World},
};
use rand::Rng as _;
use std::time::Duration;
use tokio::time::Instant;
use touchline_client::rules;

/// Devices come one after the other.
const ARRIVALS: Duration = Duration::from_secs(6);

pub(crate) struct Simulation {
    pub(crate) world: World,
    pub(crate) shape: Shape,
    pub(crate) faults: Vec<Fault>,
    pub(crate) devices: Vec<Device>,
    pub(crate) senders: Vec<Sender>,
    apis: Vec<Api>,
    gateways: Vec<Gateway>,
    /// What the database may be put back to.
    before: Option<Database>,
    end: Instant,
}

impl Simulation {
    pub(crate) fn new(seed: u64, setting: Setting, traced: bool) -> Self {
        let began = Instant::now();
        let mut world = World::new(seed, began, Record::new(traced));
        let shape = Shape::draw(&mut world.names, &mut world.chance);
        let faults = faults::draw(setting.faults, shape.devices.len(), &mut world.chance);
        let deeds = shape.deeds(&faults, began, &mut world.chance);
        for (channel, members) in &shape.channels {
            let first = world.names.message();
            world.database.create(*channel, first, members);
        }
        world.database.ahead = Duration::from_secs(world.chance.random_range(0..7_200));
        world.registry.unregister_without_compare = setting.sabotage.unregisters_without_compare();
        let mut simulation = Self {
            apis: (0..APIS).map(|number| Api::new(number, setting.sabotage.takes_nothing_over())).collect(),
            gateways: (0..GATEWAYS).map(|number| Gateway::new(number, setting.sabotage.of_gateway())).collect(),
            devices: Vec::new(),
            senders: deeds.into_iter().enumerate().map(|(number, deeds)| Sender::new(number, deeds)).collect(),
            before: None,
            end: began + END,
            world,
            shape,
            faults,
        };
        simulation.populate(setting.sabotage.of_client());
        simulation
    }

    fn populate(&mut self, sabotage: rules::Sabotage) {
        let world = &mut self.world;
        (0..APIS).for_each(|number| world.start(Node::Api(number)));
        (0..GATEWAYS).for_each(|number| world.start(Node::Gateway(number)));
        (0..self.senders.len()).for_each(|number| world.start(Node::Sender(number)));
        for (number, user) in self.shape.devices.iter().enumerate() {
            self.devices.push(Device::new(number, *user, sabotage));
            let at = world.between(Duration::from_millis(200), ARRIVALS);
            world.start_at(world.now + at, Node::Device(number));
        }
        for (number, fault) in self.faults.iter().enumerate() {
            world.plan_fault(world.began + fault.at, 2 * number);
            world.plan_fault(world.began + fault.at + fault.lasts, 2 * number + 1);
        }
    }

    /// Lets everything happen.
    pub(crate) fn run(&mut self) {
        while let Some(next) = self.world.next(self.end) {
            match next {
                Next::Run(node, input) => self.give(node, input),
                Next::Fault(number) => {
                    let fault = self.faults[number / 2].clone();
                    if number % 2 == 0 { self.begin(&fault) } else { self.heal(&fault) }
                }
            }
        }
    }

    fn give(&mut self, node: Node, input: Input) {
        let world = &mut self.world;
        let wake = match node {
            Node::Api(number) => {
                self.apis[number].input(world, input);
                self.apis[number].next_wake()
            }
            Node::Gateway(number) => {
                self.gateways[number].input(world, input);
                self.gateways[number].next_wake(world)
            }
            Node::Device(number) => {
                self.devices[number].input(world, input);
                self.devices[number].next_wake()
            }
            Node::Sender(number) => {
                self.senders[number].input(world, input);
                self.senders[number].next_wake()
            }
            Node::Database | Node::Registry => None,
        };
        self.world.wake_at(node, wake);
    }

    fn begin(&mut self, fault: &Fault) {
        let now = self.world.now;
        let world = &mut self.world;
        world.note(Node::Database, || format!("FAULT {:?} for {:?}", fault.what, fault.lasts));
        match fault.what {
            What::Kill { node, host } => self.kill(node, host),
            What::Leaves { device, host } => self.kill(Node::Device(device), host),
            What::Pause(node) => world.pause(node),
            What::Stop(node) => world.deliver(now, node, Input::Stop),
            What::CrashApi(number, crash) => self.apis[number].crash = Some(crash),
            What::CrashGateway(number, crash) => self.crash_gateway(number, crash),
            What::Flush => world.registry.flush(),
            What::FailOver => world.registry.replication_stops(),
            What::RegistryAway => {
                world.registry_trouble.away = true;
                world.break_store(Node::Registry);
            }
            What::RegistrySlow(by) => world.registry_trouble.slower += by,
            What::DatabaseAway => {
                world.database_trouble.away = true;
                world.break_store(Node::Database);
            }
            What::DatabaseMute(one_in) => world.database_trouble.loses_one_in = one_in,
            What::DatabaseSlow(by) => world.database_trouble.slower += by,
            What::TailLost => self.before = Some(world.database.clone()),
            What::BlackHole { from, to, both } => {
                world.network.close_way(from, to);
                if both {
                    world.network.close_way(to, from);
                }
            }
            What::Offline { device, noticed } => {
                world.network.cut_off(Node::Device(device));
                if noticed {
                    world.deliver(now, Node::Device(device), Input::Order(Order::Cut));
                }
            }
            What::CutSockets(device) => {
                for wire in world.wires_of(Node::Device(device)) {
                    world.cut(wire);
                }
            }
            What::Roam { device, linger } => {
                world.deliver(now, Node::Device(device), Input::Order(Order::Roam(linger)));
            }
            What::NotReading(device) => {
                world.deliver(now, Node::Device(device), Input::Order(Order::Reading(false)));
            }
        }
    }

    fn crash_gateway(&mut self, number: usize, crash: gateway::Crash) {
        self.gateways[number].crash = Some(crash);
        if crash == gateway::Crash::MidReregister {
            self.world.registry.flush();
        }
    }

    fn heal(&mut self, fault: &Fault) {
        let now = self.world.now;
        let world = &mut self.world;
        world.note(Node::Database, || format!("HEALED {:?}", fault.what));
        match fault.what {
            What::Kill { node, .. } | What::Stop(node) => self.bring_back(node),
            What::CrashApi(number, _) => {
                self.apis[number].crash = None;
                self.bring_back(Node::Api(number));
            }
            What::CrashGateway(number, _) => {
                self.gateways[number].crash = None;
                self.bring_back(Node::Gateway(number));
            }
            What::Pause(node) => world.resume(node),
            What::FailOver => {
                world.registry.fail_over();
                world.break_store(Node::Registry);
            }
            What::RegistryAway => world.registry_trouble.away = false,
            What::RegistrySlow(by) => world.registry_trouble.slower -= by,
            What::DatabaseAway => world.database_trouble.away = false,
            What::DatabaseMute(_) => world.database_trouble.loses_one_in = 0,
            What::DatabaseSlow(by) => world.database_trouble.slower -= by,
            What::TailLost => self.take_back(),
            What::BlackHole { from, to, both } => {
                world.network.open_way(from, to);
                if both {
                    world.network.open_way(to, from);
                }
                world.flow();
            }
            What::Offline { device, .. } => {
                world.network.let_back(Node::Device(device));
                world.flow();
            }
            What::NotReading(device) => {
                world.deliver(now, Node::Device(device), Input::Order(Order::Reading(true)));
            }
            What::Flush | What::CutSockets(_) | What::Roam { .. } | What::Leaves { .. } => {}
        }
    }

    fn kill(&mut self, node: Node, host: bool) {
        self.world.kill(node, host);
        match node {
            Node::Api(number) => self.apis[number].ended(),
            Node::Gateway(number) => self.gateways[number].ended(),
            Node::Device(number) => {
                self.devices[number].ended();
                let now = self.world.now;
                self.world.record.offline(number, now);
            }
            _ => {}
        }
    }

    /// A process runs again, unless it left for good or another fault has it.
    fn bring_back(&mut self, node: Node) {
        let left = |fault: &Fault| matches!(fault.what, What::Leaves { device, .. } if Node::Device(device) == node);
        let gone = self.faults.iter().any(|fault| left(fault) && self.world.began + fault.at <= self.world.now);
        match self.world.state(node) {
            State::Down if !gone => self.world.start(node),
            // Its supervisor does not wait for ever.
            State::Up if self.is_stopping(node) => {
                self.kill(node, false);
                self.world.start(node);
            }
            _ => {}
        }
    }

    fn is_stopping(&self, node: Node) -> bool {
        match node {
            Node::Api(number) => self.apis[number].is_stopping(),
            Node::Gateway(number) => self.gateways[number].is_stopping(),
            _ => false,
        }
    }

    /// The database loses what it stored since the fault began: another server with an older copy is the primary.
    fn take_back(&mut self) {
        let Some(before) = self.before.take() else { return };
        let epoch = self.world.database.epoch + 1;
        self.world.database = Database { epoch, ..before };
        self.world.record.tail_lost = true;
        self.world.break_store(Node::Database);
    }

    /// Whether devices were not healthy in that time though they were connected: a fault concerned gateways.
    pub(crate) fn was_hit(&self, from: Instant, to: Instant) -> bool {
        let began = self.world.began;
        let hit = |fault: &Fault| {
            let (begins, ends) = (began + fault.at, began + fault.at + fault.lasts);
            fault.hits_gateways() && begins < to && ends + Duration::from_secs(2) > from
        };
        self.faults.iter().any(hit)
    }

    pub(crate) fn figures(&self) -> Figures {
        let record = &self.world.record;
        Figures {
            events: self.world.events(),
            accepted: record.accepted.len() as u64,
            shown: record.devices.values().map(|shown| shown.ever.len() as u64).sum(),
            notified: self.world.database.notified.len() as u64,
        }
    }
}

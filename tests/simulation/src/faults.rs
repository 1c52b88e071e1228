//! What goes wrong, when, for how long; drawn from the seed before anything happens.

use crate::{
    api, gateway,
    shape::{APIS, GATEWAYS},
    world::Node,
};
use rand::{Rng as _, rngs::SmallRng, seq::IndexedRandom as _};
use std::time::Duration;

/// Something that goes wrong and is put right again.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// After the beginning of the world.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What {
    /// Without a word; with `host` nothing answers in its place.
    Kill {
        node: Node,
        host: bool,
    },
    /// SIGSTOP and SIGCONT.
    Pause(Node),
    /// SIGTERM.
    Stop(Node),
    CrashApi(usize, api::Crash),
    CrashGateway(usize, gateway::Crash),
    /// `FLUSHALL`.
    Flush,
    /// The registry's replica stops listening; at the end it is the primary.
    FailOver,
    RegistryAway,
    RegistrySlow(Duration),
    DatabaseAway,
    /// One in so many answers does not arrive.
    DatabaseMute(u32),
    DatabaseSlow(Duration),
    /// At the end the database is what it was at the beginning.
    TailLost,
    /// Nothing arrives from the one at the other, nor back with `both`.
    BlackHole {
        from: Node,
        to: Node,
        both: bool,
    },
    /// A device loses its network, and may notice.
    Offline {
        device: usize,
        noticed: bool,
    },
    CutSockets(usize),
    Roam {
        device: usize,
        linger: Duration,
    },
    /// A device leaves everything in the socket.
    NotReading(usize),
    /// A device leaves for good; its process ends, or just everything under it.
    Leaves {
        device: usize,
        host: bool,
    },
}

impl Fault {
    /// Whether healthy sockets may die of it, or stand still.
    pub(crate) fn hits_gateways(&self) -> bool {
        match self.what {
            What::Kill { node, .. } | What::Pause(node) | What::Stop(node) => matches!(node, Node::Gateway(_)),
            What::CrashGateway(..) => true,
            _ => false,
        }
    }

    /// Whether gateways have a reason to close sockets.
    pub(crate) fn may_close(&self) -> bool {
        let of_stores = matches!(
            self.what,
            What::Flush
                | What::RegistryAway
                | What::RegistrySlow(_)
                | What::FailOver
                | What::DatabaseAway
                | What::DatabaseMute(_)
                | What::DatabaseSlow(_)
        );
        !of_stores
    }
}

/// Which faults a world has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    /// None: what the machines do by themselves.
    None,
    /// One, of those under which healthy devices get everything in 6 s.
    One,
    /// Two to six of all kinds, that may overlap.
    Many,
    /// The database loses the end of what it stored.
    LostTail,
}

const FIRST: Duration = Duration::from_secs(8);
const LAST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(25);

pub(crate) fn draw(faults: Faults, devices: usize, chance: &mut SmallRng) -> Vec<Fault> {
    let count = match faults {
        Faults::None => 0,
        Faults::One | Faults::LostTail => 1,
        Faults::Many => chance.random_range(2..=6),
    };
    let mut drawn: Vec<_> = (0..count)
        .map(|_| {
            let what = match faults {
                Faults::LostTail => What::TailLost,
                Faults::One => one_of_servers(chance),
                Faults::None | Faults::Many => any(devices, chance),
            };
            let at = between(chance, FIRST, LAST);
            Fault { at, lasts: between(chance, Duration::from_millis(200), LONGEST), what }
        })
        .collect();
    if faults == Faults::LostTail && chance.random() {
        // And nobody is left who knew the life before.
        let at = drawn[0].at + drawn[0].lasts - Duration::from_millis(100);
        let kill =
            |api| Fault { at, lasts: Duration::from_secs(2), what: What::Kill { node: Node::Api(api), host: false } };
        drawn.extend((0..APIS).map(kill));
    }
    drawn
}

fn between(chance: &mut SmallRng, least: Duration, most: Duration) -> Duration {
    Duration::from_micros(chance.random_range(least.as_micros() as u64..most.as_micros() as u64))
}

fn one_api(chance: &mut SmallRng) -> usize {
    chance.random_range(0..APIS)
}

fn one_gateway(chance: &mut SmallRng) -> usize {
    chance.random_range(0..GATEWAYS)
}

fn one_process(chance: &mut SmallRng) -> Node {
    if chance.random() { Node::Api(one_api(chance)) } else { Node::Gateway(one_gateway(chance)) }
}

/// What a single fault may be.
fn one_of_servers(chance: &mut SmallRng) -> What {
    match chance.random_range(0..12) {
        0 => What::Kill { node: one_process(chance), host: false },
        1 => What::Pause(one_process(chance)),
        2 => What::Stop(one_process(chance)),
        3 | 4 => What::CrashApi(one_api(chance), api_crash(chance)),
        5 => What::CrashGateway(one_gateway(chance), gateway_crash(chance)),
        6 => What::Flush,
        7 => What::RegistryAway,
        8 => What::RegistrySlow(between(chance, Duration::from_millis(50), Duration::from_secs(3))),
        9 => What::FailOver,
        10 => gateway_hole(chance),
        _ => {
            let gateway = Node::Gateway(one_gateway(chance));
            What::BlackHole { from: gateway, to: Node::Registry, both: true }
        }
    }
}

fn any(devices: usize, chance: &mut SmallRng) -> What {
    let device = chance.random_range(0..devices);
    match chance.random_range(0..20) {
        0..=5 => one_of_servers(chance),
        6 => What::Kill { node: one_process(chance), host: true },
        7 => What::DatabaseAway,
        8 => What::DatabaseMute(chance.random_range(1..6)),
        9 => What::DatabaseSlow(between(chance, Duration::from_millis(50), Duration::from_secs(7))),
        10 => What::CutSockets(device),
        11 => other_hole(chance),
        12 => {
            let (device, gateway) = (Node::Device(device), Node::Gateway(one_gateway(chance)));
            let (from, to) = if chance.random() { (device, gateway) } else { (gateway, device) };
            What::BlackHole { from, to, both: chance.random_ratio(1, 3) }
        }
        13 | 14 => What::Offline { device, noticed: chance.random() },
        15 => What::CutSockets(device),
        16 => What::Roam { device, linger: between(chance, Duration::from_millis(10), Duration::from_secs(20)) },
        17 => What::NotReading(device),
        18 => What::Kill { node: Node::Device(device), host: chance.random() },
        _ => What::Leaves { device, host: chance.random() },
    }
}

fn api_crash(chance: &mut SmallRng) -> api::Crash {
    *[api::Crash::AfterCommit, api::Crash::BeforeResponse, api::Crash::AfterPush].choose(chance).expect("three")
}

fn gateway_crash(chance: &mut SmallRng) -> gateway::Crash {
    if chance.random() { gateway::Crash::BeforeAck } else { gateway::Crash::MidReregister }
}

/// Between an api and a gateway.
fn gateway_hole(chance: &mut SmallRng) -> What {
    let (api, gateway) = (Node::Api(one_api(chance)), Node::Gateway(one_gateway(chance)));
    let (from, to) = if chance.random() { (api, gateway) } else { (gateway, api) };
    What::BlackHole { from, to, both: chance.random_ratio(1, 3) }
}

/// Between a process and a store.
fn other_hole(chance: &mut SmallRng) -> What {
    let api = Node::Api(one_api(chance));
    let (one, other) = match chance.random_range(0..3) {
        0 => (Node::Gateway(one_gateway(chance)), Node::Registry),
        1 => (api, Node::Registry),
        _ => (api, Node::Database),
    };
    let (from, to) = if chance.random() { (one, other) } else { (other, one) };
    What::BlackHole { from, to, both: chance.random() }
}

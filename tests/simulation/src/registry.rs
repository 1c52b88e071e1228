//! The registry as Redis keeps it: one thing at a time, leases that end, routes with connection numbers, compare on
//! unregister. It forgets what the real one may forget.

use std::collections::BTreeMap;
use tokio::time::Instant;
use touchline_ids::{ConnectionNumber, DeviceId, GatewayId, IncarnationId, UserId};
use touchline_registry::{LEASE_LIFE, Lease, Registered, Registration, Renewal, Route};

/// What is asked of it.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    RenewLease(Lease),
    ReleaseLease(GatewayId, IncarnationId),
    Gateways,
    Register(Vec<Registration>),
    TakeOver(Registration, IncarnationId, ConnectionNumber),
    Unregister(Vec<Registration>),
    LookUp(Vec<UserId>),
    Redeem(u64),
    /// Routes of an incarnation that is gone for good.
    Prune(Vec<(UserId, IncarnationId)>),
}

/// What it answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Renewed(Renewal),
    Gateways(Vec<Lease>),
    Registered(Vec<Registered>),
    TakenOver(bool),
    Routes(Vec<Route>),
    Redeemed(bool),
    Done,
}

/// Everything in Redis.
#[derive(Debug, Clone, Default)]
struct Held {
    leases: BTreeMap<GatewayId, (Lease, Instant)>,
    routes: BTreeMap<UserId, BTreeMap<DeviceId, (IncarnationId, ConnectionNumber)>>,
    tickets: BTreeMap<u64, ()>,
}

/// The registry and what may be wrong with it.
#[derive(Default)]
pub(crate) struct Registry {
    held: Held,
    /// What a replica has, that may become the primary.
    replica: Option<Held>,
    /// Grows when connections to it broke: whoever renews a lease with another number than before cannot be sure of
    /// the routes.
    pub(crate) epoch: u64,
    seen: BTreeMap<IncarnationId, u64>,
    /// Test-only: a route goes whatever stands there.
    pub(crate) unregister_without_compare: bool,
}

impl Registry {
    /// `FLUSHALL`.
    pub(crate) fn flush(&mut self) {
        self.held = Held::default();
    }

    /// From now on the replica gets nothing.
    pub(crate) fn replication_stops(&mut self) {
        self.replica = Some(self.held.clone());
    }

    /// The replica is the primary now.
    pub(crate) fn fail_over(&mut self) {
        if let Some(replica) = self.replica.take() {
            self.held = replica;
        }
        self.epoch += 1;
    }

    pub(crate) fn ask(&mut self, question: Question, now: Instant) -> Answer {
        match question {
            Question::RenewLease(lease) => Answer::Renewed(self.renew(lease, now)),
            Question::ReleaseLease(gateway, incarnation) => {
                if self.held.leases.get(&gateway).is_some_and(|(lease, _)| lease.incarnation == incarnation) {
                    self.held.leases.remove(&gateway);
                }
                Answer::Done
            }
            Question::Gateways => {
                let live = self.held.leases.values().filter(|(_, until)| *until > now);
                Answer::Gateways(live.map(|(lease, _)| lease.clone()).collect())
            }
            Question::Register(sessions) => {
                Answer::Registered(sessions.iter().map(|session| self.register(session)).collect())
            }
            Question::TakeOver(session, dead, connection) => {
                Answer::TakenOver(self.take_over(&session, dead, connection))
            }
            Question::Unregister(sessions) => {
                sessions.iter().for_each(|session| self.unregister(session));
                Answer::Done
            }
            Question::LookUp(users) => Answer::Routes(self.look_up(&users)),
            Question::Redeem(ticket) => Answer::Redeemed(self.held.tickets.insert(ticket, ()).is_none()),
            Question::Prune(routes) => {
                for (user, incarnation) in routes {
                    if let Some(devices) = self.held.routes.get_mut(&user) {
                        devices.retain(|_, (there, _)| *there != incarnation);
                    }
                }
                Answer::Done
            }
        }
    }

    fn renew(&mut self, lease: Lease, now: Instant) -> Renewal {
        self.held.leases.retain(|_, (_, until)| *until > now);
        let before = self.held.leases.get(&lease.gateway).map(|(lease, _)| lease.incarnation);
        let incarnation = lease.incarnation;
        if before.is_some_and(|before| before > incarnation) {
            return Renewal::Fenced;
        }
        self.held.leases.insert(lease.gateway.clone(), (lease, now + LEASE_LIFE));
        let same_connection = self.seen.insert(incarnation, self.epoch).is_none_or(|seen| seen == self.epoch);
        match (before == Some(incarnation), same_connection) {
            (false, _) => Renewal::Missing,
            (true, false) => Renewal::Doubtful,
            (true, true) => Renewal::Renewed,
        }
    }

    fn register(&mut self, session: &Registration) -> Registered {
        match self.find(session) {
            Some((incarnation, connection)) if connection > session.connection => {
                Registered::Newer { incarnation, connection }
            }
            Some(held) if held == (session.incarnation, session.connection) => Registered::Kept,
            _ => {
                self.store(session);
                Registered::Stored
            }
        }
    }

    fn take_over(&mut self, session: &Registration, dead: IncarnationId, connection: ConnectionNumber) -> bool {
        let found = self.find(session);
        let unchanged = found == Some((dead, connection)) || found == Some((session.incarnation, session.connection));
        if unchanged {
            self.store(session);
        }
        unchanged
    }

    fn unregister(&mut self, session: &Registration) {
        let same = self.find(session) == Some((session.incarnation, session.connection));
        let removes = same || self.unregister_without_compare;
        if removes && let Some(devices) = self.held.routes.get_mut(&session.user) {
            devices.remove(&session.device);
        }
    }

    fn look_up(&self, users: &[UserId]) -> Vec<Route> {
        let mut routes = Vec::new();
        for (index, user) in (0u32..).zip(users) {
            let first = routes.len();
            for (incarnation, _) in self.held.routes.get(user).into_iter().flat_map(BTreeMap::values) {
                let route = Route { index, incarnation: *incarnation };
                if !routes[first..].contains(&route) {
                    routes.push(route);
                }
            }
        }
        routes
    }

    fn find(&self, session: &Registration) -> Option<(IncarnationId, ConnectionNumber)> {
        self.held.routes.get(&session.user)?.get(&session.device).copied()
    }

    fn store(&mut self, session: &Registration) {
        let devices = self.held.routes.entry(session.user).or_default();
        devices.insert(session.device.clone(), (session.incarnation, session.connection));
    }
}

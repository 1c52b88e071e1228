//! Who is alive, as one api sees it: leases, and gateways that a healthy push stream vouches for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use touchline_api::simulation::Holder;
use touchline_ids::IncarnationId;
use touchline_registry::{GatewayState, Lease, Route};

/// How long a gateway whose lease is back may take to register all of its sessions again.
const REGISTERING: Duration = Duration::from_secs(10);

/// Routes by live gateway.
pub(crate) struct Groups {
    pub(crate) live: Vec<Holder>,
    /// Routes to gateways that are not in the view.
    pub(crate) left_out: Vec<Route>,
    /// Some of those were never heard of.
    pub(crate) unknown: bool,
}

#[derive(Default)]
pub(crate) struct View {
    leases: BTreeMap<IncarnationId, Lease>,
    vouched: BTreeMap<IncarnationId, Lease>,
    absent: BTreeSet<IncarnationId>,
    /// Until when the routes of gateways that lived without a lease are not to be relied on.
    unsure: BTreeMap<IncarnationId, Instant>,
}

impl View {
    pub(crate) fn refreshed(&mut self, leases: Vec<Lease>, now: Instant) {
        self.leases = leases.into_iter().map(|lease| (lease.incarnation, lease)).collect();
        let leases = &self.leases;
        self.absent.retain(|incarnation| !leases.contains_key(incarnation));
        self.doubt(now);
    }

    /// Who lives without a lease may have lost its routes with it.
    fn doubt(&mut self, now: Instant) {
        let Self { leases, vouched, unsure, .. } = self;
        unsure.retain(|there, until| now < *until && (leases.contains_key(there) || vouched.contains_key(there)));
        let unlisted = vouched.keys().filter(|there| !leases.contains_key(there));
        unsure.extend(unlisted.map(|there| (*there, now + REGISTERING)));
    }

    pub(crate) fn vouch(&mut self, lease: Lease, now: Instant) {
        self.vouched.insert(lease.incarnation, lease);
        self.doubt(now);
    }

    pub(crate) fn unvouch(&mut self, incarnation: IncarnationId, now: Instant) {
        self.vouched.remove(&incarnation);
        self.doubt(now);
    }

    pub(crate) fn get(&self, incarnation: IncarnationId) -> Option<&Lease> {
        self.leases.get(&incarnation).or_else(|| self.vouched.get(&incarnation))
    }

    /// Everybody alive.
    pub(crate) fn alive(&self) -> BTreeMap<IncarnationId, Lease> {
        let mut alive = self.vouched.clone();
        alive.extend(self.leases.iter().map(|(incarnation, lease)| (*incarnation, lease.clone())));
        alive
    }

    /// Who takes new sessions.
    pub(crate) fn ready(&self) -> Vec<&Lease> {
        let ready = |lease: &&Lease| lease.state == GatewayState::Ready && lease.sessions < lease.capacity;
        let listed: Vec<_> = self.leases.values().filter(ready).collect();
        if self.leases.is_empty() { self.vouched.values().filter(ready).collect() } else { listed }
    }

    /// Groups the routes of so many users.
    pub(crate) fn group(&mut self, routes: &[Route], users: usize, now: Instant) -> Groups {
        self.doubt(now);
        let mut groups: BTreeMap<IncarnationId, Vec<u32>> = BTreeMap::new();
        let (mut unknown, mut left_out) = (false, Vec::new());
        for route in routes {
            if self.get(route.incarnation).is_some() {
                groups.entry(route.incarnation).or_default().push(route.index);
            } else {
                unknown |= !self.absent.contains(&route.incarnation);
                left_out.push(*route);
            }
        }
        // The registry may have forgotten whom these hold: they are asked for everybody.
        for there in self.unsure.keys() {
            groups.insert(*there, (0u32..).take(users).collect());
        }
        let holder = |(gateway, users): (IncarnationId, Vec<u32>)| Holder { gateway, users: users.into() };
        Groups { live: groups.into_iter().map(holder).collect(), left_out, unknown }
    }

    /// What is not alive now asks for no further refresh.
    pub(crate) fn absent(&mut self, routes: &[Route]) {
        let dead = routes.iter().map(|route| route.incarnation).filter(|there| self.get(*there).is_none());
        let dead: Vec<_> = dead.collect();
        self.absent.extend(dead);
    }

    /// A broadcast to so many users.
    pub(crate) fn everybody(&self, users: usize) -> Vec<Holder> {
        let users: Arc<[u32]> = (0u32..).take(users).collect();
        self.alive().into_keys().map(|gateway| Holder { gateway, users: Arc::clone(&users) }).collect()
    }
}

//! Who is alive, as one api sees it: leases, and gateways that a healthy push stream vouches for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use touchline_api::simulation::Holder;
use touchline_ids::IncarnationId;
use touchline_registry::{GatewayState, Lease, Route};

#[derive(Default)]
pub(crate) struct View {
    leases: BTreeMap<IncarnationId, Lease>,
    vouched: BTreeMap<IncarnationId, Lease>,
    absent: BTreeSet<IncarnationId>,
}

impl View {
    pub(crate) fn refreshed(&mut self, leases: Vec<Lease>) {
        self.leases = leases.into_iter().map(|lease| (lease.incarnation, lease)).collect();
        let leases = &self.leases;
        self.absent.retain(|incarnation| !leases.contains_key(incarnation));
    }

    pub(crate) fn vouch(&mut self, lease: Lease) {
        self.vouched.insert(lease.incarnation, lease);
    }

    pub(crate) fn unvouch(&mut self, incarnation: IncarnationId) {
        self.vouched.remove(&incarnation);
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
        self.leases.values().filter(ready).collect()
    }

    /// Routes by live gateway, and whether there was an incarnation never heard of.
    pub(crate) fn group(&self, routes: &[Route]) -> (Vec<Holder>, bool) {
        let mut groups: BTreeMap<IncarnationId, Vec<u32>> = BTreeMap::new();
        let mut unknown = false;
        for route in routes {
            if self.get(route.incarnation).is_some() {
                groups.entry(route.incarnation).or_default().push(route.index);
            } else {
                unknown |= !self.absent.contains(&route.incarnation);
            }
        }
        let holder = |(gateway, users): (IncarnationId, Vec<u32>)| Holder { gateway, users: users.into() };
        (groups.into_iter().map(holder).collect(), unknown)
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

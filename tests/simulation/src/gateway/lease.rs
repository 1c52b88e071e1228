//! The lease, and leaving in order.

use super::{Life, Purpose};
use crate::{
    registry::{Answer, Question},
    world::World,
};
use std::time::Duration;
use tokio::time::Instant;
use touchline_gateway::simulation::Order;
use touchline_registry::{GatewayState, LEASE_RENEWAL, Lease, Renewal};

/// Without a renewal for so long no new sockets are taken.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between the lease that says so and the first session that leaves: every api has seen it then.
const SEEN_AFTER: Duration = Duration::from_millis(1_500);
const WINDOW: Duration = Duration::from_secs(3);
/// How long a drain waits for the last sessions.
const LAST: Duration = Duration::from_secs(4);

/// When the lease is renewed, and whether this gateway is on its way out.
pub(super) struct Keeper {
    renew_at: Instant,
    renewed: Option<Instant>,
    drain: Option<Drain>,
}

#[derive(Clone, Copy)]
enum Drain {
    /// The lease says so.
    Told(Instant),
    /// The sessions leave.
    Leaving(Instant),
    /// The lease is being given back.
    Over,
}

impl Keeper {
    pub(super) fn new(now: Instant) -> Self {
        Self { renew_at: now, renewed: None, drain: None }
    }

    pub(super) fn takes_sockets(&self, now: Instant) -> bool {
        self.drain.is_none() && self.renewed.is_some_and(|renewed| now < renewed + PATIENCE)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        match self.drain {
            Some(Drain::Told(at)) => Some(at.min(self.renew_at)),
            Some(Drain::Leaving(at)) => Some(at.min(self.renew_at)),
            Some(Drain::Over) => None,
            None => Some(self.renew_at),
        }
    }
}

impl Life {
    pub(super) fn lease_on_time(&mut self, world: &mut World) {
        let now = world.now;
        if now >= self.keeper.renew_at && !matches!(self.keeper.drain, Some(Drain::Over)) {
            self.renew_lease(world);
        }
        match self.keeper.drain {
            Some(Drain::Told(at)) if now >= at => {
                let mut members = self.hub.members();
                members.sort_by_key(|member| member.session);
                for member in members {
                    member.queue.order(Order::Leave(world.between(Duration::ZERO, WINDOW)));
                }
                self.keeper.drain = Some(Drain::Leaving(now + WINDOW + self.rules.leave_grace + LAST));
            }
            Some(Drain::Leaving(at)) if now >= at || self.hub.sessions() == 0 => {
                self.keeper.drain = Some(Drain::Over);
                self.ask(world, Question::ReleaseLease(self.name(), self.incarnation), Purpose::Release);
            }
            _ => {}
        }
    }

    fn renew_lease(&mut self, world: &mut World) {
        self.keeper.renew_at = world.now + LEASE_RENEWAL;
        let lease = self.lease();
        self.ask(world, Question::RenewLease(lease), Purpose::Lease);
    }

    fn name(&self) -> touchline_ids::GatewayId {
        format!("gw-{}", self.number).parse().expect("a gateway's name")
    }

    fn lease(&self) -> Lease {
        Lease {
            gateway: self.name(),
            incarnation: self.incarnation,
            grpc_url: String::new(),
            public_url: self.number.to_string(),
            state: if self.keeper.is_draining() { GatewayState::Draining } else { GatewayState::Ready },
            sessions: self.hub.sessions(),
            capacity: 100,
            push_streams: u32::try_from(self.streams.len()).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn lease_renewed(&mut self, world: &mut World, answer: Option<Answer>) {
        match answer {
            Some(Answer::Renewed(Renewal::Renewed)) => self.keeper.renewed = Some(world.now),
            Some(Answer::Renewed(Renewal::Missing)) => {
                self.keeper.renewed = Some(world.now);
                if !self.sabotage.no_re_registration {
                    self.restore(world);
                }
            }
            Some(Answer::Renewed(Renewal::Fenced)) => self.drain(world),
            _ => {}
        }
    }

    pub(super) fn drain(&mut self, world: &mut World) {
        if self.keeper.drain.is_none() {
            self.keeper.drain = Some(Drain::Told(world.now + SEEN_AFTER));
            self.renew_lease(world);
        }
    }
}

//! The lease, and leaving in order.

use super::{Life, registry_side::Asked};
use crate::{
    registry::{Answer, Question},
    world::World,
};
use std::time::Duration;
use tokio::time::Instant;
use touchline_registry::{GatewayState, LEASE_LIFE, LEASE_RENEWAL, Lease, Renewal};

/// Without a renewal for so long no new sockets are taken.
const PATIENCE: Duration = Duration::from_secs(30);
/// Without a push stream for so long, while others have some, the gateway leaves.
const ALONE: Duration = Duration::from_secs(30);
/// Between the lease that says so and the first session that leaves: every api has seen it then.
const HEAD_START: Duration = Duration::from_millis(1_500);
const WINDOW: Duration = Duration::from_secs(1);
/// How long a drain waits for the last sessions.
const LAST: Duration = Duration::from_secs(4);

/// When the lease is renewed, and whether this gateway is on its way out.
pub(super) struct Keeper {
    renew_at: Instant,
    /// When the renewal under way began.
    asking: Option<Instant>,
    /// When the last renewal began that was answered, and the last one at all.
    renewed: Option<Instant>,
    asked: Option<Instant>,
    /// The last renewal got no answer.
    unanswered: bool,
    lost: bool,
    alone_since: Option<Instant>,
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
        Self {
            renew_at: now,
            asking: None,
            renewed: None,
            asked: None,
            unanswered: false,
            lost: false,
            alone_since: None,
            drain: None,
        }
    }

    pub(super) fn takes_sockets(&self, now: Instant) -> bool {
        self.drain.is_none()
            && self.renewed.is_some_and(|renewed| now < renewed + PATIENCE)
            && !self.is_in_the_dark(now)
    }

    /// Whether nobody has looked at the lease for longer than it lives: this process was stopped.
    pub(super) fn is_in_the_dark(&self, now: Instant) -> bool {
        self.drain.is_none() && self.asked.is_some_and(|asked| now > asked + LEASE_LIFE)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Whether the registry had lost the lease.
    pub(super) fn was_lost(&self) -> bool {
        self.lost
    }

    pub(super) fn next_wake(&self) -> Instant {
        match self.drain {
            Some(Drain::Told(at) | Drain::Leaving(at)) => at.min(self.renew_at),
            Some(Drain::Over) | None => self.renew_at,
        }
    }
}

impl Life {
    pub(super) fn lease_on_time(&mut self, world: &mut World) {
        let now = world.now;
        if now >= self.keeper.renew_at {
            self.keeper.renew_at = now + LEASE_RENEWAL;
            if self.keeper.asking.is_none() && !matches!(self.keeper.drain, Some(Drain::Over)) {
                self.renew_lease(world);
                self.look_for_apis(world);
            }
        }
        match self.keeper.drain {
            Some(Drain::Told(at)) if now >= at => {
                self.rules.drain(world.between(Duration::ZERO, WINDOW), world.running(self.node));
                self.keeper.drain = Some(Drain::Leaving(now + WINDOW + LAST));
            }
            Some(Drain::Leaving(at)) if now >= at || self.sockets.is_empty() => {
                for wire in self.sockets.clone() {
                    self.send_home(world, wire, 1012);
                }
                self.keeper.drain = Some(Drain::Over);
                self.ask(world, Question::ReleaseLease(self.name(), self.incarnation), Asked::Release);
            }
            _ => {}
        }
    }

    fn renew_lease(&mut self, world: &mut World) {
        self.keeper.asking = Some(world.now);
        let lease = self.lease();
        self.ask(world, Question::RenewLease(lease), Asked::Lease);
    }

    /// No api reaches this gateway, but perhaps others.
    fn look_for_apis(&mut self, world: &mut World) {
        if !self.streams.is_empty() || self.keeper.is_draining() {
            self.keeper.alone_since = None;
            return;
        }
        let running = world.running(self.node);
        let since = *self.keeper.alone_since.get_or_insert(running);
        if running >= since + ALONE {
            self.ask(world, Question::Gateways, Asked::Others);
        }
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
            sessions: self.rules.sessions(),
            capacity: 100,
            push_streams: u32::try_from(self.streams.len()).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn lease_renewed(&mut self, world: &mut World, answer: Option<Answer>) {
        let now = world.now;
        let Some(began) = self.keeper.asking.take() else { return };
        let renewal = match answer {
            Some(Answer::Renewed(renewal)) => Some(renewal),
            _ => None,
        };
        if renewal == Some(Renewal::Fenced) {
            self.keeper.asked = Some(began);
            return self.drain(world, true);
        }
        if now > began + LEASE_LIFE {
            // The process was stopped meanwhile: the answer says nothing about now.
            return self.renew_lease(world);
        }
        let unanswered = std::mem::replace(&mut self.keeper.unanswered, renewal.is_none());
        if let Some(renewal) = renewal {
            // A lease that was not renewed in its life was over, whatever the registry says.
            let expired = self.keeper.renewed.replace(began).is_some_and(|before| began > before + LEASE_LIFE);
            let running = world.running(self.node);
            if renewal == Renewal::Missing || expired {
                self.keeper.lost = self.rules.sessions() > 0;
                self.rules.lost(true, running);
            } else if renewal == Renewal::Doubtful || unanswered {
                self.rules.lost(false, running);
            }
        }
        self.keeper.asked = Some(began);
    }

    /// Leaves in order; at once when another incarnation has this one's place.
    pub(super) fn drain(&mut self, world: &mut World, fenced: bool) {
        if self.keeper.drain.is_none() {
            let head_start = if fenced { Duration::ZERO } else { HEAD_START };
            self.keeper.drain = Some(Drain::Told(world.now + head_start));
            if !fenced {
                self.renew_lease(world);
            }
        }
    }
}

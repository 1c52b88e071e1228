//! The registry's routes in step with the hub. (Stands in for the registrar.)

use super::{Crash, Life, Purpose};
use crate::{
    registry::{Answer, Question},
    world::World,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;
use touchline_gateway::simulation::{Member, Order};
use touchline_registry::{Registered, Registration};

const RETRY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Routes {
    batches: BTreeMap<u64, Vec<Arc<Member>>>,
    last: u64,
    again: Option<Instant>,
}

impl Routes {
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.again
    }
}

impl Life {
    pub(super) fn restore(&mut self, world: &mut World) {
        if self.crash == Some(Crash::MidReregister) {
            self.crashed = true;
            return;
        }
        let mut members = self.hub.members();
        members.sort_by_key(|member| member.session);
        let routes: Vec<_> = members.iter().map(|member| member.registration.clone()).collect();
        self.routes.last += 1;
        let batch = self.routes.last;
        self.routes.batches.insert(batch, members);
        self.ask(world, Question::Register(routes), Purpose::Restore(batch));
    }

    pub(super) fn restored(&mut self, world: &mut World, batch: u64, answer: Option<Answer>) {
        let Some(members) = self.routes.batches.remove(&batch) else { return };
        let Some(Answer::Registered(answers)) = answer else {
            self.routes.again = Some(world.now + RETRY);
            return;
        };
        for (member, answer) in members.into_iter().zip(answers) {
            if !self.hub.holds(&member.registration) {
                self.forget(world, member.registration.clone());
            } else if answer == Registered::Stored {
                member.queue.order(Order::Ready);
            }
        }
    }

    pub(super) fn routes_on_time(&mut self, world: &mut World) {
        if self.routes.again.is_some_and(|at| at <= world.now) {
            self.routes.again = None;
            self.restore(world);
        }
    }

    pub(super) fn forget(&mut self, world: &mut World, registration: Registration) {
        if !self.hub.holds(&registration) {
            self.ask(world, Question::Unregister(vec![registration]), Purpose::Forget);
        }
    }
}

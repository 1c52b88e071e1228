//! Messages on their way: look-ups in, pushes out. What to do is [`Delivery`]'s to say.

use super::{Crash, Crashing, Life, Purpose, view::Groups};
use crate::{
    database, registry,
    world::{World, calls::Failure},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;
use touchline_api::simulation::{Delivery, Holder, Step, Times};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_storage::{Entry, Members};

pub(crate) type Place = (ChannelId, Seq);

pub(crate) const TIMES: Times =
    Times { ack_wait: Duration::from_secs(3), patience: Duration::from_secs(1), second_look: Duration::from_secs(2) };
/// What a look-up may take, and what it may take to learn who is alive.
const LOOK_UP_BUDGET: Duration = Duration::from_millis(100);
const VIEW_BUDGET: Duration = Duration::from_millis(200);

/// A message that waits for its look-up.
pub(super) struct Waiting {
    pub(super) entry: Entry,
    pub(super) members: Arc<Members>,
    pub(super) no_push: bool,
    pub(super) attempt: u32,
}

/// A message on its way.
pub(super) struct Fan {
    pub(super) message: Waiting,
    pub(super) delivery: Delivery,
    pub(super) wake: Option<Instant>,
}

impl Life {
    /// Begins with a message that was stored, or taken over.
    pub(super) fn begin(&mut self, world: &mut World, message: Waiting) {
        let channel = message.entry.channel_id;
        let lane = self.lanes.entry(channel).or_default();
        lane.push_back(message);
        if lane.len() == 1 {
            self.route_next(world, channel);
        }
    }

    fn route_next(&mut self, world: &mut World, channel: ChannelId) {
        let Some(first) = self.lanes.get(&channel).and_then(|lane| lane.front()) else {
            self.lanes.remove(&channel);
            return;
        };
        let users = first.members.users.clone();
        self.look_up(world, users, Purpose::Route(channel));
    }

    fn look_up(&mut self, world: &mut World, users: Vec<UserId>, purpose: Purpose) {
        self.ask_registry(world, registry::Question::LookUp(users), LOOK_UP_BUDGET, purpose);
    }

    pub(super) fn asked_users(&self, purpose: &Purpose) -> Vec<UserId> {
        match purpose {
            Purpose::Route(channel) => {
                let first = self.lanes.get(channel).and_then(|lane| lane.front());
                first.map(|first| first.members.users.clone()).unwrap_or_default()
            }
            Purpose::Look(place, positions) => {
                self.fans.get(place).map(|fan| fan.delivery.users(positions)).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn looked_up(
        &mut self,
        world: &mut World,
        purpose: Purpose,
        answer: Result<registry::Answer, Failure>,
        crash: &mut Crashing,
    ) {
        let users = self.asked_users(&purpose);
        let Ok(registry::Answer::Routes(routes)) = answer else {
            return self.broadcast(world, purpose, &users, crash);
        };
        let groups = self.view.group(&routes, users.len(), world.now);
        if groups.unknown {
            let purpose = Purpose::Alive(Box::new(purpose), routes);
            self.ask_registry(world, registry::Question::Gateways, VIEW_BUDGET, purpose);
        } else {
            self.grouped(world, purpose, groups, &users, crash);
        }
    }

    pub(super) fn grouped(
        &mut self,
        world: &mut World,
        purpose: Purpose,
        groups: Groups,
        users: &[UserId],
        crash: &mut Crashing,
    ) {
        for route in groups.left_out {
            if let Some(user) = users.get(route.index as usize) {
                self.debts.left_out(route.incarnation, *user, world.now);
            }
        }
        self.routed(world, purpose, groups.live, crash);
    }

    /// Without an answer everybody alive is asked.
    pub(super) fn broadcast(&mut self, world: &mut World, purpose: Purpose, users: &[UserId], crash: &mut Crashing) {
        self.debts.broadcast(users, world.now);
        let groups = self.view.everybody(users.len());
        self.routed(world, purpose, groups, crash);
    }

    /// Who holds whom is known: push.
    pub(super) fn routed(
        &mut self,
        world: &mut World,
        purpose: Purpose,
        mut groups: Vec<Holder>,
        crash: &mut Crashing,
    ) {
        let place = match purpose {
            Purpose::Route(channel) => {
                let Some(message) = self.lanes.get_mut(&channel).and_then(|lane| lane.pop_front()) else { return };
                let place = (channel, message.entry.seq);
                let (members, sender) = (Arc::clone(&message.members), message.entry.sender_id);
                let delivery = Delivery::new(members, &sender, message.attempt, TIMES);
                self.fans.insert(place, Fan { message, delivery, wake: None });
                self.route_next(world, channel);
                place
            }
            Purpose::Look(place, positions) => {
                // Positions among those who were asked for, made positions among the members.
                for group in &mut groups {
                    group.users = group.users.iter().filter_map(|at| positions.get(*at as usize)).copied().collect();
                }
                place
            }
            _ => return,
        };
        let Some(fan) = self.fans.get_mut(&place) else { return };
        let pushes = fan.delivery.routed(&groups, world.now);
        let pushed = !pushes.is_empty();
        for push in pushes {
            self.push(world, place, &push);
        }
        if pushed && crash.at(Crash::AfterPush) {
            return;
        }
        self.go_on(world, place);
    }

    /// Does what the delivery wants next.
    pub(super) fn go_on(&mut self, world: &mut World, place: Place) {
        while let Some(fan) = self.fans.get_mut(&place) {
            match fan.delivery.next(world.now) {
                Step::Wait(until) => {
                    fan.wake = Some(until);
                    return;
                }
                Step::LookUp(positions) => {
                    let users = fan.delivery.users(&positions);
                    self.look_up(world, users, Purpose::Look(place, positions));
                }
                Step::Finish { missed } => {
                    let no_push = fan.message.no_push;
                    self.fans.remove(&place);
                    self.finish(world, place, if no_push { Vec::new() } else { missed });
                }
                Step::HandOver => {
                    self.fans.remove(&place);
                    self.takeover.handed_over(world.now);
                    world.note(self.node, || format!("hands {place:?} over"));
                    let owners = self.owners.all(world.now);
                    self.release(world, place, owners);
                }
            }
        }
    }

    pub(super) fn fans_on_time(&mut self, world: &mut World) {
        let due = self.fans.iter().filter(|(_, fan)| fan.wake.is_some_and(|wake| wake <= world.now));
        let due: Vec<_> = due.map(|(place, _)| *place).collect();
        for place in due {
            self.go_on(world, place);
        }
    }

    /// Rows whose claims had ended are this api's now.
    pub(super) fn took(&mut self, world: &mut World, taken: Vec<database::Taken>) {
        let mut by_channel: BTreeMap<Place, database::Taken> = BTreeMap::new();
        by_channel.extend(taken.into_iter().map(|taken| ((taken.entry.channel_id, taken.entry.seq), taken)));
        for (place, taken) in by_channel {
            // Its own row, that a lost claim let go: the fan-out under way goes on.
            if self.fans.contains_key(&place) {
                continue;
            }
            let database::Taken { entry, members, no_push, attempts } = taken;
            self.begin(world, Waiting { entry, members, no_push, attempt: attempts });
        }
    }
}

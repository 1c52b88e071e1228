//! How large a world is, who is in it, and what they will do.

use crate::{
    database::Change,
    faults::Fault,
    names::Names,
    sender::{Deed, What},
};
use rand::{Rng as _, rngs::SmallRng, seq::IndexedRandom as _};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;
use touchline_ids::{ChannelId, UserId};

pub(crate) const APIS: usize = 2;
pub(crate) const GATEWAYS: usize = 3;
const USERS: usize = 5;
const CHANNELS: usize = 3;
const MESSAGES: usize = 40;

/// From when to when there is something to do.
const FIRST: Duration = Duration::from_secs(8);
const LAST: Duration = Duration::from_secs(80);
const LAST_WORD: Duration = Duration::from_secs(90);
/// From when on nothing happens any more, and until when the world goes on.
pub(crate) const END: Duration = Duration::from_secs(190);

/// Who is there.
pub(crate) struct Shape {
    pub(crate) users: Vec<UserId>,
    /// Each device's user.
    pub(crate) devices: Vec<UserId>,
    pub(crate) channels: Vec<(ChannelId, BTreeSet<UserId>)>,
}

impl Shape {
    pub(crate) fn draw(names: &mut Names, chance: &mut SmallRng) -> Self {
        let users: Vec<_> = (0..USERS).map(|_| names.user()).collect();
        let devices = users.iter().flat_map(|user| vec![*user; chance.random_range(1..=3)]).collect();
        let channels = (0..CHANNELS).map(|_| {
            let members = users.iter().filter(|_| chance.random_ratio(3, 4)).copied();
            let mut members: BTreeSet<_> = members.collect();
            members.insert(users[0]);
            (names.channel(), members)
        });
        let channels = channels.collect();
        Self { users, devices, channels }
    }

    /// What everybody sends, most of it near a fault, and who comes and goes.
    pub(crate) fn deeds(&self, faults: &[Fault], began: Instant, chance: &mut SmallRng) -> Vec<Vec<Deed>> {
        let mut deeds = vec![Vec::new(); self.users.len()];
        for number in 0..MESSAGES {
            let (channel, members) = self.channels.choose(chance).expect("there are some");
            let members: Vec<_> = members.iter().copied().collect();
            let sender = *members.choose(chance).expect("there are some");
            let at = began + when(faults, chance);
            let name = format!("m{number}").parse().expect("a name");
            let who = self.users.iter().position(|user| *user == sender).unwrap_or_default();
            deeds[who].push(Deed { at, what: What::Send { channel: *channel, sender, name } });
        }
        // A last word after everything, by which apis and devices notice what the database lost.
        let (channel, sender) = (self.channels[0].0, self.users[0]);
        let name = "last".parse().expect("a name");
        deeds[0].push(Deed { at: began + LAST_WORD, what: What::Send { channel, sender, name } });
        for _ in 0..chance.random_range(0..=4) {
            let (channel, _) = self.channels.choose(chance).expect("there are some");
            // The first user stays, so that nobody runs out of senders.
            let user = self.users[chance.random_range(1..self.users.len())];
            let change = if chance.random() { Change::Add(user) } else { Change::Remove(user) };
            deeds[0].push(Deed { at: began + when(faults, chance), what: What::Change { channel: *channel, change } });
        }
        deeds
    }
}

/// Some time, or one around the beginning or the end of a fault.
fn when(faults: &[Fault], chance: &mut SmallRng) -> Duration {
    let some_time = Duration::from_micros(chance.random_range(FIRST.as_micros() as u64..LAST.as_micros() as u64));
    let Some(fault) = faults.choose(chance).filter(|_| chance.random_ratio(2, 3)) else { return some_time };
    let moment = if chance.random() { fault.at } else { fault.at + fault.lasts };
    (moment + Duration::from_micros(chance.random_range(0..6_000_000))).saturating_sub(Duration::from_secs(1))
}

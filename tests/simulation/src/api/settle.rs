//! The end of a message's fan-out, and acks on their way into the database.

use super::{Life, Purpose, fan_out::Place};
use crate::{
    database,
    world::{World, calls::Failure},
};
use std::{collections::btree_map::Entry, time::Duration};
use tokio::time::Instant;
use touchline_ids::{ChannelId, Seq, UserId};
use uuid::Uuid;

/// Between tries while the database is away.
const RETRY: Duration = Duration::from_secs(1);

impl Life {
    /// Notification rows first, then the outbox row goes; each again while the database is away.
    pub(super) fn finish(&mut self, world: &mut World, (channel, seq): Place, missed: Vec<UserId>) {
        if missed.is_empty() {
            let question = database::Question::Finish(vec![(channel, seq)]);
            return self.ask_database(world, question, Purpose::Finished((channel, seq)));
        }
        let rows = missed.iter().map(|user| (*user, channel, seq)).collect();
        let question = database::Question::Notify(rows);
        self.ask_database(world, question, Purpose::Notified((channel, seq), missed));
    }

    pub(super) fn settled(&mut self, world: &mut World, purpose: Purpose, answer: Result<database::Answer, Failure>) {
        match (purpose, answer) {
            (Purpose::Notified(place, _), Ok(_)) => self.finish(world, place, Vec::new()),
            (Purpose::Released(place, mut owners), Ok(_)) => {
                owners.pop();
                self.release(world, place, owners);
            }
            (purpose @ (Purpose::Notified(..) | Purpose::Finished(_) | Purpose::Released(..)), Err(_)) => {
                self.again.push((world.now + RETRY, purpose));
            }
            (Purpose::Delivered(acks), Err(_)) => {
                for (user, channel, seq) in acks {
                    self.note_ack(user, channel, seq);
                }
            }
            _ => {}
        }
    }

    /// Lets a row go, whichever of these owners has it.
    pub(super) fn release(&mut self, world: &mut World, place: Place, owners: Vec<Uuid>) {
        if let Some(owner) = owners.last().copied() {
            let question = database::Question::Release { messages: vec![place], owner };
            self.ask_database(world, question, Purpose::Released(place, owners));
        }
    }

    /// What failed is tried again.
    pub(super) fn again_on_time(&mut self, world: &mut World) {
        let (due, later) = std::mem::take(&mut self.again).into_iter().partition(|(at, _)| *at <= world.now);
        self.again = later;
        let due: Vec<(Instant, Purpose)> = due;
        for (_, purpose) in due {
            match purpose {
                Purpose::Notified(place, missed) => self.finish(world, place, missed),
                Purpose::Finished(place) => self.finish(world, place, Vec::new()),
                Purpose::Released(place, owners) => self.release(world, place, owners),
                _ => {}
            }
        }
    }

    pub(super) fn note_ack(&mut self, user: UserId, channel: ChannelId, seq: Seq) {
        match self.acks.entry((user, channel)) {
            Entry::Vacant(none) => drop(none.insert(seq)),
            Entry::Occupied(mut held) => drop(held.insert(seq.max(*held.get()))),
        }
    }

    pub(super) fn write_acks(&mut self, world: &mut World) {
        if self.acks.is_empty() {
            return;
        }
        let acks: Vec<_> =
            std::mem::take(&mut self.acks).into_iter().map(|((user, channel), seq)| (user, channel, seq)).collect();
        let question = database::Question::Delivered(acks.clone());
        self.ask_database(world, question, Purpose::Delivered(acks));
    }
}

//! Whether the delivery contract held, once every fault is healed and some time has passed.

use crate::{
    Faults,
    database::{Channel, MAX_ATTEMPTS},
    simulation::Simulation,
};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;
use touchline_ids::{ChannelId, MessageId, Seq, UserId};
use touchline_storage::{Entry, Kind};

/// In so long healthy connected devices have a message, under any single fault.
const PROMISED: Duration = Duration::from_secs(6);

/// What is wrong; nothing when all is well.
pub(crate) fn judge(simulation: &Simulation, faults: Faults) -> Vec<String> {
    let mut wrong = simulation.world.record.violations.clone();
    let judge = Judge { simulation };
    judge.everybody_knows(&mut wrong);
    judge.accepted_once(&mut wrong);
    judge.outbox_is_empty(&mut wrong);
    for (number, user) in simulation.shape.devices.iter().enumerate() {
        judge.device_shows_its_interval(number, *user, &mut wrong);
        judge.shows_nothing_else(number, *user, &mut wrong);
        if matches!(faults, Faults::None | Faults::One) {
            judge.in_time(number, *user, &mut wrong);
        }
    }
    judge.delivered_or_notified(&mut wrong);
    if faults == Faults::None {
        judge.no_false_notification(&mut wrong);
    }
    if !simulation.faults.iter().any(|fault| fault.may_close()) {
        judge.nobody_was_sent_home(&mut wrong);
    }
    wrong
}

struct Judge<'a> {
    simulation: &'a Simulation,
}

impl Judge<'_> {
    fn channels(&self) -> impl Iterator<Item = (ChannelId, &Channel)> {
        self.simulation.world.database.channels.iter().map(|(id, channel)| (*id, channel))
    }

    fn devices_of(&self, user: UserId) -> impl Iterator<Item = usize> {
        let devices = self.simulation.shape.devices.iter().enumerate();
        devices.filter(move |(_, of)| **of == user).map(|(number, _)| number)
    }

    fn is_online(&self, device: usize) -> bool {
        self.simulation.devices[device].is_online()
    }

    /// A world that ends too early shows nothing.
    fn everybody_knows(&self, wrong: &mut Vec<String>) {
        if !self.simulation.senders.iter().all(|sender| sender.is_done()) {
            wrong.push("a sender has no answer at the end".to_owned());
        }
        for (number, device) in self.simulation.devices.iter().enumerate() {
            if device.runs() && !device.is_online() {
                wrong.push(format!("device {number} is not online at the end"));
            }
        }
    }

    /// Every accepted message stands once in the database, where the sender was told, and seqs are dense.
    fn accepted_once(&self, wrong: &mut Vec<String>) {
        let record = &self.simulation.world.record;
        for (id, channel) in self.channels() {
            if channel.log.iter().enumerate().any(|(at, entry)| entry.seq.0 != at as i64 + 1) {
                wrong.push(format!("{id} is not dense"));
            }
        }
        let entries = self.channels().flat_map(|(_, channel)| &channel.log).map(|entry| entry.message_id);
        let all: Vec<_> = entries.collect();
        let once: BTreeSet<_> = all.iter().collect();
        if once.len() < all.len() {
            wrong.push("a message stands twice in the database".to_owned());
        }
        for (name, (channel, seq, id)) in &record.accepted {
            let stored = self.entry(*channel, *seq).is_some_and(|entry| entry.message_id == *id);
            if !stored && !record.tail_lost {
                wrong.push(format!("accepted and lost: {} at {channel} {seq}", name.as_str()));
            }
        }
    }

    fn entry(&self, channel: ChannelId, seq: Seq) -> Option<&Entry> {
        self.simulation.world.database.channels.get(&channel)?.entry(seq)
    }

    fn outbox_is_empty(&self, wrong: &mut Vec<String>) {
        for ((channel, seq), row) in &self.simulation.world.database.outbox {
            wrong
                .push(format!("{channel} {seq} stays in the outbox after {} of {MAX_ATTEMPTS} attempts", row.attempts));
        }
    }

    /// Whoever is online shows everything from where they joined to the end: dense, in order, once.
    fn device_shows_its_interval(&self, device: usize, user: UserId, wrong: &mut Vec<String>) {
        if !self.is_online(device) {
            return;
        }
        for (id, channel, interval) in self.simulation.world.database.channels_of(user) {
            let shown = self.simulation.world.record.log(device, id);
            let expected: Vec<_> = channel.log.iter().filter(|entry| interval.sees(entry.seq)).collect();
            let same = |(entry, (seq, id)): (&&Entry, &(Seq, MessageId))| entry.seq == *seq && entry.message_id == *id;
            if expected.len() != shown.len() || !expected.iter().zip(shown).all(same) {
                let shown: Vec<_> = shown.iter().map(|(seq, _)| seq.0).collect();
                let (first, last) = (interval.joined, channel.last_seq());
                wrong.push(format!("device {device} is to show {first} to {last} of {id} and shows {shown:?}"));
            }
        }
    }

    /// Nothing outside of the membership, ever.
    fn shows_nothing_else(&self, device: usize, user: UserId, wrong: &mut Vec<String>) {
        let Some(shown) = self.simulation.world.record.devices.get(&device) else { return };
        for (id, channel) in self.channels() {
            let foreign = channel.log.iter().filter(|entry| !channel.shows(user, entry.seq));
            for entry in foreign.filter(|entry| shown.ever.contains_key(&entry.message_id)) {
                wrong.push(format!("device {device} shows {} of {id}, which its user may not see", entry.seq));
            }
        }
    }

    /// Of every message each recipient has a device that holds it, or a notification.
    fn delivered_or_notified(&self, wrong: &mut Vec<String>) {
        let database = &self.simulation.world.database;
        for (id, channel) in self.channels() {
            for entry in channel.log.iter().filter(|entry| entry.kind == Kind::Text) {
                for user in channel.members_at(entry.seq).users.iter().filter(|user| **user != entry.sender_id) {
                    let notified = self.is_notified(*user, id, entry.seq);
                    // An ack of the lost log may still be under way when the gateway forgets such acks. The device's
                    // sync makes good for it, but not for who is removed before.
                    let tail_lost = self.simulation.world.record.tail_lost;
                    if tail_lost && self.removal(id, *user, entry.seq).is_some() {
                        continue;
                    }
                    if !notified && !self.has(*user, entry.message_id) {
                        wrong.push(format!("{user} has {} of {id} on no device and is not notified", entry.seq));
                    }
                }
            }
        }
        for ((user, id), up_to) in &database.notifications {
            let online = self.devices_of(*user).any(|device| self.is_online(device));
            let member = database.channels.get(id).is_some_and(|channel| channel.interval(*user).is_some());
            if online && member {
                wrong.push(format!("{user} is online and still notified of {id} {up_to}"));
            }
        }
    }

    /// Whether there is a notification; for a membership that ended, whether there was one. Who was removed and came
    /// back begins anew: a device's acks in the new membership stand for the one before as well.
    fn is_notified(&self, user: UserId, id: ChannelId, seq: Seq) -> bool {
        let database = &self.simulation.world.database;
        let stands = database.notifications.get(&(user, id)).is_some_and(|up_to| *up_to >= seq);
        let was = |(_, of, channel, at): &(Instant, UserId, ChannelId, Seq)| (*of, *channel, *at) == (user, id, seq);
        let removed = self.removal(id, user, seq).is_some();
        let back = database.channels.get(&id).is_some_and(|channel| channel.came_back(user, seq));
        stands || removed && (back || database.notified.iter().any(was))
    }

    fn has(&self, user: UserId, message: MessageId) -> bool {
        let devices = &self.simulation.world.record.devices;
        self.devices_of(user).any(|device| devices.get(&device).is_some_and(|shown| shown.ever.contains_key(&message)))
    }

    /// Whether the device was connected and up to date from one time to another.
    fn is_healthy(&self, device: usize, from: Instant, to: Instant) -> bool {
        let shown = self.simulation.world.record.devices.get(&device);
        shown.is_some_and(|shown| {
            shown.healthy.iter().any(|(since, until)| *since <= from && until.is_none_or(|until| until >= to))
        })
    }

    /// A device that is healthy all the while has a message in time.
    fn in_time(&self, device: usize, user: UserId, wrong: &mut Vec<String>) {
        let world = &self.simulation.world;
        let Some(shown) = world.record.devices.get(&device) else { return };
        for (id, channel) in self.channels() {
            for entry in channel.log.iter().filter(|entry| channel.shows(user, entry.seq)) {
                let Some(committed) = world.database.committed.get(&(id, entry.seq)).copied() else { continue };
                let late = committed + PROMISED;
                // Whoever is removed meanwhile may not see it any more.
                let removed = self.removal(id, user, entry.seq).is_some_and(|at| at <= late);
                if removed || shown.ever.get(&entry.message_id).is_some_and(|at| *at <= late) {
                    continue;
                }
                if self.is_healthy(device, committed, late) && !self.simulation.was_hit(committed, late) {
                    let took = shown.ever.get(&entry.message_id).map(|at| at.duration_since(committed));
                    wrong.push(format!("device {device} has {} of {id} after {took:?} only", entry.seq));
                }
            }
        }
    }

    /// When the membership in which `user` sees `seq` ended.
    fn removal(&self, id: ChannelId, user: UserId, seq: Seq) -> Option<Instant> {
        let database = &self.simulation.world.database;
        let left = database.channels.get(&id)?.seen_by(user, seq)?.left?;
        database.committed.get(&(id, left)).copied()
    }

    fn no_false_notification(&self, wrong: &mut Vec<String>) {
        for (at, user, channel, seq) in &self.simulation.world.database.notified {
            let healthy = |device| self.is_healthy(device, *at - PROMISED, *at);
            if self.devices_of(*user).any(healthy) {
                wrong.push(format!("{user} is online and is notified of {channel} {seq}"));
            }
        }
    }

    /// No session is closed because the registry or the database is away.
    fn nobody_was_sent_home(&self, wrong: &mut Vec<String>) {
        let closes = &self.simulation.world.record.closes;
        if !closes.is_empty() {
            wrong.push(format!("sessions were closed, by code: {closes:?}"));
        }
    }
}

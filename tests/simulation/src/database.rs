//! The database as storage shows it: one transaction at a time, dense seqs, outbox rows claimed by its own clock. It can
//! be away, answer too late, and lose the end of what it had.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use touchline_ids::{ChannelId, ClientMessageId, MessageId, Seq, UserId};
use touchline_storage::{Entry, Kind, Members};
use uuid::Uuid;

mod log;
mod outbox;
mod sync;

pub(crate) use log::{Channel, Interval};
pub(crate) use outbox::{MAX_ATTEMPTS, Row};
pub(crate) use sync::{Cursor, Synced, SyncedChannel};

/// What is asked of it: one transaction, or one read, each.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    Append { message: NewMessage, owner: Uuid },
    Change { channel: ChannelId, change: Change, message_id: MessageId, owner: Uuid },
    Sync { user: UserId, cursors: Vec<Cursor>, recent: i64 },
    Finish(Vec<(ChannelId, Seq)>),
    Notify(Vec<(UserId, ChannelId, Seq)>),
    Delivered(Vec<(UserId, ChannelId, Seq)>),
    RenewClaims(Uuid),
    TakeExpired { owner: Uuid, limit: usize, waited: Duration },
    Release { messages: Vec<(ChannelId, Seq)>, owner: Uuid },
    ReleaseAll(Vec<Uuid>),
}

/// What it answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Appended(Appended),
    Synced(Synced),
    Taken(Vec<Taken>),
    Done,
}

/// A message to store.
#[derive(Debug, Clone)]
pub(crate) struct NewMessage {
    pub(crate) channel: ChannelId,
    pub(crate) sender: UserId,
    pub(crate) name: ClientMessageId,
    pub(crate) id: MessageId,
}

/// A change of who is in a channel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Add(UserId),
    Remove(UserId),
}

/// What became of a message or a change.
#[derive(Debug, Clone)]
pub(crate) enum Appended {
    Stored { entry: Entry, members: Arc<Members> },
    Duplicate { seq: Seq, id: MessageId },
    NotAMember,
    Unchanged,
}

/// An outbox row that was taken over.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) entry: Entry,
    /// Who was in the channel at its seq.
    pub(crate) members: Arc<Members>,
    pub(crate) no_push: bool,
    pub(crate) attempts: u32,
}

/// Everything in it.
#[derive(Clone, Default)]
pub(crate) struct Database {
    pub(crate) channels: BTreeMap<ChannelId, Channel>,
    pub(crate) outbox: BTreeMap<(ChannelId, Seq), Row>,
    /// The greatest seq somebody is to be notified of.
    pub(crate) notifications: BTreeMap<(UserId, ChannelId), Seq>,
    /// Every notification there ever was, with its time; not in the real one, for the verdict.
    pub(crate) notified: Vec<(Instant, UserId, ChannelId, Seq)>,
    /// When each entry was stored, likewise.
    pub(crate) committed: BTreeMap<(ChannelId, Seq), Instant>,
    /// Another one after every start: who kept something of it must forget it.
    pub(crate) epoch: u64,
    /// How far its clock is ahead.
    pub(crate) ahead: Duration,
}

impl Database {
    /// Carries out one question, whole.
    pub(crate) fn ask(&mut self, question: Question, now: Instant) -> Answer {
        let by_its_clock = now + self.ahead;
        match question {
            Question::Append { message, owner } => Answer::Appended(self.append(message, owner, by_its_clock)),
            Question::Change { channel, change, message_id, owner } => {
                Answer::Appended(self.change(channel, change, message_id, owner, by_its_clock))
            }
            Question::Sync { user, cursors, recent } => Answer::Synced(self.sync(user, &cursors, recent)),
            Question::TakeExpired { owner, limit, waited } => {
                Answer::Taken(self.take_expired(owner, limit, waited, by_its_clock))
            }
            other => {
                self.settle(other, now, by_its_clock);
                Answer::Done
            }
        }
    }

    fn settle(&mut self, question: Question, now: Instant, by_its_clock: Instant) {
        match question {
            Question::Finish(messages) => self.outbox.retain(|place, _| !messages.contains(place)),
            Question::Notify(missed) => missed.into_iter().for_each(|missed| self.notify(missed, now)),
            Question::Delivered(acks) => acks.into_iter().for_each(|ack| self.delivered(ack)),
            Question::RenewClaims(owner) => self.renew(owner, by_its_clock),
            Question::Release { messages, owner } => self.release(&messages, owner, by_its_clock),
            Question::ReleaseAll(owners) => self.release_all(&owners, by_its_clock),
            _ => {}
        }
    }

    /// Nobody acked this for the user, unless they did by now.
    fn notify(&mut self, (user, channel, seq): (UserId, ChannelId, Seq), now: Instant) {
        let Some(stored) = self.channels.get(&channel) else { return };
        if stored.delivered(user) >= seq || seq > stored.last_seq() {
            return;
        }
        let up_to = self.notifications.entry((user, channel)).or_insert(seq);
        *up_to = (*up_to).max(seq);
        self.notified.push((now, user, channel, seq));
    }

    /// The user holds everything up to there: a late ack cancels.
    fn delivered(&mut self, (user, channel, seq): (UserId, ChannelId, Seq)) {
        if let Some(stored) = self.channels.get_mut(&channel) {
            stored.raise_delivered(user, seq);
        }
        if self.notifications.get(&(user, channel)).is_some_and(|up_to| *up_to <= seq) {
            self.notifications.remove(&(user, channel));
        }
    }

    /// The channels a user is in.
    pub(crate) fn channels_of(&self, user: UserId) -> impl Iterator<Item = (ChannelId, &Channel, Interval)> {
        self.channels.iter().filter_map(move |(id, channel)| Some((*id, channel, channel.interval(user)?)))
    }

    /// A new channel of these users; its first entry needs no fan-out, for nobody has begun.
    pub(crate) fn create(&mut self, id: ChannelId, first: MessageId, users: &BTreeSet<UserId>) {
        let mut channel = Channel::default();
        channel.push(Entry {
            channel_id: id,
            seq: Seq(1),
            message_id: first,
            sender_id: UserId(Uuid::nil()),
            kind: Kind::Created,
            content: "{}".to_owned(),
            created_at_ms: 0,
            prev: None,
        });
        users.iter().for_each(|user| channel.join(*user, Seq(1)));
        self.channels.insert(id, channel);
    }
}

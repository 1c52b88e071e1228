//! Channels: a log with dense seqs, and who sees which part of it.

use super::{Appended, Change, Database, NewMessage, Row};
use std::{collections::BTreeMap, sync::Arc};
use tokio::time::Instant;
use touchline_ids::{ChannelId, ClientMessageId, MessageId, Seq, UserId};
use touchline_storage::{Entry, Kind, Members};
use uuid::Uuid;

/// One channel.
#[derive(Clone, Default)]
pub(crate) struct Channel {
    pub(crate) log: Vec<Entry>,
    by_name: BTreeMap<(UserId, ClientMessageId), (Seq, MessageId)>,
    /// In the order in which they began.
    members: BTreeMap<UserId, Vec<Interval>>,
    version: i64,
}

/// What a member sees: from `joined` to before `left`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interval {
    pub(crate) joined: Seq,
    pub(crate) left: Option<Seq>,
    pub(crate) delivered: Seq,
}

impl Interval {
    pub(crate) fn sees(&self, seq: Seq) -> bool {
        seq >= self.joined && self.left.is_none_or(|left| seq < left)
    }
}

impl Channel {
    pub(crate) fn last_seq(&self) -> Seq {
        self.log.last().map_or(Seq(0), |entry| entry.seq)
    }

    pub(crate) fn entry(&self, seq: Seq) -> Option<&Entry> {
        self.log.get(usize::try_from(seq.0 - 1).ok()?)
    }

    pub(crate) fn last(&self) -> Option<&Entry> {
        self.log.last()
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.log.push(entry);
    }

    pub(crate) fn join(&mut self, user: UserId, at: Seq) {
        self.members.entry(user).or_default().push(Interval { joined: at, left: None, delivered: Seq(0) });
        self.version += 1;
    }

    fn leave(&mut self, user: UserId, at: Seq) {
        if let Some(interval) = self.open(user) {
            interval.left = Some(at);
            self.version += 1;
        }
    }

    fn open(&mut self, user: UserId) -> Option<&mut Interval> {
        self.members.get_mut(&user)?.last_mut().filter(|interval| interval.left.is_none())
    }

    /// The interval of `user` that has not ended.
    pub(crate) fn interval(&self, user: UserId) -> Option<Interval> {
        self.members.get(&user)?.last().copied().filter(|interval| interval.left.is_none())
    }

    /// The membership in which `user` sees `seq`.
    pub(crate) fn seen_by(&self, user: UserId, seq: Seq) -> Option<Interval> {
        self.members.get(&user)?.iter().find(|interval| interval.sees(seq)).copied()
    }

    /// Whether a membership of `user` began after `seq`.
    pub(crate) fn came_back(&self, user: UserId, seq: Seq) -> bool {
        self.members.get(&user).is_some_and(|intervals| intervals.iter().any(|interval| interval.joined > seq))
    }

    /// Whether `user` may ever see `seq`.
    pub(crate) fn shows(&self, user: UserId, seq: Seq) -> bool {
        self.seen_by(user, seq).is_some()
    }

    pub(crate) fn delivered(&self, user: UserId) -> Seq {
        self.interval(user).map_or(Seq(0), |interval| interval.delivered)
    }

    pub(crate) fn raise_delivered(&mut self, user: UserId, seq: Seq) {
        if let Some(interval) = self.open(user) {
            interval.delivered = interval.delivered.max(seq);
        }
    }

    /// Who is in the channel at a place of its log.
    pub(crate) fn members_at(&self, seq: Seq) -> Arc<Members> {
        let there = |intervals: &[Interval]| intervals.iter().any(|interval| interval.sees(seq));
        let users = self.members.iter().filter(|(_, intervals)| there(intervals)).map(|(user, _)| *user).collect();
        Arc::new(Members { version: self.version, users })
    }
}

impl Database {
    pub(super) fn append(&mut self, message: NewMessage, owner: Uuid, by_its_clock: Instant) -> Appended {
        let Some(channel) = self.channels.get_mut(&message.channel) else { return Appended::NotAMember };
        let key = (message.sender, message.name.clone());
        if let Some((seq, id)) = channel.by_name.get(&key).copied() {
            return Appended::Duplicate { seq, id };
        }
        if channel.interval(message.sender).is_none() {
            return Appended::NotAMember;
        }
        let seq = channel.last_seq().next();
        channel.by_name.insert(key, (seq, message.id));
        let entry = entry(message.channel, seq, message.id, message.sender, Kind::Text);
        self.store(entry, false, owner, by_its_clock)
    }

    pub(super) fn change(
        &mut self,
        id: ChannelId,
        change: Change,
        message_id: MessageId,
        owner: Uuid,
        by_its_clock: Instant,
    ) -> Appended {
        let Some(channel) = self.channels.get_mut(&id) else { return Appended::NotAMember };
        let seq = channel.last_seq().next();
        let (user, kind) = match change {
            Change::Add(user) if channel.interval(user).is_none() => {
                channel.join(user, seq);
                (user, Kind::Joined)
            }
            Change::Remove(user) if channel.interval(user).is_some() => {
                channel.leave(user, seq);
                (user, Kind::Left)
            }
            Change::Add(_) | Change::Remove(_) => return Appended::Unchanged,
        };
        // Nobody is notified of a change.
        self.store(entry(id, seq, message_id, user, kind), true, owner, by_its_clock)
    }

    fn store(&mut self, mut entry: Entry, no_push: bool, owner: Uuid, by_its_clock: Instant) -> Appended {
        let Some(channel) = self.channels.get_mut(&entry.channel_id) else { return Appended::NotAMember };
        entry.prev = channel.last().map(|before| before.message_id.check());
        channel.push(entry.clone());
        self.committed.insert((entry.channel_id, entry.seq), by_its_clock - self.ahead);
        self.outbox.insert((entry.channel_id, entry.seq), Row::new(owner, no_push, by_its_clock));
        Appended::Stored { members: channel.members_at(entry.seq), entry }
    }
}

fn entry(channel_id: ChannelId, seq: Seq, message_id: MessageId, sender_id: UserId, kind: Kind) -> Entry {
    Entry { channel_id, seq, message_id, sender_id, kind, content: "{}".to_owned(), created_at_ms: 0, prev: None }
}

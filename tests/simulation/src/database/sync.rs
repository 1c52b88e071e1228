//! What a device missed, from the cursors it holds; by the rules of storage's `sync`.

use super::{Channel, Database, Interval};
use std::collections::BTreeSet;
use touchline_ids::{ChannelId, Check, Seq, UserId};
use touchline_storage::Entry;

/// Entries of one channel in one answer; few, so that `more` happens in a small world.
const PER_CHANNEL: i64 = 12;

/// Up to where a device holds a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) channel: ChannelId,
    pub(crate) seq: Seq,
    pub(crate) check: Option<Check>,
}

/// What the device needs to be up to date.
#[derive(Debug, Clone, Default)]
pub(crate) struct Synced {
    pub(crate) channels: Vec<SyncedChannel>,
    pub(crate) gone: Vec<ChannelId>,
    /// Cursors that were found right: as good as acks.
    pub(crate) right: Vec<(ChannelId, Seq)>,
}

/// What it needs of one channel.
#[derive(Debug, Clone)]
pub(crate) struct SyncedChannel {
    pub(crate) channel: ChannelId,
    pub(crate) head: Seq,
    pub(crate) entries: Vec<Entry>,
    pub(crate) more: bool,
    pub(crate) reset: bool,
}

impl Database {
    pub(super) fn sync(&self, user: UserId, cursors: &[Cursor], recent: i64) -> Synced {
        let mut synced = Synced::default();
        for cursor in cursors {
            let Some((channel, interval)) = self.seen(user, cursor.channel) else {
                synced.gone.push(cursor.channel);
                continue;
            };
            let right = continues(channel, interval, cursor);
            if right {
                synced.right.push((cursor.channel, cursor.seq));
            }
            if !right {
                synced.channels.push(newest(cursor.channel, channel, interval, recent));
            } else if cursor.seq < channel.last_seq() {
                synced.channels.push(rest(cursor, channel));
            }
        }
        let named: BTreeSet<_> = cursors.iter().map(|cursor| cursor.channel).collect();
        let others = self.channels_of(user).filter(|(id, _, _)| !named.contains(id));
        synced.channels.extend(others.map(|(id, channel, interval)| newest(id, channel, interval, recent)));
        synced
    }

    fn seen(&self, user: UserId, id: ChannelId) -> Option<(&Channel, Interval)> {
        let channel = self.channels.get(&id)?;
        Some((channel, channel.interval(user)?))
    }
}

/// Whether the device holds what stands at its cursor, and may go on from there.
fn continues(channel: &Channel, interval: Interval, cursor: &Cursor) -> bool {
    if cursor.seq.0 == interval.joined.0 - 1 {
        return true;
    }
    if cursor.seq < interval.joined || cursor.seq > channel.last_seq() {
        return false;
    }
    let held = channel.entry(cursor.seq).map(|entry| entry.message_id.check());
    cursor.check.is_none_or(|check| held == Some(check))
}

fn rest(cursor: &Cursor, channel: &Channel) -> SyncedChannel {
    let last = channel.last_seq().0.min(cursor.seq.0 + PER_CHANNEL);
    let more = last < channel.last_seq().0;
    entries(cursor.channel, channel, cursor.seq.0 + 1, last, more, false)
}

fn newest(id: ChannelId, channel: &Channel, interval: Interval, recent: i64) -> SyncedChannel {
    let last = channel.last_seq().0;
    entries(id, channel, interval.joined.0.max(last - recent + 1), last, false, true)
}

fn entries(id: ChannelId, channel: &Channel, first: i64, last: i64, more: bool, reset: bool) -> SyncedChannel {
    let entries = (first..=last).filter_map(|seq| channel.entry(Seq(seq)).cloned()).collect();
    SyncedChannel { channel: id, head: channel.last_seq(), entries, more, reset }
}

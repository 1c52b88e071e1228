//! What a device missed, from the cursors it holds.

use crate::{
    Entry, Storage,
    entity::{channels, members, messages},
    error::Result,
    history::Range,
    rows::KEYS,
};
use sea_orm::{
    FromQueryResult,
    sea_query::{Expr, ExprTrait, Query, SelectStatement},
};
use std::{
    cmp::{max, min},
    collections::{BTreeMap, HashMap, HashSet},
};
use touchline_ids::{ChannelId, MessageId, Seq, UserId};

/// Entries of one channel in one answer.
const PER_CHANNEL: i64 = 200;
/// Entries in one answer.
const IN_ALL: i64 = 1_000;
/// Bytes of content in one answer: a thousand of the longest entries would be 48 MiB.
const BYTES: usize = 1024 * 1024;

/// Up to where a device holds a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Which channel.
    pub channel_id: ChannelId,
    /// The last position it holds; 0 for nothing.
    pub seq: Seq,
    /// The check of the entry at `seq` ([`touchline_ids::MessageId::check`]), so that a log which lost its tail and
    /// grew again is noticed.
    pub check: Option<u32>,
}

/// What the device needs to be up to date.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Synced {
    /// Channels with something new: those named by cursors in their order, then the others by id.
    pub channels: Vec<SyncedChannel>,
    /// Channels named by cursors that the user is not in (any more), or that never were.
    pub gone: Vec<ChannelId>,
    /// Cursors that are right and further than what the user's devices had acked before: as good as acks.
    pub acked: Vec<(ChannelId, Seq)>,
}

/// What the device needs of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedChannel {
    /// Which.
    pub channel_id: ChannelId,
    /// The log's last position.
    pub head_seq: Seq,
    /// Oldest first, dense.
    pub entries: Vec<Entry>,
    /// There are more after the last of `entries`: ask again.
    pub more: bool,
    /// Do not continue from the cursor: what is held of this channel ends here, start from these entries (the newest
    /// ones) or, when there are none, from `head_seq`.
    pub reset: bool,
}

impl Storage {
    /// Everything after each cursor, at most 200 entries a channel, 1,000 and 1 MiB of content in all, and the newest `recent` entries
    /// of the user's channels that no cursor names. A channel whose cursor is at its end is left out. A cursor beyond
    /// the end, before the user's membership or with a wrong check gets a `reset`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sync(&self, user: UserId, cursors: &[Cursor], recent: u32) -> Result<Synced> {
        // One look at the memberships settles what the user may see; see `history`.
        let heads: Vec<Head> = self.read_all(&heads(user)).await?;
        let heads = heads.into_iter().map(|head| (head.channel_id, head)).collect();
        let wrong = self.wrong_checks(&heads, cursors).await?;
        let (planned, gone) = plan(&heads, cursors, &wrong, i64::from(recent));

        let ranges: Vec<_> = planned.iter().map(|planned| planned.range.clone()).collect();
        let mut found: HashMap<ChannelId, Vec<Entry>> = HashMap::with_capacity(planned.len());
        let (entries, full) = self.entries_within(&ranges, BYTES).await?;
        for entry in entries {
            found.entry(entry.channel_id).or_default().push(entry);
        }
        let channels = planned.into_iter().map(|planned| {
            let Planned { range, head_seq, more, reset } = planned;
            let entries = found.remove(&range.channel_id).unwrap_or_default();
            let cut = full && entries.last().map_or(!reset, |last| last.seq.0 < *range.seqs.end());
            SyncedChannel { channel_id: range.channel_id, head_seq, entries, more: more || cut, reset }
        });
        let acked = acked(&heads, cursors, &wrong);
        Ok(Synced { channels: channels.collect(), gone, acked })
    }

    /// The channels whose entry at the cursor is not the one the device holds.
    async fn wrong_checks(&self, heads: &BTreeMap<ChannelId, Head>, cursors: &[Cursor]) -> Result<HashSet<ChannelId>> {
        let mut checks: HashMap<(ChannelId, Seq), u32> = HashMap::new();
        for cursor in cursors {
            if let Some(check) = cursor.check
                && heads.get(&cursor.channel_id).is_some_and(|head| head.sees(cursor.seq))
            {
                checks.insert((cursor.channel_id, cursor.seq), check);
            }
        }
        let places: Vec<_> = checks.keys().copied().collect();
        for some in places.chunks(KEYS) {
            for entry in self.read_all::<Place>(&at(some)).await? {
                let place = (entry.channel_id, entry.seq);
                if checks.get(&place) == Some(&entry.id.check()) {
                    checks.remove(&place);
                }
            }
        }
        Ok(checks.into_keys().map(|(channel, _)| channel).collect())
    }
}

/// A channel of the user's: the part of the log they see.
#[derive(Debug, Clone, Copy, FromQueryResult)]
struct Head {
    channel_id: ChannelId,
    joined_seq: Seq,
    last_seq: Seq,
    delivered_seq: Seq,
}

impl Head {
    fn sees(&self, seq: Seq) -> bool {
        (self.joined_seq..=self.last_seq).contains(&seq)
    }

    /// Whether a device may continue after `seq`: the last entry it sees, or the one before its first.
    fn continues(&self, seq: Seq) -> bool {
        self.sees(seq) || seq.0 == self.joined_seq.0 - 1
    }
}

#[derive(FromQueryResult)]
struct Place {
    channel_id: ChannelId,
    seq: Seq,
    id: MessageId,
}

pub(crate) fn heads(user: UserId) -> SelectStatement {
    use members::Column::{ChannelId, DeliveredSeq, JoinedSeq};
    let member = |column: members::Column| Expr::col((members::Entity, column));
    Query::select()
        .columns([ChannelId, JoinedSeq, DeliveredSeq].map(|column| (members::Entity, column)))
        .column((channels::Entity, channels::Column::LastSeq))
        .from(members::Entity)
        .inner_join(
            channels::Entity,
            Expr::col((channels::Entity, channels::Column::Id)).equals((members::Entity, members::Column::ChannelId)),
        )
        .and_where(member(members::Column::UserId).eq(user))
        .and_where(member(members::Column::LeftSeq).eq(members::OPEN))
        .take()
}

pub(crate) fn at(places: &[(ChannelId, Seq)]) -> SelectStatement {
    use messages::Column::{ChannelId, Id, Seq};
    let column = |column| Expr::col((messages::Entity, column));
    let channel = column(ChannelId).equals(("keys", "column1"));
    let seq = column(Seq).equals(("keys", "column2"));
    Query::select()
        .columns([ChannelId, Seq, Id].map(|column| (messages::Entity, column)))
        // Not spelt as alternatives: see `append::with_keys`.
        .from_values(places.iter().copied(), "keys")
        .inner_join(messages::Entity, channel.and(seq))
        .take()
}

/// What to read of one channel, and what to say of it.
#[derive(Debug, PartialEq, Eq)]
struct Planned {
    range: Range,
    head_seq: Seq,
    more: bool,
    reset: bool,
}

fn plan(
    heads: &BTreeMap<ChannelId, Head>,
    cursors: &[Cursor],
    wrong: &HashSet<ChannelId>,
    recent: i64,
) -> (Vec<Planned>, Vec<ChannelId>) {
    let (mut planned, mut gone) = (Vec::new(), Vec::new());
    let mut left = IN_ALL;
    let mut named = HashSet::new();
    let mut read = |head: &Head, cursor: Option<&Cursor>| {
        let (joined, last) = (head.joined_seq.0, head.last_seq.0);
        let after = cursor.filter(|cursor| head.continues(cursor.seq) && !wrong.contains(&cursor.channel_id));
        let seqs = match after {
            Some(cursor) if cursor.seq == head.last_seq => return,
            Some(cursor) => cursor.seq.0 + 1..=min(last, cursor.seq.0 + min(PER_CHANNEL, left)),
            None => max(joined, last - min(min(recent, PER_CHANNEL), left) + 1)..=last,
        };
        left -= max(0, seqs.end() - seqs.start() + 1);
        planned.push(Planned {
            more: after.is_some() && *seqs.end() < last,
            reset: after.is_none(),
            head_seq: head.last_seq,
            range: Range { channel_id: head.channel_id, seqs },
        });
    };
    for cursor in cursors {
        if named.insert(cursor.channel_id) {
            match heads.get(&cursor.channel_id) {
                Some(head) => read(head, Some(cursor)),
                None => gone.push(cursor.channel_id),
            }
        }
    }
    for head in heads.values().filter(|head| !named.contains(&head.channel_id)) {
        read(head, None);
    }
    (planned, gone)
}

/// The cursors that are right and news.
fn acked(heads: &BTreeMap<ChannelId, Head>, cursors: &[Cursor], wrong: &HashSet<ChannelId>) -> Vec<(ChannelId, Seq)> {
    let is_news = |cursor: &&Cursor| {
        let head = heads.get(&cursor.channel_id);
        head.is_some_and(|head| head.sees(cursor.seq) && cursor.seq > head.delivered_seq)
            && !wrong.contains(&cursor.channel_id)
    };
    cursors.iter().filter(is_news).map(|cursor| (cursor.channel_id, cursor.seq)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(n: u128) -> ChannelId {
        ChannelId(uuid::Uuid::from_u128(n))
    }

    /// Channels 1, 2, … with these (joined, last).
    fn heads(logs: &[(i64, i64)]) -> BTreeMap<ChannelId, Head> {
        let head = |(n, &(joined, last)): (usize, &(i64, i64))| {
            let channel_id = channel(n as u128 + 1);
            (channel_id, Head { channel_id, joined_seq: Seq(joined), last_seq: Seq(last), delivered_seq: Seq(0) })
        };
        logs.iter().enumerate().map(head).collect()
    }

    fn cursor(n: u128, seq: i64) -> Cursor {
        Cursor { channel_id: channel(n), seq: Seq(seq), check: None }
    }

    /// (channel, first, last, more, reset) of each planned channel.
    fn planned(logs: &[(i64, i64)], cursors: &[Cursor], recent: i64) -> Vec<(u128, i64, i64, bool, bool)> {
        let (planned, _) = plan(&heads(logs), cursors, &HashSet::new(), recent);
        let row =
            |p: Planned| (p.range.channel_id.0.as_u128(), *p.range.seqs.start(), *p.range.seqs.end(), p.more, p.reset);
        planned.into_iter().map(row).collect()
    }

    #[test]
    fn a_named_channel_gets_what_follows_up_to_200() {
        assert_eq!(planned(&[(1, 10)], &[cursor(1, 4)], 20), [(1, 5, 10, false, false)]);
        assert_eq!(planned(&[(1, 204)], &[cursor(1, 4)], 20), [(1, 5, 204, false, false)]);
        assert_eq!(planned(&[(1, 205)], &[cursor(1, 4)], 20), [(1, 5, 204, true, false)]);
        assert_eq!(planned(&[(1, 10)], &[cursor(1, 0)], 20), [(1, 1, 10, false, false)]);
        assert_eq!(planned(&[(5, 10)], &[cursor(1, 4)], 20), [(1, 5, 10, false, false)]);
    }

    #[test]
    fn a_channel_at_its_end_is_left_out() {
        assert_eq!(planned(&[(1, 10)], &[cursor(1, 10)], 20), []);
        assert_eq!(planned(&[(11, 10)], &[cursor(1, 10)], 20), []);
    }

    #[test]
    fn a_cursor_that_cannot_be_continued_gets_a_reset() {
        for seq in [11, 3, 0, -1, i64::MAX, i64::MIN] {
            assert_eq!(planned(&[(5, 10)], &[cursor(1, seq)], 3), [(1, 8, 10, false, true)], "{seq}");
        }
        let wrong = HashSet::from([channel(1)]);
        let (planned, _) = plan(&heads(&[(1, 10)]), &[cursor(1, 10)], &wrong, 3);
        assert!(planned[0].reset && planned[0].range.seqs == (8..=10));
    }

    #[test]
    fn a_channel_nobody_named_gets_its_recent_entries() {
        assert_eq!(planned(&[(1, 100), (99, 100)], &[], 20), [(1, 81, 100, false, true), (2, 99, 100, false, true)]);
        assert_eq!(planned(&[(1, 100)], &[], 0), [(1, 101, 100, false, true)]);
    }

    #[test]
    fn an_answer_holds_1000_entries_in_all() {
        let logs = [(1, 500); 7];
        let cursors: Vec<_> = (1..=6).map(|n| cursor(n, 0)).collect();
        let mut expected: Vec<_> = (1..=5).map(|n| (n, 1, 200, true, false)).collect();
        expected.push((6, 1, 0, true, false));
        expected.push((7, 501, 500, false, true));
        assert_eq!(planned(&logs, &cursors, 50), expected);
    }

    #[test]
    fn the_last_of_the_1000_may_end_in_the_middle_of_a_channel() {
        let logs: Vec<_> = std::iter::repeat_n((1, 150), 7).collect();
        let cursors: Vec<_> = (1..=7).map(|n| cursor(n, 0)).collect();
        assert_eq!(planned(&logs, &cursors, 50)[6], (7, 1, 100, true, false));
    }

    #[test]
    fn named_channels_that_are_not_mine_are_gone_and_the_first_cursor_of_a_channel_counts() {
        let (planned, gone) =
            plan(&heads(&[(1, 10)]), &[cursor(9, 1), cursor(1, 8), cursor(1, 2), cursor(9, 2)], &HashSet::new(), 20);
        assert_eq!(gone, [channel(9)]);
        assert_eq!(planned.len(), 1);
        assert_eq!(planned[0].range.seqs, 9..=10);
    }
}

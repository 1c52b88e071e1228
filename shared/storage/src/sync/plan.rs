//! Which parts of which logs answer a device's cursors. No I/O.

use crate::{Cursor, history::Range};
use sea_orm::FromQueryResult;
use std::{
    cmp::{max, min},
    collections::{BTreeMap, HashSet},
};
use touchline_ids::{ChannelId, Seq};

/// Entries of one channel in one answer.
const PER_CHANNEL: i64 = 200;
/// Entries in one answer.
const IN_ALL: i64 = 1_000;

/// A channel of the user's: the part of the log they see.
#[derive(Debug, Clone, Copy, FromQueryResult)]
pub(crate) struct Head {
    pub(crate) channel_id: ChannelId,
    pub(crate) joined_seq: Seq,
    pub(crate) last_seq: Seq,
    pub(crate) delivered_seq: Seq,
    /// In which life of the database ([`crate::recent`]).
    pub(crate) epoch: i64,
}

impl Head {
    pub(crate) fn sees(&self, seq: Seq) -> bool {
        (self.joined_seq..=self.last_seq).contains(&seq)
    }

    /// Whether a device may continue after `seq`: the last entry it sees, or the one before its first.
    fn continues(&self, seq: Seq) -> bool {
        self.sees(seq) || seq.0 == self.joined_seq.0 - 1
    }
}

/// What to read of one channel, and what to say of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) range: Range,
    pub(crate) head_seq: Seq,
    pub(crate) more: bool,
    pub(crate) reset: bool,
}

/// What to read for cursors of which these channels' are wrong, and which channels are not the user's.
pub(crate) fn plan(
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
pub(crate) fn acked(
    heads: &BTreeMap<ChannelId, Head>,
    cursors: &[Cursor],
    wrong: &HashSet<ChannelId>,
) -> Vec<(ChannelId, Seq)> {
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
            (
                channel_id,
                Head { channel_id, joined_seq: Seq(joined), last_seq: Seq(last), delivered_seq: Seq(0), epoch: 0 },
            )
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

//! Pages of a channel's log.

use crate::{
    Entry, Kind, Storage,
    entity::messages::{Column, Entity},
    error::Result,
    recent::epoch,
    rows::KEYS,
};
use sea_orm::{
    DbBackend, FromQueryResult, Iterable,
    sea_query::{Expr, ExprTrait, Query, SelectStatement, UnionType},
};
use std::{
    cmp::{max, min},
    ops::RangeInclusive,
    sync::Arc,
};
use touchline_ids::{ChannelId, Check, MessageId, Seq, UserId};

/// A page of a channel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// Whether there are more in the direction of paging: newer ones when `after_seq` was given, else older ones.
    pub more: bool,
}

impl Storage {
    /// A page of the user's present membership interval: with `after_seq` the first `limit` entries after it (and
    /// below `before_seq`), else the newest `limit` below `before_seq` or of all. `None`: no such channel, or the user
    /// is not in it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn history(
        &self,
        user: UserId,
        channel: ChannelId,
        after_seq: Option<Seq>,
        before_seq: Option<Seq>,
        limit: u32,
    ) -> Result<Option<History>> {
        // One look at the membership settles which positions the user may see. The log never changes below its end,
        // and a later removal takes nothing of it back, so the entries need no second look.
        let Some(view) = self.channel_for(user, channel).await? else { return Ok(None) };
        let (seqs, more) = page((view.joined_seq, view.last_seq), after_seq, before_seq, limit);
        if seqs.is_empty() {
            return Ok(Some(History { entries: Vec::new(), more }));
        }
        let mut pieces = self.log_pieces(&[Range { channel_id: channel, seqs }], &[], usize::MAX).await?;
        pieces.sort_unstable_by_key(|piece| piece.seq);
        let epoch = pieces.first().map_or(0, |piece| piece.epoch);
        let entries: Vec<_> = pieces.into_iter().filter_map(Piece::entry).map(Arc::new).collect();
        self.recent.put(epoch, entries.iter().cloned());
        Ok(Some(History { entries: entries.into_iter().map(Arc::unwrap_or_clone).collect(), more }))
    }

    /// The entries in some ranges, and who is at some places for a check. The caller made sure that the user may see
    /// them. Of the ranges' entries, in order of channel and seq, at most so many bytes of content: the rest is left
    /// out.
    pub(crate) async fn log_pieces(
        &self,
        ranges: &[Range],
        places: &[(ChannelId, Seq)],
        bytes: usize,
    ) -> Result<Vec<Piece>> {
        let backend = self.reader.get_database_backend();
        let mut ranges = ranges.chunks(KEYS);
        let mut places = places.chunks(KEYS);
        let mut pieces = Vec::new();
        loop {
            let select = match (ranges.next(), places.next()) {
                (None, None) => return Ok(pieces),
                (Some(ranges), None) => in_ranges(ranges, bytes, backend),
                (None, Some(places)) => at_places(places, backend),
                (Some(ranges), Some(places)) => {
                    in_ranges(ranges, bytes, backend).union(UnionType::All, at_places(places, backend)).take()
                }
            };
            pieces.extend(self.read_all::<Piece>(&select).await?);
        }
    }
}

/// A part of a channel's log. Seqs are dense, so it has exactly as many entries as positions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Range {
    pub(crate) channel_id: ChannelId,
    pub(crate) seqs: RangeInclusive<i64>,
}

impl Range {
    /// How many positions it has.
    pub(crate) fn len(&self) -> usize {
        self.seqs.clone().count()
    }
}

/// What was read of one entry.
#[derive(Debug, FromQueryResult)]
pub(crate) struct Piece {
    pub(crate) channel_id: ChannelId,
    pub(crate) seq: Seq,
    pub(crate) id: MessageId,
    sender_id: UserId,
    kind: Kind,
    /// Of an entry that is read for its check only when it is short.
    content: Option<String>,
    created_at: i64,
    prev: Option<Check>,
    /// In which life of the database it was read ([`crate::recent`]).
    pub(crate) epoch: i64,
    /// Read for its check, not for itself.
    pub(crate) is_check: bool,
}

impl Piece {
    /// The whole entry, if it was read.
    pub(crate) fn entry(self) -> Option<Entry> {
        Some(Entry {
            channel_id: self.channel_id,
            seq: self.seq,
            message_id: self.id,
            sender_id: self.sender_id,
            kind: self.kind,
            content: self.content?,
            created_at_ms: self.created_at,
            prev: self.prev,
        })
    }
}

/// Whoever is back at the place where many are is read with its content, so that they all find it remembered. Longer
/// ones are not worth it.
const SHORT: i64 = 4 * 1024;

const COLUMNS: [Column; 7] =
    [Column::ChannelId, Column::Seq, Column::Id, Column::SenderId, Column::Kind, Column::CreatedAt, Column::Prev];

/// What of the ranges, in order of channel and seq, holds at most so many bytes of content.
pub(crate) fn in_ranges(ranges: &[Range], bytes: usize, backend: DbBackend) -> SelectStatement {
    let column = |column: Column| Expr::col((Entity, column));
    let first_to_last = column(Column::Seq).between(Expr::col(("keys", "column2")), Expr::col(("keys", "column3")));
    let keys = ranges.iter().map(|range| (range.channel_id, *range.seqs.start(), *range.seqs.end()));
    let entries = Query::select()
        .columns(Column::iter().map(|column| (Entity, column)))
        .expr_as(Expr::cust("SUM(OCTET_LENGTH(content)) OVER (ORDER BY channel_id, seq)"), "bytes_so_far")
        // Not spelt as alternatives: see `append::with_keys`.
        .from_values(keys, "keys")
        .inner_join(Entity, column(Column::ChannelId).equals(("keys", "column1")).and(first_to_last))
        .take();
    Query::select()
        .columns(COLUMNS)
        .column(Column::Content)
        .expr_as(epoch(backend), "epoch")
        .expr_as(Expr::cust("1 = 0"), "is_check")
        .from_subquery(entries, "entries")
        .and_where(Expr::col("bytes_so_far").lte(i64::try_from(bytes).unwrap_or(i64::MAX)))
        .take()
}

/// Who is at these places.
pub(crate) fn at_places(places: &[(ChannelId, Seq)], backend: DbBackend) -> SelectStatement {
    let column = |column: Column| Expr::col((Entity, column));
    let (channel, seq) =
        (column(Column::ChannelId).equals(("keys", "column1")), column(Column::Seq).equals(("keys", "column2")));
    let is_short = Expr::cust("OCTET_LENGTH(content)").lte(SHORT);
    Query::select()
        .columns(COLUMNS.map(|column| (Entity, column)))
        .expr_as(Expr::case(is_short, column(Column::Content)), "content")
        .expr_as(epoch(backend), "epoch")
        .expr_as(Expr::cust("1 = 1"), "is_check")
        .from_values(places.iter().copied(), "keys")
        .inner_join(Entity, channel.and(seq))
        .take()
}

/// Which seqs of those the user sees (first, last) the page holds, and whether there are more in its direction.
fn page(seen: (Seq, Seq), after: Option<Seq>, before: Option<Seq>, limit: u32) -> (RangeInclusive<i64>, bool) {
    let low = after.map_or(seen.0.0, |after| max(after.0.saturating_add(1), seen.0.0));
    let high = before.map_or(seen.1.0, |before| min(before.0.saturating_sub(1), seen.1.0));
    if low > high {
        return (EMPTY, false);
    }
    let limit = i64::from(limit);
    if after.is_some() {
        let last = min(high, low + limit - 1);
        (low..=last, last < high)
    } else {
        let first = max(low, high - limit + 1);
        (first..=high, first > low)
    }
}

#[expect(clippy::reversed_empty_ranges, reason = "it is the empty one")]
const EMPTY: RangeInclusive<i64> = 1..=0;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seen: (i64, i64), after: Option<i64>, before: Option<i64>, limit: u32) -> (Vec<i64>, bool) {
        let (seqs, more) = page((Seq(seen.0), Seq(seen.1)), after.map(Seq), before.map(Seq), limit);
        (seqs.collect(), more)
    }

    #[test]
    fn without_a_position_the_newest_are_on_the_page() {
        assert_eq!(of((1, 10), None, None, 3), (vec![8, 9, 10], true));
        assert_eq!(of((1, 3), None, None, 3), (vec![1, 2, 3], false));
        assert_eq!(of((9, 10), None, None, 3), (vec![9, 10], false));
    }

    #[test]
    fn before_a_position_the_newest_below_it_are_on_the_page() {
        assert_eq!(of((1, 10), None, Some(5), 3), (vec![2, 3, 4], true));
        assert_eq!(of((2, 10), None, Some(5), 3), (vec![2, 3, 4], false));
        assert_eq!(of((5, 10), None, Some(5), 3), (vec![], false));
        assert_eq!(of((1, 10), None, Some(99), 2), (vec![9, 10], true));
    }

    #[test]
    fn after_a_position_the_oldest_above_it_are_on_the_page() {
        assert_eq!(of((1, 10), Some(5), None, 3), (vec![6, 7, 8], true));
        assert_eq!(of((1, 10), Some(7), None, 3), (vec![8, 9, 10], false));
        assert_eq!(of((4, 10), Some(0), None, 2), (vec![4, 5], true));
        assert_eq!(of((1, 10), Some(2), Some(5), 9), (vec![3, 4], false));
        assert_eq!(of((1, 10), Some(2), Some(8), 2), (vec![3, 4], true));
    }

    #[test]
    fn no_position_and_no_limit_is_too_strange() {
        assert_eq!(of((1, 10), Some(i64::MAX), None, 5), (vec![], false));
        assert_eq!(of((1, 10), None, Some(i64::MIN), 5), (vec![], false));
        assert_eq!(of((1, 10), Some(-7), Some(2), 5), (vec![1], false));
        assert_eq!(of((1, 10), None, None, 0), (vec![], true));
        assert_eq!(of((1, 10), Some(0), None, 0), (vec![], true));
        assert_eq!(of((1, 2), None, None, u32::MAX), (vec![1, 2], false));
    }
}

//! Pages of a channel's log.

use crate::{
    Entry, Storage,
    entity::messages::{Column, Entity, Model},
    error::Result,
    rows::ALTERNATIVES,
};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, Iterable, QueryFilter, QueryTrait,
    sea_query::{Expr, ExprTrait, Query, SelectStatement},
};
use std::{
    cmp::{max, min},
    ops::RangeInclusive,
};
use touchline_ids::{ChannelId, Seq, UserId};

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
        Ok(Some(History { entries: self.entries(&[Range { channel_id: channel, seqs }]).await?, more }))
    }

    /// The entries in some ranges, by channel and seq. The caller made sure that the user may see them.
    pub(crate) async fn entries(&self, ranges: &[Range]) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let ranges: Vec<_> = ranges.iter().filter(|range| !range.seqs.is_empty()).cloned().collect();
        for some in ranges.chunks(ALTERNATIVES) {
            let rows: Vec<Model> = self.read_all(&in_ranges(some)).await?;
            entries.extend(rows.into_iter().map(Entry::from));
        }
        entries.sort_unstable_by_key(|entry| (entry.channel_id, entry.seq));
        Ok(entries)
    }
}

impl Storage {
    /// As [`entries`](Self::entries), but at most so many bytes of content: entries at the ends of ranges are left out,
    /// and ranges after them. True when that was so.
    pub(crate) async fn entries_within(&self, ranges: &[Range], bytes: usize) -> Result<(Vec<Entry>, bool)> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut left = bytes;
        let ranges: Vec<_> = ranges.iter().filter(|range| !range.seqs.is_empty()).cloned().collect();
        for some in ranges.chunks(ALTERNATIVES) {
            let rows: Vec<Model> = self.read_all(&in_ranges_within(some, left)).await?;
            left -= rows.iter().map(|row| row.content.len()).sum::<usize>().min(left);
            entries.extend(rows.into_iter().map(Entry::from));
        }
        entries.sort_unstable_by_key(|entry| (entry.channel_id, entry.seq));
        // Fewer than asked for because one more had no place, and not because some are missing.
        let wanted: usize = ranges.into_iter().map(|range| range.seqs.count()).sum();
        let full = left < ENTRY_BYTES && entries.len() < wanted;
        Ok((entries, full))
    }
}

/// No entry's content is longer.
const ENTRY_BYTES: usize = 64 * 1024;

/// A part of a channel's log. Seqs are dense, so it has exactly as many entries as positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) channel_id: ChannelId,
    pub(crate) seqs: RangeInclusive<i64>,
}

pub(crate) fn in_ranges(ranges: &[Range]) -> SelectStatement {
    let range = |range: &Range| {
        Column::ChannelId.eq(range.channel_id).and(Column::Seq.between(*range.seqs.start(), *range.seqs.end()))
    };
    Entity::find().filter(ranges.iter().map(range).fold(Condition::any(), Condition::add)).into_query()
}

/// What of the ranges, in order of channel and seq, holds at most so many bytes of content.
pub(crate) fn in_ranges_within(ranges: &[Range], bytes: usize) -> SelectStatement {
    let sum = Expr::cust("SUM(OCTET_LENGTH(content)) OVER (ORDER BY channel_id, seq)");
    Query::select()
        .columns(Column::iter())
        .from_subquery(in_ranges(ranges).expr_as(sum, "bytes_so_far").take(), "entries")
        .and_where(Expr::col("bytes_so_far").lte(i64::try_from(bytes).unwrap_or(i64::MAX)))
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

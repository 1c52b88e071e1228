//! Who is to be notified of what, one row per (user, channel).

use crate::{
    Storage,
    connection::{commit, in_time},
    delivered::Mark,
    entity::{
        channels, members,
        notifications::{ActiveModel, Column, Entity},
    },
    error::Result,
    rows::{self, KEYS, VALUES},
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    sea_query::{Expr, ExprTrait, LockType, OnConflict, Order, Query, SelectStatement},
};
use std::{
    cmp::max,
    collections::{BTreeMap, BTreeSet, HashMap},
};
use touchline_ids::{ChannelId, Seq, UserId};

impl Storage {
    /// Nobody acked these messages for these users: each raises the user's row of the channel to that seq and counts
    /// one more. Left out is who has acked since ([`delivered`](Self::delivered)), who was not in the channel at that
    /// seq, and what is beyond the log's end: a database that lost its tail has nothing to notify of there. `now_ms` is when a new row is due, Unix milliseconds.
    ///
    /// # Errors
    /// When the database fails; then none is stored.
    pub async fn notify(&self, missed: &[Mark], now_ms: i64) -> Result<()> {
        if missed.is_empty() {
            return Ok(());
        }
        let transaction = self.begin().await?;
        in_time(note_missed(&transaction, missed, now_ms)).await?;
        commit(transaction).await
    }

    /// Who is to be notified of a channel: user, greatest seq, count; by user. For tests and for looking: it reads the
    /// whole table.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_notifications(&self, channel: ChannelId) -> Result<Vec<(UserId, Seq, i64)>> {
        let query = Entity::find().filter(Column::ChannelId.eq(channel)).order_by_asc(Column::UserId);
        let rows = self.reach(async { Ok(query.all(&self.reader).await?) }).await?;
        Ok(rows.into_iter().map(|row| (row.user_id, row.max_seq, row.count)).collect())
    }
}

async fn note_missed(transaction: &DatabaseTransaction, missed: &[Mark], now_ms: i64) -> Result<()> {
    // In key order, so that two apis never wait for each other crosswise.
    let keys: BTreeSet<_> = missed.iter().map(|&(user, channel, _)| (user, channel)).collect();
    let keys: Vec<_> = keys.into_iter().collect();
    let mut intervals: HashMap<(UserId, ChannelId), Vec<Interval>> = HashMap::with_capacity(keys.len());
    for some in keys.chunks(KEYS) {
        for interval in rows::all::<Interval>(transaction, &locking(some)).await? {
            intervals.entry((interval.user_id, interval.channel_id)).or_default().push(interval);
        }
    }
    // One row per key, since a statement may not touch a row twice.
    let mut by_key: BTreeMap<(UserId, ChannelId), (Seq, i64)> = BTreeMap::new();
    for &(user, channel, seq) in missed {
        if intervals.get(&(user, channel)).is_some_and(|intervals| misses(intervals, seq)) {
            let (max_seq, count) = by_key.entry((user, channel)).or_default();
            *max_seq = max(*max_seq, seq);
            *count += 1;
        }
    }
    let rows: Vec<_> = by_key
        .into_iter()
        .map(|((user_id, channel_id), (max_seq, count))| ActiveModel {
            user_id: Set(user_id),
            channel_id: Set(channel_id),
            max_seq: Set(max_seq),
            count: Set(count),
            not_before: Set(now_ms),
            ..Default::default()
        })
        .collect();
    for some in rows.chunks(VALUES) {
        let insert = Entity::insert_many(some.to_vec()).on_conflict(raise());
        insert.exec_without_returning(transaction).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Interval {
    user_id: UserId,
    channel_id: ChannelId,
    joined_seq: Seq,
    left_seq: Seq,
    delivered_seq: Seq,
    /// The end of the channel's log.
    last_seq: Seq,
}

/// Whether somebody with these intervals was to get the message at `seq` and has not acked it.
fn misses(intervals: &[Interval], seq: Seq) -> bool {
    intervals.iter().any(|interval| (interval.joined_seq..interval.left_seq).contains(&seq) && seq <= interval.last_seq)
        && intervals.iter().all(|interval| interval.delivered_seq < seq)
}

/// Every interval of these users in these channels, locked against acks that come meanwhile, in order.
pub(crate) fn locking(keys: &[(UserId, ChannelId)]) -> SelectStatement {
    use members::Column::{ChannelId, DeliveredSeq, JoinedSeq, LeftSeq, UserId};
    let member = |column: members::Column| Expr::col((members::Entity, column));
    let same = member(ChannelId).equals(("keys", "column2")).and(member(UserId).equals(("keys", "column1")));
    let last_seq = Query::select()
        .column(channels::Column::LastSeq)
        .from(channels::Entity)
        .and_where(Expr::col((channels::Entity, channels::Column::Id)).equals((members::Entity, ChannelId)))
        .take();
    Query::select()
        .columns([UserId, ChannelId, JoinedSeq, LeftSeq, DeliveredSeq].map(|column| (members::Entity, column)))
        // No join: that would tempt Postgres to read every member of a channel for each of its keys.
        .expr_as(last_seq, "last_seq")
        .from_values(keys.iter().copied(), "keys")
        .inner_join(members::Entity, same)
        .order_by((members::Entity, UserId), Order::Asc)
        .order_by((members::Entity, ChannelId), Order::Asc)
        .order_by((members::Entity, JoinedSeq), Order::Asc)
        .lock_with_tables(LockType::Share, [members::Entity])
        .take()
}

/// What a row that is there already becomes.
fn raise() -> OnConflict {
    let old = |column: Column| Expr::col((Entity, column));
    let new = |column: Column| Expr::col(("excluded", column));
    let max_seq = Expr::case(new(Column::MaxSeq).gt(old(Column::MaxSeq)), new(Column::MaxSeq));
    OnConflict::columns([Column::UserId, Column::ChannelId])
        .value(Column::MaxSeq, max_seq.finally(old(Column::MaxSeq)))
        .value(Column::Count, old(Column::Count).add(new(Column::Count)))
        .to_owned()
}

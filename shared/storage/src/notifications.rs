//! Who is to be notified of what: one row per (user, channel), for large channels one row per channel.
//!
//! A row is *due* when its time has come, *sent* when everything missed was sent and nobody acked it yet, and *dead*
//! when it was given up. One more miss makes a sent or dead row due again, with the new count; one that is noted late,
//! below what was sent, only counts. An ack or a read takes
//! it away.

use crate::{
    Storage, clock,
    connection::{commit, in_time},
    delivered::Mark,
    entity::{
        channels, members,
        notifications::{Column, Entity},
    },
    error::Result,
    outbox::DEAD,
    rows::{self, KEYS, VALUES},
    walks,
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, FromQueryResult, QueryFilter,
    QueryOrder,
    sea_query::{Expr, ExprTrait, InsertStatement, LockType, OnConflict, Order, Query, SelectStatement},
};
use std::{
    cmp::max,
    collections::{BTreeMap, BTreeSet, HashMap},
};
use touchline_ids::{ChannelId, Seq, UserId};

/// `not_before` of a row with nothing to send.
pub(crate) const NEVER: i64 = i64::MAX;
/// Between two pushes to the same user of the same channel.
pub(crate) const SPACING_MS: i64 = 3_000;

impl Storage {
    /// Nobody acked these messages for these users: each raises the user's row of the channel to that seq and counts
    /// one more. Left out is who has acked since ([`delivered`](Self::delivered)), who was not in the channel at that
    /// seq, and what is beyond the log's end: a database that lost its tail has nothing to notify of there. A new row is
    /// due at once, and one whose notification was sent before is due 3 s after that.
    ///
    /// # Errors
    /// When the database fails; then none is stored.
    pub async fn notify(&self, missed: &[Mark]) -> Result<()> {
        self.notify_all(missed, &[]).await
    }

    /// As [`notify`](Self::notify), in one transaction with these messages of channels that are too large for a row
    /// each: whoever of their members has not acked is found by a walk over them ([`claim_walk`](Self::claim_walk)).
    ///
    /// # Errors
    /// When the database fails; then none is stored.
    pub async fn notify_all(&self, missed: &[Mark], in_large: &[(ChannelId, Seq)]) -> Result<()> {
        if missed.is_empty() && in_large.is_empty() {
            return Ok(());
        }
        let transaction = self.begin().await?;
        in_time(async {
            note_missed(&transaction, missed).await?;
            walks::note(&transaction, in_large).await
        })
        .await?;
        commit(transaction).await
    }

    /// Who is to be notified of a channel: user, greatest seq, count; by user. For tests and for looking: it reads the
    /// whole table.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_notifications(&self, channel: ChannelId) -> Result<Vec<(UserId, Seq, i64)>> {
        let query = Entity::find().filter(Column::ChannelId.eq(channel)).filter(Column::NotBefore.lt(NEVER));
        let query = query.order_by_asc(Column::UserId);
        let rows = self.reach(async { Ok(query.all(&self.reader).await?) }).await?;
        Ok(rows.into_iter().map(|row| (row.user_id, row.max_seq, row.count)).collect())
    }
}

async fn note_missed(transaction: &DatabaseTransaction, missed: &[Mark]) -> Result<()> {
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
    let backend = transaction.get_database_backend();
    let rows: Vec<_> = by_key
        .into_iter()
        .map(|((user, channel), (max_seq, count))| Missed {
            user,
            channel,
            max_seq,
            count,
            after_ms: Some(0),
            tries: 0,
        })
        .collect();
    for some in rows.chunks(VALUES) {
        transaction.execute(&insert(some, backend)).await?;
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

/// What somebody missed.
pub(crate) struct Missed {
    pub(crate) user: UserId,
    pub(crate) channel: ChannelId,
    pub(crate) max_seq: Seq,
    pub(crate) count: i64,
    /// When it is due, if there is no row that waits; none: the row is dead.
    pub(crate) after_ms: Option<i64>,
    /// How often it was put off already.
    pub(crate) tries: i32,
}

/// New rows; those that are there already are raised. At most [`VALUES`], in key order.
pub(crate) fn insert(missed: &[Missed], backend: DbBackend) -> InsertStatement {
    let mut insert = Query::insert();
    insert.into_table(Entity).columns([
        Column::UserId,
        Column::ChannelId,
        Column::MaxSeq,
        Column::Count,
        Column::NotBefore,
        Column::NotedAt,
        Column::Tries,
        Column::ClaimUntil,
    ]);
    for missed in missed {
        let due = missed.after_ms.map(|after_ms| clock::now_ms(backend).add(after_ms));
        let claim_until: i64 = if due.is_some() { 0 } else { DEAD };
        insert.values_panic([
            missed.user.into(),
            missed.channel.into(),
            missed.max_seq.into(),
            missed.count.into(),
            due.unwrap_or(NEVER.into()),
            clock::now_ms(backend),
            missed.tries.into(),
            claim_until.into(),
        ]);
    }
    insert.on_conflict(raise()).take()
}

/// What a row that is there already becomes.
fn raise() -> OnConflict {
    let old = |column: Column| Expr::col((Entity, column));
    let new = |column: Column| Expr::col(("excluded", column));
    let greater = |one: Expr, other: Expr| Expr::case(one.clone().gt(other.clone()), one).finally(other);
    let spaced = || old(Column::SentAt).add(SPACING_MS);
    let is_dead = || old(Column::ClaimUntil).eq(DEAD);
    let idle = || old(Column::NotBefore).eq(NEVER);
    // Noted late, or twice: the push that went out reaches further, and the app fetched this one with it.
    let was_sent = || idle().and(is_dead().not()).and(new(Column::MaxSeq).lte(old(Column::SentSeq)));
    let not_before = Expr::case(was_sent(), NEVER).case(idle(), greater(new(Column::NotBefore), spaced()));
    OnConflict::columns([Column::UserId, Column::ChannelId])
        .value(Column::MaxSeq, greater(new(Column::MaxSeq), old(Column::MaxSeq)))
        .value(Column::Count, old(Column::Count).add(new(Column::Count)))
        .value(Column::NotedAt, new(Column::NotedAt))
        .value(Column::NotBefore, not_before.finally(old(Column::NotBefore)))
        // What was wrong with a dead one need not be wrong with this message.
        .value(Column::Attempts, Expr::case(is_dead(), 0).finally(old(Column::Attempts)))
        .value(Column::Tries, Expr::case(is_dead(), 0).finally(old(Column::Tries)))
        .value(Column::ClaimUntil, Expr::case(idle(), new(Column::ClaimUntil)).finally(old(Column::ClaimUntil)))
        .to_owned()
}

//! Up to where each member's devices hold a channel, as they acked it.

use crate::{
    Storage, clock,
    connection::{commit, in_time},
    entity::{
        channels,
        members::{self, Column, OPEN},
        notifications,
    },
    error::Result,
    notifications::{NEVER, SPACING_MS},
    rows::{self, KEYS},
};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, FromQueryResult,
    sea_query::{
        CommonTableExpression, DeleteStatement, Expr, ExprTrait, LockType, Order, Query, SelectStatement,
        UpdateStatement,
    },
};
use std::{cmp::max, collections::BTreeMap};
use touchline_ids::{ChannelId, Seq, UserId};
use uuid::Uuid;

/// A user, a channel of theirs, and a place in its log.
pub(crate) type Mark = (UserId, ChannelId, Seq);

impl Storage {
    /// These users have a device that holds the channel up to seq: raises the marks of present members, never lowers
    /// one, and drops the notifications that are settled by it. Acks beyond the log's end, and of users who are not in
    /// the channel, are worth nothing.
    ///
    /// # Errors
    /// When the database fails; then some may be noted, and noting all again does no harm.
    pub async fn delivered(&self, acks: &[Mark]) -> Result<()> {
        let mut by_key: BTreeMap<(UserId, ChannelId), Seq> = BTreeMap::new();
        for &(user, channel, seq) in acks {
            let highest = by_key.entry((user, channel)).or_insert(seq);
            *highest = max(seq, *highest);
        }
        let acks: Vec<Mark> = by_key.into_iter().map(|((user, channel), seq)| (user, channel, seq)).collect();
        for some in acks.chunks(KEYS) {
            let transaction = self.begin().await?;
            in_time(note(&transaction, some)).await?;
            commit(transaction).await?;
        }
        Ok(())
    }
}

/// Locks before it writes, members by (user, channel) and then their notifications in the same order: as `notify` does,
/// so that neither waits for the other crosswise, and of an ack and a miss of one message the ack wins.
async fn note(transaction: &DatabaseTransaction, acks: &[Mark]) -> Result<()> {
    let there: Vec<Member> = rows::all(transaction, &locking(acks)).await?;
    let acks: Vec<Mark> = there.into_iter().map(|member| (member.user_id, member.channel_id, member.acked)).collect();
    if acks.is_empty() {
        return Ok(());
    }
    transaction.execute(&raise(&acks)).await?;
    settle(transaction, &acks).await
}

/// Takes the notifications away that these marks settle; seldom any. One whose push went out just now stays as a mere
/// memory of that: whoever goes away again at once is not pushed to again before its time. Whoever calls this has the
/// members locked.
pub(crate) async fn settle(transaction: &DatabaseTransaction, acks: &[Mark]) -> Result<()> {
    let settled: Vec<Settled> = rows::all(transaction, &settled(acks, transaction.get_database_backend())).await?;
    let (fresh, old): (Vec<_>, Vec<_>) = settled.into_iter().partition(|row| row.just_sent);
    let keys = |rows: Vec<Settled>| rows.into_iter().map(|row| (row.user_id, row.channel_id)).collect::<Vec<_>>();
    let (fresh, old) = (keys(fresh), keys(old));
    if !fresh.is_empty() {
        transaction.execute(&keeping_memory(&fresh)).await?;
    }
    if !old.is_empty() {
        transaction.execute(&dropping(&old)).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Member {
    user_id: UserId,
    channel_id: ChannelId,
    acked: Seq,
}

#[derive(FromQueryResult)]
struct Settled {
    user_id: UserId,
    channel_id: ChannelId,
    just_sent: bool,
}

/// Those who are in their channels, and whose acks the logs reach, locked in order.
pub(crate) fn locking(acks: &[Mark]) -> SelectStatement {
    let key = |column: &'static str| Expr::col(("keys", column));
    let member = |column: Column| Expr::col((members::Entity, column));
    let is_member = member(Column::ChannelId)
        .eq(key("column2"))
        .and(member(Column::LeftSeq).eq(OPEN))
        .and(member(Column::UserId).eq(key("column1")));
    let channel = |column: channels::Column| Expr::col((channels::Entity, column));
    Query::select()
        .columns([Column::UserId, Column::ChannelId].map(|column| (members::Entity, column)))
        .expr_as(key("column3"), "acked")
        .from_values(acks.iter().copied(), "keys")
        .inner_join(members::Entity, is_member)
        .inner_join(channels::Entity, channel(channels::Column::Id).eq(key("column2")))
        .and_where(channel(channels::Column::LastSeq).gte(key("column3")))
        .order_by((members::Entity, Column::UserId), Order::Asc)
        .order_by((members::Entity, Column::ChannelId), Order::Asc)
        .lock_with_tables(LockType::NoKeyUpdate, [members::Entity])
        .take()
}

pub(crate) fn raise(acks: &[Mark]) -> UpdateStatement {
    let member = |column: Column| Expr::col((members::Entity, column));
    let mut keys = CommonTableExpression::new();
    keys.table_name("acks").query(marks(acks));
    Query::update()
        .table(members::Entity)
        .with_cte(keys)
        .from("acks")
        .value(Column::DeliveredSeq, Expr::col(("acks", "acked")))
        .and_where(member(Column::ChannelId).equals(("acks", "channel")))
        .and_where(member(Column::LeftSeq).eq(OPEN))
        .and_where(member(Column::UserId).equals(("acks", "person")))
        .and_where(member(Column::DeliveredSeq).lt(Expr::col(("acks", "acked"))))
        .take()
}

/// The notifications that these acks settle, locked in order.
pub(crate) fn settled(acks: &[Mark], backend: DbBackend) -> SelectStatement {
    use notifications::Column::{ChannelId, MaxSeq, SentAt, UserId};
    let row = |column: notifications::Column| Expr::col((notifications::Entity, column));
    let same = row(UserId).equals(("acks", "person")).and(row(ChannelId).equals(("acks", "channel")));
    Query::select()
        .columns([UserId, ChannelId].map(|column| (notifications::Entity, column)))
        .expr_as(row(SentAt).gt(clock::now_ms(backend).sub(SPACING_MS)), "just_sent")
        .from_subquery(marks(acks), "acks")
        .inner_join(notifications::Entity, same)
        .and_where(row(MaxSeq).lte(Expr::col(("acks", "acked"))))
        .order_by((notifications::Entity, UserId), Order::Asc)
        .order_by((notifications::Entity, ChannelId), Order::Asc)
        .lock_with_tables(LockType::Update, [notifications::Entity])
        .take()
}

pub(crate) fn dropping(keys: &[(UserId, ChannelId)]) -> DeleteStatement {
    use notifications::Column::{ChannelId, UserId};
    let settled = Query::select().columns(["column1", "column2"]).from_values(keys.iter().copied(), "keys").take();
    let key = Expr::tuple([Expr::col(UserId), Expr::col(ChannelId)]);
    Query::delete().from_table(notifications::Entity).and_where(key.in_subquery(settled)).take()
}

/// Of those whose push went out just now nothing is left but when it did. They have missed nothing, so their count is 0.
pub(crate) fn keeping_memory(keys: &[(UserId, ChannelId)]) -> UpdateStatement {
    use notifications::Column::{Attempts, ChannelId, ClaimUntil, Count, NotBefore, Owner, Tries, UserId};
    let settled = Query::select().columns(["column1", "column2"]).from_values(keys.iter().copied(), "keys").take();
    let key = Expr::tuple([Expr::col(UserId), Expr::col(ChannelId)]);
    Query::update()
        .table(notifications::Entity)
        .value(Count, 0)
        .value(NotBefore, NEVER)
        .value(Attempts, 0)
        .value(Tries, 0)
        .value(Owner, Option::<Uuid>::None)
        .value(ClaimUntil, 0)
        .and_where(key.in_subquery(settled))
        .take()
}

/// The marks as a table.
fn marks(acks: &[Mark]) -> SelectStatement {
    Query::select()
        .expr_as(Expr::col(("keys", "column1")), "person")
        .expr_as(Expr::col(("keys", "column2")), "channel")
        .expr_as(Expr::col(("keys", "column3")), "acked")
        .from_values(acks.iter().copied(), "keys")
        .take()
}

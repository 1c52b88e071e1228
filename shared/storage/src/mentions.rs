//! Whom a message mentions, for those who want to be notified of nothing else.

use crate::{
    Entry, Members, Storage,
    connection::{commit, in_time},
    entity::mentions::{ActiveModel, Column, Entity},
    error::Result,
    rows::{self, KEYS, VALUES},
};
use sea_orm::{
    ActiveValue::Set,
    ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult,
    sea_query::{DeleteStatement, Expr, ExprTrait, LockBehavior, LockType, Order, Query, SelectStatement},
};
use std::cmp::min;
use touchline_ids::{ChannelId, Seq, UserId};

impl Storage {
    /// Forgets mentions in messages from before that time (Unix milliseconds), at most `limit` and 1,000. Answers how
    /// many there were.
    ///
    /// # Errors
    /// When the database fails; then none is forgotten.
    pub async fn sweep_mentions(&self, before_ms: i64, limit: u64) -> Result<u64> {
        let transaction = self.begin().await?;
        let forgotten = in_time(async {
            let keys: Vec<Key> = rows::all(&transaction, &old(before_ms, limit)).await?;
            if keys.is_empty() {
                return Ok(0);
            }
            Ok(transaction.execute(&deleting(&keys)).await?.rows_affected())
        })
        .await?;
        commit(transaction).await?;
        Ok(forgotten)
    }
}

/// Rows for a new entry; whoever is not a member at its seq is left out.
pub(crate) fn of(entry: &Entry, mentioned: &[UserId], members: &Members) -> impl Iterator<Item = ActiveModel> {
    let row = |&user_id: &UserId| ActiveModel {
        user_id: Set(user_id),
        channel_id: Set(entry.channel_id),
        seq: Set(entry.seq),
        created_at: Set(entry.created_at_ms),
    };
    mentioned.iter().filter(|user| members.contains(**user)).map(row)
}

pub(crate) async fn insert(transaction: &DatabaseTransaction, mentions: Vec<ActiveModel>) -> Result<()> {
    for some in mentions.chunks(VALUES) {
        Entity::insert_many(some.to_vec()).exec_without_returning(transaction).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
pub(crate) struct Key {
    pub(crate) user_id: UserId,
    pub(crate) channel_id: ChannelId,
    pub(crate) seq: Seq,
}

/// Passes over what another process forgets at this moment.
pub(crate) fn old(before_ms: i64, limit: u64) -> SelectStatement {
    Query::select()
        .columns([Column::UserId, Column::ChannelId, Column::Seq])
        .from(Entity)
        .and_where(Expr::col(Column::CreatedAt).lt(before_ms))
        .order_by(Column::CreatedAt, Order::Asc)
        .limit(min(limit, KEYS as u64))
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .take()
}

pub(crate) fn deleting(keys: &[Key]) -> DeleteStatement {
    let keys = keys.iter().map(|key| (key.user_id, key.channel_id, key.seq));
    let keys = Query::select().columns(["column1", "column2", "column3"]).from_values(keys, "keys").take();
    let key = Expr::tuple([Column::UserId, Column::ChannelId, Column::Seq].map(Expr::col));
    Query::delete().from_table(Entity).and_where(key.in_subquery(keys)).take()
}

//! Who is to be notified of what, one row per (user, channel).

use crate::{
    Storage,
    connection::{commit, in_time},
    entity::notifications::{ActiveModel, Column, Entity},
    error::Result,
    rows::VALUES,
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, EntityTrait, QueryFilter, QueryOrder,
    sea_query::{Expr, ExprTrait, OnConflict},
};
use std::{cmp::max, collections::BTreeMap};
use touchline_ids::{ChannelId, Seq, UserId};

impl Storage {
    /// Nobody acked these messages for these users: each raises the user's row of the channel to that seq and counts
    /// one more. `now_ms` is when a new row is due, Unix milliseconds.
    ///
    /// # Errors
    /// When the database fails; then none is stored.
    pub async fn notify(&self, missed: &[(UserId, ChannelId, Seq)], now_ms: i64) -> Result<()> {
        // One row per key, since a statement may not touch a row twice; in key order, so that two apis never wait for
        // each other crosswise.
        let mut by_key: BTreeMap<(UserId, ChannelId), (Seq, i64)> = BTreeMap::new();
        for &(user, channel, seq) in missed {
            let (max_seq, count) = by_key.entry((user, channel)).or_default();
            *max_seq = max(*max_seq, seq);
            *count += 1;
        }
        let rows: Vec<_> = by_key
            .into_iter()
            .map(|((user_id, channel_id), (max_seq, count))| ActiveModel {
                user_id: Set(user_id),
                channel_id: Set(channel_id),
                max_seq: Set(max_seq),
                count: Set(count),
                not_before: Set(now_ms),
            })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let transaction = self.begin().await?;
        in_time(async {
            for some in rows.chunks(VALUES) {
                let insert = Entity::insert_many(some.to_vec()).on_conflict(raise());
                insert.exec_without_returning(&transaction).await?;
            }
            Ok(())
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
        let query = Entity::find().filter(Column::ChannelId.eq(channel)).order_by_asc(Column::UserId);
        let rows = in_time(async { Ok(query.all(&self.reader).await?) }).await?;
        Ok(rows.into_iter().map(|row| (row.user_id, row.max_seq, row.count)).collect())
    }
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

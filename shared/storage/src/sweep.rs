//! What has served its time goes: outcomes of pushes, notifications nobody came back for.

use crate::{
    Storage, clock,
    connection::{commit, in_time},
    delivered::dropping,
    entity::{notifications, push_outcomes},
    error::Result,
    notifications::NEVER,
    rows::{self, KEYS},
};
use sea_orm::{
    ConnectionTrait, DbBackend, FromQueryResult,
    sea_query::{DeleteStatement, Expr, ExprTrait, LockBehavior, LockType, Query, SelectStatement},
};
use std::cmp::min;
use touchline_ids::{ChannelId, UserId};

/// How long the outcome of a push is kept, and a notification that was sent and neither acked nor read.
const KEPT_MS: i64 = 7 * 24 * 3_600 * 1_000;

impl Storage {
    /// Forgets what became of pushes more than 7 days ago, at most `limit`. Answers how many; call again while it is
    /// many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep_outcomes(&self, limit: u64) -> Result<u64> {
        let old = old_outcomes(limit, self.writer.get_database_backend());
        Ok(self.reach(async { Ok(self.writer.execute(&old).await?) }).await?.rows_affected())
    }

    /// Forgets notifications that were sent more than 7 days ago and neither acked nor read, at most `limit` (and
    /// 1,000). Answers how many; call again while it is many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep_notifications(&self, limit: u64) -> Result<u64> {
        let transaction = self.begin().await?;
        let gone = in_time(async {
            let old = old_notifications(limit, transaction.get_database_backend());
            let old: Vec<Old> = rows::all(&transaction, &old).await?;
            let old: Vec<_> = old.into_iter().map(|row| (row.user_id, row.channel_id)).collect();
            if old.is_empty() {
                return Ok(0);
            }
            Ok(transaction.execute(&dropping(&old)).await?.rows_affected())
        })
        .await?;
        commit(transaction).await?;
        Ok(gone)
    }
}

#[derive(FromQueryResult)]
struct Old {
    user_id: UserId,
    channel_id: ChannelId,
}

pub(crate) fn old_outcomes(limit: u64, backend: DbBackend) -> DeleteStatement {
    use push_outcomes::Column::{At, ChannelId, DeviceId, Seq, UserId};
    let key = [ChannelId, Seq, UserId, DeviceId];
    let old = Query::select()
        .columns(key)
        .from(push_outcomes::Entity)
        .and_where(Expr::col(At).lt(clock::now_ms(backend).sub(KEPT_MS)))
        .limit(limit)
        .take();
    let row = Expr::tuple(key.map(Expr::col));
    Query::delete().from_table(push_outcomes::Entity).and_where(row.in_subquery(old)).take()
}

/// Those with nothing to send, but not the dead ones: those are an operator's to drop. Locked, because one that is
/// raised at this moment must not go; without those that somebody else holds.
pub(crate) fn old_notifications(limit: u64, backend: DbBackend) -> SelectStatement {
    use notifications::Column::{ChannelId, ClaimUntil, NotBefore, SentAt, UserId};
    Query::select()
        .columns([UserId, ChannelId])
        .from(notifications::Entity)
        .and_where(Expr::col(NotBefore).eq(NEVER))
        .and_where(Expr::col(ClaimUntil).eq(0))
        .and_where(Expr::col(SentAt).lt(clock::now_ms(backend).sub(KEPT_MS)))
        .limit(min(limit, KEYS as u64))
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .take()
}

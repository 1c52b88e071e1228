//! What has served its time goes: outcomes of pushes, notifications nobody came back for.

use crate::{
    Storage, clock,
    entity::{notifications, push_outcomes},
    error::Result,
    notifications::NEVER,
    outbox::DEAD,
};
use sea_orm::{
    ConnectionTrait, DbBackend,
    sea_query::{DeleteStatement, Expr, ExprTrait, Query},
};

/// How long the outcome of a push is kept, and a notification that was sent and neither acked nor read.
const KEPT_MS: i64 = 7 * 24 * 3_600 * 1_000;

impl Storage {
    /// Forgets what became of pushes, and notifications that were sent, more than 7 days ago: at most `limit` of each.
    /// Answers how many; call again while it is many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep_notifications(&self, limit: u64) -> Result<u64> {
        let backend = self.writer.get_database_backend();
        let mut gone = 0;
        for delete in [old_outcomes(limit, backend), old_notifications(limit, backend)] {
            gone += self.reach(async { Ok(self.writer.execute(&delete).await?) }).await?.rows_affected();
        }
        Ok(gone)
    }
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

/// Those with nothing to send, but not the dead ones: those are an operator's to drop.
pub(crate) fn old_notifications(limit: u64, backend: DbBackend) -> DeleteStatement {
    use notifications::Column::{ChannelId, ClaimUntil, NotBefore, SentAt, UserId};
    let key = [UserId, ChannelId];
    let old = Query::select()
        .columns(key)
        .from(notifications::Entity)
        .and_where(Expr::col(NotBefore).eq(NEVER))
        .and_where(Expr::col(SentAt).lt(clock::now_ms(backend).sub(KEPT_MS)))
        .and_where(Expr::col(ClaimUntil).ne(DEAD))
        .limit(limit)
        .take();
    let row = Expr::tuple(key.map(Expr::col));
    Query::delete().from_table(notifications::Entity).and_where(row.in_subquery(old)).take()
}

//! The database's clock: claims are held against it, because the clocks of our processes may differ.

use crate::{Storage, error::Result, rows};
use sea_orm::{
    ConnectionTrait, DbBackend, FromQueryResult,
    sea_query::{Expr, Query},
};

impl Storage {
    /// The present time by the database's clock, Unix milliseconds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn now_ms(&self) -> Result<i64> {
        self.reach(read(&self.reader)).await
    }
}

#[derive(FromQueryResult)]
struct Now {
    now: i64,
}

/// Asks for the present time, on a connection or in a transaction.
pub(crate) async fn read(db: &impl ConnectionTrait) -> Result<i64> {
    let now = Query::select().expr_as(now_ms(db.get_database_backend()), "now").take();
    Ok(rows::one::<Now>(db, &now).await?.map_or(0, |row| row.now))
}

/// The present time in Unix milliseconds, as an expression that the database evaluates. Of Postgres's clocks it is the
/// statement's: `clock_timestamp()` moves while the statement runs, so no index serves a comparison with it, and
/// `now()` stands still in a transaction that waited for a lock.
pub(crate) fn now_ms(backend: DbBackend) -> Expr {
    Expr::cust(match backend {
        DbBackend::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        DbBackend::MySql => "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
        _ => "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS BIGINT)",
    })
}

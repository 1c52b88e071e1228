//! The database's clock: claims are held against it, because the clocks of our processes may differ.

use sea_orm::{DbBackend, sea_query::Expr};

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

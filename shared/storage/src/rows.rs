//! Reading rows, and how many things one statement may name.

use crate::{Storage, error::Result};
use sea_orm::{ConnectionTrait, FromQueryResult, sea_query::SelectStatement};
use std::sync::atomic::Ordering;

/// Values in one `IN`, or rows in one `INSERT` of up to ten columns. SQLite binds at most 32,766 values.
pub(crate) const VALUES: usize = 3_000;
/// Keys of up to three columns in one statement: small enough for a plan that looks each of them up.
pub(crate) const KEYS: usize = 1_000;

/// Every row of a query, on a connection or in a transaction.
pub(crate) async fn all<R: FromQueryResult>(db: &impl ConnectionTrait, select: &SelectStatement) -> Result<Vec<R>> {
    let rows = db.query_all(select).await?;
    Ok(rows.iter().map(|row| R::from_query_result(row, "")).collect::<std::result::Result<_, _>>()?)
}

/// The first row of a query, on a connection or in a transaction.
pub(crate) async fn one<R: FromQueryResult>(db: &impl ConnectionTrait, select: &SelectStatement) -> Result<Option<R>> {
    let row = db.query_one(select).await?;
    Ok(row.map(|row| R::from_query_result(&row, "")).transpose()?)
}

impl Storage {
    /// Every row of a query, read outside a transaction.
    pub(crate) async fn read_all<R: FromQueryResult>(&self, select: &SelectStatement) -> Result<Vec<R>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.reach(all(&self.reader, select)).await
    }

    /// The first row of a query, read outside a transaction.
    pub(crate) async fn read_one<R: FromQueryResult>(&self, select: &SelectStatement) -> Result<Option<R>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.reach(one(&self.reader, select)).await
    }

    /// How many queries this storage and its clones have asked for outside of transactions. For measuring.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

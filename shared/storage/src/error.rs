//! Why the database could not do it.

use sea_orm::DbErr;

/// What every query of this crate returns.
pub type Result<T> = std::result::Result<T, StorageError>;

/// Why the database could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The settings cannot work; only while connecting.
    #[error("database settings: {0}")]
    Settings(String),
    /// No connection, no free one in time, a lock not had in time, a full disk, a server that stops: nothing was
    /// stored, and trying again later is right.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] DbErr),
    /// The connection broke or fell silent while committing: stored or not, nobody knows. Only a retry with the same
    /// key tells; never answer "not stored".
    #[error("the database did not confirm the commit: {0}")]
    InDoubt(#[source] DbErr),
    /// The database refused the statement: a bug or a damaged database.
    #[error("database: {0}")]
    Database(#[source] DbErr),
    /// The database's schema is older than this program.
    #[error("the database lacks these migrations: {}. Run `touchline migrate up`", .pending.join(", "))]
    Schema {
        /// Names of the steps that are not applied, oldest first.
        pending: Vec<String>,
    },
}

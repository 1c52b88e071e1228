//! Why the database could not do it.

use sea_orm::{DbErr, RuntimeErr};
use std::time::Duration;

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

impl From<DbErr> for StorageError {
    fn from(error: DbErr) -> Self {
        if passes(&error) { Self::Unavailable(error) } else { Self::Database(error) }
    }
}

impl StorageError {
    /// What an error of a commit means: only a server that says "no" and stays has certainly not committed.
    pub(crate) fn of_commit(error: DbErr) -> Self {
        match code_of(&error) {
            Some(code) if refuses_commit(&code) => Self::from(error),
            _ => Self::InDoubt(error),
        }
    }
}

/// The error of a database that does not answer.
pub(crate) fn no_answer(patience: Duration) -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(format!("no answer in {patience:?}")))
}

/// The error of a database that was found away a moment ago.
pub(crate) fn unreachable_now() -> DbErr {
    DbErr::Conn(RuntimeErr::Internal("it was away a moment ago".to_owned()))
}

/// Whether the error means that the server was not reached at all: `Some(true)` when an open connection was found
/// dead, `Some(false)` when none could be had.
pub(crate) fn not_reached(error: &DbErr) -> Option<bool> {
    match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => Some(false),
        DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => match &**cause {
            sqlx::Error::PoolTimedOut => Some(false),
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => Some(true),
            // Shutting down, and starting.
            sqlx::Error::Database(cause) => cause.code().is_some_and(|code| code.starts_with("57P")).then_some(true),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the error speaks of the database's state, which passes, and not of the statement.
fn passes(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => true,
        DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => match &**cause {
            sqlx::Error::Database(cause) => cause.code().is_some_and(|code| code_passes(&code)),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => true,
            _ => false,
        },
        _ => false,
    }
}

/// A code of Postgres (five characters, <https://www.postgresql.org/docs/current/errcodes-appendix.html>) or of SQLite
/// (a number, <https://www.sqlite.org/rescode.html>; the low byte is the kind).
fn code_passes(code: &str) -> bool {
    if code.len() == 5 {
        return match &code[..2] {
            // Connection lost; resources used up (connections, disk, memory).
            "08" | "53" => true,
            // Shutting down or starting; cancelled by a timeout.
            "57" => true,
            _ => matches!(
                code,
                // Serialisation failure, deadlock, no lock in time, idle in transaction, a standby.
                "40001" | "40P01" | "55P03" | "25P03" | "25006"
            ),
        };
    }
    // BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14))
}

/// Whether a commit that ended with this code has certainly stored nothing.
fn refuses_commit(code: &str) -> bool {
    if code.len() == 5 {
        // Connection lost (a pooler says so of the server behind it), a server that goes down, completion unknown.
        return !(code.starts_with("08") || code.starts_with("57P") || code == "40003");
    }
    // IOERR: the log may hold the whole transaction, and a recovery after a crash would find it.
    code.parse::<u32>().is_ok_and(|code| code & 0xff != 10)
}

fn code_of(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause))) = error else {
        return None;
    };
    match &**cause {
        sqlx::Error::Database(cause) => cause.code().map(|code| code.into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        // Postgres: lost, too many connections, disk full, shutting down, timed out, dead-locked, no lock, a standby.
        for code in ["08006", "53300", "53100", "57P01", "57014", "40P01", "40001", "55P03", "25P03", "25006"] {
            assert!(code_passes(code), "{code}");
        }
        // Unique key, foreign key, no such table, syntax, bad text, wrong password.
        for code in ["23505", "23503", "42P01", "42601", "22021", "28P01"] {
            assert!(!code_passes(code), "{code}");
        }
        // SQLite: busy and three of its kinds, locked, read-only, I/O, full, cannot open.
        for code in ["5", "261", "517", "773", "6", "8", "10", "13", "14"] {
            assert!(code_passes(code), "{code}");
        }
        // Error, corrupt, constraint and two of its kinds, not a database.
        for code in ["1", "11", "19", "1555", "2067", "26", ""] {
            assert!(!code_passes(code), "{code}");
        }
    }

    #[test]
    fn a_missing_step_is_named_with_the_command_that_applies_it() {
        let error = StorageError::Schema { pending: vec!["m0001_a".to_owned(), "m0002_b".to_owned()] };
        let text = "the database lacks these migrations: m0001_a, m0002_b. Run `touchline migrate up`";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_commit_is_refused_only_by_a_server_that_knows() {
        for refused in ["40001", "40P01", "23505", "53100", "57014", "25P03", "5", "13", "2067"] {
            assert!(refuses_commit(refused), "{refused}");
        }
        for in_doubt in ["08006", "08P01", "57P01", "57P02", "57P03", "40003", "10", "1034", ""] {
            assert!(!refuses_commit(in_doubt), "{in_doubt}");
        }
    }
}

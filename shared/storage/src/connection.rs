//! The connection: pools, limits and transactions of each kind of database.

use crate::{
    error::{Result, StorageError, no_answer},
    gate::Gate,
    recent::{Recent, present_life},
};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use serde::{Deserialize, Serialize};
use sqlx::{
    Connection, SqliteConnection,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use std::{
    fmt,
    future::Future,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::sync::watch;

/// How long a query waits for a free connection, or for a new one.
const ACQUIRE: Duration = Duration::from_secs(2);
/// How long Postgres waits for a lock, lets one statement run, and keeps the locks of a client that fell silent.
const LIMITS: &[(&str, &str)] =
    &[("lock_timeout", "2s"), ("statement_timeout", "4s"), ("idle_in_transaction_session_timeout", "10s")];
/// How long a whole query, transaction or commit may take, whatever the network does.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long SQLite waits for another process's write transaction.
const BUSY: Duration = Duration::from_secs(4);

/// Which database, and how many connections to it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `sqlite://path/to/file` (created when missing; its folder must exist) or `postgres://user:password@host/name`.
    pub url: String,
    /// Connections to Postgres; readers of SQLite, which has one writer besides. At least 1.
    pub max_connections: u32,
    /// MiB for the newest messages of active channels, from which devices that come back are served; 0 for none.
    pub recent_mib: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { url: "sqlite://touchline.db".to_owned(), max_connections: 10, recent_mib: 64 }
    }
}

impl fmt::Debug for Settings {
    /// Without the URL: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("max_connections", &self.max_connections).finish_non_exhaustive()
    }
}

/// The database. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Storage {
    pub(crate) settings: Settings,
    /// On SQLite a single connection, because it has a single writer; on Postgres the same pool as `reader`.
    pub(crate) writer: DatabaseConnection,
    pub(crate) reader: DatabaseConnection,
    pub(crate) recent: Arc<Recent>,
    pub(crate) reads: Arc<AtomicU64>,
    /// Absent on SQLite: a file is not away.
    pub(crate) gate: Option<Arc<Gate>>,
}

impl Storage {
    /// Opens the pools and makes sure that the database answers.
    ///
    /// # Errors
    /// `Settings` when the URL cannot work, `Unavailable` when the database does not answer.
    pub async fn connect(settings: &Settings) -> Result<Self> {
        let (writer, reader, gate) = match kind_of(settings)? {
            DbBackend::Sqlite => {
                let writer = Database::connect(sqlite(&settings.url, 1, false)).await?;
                // After the writer: it creates the file and turns the write-ahead log on.
                let reader = Database::connect(sqlite(&settings.url, settings.max_connections, true)).await?;
                (writer, reader, None)
            }
            _ => {
                let pool = Database::connect(postgres(&settings.url, settings.max_connections, LIMITS)).await?;
                (pool.clone(), pool, Some(Arc::<Gate>::default()))
            }
        };
        let recent = Arc::new(Recent::new(settings.recent_mib as usize * 1024 * 1024));
        let storage = Self { settings: settings.clone(), writer, reader, recent, reads: Arc::default(), gate };
        storage.ping().await?;
        Ok(storage)
    }

    /// Changes when a query shows that the database has begun another life: it was restored or has failed over, and
    /// may have lost the end of its logs, which connected devices still hold.
    pub fn lives(&self) -> watch::Receiver<Option<i64>> {
        self.recent.lives()
    }

    /// Whether the database answers now.
    ///
    /// # Errors
    /// `Unavailable` when it does not.
    pub async fn ping(&self) -> Result<()> {
        self.reach(Box::pin(async { Ok(self.reader.ping().await?) })).await
    }

    /// Looks whether a server that is away is back, so that no other query has to wait for the answer. Never returns.
    pub async fn look_forever(&self) {
        // Whoever never asks anything else still learns in which life the database is.
        let look = || in_time(Box::pin(self.look_at_life()));
        let _ = look().await;
        let Some(gate) = &self.gate else { return std::future::pending().await };
        loop {
            let visit = gate.time_to_look().await;
            visit.leave(&look().await);
        }
    }

    async fn look_at_life(&self) -> Result<()> {
        let row = self.reader.query_one(&present_life(self.reader.get_database_backend())).await?;
        row.map(|row| row.try_get("", "epoch")).transpose()?.into_iter().for_each(|epoch| self.recent.seen(epoch));
        Ok(())
    }

    /// Ends every connection; queries of other clones fail from now on.
    ///
    /// # Errors
    /// When a connection did not end in order; it is gone all the same.
    pub async fn close(self) -> Result<()> {
        // The readers first: the last connection to a SQLite file folds the write-ahead log back into it.
        in_time(async { Ok(self.reader.close_by_ref().await?) }).await?;
        in_time(async { Ok(self.writer.close().await?) }).await
    }

    /// Begins a transaction that writes. Dropping it takes everything back.
    pub(crate) async fn begin(&self) -> Result<DatabaseTransaction> {
        self.reach(begin(&self.writer)).await
    }

    /// Does what needs a connection of the pools, or fails at once while the server is known to be away.
    pub(crate) async fn reach<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match &self.gate {
            Some(gate) => gate.pass(in_time(work)).await,
            None => in_time(work).await,
        }
    }

    /// A connection for schema changes, which may take as long as they need.
    pub(crate) async fn for_migrations(&self) -> Result<DatabaseConnection> {
        let options = match kind_of(&self.settings)? {
            DbBackend::Sqlite => sqlite(&self.settings.url, 1, false),
            _ => postgres(&self.settings.url, 1, &[]),
        };
        Ok(Database::connect(options).await?)
    }
}

/// Begins a transaction that writes. On SQLite it takes the write lock at once: one that starts by reading and then
/// writes fails when another wrote in between, and no waiting helps it.
pub(crate) async fn begin(connection: &DatabaseConnection) -> Result<DatabaseTransaction> {
    let options =
        TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
    Ok(connection.begin_with_options(options).await?)
}

/// Commits. Unless the database itself refused, an error here leaves open whether it did.
pub(crate) async fn commit(transaction: DatabaseTransaction) -> Result<()> {
    match tokio::time::timeout(PATIENCE, transaction.commit()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(StorageError::of_commit(error)),
        Err(_) => Err(StorageError::InDoubt(no_answer(PATIENCE))),
    }
}

/// Gives up on a database that does not answer. Statement and lock timeouts end what the server works on; this ends
/// the wait for a server or a network that fell silent.
pub(crate) async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(StorageError::Unavailable(no_answer(PATIENCE))),
    }
}

/// Checks the settings before a driver sees them: a driver's own error would print the URL, password and all.
fn kind_of(settings: &Settings) -> Result<DbBackend> {
    let problem = |what: String| Err(StorageError::Settings(what));
    if settings.max_connections == 0 {
        return problem("max_connections must be at least 1".to_owned());
    }
    let url = &settings.url;
    if url.starts_with("postgres://") {
        return match url.parse::<PgConnectOptions>() {
            Ok(_) => Ok(DbBackend::Postgres),
            Err(error) => problem(format!("url: {error}")),
        };
    }
    if url.starts_with("sqlite:") {
        // Every connection would have a database of its own.
        if url.contains(":memory:") || url.contains("mode=memory") {
            return problem("url: SQLite must be a file".to_owned());
        }
        return match url.parse::<SqliteConnectOptions>() {
            Ok(_) => Ok(DbBackend::Sqlite),
            Err(error) => problem(format!("url: {error}")),
        };
    }
    problem("url must begin with sqlite:// or postgres://".to_owned())
}

fn options(url: &str, max_connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .max_connections(max_connections)
        .connect_timeout(ACQUIRE)
        .acquire_timeout(ACQUIRE)
        // A ping for every query is a round trip too many; one after a pause finds the dead connections.
        .test_before_acquire(false)
        .test_before_acquire_if_idle_for(Duration::from_secs(30));
    options
}

fn sqlite(url: &str, max_connections: u32, only_reads: bool) -> ConnectOptions {
    let mut options = options(url, max_connections);
    options
        // The writer's queue may be as long as another process's transaction.
        .acquire_timeout(PATIENCE)
        // Opening the file again would lose the page cache.
        .map_sqlx_sqlite_pool_opts(|pool| {
            pool.idle_timeout(None).max_lifetime(None).after_release(|connection, _| Box::pin(has_ended(connection)))
        })
        .map_sqlx_sqlite_opts(move |sqlite| {
            sqlite
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                // An answered send survives a power cut, not only a crash of ours.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY)
                .foreign_keys(true)
                .statement_cache_capacity(256)
                .pragma("temp_store", "MEMORY")
                .pragma("cache_size", "-16384")
                .pragma("journal_size_limit", "67108864")
                .pragma("query_only", if only_reads { "ON" } else { "OFF" })
        });
    options
}

/// Whether the connection's last transaction is over. A full disk ends one inside SQLite, and the driver, whose
/// rollback is then refused, counts it as open for ever: the next ones would be savepoints in a transaction that nobody
/// commits. Such a connection is closed.
async fn has_ended(connection: &mut SqliteConnection) -> std::result::Result<bool, sqlx::Error> {
    // Behind the rollback that may still be on its way.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

fn postgres(url: &str, max_connections: u32, limits: &'static [(&str, &str)]) -> ConnectOptions {
    let mut options = options(url, max_connections);
    options
        .map_sqlx_postgres_opts(|postgres| {
            postgres
                .application_name("touchline")
                // A batch's statements have one text for each of its sizes.
                .statement_cache_capacity(256)
                .options(limits.iter().copied())
        })
        // A connection comes back only when the server confirms that it is idle. Without a limit to that, connections
        // through a dead network would never be given up, and the pool would stay empty after it heals.
        .map_sqlx_postgres_pool_opts(|pool| {
            pool.after_release(|connection, _| {
                Box::pin(async move {
                    match tokio::time::timeout(PATIENCE, connection.ping()).await {
                        Ok(answer) => answer.map(|()| true),
                        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
                    }
                })
            })
        });
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(url: &str, max_connections: u32) -> String {
        match Storage::connect(&Settings { url: url.to_owned(), max_connections, ..Settings::default() }).await {
            Err(error) => {
                assert!(matches!(error, StorageError::Settings(_)), "{error}");
                error.to_string()
            }
            Ok(_) => panic!("{url}"),
        }
    }

    #[tokio::test]
    async fn settings_that_cannot_work_are_refused_without_showing_the_password() {
        for url in [
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@h:port/d",
            "u:hunter2",
            "",
            "sqlite::memory:",
            "sqlite://x?mode=memory",
            "sqlite://x?mode=hunter2",
        ] {
            let text = refused(url, 1).await;
            assert!(!text.contains("u:hunter2"), "{text}");
        }
        assert!(refused("sqlite://x", 0).await.contains("max_connections"));
        let settings = Settings { url: "postgres://u:hunter2@h/d".to_owned(), ..Settings::default() };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_is_unavailable() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = format!("sqlite://{}/no/such/folder/touchline.db", folder.path().display());
        for url in [nowhere, "postgres://postgres@127.0.0.1:1/x".to_owned()] {
            let answer = Storage::connect(&Settings { url, max_connections: 1, ..Settings::default() }).await;
            assert!(matches!(answer, Err(StorageError::Unavailable(_))), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn sqlite_keeps_what_it_confirmed_and_its_readers_only_read() {
        use sea_orm::{
            ConnectionTrait,
            sea_query::{Expr, Query},
        };
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/touchline.db", folder.path().display());
        let storage = Storage::connect(&Settings { url, max_connections: 2, ..Settings::default() }).await.unwrap();
        let pragma = async |name: &'static str| -> String {
            let value = Expr::cust(format!("CAST({name} AS TEXT)"));
            let select = Query::select().expr_as(value, "value").from(format!("pragma_{name}")).take();
            storage.writer.query_one(&select).await.unwrap().unwrap().try_get("", "value").unwrap()
        };
        assert_eq!(pragma("journal_mode").await, "wal");
        assert_eq!(pragma("synchronous").await, "2");
        assert_eq!(pragma("foreign_keys").await, "1");
        assert!(storage.reader.execute_unprepared("CREATE TABLE x (y INT)").await.is_err());
        assert!(storage.writer.execute_unprepared("CREATE TABLE x (y INT)").await.is_ok());
    }

    #[tokio::test]
    async fn a_sqlite_transaction_that_writes_takes_the_lock_when_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/touchline.db", folder.path().display());
        let settings = Settings { url, max_connections: 1, ..Settings::default() };
        let one = Storage::connect(&settings).await.unwrap();
        let two = Storage::connect(&settings).await.unwrap();
        // It has neither read nor written yet, and holds the other up already.
        let first = one.begin().await.unwrap();
        assert!(matches!(two.begin().await, Err(StorageError::Unavailable(_))));
        first.rollback().await.unwrap();
        two.begin().await.unwrap().rollback().await.unwrap();
    }

    #[tokio::test]
    async fn whoever_finds_every_connection_taken_is_refused_and_the_next_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/touchline.db", folder.path().display());
        let storage = Storage::connect(&Settings { url, max_connections: 2, ..Settings::default() }).await.unwrap();
        storage.migrate_up().await.unwrap();
        let read = async || storage.find_user_by_handle("nobody").await;
        let taken = [storage.reader.begin().await.unwrap(), storage.reader.begin().await.unwrap()];
        assert!(matches!(read().await, Err(StorageError::Unavailable(_))));
        drop(taken);
        read().await.unwrap();
    }
}

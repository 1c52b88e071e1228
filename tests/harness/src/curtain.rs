//! Behind the curtain: what the database of a stack holds, for a judge who must not ask the services.

use anyhow::{Context as _, Result};
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, QueryResult, SqliteTransactionMode,
    Statement, TransactionOptions, TransactionTrait as _, Value,
};
use std::time::Duration;
use touchline_ids::{ChannelId, Seq, UserId};
use uuid::Uuid;

/// A connection to the database of a stack, past every proxy.
#[derive(Debug, Clone)]
pub struct Curtain {
    connection: DatabaseConnection,
}

impl Curtain {
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let mut options = ConnectOptions::new(url);
        options.max_connections(2).sqlx_logging(false).connect_timeout(Duration::from_secs(10));
        Ok(Self { connection: sea_orm::Database::connect(options).await.context("looking into the database")? })
    }

    /// The newest message of each sender in each channel.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn newest(&self) -> Result<Vec<(ChannelId, UserId, Seq)>> {
        let sql = "SELECT channel_id, sender_id, MAX(seq) AS seq FROM messages \
                   WHERE client_message_id IS NOT NULL GROUP BY channel_id, sender_id";
        let rows = self.all(sql, []).await?;
        rows.iter()
            .map(|row| Ok((ChannelId(id(row, "channel_id")?), UserId(id(row, "sender_id")?), seq(row)?)))
            .collect()
    }

    /// Every message that somebody sent: channel, sender, seq, and when, in Unix milliseconds.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn messages(&self) -> Result<Vec<(ChannelId, UserId, Seq, i64)>> {
        let sql = "SELECT channel_id, sender_id, seq, created_at FROM messages WHERE client_message_id IS NOT NULL";
        let message = |row: &QueryResult| {
            let (channel, sender) = (ChannelId(id(row, "channel_id")?), UserId(id(row, "sender_id")?));
            Ok((channel, sender, seq(row)?, row.try_get("", "created_at")?))
        };
        self.all(sql, []).await?.iter().map(message).collect()
    }

    /// Who is to be notified of what, up to where.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn notifications(&self) -> Result<Vec<(UserId, ChannelId, Seq)>> {
        let rows = self.all("SELECT user_id, channel_id, max_seq AS seq FROM notifications", []).await?;
        rows.iter().map(|row| Ok((UserId(id(row, "user_id")?), ChannelId(id(row, "channel_id")?), seq(row)?))).collect()
    }

    /// The one number that a statement gives.
    ///
    /// # Errors
    /// When the database does not answer, or not with one number called `n`.
    pub async fn number(&self, sql: &str) -> Result<i64> {
        let rows = self.all(sql, []).await?;
        Ok(rows.first().context("a row")?.try_get("", "n")?)
    }

    /// How many queries that lock nothing the database has answered so far, on a Postgres that counts them; but for
    /// those of the outbox and the notifications, at which one looks all the time. Its other statistics come late, by
    /// seconds.
    ///
    /// # Errors
    /// When it does not count.
    pub async fn reads(&self) -> Result<i64> {
        self.change("CREATE EXTENSION IF NOT EXISTS pg_stat_statements", []).await?;
        let sql = "SELECT COALESCE(SUM(calls), 0)::BIGINT AS n FROM pg_stat_statements \
                   WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                   AND query ~* '^\\s*(SELECT|WITH)' AND query !~* 'FOR (NO KEY )?UPDATE|pg_stat_statements|outbox|notifications'";
        self.number(sql).await
    }

    /// Changes rows behind everybody's back; answers how many.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn change(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<u64> {
        Ok(self.connection.execute_raw(self.statement(sql, values)).await?.rows_affected())
    }

    /// Holds the lock of a channel's row until this is rolled back or dropped.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn lock(&self, channel: ChannelId) -> Result<DatabaseTransaction> {
        let transaction = self.connection.begin().await?;
        let lock = self.statement("SELECT id FROM channels WHERE id = $1 FOR UPDATE", [channel.0.into()]);
        transaction.query_one_raw(lock).await?.context("there is no such channel")?;
        Ok(transaction)
    }

    /// Holds SQLite's write lock until this is rolled back or dropped.
    ///
    /// # Errors
    /// When the database refuses, or somebody else holds it for long.
    pub async fn begin_immediate(&self) -> Result<DatabaseTransaction> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        Ok(self.connection.begin_with_options(options).await?)
    }

    async fn all(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<Vec<QueryResult>> {
        Ok(self.connection.query_all_raw(self.statement(sql, values)).await?)
    }

    fn statement(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Statement {
        Statement::from_sql_and_values(self.connection.get_database_backend(), sql, values)
    }
}

fn id(row: &QueryResult, column: &str) -> Result<Uuid> {
    Ok(row.try_get("", column)?)
}

fn seq(row: &QueryResult) -> Result<Seq> {
    Ok(Seq(row.try_get("", "seq")?))
}

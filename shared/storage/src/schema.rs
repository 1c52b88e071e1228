//! The schema: which migrations are applied, and applying them.

use crate::{
    Storage,
    connection::{begin, commit},
    error::{Result, StorageError},
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr};
use touchline_migrations::{IntoSchemaManagerConnection, Migrator, MigratorTrait, status};

/// Postgres's advisory lock that two migrating processes share: the letters "touch".
const MIGRATION_LOCK: i64 = 0x74_6f75_6368;

impl Storage {
    /// Applies every migration that is missing, in order and in one transaction; answers with their names. Two
    /// processes at once are fine: the second waits and finds nothing left to do.
    ///
    /// # Errors
    /// When a step fails; then none is applied.
    pub async fn migrate_up(&self) -> Result<Vec<String>> {
        let connection = self.for_migrations().await?;
        let transaction = begin(&connection).await?;
        exclude_others(&transaction).await?;
        let pending = pending(&transaction).await?;
        Migrator::up(&transaction, None).await?;
        commit(transaction).await?;
        connection.close().await?;
        Ok(pending)
    }

    /// Takes back the newest `steps` migrations, and with them their data, in one transaction.
    ///
    /// # Errors
    /// When a step fails; then none is taken back.
    pub async fn migrate_down(&self, steps: u32) -> Result<()> {
        let connection = self.for_migrations().await?;
        let transaction = begin(&connection).await?;
        exclude_others(&transaction).await?;
        Migrator::down(&transaction, Some(steps)).await?;
        commit(transaction).await?;
        Ok(connection.close().await?)
    }

    /// Every migration this program knows, oldest first, and whether it is applied. Changes nothing.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn migration_status(&self) -> Result<Vec<(String, bool)>> {
        self.reach(async { Ok(status(&self.reader).await?) }).await
    }

    /// Refuses to work on a schema older than this program.
    ///
    /// # Errors
    /// `Schema` with the steps that are missing and the command that applies them.
    pub async fn require_current_schema(&self) -> Result<()> {
        let pending = self.reach(pending(&self.reader)).await?;
        if pending.is_empty() { Ok(()) } else { Err(StorageError::Schema { pending }) }
    }
}

async fn pending<'c>(db: impl IntoSchemaManagerConnection<'c>) -> Result<Vec<String>> {
    Ok(status(db).await?.into_iter().filter(|(_, applied)| !applied).map(|(name, _)| name).collect())
}

/// Waits until no other process migrates. On SQLite the transaction has the write lock already.
async fn exclude_others(transaction: &DatabaseTransaction) -> std::result::Result<(), DbErr> {
    if transaction.get_database_backend() == DbBackend::Postgres {
        transaction.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
    }
    Ok(())
}

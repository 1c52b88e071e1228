//! The database schema, one file per step. A step that was released is never edited: what follows is a new step,
//! first one that adds (both versions of the program work on it), in a later release one that takes away.
//!
//! Rules that keep one SQL for SQLite, Postgres and later MySQL: ids are UUIDs made by us, times are BIGINT Unix
//! milliseconds, indexed text is bounded, no partial indexes, no `RETURNING`.
//!
//! Never depends on another crate of ours.
#![expect(elided_lifetimes_in_paths, reason = "the signatures must elide what MigrationTrait elides")]

pub use sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait};
use sea_orm_migration::{
    MigrationTrait, SchemaManager,
    sea_orm::{DbErr, EntityTrait},
    seaql_migrations,
};
use std::collections::HashSet;

mod m0001_users;
mod m0002_logins;
mod m0003_channels;
mod m0004_messages;
mod m0005_notifications;
mod m0006_outbox_claims;
mod m0007_messages_prev;
mod m0008_notifying;

/// Every step, oldest first.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_users::Migration),
            Box::new(m0002_logins::Migration),
            Box::new(m0003_channels::Migration),
            Box::new(m0004_messages::Migration),
            Box::new(m0005_notifications::Migration),
            Box::new(m0006_outbox_claims::Migration),
            Box::new(m0007_messages_prev::Migration),
            Box::new(m0008_notifying::Migration),
        ]
    }
}

/// Every step this program knows, oldest first, and whether it is applied. Changes nothing, and accepts a schema that
/// is newer: then there are more steps applied than known.
///
/// # Errors
/// When the database cannot be read.
pub async fn status<'c>(db: impl IntoSchemaManagerConnection<'c>) -> Result<Vec<(String, bool)>, DbErr> {
    let schema = SchemaManager::new(db);
    let mut applied = HashSet::new();
    if schema.has_table(Migrator::migration_table_name().to_string()).await? {
        let rows = seaql_migrations::Entity::find().all(schema.get_connection()).await?;
        applied.extend(rows.into_iter().map(|row| row.version));
    }
    let known = Migrator::migrations();
    Ok(known.iter().map(|step| (step.name().to_owned(), applied.contains(step.name()))).collect())
}

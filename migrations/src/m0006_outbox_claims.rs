//! Finding the outbox rows whose claims have ended, oldest first.
//!
//! `attempts` counts from now on how often a fan-out has begun, so a new row is inserted with 1. Rows from before have
//! 0 and get one attempt more.

use sea_orm_migration::{
    prelude::{Index, MigrationTrait, SchemaManager},
    sea_orm::{DbErr, DeriveMigrationName},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const INDEX: &str = "ix_outbox_claim";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        let mut by_claim = Index::create();
        by_claim.name(INDEX).table("outbox").col("claim_until").col("channel_id").col("seq");
        schema.create_index(by_claim).await
    }

    async fn down(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        schema.drop_index(Index::drop().name(INDEX).table("outbox").to_owned()).await
    }
}

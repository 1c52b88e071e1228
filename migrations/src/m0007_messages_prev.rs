//! What each message follows: the check of the entry before it, so that a client which holds another entry there
//! notices. Null in what was stored before, and in every first entry.

use sea_orm_migration::{
    prelude::{MigrationTrait, SchemaManager, Table},
    schema::integer_null,
    sea_orm::{DbErr, DeriveMigrationName},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        schema.alter_table(Table::alter().table("messages").add_column(integer_null("prev")).to_owned()).await
    }

    async fn down(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        schema.alter_table(Table::alter().table("messages").drop_column("prev").to_owned()).await
    }
}

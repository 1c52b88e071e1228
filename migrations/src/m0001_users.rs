//! People, and the names that outside identity providers have for them.

use sea_orm_migration::{
    prelude::{ForeignKey, ForeignKeyAction, Index, MigrationTrait, SchemaManager, Table},
    schema::{big_integer, string_len, string_len_uniq, text_null, uuid},
    sea_orm::{DbErr, DeriveMigrationName},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        let mut users = Table::create();
        users
            .table("users")
            .col(uuid("id").primary_key())
            .col(string_len_uniq("handle", 64))
            .col(string_len("display_name", 128))
            // Null for those who come from an outside provider.
            .col(text_null("password_hash"))
            .col(big_integer("created_at"));
        schema.create_table(users).await?;

        let mut identities = Table::create();
        identities
            .table("identities")
            .col(string_len("issuer", 255))
            .col(string_len("subject", 255))
            .col(uuid("user_id"))
            .primary_key(Index::create().col("issuer").col("subject"))
            .foreign_key(
                ForeignKey::create()
                    .name("fk_identities_user")
                    .from("identities", "user_id")
                    .to("users", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            );
        schema.create_table(identities).await
    }

    async fn down(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        for table in ["identities", "users"] {
            schema.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

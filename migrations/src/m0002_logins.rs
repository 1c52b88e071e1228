//! Log-ins and their refresh tokens.

use sea_orm_migration::{
    prelude::{ForeignKey, ForeignKeyAction, Index, MigrationTrait, SchemaManager, Table},
    schema::{big_integer, big_integer_null, binary_len, boolean, uuid},
    sea_orm::{DbErr, DeriveMigrationName},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        let mut logins = Table::create();
        logins
            .table("logins")
            .col(uuid("id").primary_key())
            .col(uuid("user_id"))
            .col(big_integer("created_at"))
            // When its newest token expires.
            .col(big_integer("expires_at"))
            .col(boolean("revoked").default(false))
            .foreign_key(
                ForeignKey::create()
                    .name("fk_logins_user")
                    .from("logins", "user_id")
                    .to("users", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            );
        schema.create_table(logins).await?;
        let mut of_user = Index::create();
        of_user.name("ix_logins_user").table("logins").col("user_id").col("expires_at");
        schema.create_index(of_user).await?;

        let mut tokens = Table::create();
        tokens
            .table("refresh_tokens")
            // SHA-256; the token itself is nowhere.
            .col(binary_len("token_hash", 32).primary_key())
            .col(uuid("login_id"))
            .col(big_integer("expires_at"))
            .col(big_integer_null("used_at"))
            .foreign_key(
                ForeignKey::create()
                    .name("fk_refresh_tokens_login")
                    .from("refresh_tokens", "login_id")
                    .to("logins", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            );
        schema.create_table(tokens).await?;
        let mut of_login = Index::create();
        of_login.name("ix_refresh_tokens_login").table("refresh_tokens").col("login_id").col("expires_at");
        schema.create_index(of_login).await
    }

    async fn down(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        for table in ["refresh_tokens", "logins"] {
            schema.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

//! Who is to be notified, and of which devices.

use sea_orm_migration::{
    prelude::{ForeignKey, ForeignKeyAction, Index, MigrationTrait, SchemaManager, Table},
    schema::{big_integer, integer, string_len, uuid},
    sea_orm::{DbErr, DeriveMigrationName},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        let mut notifications = Table::create();
        notifications
            .table("notifications")
            .col(uuid("user_id"))
            .col(uuid("channel_id"))
            .col(big_integer("max_seq"))
            .col(big_integer("count"))
            .col(big_integer("not_before"))
            .col(integer("attempts").default(0))
            .col(big_integer("claim_until").default(0))
            .primary_key(Index::create().col("user_id").col("channel_id"));
        schema.create_table(notifications).await?;

        let mut devices = Table::create();
        devices
            .table("devices")
            .col(uuid("user_id"))
            .col(string_len("device_id", 64))
            .col(string_len("platform", 16))
            .col(string_len("target_kind", 16))
            .col(string_len("push_token", 512))
            .col(big_integer("last_seen_at"))
            .primary_key(Index::create().col("user_id").col("device_id"))
            .foreign_key(
                ForeignKey::create()
                    .name("fk_devices_user")
                    .from("devices", "user_id")
                    .to("users", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            );
        schema.create_table(devices).await?;
        // One push token reaches one device, whoever logged in on it last.
        let mut token = Index::create();
        token.name("ux_devices_token").table("devices").col("target_kind").col("push_token").unique();
        schema.create_index(token).await
    }

    async fn down(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        for table in ["devices", "notifications"] {
            schema.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

//! Channels, and who is in them over which interval of their logs.

use sea_orm_migration::{
    prelude::{ForeignKey, Index, MigrationTrait, SchemaManager, Table},
    schema::{big_integer, big_integer_null, string_len, uuid},
    sea_orm::{DbErr, DeriveMigrationName},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        let mut channels = Table::create();
        channels
            .table("channels")
            .col(uuid("id").primary_key())
            .col(string_len("name", 128))
            .col(big_integer("last_seq"))
            .col(big_integer("members_version"))
            .col(big_integer("created_at"));
        schema.create_table(channels).await?;

        let mut members = Table::create();
        members
            .table("members")
            .col(uuid("channel_id"))
            .col(uuid("user_id"))
            .col(string_len("role", 16))
            // A member sees joined_seq <= seq < left_seq.
            .col(big_integer("joined_seq"))
            // The greatest BIGINT while the interval is open. With a null there, no portable index could make sure
            // that only one interval is open.
            .col(big_integer("left_seq"))
            .col(big_integer("read_seq"))
            .col(big_integer("delivered_seq"))
            .col(string_len("notify_level", 16).default("all"))
            .col(big_integer_null("muted_until"))
            .primary_key(Index::create().col("channel_id").col("user_id").col("joined_seq"))
            .foreign_key(
                ForeignKey::create().name("fk_members_channel").from("members", "channel_id").to("channels", "id"),
            )
            .foreign_key(ForeignKey::create().name("fk_members_user").from("members", "user_id").to("users", "id"));
        schema.create_table(members).await?;

        // Who is in a channel, in order; and one open interval per (channel, user).
        let mut of_channel = Index::create();
        of_channel
            .name("ux_members_channel")
            .table("members")
            .col("channel_id")
            .col("left_seq")
            .col("user_id")
            .unique();
        schema.create_index(of_channel).await?;
        // Which channels a user is in, in order.
        let mut of_user = Index::create();
        of_user.name("ix_members_user").table("members").col("user_id").col("left_seq").col("channel_id");
        schema.create_index(of_user).await
    }

    async fn down(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        for table in ["members", "channels"] {
            schema.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

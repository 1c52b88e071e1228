//! The channels' logs, and which entries are still to be delivered.
//!
//! No foreign keys here: every row is written under the lock of its channel's row, which proves the channel and the
//! sender, and the checks would cost two look-ups per message.

use sea_orm_migration::{
    prelude::{Index, MigrationTrait, SchemaManager, Table},
    schema::{big_integer, binary_len_null, boolean, integer, string_len, string_len_null, text, uuid},
    sea_orm::{DbErr, DeriveMigrationName},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        let mut messages = Table::create();
        messages
            .table("messages")
            .col(uuid("channel_id"))
            .col(big_integer("seq"))
            .col(uuid("id"))
            .col(uuid("sender_id"))
            // Null, as is the hash, for entries that no client sent. Nulls are distinct in a unique index.
            .col(string_len_null("client_message_id", 64))
            .col(binary_len_null("body_hash", 32))
            .col(string_len("kind", 16))
            .col(text("content"))
            .col(big_integer("created_at"))
            .primary_key(Index::create().col("channel_id").col("seq"));
        schema.create_table(messages).await?;
        // What makes a retry harmless, for ever.
        let mut key = Index::create();
        key.name("ux_messages_key")
            .table("messages")
            .col("channel_id")
            .col("sender_id")
            .col("client_message_id")
            .unique();
        schema.create_index(key).await?;

        let mut outbox = Table::create();
        outbox
            .table("outbox")
            .col(uuid("channel_id"))
            .col(big_integer("seq"))
            // The api that works on it, as long as its claim lives by the database's clock.
            .col(uuid("owner"))
            .col(big_integer("claim_until"))
            .col(integer("attempts").default(0))
            .col(boolean("no_push").default(false))
            .primary_key(Index::create().col("channel_id").col("seq"));
        schema.create_table(outbox).await?;
        let mut of_owner = Index::create();
        of_owner.name("ix_outbox_owner").table("outbox").col("owner");
        schema.create_index(of_owner).await
    }

    async fn down(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        for table in ["outbox", "messages"] {
            schema.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

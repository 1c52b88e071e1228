//! What the notifier needs: the state of each notification, walks over the members of large channels, who was
//! mentioned, when people want quiet, and what became of each push.

use sea_orm_migration::{
    prelude::{ForeignKey, ForeignKeyAction, Index, MigrationTrait, SchemaManager, Table},
    schema::{big_integer, big_integer_null, integer, string_len, uuid, uuid_null},
    sea_orm::{DbErr, DeriveMigrationName},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: [&str; 4] = ["notification_walks", "mentions", "quiet_hours", "push_outcomes"];
const NEW_INDEXES: [(&str, &str); 4] = [
    ("ix_notifications_due", "notifications"),
    ("ix_devices_login", "devices"),
    ("ix_devices_seen", "devices"),
    ("ix_devices_suspect", "devices"),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        add_columns(schema).await?;
        add_indexes(schema).await?;

        // Channels with too many members for a row each: one row, and how far the walk over the members has come.
        let mut walks = Table::create();
        walks
            .table("notification_walks")
            .col(uuid("channel_id").primary_key())
            .col(big_integer("max_seq"))
            // Up to where the present walk notifies; 0 between walks.
            .col(big_integer("walk_seq").default(0))
            // Up to where the last walk that came to its end notified.
            .col(big_integer("walked_seq").default(0))
            .col(uuid_null("after_user_id"))
            // The greatest BIGINT when there is nothing to do.
            .col(big_integer("not_before"))
            .col(big_integer("noted_at"))
            .col(integer("attempts").default(0))
            .col(uuid_null("owner"))
            .col(big_integer("claim_until").default(0));
        schema.create_table(walks).await?;
        let mut due = Index::create();
        due.name("ix_notification_walks_due").table("notification_walks").col("not_before").col("channel_id");
        schema.create_index(due).await?;

        let mut mentions = Table::create();
        mentions
            .table("mentions")
            .col(uuid("user_id"))
            .col(uuid("channel_id"))
            .col(big_integer("seq"))
            .col(big_integer("created_at"))
            .primary_key(Index::create().col("user_id").col("channel_id").col("seq"));
        schema.create_table(mentions).await?;
        let mut old = Index::create();
        old.name("ix_mentions_created").table("mentions").col("created_at");
        schema.create_index(old).await?;

        let mut quiet = Table::create();
        quiet
            .table("quiet_hours")
            .col(uuid("user_id").primary_key())
            // Minutes after midnight, local time. From 22:00 to 07:00 is 1320 to 420.
            .col(integer("from_minute"))
            .col(integer("to_minute"))
            .col(string_len("time_zone", 64))
            .foreign_key(
                ForeignKey::create()
                    .name("fk_quiet_hours_user")
                    .from("quiet_hours", "user_id")
                    .to("users", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            );
        schema.create_table(quiet).await?;

        let mut outcomes = Table::create();
        outcomes
            .table("push_outcomes")
            .col(uuid("channel_id"))
            // The push was for what came after `after_seq` up to `seq`.
            .col(big_integer("seq"))
            .col(uuid("user_id"))
            .col(string_len("device_id", 64))
            .col(big_integer("after_seq"))
            .col(string_len("outcome", 16))
            // What the provider said.
            .col(string_len("answer", 255))
            .col(integer("tries"))
            .col(big_integer("at"))
            .primary_key(Index::create().col("channel_id").col("seq").col("user_id").col("device_id"));
        schema.create_table(outcomes).await?;
        let mut old = Index::create();
        old.name("ix_push_outcomes_at").table("push_outcomes").col("at");
        schema.create_index(old).await
    }

    async fn down(&self, schema: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            schema.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        for (index, table) in NEW_INDEXES {
            schema.drop_index(Index::drop().name(index).table(table).to_owned()).await?;
        }
        for (table, columns) in [
            ("notifications", &["noted_at", "sent_seq", "sent_at", "tries", "owner"][..]),
            ("devices", &["created_at", "updated_at", "login_id", "suspect_since"]),
        ] {
            for column in columns {
                schema.alter_table(Table::alter().table(table).drop_column(*column).to_owned()).await?;
            }
        }
        Ok(())
    }
}

/// One by one: SQLite adds no more at once.
async fn add_columns(schema: &SchemaManager<'_>) -> Result<(), DbErr> {
    for column in [
        // When somebody was missed last: what lies too long is not sent any more.
        big_integer("noted_at").default(0).to_owned(),
        // Up to where a push was accepted, and when.
        big_integer("sent_seq").default(0).to_owned(),
        big_integer("sent_at").default(0).to_owned(),
        // How often in a row the provider put it off.
        integer("tries").default(0).to_owned(),
        uuid_null("owner"),
    ] {
        schema.alter_table(Table::alter().table("notifications").add_column(column).to_owned()).await?;
    }
    for column in [
        big_integer("created_at").default(0).to_owned(),
        // When its push token came.
        big_integer("updated_at").default(0).to_owned(),
        // The log-in that registered it, of ours.
        uuid_null("login_id"),
        // Since when the provider says that the token is another sender's.
        big_integer_null("suspect_since"),
    ] {
        schema.alter_table(Table::alter().table("devices").add_column(column).to_owned()).await?;
    }
    Ok(())
}

async fn add_indexes(schema: &SchemaManager<'_>) -> Result<(), DbErr> {
    let mut due = Index::create();
    // Also finds the dead ones, and of those that were sent the oldest.
    due.name("ix_notifications_due").table("notifications").col("not_before").col("claim_until").col("sent_at");
    schema.create_index(due).await?;
    let mut of_login = Index::create();
    of_login.name("ix_devices_login").table("devices").col("login_id");
    schema.create_index(of_login).await?;
    let mut seen = Index::create();
    seen.name("ix_devices_seen").table("devices").col("last_seen_at");
    schema.create_index(seen).await?;
    let mut suspect = Index::create();
    suspect.name("ix_devices_suspect").table("devices").col("suspect_since");
    schema.create_index(suspect).await
}

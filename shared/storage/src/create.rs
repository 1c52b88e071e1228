//! Creating a channel: the channel, its members and its log's first entry in one transaction.

use crate::{
    ChannelView, Entry, Kind, Members, Role, Storage,
    connection::{commit, in_time},
    entity::channels,
    error::Result,
    log::NewEntries,
    members::{join, next_version},
    users,
};
use sea_orm::{ActiveValue::Set, DatabaseTransaction, EntityTrait};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};
use touchline_ids::{ChannelId, MessageId, Seq, UserId};
use uuid::Uuid;

/// A channel to be.
#[derive(Debug, Clone)]
pub struct NewChannel {
    /// Drawn by the caller.
    pub id: ChannelId,
    /// At most 128 characters.
    pub name: String,
    /// Who creates it.
    pub owner: UserId,
    /// Who else is in it from the start; the owner and doubles among them do no harm.
    pub member_ids: Vec<UserId>,
    /// The id of the log's first entry.
    pub message_id: MessageId,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// What creating a channel found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateChannel {
    /// It exists now.
    Created {
        /// As its owner sees it.
        view: ChannelView,
        /// The log's first entry.
        entry: Entry,
        /// Who is in it.
        members: Arc<Members>,
    },
    /// These are nobody; nothing was created.
    UnknownUsers(Vec<UserId>),
}

impl Storage {
    /// Creates a channel with its first entry in one transaction. `claim_owner` is this api's instance: its claim on
    /// the outbox row lives 5 s.
    ///
    /// # Errors
    /// When the database fails; then nothing is stored, except with `InDoubt`.
    pub async fn create_channel(&self, channel: NewChannel, claim_owner: Uuid) -> Result<CreateChannel> {
        let transaction = self.begin().await?;
        let created = in_time(create(&transaction, channel, claim_owner)).await?;
        commit(transaction).await?;
        Ok(created)
    }
}

async fn create(transaction: &DatabaseTransaction, new: NewChannel, claim_owner: Uuid) -> Result<CreateChannel> {
    let mut users: BTreeSet<_> = new.member_ids.into_iter().collect();
    users.insert(new.owner);
    let unknown = users::unknown(transaction, &users).await?;
    if !unknown.is_empty() {
        return Ok(CreateChannel::UnknownUsers(unknown));
    }
    let first = Seq(1);
    let members = Members::new(next_version(0, new.created_at_ms), users.into_iter().collect());
    let entry = Entry {
        channel_id: new.id,
        seq: first,
        message_id: new.message_id,
        sender_id: new.owner,
        kind: Kind::Created,
        content: json!({ "name": new.name, "user_ids": members.users }).to_string(),
        created_at_ms: new.created_at_ms,
        prev: None,
    };
    let row = channels::ActiveModel {
        id: Set(new.id),
        name: Set(new.name.clone()),
        last_seq: Set(first),
        members_version: Set(members.version),
        created_at: Set(new.created_at_ms),
    };
    channels::Entity::insert(row).exec_without_returning(transaction).await?;
    let role = |user| if user == new.owner { Role::Owner } else { Role::Member };
    join(transaction, new.id, first, members.users.iter().map(|&user| (user, role(user)))).await?;
    let mut entries = NewEntries::default();
    entries.push(&entry, None, false);
    entries.write(transaction, claim_owner).await?;
    let view = ChannelView {
        id: new.id,
        name: new.name,
        role: Role::Owner,
        last_seq: first,
        read_seq: Seq(0),
        joined_seq: first,
        created_at_ms: new.created_at_ms,
    };
    Ok(CreateChannel::Created { view, entry, members: Arc::new(members) })
}

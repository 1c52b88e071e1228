//! What changes a channel: one transaction each, under the lock of the channel's row, with an entry in its log.

use crate::{ChannelView, Entry, MemberCache, Members, Role, Storage, error::Result};
use std::sync::Arc;
use touchline_ids::{ChannelId, MessageId, UserId};
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

/// A change to a channel.
#[derive(Debug, Clone)]
pub struct ChannelChange {
    /// Of which channel.
    pub channel_id: ChannelId,
    /// Who does it.
    pub actor: UserId,
    /// What.
    pub action: Action,
    /// The id of the log's entry.
    pub message_id: MessageId,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// What is done to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Gives it another name, at most 128 characters.
    Rename(String),
    /// Adds members.
    Add {
        /// Whom; those who are in it already do no harm.
        users: Vec<UserId>,
        /// As what.
        role: Role,
    },
    /// Removes a member; oneself to leave.
    Remove(UserId),
    /// Gives a member another role.
    SetRole {
        /// Whom.
        user: UserId,
        /// Which; `Owner` hands the channel over.
        role: Role,
    },
}

/// What a change found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Done, and in the log.
    Stored {
        /// As it stands in the log.
        entry: Entry,
        /// Who is in the channel after the change.
        members: Arc<Members>,
    },
    /// It was so already; nothing is in the log.
    Unchanged,
    /// No such channel, or the actor is not in it.
    NotAMember,
    /// The actor's role does not allow it.
    Forbidden,
    /// These are nobody; nobody was added.
    UnknownUsers(Vec<UserId>),
    /// The one to remove or to give a role is not in the channel.
    NoSuchMember,
    /// The owner cannot leave others behind, nor step down: another one must become owner first.
    OwnerMustHandOver,
    /// The channel would have too many members; nobody was added.
    ChannelFull,
}

impl Storage {
    /// Creates a channel with its first entry in one transaction. `claim_owner` is this api's instance: its claim on
    /// the outbox row lives 5 s.
    ///
    /// # Errors
    /// When the database fails; then nothing is stored, except with `InDoubt`.
    pub async fn create_channel(&self, channel: NewChannel, claim_owner: Uuid) -> Result<CreateChannel> {
        unimplemented!("{channel:?} {claim_owner}")
    }

    /// Changes a channel in one transaction: the actor's role is checked under the lock. `owner` is this api's
    /// instance: its claim on the outbox row lives 5 s.
    ///
    /// # Errors
    /// When the database fails; then nothing is stored, except with `InDoubt`.
    pub async fn change_channel(
        &self,
        change: ChannelChange,
        owner: Uuid,
        cache: &mut MemberCache,
        max_members: usize,
    ) -> Result<Changed> {
        unimplemented!("{change:?} {owner} {cache:?} {max_members}")
    }
}

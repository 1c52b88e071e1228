//! The writer's transaction: a batch of messages gets dense seqs, is stored, and is due to be delivered, or nothing is.

use crate::{Entry, MemberCache, Members, Storage, error::Result};
use std::sync::Arc;
use touchline_ids::{ChannelId, ClientMessageId, MessageId, Seq, UserId};
use uuid::Uuid;

/// A message to store.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Where to.
    pub channel_id: ChannelId,
    /// From whom.
    pub sender_id: UserId,
    /// The sender's name for it: with the channel and the sender the key that makes a retry harmless.
    pub client_message_id: ClientMessageId,
    /// JSON text.
    pub content: String,
    /// SHA-256 of what the sender said, to tell a retry from another message under the same key.
    pub body_hash: [u8; 32],
    /// Nobody is to be notified of it.
    pub no_push: bool,
    /// Drawn by the caller.
    pub message_id: MessageId,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// Stored now, with its outbox row.
    Stored {
        /// As it stands in the log.
        entry: Entry,
        /// Who gets it.
        members: Arc<Members>,
        /// As it was asked for.
        no_push: bool,
    },
    /// Stored before under the same key with the same body; also for a sender who has left since.
    Duplicate {
        /// The first one's position.
        seq: Seq,
        /// The first one's id.
        message_id: MessageId,
        /// When the first one came, Unix milliseconds.
        created_at_ms: i64,
    },
    /// Another body was stored under the same key.
    Conflict,
    /// No such channel, or the sender is not in it.
    NotAMember,
}

impl Storage {
    /// Stores a batch in one transaction and answers for each message in the batch's order. `owner` is this api's
    /// instance: its claim on the outbox rows lives 5 s.
    ///
    /// # Errors
    /// When the database fails; then nothing of the batch is stored, except with `InDoubt`.
    pub async fn append(&self, batch: Vec<NewMessage>, owner: Uuid, cache: &mut MemberCache) -> Result<Vec<Appended>> {
        unimplemented!("{batch:?} {owner} {cache:?}")
    }
}

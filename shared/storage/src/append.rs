//! The writer's transaction: a batch of messages gets dense seqs, is stored, and is due to be delivered, or nothing is.

use crate::{
    Entry, Kind, MemberCache, Members, Storage,
    connection::{commit, in_time},
    entity::messages::{Column, Entity},
    error::Result,
    log::{self, Locks, NewEntries, WhenLocked},
    members,
    rows::{self, KEYS},
};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, FromQueryResult,
    sea_query::{Expr, ExprTrait, Query, SelectStatement},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};
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
    /// Somebody else holds the channel locked, and it was passed over.
    Locked,
}

impl Storage {
    /// Stores a batch in one transaction and answers for each message in the batch's order. `owner` is this api's
    /// instance: its claim on the outbox rows lives 5 s.
    ///
    /// # Errors
    /// When the database fails; then nothing of the batch is stored, except with `InDoubt`.
    pub async fn append(
        &self,
        batch: Vec<NewMessage>,
        owner: Uuid,
        cache: &MemberCache,
        when_locked: WhenLocked,
    ) -> Result<Vec<Appended>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let transaction = self.begin().await?;
        let (answers, epoch) = in_time(append(&transaction, batch, owner, cache, when_locked)).await?;
        commit(transaction).await?;
        if let Some(epoch) = epoch {
            self.remember(epoch, &answers);
        }
        Ok(answers)
    }

    fn remember(&self, epoch: i64, answers: &[Appended]) {
        let mut stored: Vec<_> = answers
            .iter()
            .filter_map(|answer| match answer {
                Appended::Stored { entry, .. } => Some(Arc::new(entry.clone())),
                _ => None,
            })
            .collect();
        stored.sort_unstable_by_key(|entry| (entry.channel_id, entry.seq));
        self.recent.put(epoch, stored);
    }
}

async fn append(
    transaction: &DatabaseTransaction,
    batch: Vec<NewMessage>,
    owner: Uuid,
    cache: &MemberCache,
    when_locked: WhenLocked,
) -> Result<(Vec<Appended>, Option<i64>)> {
    let channels = batch.iter().map(|message| message.channel_id).collect();
    let Locks { held: locked, elsewhere } = log::lock(transaction, &channels, when_locked).await?;
    let epoch = locked.values().next().map(|channel| channel.epoch);
    epoch.inspect(|epoch| cache.of_life(*epoch));
    let versions = locked.values().map(|channel| (channel.id, channel.members_version)).collect();
    let members = members::current(transaction, &versions, cache).await?;
    // Under the lock: nobody stores in these channels between this look and our commit.
    let stored = stored_before(transaction, &batch).await?;

    let mut ends: BTreeMap<_, _> = locked.values().map(|channel| (channel.id, channel.last_seq)).collect();
    let mut new = NewEntries::default();
    let answers = number(batch, &elsewhere, stored, &members, &mut ends, &mut new);

    ends.retain(|channel, seq| *seq > locked[channel].last_seq);
    if !ends.is_empty() {
        new.write(transaction, owner).await?;
        let ends: Vec<_> = ends.into_iter().collect();
        for some in ends.chunks(KEYS) {
            transaction.execute(&log::advance(some)).await?;
        }
    }
    Ok((answers, epoch))
}

/// What makes a message the same as another.
type Key = (ChannelId, UserId, ClientMessageId);

/// A message stored before under its key.
#[derive(Clone, FromQueryResult)]
struct First {
    channel_id: ChannelId,
    sender_id: UserId,
    client_message_id: ClientMessageId,
    seq: Seq,
    id: MessageId,
    body_hash: Vec<u8>,
    created_at: i64,
}

async fn stored_before(transaction: &DatabaseTransaction, batch: &[NewMessage]) -> Result<HashMap<Key, First>> {
    let keys: BTreeSet<Key> = batch.iter().map(NewMessage::key).collect();
    let keys: Vec<_> = keys.into_iter().collect();
    let mut stored = HashMap::new();
    for some in keys.chunks(KEYS) {
        for first in rows::all::<First>(transaction, &with_keys(some)).await? {
            stored.insert((first.channel_id, first.sender_id, first.client_message_id.clone()), first);
        }
    }
    Ok(stored)
}

/// Looks each key up in the unique index, by joining the keys to the table. Spelt as alternatives (`OR`), Postgres
/// takes out what they have in common and reads a whole channel when all keys are of that channel.
pub(crate) fn with_keys(keys: &[Key]) -> SelectStatement {
    use Column::{BodyHash, ChannelId, ClientMessageId, CreatedAt, Id, SenderId, Seq};
    let column = |column| Expr::col((Entity, column));
    let channel = column(ChannelId).equals(("keys", "column1"));
    let sender = column(SenderId).equals(("keys", "column2"));
    let name = column(ClientMessageId).equals(("keys", "column3"));
    Query::select()
        .columns([ChannelId, SenderId, ClientMessageId, Seq, Id, BodyHash, CreatedAt].map(|column| (Entity, column)))
        .from_values(keys.iter().cloned(), "keys")
        .inner_join(Entity, channel.and(sender).and(name))
        .take()
}

impl NewMessage {
    fn key(&self) -> Key {
        (self.channel_id, self.sender_id, self.client_message_id.clone())
    }
}

/// Answers for each message and gives the new ones the seqs after their channels' ends. A duplicate is answered before
/// the membership is looked at: what was stored stays stored, whoever left since.
fn number(
    batch: Vec<NewMessage>,
    elsewhere: &HashSet<ChannelId>,
    mut stored: HashMap<Key, First>,
    members: &HashMap<ChannelId, Arc<Members>>,
    ends: &mut BTreeMap<ChannelId, Seq>,
    new: &mut NewEntries,
) -> Vec<Appended> {
    let answer = |message: NewMessage| {
        if elsewhere.contains(&message.channel_id) {
            return Appended::Locked;
        }
        if let Some(first) = stored.get(&message.key()) {
            return if first.body_hash == message.body_hash {
                Appended::Duplicate { seq: first.seq, message_id: first.id, created_at_ms: first.created_at }
            } else {
                Appended::Conflict
            };
        }
        let (Some(members), Some(end)) = (members.get(&message.channel_id), ends.get_mut(&message.channel_id)) else {
            return Appended::NotAMember;
        };
        if !members.contains(message.sender_id) {
            return Appended::NotAMember;
        }
        *end = end.next();
        let first = First {
            channel_id: message.channel_id,
            sender_id: message.sender_id,
            client_message_id: message.client_message_id.clone(),
            seq: *end,
            id: message.message_id,
            body_hash: message.body_hash.to_vec(),
            created_at: message.created_at_ms,
        };
        stored.insert(message.key(), first);
        let entry = Entry {
            channel_id: message.channel_id,
            seq: *end,
            message_id: message.message_id,
            sender_id: message.sender_id,
            kind: Kind::Text,
            content: message.content,
            created_at_ms: message.created_at_ms,
        };
        new.push(&entry, Some((message.client_message_id, message.body_hash)), message.no_push);
        Appended::Stored { entry, members: members.clone(), no_push: message.no_push }
    };
    batch.into_iter().map(answer).collect()
}

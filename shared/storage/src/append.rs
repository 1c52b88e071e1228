//! The writer's transaction: a batch of messages gets dense seqs, is stored, and is due to be delivered, or nothing is.

use crate::{
    Entry, Kind, MemberCache, Members, Storage,
    connection::{commit, in_time},
    entity::messages::{Column, Entity},
    error::Result,
    log::{self, Locked, Locks, NewEntries, WhenLocked},
    members,
    rows::{self, KEYS},
};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, FromQueryResult,
    sea_query::{Expr, ExprTrait, Query, SelectStatement, UnionType},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};
use touchline_ids::{ChannelId, Check, ClientMessageId, MessageId, Seq, UserId};
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
    /// Whom it mentions, each once; whoever is not a member at its seq is left out.
    pub mentions: Vec<UserId>,
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
    let (stored, mut ends) = stored_before(transaction, &batch, &locked).await?;

    let mut new = NewEntries::default();
    let answers = number(batch, &elsewhere, stored, &members, &mut ends, &mut new);

    ends.retain(|channel, end| end.seq > locked[channel].last_seq);
    if !ends.is_empty() {
        new.write(transaction, owner).await?;
        let ends: Vec<_> = ends.into_iter().map(|(channel, end)| (channel, end.seq)).collect();
        for some in ends.chunks(KEYS) {
            transaction.execute(&log::advance(some)).await?;
        }
    }
    Ok((answers, epoch))
}

/// What makes a message the same as another.
type Key = (ChannelId, UserId, ClientMessageId);

/// An entry stored before: under the key of one of the batch, or at the end of a log.
#[derive(FromQueryResult)]
struct Before {
    channel_id: ChannelId,
    sender_id: UserId,
    client_message_id: Option<ClientMessageId>,
    seq: Seq,
    id: MessageId,
    body_hash: Option<Vec<u8>>,
    created_at: i64,
}

/// The first message under a key.
struct First {
    seq: Seq,
    id: MessageId,
    body_hash: Vec<u8>,
    created_at: i64,
}

/// A log's last entry.
struct End {
    seq: Seq,
    check: Option<Check>,
}

/// What is stored under the batch's keys, and the ends of the locked channels' logs.
async fn stored_before(
    transaction: &DatabaseTransaction,
    batch: &[NewMessage],
    locked: &BTreeMap<ChannelId, Locked>,
) -> Result<(HashMap<Key, First>, BTreeMap<ChannelId, End>)> {
    let keys: BTreeSet<Key> = batch.iter().map(NewMessage::key).collect();
    let keys: Vec<_> = keys.into_iter().collect();
    let places: Vec<_> = locked.values().map(|channel| (channel.id, channel.last_seq)).collect();
    let end = |&(channel, seq)| (channel, End { seq, check: None });
    let (mut stored, mut ends) = (HashMap::new(), places.iter().map(end).collect::<BTreeMap<_, _>>());
    // Each locked channel is one of a key, so there are no more places than keys.
    let mut places = places.chunks(KEYS);
    for keys in keys.chunks(KEYS) {
        // As many places as keys, so that there is one statement for each number of keys to prepare, not for each pair.
        let mut places = places.next().unwrap_or_default().to_vec();
        places.extend(places.last().copied().into_iter().cycle().take(keys.len().saturating_sub(places.len())));
        let select = before(keys, &places);
        for Before { channel_id, sender_id, client_message_id, seq, id, body_hash, created_at } in
            rows::all(transaction, &select).await?
        {
            if let Some(end) = ends.get_mut(&channel_id).filter(|end| end.seq == seq) {
                end.check = Some(id.check());
            }
            // Only what a client sent has both.
            if let Some((name, body_hash)) = client_message_id.zip(body_hash) {
                stored.insert((channel_id, sender_id, name), First { seq, id, body_hash, created_at });
            }
        }
    }
    Ok((stored, ends))
}

const COLUMNS: [Column; 7] = [
    Column::ChannelId,
    Column::SenderId,
    Column::ClientMessageId,
    Column::Seq,
    Column::Id,
    Column::BodyHash,
    Column::CreatedAt,
];

/// What is stored under these keys and at these places. Each key is looked up in the unique index, by joining the keys to the table. Spelt as alternatives (`OR`), Postgres
/// takes out what they have in common and reads a whole channel when all keys are of that channel.
pub(crate) fn before(keys: &[Key], places: &[(ChannelId, Seq)]) -> SelectStatement {
    let is = |column: Column, key| Expr::col((Entity, column)).equals(("keys", key));
    let channel = || is(Column::ChannelId, "column1");
    let columns = || Query::select().columns(COLUMNS.map(|column| (Entity, column))).take();
    let by_key = channel().and(is(Column::SenderId, "column2")).and(is(Column::ClientMessageId, "column3"));
    let mut select = columns().from_values(keys.iter().cloned(), "keys").inner_join(Entity, by_key).take();
    if !places.is_empty() {
        let at_place = channel().and(is(Column::Seq, "column2"));
        let ends = columns().from_values(places.iter().copied(), "keys").inner_join(Entity, at_place).take();
        select.union(UnionType::All, ends);
    }
    select
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
    ends: &mut BTreeMap<ChannelId, End>,
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
        let seq = end.seq.next();
        let prev = std::mem::replace(end, End { seq, check: Some(message.message_id.check()) }).check;
        let (id, body_hash, created_at) = (message.message_id, message.body_hash.to_vec(), message.created_at_ms);
        stored.insert(message.key(), First { seq, id, body_hash, created_at });
        let entry = Entry {
            channel_id: message.channel_id,
            seq,
            message_id: message.message_id,
            sender_id: message.sender_id,
            kind: Kind::Text,
            content: message.content,
            created_at_ms: message.created_at_ms,
            prev,
        };
        new.push(&entry, Some((message.client_message_id, message.body_hash)), message.no_push);
        new.mention(&entry, &message.mentions, members);
        Appended::Stored { entry, members: members.clone(), no_push: message.no_push }
    };
    batch.into_iter().map(answer).collect()
}

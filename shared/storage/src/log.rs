//! Writing a channel's log: lock the channel's row, write entries and what is due for them, move the end.

use crate::{
    Entry, Members,
    entity::{
        channels::{self, Column},
        mentions::ActiveModel as Mention,
        messages,
    },
    error::Result,
    mentions,
    outbox::{self, Due},
    recent::epoch,
    rows::{self, VALUES},
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, FromQueryResult, QueryFilter,
    QueryTrait,
    sea_query::{
        CaseStatement, Expr, ExprTrait, LockBehavior, LockType, Order, Query, SelectStatement, UpdateStatement,
    },
};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use touchline_ids::{ChannelId, ClientMessageId, Seq, UserId};
use uuid::Uuid;

/// What to do about a channel that somebody else holds locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenLocked {
    /// Wait for it; after 2 s the whole transaction is `Unavailable`.
    Wait,
    /// Leave what is for this channel undone and say so.
    PassOver,
}

/// A channel as it was locked.
#[derive(Debug, FromQueryResult)]
pub(crate) struct Locked {
    pub(crate) id: ChannelId,
    pub(crate) name: String,
    pub(crate) last_seq: Seq,
    pub(crate) members_version: i64,
    /// In which life of the database ([`crate::recent`]).
    pub(crate) epoch: i64,
}

/// The channels that a transaction works on. Those that are in neither do not exist.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    pub(crate) held: BTreeMap<ChannelId, Locked>,
    /// Locked by somebody else and passed over.
    pub(crate) elsewhere: HashSet<ChannelId>,
}

/// Locks channels until the transaction ends, in id order, so that two writers never wait for each other crosswise.
/// (On SQLite the transaction has the lock of the whole database already.)
pub(crate) async fn lock(
    transaction: &DatabaseTransaction,
    channels: &BTreeSet<ChannelId>,
    when_locked: WhenLocked,
) -> Result<Locks> {
    let mut locks = Locks::default();
    let backend = transaction.get_database_backend();
    let channels: Vec<_> = channels.iter().copied().collect();
    for some in channels.chunks(VALUES) {
        let locked: Vec<Locked> = rows::all(transaction, &locking(some, when_locked, backend)).await?;
        locks.held.extend(locked.into_iter().map(|channel| (channel.id, channel)));
        let missing: Vec<_> = some.iter().filter(|channel| !locks.held.contains_key(channel)).copied().collect();
        if when_locked == WhenLocked::PassOver && !missing.is_empty() {
            let there: Vec<There> = rows::all(transaction, &existing(&missing)).await?;
            locks.elsewhere.extend(there.into_iter().map(|channel| channel.id));
        }
    }
    Ok(locks)
}

pub(crate) fn locking(channels: &[ChannelId], when_locked: WhenLocked, backend: DbBackend) -> SelectStatement {
    let mut select = Query::select();
    select
        .columns([Column::Id, Column::Name, Column::LastSeq, Column::MembersVersion])
        .expr_as(epoch(backend), "epoch")
        .from(channels::Entity)
        .and_where(Expr::col(Column::Id).is_in(channels.iter().copied()))
        .order_by(Column::Id, Order::Asc);
    match when_locked {
        WhenLocked::Wait => select.lock(LockType::Update),
        WhenLocked::PassOver => select.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked),
    };
    select
}

#[derive(FromQueryResult)]
struct There {
    id: ChannelId,
}

pub(crate) fn existing(channels: &[ChannelId]) -> SelectStatement {
    let among = Expr::col(Column::Id).is_in(channels.iter().copied());
    Query::select().column(Column::Id).from(channels::Entity).and_where(among).take()
}

/// Entries to write, and what becomes due with them.
#[derive(Default)]
pub(crate) struct NewEntries {
    messages: Vec<messages::ActiveModel>,
    due: Vec<Due>,
    mentions: Vec<Mention>,
}

impl NewEntries {
    /// One entry; `key` is the client's name for it and the hash of what the client said.
    pub(crate) fn push(&mut self, entry: &Entry, key: Option<(ClientMessageId, [u8; 32])>, no_push: bool) {
        let (client_message_id, body_hash) = key.unzip();
        self.due.push(Due { channel_id: entry.channel_id, seq: entry.seq, no_push });
        self.messages.push(messages::ActiveModel {
            channel_id: Set(entry.channel_id),
            seq: Set(entry.seq),
            id: Set(entry.message_id),
            sender_id: Set(entry.sender_id),
            client_message_id: Set(client_message_id),
            body_hash: Set(body_hash.map(Vec::from)),
            kind: Set(entry.kind),
            content: Set(entry.content.clone()),
            created_at: Set(entry.created_at_ms),
            prev: Set(entry.prev),
        });
    }

    /// Whom an entry mentions; members count, nobody else does.
    pub(crate) fn mention(&mut self, entry: &Entry, mentioned: &[UserId], members: &Members) {
        self.mentions.extend(mentions::of(entry, mentioned, members));
    }

    /// Writes them, whom they mention and their outbox rows, claimed by `owner`. The channels' ends do not move by that.
    pub(crate) async fn write(self, transaction: &DatabaseTransaction, owner: Uuid) -> Result<()> {
        let mut messages = self.messages;
        while !messages.is_empty() {
            let rest = messages.split_off(messages.len().min(VALUES));
            messages::Entity::insert_many(messages).exec_without_returning(transaction).await?;
            messages = rest;
        }
        for some in self.due.chunks(VALUES) {
            transaction.execute(&outbox::insert(some, owner, transaction.get_database_backend())).await?;
        }
        // Seldom any, and then it costs no statement.
        mentions::insert(transaction, self.mentions).await
    }
}

/// Moves the ends of channels, all in one statement.
pub(crate) fn advance(ends: &[(ChannelId, Seq)]) -> UpdateStatement {
    let last_seq = ends
        .iter()
        .fold(CaseStatement::new(), |case, &(channel, seq)| case.case(Expr::col(Column::Id).eq(channel), seq));
    channels::Entity::update_many()
        .col_expr(Column::LastSeq, last_seq.into())
        .filter(Column::Id.is_in(ends.iter().map(|&(channel, _)| channel)))
        .into_query()
}

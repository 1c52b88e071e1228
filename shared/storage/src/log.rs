//! Writing a channel's log: lock the channel's row, write entries and what is due for them, move the end.

use crate::{
    Entry,
    entity::{
        channels::{self, Column},
        messages,
    },
    error::Result,
    outbox::{self, Due},
    rows::VALUES,
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    Select,
    sea_query::{CaseStatement, Expr, ExprTrait, UpdateStatement},
};
use std::collections::{BTreeMap, BTreeSet};
use touchline_ids::{ChannelId, ClientMessageId, Seq};
use uuid::Uuid;

/// Locks channels until the transaction ends, in id order, so that two writers never wait for each other crosswise.
/// (On SQLite the transaction has the lock of the whole database already.)
pub(crate) async fn lock(
    transaction: &DatabaseTransaction,
    channels: &BTreeSet<ChannelId>,
) -> Result<BTreeMap<ChannelId, channels::Model>> {
    let channels: Vec<_> = channels.iter().copied().collect();
    let mut locked = BTreeMap::new();
    for some in channels.chunks(VALUES) {
        locked.extend(locking(some).all(transaction).await?.into_iter().map(|channel| (channel.id, channel)));
    }
    Ok(locked)
}

pub(crate) fn locking(channels: &[ChannelId]) -> Select<channels::Entity> {
    channels::Entity::find()
        .filter(Column::Id.is_in(channels.iter().copied()))
        .order_by_asc(Column::Id)
        .lock_exclusive()
}

/// Entries to write, and what becomes due with them.
#[derive(Default)]
pub(crate) struct NewEntries {
    messages: Vec<messages::ActiveModel>,
    due: Vec<Due>,
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
        });
    }

    /// Writes them and their outbox rows, claimed by `owner`. The channels' ends do not move by that.
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
        Ok(())
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

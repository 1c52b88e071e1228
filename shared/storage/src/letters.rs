//! The outbox as an operator sees it: what waits, what was given up, and what to do about it.

use crate::{
    Kind, Storage, clock,
    entity::{
        messages,
        outbox::{Column, Entity},
    },
    error::Result,
    outbox::{DEAD, NOBODY, among},
    rows::KEYS,
};
use sea_orm::{
    ConnectionTrait, DbBackend, FromQueryResult,
    sea_query::{Expr, ExprTrait, Order, Query, SelectStatement, UpdateStatement},
};
use touchline_ids::{ChannelId, Seq, UserId};
use uuid::Uuid;

/// One row of the outbox. Never with the message's text.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Letter {
    /// Whose log.
    pub channel_id: ChannelId,
    /// Where in it.
    pub seq: Seq,
    /// How often its fan-out has begun.
    pub attempts: i32,
    /// Given up: nobody works on it until it is retried.
    pub is_dead: bool,
    /// The api that works on it, or did last; nil when it was let go.
    pub owner: Uuid,
    /// How long its claim still lives, in milliseconds; negative when it has ended. Nothing for a dead letter.
    pub claim_ms: Option<i64>,
    /// Who sent it. Absent, as is what follows, when the message itself is not there.
    pub sender_id: Option<UserId>,
    /// What it is.
    pub kind: Option<Kind>,
    /// When it was received, Unix milliseconds.
    pub created_at: Option<i64>,
}

impl Storage {
    /// The outbox after `after` in order of (channel, seq), at most `limit`; only the dead letters if so asked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn letters(&self, only_dead: bool, after: Option<(ChannelId, Seq)>, limit: u64) -> Result<Vec<Letter>> {
        self.read_all(&page(only_dead, after, limit, self.reader.get_database_backend())).await
    }

    /// Gives these dead letters their attempts anew: the next api that looks takes them. Answers how many of them were
    /// dead letters; others are left alone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retry(&self, messages: &[(ChannelId, Seq)]) -> Result<u64> {
        let mut retried = 0;
        for some in messages.chunks(KEYS) {
            let retry = reviving(self.writer.get_database_backend()).and_where(among(some)).take();
            retried += self.reach(async { Ok(self.writer.execute(&retry).await?) }).await?.rows_affected();
        }
        Ok(retried)
    }

    /// As [`retry`](Self::retry), for every dead letter.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retry_all_dead(&self) -> Result<u64> {
        let retry = reviving(self.writer.get_database_backend());
        Ok(self.reach(async { Ok(self.writer.execute(&retry).await?) }).await?.rows_affected())
    }

    /// Takes these rows out of the outbox, whatever their state: nobody will push these messages or notify of them
    /// any more. The messages stay, and a sync brings them. Answers how many rows there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drop_letters(&self, messages: &[(ChannelId, Seq)]) -> Result<u64> {
        let mut dropped = 0;
        for some in messages.chunks(KEYS) {
            let delete = crate::outbox::delete(some);
            dropped += self.reach(async { Ok(self.writer.execute(&delete).await?) }).await?.rows_affected();
        }
        Ok(dropped)
    }
}

pub(crate) fn page(
    only_dead: bool,
    after: Option<(ChannelId, Seq)>,
    limit: u64,
    backend: DbBackend,
) -> SelectStatement {
    let row = |column: Column| Expr::col((Entity, column));
    let message = |column: messages::Column| Expr::col((messages::Entity, column));
    let is_dead = || row(Column::ClaimUntil).eq(DEAD);
    let left = row(Column::ClaimUntil).sub(clock::now_ms(backend));
    let its_message = message(messages::Column::ChannelId)
        .equals((Entity, Column::ChannelId))
        .and(message(messages::Column::Seq).equals((Entity, Column::Seq)));
    let after = after.map(|(channel, seq)| {
        Expr::tuple([row(Column::ChannelId), row(Column::Seq)]).gt(Expr::tuple([channel.into(), seq.into()]))
    });
    Query::select()
        .columns([Column::ChannelId, Column::Seq, Column::Attempts, Column::Owner].map(|column| (Entity, column)))
        .expr_as(is_dead(), "is_dead")
        .expr_as(Expr::case(row(Column::ClaimUntil).lt(DEAD), left), "claim_ms")
        .columns(
            [messages::Column::SenderId, messages::Column::Kind, messages::Column::CreatedAt]
                .map(|column| (messages::Entity, column)),
        )
        .from(Entity)
        .left_join(messages::Entity, its_message)
        .and_where_option(only_dead.then(is_dead))
        .and_where_option(after)
        .order_by((Entity, Column::ChannelId), Order::Asc)
        .order_by((Entity, Column::Seq), Order::Asc)
        .limit(limit)
        .take()
}

pub(crate) fn reviving(backend: DbBackend) -> UpdateStatement {
    Query::update()
        .table(Entity)
        .value(Column::Owner, NOBODY)
        .value(Column::ClaimUntil, clock::now_ms(backend))
        .value(Column::Attempts, 0)
        .and_where(Expr::col(Column::ClaimUntil).eq(DEAD))
        .take()
}

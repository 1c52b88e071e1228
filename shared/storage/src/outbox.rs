//! The outbox: messages whose fan-out is not finished.

use crate::{
    Storage, clock,
    connection::in_time,
    entity::outbox::{Column, Entity},
    error::Result,
    rows::KEYS,
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, QueryTrait,
    sea_query::{DeleteStatement, Expr, ExprTrait, InsertStatement, Query, UpdateStatement},
};
use touchline_ids::{ChannelId, Seq};
use uuid::Uuid;

/// How long a claim lives without being renewed.
const CLAIM_MS: i64 = 5_000;

impl Storage {
    /// The fan-out of these messages is finished; those that are not in the outbox do no harm.
    ///
    /// # Errors
    /// When the database fails; finishing again does no harm.
    pub async fn finish(&self, messages: &[(ChannelId, Seq)]) -> Result<()> {
        for some in messages.chunks(KEYS) {
            in_time(async { Ok(self.writer.execute(&delete(some)).await?) }).await?;
        }
        Ok(())
    }

    /// Renews the claims of `owner` for 5 s from now by the database's clock; answers how many it holds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew_claims(&self, owner: Uuid) -> Result<u64> {
        let renewal = renewal(owner, self.writer.get_database_backend());
        Ok(in_time(async { Ok(self.writer.execute(&renewal).await?) }).await?.rows_affected())
    }
}

/// An entry whose fan-out begins.
pub(crate) struct Due {
    pub(crate) channel_id: ChannelId,
    pub(crate) seq: Seq,
    pub(crate) no_push: bool,
}

pub(crate) fn insert(due: &[Due], owner: Uuid, backend: DbBackend) -> InsertStatement {
    let mut insert = Query::insert();
    insert.into_table(Entity).columns([
        Column::ChannelId,
        Column::Seq,
        Column::Owner,
        Column::ClaimUntil,
        Column::NoPush,
    ]);
    for due in due {
        insert.values_panic([
            due.channel_id.into(),
            due.seq.into(),
            owner.into(),
            claim_until(backend),
            due.no_push.into(),
        ]);
    }
    insert
}

pub(crate) fn delete(messages: &[(ChannelId, Seq)]) -> DeleteStatement {
    // Not spelt as alternatives: see `append::with_keys`.
    let finished = Query::select().columns(["column1", "column2"]).from_values(messages.iter().copied(), "keys").take();
    let message = Expr::tuple([Expr::col(Column::ChannelId), Expr::col(Column::Seq)]);
    Query::delete().from_table(Entity).and_where(message.in_subquery(finished)).take()
}

pub(crate) fn renewal(owner: Uuid, backend: DbBackend) -> UpdateStatement {
    Entity::update_many()
        .col_expr(Column::ClaimUntil, claim_until(backend))
        .filter(Column::Owner.eq(owner))
        .into_query()
}

fn claim_until(backend: DbBackend) -> Expr {
    clock::now_ms(backend).add(CLAIM_MS)
}

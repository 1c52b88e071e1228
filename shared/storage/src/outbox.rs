//! The outbox: messages whose fan-out is not finished, and which api works on each.

use crate::{
    Storage, clock,
    entity::outbox::{Column, Entity},
    error::Result,
    rows::KEYS,
};
use sea_orm::{
    ConnectionTrait, DbBackend, FromQueryResult,
    sea_query::{
        CommonTableExpression, DeleteStatement, Expr, ExprTrait, InsertStatement, LockBehavior, LockType, Order, Query,
        SelectStatement, UpdateStatement,
    },
};
use std::time::Duration;
use touchline_ids::{ChannelId, Seq};
use uuid::Uuid;

/// How often a fan-out is begun before its row is a dead letter.
pub const MAX_ATTEMPTS: u32 = 5;

/// How long a claim lives without being renewed.
pub(crate) const CLAIM_MS: i64 = 5_000;
/// `claim_until` of a dead letter: it never ends, so nobody looks at the row again.
pub(crate) const DEAD: i64 = i64::MAX;
/// Whose the rows are that nobody works on: no api's name, so nobody renews them.
pub(crate) const NOBODY: Uuid = Uuid::nil();
/// [`Storage::outbox_counts`] counts no further.
const COUNT_LIMIT: u64 = 100_000;

/// How the outbox stands. Each number is exact up to 100,000 and stays there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxCounts {
    /// Rows whose fan-out is under way or waits to be taken.
    pub waiting: u64,
    /// Those of them whose claim has ended: the next api that looks takes them.
    pub expired: u64,
    /// Rows given up after [`MAX_ATTEMPTS`].
    pub dead: u64,
    /// How long the row that has waited longest for an api has waited, in milliseconds; 0 when none does.
    pub oldest_expired_ms: u64,
}

impl Storage {
    /// The fan-out of these messages is finished; those that are not in the outbox do no harm.
    ///
    /// # Errors
    /// When the database fails; finishing again does no harm.
    pub async fn finish(&self, messages: &[(ChannelId, Seq)]) -> Result<()> {
        for some in messages.chunks(KEYS) {
            self.reach(async { Ok(self.writer.execute(&delete(some)).await?) }).await?;
        }
        Ok(())
    }

    /// Renews the claims of `owner` for 5 s from now by the database's clock; answers how many it renewed. Rows that
    /// are being taken or finished at the moment are left alone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew_claims(&self, owner: Uuid) -> Result<u64> {
        let renewal = renewal(owner, self.writer.get_database_backend());
        Ok(self.reach(async { Ok(self.writer.execute(&renewal).await?) }).await?.rows_affected())
    }

    /// Lets these rows of `owner` go: another api takes them at its next look. Rows of others are left alone.
    ///
    /// # Errors
    /// When the database fails; letting go again does no harm.
    pub async fn release(&self, messages: &[(ChannelId, Seq)], owner: Uuid) -> Result<()> {
        let backend = self.writer.get_database_backend();
        for some in messages.chunks(KEYS) {
            let release =
                letting_go(backend).and_where(among(some)).and_where(Expr::col(Column::Owner).eq(owner)).take();
            self.reach(async { Ok(self.writer.execute(&release).await?) }).await?;
        }
        Ok(())
    }

    /// Lets every row of these owners go; answers how many there were.
    ///
    /// # Errors
    /// When the database fails; letting go again does no harm.
    pub async fn release_all(&self, owners: &[Uuid]) -> Result<u64> {
        if owners.is_empty() {
            return Ok(0);
        }
        let release = release_all(owners, self.writer.get_database_backend());
        Ok(self.reach(async { Ok(self.writer.execute(&release).await?) }).await?.rows_affected())
    }

    /// How the outbox stands, for metrics and the operator.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn outbox_counts(&self) -> Result<OutboxCounts> {
        let backend = self.reader.get_database_backend();
        let mut counts = [0; 3];
        for (count, which) in counts.iter_mut().zip(Which::ALL) {
            let row = self.read_one::<Count>(&counted(which, backend)).await?;
            *count = row.and_then(|row| u64::try_from(row.count).ok()).unwrap_or_default();
        }
        let oldest = self.read_one::<Waited>(&longest_wait(backend)).await?.map_or(0, |row| row.waited_ms);
        let [waiting, expired, dead] = counts;
        Ok(OutboxCounts { waiting, expired, dead, oldest_expired_ms: u64::try_from(oldest).unwrap_or_default() })
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
        Column::Attempts,
        Column::NoPush,
    ]);
    for due in due {
        insert.values_panic([
            due.channel_id.into(),
            due.seq.into(),
            owner.into(),
            claim_until(backend),
            1.into(),
            due.no_push.into(),
        ]);
    }
    insert
}

pub(crate) fn delete(messages: &[(ChannelId, Seq)]) -> DeleteStatement {
    Query::delete().from_table(Entity).and_where(among(messages)).take()
}

/// The rows of these messages.
pub(crate) fn among(messages: &[(ChannelId, Seq)]) -> Expr {
    // Not spelt as alternatives: see `append::with_keys`.
    let keys = Query::select().columns(["column1", "column2"]).from_values(messages.iter().copied(), "keys").take();
    Expr::tuple([Expr::col(Column::ChannelId), Expr::col(Column::Seq)]).in_subquery(keys)
}

/// Passes over locked rows, so that it never waits for a transaction which waits for it: a row that is being finished
/// needs no claim, and one that is being taken has another owner.
pub(crate) fn renewal(owner: Uuid, backend: DbBackend) -> UpdateStatement {
    let mut mine = keys_to_lock();
    mine.and_where(Expr::col(Column::Owner).eq(owner));
    update_locked(mine).value(Column::ClaimUntil, claim_until(backend)).take()
}

pub(crate) fn release_all(owners: &[Uuid], backend: DbBackend) -> UpdateStatement {
    letting_go(backend).and_where(Expr::col(Column::Owner).is_in(owners.iter().copied())).take()
}

/// Keys of rows, locked and without those that somebody else holds locked. (SQLite's transaction has the lock of the
/// whole database.)
pub(crate) fn keys_to_lock() -> SelectStatement {
    Query::select()
        .expr_as(Expr::col(Column::ChannelId), "channel")
        .expr_as(Expr::col(Column::Seq), "position")
        .from(Entity)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .take()
}

/// An update of the rows that [`keys_to_lock`] found. It is a table expression, not a sub-query: Postgres would be
/// free to run a sub-query more than once, and each run would lock other rows.
pub(crate) fn update_locked(keys: SelectStatement) -> UpdateStatement {
    let mut due = CommonTableExpression::new();
    due.table_name("due").query(keys);
    let column = |column: Column| Expr::col((Entity, column));
    Query::update()
        .table(Entity)
        .with_cte(due)
        .from("due")
        .and_where(column(Column::ChannelId).equals(("due", "channel")))
        .and_where(column(Column::Seq).equals(("due", "position")))
        .take()
}

/// Whose claim ends is nobody's, so that no renewal brings it back.
fn letting_go(backend: DbBackend) -> UpdateStatement {
    Query::update().table(Entity).value(Column::Owner, NOBODY).value(Column::ClaimUntil, clock::now_ms(backend)).take()
}

pub(crate) fn claim_until(backend: DbBackend) -> Expr {
    clock::now_ms(backend).add(CLAIM_MS)
}

/// The rows whose claim has ended.
pub(crate) fn expired(waited: Duration, backend: DbBackend) -> Expr {
    let waited = i64::try_from(waited.as_millis()).unwrap_or(i64::MAX);
    Expr::col(Column::ClaimUntil).lte(clock::now_ms(backend).sub(waited))
}

/// What is counted.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    Waiting,
    Expired,
    Dead,
}

impl Which {
    pub(crate) const ALL: [Self; 3] = [Self::Waiting, Self::Expired, Self::Dead];
}

#[derive(FromQueryResult)]
struct Count {
    count: i64,
}

pub(crate) fn counted(which: Which, backend: DbBackend) -> SelectStatement {
    let claim_until = || Expr::col(Column::ClaimUntil);
    let rows = Query::select()
        .expr_as(Expr::val(1), "one")
        .from(Entity)
        .and_where(match which {
            Which::Waiting => claim_until().lt(DEAD),
            Which::Expired => expired(Duration::ZERO, backend),
            Which::Dead => claim_until().eq(DEAD),
        })
        .limit(COUNT_LIMIT)
        .take();
    Query::select().expr_as(Expr::cust("COUNT(*)"), "count").from_subquery(rows, "counted").take()
}

#[derive(FromQueryResult)]
struct Waited {
    waited_ms: i64,
}

pub(crate) fn longest_wait(backend: DbBackend) -> SelectStatement {
    Query::select()
        .expr_as(clock::now_ms(backend).sub(Expr::col(Column::ClaimUntil)), "waited_ms")
        .from(Entity)
        .and_where(expired(Duration::ZERO, backend))
        .order_by(Column::ClaimUntil, Order::Asc)
        .limit(1)
        .take()
}

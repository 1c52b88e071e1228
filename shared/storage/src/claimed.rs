//! The notifier's work: rows whose time has come are claimed for 30 s, and settled by what became of the pushes.

use crate::{
    Outcome, Storage, clock,
    connection::{commit, in_time},
    delivered::dropping,
    entity::notifications::{Column, Entity},
    error::Result,
    notifications::{NEVER, SPACING_MS},
    outbox::DEAD,
    outcomes,
    rows::{self, KEYS},
};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, FromQueryResult,
    sea_query::{
        CommonTableExpression, Expr, ExprTrait, IntoTableRef, LockBehavior, LockType, Order, Query, SelectStatement,
        UpdateStatement,
    },
};
use std::{
    cmp::min,
    collections::{BTreeMap, HashMap},
};
use touchline_ids::{ChannelId, Seq, UserId};
use uuid::Uuid;

/// How often a notification is claimed without anything coming of it; then it is dead.
pub const MAX_CLAIMS: u32 = 10;

/// How long a claim lives. A push ends earlier, by its provider's deadline.
pub(crate) const LEASE_MS: i64 = 30_000;

/// Somebody who is to be notified of what they missed in a channel.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Notification {
    /// Whom.
    pub user_id: UserId,
    /// Of which channel.
    pub channel_id: ChannelId,
    /// Up to where.
    pub max_seq: Seq,
    /// How many messages were missed.
    pub count: i64,
    /// Up to where a push was accepted before; 0 for nowhere.
    pub sent_seq: Seq,
    /// When the last one was noted, Unix milliseconds by the database's clock.
    pub noted_at: i64,
    /// How often it was claimed since something came of it, this time included.
    pub attempts: i32,
    /// How often in a row the provider put it off.
    pub tries: i32,
}

/// What becomes of a claimed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Everything up to `max_seq` was sent. The row stays, to count on, until it is acked or read.
    Sent,
    /// There was nothing to send (acked, muted, no device, not a member, too old): the row goes.
    Dropped,
    /// Again, in so many milliseconds.
    Again {
        /// From now.
        after_ms: i64,
        /// Whether the provider put it off, which makes the next wait longer.
        put_off: bool,
    },
    /// Given up, until there is something new or an operator retries it.
    Dead,
    /// Nothing was tried: as if it had not been claimed.
    Released,
    /// It failed here for a reason that may lie in the row: again in so many milliseconds, and so often only.
    Failed {
        /// From now.
        after_ms: i64,
    },
}

/// What is to become of a claimed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Whose.
    pub user: UserId,
    /// Of which channel.
    pub channel: ChannelId,
    /// Up to where it was claimed.
    pub seq: Seq,
    /// The name of the claim under which it is held.
    pub claim: Uuid,
    /// What becomes of it.
    pub then: Then,
}

impl Storage {
    /// Claims rows whose time has come, those first that have waited longest, at most `limit` and 1,000, for 30 s.
    /// `claim` names this claim: each has a name of its own, so that a late settlement never meets a later claim. A row
    /// that was claimed [`MAX_CLAIMS`] times without anything coming of it is dead instead.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_notifications(&self, claim: Uuid, limit: u32) -> Result<Vec<Notification>> {
        let transaction = self.begin().await?;
        let claim = claiming(claim, limit, transaction.get_database_backend());
        let rows = in_time(async { Ok(transaction.query_all(&claim).await?) }).await?;
        // One that cannot be read keeps nobody back: it is claimed again until it is dead.
        let rows: Vec<_> = rows.iter().filter_map(|row| Claimed::from_query_result(row, "").ok()).collect();
        commit(transaction).await?;
        let (dead, claimed): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.claim_until == DEAD);
        if !dead.is_empty() {
            tracing::error!(
                notifications.dead = dead.len(),
                "given up after {MAX_CLAIMS} attempts; see `touchline notifications list --dead`"
            );
        }
        Ok(claimed.into_iter().map(|row| row.notification).collect())
    }

    /// In how many milliseconds a row is due; negative when one has been for so long.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_notification_ms(&self) -> Result<Option<i64>> {
        let soonest = self.read_one::<Soonest>(&soonest(self.reader.get_database_backend())).await?;
        Ok(soonest.and_then(|soonest| soonest.in_ms))
    }

    /// Settles claimed rows, and notes what became of the pushes. A row that was claimed anew is left alone; one that
    /// was raised meanwhile is due again. All in one transaction.
    ///
    /// # Errors
    /// When the database fails; settling again does no harm.
    pub async fn settle_notifications(&self, settled: &[Settlement], outcomes: &[Outcome]) -> Result<()> {
        let transaction = self.begin().await?;
        in_time(async {
            outcomes::note(&transaction, outcomes).await?;
            settle(&transaction, settled).await
        })
        .await?;
        commit(transaction).await
    }
}

#[derive(FromQueryResult)]
struct Claimed {
    #[sea_orm(nested)]
    notification: Notification,
    claim_until: i64,
}

pub(crate) fn claiming(claim: Uuid, limit: u32, backend: DbBackend) -> UpdateStatement {
    use Column::{Attempts, ChannelId, ClaimUntil, Count, MaxSeq, NotBefore, NotedAt, Owner, SentSeq, Tries, UserId};
    let due = Query::select()
        .expr_as(Expr::col(UserId), "person")
        .expr_as(Expr::col(ChannelId), "channel")
        .from(Entity)
        .and_where(Expr::col(NotBefore).lte(clock::now_ms(backend)))
        .and_where(Expr::col(ClaimUntil).lte(clock::now_ms(backend)))
        .order_by(NotBefore, Order::Asc)
        .limit(min(u64::from(limit), KEYS as u64))
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .take();
    let row = |column: Column| Expr::col((Entity, column));
    let too_often = || row(Attempts).gte(i32::try_from(MAX_CLAIMS).unwrap_or(i32::MAX));
    update_keys(due)
        .value(Owner, claim)
        .value(ClaimUntil, Expr::case(too_often(), DEAD).finally(clock::now_ms(backend).add(LEASE_MS)))
        .value(NotBefore, Expr::case(too_often(), NEVER).finally(row(NotBefore)))
        .value(Attempts, Expr::case(too_often(), row(Attempts)).finally(row(Attempts).add(1)))
        .returning(
            Query::returning()
                .columns([UserId, ChannelId, MaxSeq, Count, SentSeq, NotedAt, Attempts, Tries, ClaimUntil]),
        )
        .take()
}

/// An update of the rows with these keys; see [`outbox::update_locked`](crate::outbox::update_locked).
fn update_keys(keys: SelectStatement) -> UpdateStatement {
    let mut due = CommonTableExpression::new();
    due.table_name("due").query(keys);
    let column = |column: Column| Expr::col((Entity, column));
    Query::update()
        .table(Entity)
        .with_cte(due)
        .from("due")
        .and_where(column(Column::UserId).equals(("due", "person")))
        .and_where(column(Column::ChannelId).equals(("due", "channel")))
        .take()
}

#[derive(FromQueryResult)]
pub(crate) struct Soonest {
    /// None when nothing is to be sent at all.
    pub(crate) in_ms: Option<i64>,
}

pub(crate) fn soonest(backend: DbBackend) -> SelectStatement {
    soonest_of(Entity, column(Column::NotBefore), column(Column::ClaimUntil), backend)
}

/// When the first row of a table is due that is due at a time and may be claimed.
pub(crate) fn soonest_of(
    table: impl IntoTableRef,
    not_before: Expr,
    claim_until: Expr,
    backend: DbBackend,
) -> SelectStatement {
    // A claimed row is due when its claim ends: those at the front of the index are.
    let due = Expr::case(claim_until.clone().gt(not_before.clone()), claim_until).finally(not_before.clone());
    let front = Query::select()
        .expr_as(due, "due")
        .from(table)
        .and_where(not_before.clone().lt(NEVER))
        .order_by_expr(not_before, Order::Asc)
        .limit(KEYS as u64)
        .take();
    Query::select()
        .expr_as(Expr::col("due").min().sub(clock::now_ms(backend)), "in_ms")
        .from_subquery(front, "front")
        .take()
}

fn column(column: Column) -> Expr {
    Expr::col((Entity, column))
}

#[derive(FromQueryResult)]
struct Held {
    user_id: UserId,
    channel_id: ChannelId,
    max_seq: Seq,
    owner: Option<Uuid>,
}

/// These rows, locked in order: an ack, or a miss, locks them in the same order. Whose they are is not asked here: that
/// would tempt Postgres to read the whole table for the few of one owner.
pub(crate) fn locking(keys: &[(UserId, ChannelId)]) -> SelectStatement {
    let key = |name: &'static str| Expr::col(("keys", name));
    let same = column(Column::UserId).eq(key("column1")).and(column(Column::ChannelId).eq(key("column2")));
    Query::select()
        .columns([Column::UserId, Column::ChannelId, Column::MaxSeq, Column::Owner].map(|column| (Entity, column)))
        .from_values(keys.iter().copied(), "keys")
        .inner_join(Entity, same)
        .order_by((Entity, Column::UserId), Order::Asc)
        .order_by((Entity, Column::ChannelId), Order::Asc)
        .lock_with_tables(LockType::Update, [Entity])
        .take()
}

/// A row to settle, up to where it was claimed, and when it is due again if that is said.
type Place = (UserId, ChannelId, Seq, i64);

async fn settle(transaction: &DatabaseTransaction, settled: &[Settlement]) -> Result<()> {
    let by_key: BTreeMap<_, _> = settled.iter().map(|one| ((one.user, one.channel), one)).collect();
    let keys: Vec<_> = by_key.keys().copied().collect();
    let mut places: HashMap<Kind, Vec<Place>> = HashMap::new();
    for some in keys.chunks(KEYS) {
        let held: Vec<Held> = rows::all(transaction, &locking(some)).await?;
        for held in held {
            let one = by_key[&(held.user_id, held.channel_id)];
            if held.owner == Some(one.claim) {
                let (kind, after_ms) = Kind::of(one.then, held.max_seq > one.seq);
                places.entry(kind).or_default().push((held.user_id, held.channel_id, one.seq, after_ms));
            }
        }
    }
    for (kind, places) in places {
        for some in places.chunks(KEYS) {
            if kind == Kind::Gone {
                let keys: Vec<_> = some.iter().map(|&(user, channel, ..)| (user, channel)).collect();
                transaction.execute(&dropping(&keys)).await?;
            } else {
                transaction.execute(&update(kind, some, transaction.get_database_backend())).await?;
            }
        }
    }
    Ok(())
}

/// What is written: one statement each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Sent,
    Gone,
    Waits,
    PutOff,
    Dead,
    Untouched,
    Failed,
}

impl Kind {
    /// `raised`: there is more by now than was claimed.
    fn of(then: Then, raised: bool) -> (Self, i64) {
        match then {
            Then::Sent => (Self::Sent, 0),
            Then::Dropped if raised => (Self::Waits, 0),
            Then::Dropped => (Self::Gone, 0),
            Then::Again { after_ms, put_off: true } => (Self::PutOff, after_ms),
            Then::Again { after_ms, put_off: false } => (Self::Waits, after_ms),
            // What was wrong with this message need not be wrong with the next.
            Then::Dead if raised => (Self::Waits, SPACING_MS),
            Then::Dead => (Self::Dead, 0),
            Then::Released => (Self::Untouched, 0),
            Then::Failed { after_ms } => (Self::Failed, after_ms),
        }
    }
}

pub(crate) fn update(kind: Kind, places: &[Place], backend: DbBackend) -> UpdateStatement {
    use Column::{Attempts, ClaimUntil, NotBefore, Owner, SentAt, SentSeq, Tries};
    let due = |name: &'static str| Expr::col(("due", name));
    let values = Query::select()
        .expr_as(Expr::col(("keys", "column1")), "person")
        .expr_as(Expr::col(("keys", "column2")), "channel")
        .expr_as(Expr::col(("keys", "column3")), "settled_seq")
        .expr_as(Expr::col(("keys", "column4")), "after_ms")
        .from_values(places.iter().copied(), "keys")
        .take();
    let mut update = update_keys(values);
    let claim_until = if kind == Kind::Dead { DEAD } else { 0 };
    update.value(Owner, Option::<Uuid>::None).value(ClaimUntil, claim_until);
    let now = || clock::now_ms(backend);
    match kind {
        Kind::Sent => {
            let more = column(Column::MaxSeq).gt(due("settled_seq"));
            update
                .value(SentSeq, due("settled_seq"))
                .value(SentAt, now())
                .value(NotBefore, Expr::case(more, now().add(SPACING_MS)).finally(NEVER))
                .value(Attempts, 0)
                .value(Tries, 0)
        }
        Kind::Waits => update.value(NotBefore, now().add(due("after_ms"))).value(Attempts, 0),
        Kind::PutOff => {
            update.value(NotBefore, now().add(due("after_ms"))).value(Attempts, 0).value(Tries, column(Tries).add(1))
        }
        Kind::Dead => update.value(NotBefore, NEVER),
        Kind::Failed => update.value(NotBefore, now().add(due("after_ms"))),
        Kind::Untouched | Kind::Gone => update.value(Attempts, column(Attempts).sub(1)),
    };
    update.take()
}

//! The notifier's work: rows whose time has come are claimed for 30 s, and settled by what became of the pushes.

use crate::{
    PushOutcome, Storage, clock,
    connection::{commit, in_time},
    delivered::dropping,
    entity::{
        notifications::{Column, Entity},
        push_outcomes,
    },
    error::Result,
    notifications::{NEVER, SPACING_MS},
    outbox::{DEAD, MAX_ATTEMPTS},
    rows::{self, KEYS, VALUES},
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, FromQueryResult, QueryFilter,
    QuerySelect,
    sea_query::{
        CommonTableExpression, Expr, ExprTrait, LockBehavior, LockType, OnConflict, Order, Query, SelectStatement,
        UpdateStatement,
    },
};
use std::{
    cmp::min,
    collections::{BTreeMap, HashMap},
};
use touchline_ids::{ChannelId, DeviceId, Seq, UserId};
use uuid::Uuid;

/// Outcomes of one message that are told at once.
const MOST_OUTCOMES: u64 = 100_000;
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
}

/// What became of a push to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub device: DeviceId,
    /// Of which channel.
    pub channel: ChannelId,
    /// It was for what came after this,
    pub after_seq: Seq,
    /// up to this.
    pub seq: Seq,
    /// What became of it.
    pub outcome: PushOutcome,
    /// What the provider said, at most 255 bytes of it.
    pub answer: String,
    /// How often it was tried.
    pub tries: i32,
}

impl Storage {
    /// Claims rows whose time has come, those first that have waited longest, at most `limit` and 1,000, for 30 s. A
    /// row that was claimed five times without anything coming of it is dead instead.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_notifications(&self, owner: Uuid, limit: u32) -> Result<Vec<Notification>> {
        let transaction = self.begin().await?;
        let claim = claim(owner, limit, transaction.get_database_backend());
        let rows = in_time(async { Ok(transaction.query_all(&claim).await?) }).await?;
        let rows: Vec<Claimed> =
            rows.iter().map(|row| Claimed::from_query_result(row, "")).collect::<std::result::Result<_, _>>()?;
        commit(transaction).await?;
        let (dead, claimed): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.claim_until == DEAD);
        if !dead.is_empty() {
            tracing::error!(
                notifications.dead = dead.len(),
                "given up after {MAX_ATTEMPTS} attempts; see `touchline notifications list --dead`"
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

    /// What became of the pushes for a message: those that were for it, or for it and others before or after it. In no
    /// order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn push_outcomes(&self, channel: ChannelId, seq: Seq) -> Result<Vec<Outcome>> {
        use push_outcomes::Column::{AfterSeq, ChannelId as Channel, Seq as UpTo};
        let of_message = push_outcomes::Entity::find()
            .filter(Channel.eq(channel))
            .filter(UpTo.gte(seq))
            .filter(AfterSeq.lt(seq))
            .limit(MOST_OUTCOMES);
        let rows = self.reach(async { Ok(of_message.all(&self.reader).await?) }).await?;
        let outcome = |row: push_outcomes::Model| Outcome {
            user: row.user_id,
            device: row.device_id,
            channel: row.channel_id,
            after_seq: row.after_seq,
            seq: row.seq,
            outcome: row.outcome,
            answer: row.answer,
            tries: row.tries,
        };
        Ok(rows.into_iter().map(outcome).collect())
    }

    /// Settles claimed rows, and notes what became of the pushes. A row that is somebody else's by now is left alone;
    /// one that was raised meanwhile is due again. All in one transaction.
    ///
    /// # Errors
    /// When the database fails; settling again does no harm.
    pub async fn settle_notifications(
        &self,
        owner: Uuid,
        settled: &[(UserId, ChannelId, Seq, Then)],
        outcomes: &[Outcome],
    ) -> Result<()> {
        let transaction = self.begin().await?;
        in_time(async {
            note_outcomes(&transaction, outcomes).await?;
            settle(&transaction, owner, settled).await
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

pub(crate) fn claim(owner: Uuid, limit: u32, backend: DbBackend) -> UpdateStatement {
    use Column::{Attempts, ChannelId, ClaimUntil, Count, MaxSeq, NotBefore, NotedAt, Owner, Tries, UserId};
    let mut due = keys_to_lock();
    due.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .and_where(Expr::col(NotBefore).lte(clock::now_ms(backend)))
        .and_where(Expr::col(ClaimUntil).lte(clock::now_ms(backend)))
        .order_by(NotBefore, Order::Asc)
        .limit(min(u64::from(limit), KEYS as u64));
    let row = |column: Column| Expr::col((Entity, column));
    let too_often = || row(Attempts).gte(i32::try_from(MAX_ATTEMPTS).unwrap_or(i32::MAX));
    update_keys(due)
        .value(Owner, owner)
        .value(ClaimUntil, Expr::case(too_often(), DEAD).finally(clock::now_ms(backend).add(LEASE_MS)))
        .value(NotBefore, Expr::case(too_often(), NEVER).finally(row(NotBefore)))
        .value(Attempts, Expr::case(too_often(), row(Attempts)).finally(row(Attempts).add(1)))
        .returning(Query::returning().columns([UserId, ChannelId, MaxSeq, Count, NotedAt, Attempts, Tries, ClaimUntil]))
        .take()
}

fn keys_to_lock() -> SelectStatement {
    Query::select()
        .expr_as(Expr::col(Column::UserId), "person")
        .expr_as(Expr::col(Column::ChannelId), "channel")
        .from(Entity)
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
    // A claimed row is due when its claim ends: those at the front of the index are.
    let due = || Expr::case(column(Column::ClaimUntil).gt(column(Column::NotBefore)), column(Column::ClaimUntil));
    let front = Query::select()
        .expr_as(due().finally(column(Column::NotBefore)), "due")
        .from(Entity)
        .and_where(column(Column::NotBefore).lt(NEVER))
        .order_by(Column::NotBefore, Order::Asc)
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

async fn note_outcomes(transaction: &DatabaseTransaction, outcomes: &[Outcome]) -> Result<()> {
    use push_outcomes::Column as C;
    // One row per device and place, since a statement may not touch a row twice; in order, against waiting crosswise.
    let by_key: BTreeMap<_, _> = outcomes.iter().map(|o| ((o.channel, o.seq, o.user, o.device.clone()), o)).collect();
    let at = rows::one::<Now>(transaction, &now(transaction.get_database_backend())).await?.map_or(0, |now| now.now);
    let rows: Vec<_> = by_key
        .into_values()
        .map(|o| push_outcomes::ActiveModel {
            channel_id: Set(o.channel),
            seq: Set(o.seq),
            user_id: Set(o.user),
            device_id: Set(o.device.clone()),
            after_seq: Set(o.after_seq),
            outcome: Set(o.outcome),
            answer: Set(o.answer.clone()),
            tries: Set(o.tries),
            at: Set(at),
        })
        .collect();
    for some in rows.chunks(VALUES) {
        let newest = OnConflict::columns([C::ChannelId, C::Seq, C::UserId, C::DeviceId])
            .update_columns([C::AfterSeq, C::Outcome, C::Answer, C::Tries, C::At])
            .to_owned();
        let insert = push_outcomes::Entity::insert_many(some.to_vec()).on_conflict(newest);
        insert.exec_without_returning(transaction).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Now {
    now: i64,
}

fn now(backend: DbBackend) -> SelectStatement {
    Query::select().expr_as(clock::now_ms(backend), "now").take()
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

async fn settle(
    transaction: &DatabaseTransaction,
    owner: Uuid,
    settled: &[(UserId, ChannelId, Seq, Then)],
) -> Result<()> {
    let by_key: BTreeMap<_, _> =
        settled.iter().map(|&(user, channel, seq, then)| ((user, channel), (seq, then))).collect();
    let keys: Vec<_> = by_key.keys().copied().collect();
    let mut places: HashMap<Kind, Vec<Place>> = HashMap::new();
    for some in keys.chunks(KEYS) {
        let held: Vec<Held> = rows::all(transaction, &locking(some)).await?;
        for held in held.into_iter().filter(|held| held.owner == Some(owner)) {
            let (seq, then) = by_key[&(held.user_id, held.channel_id)];
            let (kind, after_ms) = Kind::of(then, held.max_seq > seq);
            places.entry(kind).or_default().push((held.user_id, held.channel_id, seq, after_ms));
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
            Then::Dead => (Self::Dead, 0),
            Then::Released => (Self::Untouched, 0),
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
        Kind::Untouched | Kind::Gone => update.value(Attempts, column(Attempts).sub(1)),
    };
    update.take()
}

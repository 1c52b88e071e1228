//! Notifying a channel with many members: not a row for each of them, but one for the channel, and a walk over its
//! members in order of their ids that can go on where another notifier left it.
//!
//! A walk finds by their stored marks who has not acked. An ack takes up to 4 s from the device to its mark, so a walk
//! begins 5 s after the message it is for was finished. What is sent meanwhile waits for the next walk.

use crate::{
    Missed, NotifyLevel, Storage,
    claimed::{MAX_CLAIMS, Soonest, soonest_of},
    clock,
    connection::{commit, in_time},
    entity::{
        members::{self, OPEN},
        messages,
        notification_walks::{Column, Entity},
        notifications,
    },
    error::Result,
    notifications::{self as rows_of, NEVER},
    outbox::DEAD,
    rows::VALUES,
};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, FromQueryResult,
    sea_query::{
        CommonTableExpression, Expr, ExprTrait, InsertStatement, LockBehavior, LockType, OnConflict, Order, Query,
        SelectStatement, UpdateStatement,
    },
};
use std::{
    cmp::max,
    collections::{BTreeMap, HashMap},
};
use touchline_ids::{ChannelId, Seq, UserId};
use uuid::Uuid;

/// A channel with more members than this has one row instead of one for each of them.
pub const LARGE_CHANNEL: usize = 1_000;
/// Until the acks of a finished message are stored: 2 s at the gateway, 2 s at the api, and a little.
pub(crate) const ACKS_LAND_MS: i64 = 5_000;
/// How long a walk's claim lives; every page renews it.
pub(crate) const LEASE_MS: i64 = 60_000;
/// `after_user_id` at the beginning: before every user.
const NOBODY: Option<UserId> = None;
/// Entries back from the walk's place among which a member's own messages are looked for.
const OWN_MESSAGES: i64 = 1_000;

/// A walk over the members of a channel.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Walk {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Whoever has not acked up to here is to be notified.
    pub walk_seq: Seq,
    /// Up to where the walk before this one notified.
    pub walked_seq: Seq,
    /// The last member it has come past.
    pub after_user_id: Option<UserId>,
    /// When the last message was noted, Unix milliseconds by the database's clock.
    pub noted_at: i64,
    /// How often it was claimed since a page of it was done, this time included.
    pub attempts: i32,
}

/// A member of a walk who is to be notified later, in a row of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Later {
    /// Who.
    pub user: UserId,
    /// How many messages they miss.
    pub count: i64,
    /// In how many milliseconds; none: not before there is something new, or an operator retries it.
    pub after_ms: Option<i64>,
    /// Whether the provider put it off.
    pub put_off: bool,
}

/// A member who has not acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreached {
    /// Who.
    pub user: UserId,
    /// About how many messages they miss: those after their last mark, or their own last message.
    pub count: i64,
    /// They have a row of their own, which waits: it is to be raised, and nothing else is to be sent.
    pub waits: bool,
}

/// A part of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Who is to be notified; in order.
    pub unreached: Vec<Unreached>,
    /// The last member of the part; none when nobody is left.
    pub last: Option<UserId>,
}

impl Storage {
    /// Claims a walk that is due, for 60 s. `claim` names this claim, as in
    /// [`claim_notifications`](Self::claim_notifications).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_walk(&self, claim: Uuid) -> Result<Option<Walk>> {
        // Nearly always there is nothing, and then nobody's writes are held up.
        if self.next_walk_ms().await?.is_none_or(|ms| ms > 0) {
            return Ok(None);
        }
        let transaction = self.begin().await?;
        let claim = claiming(claim, transaction.get_database_backend());
        let row = in_time(async { Ok(transaction.query_one(&claim).await?) }).await?;
        let row = row.map(|row| Claimed::from_query_result(&row, "")).transpose()?;
        commit(transaction).await?;
        let Some(row) = row else { return Ok(None) };
        if row.claim_until == DEAD {
            tracing::error!(channel.id = %row.walk.channel_id,
                "a walk was given up after {MAX_CLAIMS} attempts: the channel's next message begins another one");
            return Ok(None);
        }
        Ok(Some(row.walk))
    }

    /// In how many milliseconds a walk is due; negative when one has been for so long.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_walk_ms(&self) -> Result<Option<i64>> {
        let soonest = self.read_one::<Soonest>(&soonest(self.reader.get_database_backend())).await?;
        Ok(soonest.and_then(|soonest| soonest.in_ms))
    }

    /// The next `limit` members of a walk who have not acked and want to hear of it at all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn walk_page(&self, walk: &Walk, limit: u64) -> Result<Page> {
        let members: Vec<Behind> = self.read_all(&page(walk, limit)).await?;
        let full = members.len() as u64 == limit;
        let last = members.last().filter(|_| full).map(|member| member.user_id);
        if members.is_empty() {
            return Ok(Page { unreached: Vec::new(), last });
        }
        let users: Vec<_> = members.iter().map(|member| member.user_id).collect();
        let own: Vec<Own> = self.read_all(&own_messages(walk, &users)).await?;
        let own: HashMap<_, _> = own.into_iter().map(|own| (own.sender_id, own.seq)).collect();
        let unreached = members.into_iter().filter_map(|member| {
            let own = own.get(&member.user_id).copied().unwrap_or(Seq(0));
            let held = max(max(member.delivered_seq, member.read_seq), own);
            let waits = member.not_before.is_some_and(|at| at < NEVER);
            (held < walk.walk_seq).then(|| Unreached { user: member.user_id, count: walk.walk_seq.0 - held.0, waits })
        });
        Ok(Page { unreached: unreached.collect(), last })
    }

    /// Holds a claimed walk for 60 s more; answers whether it still is this claim's.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hold_walk(&self, claim: Uuid, channel: ChannelId) -> Result<bool> {
        let hold = holding(claim, channel, LEASE_MS, self.writer.get_database_backend());
        Ok(self.reach(async { Ok(self.writer.execute(&hold).await?) }).await?.rows_affected() == 1)
    }

    /// Lets a claimed walk go: somebody else goes on with it at once.
    ///
    /// # Errors
    /// When the database fails; then its claim ends by itself.
    pub async fn leave_walk(&self, claim: Uuid, channel: ChannelId) -> Result<bool> {
        let leave = holding(claim, channel, 0, self.writer.get_database_backend());
        Ok(self.reach(async { Ok(self.writer.execute(&leave).await?) }).await?.rows_affected() == 1)
    }

    /// A part of a walk is done: notes where it stands, or its end, and those who are to be notified later. Answers
    /// whether the walk still was this claim's: if not, nothing is noted, and somebody else goes on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn advance_walk(&self, claim: Uuid, walk: &Walk, last: Option<UserId>, later: &[Later]) -> Result<bool> {
        let transaction = self.begin().await?;
        let mine = in_time(async {
            let backend = transaction.get_database_backend();
            if transaction.execute(&advance(claim, walk, last, backend)).await?.rows_affected() == 0 {
                return Ok(false);
            }
            let by_user: BTreeMap<_, _> = later.iter().map(|later| (later.user, later)).collect();
            let rows: Vec<_> = by_user
                .into_values()
                .map(|later| Missed {
                    user: later.user,
                    channel: walk.channel_id,
                    max_seq: walk.walk_seq,
                    count: later.count,
                    after_ms: later.after_ms,
                    tries: i32::from(later.put_off),
                })
                .collect();
            for some in rows.chunks(VALUES) {
                transaction.execute(&rows_of::insert(some, backend)).await?;
            }
            Ok(true)
        })
        .await?;
        commit(transaction).await?;
        Ok(mine)
    }
}

#[derive(FromQueryResult)]
struct Claimed {
    #[sea_orm(nested)]
    walk: Walk,
    claim_until: i64,
}

/// Messages that members of large channels may have missed.
pub(crate) async fn note(transaction: &DatabaseTransaction, messages: &[(ChannelId, Seq)]) -> Result<()> {
    let mut newest: BTreeMap<ChannelId, Seq> = BTreeMap::new();
    for &(channel, seq) in messages {
        let noted = newest.entry(channel).or_insert(seq);
        *noted = max(*noted, seq);
    }
    let newest: Vec<_> = newest.into_iter().collect();
    for some in newest.chunks(VALUES) {
        transaction.execute(&insert(some, transaction.get_database_backend())).await?;
    }
    Ok(())
}

pub(crate) fn insert(newest: &[(ChannelId, Seq)], backend: DbBackend) -> InsertStatement {
    let mut insert = Query::insert();
    let columns = [Column::ChannelId, Column::MaxSeq, Column::WalkSeq, Column::NotBefore, Column::NotedAt];
    insert.into_table(Entity).columns(columns);
    for &(channel, seq) in newest {
        let due = clock::now_ms(backend).add(ACKS_LAND_MS);
        insert.values_panic([channel.into(), seq.into(), seq.into(), due, clock::now_ms(backend)]);
    }
    let new = |column: Column| Expr::col(("excluded", column));
    let idle = || column(Column::NotBefore).eq(NEVER);
    let is_dead = || column(Column::ClaimUntil).eq(DEAD);
    let max_seq = Expr::case(new(Column::MaxSeq).gt(column(Column::MaxSeq)), new(Column::MaxSeq));
    let raise = OnConflict::column(Column::ChannelId)
        .value(Column::MaxSeq, max_seq.finally(column(Column::MaxSeq)))
        .value(Column::NotedAt, new(Column::NotedAt))
        .value(Column::WalkSeq, Expr::case(idle(), new(Column::WalkSeq)).finally(column(Column::WalkSeq)))
        .value(Column::NotBefore, Expr::case(idle(), new(Column::NotBefore)).finally(column(Column::NotBefore)))
        // A walk begins at the first member.
        .value(Column::AfterUserId, Expr::case(idle(), NOBODY).finally(column(Column::AfterUserId)))
        .value(Column::Attempts, Expr::case(is_dead(), 0).finally(column(Column::Attempts)))
        .value(Column::ClaimUntil, Expr::case(is_dead(), 0).finally(column(Column::ClaimUntil)))
        .to_owned();
    insert.on_conflict(raise).take()
}

pub(crate) fn claiming(claim: Uuid, backend: DbBackend) -> UpdateStatement {
    let now = || clock::now_ms(backend);
    let mut due = CommonTableExpression::new();
    let first = Query::select()
        .expr_as(Expr::col(Column::ChannelId), "channel")
        .from(Entity)
        .and_where(Expr::col(Column::NotBefore).lte(now()))
        .and_where(Expr::col(Column::ClaimUntil).lte(now()))
        .order_by(Column::NotBefore, Order::Asc)
        .limit(1)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .take();
    due.table_name("due").query(first);
    let too_often = || column(Column::Attempts).gte(i32::try_from(MAX_CLAIMS).unwrap_or(i32::MAX));
    Query::update()
        .table(Entity)
        .with_cte(due)
        .from("due")
        .and_where(column(Column::ChannelId).equals(("due", "channel")))
        .value(Column::Owner, claim)
        .value(Column::ClaimUntil, Expr::case(too_often(), DEAD).finally(now().add(LEASE_MS)))
        .value(Column::NotBefore, Expr::case(too_often(), NEVER).finally(column(Column::NotBefore)))
        .value(
            Column::Attempts,
            Expr::case(too_often(), column(Column::Attempts)).finally(column(Column::Attempts).add(1)),
        )
        .returning(Query::returning().columns([
            Column::ChannelId,
            Column::WalkSeq,
            Column::WalkedSeq,
            Column::AfterUserId,
            Column::NotedAt,
            Column::Attempts,
            Column::ClaimUntil,
        ]))
        .take()
}

pub(crate) fn soonest(backend: DbBackend) -> SelectStatement {
    soonest_of(Entity, column(Column::NotBefore), column(Column::ClaimUntil), backend)
}

#[derive(FromQueryResult)]
struct Behind {
    user_id: UserId,
    delivered_seq: Seq,
    read_seq: Seq,
    not_before: Option<i64>,
}

pub(crate) fn page(walk: &Walk, limit: u64) -> SelectStatement {
    use members::Column::{ChannelId, DeliveredSeq, JoinedSeq, LeftSeq, NotifyLevel as Level, ReadSeq, UserId};
    let member = |column: members::Column| Expr::col((members::Entity, column));
    let row = |column: notifications::Column| Expr::col((notifications::Entity, column));
    let own_row = row(notifications::Column::UserId)
        .equals((members::Entity, UserId))
        .and(row(notifications::Column::ChannelId).eq(walk.channel_id));
    Query::select()
        .columns([UserId, DeliveredSeq, ReadSeq].map(|column| (members::Entity, column)))
        .column((notifications::Entity, notifications::Column::NotBefore))
        .from(members::Entity)
        .left_join(notifications::Entity, own_row)
        .and_where(member(ChannelId).eq(walk.channel_id))
        .and_where(member(LeftSeq).eq(OPEN))
        .and_where_option(walk.after_user_id.map(|after| member(UserId).gt(after)))
        .and_where(member(DeliveredSeq).lt(walk.walk_seq))
        .and_where(member(ReadSeq).lt(walk.walk_seq))
        .and_where(member(JoinedSeq).lte(walk.walk_seq))
        .and_where(member(Level).ne(NotifyLevel::None))
        .order_by((members::Entity, UserId), Order::Asc)
        .limit(limit)
        .take()
}

#[derive(FromQueryResult)]
struct Own {
    sender_id: UserId,
    seq: Seq,
}

/// Whoever sends has read what was there.
pub(crate) fn own_messages(walk: &Walk, users: &[UserId]) -> SelectStatement {
    use messages::Column::{ChannelId, SenderId, Seq};
    Query::select()
        .column(SenderId)
        .expr_as(Expr::col(Seq).max(), "seq")
        .from(messages::Entity)
        .and_where(Expr::col(ChannelId).eq(walk.channel_id))
        .and_where(Expr::col(Seq).gt(walk.walk_seq.0 - OWN_MESSAGES))
        .and_where(Expr::col(Seq).lte(walk.walk_seq))
        .and_where(Expr::col(SenderId).is_in(users.iter().copied()))
        .group_by_col(SenderId)
        .take()
}

pub(crate) fn holding(claim: Uuid, channel: ChannelId, for_ms: i64, backend: DbBackend) -> UpdateStatement {
    Query::update()
        .table(Entity)
        .and_where(column(Column::ChannelId).eq(channel))
        .and_where(column(Column::Owner).eq(claim))
        .value(Column::ClaimUntil, clock::now_ms(backend).add(for_ms))
        .take()
}

pub(crate) fn advance(claim: Uuid, walk: &Walk, last: Option<UserId>, backend: DbBackend) -> UpdateStatement {
    let now = || clock::now_ms(backend);
    let mut update = Query::update();
    update
        .table(Entity)
        .and_where(column(Column::ChannelId).eq(walk.channel_id))
        .and_where(column(Column::Owner).eq(claim))
        .value(Column::Attempts, 0)
        .value(Column::AfterUserId, last);
    if last.is_some() {
        return update.value(Column::ClaimUntil, now().add(LEASE_MS)).take();
    }
    let more = || column(Column::MaxSeq).gt(walk.walk_seq);
    update
        .value(Column::ClaimUntil, 0)
        .value(Column::Owner, Option::<Uuid>::None)
        .value(Column::WalkSeq, column(Column::MaxSeq))
        .value(Column::WalkedSeq, walk.walk_seq)
        .value(Column::NotBefore, Expr::case(more(), now().add(ACKS_LAND_MS)).finally(NEVER))
        .take()
}

fn column(column: Column) -> Expr {
    Expr::col((Entity, column))
}

//! Notifications as an operator sees them: what is due, what waits, what was given up, and what to do about it.

use crate::{
    Storage, clock,
    delivered::dropping,
    entity::notifications::{Column, Entity},
    error::Result,
    notifications::NEVER,
    outbox::DEAD,
    rows::KEYS,
};
use sea_orm::{
    ConnectionTrait, DbBackend, FromQueryResult,
    sea_query::{Expr, ExprTrait, Order, Query, SelectStatement, UpdateStatement},
};
use touchline_ids::{ChannelId, Seq, UserId};

/// [`Storage::notification_counts`] counts no further.
const COUNT_LIMIT: u64 = 100_000;

/// One notification. Never with a message's text.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct NotificationLetter {
    /// Whom.
    pub user_id: UserId,
    /// Of which channel.
    pub channel_id: ChannelId,
    /// Up to where.
    pub max_seq: Seq,
    /// How many messages were missed.
    pub count: i64,
    /// Up to where a push was accepted; 0 for nowhere.
    pub sent_seq: Seq,
    /// How often it was claimed since something came of it.
    pub attempts: i32,
    /// How often in a row the provider put it off.
    pub tries: i32,
    /// Given up: nobody sends it until there is something new, or it is retried.
    pub is_dead: bool,
    /// In how many milliseconds it is due; nothing when there is nothing to send.
    pub due_ms: Option<i64>,
}

/// How notifications stand. Each number is exact up to 100,000 and stays there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NotificationCounts {
    /// To be sent now.
    pub due: u64,
    /// To be sent when their time has come.
    pub waiting: u64,
    /// Sent, and neither acked nor read.
    pub sent: u64,
    /// Given up.
    pub dead: u64,
    /// How long the one that is due for longest has been, in milliseconds; 0 when none is.
    pub oldest_due_ms: u64,
}

impl Storage {
    /// Notifications after `after` in order of (user, channel), at most `limit`; only the dead ones if so asked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn notification_letters(
        &self,
        only_dead: bool,
        after: Option<(UserId, ChannelId)>,
        limit: u64,
    ) -> Result<Vec<NotificationLetter>> {
        self.read_all(&page(only_dead, after, limit, self.reader.get_database_backend())).await
    }

    /// Makes these due now, with their attempts anew: dead ones, and those that wait for their time. Answers how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retry_notifications(&self, keys: &[(UserId, ChannelId)]) -> Result<u64> {
        let mut retried = 0;
        for some in keys.chunks(KEYS) {
            let unsent = Expr::col(Column::NotBefore).lt(NEVER).or(Expr::col(Column::ClaimUntil).eq(DEAD));
            let retry = reviving(self.writer.get_database_backend()).and_where(among(some)).and_where(unsent).take();
            retried += self.reach(async { Ok(self.writer.execute(&retry).await?) }).await?.rows_affected();
        }
        Ok(retried)
    }

    /// As [`retry_notifications`](Self::retry_notifications), for every dead one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retry_all_dead_notifications(&self) -> Result<u64> {
        let retry = reviving(self.writer.get_database_backend())
            .and_where(Expr::col(Column::NotBefore).eq(NEVER))
            .and_where(Expr::col(Column::ClaimUntil).eq(DEAD))
            .take();
        Ok(self.reach(async { Ok(self.writer.execute(&retry).await?) }).await?.rows_affected())
    }

    /// Takes these away, whatever their state: nobody is notified of what they were for. Answers how many there were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drop_notifications(&self, keys: &[(UserId, ChannelId)]) -> Result<u64> {
        let mut dropped = 0;
        for some in keys.chunks(KEYS) {
            dropped += self.reach(async { Ok(self.writer.execute(&dropping(some)).await?) }).await?.rows_affected();
        }
        Ok(dropped)
    }

    /// How notifications stand, for metrics and the operator.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn notification_counts(&self) -> Result<NotificationCounts> {
        let backend = self.reader.get_database_backend();
        let mut counts = [0; 4];
        for (count, which) in counts.iter_mut().zip(Which::ALL) {
            let row = self.read_one::<Count>(&counted(which, backend)).await?;
            *count = row.and_then(|row| u64::try_from(row.count).ok()).unwrap_or_default();
        }
        let [due, waiting, sent, dead] = counts;
        let soonest = self.next_notification_ms().await?.unwrap_or_default();
        Ok(NotificationCounts { due, waiting, sent, dead, oldest_due_ms: u64::try_from(-soonest).unwrap_or_default() })
    }
}

fn among(keys: &[(UserId, ChannelId)]) -> Expr {
    let keys = Query::select().columns(["column1", "column2"]).from_values(keys.iter().copied(), "keys").take();
    Expr::tuple([Expr::col(Column::UserId), Expr::col(Column::ChannelId)]).in_subquery(keys)
}

pub(crate) fn page(
    only_dead: bool,
    after: Option<(UserId, ChannelId)>,
    limit: u64,
    backend: DbBackend,
) -> SelectStatement {
    let is_dead = || Expr::col(Column::ClaimUntil).eq(DEAD);
    let due = Expr::col(Column::NotBefore).sub(clock::now_ms(backend));
    let after = after.map(|(user, channel)| {
        Expr::tuple([Expr::col(Column::UserId), Expr::col(Column::ChannelId)])
            .gt(Expr::tuple([user.into(), channel.into()]))
    });
    Query::select()
        .columns([Column::UserId, Column::ChannelId, Column::MaxSeq, Column::Count])
        .columns([Column::SentSeq, Column::Attempts, Column::Tries])
        .expr_as(is_dead(), "is_dead")
        .expr_as(Expr::case(Expr::col(Column::NotBefore).lt(NEVER), due), "due_ms")
        .from(Entity)
        // All the dead are among those with nothing to send now.
        .and_where_option(only_dead.then(|| Expr::col(Column::NotBefore).eq(NEVER)))
        .and_where_option(only_dead.then(is_dead))
        // The others are mere memories of a push.
        .and_where(Expr::col(Column::Count).gt(0))
        .and_where_option(after)
        .order_by(Column::UserId, Order::Asc)
        .order_by(Column::ChannelId, Order::Asc)
        .limit(limit)
        .take()
}

pub(crate) fn reviving(backend: DbBackend) -> UpdateStatement {
    Query::update()
        .table(Entity)
        .value(Column::NotBefore, clock::now_ms(backend))
        .value(Column::NotedAt, clock::now_ms(backend))
        .value(Column::ClaimUntil, 0)
        .value(Column::Attempts, 0)
        .value(Column::Tries, 0)
        .take()
}

/// What is counted.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    Due,
    Waiting,
    Sent,
    Dead,
}

impl Which {
    pub(crate) const ALL: [Self; 4] = [Self::Due, Self::Waiting, Self::Sent, Self::Dead];
}

#[derive(FromQueryResult)]
struct Count {
    count: i64,
}

pub(crate) fn counted(which: Which, backend: DbBackend) -> SelectStatement {
    let (not_before, claim_until) = (|| Expr::col(Column::NotBefore), || Expr::col(Column::ClaimUntil));
    let now = || clock::now_ms(backend);
    let rows = Query::select()
        .expr_as(Expr::val(1), "one")
        .from(Entity)
        .and_where(match which {
            Which::Due => not_before().lte(now()),
            Which::Waiting => not_before().gt(now()).and(not_before().lt(NEVER)),
            Which::Sent => not_before().eq(NEVER).and(claim_until().ne(DEAD)),
            Which::Dead => not_before().eq(NEVER).and(claim_until().eq(DEAD)),
        })
        .limit(COUNT_LIMIT)
        .take();
    Query::select().expr_as(Expr::cust("COUNT(*)"), "count").from_subquery(rows, "counted").take()
}

//! Channels as one of their members sees them.

use crate::{
    Role, Storage,
    connection::{commit, in_time},
    delivered,
    entity::{
        channels::{Column, Entity},
        members::{self, OPEN},
    },
    error::Result,
    members::open,
};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter, QueryTrait,
    sea_query::{Expr, ExprTrait, Order, Query, SelectStatement, UpdateStatement},
};
use touchline_ids::{ChannelId, Seq, UserId};

/// A channel as one of its members sees it.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct ChannelView {
    /// Which.
    pub id: ChannelId,
    /// Its name.
    pub name: String,
    /// The member's role.
    pub role: Role,
    /// The log's last position.
    pub last_seq: Seq,
    /// Up to where the member has read; unread is `last_seq − read_seq`.
    pub read_seq: Seq,
    /// The first entry the member sees.
    pub joined_seq: Seq,
    /// Unix milliseconds.
    #[sea_orm(from_alias = "created_at")]
    pub created_at_ms: i64,
}

/// What marking a channel as read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkRead {
    /// No such channel, or not a member.
    NotAMember,
    /// The log is not that long.
    BeyondEnd {
        /// The log's last position.
        last_seq: Seq,
    },
    /// The mark stands at `read_seq`: where it was asked for, or further if it was further already.
    Read {
        /// The mark.
        read_seq: Seq,
        /// The log's last position.
        last_seq: Seq,
    },
}

impl Storage {
    /// One channel. `None`: no such channel, or the user is not in it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn channel_for(&self, user: UserId, channel: ChannelId) -> Result<Option<ChannelView>> {
        self.read_one(&one(user, channel)).await
    }

    /// The user's channels after channel `after` in order of their ids, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn channels_of(&self, user: UserId, after: Option<ChannelId>, limit: u64) -> Result<Vec<ChannelView>> {
        self.read_all(&page(user, after, limit)).await
    }

    /// Raises the user's read mark; never lowers it. What was read needs no notification any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark_read(&self, user: UserId, channel: ChannelId, seq: Seq) -> Result<MarkRead> {
        let Some(view) = self.channel_for(user, channel).await? else { return Ok(MarkRead::NotAMember) };
        if seq > view.last_seq {
            return Ok(MarkRead::BeyondEnd { last_seq: view.last_seq });
        }
        if seq <= view.read_seq {
            return Ok(MarkRead::Read { read_seq: view.read_seq, last_seq: view.last_seq });
        }
        let transaction = self.begin().await?;
        let raised = in_time(read(&transaction, user, channel, seq)).await?;
        commit(transaction).await?;
        if raised {
            return Ok(MarkRead::Read { read_seq: seq, last_seq: view.last_seq });
        }
        // Another device marked further, or the user was removed, since the first look.
        let view = self.channel_for(user, channel).await?;
        Ok(view
            .map_or(MarkRead::NotAMember, |view| MarkRead::Read { read_seq: view.read_seq, last_seq: view.last_seq }))
    }
}

/// Raises the mark and drops the notification that it settles; answers whether it rose. The member is locked before the
/// notification, as in [`delivered`](crate::delivered).
async fn read(transaction: &DatabaseTransaction, user: UserId, channel: ChannelId, seq: Seq) -> Result<bool> {
    let raised = transaction.execute(&raise(user, channel, seq)).await?.rows_affected() == 1;
    if raised {
        delivered::settle(transaction, &[(user, channel, seq)]).await?;
    }
    Ok(raised)
}

pub(crate) fn one(user: UserId, channel: ChannelId) -> SelectStatement {
    let mut query = views();
    query.and_where(open(channel, user)).take()
}

pub(crate) fn page(user: UserId, after: Option<ChannelId>, limit: u64) -> SelectStatement {
    let channel = || Expr::col((members::Entity, members::Column::ChannelId));
    views()
        .and_where(Expr::col((members::Entity, members::Column::UserId)).eq(user))
        .and_where(Expr::col((members::Entity, members::Column::LeftSeq)).eq(OPEN))
        .and_where_option(after.map(|after| channel().gt(after)))
        .order_by((members::Entity, members::Column::ChannelId), Order::Asc)
        .limit(limit)
        .take()
}

pub(crate) fn raise(user: UserId, channel: ChannelId, seq: Seq) -> UpdateStatement {
    members::Entity::update_many()
        .col_expr(members::Column::ReadSeq, Expr::value(seq))
        .filter(open(channel, user))
        .filter(Expr::col(members::Column::ReadSeq).lt(seq))
        .into_query()
}

fn views() -> SelectStatement {
    use members::Column::{ChannelId, JoinedSeq, ReadSeq, Role};
    Query::select()
        .columns([Column::Id, Column::Name, Column::LastSeq, Column::CreatedAt].map(|column| (Entity, column)))
        .columns([Role, ReadSeq, JoinedSeq].map(|column| (members::Entity, column)))
        .from(members::Entity)
        .inner_join(Entity, Expr::col((Entity, Column::Id)).equals((members::Entity, ChannelId)))
        .take()
}

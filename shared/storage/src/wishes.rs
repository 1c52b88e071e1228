//! Of which messages of a channel a member wants to be notified.

use crate::{
    NotifyLevel, Storage,
    entity::members::{Column, Entity},
    error::Result,
    members::open,
};
use sea_orm::{
    ConnectionTrait, FromQueryResult,
    sea_query::{Query, SelectStatement, UpdateStatement},
};
use touchline_ids::{ChannelId, UserId};

/// What a member wishes for one channel. It ends with the membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromQueryResult)]
pub struct NotifyWish {
    /// Of which messages.
    #[sea_orm(from_alias = "notify_level")]
    pub level: NotifyLevel,
    /// Of none until then, Unix milliseconds.
    #[sea_orm(from_alias = "muted_until")]
    pub muted_until_ms: Option<i64>,
}

impl Storage {
    /// Sets what the user wishes. False: no such channel, or the user is not in it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_notify(&self, user: UserId, channel: ChannelId, wish: NotifyWish) -> Result<bool> {
        let set = setting(user, channel, wish);
        Ok(self.reach(async { Ok(self.writer.execute(&set).await?) }).await?.rows_affected() > 0)
    }

    /// What the user wishes. `None`: no such channel, or the user is not in it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn notify_wish(&self, user: UserId, channel: ChannelId) -> Result<Option<NotifyWish>> {
        self.read_one(&wish(user, channel)).await
    }
}

pub(crate) fn setting(user: UserId, channel: ChannelId, wish: NotifyWish) -> UpdateStatement {
    Query::update()
        .table(Entity)
        .value(Column::NotifyLevel, wish.level)
        .value(Column::MutedUntil, wish.muted_until_ms)
        .and_where(open(channel, user))
        .take()
}

pub(crate) fn wish(user: UserId, channel: ChannelId) -> SelectStatement {
    Query::select()
        .columns([Column::NotifyLevel, Column::MutedUntil])
        .from(Entity)
        .and_where(open(channel, user))
        .take()
}

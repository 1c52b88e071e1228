//! When people want no pushes, by their own clocks.

use crate::{
    Storage, clock,
    entity::{
        notifications,
        quiet_hours::{ActiveModel, Column, Entity, Model},
    },
    error::Result,
    notifications::{NEVER, SPACING_MS},
};
use sea_orm::{
    ActiveValue::Set,
    ConnectionTrait, DbBackend, DbErr, EntityTrait, SqlErr,
    sea_query::{Expr, ExprTrait, OnConflict, Query, UpdateStatement},
};
use touchline_ids::UserId;

/// A part of every day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuietHours {
    /// When it begins, in minutes after midnight: 0 to 1,439.
    pub from_minute: i32,
    /// When it ends, in minutes after midnight: 0 to 1,439. At or before the begin: on the next day.
    pub to_minute: i32,
    /// On whose clocks: a name of the time zone database such as `Europe/Berlin`, at most 64 characters.
    pub time_zone: String,
}

impl From<Model> for QuietHours {
    fn from(row: Model) -> Self {
        Self { from_minute: row.from_minute, to_minute: row.to_minute, time_zone: row.time_zone }
    }
}

impl Storage {
    /// Sets a user's quiet hours. False: no such user.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_quiet_hours(&self, user: UserId, hours: &QuietHours) -> Result<bool> {
        let row = ActiveModel {
            user_id: Set(user),
            from_minute: Set(hours.from_minute),
            to_minute: Set(hours.to_minute),
            time_zone: Set(hours.time_zone.clone()),
        };
        let mut replace = OnConflict::column(Column::UserId);
        replace.update_columns([Column::FromMinute, Column::ToMinute, Column::TimeZone]);
        let insert = Entity::insert(row).on_conflict(replace);
        let written = Box::pin(async { is_somebody(insert.exec_without_returning(&self.writer).await) });
        let is_somebody = self.reach(written).await?;
        self.look_again(user).await?;
        Ok(is_somebody)
    }

    /// A user's quiet hours, if there are any.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn quiet_hours(&self, user: UserId) -> Result<Option<QuietHours>> {
        let row = self.reach(async { Ok(Entity::find_by_id(user).one(&self.reader).await?) }).await?;
        Ok(row.map(QuietHours::from))
    }

    /// Ends a user's quiet hours for good; without any it changes nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn clear_quiet_hours(&self, user: UserId) -> Result<()> {
        self.reach(async { Ok(Entity::delete_by_id(user).exec(&self.writer).await?) }).await?;
        self.look_again(user).await
    }

    /// What waits for the end of other quiet hours is looked at once more. What a provider put off waits on.
    async fn look_again(&self, user: UserId) -> Result<()> {
        let look = looking_again(user, self.writer.get_database_backend());
        self.reach(async { Ok(self.writer.execute(&look).await?) }).await?;
        Ok(())
    }
}

pub(crate) fn looking_again(user: UserId, backend: DbBackend) -> UpdateStatement {
    use notifications::Column::{ClaimUntil, NotBefore, SentAt, Tries, UserId};
    let now = || clock::now_ms(backend);
    let spaced = || Expr::col(SentAt).add(SPACING_MS);
    Query::update()
        .table(notifications::Entity)
        .value(NotBefore, Expr::case(spaced().gt(now()), spaced()).finally(now()))
        .and_where(Expr::col(UserId).eq(user))
        .and_where(Expr::col(Tries).eq(0))
        .and_where(Expr::col(NotBefore).lt(NEVER))
        .and_where(Expr::col(ClaimUntil).lte(now()))
        .take()
}

fn is_somebody<T>(inserted: std::result::Result<T, DbErr>) -> Result<bool> {
    match inserted {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.sql_err(), Some(SqlErr::ForeignKeyConstraintViolation(_))) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

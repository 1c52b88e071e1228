//! Devices that no push is sent to any more: by what the push service says of their tokens, or because they stay away.

use crate::{
    Storage,
    devices::{Key, deleting, in_order, named, updating},
    entity::devices::{Column, Entity},
    error::Result,
    rows::KEYS,
};
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType, Order, Query, SelectStatement};
use std::cmp::min;
use touchline_ids::{DeviceId, UserId};

/// Which device, and the token it was known by.
pub type KnownToken = (UserId, DeviceId, String);

impl Storage {
    /// Forgets devices whose tokens the push service calls void: those that still have that token, and got it before
    /// the push was sent (the last element, Unix milliseconds). Answers how many there were.
    ///
    /// # Errors
    /// When the database fails; then some may be forgotten.
    pub async fn forget_void(&self, void: &[(UserId, DeviceId, String, i64)]) -> Result<u64> {
        let mut forgotten = 0;
        for some in void.chunks(KEYS) {
            forgotten += self.change_found(&with_old_token(some), deleting).await?;
        }
        Ok(forgotten)
    }

    /// Notes since when the push service has called these tokens another sender's, of devices that still have that
    /// token and are not suspect already. Answers how many there were.
    ///
    /// # Errors
    /// When the database fails; then some may be noted.
    pub async fn suspect(&self, suspects: &[KnownToken], now_ms: i64) -> Result<u64> {
        let mut noted = 0;
        for some in suspects.chunks(KEYS) {
            let note = |keys: &[Key]| updating(keys).value(Column::SuspectSince, now_ms).take();
            noted += self.change_found(&not_suspect(some), note).await?;
        }
        Ok(noted)
    }

    /// The push service took pushes to these tokens again: they are suspect no more. Answers how many there were.
    ///
    /// # Errors
    /// When the database fails; then some may be noted.
    pub async fn trust(&self, tokens: &[KnownToken]) -> Result<u64> {
        let mut noted = 0;
        for some in tokens.chunks(KEYS) {
            let clear = |keys: &[Key]| updating(keys).value(Column::SuspectSince, Option::<i64>::None).take();
            noted += self.change_found(&is_suspect(some), clear).await?;
        }
        Ok(noted)
    }

    /// Forgets devices that were not seen since `unseen_before_ms`, and those that are suspect since before
    /// `suspect_before_ms`, at most `limit` (and 1,000) of each. Answers how many there were.
    ///
    /// # Errors
    /// When the database fails; then some may be forgotten.
    pub async fn sweep_devices(&self, unseen_before_ms: i64, suspect_before_ms: i64, limit: u64) -> Result<u64> {
        let unseen = self.change_found(&old(Column::LastSeenAt, unseen_before_ms, limit), deleting).await?;
        let suspect = self.change_found(&old(Column::SuspectSince, suspect_before_ms, limit), deleting).await?;
        Ok(unseen + suspect)
    }
}

pub(crate) fn with_old_token(void: &[(UserId, DeviceId, String, i64)]) -> SelectStatement {
    let is_old = Expr::col((Entity, Column::UpdatedAt)).lt(Expr::col(("keys", "column4")));
    let known = Query::select().from_values(void.iter().cloned(), "keys").inner_join(Entity, named()).take();
    in_order(with_token(known).and_where(is_old).take())
}

pub(crate) fn not_suspect(suspects: &[KnownToken]) -> SelectStatement {
    let known = Query::select().from_values(suspects.iter().cloned(), "keys").inner_join(Entity, named()).take();
    in_order(with_token(known).and_where(Expr::col((Entity, Column::SuspectSince)).is_null()).take())
}

pub(crate) fn is_suspect(tokens: &[KnownToken]) -> SelectStatement {
    let known = Query::select().from_values(tokens.iter().cloned(), "keys").inner_join(Entity, named()).take();
    in_order(with_token(known).and_where(Expr::col((Entity, Column::SuspectSince)).is_not_null()).take())
}

/// The oldest by one of the times. Passes over locked rows, and so never waits.
pub(crate) fn old(by: Column, before_ms: i64, limit: u64) -> SelectStatement {
    Query::select()
        .columns([Column::UserId, Column::DeviceId])
        .from(Entity)
        .and_where(Expr::col(by).lt(before_ms))
        .order_by(by, Order::Asc)
        .limit(min(limit, KEYS as u64))
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .take()
}

/// Those with the token that `keys` say.
fn with_token(mut select: SelectStatement) -> SelectStatement {
    select.and_where(Expr::col((Entity, Column::PushToken)).equals(("keys", "column3"))).take()
}

//! Log-ins: a family of refresh tokens each, of which only the newest works. Only SHA-256 hashes are stored.

use crate::{
    Storage, User,
    connection::{commit, in_time},
    devices,
    entity::{logins, refresh_tokens, users},
    error::Result,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect, sea_query::Expr,
};
use touchline_ids::UserId;
use uuid::Uuid;

/// What presenting a refresh token found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// It was the newest of its log-in; the new one took its place.
    Rotated {
        /// Whose. Read before the commit: what fails after it would cost them the log-in, for a token works once.
        user: User,
        /// Of which log-in.
        login: Uuid,
    },
    /// It had been used before: somebody stole it, or its successor. The whole log-in is revoked, its devices with it.
    Reused {
        /// Whose.
        user: UserId,
        /// Of which log-in.
        login: Uuid,
    },
    /// Never issued, expired, or of a log-in that is over.
    Unknown,
}

impl Storage {
    /// Begins a log-in with its first refresh token, and forgets the user's expired ones.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_login(
        &self,
        login: Uuid,
        user: UserId,
        token_hash: [u8; 32],
        now_ms: i64,
        expires_at_ms: i64,
    ) -> Result<()> {
        let transaction = self.begin().await?;
        in_time(async {
            let expired = logins::Entity::find()
                .filter(logins::Column::UserId.eq(user))
                .filter(logins::Column::ExpiresAt.lte(now_ms))
                .all(&transaction)
                .await?;
            for login in expired {
                // As a log-out does: whoever cannot come back is not pushed to.
                devices::forget_login(&transaction, login.id).await?;
                logins::Entity::delete_by_id(login.id).exec(&transaction).await?;
            }
            let row = logins::ActiveModel {
                id: Set(login),
                user_id: Set(user),
                created_at: Set(now_ms),
                expires_at: Set(expires_at_ms),
                revoked: Set(false),
            };
            logins::Entity::insert(row).exec_without_returning(&transaction).await?;
            insert_token(&transaction, login, token_hash, expires_at_ms).await
        })
        .await?;
        commit(transaction).await
    }

    /// Uses up the token `old_hash` and puts `new_hash` in its place, or revokes the log-in when it was used up before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rotate_refresh_token(
        &self,
        old_hash: [u8; 32],
        new_hash: [u8; 32],
        now_ms: i64,
        expires_at_ms: i64,
    ) -> Result<Rotation> {
        let transaction = self.begin().await?;
        let rotation = in_time(rotate(&transaction, old_hash, new_hash, now_ms, expires_at_ms)).await?;
        commit(transaction).await?;
        Ok(rotation)
    }

    /// Ends a log-in: none of its refresh tokens works any more, and the devices that it registered are
    /// forgotten. One that is over or unknown stays so.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_login(&self, login: Uuid) -> Result<()> {
        let transaction = self.begin().await?;
        in_time(revoke(&transaction, login)).await?;
        commit(transaction).await
    }
}

async fn rotate(
    transaction: &DatabaseTransaction,
    old_hash: [u8; 32],
    new_hash: [u8; 32],
    now_ms: i64,
    expires_at_ms: i64,
) -> Result<Rotation> {
    let find = || refresh_tokens::Entity::find_by_id(old_hash.to_vec());
    let Some(token) = find().one(transaction).await? else { return Ok(Rotation::Unknown) };
    // The log-in's row is the lock of the family; what the token says counts only under it.
    let login = logins::Entity::find_by_id(token.login_id).lock_exclusive().one(transaction).await?;
    let Some(login) = login.filter(|login| !login.revoked) else { return Ok(Rotation::Unknown) };
    let Some(token) = find().one(transaction).await? else { return Ok(Rotation::Unknown) };
    if token.expires_at <= now_ms {
        return Ok(Rotation::Unknown);
    }
    let (user, login) = (login.user_id, login.id);
    if token.used_at.is_some() {
        revoke(transaction, login).await?;
        return Ok(Rotation::Reused { user, login });
    }
    let Some(user) = users::Entity::find_by_id(user).one(transaction).await? else { return Ok(Rotation::Unknown) };
    refresh_tokens::Entity::update_many()
        .col_expr(refresh_tokens::Column::UsedAt, Expr::value(now_ms))
        .filter(refresh_tokens::Column::TokenHash.eq(old_hash.to_vec()))
        .exec(transaction)
        .await?;
    refresh_tokens::Entity::delete_many()
        .filter(refresh_tokens::Column::LoginId.eq(login))
        .filter(refresh_tokens::Column::ExpiresAt.lte(now_ms))
        .exec(transaction)
        .await?;
    insert_token(transaction, login, new_hash, expires_at_ms).await?;
    logins::Entity::update_many()
        .col_expr(logins::Column::ExpiresAt, Expr::value(expires_at_ms))
        .filter(logins::Column::Id.eq(login))
        .exec(transaction)
        .await?;
    Ok(Rotation::Rotated { user: user.into(), login })
}

async fn insert_token(
    transaction: &DatabaseTransaction,
    login: Uuid,
    hash: [u8; 32],
    expires_at_ms: i64,
) -> Result<()> {
    let row = refresh_tokens::ActiveModel {
        token_hash: Set(hash.to_vec()),
        login_id: Set(login),
        expires_at: Set(expires_at_ms),
        used_at: Set(None),
    };
    refresh_tokens::Entity::insert(row).exec_without_returning(transaction).await?;
    Ok(())
}

async fn revoke(transaction: &DatabaseTransaction, login: Uuid) -> Result<()> {
    logins::Entity::update_many()
        .col_expr(logins::Column::Revoked, Expr::value(true))
        .filter(logins::Column::Id.eq(login))
        .exec(transaction)
        .await?;
    devices::forget_login(transaction, login).await
}

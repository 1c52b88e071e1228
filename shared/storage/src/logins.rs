//! Log-ins: a family of refresh tokens each, of which only the newest works. Only SHA-256 hashes are stored.

use crate::{Storage, error::Result};
use touchline_ids::UserId;
use uuid::Uuid;

/// What presenting a refresh token found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// It was the newest of its log-in; the new one took its place.
    Rotated {
        /// Whose.
        user: UserId,
        /// Of which log-in.
        login: Uuid,
    },
    /// It had been used before: somebody stole it, or its successor. The whole log-in is revoked.
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
        unimplemented!("{login} {user} {token_hash:?} {now_ms} {expires_at_ms}")
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
        unimplemented!("{old_hash:?} {new_hash:?} {now_ms} {expires_at_ms}")
    }

    /// Ends a log-in: none of its refresh tokens works any more. One that is over or unknown stays so.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_login(&self, login: Uuid) -> Result<()> {
        unimplemented!("{login}")
    }
}

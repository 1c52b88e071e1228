//! What can go wrong. No text here ever holds a token, a password or a claim.

use crate::{Refusal, password::PASSWORD_LENGTH};
use std::{io, path::PathBuf};

/// Everything this crate's functions can fail with.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The token or ticket is not accepted.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The password is too short or too long.
    #[error("a password has {} to {} characters", PASSWORD_LENGTH.start(), PASSWORD_LENGTH.end())]
    PasswordLength,
    /// As many passwords as we allow are being worked on or waiting; nothing was done.
    #[error("too many passwords are being checked at once")]
    Busy,
    /// The stored hash is unreadable, or hashing itself failed.
    #[error("password hashing failed")]
    Hash(#[source] argon2::password_hash::Error),
    /// The signing key's file holds something else.
    #[error("not an Ed25519 private key in PKCS#8 PEM form")]
    PrivateKey(#[source] jsonwebtoken::errors::Error),
    /// A token could not be signed.
    #[error("signing failed")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// The system gave no random bytes.
    #[error("no random bytes")]
    Random(#[source] aws_lc_rs::error::Unspecified),
    /// A key file cannot be read or written.
    #[error("key file {}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key set cannot be fetched.
    #[error("key set {url}")]
    Fetch {
        /// Where it should be.
        url: String,
        /// What the client said.
        source: reqwest::Error,
    },
    /// A key set was read but cannot be used.
    #[error("key set {from}: {what}")]
    KeySet {
        /// Its file or URL.
        from: String,
        /// What is wrong with it.
        what: String,
    },
    /// Tokens signed by this key would be refused by everybody.
    #[error("the signing key's public half (kid {kid}) is not in the public key set: add it there first")]
    NotPublished {
        /// The key's id.
        kid: String,
    },
}

impl AuthError {
    /// Why a token was refused, when that is what happened.
    pub fn refusal(&self) -> Option<Refusal> {
        if let Self::Refused(refusal) = self { Some(*refusal) } else { None }
    }
}

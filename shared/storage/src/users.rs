//! People and how they are recognised.

use crate::{Storage, error::Result};
use touchline_ids::UserId;

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// The unique name, as the caller normalised it.
    pub handle: String,
    /// The name to show.
    pub display_name: String,
    /// When they signed up, Unix milliseconds.
    pub created_at_ms: i64,
}

/// A person of an outside identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The provider, at most 255 bytes.
    pub issuer: String,
    /// The provider's name for the person, at most 255 bytes.
    pub subject: String,
}

/// A person to be.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Drawn by the caller.
    pub id: UserId,
    /// Normalised by the caller; unique; at most 64 characters.
    pub handle: String,
    /// At most 128 characters.
    pub display_name: String,
    /// The password's argon2id hash, for those who log in here.
    pub password_hash: Option<String>,
    /// For those who come from an outside provider.
    pub external: Option<External>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// What creating a user found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateUser {
    /// They exist now.
    Created(User),
    /// Somebody has that handle.
    HandleTaken,
    /// That external person is this user already, perhaps since a moment ago.
    ExternalExists(User),
}

impl Storage {
    /// Creates a user, with the external identity if there is one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_user(&self, user: NewUser) -> Result<CreateUser> {
        unimplemented!("{user:?}")
    }

    /// Finds a user by id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_user(&self, id: UserId) -> Result<Option<User>> {
        unimplemented!("{id}")
    }

    /// Finds a user by exact handle.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_user_by_handle(&self, handle: &str) -> Result<Option<User>> {
        unimplemented!("{handle}")
    }

    /// Finds a user and their password's hash (none for those of an outside provider) by exact handle.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_credentials(&self, handle: &str) -> Result<Option<(User, Option<String>)>> {
        unimplemented!("{handle}")
    }

    /// Finds the user whom an outside provider names so.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_external_user(&self, issuer: &str, subject: &str) -> Result<Option<User>> {
        unimplemented!("{issuer} {subject}")
    }
}

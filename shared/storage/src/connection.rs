//! The connection: pools, limits and transactions of each kind of database.

use crate::error::Result;
use serde::{Deserialize, Serialize};

/// Which database, and how many connections to it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `sqlite://path/to/file` (created when missing; its folder must exist) or `postgres://user:password@host/name`.
    pub url: String,
    /// Connections to Postgres; readers of SQLite, which has one writer besides. At least 1.
    pub max_connections: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { url: "sqlite://touchline.db".to_owned(), max_connections: 10 }
    }
}

/// The database. Clones share its connections.
#[derive(Clone)]
pub struct Storage;

impl Storage {
    /// Opens the pools and makes sure that the database answers.
    ///
    /// # Errors
    /// `Settings` when the URL cannot work, `Unavailable` when the database does not answer.
    pub async fn connect(settings: &Settings) -> Result<Self> {
        unimplemented!("{}", settings.url)
    }

    /// Whether the database answers now.
    ///
    /// # Errors
    /// `Unavailable` when it does not.
    pub async fn ping(&self) -> Result<()> {
        unimplemented!()
    }

    /// Ends every connection; queries of other clones fail from now on.
    ///
    /// # Errors
    /// When a connection did not end in order; it is gone all the same.
    pub async fn close(self) -> Result<()> {
        unimplemented!()
    }
}

//! The schema: which migrations are applied, and applying them.

use crate::{Storage, error::Result};

impl Storage {
    /// Applies every migration that is missing, in order; answers with their names. Two processes at once are fine:
    /// the second waits and finds nothing left to do.
    ///
    /// # Errors
    /// When a step fails; those before it stay applied.
    pub async fn migrate_up(&self) -> Result<Vec<String>> {
        unimplemented!()
    }

    /// Takes back the newest `steps` migrations, and with them their data.
    ///
    /// # Errors
    /// When a step fails; those before it stay taken back.
    pub async fn migrate_down(&self, steps: u32) -> Result<()> {
        unimplemented!("{steps}")
    }

    /// Every migration this program knows, oldest first, and whether it is applied. Changes nothing.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn migration_status(&self) -> Result<Vec<(String, bool)>> {
        unimplemented!()
    }

    /// Refuses to work on a schema older than this program.
    ///
    /// # Errors
    /// `Schema` with the steps that are missing and the command that applies them.
    pub async fn require_current_schema(&self) -> Result<()> {
        unimplemented!()
    }
}

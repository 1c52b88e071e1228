//! The outbox: messages whose fan-out is not finished.

use crate::{Storage, error::Result};
use touchline_ids::{ChannelId, Seq};
use uuid::Uuid;

impl Storage {
    /// The fan-out of these messages is finished; those that are not in the outbox do no harm.
    ///
    /// # Errors
    /// When the database fails; finishing again does no harm.
    pub async fn finish(&self, messages: &[(ChannelId, Seq)]) -> Result<()> {
        unimplemented!("{messages:?}")
    }

    /// Renews the claims of `owner` for 5 s from now by the database's clock; answers how many it holds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew_claims(&self, owner: Uuid) -> Result<u64> {
        unimplemented!("{owner}")
    }
}

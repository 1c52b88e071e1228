//! Pages of a channel's log.

use crate::{Entry, Storage, error::Result};
use touchline_ids::{ChannelId, Seq, UserId};

/// A page of a channel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// Whether there are more in the direction of paging: newer ones when `after_seq` was given, else older ones.
    pub more: bool,
}

impl Storage {
    /// A page of the user's present membership interval: with `after_seq` the first `limit` entries after it (and
    /// below `before_seq`), else the newest `limit` below `before_seq` or of all. `None`: no such channel, or the user
    /// is not in it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn history(
        &self,
        user: UserId,
        channel: ChannelId,
        after_seq: Option<Seq>,
        before_seq: Option<Seq>,
        limit: u32,
    ) -> Result<Option<History>> {
        unimplemented!("{user} {channel} {after_seq:?} {before_seq:?} {limit}")
    }
}

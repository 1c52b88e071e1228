//! Who is to be notified of what, one row per (user, channel).

use crate::{Storage, error::Result};
use touchline_ids::{ChannelId, Seq, UserId};

impl Storage {
    /// Nobody acked these messages for these users: each raises the user's row of the channel to that seq and counts
    /// one more. `now_ms` is when a new row is due, Unix milliseconds.
    ///
    /// # Errors
    /// When the database fails; then none is stored.
    pub async fn notify(&self, missed: &[(UserId, ChannelId, Seq)], now_ms: i64) -> Result<()> {
        unimplemented!("{missed:?} {now_ms}")
    }

    /// Who is to be notified of a channel: user, greatest seq, count; by user.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_notifications(&self, channel: ChannelId) -> Result<Vec<(UserId, Seq, i64)>> {
        unimplemented!("{channel}")
    }
}

//! What a device missed, from the cursors it holds.

use crate::{Entry, Storage, error::Result};
use touchline_ids::{ChannelId, Seq, UserId};

/// Up to where a device holds a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Which channel.
    pub channel_id: ChannelId,
    /// The last position it holds; 0 for nothing.
    pub seq: Seq,
    /// The check of the entry at `seq` ([`touchline_ids::MessageId::check`]), so that a log which lost its tail and
    /// grew again is noticed.
    pub check: Option<u32>,
}

/// What the device needs to be up to date.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Synced {
    /// Channels with something new: those named by cursors in their order, then the others by id.
    pub channels: Vec<SyncedChannel>,
    /// Channels named by cursors that the user is not in (any more), or that never were.
    pub gone: Vec<ChannelId>,
}

/// What the device needs of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedChannel {
    /// Which.
    pub channel_id: ChannelId,
    /// The log's last position.
    pub head_seq: Seq,
    /// Oldest first, dense.
    pub entries: Vec<Entry>,
    /// There are more after the last of `entries`: ask again.
    pub more: bool,
    /// Do not continue from the cursor: what is held of this channel ends here, start from these entries (the newest
    /// ones) or, when there are none, from `head_seq`.
    pub reset: bool,
}

impl Storage {
    /// Everything after each cursor, at most 200 entries a channel and 1,000 in all, and the newest `recent` entries
    /// of the user's channels that no cursor names. A channel whose cursor is at its end is left out. A cursor beyond
    /// the end, before the user's membership or with a wrong check gets a `reset`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sync(&self, user: UserId, cursors: &[Cursor], recent: u32) -> Result<Synced> {
        unimplemented!("{user} {cursors:?} {recent}")
    }
}

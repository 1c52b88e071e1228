//! Channels as one of their members sees them.

use crate::{Role, Storage, error::Result};
use touchline_ids::{ChannelId, Seq, UserId};

/// A channel as one of its members sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelView {
    /// Which.
    pub id: ChannelId,
    /// Its name.
    pub name: String,
    /// The member's role.
    pub role: Role,
    /// The log's last position.
    pub last_seq: Seq,
    /// Up to where the member has read; unread is `last_seq − read_seq`.
    pub read_seq: Seq,
    /// The first entry the member sees.
    pub joined_seq: Seq,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// What marking a channel as read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkRead {
    /// No such channel, or not a member.
    NotAMember,
    /// The log is not that long.
    BeyondEnd {
        /// The log's last position.
        last_seq: Seq,
    },
    /// The mark stands at `read_seq`: where it was asked for, or further if it was further already.
    Read {
        /// The mark.
        read_seq: Seq,
        /// The log's last position.
        last_seq: Seq,
    },
}

impl Storage {
    /// One channel. `None`: no such channel, or the user is not in it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn channel_for(&self, user: UserId, channel: ChannelId) -> Result<Option<ChannelView>> {
        unimplemented!("{user} {channel}")
    }

    /// The user's channels after channel `after` in order of their ids, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn channels_of(&self, user: UserId, after: Option<ChannelId>, limit: u64) -> Result<Vec<ChannelView>> {
        unimplemented!("{user} {after:?} {limit}")
    }

    /// Raises the user's read mark; never lowers it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark_read(&self, user: UserId, channel: ChannelId, seq: Seq) -> Result<MarkRead> {
        unimplemented!("{user} {channel} {seq}")
    }
}

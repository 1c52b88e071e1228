//! Who is in a channel.

use crate::{Role, Storage, error::Result};
use touchline_ids::{ChannelId, Seq, UserId};

/// Who is in a channel at one version of its membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Grows with every join and leave.
    pub version: i64,
    /// Sorted.
    pub users: Vec<UserId>,
}

impl Members {
    /// Whether the user is in the channel.
    pub fn contains(&self, user: UserId) -> bool {
        self.users.binary_search(&user).is_ok()
    }
}

/// One member as others see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Who.
    pub user_id: UserId,
    /// Their unique name.
    pub handle: String,
    /// Their name to show.
    pub display_name: String,
    /// What they may do.
    pub role: Role,
    /// The first entry they see.
    pub joined_seq: Seq,
}

/// The members of recently used channels, proven current by each channel's `members_version` under its row lock.
/// Belongs to one writer task. Bounded; the channels used longest ago go first.
#[derive(Debug)]
pub struct MemberCache {}

impl MemberCache {
    /// An empty cache of at most so many channels and so many members (16 bytes each) in all of them.
    pub fn new(max_channels: usize, max_members: usize) -> Self {
        unimplemented!("{max_channels} {max_members}")
    }

    /// Forgets everything.
    pub fn clear(&mut self) {}
}

impl Default for MemberCache {
    /// 10,000 channels, 1,000,000 members.
    fn default() -> Self {
        Self::new(10_000, 1_000_000)
    }
}

impl Storage {
    /// The members after user `after` in order of their ids, at most `limit`. `None`: no such channel, or `asker` is
    /// not in it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn members_of(
        &self,
        asker: UserId,
        channel: ChannelId,
        after: Option<UserId>,
        limit: u64,
    ) -> Result<Option<Vec<MemberView>>> {
        unimplemented!("{asker} {channel} {after:?} {limit}")
    }
}

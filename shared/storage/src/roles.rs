//! What a member may do to a channel, by role.

use serde::{Deserialize, Serialize};

/// A member's role in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Exactly one, except in a channel everybody left: may do everything, and leaves last or hands over.
    Owner,
    /// Renames, adds, and removes plain members.
    Admin,
    /// Reads, writes and leaves.
    Member,
}

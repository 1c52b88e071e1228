//! One entry of a channel's log.

use crate::entity::messages;
use sea_orm::{DeriveActiveEnum, EnumIter, sea_query::StringLen};
use serde::{Deserialize, Serialize};
use touchline_ids::{ChannelId, Check, MessageId, Seq, UserId};

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, EnumIter, DeriveActiveEnum)]
#[serde(rename_all = "snake_case")]
#[sea_orm(rs_type = "String", db_type = "String(StringLen::N(16))", rename_all = "snake_case")]
pub enum Kind {
    /// A message somebody sent.
    Text,
    /// The channel's first entry: `{"name", "user_ids"}`.
    Created,
    /// Members came: `{"user_ids"}`.
    Joined,
    /// A member left or was removed: `{"user_id"}`.
    Left,
    /// The channel has a new name: `{"name"}`.
    Renamed,
    /// A member has a new role: `{"user_id", "role"}`. When it is `owner`, the owner before is an admin now.
    RoleChanged,
}

impl Kind {
    /// As stored, and as clients see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Created => "created",
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Renamed => "renamed",
            Self::RoleChanged => "role_changed",
        }
    }
}

/// One entry of a channel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose log.
    pub channel_id: ChannelId,
    /// Where in it; dense from 1.
    pub seq: Seq,
    /// Its id.
    pub message_id: MessageId,
    /// Who sent the message or did what it tells.
    pub sender_id: UserId,
    /// What it says.
    pub kind: Kind,
    /// JSON text.
    pub content: String,
    /// When it was received, Unix milliseconds.
    pub created_at_ms: i64,
    /// The check of the entry before it; none for the first, and for what was stored before this was kept.
    pub prev: Option<Check>,
}

impl From<messages::Model> for Entry {
    fn from(row: messages::Model) -> Self {
        Self {
            channel_id: row.channel_id,
            seq: row.seq,
            message_id: row.id,
            sender_id: row.sender_id,
            kind: row.kind,
            content: row.content,
            created_at_ms: row.created_at,
            prev: row.prev,
        }
    }
}

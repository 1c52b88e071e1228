//! What the server answers. Fields we do not know are ignored: a newer server may send more.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use touchline_ids::{ChannelId, Check, ClientMessageId, DeviceId, MessageId, Seq, UserId};

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// The unique name others find them by.
    pub handle: String,
    /// How they are shown.
    pub display_name: String,
}

/// What signing up, logging in or refreshing gives.
#[derive(Clone, Deserialize)]
pub struct Login {
    /// Who one is.
    pub user: User,
    /// Goes with every call.
    pub access_token: String,
    /// Good for one refresh; the answer brings the next.
    pub refresh_token: String,
    /// Seconds the access token lives.
    pub expires_in: u64,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// A channel as its member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Channel {
    /// Which.
    pub id: ChannelId,
    /// Its name; not unique.
    pub name: String,
    /// `owner`, `admin` or `member`.
    pub role: String,
    /// The last entry of its log.
    pub last_seq: Seq,
    /// Up to where one has read.
    pub read_seq: Seq,
    /// `last_seq − read_seq`.
    pub unread: i64,
    /// RFC 3339, UTC.
    pub created_at: String,
}

/// A member of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// The unique name others find them by.
    pub handle: String,
    /// How they are shown.
    pub display_name: String,
    /// `owner`, `admin` or `member`.
    pub role: String,
    /// The first entry they see.
    pub joined_seq: Seq,
}

/// How far one has read a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct ReadMark {
    /// Up to where.
    pub read_seq: Seq,
    /// How many entries follow.
    pub unread: i64,
}

/// One entry of a channel's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// In which channel.
    pub channel_id: ChannelId,
    /// Where in its log.
    pub seq: Seq,
    /// Its id.
    pub message_id: MessageId,
    /// Who sent it, or changed the channel.
    pub sender_id: UserId,
    /// `text`, or what changed: `created`, `joined`, `left`, `renamed`, `role_changed`.
    pub kind: String,
    /// What was sent, or the change.
    pub content: Value,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// The cursor check for this seq: [`MessageId::check`] of its id, said by the server so that nobody need compute it.
    pub check: Check,
    /// The `check` of the entry before it; none in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<Check>,
}

impl Message {
    /// What a device holds whose last message of the channel this is.
    pub fn cursor(&self) -> Cursor {
        Cursor { channel_id: self.channel_id, seq: self.seq, check: Some(self.check) }
    }
}

/// A message to send.
#[derive(Debug, Clone, Serialize)]
pub struct NewMessage {
    /// The sender's own name for it. The same one on every retry.
    pub client_message_id: ClientMessageId,
    /// What to say.
    pub content: Value,
    /// Whether those who are away are spared the push notification.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_push: bool,
    /// Whom it mentions, at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
}

impl NewMessage {
    /// A message with a fresh `client_message_id`.
    pub fn new(content: impl Into<Value>) -> Self {
        let id = uuid::Uuid::now_v7().to_string().parse().expect("a UUID is a legal client_message_id");
        Self { client_message_id: id, content: content.into(), no_push: false, mentions: Vec::new() }
    }
}

/// Where a sent message is stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sent {
    /// In which channel.
    pub channel_id: ChannelId,
    /// Where in its log.
    pub seq: Seq,
    /// Its id.
    pub message_id: MessageId,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// Whether an earlier try had stored it already.
    pub duplicate: bool,
}

/// A page of a channel's log, oldest first.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct History {
    /// The entries.
    pub messages: Vec<Message>,
    /// Whether there are more in the direction one reads.
    pub more: bool,
}

/// "I hold everything of this channel up to `seq`."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cursor {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Up to where.
    pub seq: Seq,
    /// [`MessageId::check`] of the message at `seq`, by which the server notices that its log lost its tail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
}

/// What was missed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Synced {
    /// Channels with news.
    pub channels: Vec<SyncedChannel>,
    /// Channels one named and is not (any more) a member of.
    pub gone: Vec<ChannelId>,
}

/// What was missed in one channel.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SyncedChannel {
    /// Which channel.
    pub channel_id: ChannelId,
    /// The last entry of its log.
    pub head_seq: Seq,
    /// Entries, oldest first.
    pub messages: Vec<Message>,
    /// Whether to sync again from the last of them.
    pub more: bool,
    /// Whether to forget what one holds of the channel and start from these.
    pub reset: bool,
}

/// Where and how to open a socket.
#[derive(Clone, Deserialize)]
pub struct Connect {
    /// Gateways to try, in this order.
    pub gateways: Vec<GatewayAddress>,
    /// Good for one socket.
    pub ticket: String,
    /// Seconds the ticket lives.
    pub expires_in_s: u64,
    /// Seconds between pings.
    pub heartbeat_s: u64,
    /// How to wait before trying again.
    pub backoff: Backoff,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("gateways", &self.gateways).finish_non_exhaustive()
    }
}

/// A device that is registered for pushes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RegisteredDevice {
    /// Which.
    pub device_id: DeviceId,
    /// `android`, `ios` or `web`.
    pub platform: String,
    /// How the push service knows it.
    pub push: PushKind,
    /// When it was registered first; RFC 3339, UTC.
    pub created_at: String,
    /// When it was here last, up to an hour behind; RFC 3339, UTC.
    pub last_seen_at: String,
}

/// How the push service knows a device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PushKind {
    /// `token` or `fid`.
    pub kind: String,
}

/// Of which messages of a channel one is notified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyWish {
    /// `all`, `mentions` or `none`.
    pub level: String,
    /// Until then of none; RFC 3339.
    pub mute_until: Option<String>,
}

/// When one wants no pushes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuietHours {
    /// Such as `22:00`.
    pub from: String,
    /// Such as `07:00`.
    pub to: String,
    /// Such as `Europe/Berlin`.
    pub time_zone: String,
}

/// A gateway's public address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GatewayAddress {
    /// Such as `wss://gw-7.chat.example.com`.
    pub url: String,
}

/// Reconnect delays: full jitter between 0 and `base_ms` doubled per try, at most `cap_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Backoff {
    /// The longest first delay, in milliseconds.
    pub base_ms: u64,
    /// The longest delay of all, in milliseconds.
    pub cap_ms: u64,
}

//! Reading a channel's log, and marking it read.

use crate::{
    Api,
    auth::Caller,
    channels::limit,
    clock,
    error::{Error, Problem},
    extract::{Json, Path, Query},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;
use touchline_ids::{ChannelId, Check, MessageId, Seq, UserId};
use touchline_storage::{Entry, MarkRead};
use utoipa::{IntoParams, ToSchema};

/// One entry of a channel's log.
#[derive(Debug, Serialize, ToSchema)]
pub struct Message {
    channel_id: ChannelId,
    seq: Seq,
    message_id: MessageId,
    /// Who sent it or did it.
    sender_id: UserId,
    /// `text`, or what changed the channel: `created`, `joined`, `left`, `renamed`, `role_changed`. More may come.
    kind: &'static str,
    /// What was sent, as it was sent.
    #[schema(value_type = serde_json::Value)]
    content: Box<RawValue>,
    /// RFC 3339, UTC.
    created_at: String,
    /// The cursor check: eight hexadecimal digits of the message id, to send along with `seq` to sync.
    #[schema(value_type = String)]
    check: Check,
    /// The `check` of the entry before it; absent in the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    prev: Option<Check>,
}

impl TryFrom<Entry> for Message {
    type Error = Error;

    fn try_from(entry: Entry) -> Result<Self, Error> {
        let Entry { channel_id, seq, message_id, sender_id, kind, content, created_at_ms, prev } = entry;
        let content = RawValue::from_string(content)
            .map_err(|error| Error::Internal(format!("stored content of {channel_id}/{seq} is not JSON: {error}")))?;
        let (created_at, check) = (clock::rfc3339(created_at_ms), message_id.check());
        Ok(Self { channel_id, seq, message_id, sender_id, kind: kind.as_str(), content, created_at, check, prev })
    }
}

/// Turns log entries into messages.
pub fn messages(entries: Vec<Entry>) -> Result<Vec<Message>, Error> {
    entries.into_iter().map(TryInto::try_into).collect()
}

/// A piece of a log.
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    /// Oldest first.
    messages: Vec<Message>,
    /// Whether there are more in the direction that was asked for.
    more: bool,
}

/// Which piece of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// Only messages after this seq, from there on.
    after_seq: Option<Seq>,
    /// Only messages before this seq, the newest of them.
    before_seq: Option<Seq>,
    /// Most messages in the answer: 1 to 200, 50 when absent.
    limit: Option<u32>,
}

/// Read a channel's log. Without a position: its newest messages.
#[utoipa::path(get, path = "/v1/channels/{id}/messages", tag = "messages", params(("id" = ChannelId, Path), Piece),
    security(("bearer" = [])), responses((status = 200, body = History), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(channel_id): Path<ChannelId>,
    Query(piece): Query<Piece>,
) -> Result<axum::Json<History>, Error> {
    let limit = limit(piece.limit)?;
    let history = api.storage.history(caller.user, channel_id, piece.after_seq, piece.before_seq, limit).await?;
    let history = history.ok_or(Error::NoSuchChannel)?;
    Ok(axum::Json(History { messages: messages(history.entries)?, more: history.more }))
}

/// How far the caller has read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadBody {
    /// At most the channel's `last_seq`. A smaller one than before changes nothing.
    seq: Seq,
}

/// The read mark as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadMark {
    read_seq: Seq,
    unread: i64,
}

/// Mark a channel as read up to a message.
#[utoipa::path(put, path = "/v1/channels/{id}/read", tag = "messages", params(("id" = ChannelId, Path)), request_body = ReadBody,
    security(("bearer" = [])), responses((status = 200, body = ReadMark), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn mark_read(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(channel_id): Path<ChannelId>,
    Json(body): Json<ReadBody>,
) -> Result<axum::Json<ReadMark>, Error> {
    if body.seq < Seq(0) {
        return Err(Error::field("seq", "must not be negative"));
    }
    match api.storage.mark_read(caller.user, channel_id, body.seq).await? {
        MarkRead::Read { read_seq, last_seq } => Ok(axum::Json(ReadMark { read_seq, unread: last_seq.0 - read_seq.0 })),
        MarkRead::BeyondEnd { last_seq } => Err(Error::BeyondEnd { last_seq }),
        MarkRead::NotAMember => Err(Error::NoSuchChannel),
    }
}

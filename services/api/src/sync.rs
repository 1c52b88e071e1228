//! What a device missed: everything after its cursors.

use crate::{
    Api,
    auth::Caller,
    channels::check_array,
    error::{Error, Problem},
    extract::Json,
    history::{Message, messages},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, sync::Arc};
use touchline_ids::{ChannelId, DeviceId, InvalidCheck, Seq};
use touchline_storage::Cursor;
use utoipa::ToSchema;

/// Where a device stands in one channel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CursorBody {
    channel_id: ChannelId,
    /// The device holds every message up to this one.
    seq: Seq,
    /// That message's `check`; with it a log that lost its tail is noticed.
    check: Option<String>,
}

/// Where a device stands.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncBody {
    /// At most 1,000, each channel once.
    #[serde(default)]
    cursors: Vec<CursorBody>,
    /// How many of the newest messages of a channel that is not named: 0 to 50, 20 when absent.
    recent: Option<u32>,
    /// Which device asks; with it a device that only syncs counts as seen, and pushes to it go on.
    device_id: Option<DeviceId>,
}

/// What is new in one channel.
#[derive(Debug, Serialize, ToSchema)]
pub struct SyncedChannel {
    channel_id: ChannelId,
    /// The position of its newest message.
    head_seq: Seq,
    /// Oldest first, without a hole.
    messages: Vec<Message>,
    /// There are more: sync again from the last one.
    more: bool,
    /// Forget what you hold of this channel and start from `messages`.
    reset: bool,
}

/// What is new.
#[derive(Debug, Serialize, ToSchema)]
pub struct SyncAnswer {
    /// Channels with something new; unchanged ones are left out.
    channels: Vec<SyncedChannel>,
    /// Channels that were named and are not (any more) the caller's.
    gone: Vec<ChannelId>,
}

/// Get what a device missed.
///
/// For a named channel everything after its seq, at most 200 messages a channel and 1,000 or 1 MiB of content in all,
/// then `more`. For one of the caller's channels that is not named its newest messages, with `reset`.
#[utoipa::path(post, path = "/v1/sync", tag = "messages", request_body = SyncBody, security(("bearer" = [])),
    responses((status = 200, body = SyncAnswer), (status = 400, body = Problem), (status = 429, body = Problem),
        (status = 503, description = "Too many devices at once: Retry-After says when", body = Problem)))]
pub async fn sync(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(body): Json<SyncBody>,
) -> Result<axum::Json<SyncAnswer>, Error> {
    api.limits.check_sync(caller.user)?;
    check_array("cursors", &body.cursors)?;
    let recent = body.recent.unwrap_or(20);
    if recent > 50 {
        return Err(Error::field("recent", "must be 0 to 50"));
    }
    let cursors = body.cursors.iter().map(cursor).collect::<Result<Vec<_>, _>>()?;
    let named: HashSet<_> = cursors.iter().map(|cursor| cursor.channel_id).collect();
    if named.len() < cursors.len() {
        return Err(Error::field("cursors", "must name each channel once"));
    }
    api.syncs.admit()?;
    let synced = api.storage.sync(caller.user, &cursors, recent).await?;
    if let Some(device) = &body.device_id {
        api.seen.note(caller.user, device).await;
    }
    // A cursor that is right says what an ack says.
    synced.acked.iter().for_each(|&(channel, seq)| api.delivered.note(caller.user, channel, seq));
    let channels = synced.channels.into_iter().map(|channel| {
        let messages = messages(channel.entries)?;
        let (channel_id, head_seq, more, reset) = (channel.channel_id, channel.head_seq, channel.more, channel.reset);
        Ok(SyncedChannel { channel_id, head_seq, messages, more, reset })
    });
    Ok(axum::Json(SyncAnswer { channels: channels.collect::<Result<_, Error>>()?, gone: synced.gone }))
}

fn cursor(body: &CursorBody) -> Result<Cursor, Error> {
    if body.seq < Seq(0) {
        return Err(Error::field("cursors.seq", "must not be negative"));
    }
    let check = body.check.as_deref().map(str::parse).transpose();
    let check = check.map_err(|_: InvalidCheck| Error::field("cursors.check", "must be eight hexadecimal digits"))?;
    Ok(Cursor { channel_id: body.channel_id, seq: body.seq, check })
}

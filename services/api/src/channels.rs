//! Channels: create, list mine, get one, rename.

use crate::{
    Api,
    auth::Caller,
    clock,
    error::{Error, Problem},
    extract::{ARRAY_LIMIT, Json, Path, Query},
    name,
    trace::Traceparent,
};
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, sync::Arc};
use touchline_ids::{ChannelId, MessageId, Seq, UserId};
use touchline_storage::{Action, Changed, ChannelChange, ChannelView, CreateChannel, NewChannel, Role};
use utoipa::{IntoParams, ToSchema};

/// Longest channel name, in characters.
const NAME_LIMIT: usize = 128;

/// A channel as one of its members sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Channel {
    id: ChannelId,
    name: String,
    /// The caller's role.
    #[schema(value_type = String, example = "owner")]
    role: Role,
    /// The position of the newest message; 0 when there is none.
    last_seq: Seq,
    /// Up to where the caller has read.
    read_seq: Seq,
    /// Entries after `read_seq`.
    unread: i64,
    /// RFC 3339, UTC.
    created_at: String,
}

impl From<ChannelView> for Channel {
    fn from(view: ChannelView) -> Self {
        let ChannelView { id, name, role, last_seq, read_seq, created_at_ms, .. } = view;
        let (unread, created_at) = (last_seq.0 - read_seq.0, clock::rfc3339(created_at_ms));
        Self { id, name, role, last_seq, read_seq, unread, created_at }
    }
}

/// A page of channels.
#[derive(Debug, Serialize, ToSchema)]
pub struct Channels {
    channels: Vec<Channel>,
    /// Where the next page begins (`?after=`); absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<ChannelId>,
}

/// A channel to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateChannelBody {
    /// 1 to 128 characters.
    name: String,
    /// The other members, at most 1,000 at once; the caller becomes the owner.
    #[serde(default)]
    member_ids: Vec<UserId>,
}

/// Create a channel.
#[utoipa::path(post, path = "/v1/channels", tag = "channels", request_body = CreateChannelBody, security(("bearer" = [])),
    responses((status = 201, body = Channel), (status = 400, body = Problem),
        (status = 409, description = "Too many members", body = Problem), (status = 429, body = Problem)))]
pub async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    trace: Traceparent,
    Json(body): Json<CreateChannelBody>,
) -> Result<(StatusCode, axum::Json<Channel>), Error> {
    api.limits.check_joins(caller.user, body.member_ids.len())?;
    let name = name::read("name", &body.name, NAME_LIMIT)?;
    check_array("member_ids", &body.member_ids)?;
    let limit = api.config.max_members;
    let members: HashSet<_> = body.member_ids.iter().chain([&caller.user]).collect();
    if members.len() > limit {
        return Err(Error::ChannelFull { limit });
    }
    let channel = NewChannel {
        id: ChannelId::new(),
        name,
        owner: caller.user,
        member_ids: body.member_ids,
        message_id: MessageId::new(),
        created_at_ms: clock::now_ms(),
    };
    match api.writer.create(channel, trace.0).await? {
        CreateChannel::Created { view, .. } => Ok((StatusCode::CREATED, axum::Json(view.into()))),
        CreateChannel::UnknownUsers(users) => Err(Error::UnknownUsers(users)),
    }
}

/// A page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ChannelPage {
    /// Continue after this channel: the `next` of the page before.
    after: Option<ChannelId>,
    /// Most channels in the answer: 1 to 200, 50 when absent.
    limit: Option<u32>,
}

/// List my channels, in the order in which they were created.
#[utoipa::path(get, path = "/v1/channels", tag = "channels", params(ChannelPage), security(("bearer" = [])),
    responses((status = 200, body = Channels), (status = 400, body = Problem)))]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(page): Query<ChannelPage>,
) -> Result<axum::Json<Channels>, Error> {
    let limit = limit(page.limit)?;
    let mut views = api.storage.channels_of(caller.user, page.after, u64::from(limit) + 1).await?;
    let next = cut(&mut views, limit, |view| view.id);
    Ok(axum::Json(Channels { channels: views.into_iter().map(Into::into).collect(), next }))
}

/// Get one of my channels.
#[utoipa::path(get, path = "/v1/channels/{id}", tag = "channels", params(("id" = ChannelId, Path)), security(("bearer" = [])),
    responses((status = 200, body = Channel), (status = 404, body = Problem)))]
pub async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(channel_id): Path<ChannelId>,
) -> Result<axum::Json<Channel>, Error> {
    let view = api.storage.channel_for(caller.user, channel_id).await?.ok_or(Error::NoSuchChannel)?;
    Ok(axum::Json(view.into()))
}

/// What to change of a channel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameBody {
    /// 1 to 128 characters.
    name: String,
}

/// Rename a channel. For its owner and admins.
#[utoipa::path(patch, path = "/v1/channels/{id}", tag = "channels", params(("id" = ChannelId, Path)), request_body = RenameBody,
    security(("bearer" = [])), responses((status = 200, body = Channel), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn rename(
    State(api): State<Arc<Api>>,
    caller: Caller,
    trace: Traceparent,
    Path(channel_id): Path<ChannelId>,
    Json(body): Json<RenameBody>,
) -> Result<axum::Json<Channel>, Error> {
    api.limits.check_send(caller.user)?;
    let name = name::read("name", &body.name, NAME_LIMIT)?;
    change(&api, &caller, trace, channel_id, Action::Rename(name)).await?;
    let renamed = get(State(api), caller, Path(channel_id)).await;
    // The new name is stored by now, so "nothing was done" would be wrong.
    renamed.map_err(Error::after_a_commit)
}

/// Carries a change of a channel out. The seq of its log entry, or `None` when everything was so already.
pub async fn change(
    api: &Api,
    caller: &Caller,
    trace: Traceparent,
    channel_id: ChannelId,
    action: Action,
) -> Result<Option<Seq>, Error> {
    let (message_id, created_at_ms) = (MessageId::new(), clock::now_ms());
    let change = ChannelChange { channel_id, actor: caller.user, action, message_id, created_at_ms };
    match api.writer.change(change, trace.0).await? {
        Changed::Stored { entry, .. } => Ok(Some(entry.seq)),
        Changed::Unchanged => Ok(None),
        Changed::NotAMember => Err(Error::NoSuchChannel),
        Changed::Forbidden => Err(Error::Forbidden("your role in this channel does not allow it")),
        Changed::UnknownUsers(users) => Err(Error::UnknownUsers(users)),
        Changed::NoSuchMember => Err(Error::NoSuchMember),
        Changed::OwnerMustHandOver => Err(Error::OwnerMustHandOver),
        Changed::Locked => Err(Error::Unavailable { what: "this channel is busy" }),
        Changed::ChannelFull => Err(Error::ChannelFull { limit: api.config.max_members }),
    }
}

/// Refuses an array that is too long.
pub fn check_array<T>(field: &'static str, array: &[T]) -> Result<(), Error> {
    if array.len() > ARRAY_LIMIT {
        return Err(Error::field(field, format!("must have at most {ARRAY_LIMIT} elements")));
    }
    Ok(())
}

/// The size of a page: 50 when not asked for.
pub fn limit(asked: Option<u32>) -> Result<u32, Error> {
    match asked.unwrap_or(50) {
        limit @ 1..=200 => Ok(limit),
        _ => Err(Error::InvalidQuery("limit must be 1 to 200".to_owned())),
    }
}

/// Cuts the one row too many that was asked for, and names the last row that stays when there was one.
pub fn cut<T, K>(rows: &mut Vec<T>, limit: u32, key: impl Fn(&T) -> K) -> Option<K> {
    let limit = limit as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| more).map(key)
}

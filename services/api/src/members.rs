//! The members of a channel: list, add, change roles, remove, leave.

use crate::{
    Api,
    auth::Caller,
    channels::{change, check_array, cut, limit},
    error::{Error, Problem},
    extract::{Json, Path, Query},
    trace::Traceparent,
};
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_storage::{Action, MemberView, Role};
use utoipa::{IntoParams, ToSchema};

/// One member.
#[derive(Debug, Serialize, ToSchema)]
pub struct Member {
    user_id: UserId,
    handle: String,
    display_name: String,
    #[schema(value_type = String, example = "member")]
    role: Role,
    /// The first seq this member sees.
    joined_seq: Seq,
}

impl From<MemberView> for Member {
    fn from(view: MemberView) -> Self {
        let MemberView { user_id, handle, display_name, role, joined_seq } = view;
        Self { user_id, handle, display_name, role, joined_seq }
    }
}

/// A page of members.
#[derive(Debug, Serialize, ToSchema)]
pub struct Members {
    members: Vec<Member>,
    /// Where the next page begins (`?after=`); absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<UserId>,
}

/// A page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct MemberPage {
    /// Continue after this user: the `next` of the page before.
    after: Option<UserId>,
    /// Most members in the answer: 1 to 200, 50 when absent.
    limit: Option<u32>,
}

/// List the members of one of my channels.
#[utoipa::path(get, path = "/v1/channels/{id}/members", tag = "members", params(("id" = ChannelId, Path), MemberPage),
    security(("bearer" = [])), responses((status = 200, body = Members), (status = 404, body = Problem)))]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(channel_id): Path<ChannelId>,
    Query(page): Query<MemberPage>,
) -> Result<axum::Json<Members>, Error> {
    let limit = limit(page.limit)?;
    let views = api.storage.members_of(caller.user, channel_id, page.after, u64::from(limit) + 1).await?;
    let mut views = views.ok_or(Error::NoSuchChannel)?;
    let next = cut(&mut views, limit, |view| view.user_id);
    Ok(axum::Json(Members { members: views.into_iter().map(Into::into).collect(), next }))
}

/// The seq of the log entry a change made.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangeAnswer {
    /// `null` when everything was so already.
    seq: Option<Seq>,
}

/// Who to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddBody {
    /// 1 to 1,000 users; members already are left as they are.
    user_ids: Vec<UserId>,
}

/// Add members. For the owner and admins.
#[utoipa::path(post, path = "/v1/channels/{id}/members", tag = "members", params(("id" = ChannelId, Path)), request_body = AddBody,
    security(("bearer" = [])), responses((status = 200, body = ChangeAnswer), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, description = "The channel is full", body = Problem)))]
pub async fn add(
    State(api): State<Arc<Api>>,
    caller: Caller,
    trace: Traceparent,
    Path(channel_id): Path<ChannelId>,
    Json(body): Json<AddBody>,
) -> Result<axum::Json<ChangeAnswer>, Error> {
    api.limits.check_joins(caller.user, body.user_ids.len())?;
    check_array("user_ids", &body.user_ids)?;
    if body.user_ids.is_empty() {
        return Err(Error::field("user_ids", "must name at least one user"));
    }
    let action = Action::Add { users: body.user_ids, role: Role::Member };
    let seq = change(&api, &caller, trace, channel_id, action).await?;
    Ok(axum::Json(ChangeAnswer { seq }))
}

/// What to change of a member.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleBody {
    /// `owner`, `admin` or `member`. `owner` hands the channel over: the caller becomes an admin.
    #[schema(value_type = String, example = "admin")]
    role: Role,
}

/// Change a member's role. For the owner.
#[utoipa::path(patch, path = "/v1/channels/{id}/members/{user_id}", tag = "members",
    params(("id" = ChannelId, Path), ("user_id" = UserId, Path)), request_body = RoleBody, security(("bearer" = [])),
    responses((status = 200, body = ChangeAnswer), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn set_role(
    State(api): State<Arc<Api>>,
    caller: Caller,
    trace: Traceparent,
    Path((channel_id, user)): Path<(ChannelId, UserId)>,
    Json(body): Json<RoleBody>,
) -> Result<axum::Json<ChangeAnswer>, Error> {
    api.limits.check_send(caller.user)?;
    let seq = change(&api, &caller, trace, channel_id, Action::SetRole { user, role: body.role }).await?;
    Ok(axum::Json(ChangeAnswer { seq }))
}

/// Remove a member, or leave with one's own id.
///
/// From this entry of the log on they receive and read nothing.
#[utoipa::path(delete, path = "/v1/channels/{id}/members/{user_id}", tag = "members",
    params(("id" = ChannelId, Path), ("user_id" = UserId, Path)), security(("bearer" = [])),
    responses((status = 204, description = "Removed"), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, description = "The owner must hand over first", body = Problem)))]
pub async fn remove(
    State(api): State<Arc<Api>>,
    caller: Caller,
    trace: Traceparent,
    Path((channel_id, user)): Path<(ChannelId, UserId)>,
) -> Result<StatusCode, Error> {
    api.limits.check_send(caller.user)?;
    change(&api, &caller, trace, channel_id, Action::Remove(user)).await?;
    Ok(StatusCode::NO_CONTENT)
}

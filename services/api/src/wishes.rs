//! Of which messages of a channel its member wants to be notified.

use crate::{
    Api,
    auth::Caller,
    clock,
    error::{Error, Problem},
    extract::{Json, Path},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use touchline_ids::ChannelId;
use touchline_storage::{NotifyLevel, NotifyWish};
use utoipa::ToSchema;

/// What the caller wishes for a channel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WishBody {
    /// Of which messages to be notified: `all`, `mentions` (those that mention the caller) or `none`.
    #[schema(value_type = String, example = "mentions")]
    level: NotifyLevel,
    /// Until then of none at all; RFC 3339. Absent or `null`: not muted.
    mute_until: Option<String>,
}

/// What the caller wishes for a channel.
#[derive(Debug, Serialize, ToSchema)]
pub struct Wish {
    #[schema(value_type = String, example = "mentions")]
    level: NotifyLevel,
    /// RFC 3339, UTC; `null` when the channel is not muted (any more).
    mute_until: Option<String>,
}

impl Wish {
    fn at(now_ms: i64, wish: NotifyWish) -> Self {
        let until = wish.muted_until_ms.filter(|until| *until > now_ms);
        Self { level: wish.level, mute_until: until.map(clock::rfc3339) }
    }
}

/// Say of which messages of a channel to be notified. It holds while the caller is a member.
#[utoipa::path(put, path = "/v1/channels/{id}/notifications", tag = "notifications", params(("id" = ChannelId, Path)),
    request_body = WishBody, security(("bearer" = [])),
    responses((status = 200, body = Wish), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(channel_id): Path<ChannelId>,
    Json(body): Json<WishBody>,
) -> Result<axum::Json<Wish>, Error> {
    let wish = NotifyWish { level: body.level, muted_until_ms: body.mute_until.as_deref().map(time).transpose()? };
    if !api.storage.set_notify(caller.user, channel_id, wish).await? {
        return Err(Error::NoSuchChannel);
    }
    Ok(axum::Json(Wish::at(clock::now_ms(), wish)))
}

/// Of which messages of a channel the caller is notified: of all of them, unless they said otherwise.
#[utoipa::path(get, path = "/v1/channels/{id}/notifications", tag = "notifications", params(("id" = ChannelId, Path)),
    security(("bearer" = [])), responses((status = 200, body = Wish), (status = 404, body = Problem)))]
pub async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(channel_id): Path<ChannelId>,
) -> Result<axum::Json<Wish>, Error> {
    let wish = api.storage.notify_wish(caller.user, channel_id).await?.ok_or(Error::NoSuchChannel)?;
    Ok(axum::Json(Wish::at(clock::now_ms(), wish)))
}

fn time(text: &str) -> Result<i64, Error> {
    let what = "must be a time by RFC 3339, such as 2026-11-22T09:30:00Z, or null";
    clock::from_rfc3339(text).ok_or_else(|| Error::field("mute_until", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mute_that_is_over_is_not_shown() {
        let wish = NotifyWish { level: NotifyLevel::All, muted_until_ms: Some(1_000) };
        assert_eq!(Wish::at(999, wish).mute_until.as_deref(), Some("1970-01-01T00:00:01Z"));
        assert_eq!(Wish::at(1_000, wish).mute_until, None);
    }

    #[test]
    fn a_time_is_told_with_its_offset() {
        assert_eq!(time("1970-01-01T02:00:00.5+02:00").unwrap(), 500);
        for bad in ["", "tomorrow", "1970-01-01", "1970-01-01T00:00:00", "0", "99999-01-01T00:00:00Z"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}

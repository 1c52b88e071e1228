//! The caller's devices, by the names under which the push service knows them.

use crate::{
    Api,
    auth::Caller,
    clock,
    error::{Error, Problem},
    extract::{Json, Path},
};
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use touchline_ids::DeviceId;
use touchline_storage::{NewDevice, Platform, PutDevice, TargetKind};
use utoipa::ToSchema;

/// Longest push token, in bytes.
const TOKEN_LIMIT: usize = 512;

// No Debug: it holds a push token.
/// A device's name at the push service.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushName {
    /// `token`: a registration token; `fid`: a Firebase installation id.
    #[schema(value_type = String, example = "token")]
    kind: TargetKind,
    /// 1 to 512 visible ASCII characters, as the push service gave it. Nobody is told it again.
    value: String,
}

/// A device to register.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceBody {
    /// `android`, `ios` or `web`.
    #[schema(value_type = String, example = "android")]
    platform: Platform,
    push: PushName,
}

/// What kind of name a device has at the push service. The name itself is not told.
#[derive(Debug, Serialize, ToSchema)]
pub struct PushKind {
    #[schema(value_type = String, example = "token")]
    kind: TargetKind,
}

/// A registered device.
#[derive(Debug, Serialize, ToSchema)]
pub struct Device {
    device_id: DeviceId,
    #[schema(value_type = String, example = "android")]
    platform: Platform,
    push: PushKind,
    /// When it was registered first; RFC 3339, UTC.
    created_at: String,
    /// When it was here last, up to an hour behind; RFC 3339, UTC.
    last_seen_at: String,
}

impl From<touchline_storage::Device> for Device {
    fn from(device: touchline_storage::Device) -> Self {
        Self {
            device_id: device.device_id,
            platform: device.platform,
            push: PushKind { kind: device.target_kind },
            created_at: clock::rfc3339(device.created_at_ms),
            last_seen_at: clock::rfc3339(device.last_seen_at_ms),
        }
    }
}

/// The caller's devices.
#[derive(Debug, Serialize, ToSchema)]
pub struct Devices {
    /// By `device_id`; at most 20.
    devices: Vec<Device>,
}

/// Register a device for pushes, or renew what is known of it: at every start of the app, and when its token changes.
///
/// A push token belongs to one device of one user: it moves here from whoever had it. Of more than 20 devices of a user
/// the one unseen for longest is forgotten. Logging out forgets the devices that the log-in registered.
#[utoipa::path(put, path = "/v1/devices/{device_id}", tag = "devices", params(("device_id" = DeviceId, Path)),
    request_body = DeviceBody, security(("bearer" = [])),
    responses((status = 200, body = Device), (status = 400, body = Problem),
        (status = 401, description = "Also when the log-in is over", body = Problem), (status = 429, body = Problem),
        (status = 503, body = Problem)))]
pub async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(device_id): Path<DeviceId>,
    Json(body): Json<DeviceBody>,
) -> Result<axum::Json<Device>, Error> {
    check_token(&body.push.value)?;
    let device = NewDevice {
        user_id: caller.user,
        device_id,
        platform: body.platform,
        target_kind: body.push.kind,
        push_token: body.push.value,
        login: caller.login,
        now_ms: clock::now_ms(),
    };
    match api.storage.put_device(device).await? {
        PutDevice::Put(device) => Ok(axum::Json(device.into())),
        PutDevice::NoSuchUser => Err(Error::NO_SUCH_CALLER),
        PutDevice::LoggedOut => Err(Error::Unauthenticated("this log-in is over: log in again")),
    }
}

/// List my devices.
#[utoipa::path(get, path = "/v1/devices", tag = "devices", security(("bearer" = [])),
    responses((status = 200, body = Devices), (status = 401, body = Problem)))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<axum::Json<Devices>, Error> {
    let devices = api.storage.devices_of(caller.user).await?;
    Ok(axum::Json(Devices { devices: devices.into_iter().map(Into::into).collect() }))
}

/// Forget a device: nothing is pushed to it any more. One that is not there is forgotten already.
#[utoipa::path(delete, path = "/v1/devices/{device_id}", tag = "devices", params(("device_id" = DeviceId, Path)),
    security(("bearer" = [])), responses((status = 204), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub async fn forget(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(device_id): Path<DeviceId>,
) -> Result<StatusCode, Error> {
    api.storage.delete_device(caller.user, device_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check_token(token: &str) -> Result<(), Error> {
    if (1..=TOKEN_LIMIT).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let what = format!("must be 1 to {TOKEN_LIMIT} visible ASCII characters, as the push service gave it");
    Err(Error::field("push.value", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_token_is_visible_ascii_of_bounded_length() {
        for good in ["x", "cGp:APA91b_-~!", &"x".repeat(TOKEN_LIMIT)] {
            check_token(good).unwrap();
        }
        for bad in ["", "a b", "a\n", "\u{7f}", "ü", "a\0", &"x".repeat(TOKEN_LIMIT + 1)] {
            let error = check_token(bad).unwrap_err().to_string();
            assert!(bad.len() < 3 || !error.contains(bad), "{error}");
        }
    }

    #[test]
    fn a_device_is_registered_by_what_it_names_and_nothing_more() {
        let taken = |text: &str| serde_json::from_str::<DeviceBody>(text).is_ok();
        assert!(taken(r#"{"platform":"ios","push":{"kind":"fid","value":"x"}}"#));
        for bad in [
            r#"{"platform":"ios"}"#,
            r#"{"platform":"symbian","push":{"kind":"fid","value":"x"}}"#,
            r#"{"platform":"ios","push":{"kind":"apns","value":"x"}}"#,
            r#"{"platform":"ios","push":{"kind":"fid","value":"x","user_id":"y"}}"#,
            r#"{"platform":"ios","push":{"kind":"fid","value":"x"},"user_id":"y"}"#,
            r#"{"platform":"ios","push":{"kind":"fid","value":"x"},"last_seen_at":"y"}"#,
        ] {
            assert!(!taken(bad), "{bad}");
        }
    }
}

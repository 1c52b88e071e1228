//! Log-ins: log in, refresh, log out. In REST a log-in is called a session, as everywhere on the web; here that word
//! belongs to sockets.

use crate::{
    Api,
    auth::Caller,
    client_address::ClientAddress,
    clock,
    error::{Error, Problem},
    extract::Json,
    users::{self, User},
};
use axum::{extract::State, response::IntoResponse};
use http::{HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use touchline_auth::{AuthError, RefreshToken};
use touchline_ids::UserId;
use touchline_storage::Rotation;
use utoipa::ToSchema;
use uuid::Uuid;

/// RFC 6749, section 5.1: no cache keeps an answer that holds tokens.
pub(crate) const NOT_TO_BE_STORED: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

// No Debug on what holds passwords or tokens.
/// What signing up, logging in and refreshing give.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoginAnswer {
    user: User,
    /// For the header `Authorization: Bearer …`.
    access_token: String,
    /// Good for one refresh; the answer brings the next. Using it twice ends the log-in.
    refresh_token: String,
    /// Seconds the access token lives.
    expires_in: u64,
}

/// Who wants in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogInBody {
    handle: String,
    password: String,
}

/// Log in.
#[utoipa::path(post, path = "/v1/sessions", tag = "people", request_body = LogInBody,
    responses((status = 201, body = LoginAnswer), (status = 400, body = Problem),
        (status = 401, description = "Wrong handle or password", body = Problem), (status = 429, body = Problem),
        (status = 503, body = Problem)))]
pub(crate) async fn log_in(
    State(api): State<Arc<Api>>,
    address: ClientAddress,
    Json(body): Json<LogInBody>,
) -> Result<impl IntoResponse, Error> {
    let handle = users::read_handle(&body.handle)?;
    api.limits.check_log_in(&handle, address)?;
    let (user, hash) = match api.storage.find_credentials(&handle).await? {
        Some((user, hash)) => (Some(user), hash),
        None => (None, None),
    };
    // Also when there is no such user, so that the time it takes tells nothing.
    let right = api.passwords.verify(body.password, hash).await.map_err(password_error)?;
    let Some(user) = user.filter(|_| right) else {
        // Without the handle: people type passwords into the wrong field.
        tracing::warn!(client.address = %address.0, "log-in refused");
        return Err(Error::WrongCredentials);
    };
    let answer = begin(&api, user).await?;
    Ok((StatusCode::CREATED, NOT_TO_BE_STORED, axum::Json(answer)))
}

/// A refresh token to trade.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshBody {
    /// The newest one of the log-in.
    refresh_token: String,
}

/// Trade a refresh token for new tokens.
#[utoipa::path(post, path = "/v1/sessions/refresh", tag = "people", request_body = RefreshBody,
    responses((status = 200, body = LoginAnswer), (status = 400, body = Problem),
        (status = 401, description = "Unknown, expired, or used before: log in again", body = Problem),
        (status = 429, body = Problem)))]
pub(crate) async fn refresh(
    State(api): State<Arc<Api>>,
    address: ClientAddress,
    Json(body): Json<RefreshBody>,
) -> Result<impl IntoResponse, Error> {
    api.limits.check_refresh(address)?;
    let old = RefreshToken::parse(&body.refresh_token).ok_or(Error::InvalidRefreshToken)?;
    let new = RefreshToken::generate().map_err(signing_error)?;
    let now_ms = clock::now_ms();
    match api.storage.rotate_refresh_token(old.hash(), new.hash(), now_ms, expires_at_ms(&api, now_ms)).await? {
        Rotation::Rotated { user, login } => {
            Ok((StatusCode::OK, NOT_TO_BE_STORED, axum::Json(answer(&api, user, login, new)?)))
        }
        Rotation::Reused { user, login } => {
            tracing::warn!(user.id = %user, login.id = %login, client.address = %address.0,
                "a used refresh token came back: its log-in is revoked");
            Err(Error::InvalidRefreshToken)
        }
        Rotation::Unknown => {
            tracing::warn!(client.address = %address.0, "refresh token refused");
            Err(Error::InvalidRefreshToken)
        }
    }
}

/// Log out: the refresh tokens of this log-in are void. The access token lives on until it expires.
#[utoipa::path(delete, path = "/v1/sessions/current", tag = "people", security(("bearer" = [])),
    responses((status = 204), (status = 401, body = Problem),
        (status = 403, description = "The token is of an outside identity provider", body = Problem)))]
pub(crate) async fn log_out(State(api): State<Arc<Api>>, caller: Caller) -> Result<StatusCode, Error> {
    let login = caller.login.ok_or(Error::Forbidden("this token is your identity provider's: log out there"))?;
    api.storage.revoke_login(login).await?;
    tracing::info!(user.id = %caller.user, login.id = %login, "logged out");
    Ok(StatusCode::NO_CONTENT)
}

/// Begins a log-in of `user`.
pub(crate) async fn begin(api: &Api, user: touchline_storage::User) -> Result<LoginAnswer, Error> {
    let token = RefreshToken::generate().map_err(signing_error)?;
    let (login, now_ms) = (Uuid::now_v7(), clock::now_ms());
    api.storage.create_login(login, user.id, token.hash(), now_ms, expires_at_ms(api, now_ms)).await?;
    tracing::info!(user.id = %user.id, login.id = %login, "logged in");
    answer(api, user, login, token)
}

fn answer(
    api: &Api,
    user: touchline_storage::User,
    login: Uuid,
    refresh_token: RefreshToken,
) -> Result<LoginAnswer, Error> {
    let access_token = access_token(api, user.id, login)?;
    let expires_in = api.access.lifetime().as_secs();
    Ok(LoginAnswer { user: user.into(), access_token, refresh_token: refresh_token.into_text(), expires_in })
}

fn access_token(api: &Api, user: UserId, login: Uuid) -> Result<String, Error> {
    api.access.issue(user, login).map_err(signing_error)
}

fn expires_at_ms(api: &Api, now_ms: i64) -> i64 {
    now_ms.saturating_add(i64::try_from(api.refresh_life.as_millis()).unwrap_or(i64::MAX))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn signing_error(error: AuthError) -> Error {
    Error::Internal(format!("cannot make a token: {error}"))
}

/// What a failed hash or check is to a client.
pub(crate) fn password_error(error: AuthError) -> Error {
    match error {
        AuthError::Busy => Error::Unavailable { what: "too many people are logging in" },
        AuthError::PasswordLength => Error::field("password", error.to_string()),
        error => Error::Internal(format!("cannot work on a password: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_take_what_they_name_and_nothing_more() {
        assert!(serde_json::from_str::<LogInBody>(r#"{"handle":"ann","password":"x"}"#).is_ok());
        for bad in [r#"{"handle":"ann"}"#, r#"{"handle":"ann","password":"x","user_id":"1"}"#, "[]", "null"] {
            assert!(serde_json::from_str::<LogInBody>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<RefreshBody>(r#"{"refresh_token":"x","login":"y"}"#).is_err());
    }

    #[test]
    fn a_full_queue_says_come_back_and_a_short_password_says_why() {
        assert_eq!(password_error(AuthError::Busy).code().0, "unavailable");
        assert_eq!(password_error(AuthError::PasswordLength).code().0, "invalid_field");
    }
}

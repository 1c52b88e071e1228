//! People: sign up, find, who am I.

use crate::{
    Api,
    auth::Caller,
    client_address::ClientAddress,
    clock,
    error::{Error, Problem},
    extract::{Json, Query},
    logins::{self, LoginAnswer},
    name,
};
use axum::{extract::State, response::IntoResponse};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use touchline_auth::PASSWORD_LENGTH;
use touchline_ids::UserId;
use touchline_storage::{CreateUser, NewUser};
use utoipa::{IntoParams, ToSchema};

/// Shortest handle, in characters.
const HANDLE_LENGTH_MIN: usize = 3;
/// Longest handle, in characters.
pub(crate) const HANDLE_LENGTH_MAX: usize = 32;
/// Longest display name, in characters.
pub(crate) const DISPLAY_NAME_LIMIT: usize = 64;

/// A person.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct User {
    id: UserId,
    /// The unique name others find them by.
    handle: String,
    /// How they are shown.
    display_name: String,
}

impl From<touchline_storage::User> for User {
    fn from(user: touchline_storage::User) -> Self {
        Self { id: user.id, handle: user.handle, display_name: user.display_name }
    }
}

// No Debug: it holds a password.
/// Somebody who wants to be a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignUpBody {
    /// 3 to 32 characters out of a-z 0-9 _ . -; upper case is taken as lower case. Unique.
    handle: String,
    /// 8 to 256 characters.
    password: String,
    /// 1 to 64 characters; the handle when absent.
    #[serde(default)]
    display_name: Option<String>,
}

/// Sign up, and be logged in.
#[utoipa::path(post, path = "/v1/users", tag = "people", request_body = SignUpBody,
    responses((status = 201, body = LoginAnswer), (status = 400, body = Problem),
        (status = 409, description = "The handle is taken", body = Problem), (status = 429, body = Problem),
        (status = 503, body = Problem)))]
pub(crate) async fn sign_up(
    State(api): State<Arc<Api>>,
    address: ClientAddress,
    Json(body): Json<SignUpBody>,
) -> Result<impl IntoResponse, Error> {
    api.limits.check_sign_up(address)?;
    let handle = read_handle(&body.handle)?;
    let display_name = match &body.display_name {
        Some(text) => name::read("display_name", text, DISPLAY_NAME_LIMIT)?,
        None => handle.clone(),
    };
    check_password(&body.password)?;
    // Only saves the hashing; the unique key decides.
    if api.storage.find_user_by_handle(&handle).await?.is_some() {
        return Err(Error::HandleTaken);
    }
    let password_hash = Some(api.passwords.hash(body.password).await.map_err(logins::password_error)?);
    let created_at_ms = clock::now_ms();
    let user = NewUser { id: UserId::new(), handle, display_name, password_hash, external: None, created_at_ms };
    let user = match api.storage.create_user(user).await? {
        CreateUser::Created(user) => user,
        CreateUser::HandleTaken | CreateUser::ExternalExists(_) => return Err(Error::HandleTaken),
    };
    tracing::info!(user.id = %user.id, "signed up");
    match logins::begin(&api, user).await {
        // The user exists by now.
        Err(error) => Err(error.after_a_commit()),
        Ok(answer) => Ok((StatusCode::CREATED, logins::NOT_TO_BE_STORED, axum::Json(answer))),
    }
}

/// Which user.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ByHandle {
    /// The exact handle.
    handle: String,
}

/// Find a user by exact handle.
#[utoipa::path(get, path = "/v1/users", tag = "people", params(ByHandle), security(("bearer" = [])),
    responses((status = 200, body = User), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn find(
    State(api): State<Arc<Api>>,
    _: Caller,
    Query(query): Query<ByHandle>,
) -> Result<axum::Json<User>, Error> {
    let handle = read_handle(&query.handle).map_err(|error| Error::InvalidQuery(error.to_string()))?;
    let user = api.storage.find_user_by_handle(&handle).await?.ok_or(Error::NoSuchUser)?;
    Ok(axum::Json(user.into()))
}

/// Who am I.
#[utoipa::path(get, path = "/v1/me", tag = "people", security(("bearer" = [])),
    responses((status = 200, body = User), (status = 401, body = Problem)))]
pub(crate) async fn me(State(api): State<Arc<Api>>, caller: Caller) -> Result<axum::Json<User>, Error> {
    let user = api.storage.find_user(caller.user).await?;
    Ok(axum::Json(user.ok_or(Error::NO_SUCH_CALLER)?.into()))
}

/// A handle in its one spelling.
///
/// # Errors
/// [`Error::InvalidField`].
pub(crate) fn read_handle(text: &str) -> Result<String, Error> {
    let handle = text.to_ascii_lowercase();
    if !(HANDLE_LENGTH_MIN..=HANDLE_LENGTH_MAX).contains(&handle.len()) || !handle.chars().all(in_handle) {
        return Err(Error::field("handle", "must be 3 to 32 characters out of a-z 0-9 _ . -"));
    }
    Ok(handle)
}

/// Whether a handle may have this character.
pub(crate) fn in_handle(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9' | '_' | '.' | '-')
}

/// Refuses a password of the wrong length before anything costs.
fn check_password(password: &str) -> Result<(), Error> {
    if PASSWORD_LENGTH.contains(&password.chars().count()) {
        return Ok(());
    }
    let (shortest, longest) = (PASSWORD_LENGTH.start(), PASSWORD_LENGTH.end());
    Err(Error::field("password", format!("must be {shortest} to {longest} characters")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_has_one_spelling() {
        for (text, handle) in [("ann", "ann"), ("Ann_B.C-9", "ann_b.c-9"), (&"X".repeat(32), &"x".repeat(32))] {
            assert_eq!(read_handle(text).unwrap(), handle);
        }
        let long = "x".repeat(33);
        for bad in ["", "ab", "a b", " ann", "änn", "ann\n", "ann\0", "a/b", "K\u{212a}elvin", "a\u{202e}nn", &long] {
            assert!(matches!(read_handle(bad), Err(Error::InvalidField { field: "handle", .. })), "{bad:?}");
        }
    }

    #[test]
    fn passwords_are_counted_in_characters() {
        for good in ["12345678", &"é".repeat(256)] {
            check_password(good).unwrap();
        }
        for bad in ["", "1234567", &"x".repeat(257)] {
            assert!(matches!(check_password(bad), Err(Error::InvalidField { field: "password", .. })));
        }
    }

    #[test]
    fn a_sign_up_names_nothing_that_is_ours_to_name() {
        let taken = |text: &str| serde_json::from_str::<SignUpBody>(text).is_ok();
        assert!(taken(r#"{"handle":"ann","password":"12345678"}"#));
        assert!(taken(r#"{"handle":"ann","password":"12345678","display_name":null}"#));
        for extra in ["id", "created_at", "external", "password_hash", "role"] {
            assert!(!taken(&format!(r#"{{"handle":"ann","password":"12345678","{extra}":"x"}}"#)), "{extra}");
        }
        assert!(!taken(r#"{"handle":"ann"}"#));
        assert!(!taken(r#"{"handle":"ann","password":12345678}"#));
    }
}

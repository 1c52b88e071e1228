//! Who asks: the bearer token of a request, ours or an outside identity provider's.

use crate::{
    Api,
    client_address::ClientAddress,
    clock,
    error::Error,
    name,
    users::{self, DISPLAY_NAME_LIMIT},
};
use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};
use moka::future::Cache;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use touchline_auth::{AuthError, ExternalIdentity, Refusal};
use touchline_ids::UserId;
use touchline_storage::{CreateUser, External, NewUser};
use uuid::Uuid;

const NO_TOKEN: &str = "send an access token in the header: authorization: Bearer <access token>";
pub const EXPIRED: &str = "the access token has expired: refresh it";
const REFUSED: &str = "the access token is not valid: log in again";

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// The user.
    pub(crate) user: UserId,
    /// The log-in family of our own token; none with an outside provider's.
    pub(crate) login: Option<Uuid>,
    /// When the token ends.
    pub(crate) token_expires: SystemTime,
}

impl Caller {
    #[cfg(test)]
    pub(crate) fn for_test(user: UserId) -> Self {
        Self { user, login: None, token_expires: SystemTime::now() }
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Error> {
        let token = bearer(&parts.headers).ok_or(Error::Unauthenticated(NO_TOKEN))?;
        let caller = match identify(api, token).await {
            Ok(caller) => caller?,
            Err(error) => {
                let address = ClientAddress::from_request_parts(parts, api).await?;
                return Err(refuse(&error, address));
            }
        };
        api.limits.check_request(caller.user)?;
        Ok(caller)
    }
}

/// The outer error is the token's, the inner one ours.
async fn identify(api: &Api, token: &str) -> Result<Result<Caller, Error>, AuthError> {
    if api.identities.claims_to_issue(token) {
        let identity = api.identities.verify(token).await?;
        let token_expires = identity.expires;
        let user = api.outside_users.find_or_create(api, identity).await;
        return Ok(user.map(|user| Caller { user, login: None, token_expires }));
    }
    let access = api.access.verify(token).await?;
    Ok(Ok(Caller { user: access.user, login: Some(access.login), token_expires: access.expires }))
}

/// Logs a refused token once, here, and tells the client no more than what helps an honest one.
fn refuse(error: &AuthError, address: ClientAddress) -> Error {
    match error.refusal() {
        // Everybody's token expires; that is no event.
        Some(Refusal::Expired) => Error::Unauthenticated(EXPIRED),
        Some(refusal) => {
            tracing::warn!(auth.refusal = %refusal, client.address = %address.0, "access token refused");
            Error::Unauthenticated(REFUSED)
        }
        None => Error::Internal(format!("cannot verify a token: {error}")),
    }
}

/// The token of the one `Authorization: Bearer` header (RFC 6750).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (scheme, token) = line.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The users that outside providers' subjects are. One never changes, so it is remembered.
pub(crate) struct OutsideUsers {
    known: Cache<(String, String), UserId>,
}

impl Default for OutsideUsers {
    fn default() -> Self {
        let known = Cache::builder().max_capacity(100_000).time_to_live(Duration::from_secs(600)).build();
        Self { known }
    }
}

impl OutsideUsers {
    /// The user this person is; made on first sight.
    async fn find_or_create(&self, api: &Api, identity: ExternalIdentity) -> Result<UserId, Error> {
        let key = (identity.issuer.clone(), identity.subject.clone());
        if let Some(user) = self.known.get(&key).await {
            return Ok(user);
        }
        let user = match api.storage.find_external_user(&identity.issuer, &identity.subject).await? {
            Some(user) => user.id,
            None => create(api, identity).await?,
        };
        self.known.insert(key, user).await;
        Ok(user)
    }
}

/// Makes the user of an outside person. Two requests at once make one: the second finds the first one's.
async fn create(api: &Api, identity: ExternalIdentity) -> Result<UserId, Error> {
    let wanted = wanted_handle(identity.handle_hint.as_deref());
    let external = External { issuer: identity.issuer, subject: identity.subject };
    // Longer and longer tails until nobody has it: the last is unique for all practical purposes.
    for tail in [0, 4, 6, 8, 12] {
        let handle = with_tail(&wanted, tail);
        let user = NewUser {
            id: UserId::new(),
            display_name: shown_name(identity.name.as_deref(), &handle),
            handle,
            password_hash: None,
            external: Some(external.clone()),
            created_at_ms: clock::now_ms(),
        };
        match api.storage.create_user(user).await? {
            CreateUser::Created(user) => {
                tracing::info!(user.id = %user.id, auth.issuer = external.issuer, "a person of an outside provider is a user now");
                return Ok(user.id);
            }
            CreateUser::ExternalExists(user) => return Ok(user.id),
            CreateUser::HandleTaken => {}
        }
    }
    Err(Error::Internal("no free handle for an outside person".to_owned()))
}

/// What the provider's hint becomes as a handle; an address of mail gives what stands before the @.
fn wanted_handle(hint: Option<&str>) -> String {
    let hint = hint.unwrap_or_default();
    let name = hint.split('@').next().unwrap_or_default().to_lowercase();
    let legal: String = name.chars().filter(|c| users::in_handle(*c)).take(users::HANDLE_LENGTH_MAX).collect();
    users::read_handle(&legal).unwrap_or_else(|_| "user".to_owned())
}

/// `handle` with `tail` random characters, within the length of a handle.
fn with_tail(handle: &str, tail: usize) -> String {
    if tail == 0 {
        return handle.to_owned();
    }
    let random = Uuid::new_v4().simple().to_string();
    let kept = handle.len().min(users::HANDLE_LENGTH_MAX - 1 - tail);
    // Handles are ASCII: every byte is a character.
    format!("{}-{}", &handle[..kept], &random[..tail])
}

fn shown_name(hint: Option<&str>, handle: &str) -> String {
    let short: String = hint.unwrap_or_default().trim().chars().take(DISPLAY_NAME_LIMIT).collect();
    name::read("name", &short, DISPLAY_NAME_LIMIT).unwrap_or_else(|_| handle.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    #[test]
    fn one_bearer_token_is_taken() {
        for good in ["Bearer abc", "bearer abc", "BEARER abc", "Bearer  abc "] {
            assert_eq!(bearer(&headers(&[good])), Some("abc"), "{good:?}");
        }
        let bad: [&[&str]; 7] =
            [&[], &["abc"], &["Bearer"], &["Bearer "], &["Basic abc"], &["Bearerabc"], &["Bearer a", "Bearer b"]];
        for bad in bad {
            assert_eq!(bearer(&headers(bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn a_hint_becomes_a_handle() {
        let table = [
            (Some("Ann"), "ann"),
            (Some("ann@example.com"), "ann"),
            (Some("Ann Müller-Lüdenscheidt"), "annmller-ldenscheidt"),
            (Some("ab"), "user"),
            (Some("名前"), "user"),
            (Some("@x"), "user"),
            (Some(""), "user"),
            (None, "user"),
        ];
        for (hint, expected) in table {
            assert_eq!(wanted_handle(hint), expected, "{hint:?}");
        }
        assert_eq!(wanted_handle(Some(&"x".repeat(300))).len(), users::HANDLE_LENGTH_MAX);
    }

    #[test]
    fn a_taken_handle_gets_a_tail_and_stays_one() {
        assert_eq!(with_tail("ann", 0), "ann");
        for tail in [4, 6, 8, 12] {
            for wanted in ["ann", &"x".repeat(users::HANDLE_LENGTH_MAX)] {
                let handle = with_tail(wanted, tail);
                assert_eq!(users::read_handle(&handle).unwrap(), handle);
                assert_ne!(handle, with_tail(wanted, tail));
            }
        }
    }

    #[test]
    fn a_name_that_misleads_is_not_shown() {
        assert_eq!(shown_name(Some(" Ann A. "), "ann"), "Ann A.");
        assert_eq!(shown_name(Some(&"é".repeat(200)), "ann"), "é".repeat(DISPLAY_NAME_LIMIT));
        for hint in [None, Some(""), Some("  "), Some("a\u{202e}b"), Some("a\u{0}")] {
            assert_eq!(shown_name(hint, "ann"), "ann", "{hint:?}");
        }
    }

    #[test]
    fn an_honest_client_learns_what_to_do_and_nobody_why() {
        let text = |refusal: Refusal| refuse(&refusal.into(), ClientAddress([192, 0, 2, 1].into())).to_string();
        assert_eq!(text(Refusal::Expired), EXPIRED);
        for refusal in [Refusal::Signature, Refusal::UnknownKey, Refusal::Type, Refusal::Malformed, Refusal::NotYet] {
            assert_eq!(text(refusal), REFUSED);
        }
    }
}

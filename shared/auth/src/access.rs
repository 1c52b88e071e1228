//! Access tokens: what a client shows with every REST request, for a quarter of an hour.

use crate::{
    AuthError, KeySet, SigningKey,
    token::{Expected, from_unix_seconds, unix_seconds, verify},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use touchline_ids::UserId;
use uuid::Uuid;

/// RFC 9068.
pub(crate) const ACCESS_TYPE: &str = "at+jwt";
const AUDIENCE: &str = "touchline";
/// As far as clocks of honest machines are apart on a bad day; a quarter of an hour has room for it.
const LEEWAY: Duration = Duration::from_secs(60);

/// Issues and verifies our own access tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessTokens {
    key: Arc<SigningKey>,
    keys: KeySet,
    issuer: Arc<str>,
    lifetime: Duration,
}

/// Whom an access token speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The user.
    pub user: UserId,
    /// The log-in (refresh token family) it was issued under.
    pub login: Uuid,
    /// When it ends.
    pub expires: SystemTime,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: UserId,
    sid: Uuid,
    iat: i64,
    nbf: i64,
    exp: i64,
}

impl AccessTokens {
    /// Signs by `key` and verifies by `keys`.
    ///
    /// # Errors
    /// [`AuthError::NotPublished`] when `keys` lacks the public half of `key`: nobody would accept its tokens.
    pub fn new(key: Arc<SigningKey>, keys: KeySet, issuer: &str, lifetime: Duration) -> Result<Self, AuthError> {
        if !keys.has(key.kid()) {
            return Err(AuthError::NotPublished { kid: key.kid().to_owned() });
        }
        Ok(Self { key, keys, issuer: issuer.into(), lifetime })
    }

    /// A token for `user` under the log-in `login`, valid from now.
    ///
    /// # Errors
    /// [`AuthError::Sign`].
    pub fn issue(&self, user: UserId, login: Uuid) -> Result<String, AuthError> {
        self.issue_at(user, login, SystemTime::now())
    }

    pub(crate) fn issue_at(&self, user: UserId, login: Uuid, now: SystemTime) -> Result<String, AuthError> {
        let (iat, exp) = (unix_seconds(now), unix_seconds(now + self.lifetime));
        let claims =
            Claims { iss: self.issuer.to_string(), aud: AUDIENCE.into(), sub: user, sid: login, iat, nbf: iat, exp };
        self.key.sign(ACCESS_TYPE, &claims)
    }

    /// Whom this token speaks for.
    ///
    /// # Errors
    /// [`AuthError::Refused`] with the reason.
    pub async fn verify(&self, token: &str) -> Result<Access, AuthError> {
        let expected = Expected {
            types: &[ACCESS_TYPE],
            untyped: false,
            issuer: &self.issuer,
            audience: AUDIENCE,
            not_before: true,
            leeway: LEEWAY,
        };
        let claims: Claims = verify(token, &self.keys, &expected).await?;
        Ok(Access { user: claims.sub, login: claims.sid, expires: from_unix_seconds(claims.exp) })
    }

    /// Re-reads the public keys each minute until dropped.
    pub async fn refresh_forever(self) {
        self.keys.refresh_forever().await;
    }

    /// How long a token lives.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Refusal, test_keys::ours};

    #[tokio::test]
    async fn a_token_says_who_and_until_when() {
        let (key, keys) = ours();
        let tokens = AccessTokens::new(key, keys, "here", Duration::from_secs(900)).unwrap();
        let (user, login) = (UserId::new(), Uuid::now_v7());
        let now = SystemTime::now();
        let access = tokens.verify(&tokens.issue_at(user, login, now).unwrap()).await.unwrap();
        assert_eq!((access.user, access.login), (user, login));
        assert_eq!(unix_seconds(access.expires), unix_seconds(now + tokens.lifetime()));
    }

    #[tokio::test]
    async fn a_token_ends_and_is_good_for_its_issuer_only() {
        let (key, keys) = ours();
        let here = AccessTokens::new(Arc::clone(&key), keys.clone(), "here", Duration::from_secs(10)).unwrap();
        let there = AccessTokens::new(key, keys, "there", Duration::from_secs(10)).unwrap();
        let old = here.issue_at(UserId::new(), Uuid::now_v7(), SystemTime::now() - Duration::from_secs(120)).unwrap();
        assert_eq!(here.verify(&old).await.unwrap_err().refusal(), Some(Refusal::Expired));
        let new = here.issue(UserId::new(), Uuid::now_v7()).unwrap();
        assert_eq!(there.verify(&new).await.unwrap_err().refusal(), Some(Refusal::Issuer));
    }

    #[tokio::test]
    async fn a_refusal_never_repeats_the_token() {
        let (key, keys) = ours();
        let tokens = AccessTokens::new(key, keys, "here", Duration::from_secs(10)).unwrap();
        let token = tokens.issue(UserId::new(), Uuid::now_v7()).unwrap();
        let (_, tail) = token.split_at(token.len() - 20);
        let error = tokens.verify(&token.replace(tail, "")).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(token.split('.').all(|part| !shown.contains(part)), "{shown}");
    }
}

//! Outside identity providers: tokens we accept though somebody else signed them.

use crate::{
    AuthError, IdentityProvider, KeySet, KeySource, Refusal,
    key_set::REFRESH_EVERY,
    token::{Expected, from_unix_seconds, unverified_issuer, verify},
};
use serde::Deserialize;
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::time::MissedTickBehavior;

/// What providers write as `typ`: RFC 9068 in both spellings, or the plain JWT most still send; some send none. Never
/// our ticket's: that is not in the list.
const TYPES: &[&str] = &["at+jwt", "application/at+jwt", "jwt"];
const LEEWAY: Duration = Duration::from_secs(60);
/// OpenID Connect Core, section 2 (bytes; the standard counts ASCII characters).
const MAX_SUBJECT: usize = 255;

/// Somebody an outside provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalIdentity {
    /// Who vouches.
    pub issuer: String,
    /// The provider's own, stable name of the person: 1 to 255 bytes, no character of them a control character.
    pub subject: String,
    /// What they would like to be called (`preferred_username`); anybody's text, to be cleaned and made unique.
    pub handle_hint: Option<String>,
    /// Their name for people to read (`name`); anybody's text, to be cleaned.
    pub name: Option<String>,
    /// When the token ends.
    pub expires: SystemTime,
}

/// The providers of the configuration. Clones share their keys.
#[derive(Clone, Debug, Default)]
pub struct IdentityProviders {
    providers: Arc<[Provider]>,
}

#[derive(Debug)]
struct Provider {
    issuer: String,
    audience: String,
    keys: KeySet,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    /// RFC 7519 allows fractions.
    exp: f64,
    // Values, because a strange name is no reason to refuse somebody.
    #[serde(default)]
    preferred_username: Value,
    #[serde(default)]
    name: Value,
}

impl IdentityProviders {
    /// Reads every provider's keys. One whose URL does not answer now does not keep us from starting: its tokens are
    /// refused until it does.
    ///
    /// # Errors
    /// [`AuthError::File`] or [`AuthError::KeySet`] for a file that cannot be used, or settings with problems.
    pub async fn open(settings: &[IdentityProvider]) -> Result<Self, AuthError> {
        Self::open_every(settings, REFRESH_EVERY).await
    }

    pub(crate) async fn open_every(settings: &[IdentityProvider], refresh_every: Duration) -> Result<Self, AuthError> {
        let mut providers = Vec::with_capacity(settings.len());
        for one in settings {
            let unusable = |what| AuthError::KeySet { from: one.issuer.clone(), what };
            let allowed = one.allowed().map_err(unusable)?;
            let source = one.source().map_err(unusable)?;
            let may_wait = matches!(source, KeySource::Url(_));
            let keys = KeySet::new(source, allowed, refresh_every)?;
            if may_wait {
                keys.refresh_or_log().await;
            } else {
                keys.refresh().await?;
            }
            providers.push(Provider { issuer: one.issuer.clone(), audience: one.audience.clone(), keys });
        }
        Ok(Self { providers: providers.into() })
    }

    /// Whether the token says that one of these providers issued it. Says nothing about whether that is true.
    pub fn claims_to_issue(&self, token: &str) -> bool {
        self.issuer_of(token).is_some()
    }

    /// Whom the token speaks for.
    ///
    /// # Errors
    /// [`AuthError::Refused`] with the reason; [`Refusal::Issuer`] when it is from none of these providers.
    pub async fn verify(&self, token: &str) -> Result<ExternalIdentity, AuthError> {
        let provider = self.issuer_of(token).ok_or(Refusal::Issuer)?;
        let expected = Expected {
            types: TYPES,
            untyped: true,
            issuer: &provider.issuer,
            audience: &provider.audience,
            not_before: false,
            leeway: LEEWAY,
        };
        let claims: Claims = verify(token, &provider.keys, &expected).await?;
        if !(1..=MAX_SUBJECT).contains(&claims.sub.len()) || claims.sub.chars().any(char::is_control) {
            return Err(Refusal::Claims.into());
        }
        #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and years out of range are clamped after")]
        let expires = from_unix_seconds(claims.exp as i64);
        Ok(ExternalIdentity {
            issuer: claims.iss,
            subject: claims.sub,
            handle_hint: text(claims.preferred_username),
            name: text(claims.name),
            expires,
        })
    }

    /// Re-reads every provider's keys each minute until dropped.
    pub async fn refresh_forever(self) {
        let mut turn = tokio::time::interval(REFRESH_EVERY);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        turn.tick().await;
        loop {
            turn.tick().await;
            for provider in &*self.providers {
                provider.keys.refresh_or_log().await;
            }
        }
    }

    fn issuer_of(&self, token: &str) -> Option<&Provider> {
        if self.providers.is_empty() {
            return None;
        }
        let issuer = unverified_issuer(token)?;
        self.providers.iter().find(|provider| provider.issuer == issuer)
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

//! The public half: the keys that verify tokens, by id, re-read while the process runs so that keys come and go
//! without a restart.
//!
//! To rotate: publish the new key beside the old one, wait two minutes, sign by the new one, and when the longest
//! token life is over take the old one away. Nobody is refused at any moment.

use crate::{
    AuthError,
    jwk::{self, PublicKey},
};
use jsonwebtoken::Algorithm;
use serde_json::Value;
use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{Instant, MissedTickBehavior},
};

/// How often a set is re-read, and at most how often an unknown id makes us re-read it.
pub(crate) const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// How long a key set's server may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A hundred RSA keys fit into a quarter of this (bytes).
const MAX_BYTES: usize = 256 * 1024;
/// Longer ids are nobody's (bytes).
const MAX_KID: usize = 256;

/// Where a key set comes from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A JWKS file.
    File(PathBuf),
    /// A JWKS document behind an http(s) URL; redirects are not followed.
    Url(String),
}

/// Public keys of one algorithm family by id. Clones share them.
#[derive(Clone)]
pub struct KeySet {
    shared: Arc<Shared>,
}

struct Shared {
    origin: Origin,
    allowed: Vec<Algorithm>,
    keys: RwLock<HashMap<String, Arc<PublicKey>>>,
    refresh_every: Duration,
    /// When an unknown id last made us re-read. Held during the re-reading: whoever comes meanwhile waits for its end.
    asked: Mutex<Option<Instant>>,
}

enum Origin {
    Fixed,
    File(PathBuf),
    Url { url: String, client: reqwest::Client },
}

impl KeySet {
    /// Our own keys (Ed25519) from a JWKS file.
    ///
    /// # Errors
    /// [`AuthError::File`] or [`AuthError::KeySet`] when it cannot be read or has no usable key.
    pub async fn from_file(path: impl Into<PathBuf>) -> Result<Self, AuthError> {
        let set = Self::new(KeySource::File(path.into()), vec![Algorithm::EdDSA], REFRESH_EVERY)?;
        set.refresh().await?;
        Ok(set)
    }

    /// Our own keys (Ed25519) from a URL.
    ///
    /// # Errors
    /// [`AuthError::Fetch`] or [`AuthError::KeySet`] when it cannot be fetched or has no usable key.
    pub async fn from_url(url: impl Into<String>) -> Result<Self, AuthError> {
        let set = Self::new(KeySource::Url(url.into()), vec![Algorithm::EdDSA], REFRESH_EVERY)?;
        set.refresh().await?;
        Ok(set)
    }

    /// Our own keys (Ed25519) from a JWKS document at hand; never re-read.
    ///
    /// # Errors
    /// [`AuthError::KeySet`] when it has no usable key.
    pub fn from_jwks(jwks: &Value) -> Result<Self, AuthError> {
        let set = Self::with_origin(Origin::Fixed, vec![Algorithm::EdDSA], REFRESH_EVERY);
        set.replace(jwks)?;
        Ok(set)
    }

    /// A set that is still empty, for the `allowed` algorithms, which must be of one family.
    pub(crate) fn new(source: KeySource, allowed: Vec<Algorithm>, refresh_every: Duration) -> Result<Self, AuthError> {
        let origin = match source {
            KeySource::File(path) => Origin::File(path),
            KeySource::Url(url) => {
                let client = reqwest::Client::builder()
                    .timeout(FETCH_TIMEOUT)
                    .redirect(reqwest::redirect::Policy::none())
                    .build()
                    .map_err(|source| AuthError::Fetch { url: url.clone(), source })?;
                Origin::Url { url, client }
            }
        };
        Ok(Self::with_origin(origin, allowed, refresh_every))
    }

    fn with_origin(origin: Origin, allowed: Vec<Algorithm>, refresh_every: Duration) -> Self {
        debug_assert!(allowed.windows(2).all(|pair| pair[0].family() == pair[1].family()));
        let keys = RwLock::default();
        Self { shared: Arc::new(Shared { origin, allowed, keys, refresh_every, asked: Mutex::default() }) }
    }

    /// Whether a key of this id is in the set now.
    pub fn has(&self, kid: &str) -> bool {
        self.known(kid).is_some()
    }

    /// Re-reads the set now. The keys it had stay when that fails.
    ///
    /// # Errors
    /// [`AuthError::File`], [`AuthError::Fetch`] or [`AuthError::KeySet`].
    pub async fn refresh(&self) -> Result<(), AuthError> {
        let bytes = match &self.shared.origin {
            Origin::Fixed => return Ok(()),
            Origin::File(path) => {
                tokio::fs::read(path).await.map_err(|source| AuthError::File { path: path.clone(), source })?
            }
            Origin::Url { url, client } => self.fetch(url, client).await?,
        };
        let jwks = serde_json::from_slice(&bytes).map_err(|_| self.unusable("not JSON"))?;
        self.replace(&jwks)
    }

    /// Re-reads the set every minute until dropped; a failure is logged and leaves the keys as they are.
    pub async fn refresh_forever(self) {
        let mut turn = tokio::time::interval(self.shared.refresh_every);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and the set has just been read.
        turn.tick().await;
        loop {
            turn.tick().await;
            self.refresh_or_log().await;
        }
    }

    pub(crate) async fn refresh_or_log(&self) {
        if let Err(error) = self.refresh().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "key set kept as it was: it could not be re-read");
        }
    }

    /// Whether any key of this set may verify this algorithm.
    pub(crate) fn allows(&self, algorithm: Algorithm) -> bool {
        self.shared.allowed.contains(&algorithm)
    }

    /// The key of this id; an unknown one makes us re-read the set, at most once a minute and once at a time.
    pub(crate) async fn find(&self, kid: &str) -> Option<Arc<PublicKey>> {
        let known = self.known(kid);
        if known.is_some() || matches!(self.shared.origin, Origin::Fixed) || kid.len() > MAX_KID {
            return known;
        }
        let mut asked = self.shared.asked.lock().await;
        if let Some(key) = self.known(kid) {
            return Some(key);
        }
        if asked.is_some_and(|at| at.elapsed() < self.shared.refresh_every) {
            return None;
        }
        *asked = Some(Instant::now());
        self.refresh_or_log().await;
        self.known(kid)
    }

    fn known(&self, kid: &str) -> Option<Arc<PublicKey>> {
        self.shared.keys.read().unwrap_or_else(PoisonError::into_inner).get(kid).cloned()
    }

    fn replace(&self, jwks: &Value) -> Result<(), AuthError> {
        let keys = jwk::parse(jwks, &self.shared.allowed).map_err(|what| self.unusable(&what))?;
        let keys = keys.into_iter().map(|(kid, key)| (kid, Arc::new(key))).collect();
        *self.shared.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    async fn fetch(&self, url: &str, client: &reqwest::Client) -> Result<Vec<u8>, AuthError> {
        let failed = |error: reqwest::Error| AuthError::Fetch { url: url.to_owned(), source: error.without_url() };
        let mut answer = client.get(url).send().await.and_then(|a| a.error_for_status()).map_err(failed)?;
        if !answer.status().is_success() {
            return Err(self.unusable(&format!("the server answered {}", answer.status())));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > MAX_BYTES {
                return Err(self.unusable("longer than 256 KiB"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn unusable(&self, what: &str) -> AuthError {
        AuthError::KeySet { from: self.shared.origin.to_string(), what: what.to_owned() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed => f.write_str("(given)"),
            Self::File(path) => path.display().fmt(f),
            Self::Url { url, .. } => f.write_str(url),
        }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.shared.keys.read().unwrap_or_else(PoisonError::into_inner);
        write!(f, "KeySet({}, {:?})", self.shared.origin, keys.keys().collect::<Vec<_>>())
    }
}

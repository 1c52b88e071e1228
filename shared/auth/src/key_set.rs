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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AccessTokens, Refusal, SigningKey,
        test_keys::{Folder, KeyServer, jwks, write_jwks},
    };
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use touchline_ids::UserId;
    use uuid::Uuid;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key() -> Arc<SigningKey> {
        Arc::new(SigningKey::generate().unwrap().0)
    }

    fn open(source: KeySource, refresh_every: Duration) -> KeySet {
        KeySet::new(source, vec![Algorithm::EdDSA], refresh_every).unwrap()
    }

    /// Tokens signed by `key` even though no set holds it yet.
    fn token_by(key: &Arc<SigningKey>) -> String {
        let all = KeySet::from_jwks(&jwks(&[key.public_jwk()])).unwrap();
        let tokens = AccessTokens::new(Arc::clone(key), all, "touchline", HOUR).unwrap();
        tokens.issue(UserId::new(), Uuid::now_v7()).unwrap()
    }

    fn verifier(key: &Arc<SigningKey>, set: &KeySet) -> AccessTokens {
        AccessTokens::new(Arc::clone(key), set.clone(), "touchline", HOUR).unwrap()
    }

    #[tokio::test]
    async fn a_flood_of_unknown_ids_is_one_fetch() {
        let good = key();
        let server = KeyServer::start(Some(jwks(&[good.public_jwk()]))).await;
        let set = open(KeySource::Url(server.url.clone()), HOUR);
        set.refresh().await.unwrap();
        let flood: Vec<_> = (0..500)
            .map(|n| {
                let set = set.clone();
                #[expect(clippy::disallowed_methods, reason = "a test's tasks, awaited below")]
                tokio::spawn(async move { set.find(&format!("nobody-{n}")).await.is_none() })
            })
            .collect();
        for one in flood {
            assert!(one.await.unwrap());
        }
        assert_eq!(server.fetched(), 2, "the first reading and one more");
        assert!(set.find(good.kid()).await.is_some());
    }

    #[tokio::test]
    async fn those_who_come_during_a_fetch_wait_for_it_and_profit() {
        let (old, new) = (key(), key());
        let server = KeyServer::start(Some(jwks(&[old.public_jwk()]))).await;
        let set = open(KeySource::Url(server.url.clone()), HOUR);
        set.refresh().await.unwrap();
        server.serve(Some(jwks(&[old.public_jwk(), new.public_jwk()]).to_string()));
        let tokens = verifier(&old, &set);
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let (tokens, token) = (tokens.clone(), token_by(&new));
                #[expect(clippy::disallowed_methods, reason = "a test's tasks, awaited below")]
                tokio::spawn(async move { tokens.verify(&token).await })
            })
            .collect();
        for one in waiting {
            one.await.unwrap().unwrap();
        }
        assert_eq!(server.fetched(), 2);
    }

    #[tokio::test]
    async fn a_set_that_cannot_be_fetched_stays_as_it_was() {
        let good = key();
        let server = KeyServer::start(Some(jwks(&[good.public_jwk()]))).await;
        let set = open(KeySource::Url(server.url.clone()), Duration::ZERO);
        set.refresh().await.unwrap();
        let long = "x".repeat(MAX_BYTES + 1);
        let bad = [None, Some("<html>"), Some("{}"), Some(r#"{"keys":[]}"#), Some("[[[["), Some(long.as_str())];
        for document in bad {
            server.serve(document.map(str::to_owned));
            assert!(set.refresh().await.is_err());
            assert!(set.find("unknown").await.is_none());
            verifier(&good, &set).verify(&token_by(&good)).await.unwrap();
        }
        let url = server.url.clone();
        drop(server);
        let Err(error) = set.refresh().await else { panic!("nobody listens") };
        assert!(matches!(&error, AuthError::Fetch { url: failed, .. } if *failed == url), "{error}");
        verifier(&good, &set).verify(&token_by(&good)).await.unwrap();
    }

    #[tokio::test]
    async fn a_set_without_a_server_starts_empty_and_fills_later() {
        let good = key();
        let server = KeyServer::start(None).await;
        let set = open(KeySource::Url(server.url.clone()), Duration::ZERO);
        assert!(set.find(good.kid()).await.is_none());
        server.serve(Some(jwks(&[good.public_jwk()]).to_string()));
        assert!(set.find(good.kid()).await.is_some());
    }

    #[tokio::test]
    async fn an_old_key_goes_without_a_restart() {
        let folder = Folder::new();
        let file = folder.path("keys.json");
        let (old, new) = (key(), key());
        write_jwks(&file, &[old.public_jwk(), new.public_jwk()]);
        let set = KeySet::from_file(&file).await.unwrap();
        let tokens = verifier(&new, &set);
        tokens.verify(&token_by(&old)).await.unwrap();
        write_jwks(&file, &[new.public_jwk()]);
        set.refresh().await.unwrap();
        assert_eq!(tokens.verify(&token_by(&old)).await.unwrap_err().refusal(), Some(Refusal::UnknownKey));
        tokens.verify(&token_by(&new)).await.unwrap();
    }

    #[tokio::test]
    async fn the_set_re_reads_itself() {
        let folder = Folder::new();
        let file = folder.path("keys.json");
        let (old, new) = (key(), key());
        write_jwks(&file, &[old.public_jwk()]);
        let set = open(KeySource::File(file.clone()), Duration::from_millis(1));
        set.refresh().await.unwrap();
        write_jwks(&file, &[new.public_jwk()]);
        let swapped = async {
            while set.has(old.kid()) || !set.has(new.kid()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = set.clone().refresh_forever() => {}
            () = tokio::time::sleep(Duration::from_secs(30)) => panic!("never re-read"),
            () = swapped => {}
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_rotate_under_load_and_nobody_is_refused() {
        let folder = Folder::new();
        let file = folder.path("keys.json");
        let keys: Vec<_> = (0..6).map(|_| key()).collect();
        write_jwks(&file, &[keys[0].public_jwk()]);
        let set = open(KeySource::File(file.clone()), HOUR);
        set.refresh().await.unwrap();
        let signing = Arc::new(RwLock::new(Arc::clone(&keys[0])));
        let verified: [_; 4] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let load: Vec<_> = verified
            .iter()
            .map(|verified| {
                let (signing, verified, stop) = (Arc::clone(&signing), Arc::clone(verified), Arc::clone(&stop));
                let tokens = verifier(&keys[0], &set);
                #[expect(clippy::disallowed_methods, reason = "a test's tasks, awaited below")]
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let token = token_by(&signing.read().unwrap().clone());
                        tokens.verify(&token).await.unwrap();
                        verified.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        // Every task: the slowest may still hold a token of the key before.
        let some_more = async || {
            for (verified, task) in verified.iter().zip(&load) {
                let enough = verified.load(Ordering::Relaxed) + 10;
                while verified.load(Ordering::Relaxed) < enough && !task.is_finished() {
                    tokio::task::yield_now().await;
                }
            }
        };
        for pair in keys.windows(2) {
            // Publish beside the old one, let it be read, sign by it, and take the old one away at last.
            write_jwks(&file, &[pair[0].public_jwk(), pair[1].public_jwk()]);
            set.refresh().await.unwrap();
            *signing.write().unwrap() = Arc::clone(&pair[1]);
            some_more().await;
            write_jwks(&file, &[pair[1].public_jwk()]);
            set.refresh().await.unwrap();
            some_more().await;
        }
        stop.store(true, Ordering::Relaxed);
        for task in load {
            task.await.unwrap();
        }
        assert!(!set.has(keys[0].kid()));
    }

    #[tokio::test]
    async fn a_key_nobody_knows_signs_nothing() {
        let (known, stranger) = (key(), key());
        let set = KeySet::from_jwks(&jwks(&[known.public_jwk()])).unwrap();
        let error = AccessTokens::new(stranger, set, "touchline", HOUR).unwrap_err();
        assert!(matches!(error, AuthError::NotPublished { .. }));
        assert!(matches!(KeySet::from_file("/nonexistent/keys").await, Err(AuthError::File { .. })));
    }
}

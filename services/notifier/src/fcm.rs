//! Firebase Cloud Messaging, HTTP v1: one request per push, over a few HTTP/2 connections.
//!
//! A push waits for its place in the pace and a free stream. Then it passes, without waiting: the access token, the
//! circuit, its platform's circuit, its device's limit. So nothing goes out after a circuit opened, and the limit counts
//! what goes out. What its answer means stands in [`crate::answers`].
//!
//! What happens on the way there: a request that the server says it has not processed (GOAWAY without an error and a
//! lower last stream, `REFUSED_STREAM`) is sent again by reqwest, twice at most; one that was not yet written when its
//! connection ended is sent again by hyper. Whatever else breaks may have been accepted: the push is answered
//! [`Answer::Later`].

use crate::{
    Answer, Provider, Push,
    access_token::{AccessToken, AccessTokens},
    answers::{self, Effect, Verdict},
    bounded,
    circuit::{Cause, Outcome, Turn},
    config,
    error::OpenError,
    message,
    metrics::Metrics,
    pace::Pace,
    per_device::PerDevice,
    provider::LONGEST_SEND,
    service_account::ServiceAccount,
    switch::{Pass, Switch},
    token_call::{TokenCall, in_words},
};
use async_trait::async_trait;
use connections::{Connections, Slot};
use platforms::{PlatformPass, Platforms};
use reqwest::{Url, header};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, timeout, timeout_at};
use touchline_mesh::Shutdown;

mod connections;
mod platforms;

/// How long a push may take from its first byte to its answer's last, a second try with another access token included.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long it waits for its turn and a stream before that.
const PATIENCE: Duration = Duration::from_secs(5);
const _: () = assert!(PATIENCE.as_secs() + DEADLINE.as_secs() <= LONGEST_SEND.as_secs());
/// [`Provider::ready`] promises what can go out within this time, so that pushes hardly wait once they are claimed.
const SOON: Duration = Duration::from_millis(500);
/// When a push to a platform that is stopped is tried again: a probe goes there about as often.
const PLATFORM_WAIT: Duration = Duration::from_secs(60);
/// FCM's answers are small.
const MOST_BYTES: usize = 16 * 1024;

/// FCM as a provider.
#[derive(Debug)]
pub(crate) struct Fcm {
    url: Url,
    connections: Connections,
    tokens: AccessTokens,
    circuit: Switch,
    platforms: Platforms,
    pace: Mutex<Pace>,
    devices: Arc<PerDevice>,
    metrics: Arc<Metrics>,
}

/// What a push is sent with.
struct Admission<'a> {
    token: AccessToken,
    pass: Pass<'a>,
    platform: PlatformPass<'a>,
}

impl Fcm {
    /// Reads the key file and begins to ask for an access token. Its tasks belong to `life`.
    pub(crate) fn open(config: &config::Fcm, life: &Shutdown) -> Result<Self, OpenError> {
        let path = config.service_account_file.clone().unwrap_or_default();
        let endpoint: Url = config.endpoint.parse().map_err(|_| OpenError::Endpoint)?;
        let in_clear = endpoint.scheme() == "http";
        let account = ServiceAccount::read(&path, in_clear)
            .map_err(|source| OpenError::KeyFile { path: path.clone(), source })?;
        let url = endpoint
            .join(&format!("/v1/projects/{}/messages:send", account.project()))
            .map_err(|_| OpenError::Endpoint)?;
        let connections = Connections::new(config)?;
        let metrics = Arc::new(Metrics::new("fcm"));
        metrics.circuits_closed(&Cause::ALL);
        let issuer = TokenCall::new(connections::token_client(config)?);
        let tokens = AccessTokens::keep(account, path, in_clear, issuer, Arc::clone(&metrics), life);
        let devices = Arc::new(PerDevice::default());
        let swept = Arc::clone(&devices);
        life.spawn_until_stop(async move { swept.sweep_forever().await });
        Ok(Self {
            url,
            connections,
            tokens,
            circuit: Switch::new(Arc::clone(&metrics)),
            platforms: Platforms::new(&metrics),
            pace: Mutex::new(Pace::new(config.rate, Instant::now())),
            devices,
            metrics,
        })
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // No code that can panic runs under this lock.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn attempt(&self, push: &Push) -> Answer {
        if let Err(answer) = self.look(push) {
            return answer;
        }
        let Some(slot) = self.turn().await else {
            return Answer::Stopped { why: "no stream was free in time".into() };
        };
        let Admission { token, pass, platform } = match self.admit(push) {
            Ok(admission) => admission,
            Err(answer) => return answer,
        };
        let body = message::compose(push, SystemTime::now());
        let verdict = timeout(DEADLINE, self.exchange(&slot, token, body)).await.unwrap_or_else(|_| Verdict {
            answer: Answer::Later { after: None, why: "no answer in time".into() },
            effect: Effect::Failing,
        });
        platform.end(push, &verdict.answer);
        self.heed(&verdict, pass);
        verdict.answer
    }

    /// What cannot go out now takes no place in the pace, and waits for no stream.
    fn look(&self, push: &Push) -> Result<(), Answer> {
        self.tokens.current().map_err(|why| Answer::Stopped { why })?;
        self.circuit.look().map_err(stopped)?;
        self.platforms.look(push.platform).map_err(platform_stopped)
    }

    /// The last look before the push goes out: a circuit may have opened while it waited.
    fn admit(&self, push: &Push) -> Result<Admission<'_>, Answer> {
        let token = self.tokens.current().map_err(|why| Answer::Stopped { why })?;
        let pass = self.circuit.admit().map_err(stopped)?;
        let platform = self.platforms.admit(push.platform).map_err(platform_stopped)?;
        let too_many = |wait| Answer::Later { after: Some(wait), why: "the device got as many as it may".into() };
        self.devices.check(push.user, &push.device).map_err(too_many)?;
        Ok(Admission { token, pass, platform })
    }

    /// Waits for the push's place in the pace, and for a stream.
    async fn turn(&self) -> Option<Slot<'_>> {
        let begin = Instant::now();
        let at = self.pace().take(PATIENCE, begin).ok()?;
        tokio::time::sleep_until(at).await;
        timeout_at(begin + PATIENCE, self.connections.slot()).await.ok()
    }

    /// Sends it, and once more with another access token if it is the token's fault.
    async fn exchange(&self, slot: &Slot<'_>, token: AccessToken, body: Vec<u8>) -> Verdict {
        let body = bytes::Bytes::from(body);
        let verdict = self.post(slot, &token, body.clone()).await;
        if verdict.effect != Effect::AnotherToken {
            return verdict;
        }
        match timeout(PATIENCE, self.tokens.replace(&token)).await {
            Ok(token) => self.post(slot, &token, body).await,
            Err(_) => Verdict {
                answer: Answer::Stopped { why: "FCM refused the access token, and no other one came in time".into() },
                effect: Effect::Unknown,
            },
        }
    }

    async fn post(&self, slot: &Slot<'_>, token: &AccessToken, body: bytes::Bytes) -> Verdict {
        let request = slot
            .client()
            .post(self.url.clone())
            .header(header::AUTHORIZATION, token.header.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        let answer = async {
            let response = request.send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = bounded::body(response, MOST_BYTES).await?;
            Ok(answers::classify(status, &headers, &body, SystemTime::now()))
        };
        answer.await.unwrap_or_else(|error: reqwest::Error| Verdict {
            answer: Answer::Later { after: None, why: in_words(&error) },
            effect: Effect::Failing,
        })
    }

    /// Takes an answer's consequences for all pushes to come.
    fn heed(&self, verdict: &Verdict, pass: Pass<'_>) {
        let (after, why) = match &verdict.answer {
            Answer::Later { after, why } => (*after, why.as_str()),
            Answer::Stopped { why } => (None, why.as_str()),
            _ => (None, ""),
        };
        let outcome = match verdict.effect {
            Effect::Fine | Effect::SlowDown | Effect::PlatformKey => Outcome::Well,
            Effect::Failing => Outcome::Failed(after),
            // It was replaced, and the new one is refused as well.
            Effect::AnotherToken => Outcome::Shut(Cause::Credentials),
            Effect::Shut(cause) => Outcome::Shut(cause),
            // If it was a probe, the next push is one.
            Effect::Unknown => return drop(pass),
        };
        let now = Instant::now();
        if let Some(Turn::Closed(_)) = pass.end(outcome, why) {
            self.pace().climb(now);
        }
        if verdict.effect == Effect::SlowDown {
            self.slow_down(why, now);
        }
    }

    fn slow_down(&self, why: &str, now: Instant) {
        let mut pace = self.pace();
        if pace.slow_down(now) {
            let rate = pace.rate(now);
            drop(pace);
            self.metrics.rate(rate);
            tracing::warn!(fcm.rate = rate, fcm.answer = why, "FCM says that it is too much: slower");
        }
    }
}

fn stopped(cause: Cause) -> Answer {
    Answer::Stopped { why: cause.to_string() }
}

/// Not [`Answer::Stopped`]: pushes to other platforms go on.
fn platform_stopped(cause: Cause) -> Answer {
    Answer::Later { after: Some(PLATFORM_WAIT), why: cause.to_string() }
}

#[async_trait]
impl Provider for Fcm {
    fn name(&self) -> &'static str {
        "fcm"
    }

    async fn ready(&self) -> usize {
        loop {
            self.tokens.ready().await;
            if self.circuit.opening().await {
                return 1;
            }
            let free = self.connections.free().await;
            let (places, wait) = {
                let (mut pace, now) = (self.pace(), Instant::now());
                self.metrics.rate(pace.rate(now));
                (pace.places(SOON, now), pace.wait(now))
            };
            if places > 0 && self.tokens.current().is_ok() {
                return free.min(places);
            }
            tokio::time::sleep(wait.saturating_sub(SOON)).await;
        }
    }

    async fn send(&self, push: &Push) -> Answer {
        let answer = self.attempt(push).await;
        self.metrics.answered(&answer);
        answer
    }
}

#[cfg(test)]
mod tests;

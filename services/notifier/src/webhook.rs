//! Any other push system: each push as a signed POST to a server of the operator's.
//!
//! Requests follow Standard Webhooks (see [`signature`]). They go to https URLs and public addresses only, unless the
//! configuration says otherwise: addresses are checked when the connection is made, redirects are not followed, no
//! proxy is asked.

use crate::{
    Answer, Provider, Push, bounded,
    circuit::{Cause, Outcome},
    config,
    error::OpenError,
    metrics::Metrics,
    provider::LONGEST_SEND,
    retry_after::retry_after,
    switch::Switch,
    token_call::in_words,
};
use addresses::{PublicOnly, is_public};
use async_trait::async_trait;
use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use serde::Serialize;
use signature::Signer;
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::Semaphore, time::timeout};
use touchline_config::Secret;
use touchline_ids::{ChannelId, DeviceId, Seq, UserId};
use touchline_storage::{Platform, TargetKind};

mod addresses;
mod signature;

/// From the first byte to the answer's last, and for a place before that.
const DEADLINE: Duration = Duration::from_secs(5);
const _: () = assert!(2 * DEADLINE.as_secs() <= LONGEST_SEND.as_secs());
/// Requests under way at once.
const AT_ONCE: usize = 64;
/// What is read of an answer's body, so that the connection can be used again. It means nothing.
const MOST_BYTES: usize = 1024;

/// A server of the operator's as a provider.
#[derive(Debug)]
pub(crate) struct Webhook {
    url: Url,
    signer: Signer,
    client: Client,
    places: Semaphore,
    circuit: Switch,
    metrics: Arc<Metrics>,
}

/// What is posted.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    user_id: UserId,
    device_id: &'a DeviceId,
    platform: Platform,
    target: Target<'a>,
    channel_id: ChannelId,
    seq: Seq,
    count: u64,
    mentioned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    badge: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preview: Option<Preview<'a>>,
    /// Unix seconds.
    expires: u64,
}

#[derive(Serialize)]
struct Target<'a> {
    kind: TargetKind,
    value: &'a str,
}

#[derive(Serialize)]
struct Preview<'a> {
    title: &'a str,
    body: &'a str,
}

/// Whether this is a URL that pushes may go to.
///
/// # Errors
/// What would be one.
pub(crate) fn check_url(text: &str, allow_private: bool) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|_| "is needed for provider = \"webhook\": a whole https URL".to_owned())?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        _ => return Err("must be https, or http with allow_private".into()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry a password: requests are signed with the secret".into());
    }
    // The parser has written every form of an address in the usual one: http://0x7f.1 is http://127.0.0.1 here.
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) if !allow_private && !is_public(address) => {
            Err("is an address inside of your network: set allow_private if it is meant".into())
        }
        _ => Ok(url),
    }
}

/// Whether requests can be signed with this.
///
/// # Errors
/// What would be a secret.
pub(crate) fn check_secret(secret: &Secret) -> Result<(), &'static str> {
    Signer::new(secret).map(drop)
}

impl Webhook {
    /// Checks the settings. Nothing is sent.
    pub(crate) fn open(config: &config::Webhook) -> Result<Self, OpenError> {
        let url = check_url(&config.url, config.allow_private).map_err(OpenError::Url)?;
        let signer = Signer::new(&config.secret).map_err(OpenError::Secret)?;
        let mut client = Client::builder().timeout(DEADLINE).redirect(redirect::Policy::none()).no_proxy();
        if !config.allow_private {
            client = client.https_only(true).dns_resolver(PublicOnly::of_the_system());
        }
        let client = client.build().map_err(OpenError::Client)?;
        let metrics = Arc::new(Metrics::new("webhook"));
        metrics.circuits_closed(&[Cause::Failures]);
        let circuit = Switch::new(Arc::clone(&metrics));
        Ok(Self { url, signer, client, places: Semaphore::new(AT_ONCE), circuit, metrics })
    }

    async fn attempt(&self, push: &Push) -> Answer {
        let Ok(Ok(_place)) = timeout(DEADLINE, self.places.acquire()).await else {
            return Answer::Stopped { why: "too many requests are under way".into() };
        };
        let pass = match self.circuit.admit() {
            Ok(pass) => pass,
            Err(cause) => return Answer::Stopped { why: cause.to_string() },
        };
        let (answer, outcome) = match self.post(push).await {
            Ok(response) => read(response).await,
            Err(error) => (Answer::Later { after: None, why: in_words(&error) }, Outcome::Failed(None)),
        };
        let why = match &answer {
            Answer::Later { why, .. } => why,
            _ => "",
        };
        pass.end(outcome, why);
        answer
    }

    async fn post(&self, push: &Push) -> reqwest::Result<Response> {
        let body = body(push);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = self.client.post(self.url.clone()).header(header::CONTENT_TYPE, "application/json");
        for (name, value) in self.signer.headers(&signature::id(push), now, &body) {
            request = request.header(name, value);
        }
        request.body(body).send().await
    }
}

/// What an answer means for the push, and for those to come.
async fn read(response: Response) -> (Answer, Outcome) {
    let status = response.status();
    let after = retry_after(response.headers(), SystemTime::now());
    // The status counts, whatever becomes of the rest.
    let _ = bounded::body(response, MOST_BYTES).await;
    meaning(status, after)
}

/// Only what says that this push is wrong ends it. Everything else may be the receiver's trouble of an hour: it is being
/// deployed (404), its secret was changed (401), it moved (a redirect, which we do not follow: the operator says where
/// pushes go).
fn meaning(status: StatusCode, after: Option<Duration>) -> (Answer, Outcome) {
    let why = status.as_u16().to_string();
    match status {
        _ if status.is_success() => (Answer::Accepted { id: why }, Outcome::Well),
        StatusCode::GONE => (Answer::TokenVoid { why }, Outcome::Well),
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => (Answer::Refused { why }, Outcome::Well),
        _ => (Answer::Later { after, why }, Outcome::Failed(after)),
    }
}

fn body(push: &Push) -> Vec<u8> {
    let data = Data {
        user_id: push.user,
        device_id: &push.device,
        platform: push.platform,
        target: Target { kind: push.target_kind, value: &push.token },
        channel_id: push.channel,
        seq: push.seq,
        count: push.count,
        mentioned: push.mentioned,
        badge: push.badge,
        preview: push.preview.as_ref().map(|preview| Preview { title: &preview.title, body: &preview.body }),
        expires: push.expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    };
    // A struct of text and numbers always serialises.
    serde_json::to_vec(&Body { r#type: "push", data }).unwrap_or_default()
}

#[async_trait]
impl Provider for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn ready(&self) -> usize {
        if self.circuit.opening().await {
            return 1;
        }
        drop(self.places.acquire().await);
        self.places.available_permits().max(1)
    }

    async fn send(&self, push: &Push) -> Answer {
        let answer = self.attempt(push).await;
        self.metrics.answered(&answer);
        answer
    }
}

#[cfg(test)]
mod tests;

//! A client as a notifier has one: it gets an access token and sends.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Certificate, Client, ClientBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use touchline_fake_fcm::{FakeFcm, Options, Settings};

/// For anything that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Sender {
    pub(crate) fake: FakeFcm,
    pub(crate) client: Client,
    pub(crate) base: String,
    pub(crate) access_token: String,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) async fn of(response: Response) -> Self {
        let status = response.status().as_u16();
        let retry_after = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        Self { status, retry_after, text: response.text().await.unwrap() }
    }
}

impl Sender {
    /// Over HTTP/2 without TLS.
    pub(crate) async fn start(settings: Settings) -> Self {
        let fake = FakeFcm::start(Options { settings, ..Options::default() }).await.unwrap();
        let (client, base) = (clear_client(), fake.http());
        Self::of(fake, client, base).await
    }

    /// By another way to the fake.
    pub(crate) async fn of(fake: FakeFcm, client: Client, base: String) -> Self {
        let mut sender = Self { fake, client, base, access_token: String::new() };
        sender.refresh().await;
        sender
    }

    /// Another access token.
    pub(crate) async fn refresh(&mut self) {
        let assertion = sign(&self.fake.service_account(&self.base), &claims(&self.fake, &self.base));
        let answer = exchange(&self.client, &self.base, &assertion).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        self.access_token = answer.json()["access_token"].as_str().unwrap().to_owned();
    }

    pub(crate) fn uri(&self) -> String {
        format!("{}/v1/projects/{}/messages:send", self.base, self.fake.project())
    }

    /// Any body.
    pub(crate) async fn post(&self, body: &Value) -> reqwest::Result<Response> {
        let request = self.client.post(self.uri()).bearer_auth(&self.access_token);
        request.json(body).send().await
    }

    /// A push as the notifier sends it.
    pub(crate) async fn push(&self, token: &str, seq: u64) -> reqwest::Result<Response> {
        self.post(&push(token, seq)).await
    }

    /// The same, answered in full.
    pub(crate) async fn answer(&self, token: &str) -> Answer {
        Answer::of(within(self.push(token, 1)).await.unwrap()).await
    }
}

pub(crate) fn push(token: &str, seq: u64) -> Value {
    json!({"message": {
        "token": token,
        "data": {"v": "1", "k": "msg", "ch": "123", "seq": seq.to_string(), "n": "3"},
        "android": {"priority": "HIGH", "ttl": "86400s"},
    }})
}

fn builder() -> ClientBuilder {
    // It would send again by itself what was refused.
    Client::builder().retry(reqwest::retry::never()).timeout(DEADLINE)
}

/// HTTP/2 with prior knowledge.
pub(crate) fn clear_client() -> Client {
    builder().http2_prior_knowledge().build().unwrap()
}

pub(crate) fn http1_client() -> Client {
    builder().http1_only().build().unwrap()
}

/// Over TLS; HTTP/2 by ALPN unless `http1`.
pub(crate) fn tls_client(fake: &FakeFcm, http1: bool) -> Client {
    let authority = Certificate::from_pem(fake.ca_pem().as_bytes()).unwrap();
    let builder = builder().tls_certs_only([authority]);
    if http1 { builder.http1_only() } else { builder }.build().unwrap()
}

/// What a good assertion claims.
pub(crate) fn claims(fake: &FakeFcm, base: &str) -> Value {
    let account: Value = serde_json::from_str(&fake.service_account(base)).unwrap();
    json!({
        "iss": account["client_email"],
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": account["token_uri"],
        "iat": now(),
        "exp": now() + 3_600,
    })
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Signs with the key of a service account's file.
pub(crate) fn sign(account: &str, claims: &Value) -> String {
    let account: Value = serde_json::from_str(account).unwrap();
    let key = EncodingKey::from_rsa_pem(account["private_key"].as_str().unwrap().as_bytes()).unwrap();
    let kid = account["private_key_id"].as_str().map(str::to_owned);
    jsonwebtoken::encode(&Header { kid, ..Header::new(Algorithm::RS256) }, claims, &key).unwrap()
}

pub(crate) async fn exchange(client: &Client, base: &str, assertion: &str) -> Answer {
    let form = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
    exchange_form(client, base, form).await
}

pub(crate) async fn exchange_form(client: &Client, base: &str, form: String) -> Answer {
    let request = client.post(format!("{base}/token")).body(form);
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    Answer::of(within(request.send()).await.unwrap()).await
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it takes too long")
}

pub(crate) fn is_good(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

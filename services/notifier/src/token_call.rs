//! One request for an access token, with its retries.

use crate::{bounded, service_account::ServiceAccount};
use http::{HeaderMap, HeaderValue, StatusCode, header::DATE};
use rand::Rng as _;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{
    future::Future,
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// What the endpoint is asked for, a form with fixed values and the assertion (whose letters need no escape).
const GRANT: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
/// Tries of one call, and the pauses between them: 1 s, then twice that, each ± 10 %.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// A clock that differs by this from the endpoint's is worth a warning; some minutes are a refusal.
const SKEW: Duration = Duration::from_secs(10);
/// Whatever the endpoint says.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);
const MOST_BYTES: usize = 64 * 1024;

/// An access token as it came.
#[derive(Debug)]
pub(crate) struct Grant {
    /// `Bearer …`
    pub(crate) header: HeaderValue,
    /// Counted from `asked`.
    pub(crate) lifetime: Duration,
    /// When the request that brought it began.
    pub(crate) asked: Instant,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The endpoint does not take our credentials. Asking again is of no use before somebody mends them.
    Refused(String),
    /// It failed, or was not reached: ask again.
    Unreachable(String),
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    #[serde(deserialize_with = "seconds")]
    expires_in: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    error_description: String,
}

/// Some issuers write the number as text.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Number(u64),
        Text(String),
    }
    match Seconds::deserialize(deserializer)? {
        Seconds::Number(number) => Ok(number),
        Seconds::Text(text) => text.parse().map_err(|_| D::Error::custom("no number of seconds")),
    }
}

/// Where access tokens come from.
pub(crate) trait Issuer: Send + Sync + 'static {
    /// Asks for a token, more than once if need be.
    fn ask(&self, account: &ServiceAccount) -> impl Future<Output = Result<Grant, Failure>> + Send;
}

/// Asks the account's token endpoint.
#[derive(Debug)]
pub(crate) struct TokenCall {
    client: reqwest::Client,
}

impl TokenCall {
    /// Asks through `client`, which has its own deadlines.
    pub(crate) fn new(client: reqwest::Client) -> Self {
        Self { client }
    }

    async fn once(&self, account: &ServiceAccount) -> Result<Grant, Failure> {
        let asked = Instant::now();
        let assertion = account.assertion(SystemTime::now()).map_err(|error| Failure::Refused(error.to_string()))?;
        let request = self
            .client
            .post(account.token_url().clone())
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(format!("{GRANT}{assertion}"));
        let unreachable = |error: reqwest::Error| Failure::Unreachable(in_words(&error));
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        warn_of_skew(response.headers());
        let body = bounded::body(response, MOST_BYTES).await.map_err(unreachable)?;
        let (header, lifetime) = read(status, &body)?;
        Ok(Grant { header, lifetime, asked })
    }
}

impl Issuer for TokenCall {
    async fn ask(&self, account: &ServiceAccount) -> Result<Grant, Failure> {
        with_tries(|| self.once(account)).await
    }
}

/// Asks until the answer is settled, [`TRIES`] times at most.
async fn with_tries<F: Future<Output = Result<Grant, Failure>>>(once: impl Fn() -> F) -> Result<Grant, Failure> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match once().await {
            Err(Failure::Unreachable(why)) => tracing::debug!(token.answer = why, "no access token; tried again"),
            settled => return settled,
        }
        let jitter = rand::rng().random_range(0.9..=1.1);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
        pause *= 2;
    }
    once().await
}

/// What an answer gives.
fn read(status: StatusCode, body: &[u8]) -> Result<(HeaderValue, Duration), Failure> {
    if status.is_success() {
        let unusable = || Failure::Unreachable("an answer that is no access token".into());
        let granted: Granted = serde_json::from_slice(body).map_err(|_| unusable())?;
        let mut header = HeaderValue::try_from(format!("Bearer {}", granted.access_token)).map_err(|_| unusable())?;
        header.set_sensitive(true);
        let lifetime = Duration::from_secs(granted.expires_in).min(LONGEST_LIFE);
        return if lifetime.is_zero() { Err(unusable()) } else { Ok((header, lifetime)) };
    }
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let what = format!("{} {} {}", status.as_u16(), refusal.error, refusal.error_description);
    let what = plain(&what);
    let passing = matches!(refusal.error.as_str(), "internal_failure" | "server_error" | "temporarily_unavailable")
        || matches!(status.as_u16(), 408 | 429)
        || !status.is_client_error();
    Err(if passing { Failure::Unreachable(what) } else { Failure::Refused(what) })
}

/// A wrong clock makes assertions invalid, and nothing else says so.
fn warn_of_skew(headers: &HeaderMap) {
    if let Some((theirs_ahead, skew)) = skew(headers, SystemTime::now())
        && skew >= SKEW
    {
        tracing::warn!(
            clock.skew_s = skew.as_secs(),
            clock.behind = theirs_ahead,
            "this machine's clock differs from the token endpoint's: access tokens are refused when it is some minutes"
        );
    }
}

/// How far the endpoint's clock is from ours, and whether it is ahead.
fn skew(headers: &HeaderMap, now: SystemTime) -> Option<(bool, Duration)> {
    let theirs = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(match theirs.duration_since(now) {
        Ok(ahead) => (true, ahead),
        Err(behind) => (false, behind.duration()),
    })
}

/// A transport error down to its cause, without the URL.
pub(crate) fn in_words(error: &reqwest::Error) -> String {
    let what = match error {
        error if error.is_timeout() => "no answer in time",
        error if error.is_connect() => "no connection",
        _ => "the connection broke",
    };
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    // reqwest's own text names the URL; its deepest cause is the system's or the protocol's, and may quote the server.
    if std::ptr::addr_eq(cause, error) { what.to_owned() } else { plain(&format!("{what}: {cause}")) }
}

/// The beginning of a text that somebody else wrote, on one line.
fn plain(text: &str) -> String {
    text.trim().chars().take(200).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{test_account::TestAccount, test_server::TestServer};
    use std::{
        collections::HashMap,
        sync::{
            Arc, Mutex,
            atomic::{AtomicU32, Ordering},
        },
    };

    fn lifetime(body: &str) -> Result<Duration, Failure> {
        read(StatusCode::OK, body.as_bytes()).map(|(_, lifetime)| lifetime)
    }

    #[test]
    fn a_lifetime_is_a_number_or_text() {
        assert_eq!(
            lifetime(r#"{"access_token":"t","expires_in":3599,"token_type":"Bearer"}"#),
            Ok(Duration::from_secs(3_599))
        );
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":"3599"}"#), Ok(Duration::from_secs(3_599)));
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":18446744073709551615}"#), Ok(LONGEST_LIFE));
        for bad in [
            "",
            "{}",
            r#"{"access_token":"t"}"#,
            r#"{"access_token":"t","expires_in":"soon"}"#,
            r#"{"access_token":"t","expires_in":0}"#,
            r#"{"access_token":"a\nb","expires_in":5}"#,
        ] {
            assert!(matches!(lifetime(bad), Err(Failure::Unreachable(_))), "{bad}");
        }
    }

    #[test]
    fn a_token_does_not_show() {
        let (header, _) = read(StatusCode::OK, br#"{"access_token":"ya29.secret","expires_in":5}"#).unwrap();
        assert_eq!(header, "Bearer ya29.secret");
        assert!(!format!("{header:?}").contains("secret"));
    }

    #[test]
    fn refusals_are_told_from_failures() {
        let read = |status, body: &str| read(StatusCode::from_u16(status).unwrap(), body.as_bytes()).unwrap_err();
        let grant = r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#;
        assert_eq!(read(400, grant), Failure::Refused("400 invalid_grant Invalid JWT Signature.".into()));
        for (status, body) in [(401, r#"{"error":"invalid_client"}"#), (400, ""), (403, "<html>"), (404, "[]")] {
            assert!(matches!(read(status, body), Failure::Refused(_)), "{status}");
        }
        for (status, body) in [
            (408, ""),
            (429, ""),
            (500, ""),
            (502, "<html>"),
            (503, ""),
            (302, ""),
            (400, r#"{"error":"internal_failure"}"#),
            (400, r#"{"error":"server_error"}"#),
            (403, r#"{"error":"temporarily_unavailable"}"#),
        ] {
            assert!(matches!(read(status, body), Failure::Unreachable(_)), "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_tried_three_times_and_a_refusal_once() {
        for (failure, tries, least, most) in
            [(Failure::Unreachable("503".into()), 3, 2_700, 3_310), (Failure::Refused("invalid_grant".into()), 1, 0, 0)]
        {
            let (begin, tried) = (Instant::now(), AtomicU32::new(0));
            let answer = with_tries(|| {
                tried.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Err(failure.clone()))
            });
            assert_eq!(answer.await.unwrap_err(), failure);
            assert_eq!(tried.into_inner(), tries);
            assert!((least..=most).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
        }
    }

    #[tokio::test]
    async fn the_endpoint_gets_a_form_with_a_signed_assertion() {
        let seen = Arc::new(Mutex::new(String::new()));
        let saw = Arc::clone(&seen);
        let answer = move |headers: HeaderMap, form: String| async move {
            assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
            *saw.lock().unwrap() = form;
            r#"{"access_token":"ya29.t","expires_in":"3599"}"#
        };
        let server = TestServer::start(axum::Router::new().route("/token", axum::routing::post(answer))).await;
        let account = TestAccount::new().account(&server.url("/token"));
        let grant = TokenCall::new(reqwest::Client::new()).ask(&account).await.unwrap();
        assert_eq!((grant.header.to_str().unwrap(), grant.lifetime.as_secs()), ("Bearer ya29.t", 3_599));
        let form = seen.lock().unwrap().clone();
        let fields: HashMap<_, _> = form.split('&').filter_map(|field| field.split_once('=')).collect();
        assert_eq!(fields["grant_type"], "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer");
        assert_eq!(fields["assertion"].split('.').count(), 3);
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_there_is_told_without_its_url() {
        let account = TestAccount::new().account("http://127.0.0.1:1/secret");
        let Err(Failure::Unreachable(why)) = TokenCall::new(reqwest::Client::new()).once(&account).await else {
            panic!("nobody listens there")
        };
        assert!(why.starts_with("no connection: ") && !why.contains("secret"), "{why}");
    }

    #[test]
    fn the_clocks_are_compared() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let at = |seconds| {
            let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            skew(&[(DATE, date.parse().unwrap())].into_iter().collect(), now)
        };
        assert_eq!(at(1_000_000_300), Some((true, Duration::from_secs(300))));
        assert_eq!(at(999_999_700), Some((false, Duration::from_secs(300))));
        assert_eq!(skew(&HeaderMap::new(), now), None);
    }
}

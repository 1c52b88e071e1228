//! Whether a request may become a WebSocket: the answer to every request that may not.

use crate::{frame::SUBPROTOCOL, gateway::Gateway};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts,
};
use http_body_util::Full;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Longest path and query.
const URL_LIMIT: usize = 8 * 1024;

pub(crate) type Answer = Response<Full<Bytes>>;

/// A request that was refused; becomes `application/problem+json`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) detail: &'static str,
    pub(crate) header: Option<(HeaderName, &'static str)>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: &'static str) -> Self {
        Self { status, code, detail, header: None }
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(crate) fn unavailable(detail: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).with(header::RETRY_AFTER, "2")
    }

    /// Too many at once; when to come back is said with the answer.
    pub(crate) fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "too many clients connect at once")
    }

    pub(crate) fn crowded() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many sockets from your address")
            .with(header::RETRY_AFTER, "5")
    }

    /// The body of the answer.
    pub(crate) fn body(&self) -> String {
        serde_json::json!({
            "type": format!("urn:touchline:problem:{}", self.code),
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        })
        .to_string()
    }

    /// The answer.
    pub(crate) fn answer(&self) -> Answer {
        let mut answer = Response::new(Full::from(self.body()));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some((name, value)) = &self.header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Whether the process lives.
    Liveness,
    /// Whether it takes new sockets.
    Readiness,
    /// A socket.
    Socket,
}

/// Reads method, path and length.
pub(crate) fn asked<B>(request: &Request<B>) -> Result<Asked, Problem> {
    let uri = request.uri();
    if uri.path_and_query().is_some_and(|text| text.as_str().len() > URL_LIMIT) {
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "url_too_long", "a URL has at most 8 KiB"));
    }
    let asked = match uri.path() {
        "/livez" => Asked::Liveness,
        "/readyz" => Asked::Readiness,
        "/v1/socket" => Asked::Socket,
        _ => {
            let detail = "there are /v1/socket, /livez and /readyz";
            return Err(Problem::new(StatusCode::NOT_FOUND, "no_such_path", detail));
        }
    };
    if request.method() != Method::GET {
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "only GET");
        return Err(problem.with(header::ALLOW, "GET"));
    }
    Ok(asked)
}

/// Holds an upgrade request to RFC 6455 and to our rules; the value for `Sec-WebSocket-Accept` when it passes. Cookies
/// and tokens in the URL are not looked at: the first frame authenticates.
pub(crate) fn check(request: &Parts, allowed_origins: &[String]) -> Result<String, Problem> {
    let headers = &request.headers;
    let wants = has_token(headers, &header::CONNECTION, |token| token.eq_ignore_ascii_case("upgrade"))
        && has_token(headers, &header::UPGRADE, |token| token.eq_ignore_ascii_case("websocket"));
    if !wants || request.version != Version::HTTP_11 {
        let detail = "this is a WebSocket: send Connection: Upgrade and Upgrade: websocket over HTTP/1.1";
        let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", detail);
        return Err(problem.with(header::UPGRADE, "websocket"));
    }
    if single(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
        let detail = "Sec-WebSocket-Version must be 13";
        let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "wrong_version", detail);
        return Err(problem.with(header::SEC_WEBSOCKET_VERSION, "13"));
    }
    let key = single(headers, &header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "wrong_key", "Sec-WebSocket-Key must be 16 bytes in base64")
    })?;
    if !origin_is_allowed(headers, allowed_origins) {
        let detail = "pages of this origin may not connect";
        return Err(Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed", detail));
    }
    if !has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, |token| token == SUBPROTOCOL) {
        let detail = "Sec-WebSocket-Protocol must offer touchline.v1.json";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "wrong_subprotocol", detail));
    }
    Ok(derive_accept_key(key.as_bytes()))
}

/// Why no socket is taken now.
pub(crate) fn refusal(gateway: &Gateway) -> Option<Problem> {
    if let Some(why) = gateway.refusal(Instant::now()) {
        return Some(Problem::unavailable(why));
    }
    (!gateway.hub.has_room()).then(|| Problem::unavailable("this gateway is full"))
}

/// The handshake's last word.
pub(crate) fn switching(accept: &str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    answer
}

fn origin_is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// 16 bytes in base64: 22 characters and two signs of padding.
fn is_key(key: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    key.len() == 24 && key.strip_suffix("==").is_some_and(|rest| rest.bytes().all(legal))
}

/// The value of a header that stands there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}

/// Whether a comma-separated header has a token that passes.
fn has_token(headers: &HeaderMap, name: &HeaderName, passes: impl Fn(&str) -> bool) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| passes(token.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "https://app.example.com";

    fn good() -> http::request::Builder {
        Request::get("/v1/socket")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", "other, touchline.v1.json")
    }

    fn check(change: impl FnOnce(&mut HeaderMap)) -> Result<String, (u16, &'static str)> {
        let (mut parts, ()) = good().body(()).expect("a request").into_parts();
        change(&mut parts.headers);
        super::check(&parts, &[ORIGIN.to_owned()]).map_err(|problem| (problem.status.as_u16(), problem.code))
    }

    fn set(name: &'static str, value: &'static str) -> impl FnOnce(&mut HeaderMap) {
        move |headers| {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }

    fn without(name: &'static str) -> impl FnOnce(&mut HeaderMap) {
        move |headers| {
            headers.remove(name);
        }
    }

    #[test]
    fn a_good_upgrade_is_accepted_with_the_key_of_rfc_6455() {
        assert_eq!(check(|_| {}).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(check(set("origin", ORIGIN)).is_ok());
    }

    #[test]
    fn every_other_origin_is_refused() {
        for origin in [
            "https://evil.example",
            "null",
            "https://app.example.com.evil",
            "https://APP.example.com",
            "HTTPS://app.example.com",
            "http://app.example.com",
            "https://app.example.com:443",
            "https://app.example.com/",
            "",
        ] {
            assert_eq!(check(set("origin", origin)), Err((403, "origin_not_allowed")), "{origin}");
        }
        let two = |headers: &mut HeaderMap| {
            headers.append("origin", HeaderValue::from_static(ORIGIN));
            headers.append("origin", HeaderValue::from_static("https://evil.example"));
        };
        assert_eq!(check(two), Err((403, "origin_not_allowed")));
    }

    #[test]
    fn every_bad_upgrade_is_told_what_is_wrong() {
        assert_eq!(check(without("connection")), Err((426, "upgrade_required")));
        assert_eq!(check(without("upgrade")), Err((426, "upgrade_required")));
        assert_eq!(check(set("upgrade", "h2c")), Err((426, "upgrade_required")));
        assert_eq!(check(set("sec-websocket-version", "8")), Err((426, "wrong_version")));
        assert_eq!(check(without("sec-websocket-version")), Err((426, "wrong_version")));
        assert_eq!(check(without("sec-websocket-key")), Err((400, "wrong_key")));
        assert_eq!(check(set("sec-websocket-key", "short")), Err((400, "wrong_key")));
        assert_eq!(check(set("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ!=")), Err((400, "wrong_key")));
        assert_eq!(check(without("sec-websocket-protocol")), Err((400, "wrong_subprotocol")));
        assert_eq!(check(set("sec-websocket-protocol", "TOUCHLINE.v1.json")), Err((400, "wrong_subprotocol")));
    }

    #[test]
    fn paths_methods_and_lengths_are_checked() {
        let asked = |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path).body(()).expect("a request");
            super::asked(&request).map_err(|problem| problem.status.as_u16())
        };
        assert_eq!(asked(Method::GET, "/v1/socket?token=ignored"), Ok(Asked::Socket));
        assert_eq!(asked(Method::GET, "/livez"), Ok(Asked::Liveness));
        assert_eq!(asked(Method::GET, "/readyz"), Ok(Asked::Readiness));
        assert_eq!(asked(Method::GET, "/"), Err(404));
        assert_eq!(asked(Method::GET, "/v1/socket/"), Err(404));
        assert_eq!(asked(Method::POST, "/v1/socket"), Err(405));
        assert_eq!(asked(Method::GET, &format!("/livez?{}", "x".repeat(URL_LIMIT))), Err(414));
    }

    #[test]
    fn a_problem_is_json_with_a_stable_code() {
        let answer = Problem::unavailable("this gateway is full").answer();
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.headers()["retry-after"], "2");
        let body: serde_json::Value = serde_json::from_str(&Problem::unavailable("full").body()).expect("is JSON");
        assert_eq!((&body["code"], &body["status"]), (&"unavailable".into(), &503.into()));
    }
}

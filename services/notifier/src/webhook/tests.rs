//! The provider against a small receiver on a real socket.

use super::*;
use crate::{test_push::push, test_server::TestServer};
use aws_lc_rs::hmac;
use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::IntoResponse as _,
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use std::sync::Mutex;
use tokio::net::TcpListener;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn webhook(url: &str, allow_private: bool) -> Webhook {
    Webhook::open(&config::Webhook { url: url.into(), secret: SECRET.into(), allow_private }).unwrap()
}

/// A receiver that answers with this status and these headers.
async fn answering(status: u16, headers: &'static [(&'static str, &'static str)]) -> TestServer {
    let answer = move || async move {
        let mut response = (StatusCode::from_u16(status).unwrap(), "x".repeat(100_000)).into_response();
        for (name, value) in headers {
            response.headers_mut().insert(*name, value.parse().unwrap());
        }
        response
    };
    TestServer::start(Router::new().route("/", post(answer))).await
}

#[tokio::test]
async fn a_receiver_can_tell_who_sent_what_and_drop_what_it_has_had() {
    let seen = Arc::new(Mutex::new(Vec::<(HeaderMap, String)>::new()));
    let saw = Arc::clone(&seen);
    let receive = move |headers: HeaderMap, body: String| async move { saw.lock().unwrap().push((headers, body)) };
    let server = TestServer::start(Router::new().route("/hook", post(receive))).await;
    let (webhook, push) = (webhook(&server.url("/hook"), true), push(Platform::Ios, "T"));
    assert_eq!(webhook.ready().await, AT_ONCE);
    for count in [3, 4] {
        let again = Push { count, ..push.clone() };
        assert_eq!(webhook.send(&again).await, Answer::Accepted { id: "200".into() });
    }
    let seen = seen.lock().unwrap();
    let (headers, body) = &seen[0];
    let header = |name: &str| headers[name].to_str().unwrap();
    let expected = json!({"type": "push", "data": {
        "user_id": push.user, "device_id": "phone", "platform": "ios", "target": {"kind": "token", "value": "T"},
        "channel_id": push.channel, "seq": 4_711, "count": 3, "mentioned": false, "badge": 7,
        "expires": push.expires.duration_since(UNIX_EPOCH).unwrap().as_secs(),
    }});
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), expected);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(&SECRET[6..]).unwrap());
    let signed = format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp"));
    let signature = STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
    hmac::verify(&key, signed.as_bytes(), &signature).unwrap();
    assert_eq!(seen[0].0["webhook-id"], seen[1].0["webhook-id"], "the same push");
    let other = Push { seq: push.seq.next(), ..push.clone() };
    assert_ne!(signature::id(&push), signature::id(&other));
}

#[tokio::test]
async fn a_status_says_what_becomes_of_the_push() {
    let later =
        |seconds: Option<u64>, why: &str| Answer::Later { after: seconds.map(Duration::from_secs), why: why.into() };
    for (status, headers, expected) in [
        (204, &[][..], Answer::Accepted { id: "204".into() }),
        (410, &[], Answer::TokenVoid { why: "410".into() }),
        (400, &[], Answer::Refused { why: "400".into() }),
        (404, &[], later(None, "404")),
        (429, &[("retry-after", "7")], later(Some(7), "429")),
        (500, &[], later(None, "500")),
        (503, &[("retry-after", "70")], later(Some(70), "503")),
        (302, &[("location", "/elsewhere")], later(None, "302")),
    ] {
        let server = answering(status, headers).await;
        let answer = webhook(&server.url("/"), true).send(&push(Platform::Web, "T")).await;
        assert_eq!(answer, expected);
    }
}

#[test]
fn only_what_says_that_the_push_is_wrong_ends_it_and_all_else_counts_against_the_receiver() {
    for code in 300..600 {
        let (status, after) = (StatusCode::from_u16(code).unwrap(), Some(Duration::from_secs(7)));
        let (answer, outcome) = meaning(status, after);
        let why = code.to_string();
        match code {
            410 => assert_eq!((answer, outcome), (Answer::TokenVoid { why }, Outcome::Well)),
            400 | 413 | 415 | 422 => assert_eq!((answer, outcome), (Answer::Refused { why }, Outcome::Well)),
            _ => assert_eq!((answer, outcome), (Answer::Later { after, why }, Outcome::Failed(after))),
        }
    }
}

#[tokio::test]
async fn a_receiver_that_is_down_or_does_not_know_us_is_left_alone() {
    for status in [500, 401, 404] {
        left_alone_after_ten(status).await;
    }
}

async fn left_alone_after_ten(status: u16) {
    let server = answering(status, &[]).await;
    let webhook = webhook(&server.url("/"), true);
    for _ in 0..9 {
        assert!(matches!(webhook.send(&push(Platform::Web, "T")).await, Answer::Later { .. }));
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    webhook.send(&push(Platform::Web, "T")).await;
    assert!(matches!(webhook.send(&push(Platform::Web, "T")).await, Answer::Stopped { .. }));
    assert!(webhook.ready().now_or_never().is_none());
}

#[tokio::test]
async fn a_name_that_leads_inside_is_never_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for name in ["localhost", "LOCALHOST", "localhost."] {
        let webhook = webhook(&format!("https://{name}:{port}/"), false);
        let answer = webhook.send(&push(Platform::Web, "T")).await;
        assert!(matches!(answer, Answer::Later { .. }), "{answer:?}");
    }
    assert!(listener.accept().now_or_never().is_none());
}

#[test]
fn no_form_of_an_address_inside_is_taken() {
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "127。0。0。1",
        "１２７.0.0.1",
        "0",
        "0.0.0.0",
        "169.254.169.254",
        "2852039166",
        "0xA9FEA9FE",
        "169.254.43518",
        "100.100.100.200",
        "168.63.129.16",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:a9fe:a9fe]",
        "[::ffff:8.8.8.8]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::a00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fe80::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
    ] {
        let url = format!("https://{host}/hook");
        assert!(check_url(&url, false).is_err(), "{url}");
        assert!(check_url(&url, true).is_ok(), "{url}");
    }
}

#[test]
fn a_url_is_https_and_carries_no_password() {
    assert!(check_url("https://example.com/hook?a=b", false).is_ok());
    assert!(check_url("https://8.8.8.8:8443/", false).is_ok());
    for bad in [
        "",
        "example.com",
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://a:b@example.com/",
        "https://a@example.com/",
    ] {
        assert!(check_url(bad, false).is_err(), "{bad}");
    }
    assert!(check_url("http://example.com/", true).is_ok() && check_url("gopher://example.com/", true).is_err());
}

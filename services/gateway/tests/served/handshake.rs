//! From the first byte to the upgrade.

use crate::{
    client::{Client, within},
    fixture::Served,
    raw::{self, UPGRADE, ask, frame, get},
};
use std::time::Duration;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use touchline_ids::UserId;

#[tokio::test]
async fn the_probes_answer() {
    let served = Served::start(|_| {}).await;
    assert_eq!(get(served.ws, "/livez").await, 200);
    assert_eq!(get(served.ws, "/readyz").await, 200);
}

#[tokio::test]
async fn every_request_that_is_no_upgrade_is_told_why() {
    let served = Served::start(|_| {}).await;
    let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let without = |header: &str| {
        let lines: Vec<_> = UPGRADE.split("\r\n").filter(|line| !line.starts_with(header)).collect();
        lines.join("\r\n").replace("Connection: Upgrade", "Connection: Upgrade, close")
    };
    let long = format!("GET /v1/socket?{}", "x".repeat(9_000));
    let huge = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    for (request, status, code) in [
        (request("GET /"), 404, "no_such_path"),
        (request("GET /v1/sockets"), 404, "no_such_path"),
        (request("POST /v1/socket"), 405, "method_not_allowed"),
        (request("GET /v1/socket"), 426, "upgrade_required"),
        (request(&long), 414, "url_too_long"),
        (without("Upgrade"), 426, "upgrade_required"),
        (without("Sec-WebSocket-Version"), 426, "wrong_version"),
        (without("Sec-WebSocket-Key"), 400, "wrong_key"),
        (without("Sec-WebSocket-Protocol"), 400, "wrong_subprotocol"),
        (huge, 431, ""),
        ("nonsense\r\n\r\n".to_owned(), 400, ""),
    ] {
        let (answered, head, body) = ask(served.ws, &request).await;
        assert_eq!(answered, status, "{request}");
        if !code.is_empty() {
            assert!(head.contains("content-type: application/problem+json"), "{head}");
            let problem: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(problem["code"], code, "{request}");
        }
    }
}

#[tokio::test]
async fn only_listed_origins_may_connect() {
    let served = Served::start(|config| config.allowed_origins = vec!["https://app.example.com".into()]).await;
    for origin in ["https://evil.example", "null", "https://app.example.com.evil", "https://App.Example.com"] {
        let refused = Client::open(served.ws, &[("origin", origin)]).await.err().expect("is refused");
        assert_eq!(refused.status(), 403, "{origin}");
    }
    assert!(Client::open(served.ws, &[("origin", "https://app.example.com")]).await.is_ok());
    assert!(Client::open(served.ws, &[]).await.is_ok());
}

#[tokio::test]
async fn neither_a_cookie_nor_a_ticket_in_the_url_authenticates() {
    let served = Served::start(|config| config.times.hello_ms = 200).await;
    let ticket = served.world.ticket(UserId::new(), "phone", Duration::from_secs(900));
    let stream = TcpStream::connect(served.ws).await.expect("connects");
    let url = format!("ws://{}/v1/socket?ticket={ticket}&access_token={ticket}", served.ws);
    let cookie = format!("ticket={ticket}");
    let mut client = Client::upgrade(stream, &url, &[("cookie", cookie.as_str())]).await.expect("upgrades");
    assert_eq!(client.close_code().await, 4001);
}

#[tokio::test]
async fn a_dripping_request_head_is_cut_off() {
    let served = Served::start(|config| config.times.head_ms = 200).await;
    let mut stream = TcpStream::connect(served.ws).await.expect("connects");
    within("being cut off", async {
        for byte in UPGRADE.bytes().cycle() {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn frames_sent_right_behind_the_request_are_not_lost() {
    let served = Served::start(|_| {}).await;
    let ticket = served.world.ticket(UserId::new(), "phone", Duration::from_secs(900));
    let hello = format!(r#"{{"type":"hello","ticket":"{ticket}","device_id":"phone","connection":1}}"#);
    let mut stream = raw::upgraded(served.ws, &frame(0x81, hello.as_bytes())).await;
    stream.write_all(&frame(0x88, &1000_u16.to_be_bytes())).await.expect("sent");
    let answer = String::from_utf8_lossy(&raw::read_to_end(&mut stream).await).into_owned();
    assert!(answer.contains(r#""type":"ready""#), "{answer}");
}

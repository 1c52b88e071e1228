//! How many sockets, and whose.

use crate::{
    client::{Client, within},
    fixture::Served,
    raw::{ask, get, read_to_end},
};
use std::time::Duration;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use touchline_ids::UserId;

#[tokio::test]
async fn silent_sockets_are_turned_away_and_sessions_go_on() {
    let served = Served::start(|config| config.limits.unauthenticated = 3).await;
    let mut session = served.connect(UserId::new(), "phone", 1).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(served.open().await);
    }
    let (status, head, _) = ask(served.ws, "").await;
    assert_eq!(status, 503);
    assert!(head.contains("retry-after"), "{head}");
    session.is_alive().await;
    drop(silent);
}

#[tokio::test]
async fn silent_sockets_of_one_address_are_turned_away() {
    let served = Served::start(|config| config.limits.unauthenticated_per_address = 2).await;
    let _silent = [served.open().await, served.open().await];
    assert_eq!(ask(served.ws, "").await.0, 429);
}

#[tokio::test]
async fn all_sockets_of_one_address_are_bounded() {
    let served = Served::start(|config| config.limits.sockets_per_address = 2).await;
    let _sessions = [served.connect(UserId::new(), "phone", 1).await, served.connect(UserId::new(), "phone", 1).await];
    assert_eq!(ask(served.ws, "").await.0, 429);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_clients_address_counts() {
    let served = Served::start(|config| {
        config.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
        config.limits.unauthenticated_per_address = 1;
    })
    .await;
    let from = async |client| Client::open(served.ws, &[("x-forwarded-for", client)]).await;
    let _first = from("192.0.2.1").await.expect("upgrades");
    assert_eq!(from("192.0.2.1").await.err().expect("is refused").status(), 429);
    assert_eq!(from("203.0.113.9, 192.0.2.1").await.err().expect("is refused").status(), 429);
    assert!(from("192.0.2.2").await.is_ok());
}

#[tokio::test]
async fn a_full_gateway_sends_newcomers_elsewhere() {
    let served = Served::start(|config| config.limits.capacity = 1).await;
    let mut waiting = served.open().await;
    let _session = served.connect(UserId::new(), "phone", 1).await;
    let stream = TcpStream::connect(served.ws).await.expect("connects");
    let refused = Client::upgrade(stream, &format!("ws://{}/v1/socket", served.ws), &[]).await.err();
    assert_eq!(refused.expect("is refused").status(), 503);
    let late = UserId::new();
    waiting.hello(&served.world.ticket(late, "phone", Duration::from_secs(900)), "phone", 1).await;
    let (code, reason, _) = waiting.closed().await;
    let wait = reason.split_once("retry_after_ms=").and_then(|(_, wait)| wait.parse::<u32>().ok());
    assert!(code == 1013 && wait.is_some_and(|wait| wait >= 1_000), "{code} {reason}");
    assert!(served.world.routes(late).await.is_empty());
}

#[tokio::test]
async fn more_connections_in_a_second_than_are_taken_are_told_when_to_come_back() {
    let served = Served::start(|config| config.limits.accepts_per_second = 3).await;
    let mut session = served.connect(UserId::new(), "phone", 1).await;
    let mut refused = 0;
    // Others are let in as the second passes.
    while refused < 20 {
        let (status, head, body) =
            ask(served.ws, "GET /v1/socket HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        if status == 503 {
            refused += 1;
            assert!(head.contains("retry-after: ") && body.contains("unavailable"), "{head} {body}");
        }
        assert_eq!(get(served.ws, "/livez").await, 200, "it is busy, not dead");
        assert_eq!(get(served.ws, "/readyz").await, 200);
    }
    session.is_alive().await;
    within("there is room again", async { while Client::open(served.ws, &[]).await.is_err() {} }).await;
}

#[tokio::test]
async fn one_session_too_many_of_a_user_closes_the_oldest() {
    let served = Served::start(|_| {}).await;
    let user = UserId::new();
    let mut sessions = Vec::new();
    for device in 0..11 {
        sessions.push(served.connect(user, &format!("device-{device}"), 1).await);
    }
    assert_eq!(sessions[0].close_code().await, 4009);
    for session in &mut sessions[1..] {
        session.is_alive().await;
    }
}

#[tokio::test]
async fn a_flood_that_is_turned_away_is_answered_unheard() {
    let served = Served::start(|config| config.limits.accepts_per_second = 1).await;
    let mut silent = Vec::new();
    within("nobody is heard any more", async {
        loop {
            for _ in 0..300 {
                silent.push(TcpStream::connect(served.ws).await.expect("connects"));
            }
            let mut probe = TcpStream::connect(served.ws).await.expect("connects");
            // It may be gone before it has read this.
            let _ = probe.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
            if read_to_end(&mut probe).await.starts_with(b"HTTP/1.1 503 ") {
                return;
            }
        }
    })
    .await;
    within("probes are heard again", async { while get(served.ws, "/livez").await != 200 {} }).await;
}

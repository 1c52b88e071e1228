//! What clients send, and should not.

use crate::{
    client::within,
    fixture::Served,
    raw::{self, frame},
};
use futures_util::StreamExt as _;
use serde_json::json;
use std::time::Duration;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_tungstenite::tungstenite::{
    Message as Frame,
    protocol::frame::{
        Frame as RawFrame,
        coding::{Data, OpCode},
    },
};
use touchline_ids::UserId;

#[tokio::test]
async fn frames_that_make_no_sense_are_answered_and_too_many_close() {
    let served = Served::start(|config| config.limits.bad_frames = 5).await;
    let mut client = served.connect(UserId::new(), "phone", 1).await;
    for (frame, code) in [
        (Frame::binary(vec![1]), "binary"),
        (Frame::text("{"), "bad_json"),
        (Frame::text(r#"{"type":"dance"}"#), "unknown_type"),
        (Frame::text(r#"{"type":"ack","cursors":{"x":1}}"#), "bad_field"),
    ] {
        client.send(frame).await;
        let error = client.hear().await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)));
    }
    client.is_alive().await;
    client.send(Frame::text("[]")).await;
    assert_eq!(client.close_code().await, 4008);
}

#[tokio::test]
async fn a_flood_of_frames_closes() {
    let served = Served::start(|_| {}).await;
    for flood in [Frame::text(r#"{"type":"ping"}"#), Frame::Ping(Default::default())] {
        let mut client = served.connect(UserId::new(), "phone", 1).await;
        for _ in 0..300 {
            if futures_util::SinkExt::send(&mut client.socket, flood.clone()).await.is_err() {
                break;
            }
        }
        assert_eq!(client.close_code().await, 4008);
    }
}

/// A ping of exactly `size` bytes.
fn ping_of(size: usize) -> String {
    let empty = json!({"type":"ping","x":""}).to_string().len();
    json!({"type":"ping","x":"x".repeat(size - empty)}).to_string()
}

#[tokio::test]
async fn a_frame_of_64_kib_is_read_and_one_byte_more_closes() {
    let served = Served::start(|_| {}).await;
    let mut client = served.connect(UserId::new(), "phone", 1).await;
    client.send(Frame::text(ping_of(64 * 1024))).await;
    assert_eq!(client.hear().await["type"], "pong");
    client.send(Frame::text(ping_of(64 * 1024 + 1))).await;
    assert_eq!(client.close_code().await, 1009);
}

#[tokio::test]
async fn a_fragmented_message_is_one_message_and_its_sum_is_bounded() {
    let served = Served::start(|_| {}).await;
    let mut client = served.connect(UserId::new(), "phone", 1).await;
    let (first, last) = (OpCode::Data(Data::Text), OpCode::Data(Data::Continue));
    client.send(Frame::Frame(RawFrame::message(r#"{"type":"#, first, false))).await;
    client.send(Frame::Ping(Default::default())).await;
    client.send(Frame::Frame(RawFrame::message(r#""ping"}"#, last, true))).await;
    assert_eq!(client.hear().await["type"], "pong");
    client.send(Frame::Frame(RawFrame::message("x".repeat(40_000), first, false))).await;
    client.send(Frame::Frame(RawFrame::message("x".repeat(40_000), last, false))).await;
    assert_eq!(client.close_code().await, 1009);
}

#[tokio::test]
async fn a_message_in_one_byte_fragments_is_bounded_too() {
    let served = Served::start(|_| {}).await;
    let mut stream = raw::upgraded(served.ws, &[]).await;
    let fragments: Vec<_> = frame(0x01, b"x").into_iter().chain(frame(0x00, b"x").repeat(70_000)).collect();
    let (mut reader, mut writer) = stream.split();
    let mut all = Vec::new();
    let write = async {
        // The server may have closed before it read everything.
        let _ = writer.write_all(&fragments).await;
    };
    let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut all);
    let ((), _) = within("the close", async { tokio::join!(write, read) }).await;
    assert_eq!(raw::close_code(&all), Some(1009));
}

#[tokio::test]
async fn frames_that_break_the_protocol_close() {
    let served = Served::start(|_| {}).await;
    let unmasked = [vec![0x81, 2], b"{}".to_vec()].concat();
    let reserved_bit = frame(0xc1, b"{}");
    let unknown_opcode = frame(0x83, b"{}");
    let lone_continuation = frame(0x80, b"{}");
    let long_ping = frame(0x89, &[0; 126]);
    let not_utf8 = frame(0x81, &[0xff, 0xfe]);
    let huge = [vec![0x82, 0xff], (64_u64 << 20).to_be_bytes().to_vec(), vec![0; 4]].concat();
    for (what, bytes, code) in [
        ("unmasked", unmasked, 1002),
        ("reserved bit", reserved_bit, 1002),
        ("unknown opcode", unknown_opcode, 1002),
        ("lone continuation", lone_continuation, 1002),
        ("long ping", long_ping, 1002),
        ("not UTF-8", not_utf8, 1007),
        ("64 MiB announced", huge, 1009),
    ] {
        let mut stream: TcpStream = raw::upgraded(served.ws, &bytes).await;
        let answer = raw::read_to_end(&mut stream).await;
        assert_eq!(raw::close_code(&answer), Some(code), "{what}");
    }
}

#[tokio::test]
async fn a_client_is_pinged_and_a_dead_one_is_given_up() {
    let served = Served::start(|config| {
        config.times.heartbeat_ms = 300;
        config.times.dead_ms = 1_500;
    })
    .await;
    let (alive, dead) = (UserId::new(), UserId::new());
    let mut client = served.connect(alive, "phone", 1).await;
    // It never reads again, so its library never answers a ping; its socket stays open.
    let _silent = served.connect(dead, "phone", 1).await;
    let mut pings = 0;
    let gone = async {
        served.world.routes_become(dead, &[]).await;
    };
    tokio::pin!(gone);
    loop {
        tokio::select! {
            frame = client.socket.next() => match frame {
                Some(Ok(Frame::Ping(_))) => pings += 1,
                other => panic!("{other:?}"),
            },
            () = &mut gone => break,
        }
    }
    assert!(pings >= 2, "{pings}");
    assert_eq!(served.world.routes(alive).await, [served.incarnation]);
    client.is_alive().await;
}

#[tokio::test]
async fn a_client_that_says_goodbye_gets_its_goodbye() {
    let served = Served::start(|_| {}).await;
    let user = UserId::new();
    let mut client = served.connect(user, "phone", 1).await;
    client.socket.close(None).await.expect("sent");
    within("the answer", async { while client.socket.next().await.is_some_and(|frame| frame.is_ok()) {} }).await;
    served.world.routes_become(user, &[]).await;
    tokio::time::timeout(Duration::from_secs(5), served.connect(user, "phone", 2)).await.expect("may come back");
}

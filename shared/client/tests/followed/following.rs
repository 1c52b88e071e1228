//! What a device does with what it gets.

use crate::server::{Server, message, ready, within};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;
use touchline_client::{Event, Frame, Renewal, SyncCause, Trouble};
use touchline_ids::{ChannelId, SessionId};

type Events = mpsc::Receiver<Event>;

/// The next event that this makes something of.
async fn find<T>(events: &mut Events, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
    let found = async {
        loop {
            let event = events.recv().await.expect("the device runs");
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    };
    within(what, found).await
}

/// The next messages.
async fn shown(events: &mut Events, count: usize) -> Vec<i64> {
    let mut seqs = Vec::new();
    while seqs.len() < count {
        let seq = |event: &Event| if let Event::Message(message) = event { Some(message.seq.0) } else { None };
        seqs.push(find(events, "a message", seq).await);
    }
    seqs
}

async fn caught_up(events: &mut Events) -> SyncCause {
    find(events, "caught up", |event| if let Event::CaughtUp { cause, .. } = event { Some(*cause) } else { None }).await
}

fn synced(channel: ChannelId, seqs: impl IntoIterator<Item = i64>, reset: bool) -> Value {
    let messages: Vec<_> = seqs.into_iter().map(|seq| message(channel, seq)).collect();
    let head = messages.last().map_or(0.into(), |last| last["seq"].clone());
    json!({"channels": [{"channel_id": channel, "head_seq": head, "messages": messages, "more": false, "reset": reset}],
        "gone": []})
}

#[tokio::test]
async fn the_second_gateway_is_tried_and_the_sync_waits_for_ready() {
    let mut server = Server::start().await;
    let mut events = server.device(|_| {});
    let socket = server.connect(2).await;
    assert_eq!(socket.hello["ticket"], "a ticket");
    assert_eq!(socket.hello["connection"], 2, "the first gateway was the first connection");
    let channel = ChannelId::new();
    let call = server.call("/v1/sync").await;
    assert_eq!((&call.body["cursors"], &call.body["recent"]), (&json!([]), &json!(20)));
    call.ok(&synced(channel, [6, 7], true));
    assert_eq!(shown(&mut events, 2).await, [6, 7]);
}

#[tokio::test]
async fn a_hole_is_synced_once_and_what_the_wire_repeats_is_shown_once() {
    let mut server = Server::start().await;
    let mut events = server.device(|options| options.raw = true);
    let mut socket = server.connect(1).await;
    let channel = ChannelId::new();
    server.call("/v1/sync").await.ok(&synced(channel, [1, 2], true));
    assert_eq!(caught_up(&mut events).await, SyncCause::Ready);

    let four = message(channel, 4);
    for frame in [&message(channel, 2), &four, &four, &message(channel, 5), &four] {
        socket.send(frame).await;
    }
    let call = server.call("/v1/sync").await;
    assert_eq!((call.body["cursors"][0]["seq"].as_i64(), &call.body["recent"]), (Some(2), &json!(50)));
    assert_eq!(call.body["cursors"][0]["check"].as_str().map(str::len), Some(8));
    call.ok(&synced(channel, [3, 4, 5], false));
    let (mut wire, mut shown) = (0, Vec::new());
    loop {
        match within("the sync ends", events.recv()).await.expect("the device runs") {
            Event::Wire(Frame::Message(_)) => wire += 1,
            Event::Message(message) => shown.push(message.seq.0),
            Event::CaughtUp { cause, .. } => break assert_eq!(cause, SyncCause::Hole),
            _ => {}
        }
    }
    assert_eq!((wire, shown), (5, vec![3, 4, 5]));
    // The ack of what was shown; a ping after it shows that no other request came in a second.
    while socket.frame("ack").await["cursors"][channel.to_string()] != 5 {}
    socket.frame("ping").await;
    socket.send(&json!({"type": "pong", "frames": 5})).await;
    socket.frame("ping").await;
    assert!(!server.is_called());
}

#[tokio::test]
async fn a_pong_that_counted_more_brings_a_sync() {
    let mut server = Server::start().await;
    let mut events = server.device(|_| {});
    let mut socket = server.online().await;
    assert_eq!(caught_up(&mut events).await, SyncCause::Ready);
    socket.frame("ping").await;
    socket.send(&json!({"type": "pong", "frames": 1})).await;
    server.call("/v1/sync").await.ok(&synced(ChannelId::new(), [1], true));
    assert_eq!(caught_up(&mut events).await, SyncCause::Lost);
}

#[tokio::test]
async fn retry_after_is_obeyed_by_both_calls() {
    let mut server = Server::start().await;
    let mut events = server.device(|_| {});
    let refused = server.call("/v1/connect").await;
    let since = refused.at;
    refused.refuse(503, "unavailable", Some(1));
    let again_in = find(&mut events, "offline", |event| match event {
        Event::Offline { why: Trouble::Failed(error), again_in } if error.status() == Some(503) => Some(*again_in),
        _ => None,
    });
    assert!(again_in.await >= Duration::from_secs(1));
    let again = server.call("/v1/connect").await;
    assert!(again.at >= since + Duration::from_secs(1));
    again.refuse(500, "internal", None);

    let _socket = server.connect(1).await;
    let refused = server.call("/v1/sync").await;
    let since = refused.at;
    refused.refuse(429, "rate_limited", Some(1));
    find(&mut events, "a failed sync", |event| matches!(event, Event::SyncFailed { .. }).then_some(())).await;
    let again = server.call("/v1/sync").await;
    assert!(again.at >= since + Duration::from_secs(1));
    again.ok(&synced(ChannelId::new(), [1], true));
    assert_eq!(shown(&mut events, 1).await, [1]);
}

#[tokio::test]
async fn a_new_token_is_fetched_when_the_old_one_is_refused() {
    let mut server = Server::start().await;
    let mut events = server.device(|options| {
        options.renewal = Some(Renewal::new(async || Ok("second token".to_owned())));
    });
    let call = server.call("/v1/connect").await;
    assert_eq!(call.token, "Bearer first token");
    call.refuse(401, "unauthenticated", None);
    let _socket = server.connect(1).await;
    let call = server.call("/v1/sync").await;
    assert_eq!(call.token, "Bearer second token");
    call.refuse(403, "forbidden", None);
    let why =
        find(&mut events, "the end", |event| if let Event::Ended(why) = event { Some(why.to_string()) } else { None });
    assert!(why.await.contains("forbidden"));
    assert!(within("nothing follows", events.recv()).await.is_none());
}

#[tokio::test]
async fn a_move_opens_first_syncs_and_then_says_goodbye() {
    let mut server = Server::start().await;
    let mut events = server.device(|_| {});
    let mut old = server.online().await;
    old.send(&json!({"type": "reconnect", "after_ms": 0})).await;
    let mut new = server.connect(1).await;
    assert!(new.hello["connection"].as_i64() > old.hello["connection"].as_i64());
    let channel = ChannelId::new();
    // The old socket still serves.
    old.send(&message(channel, 1)).await;
    assert_eq!(shown(&mut events, 1).await, [1]);
    server.call("/v1/sync").await.ok(&synced(channel, [1], true));
    old.closed().await;
    new.send(&message(channel, 2)).await;
    assert_eq!(shown(&mut events, 1).await, [2]);
    assert_eq!(new.frame("ack").await["cursors"][channel.to_string()], 1);
}

#[tokio::test]
async fn a_close_is_followed_as_its_code_says() {
    let mut server = Server::start().await;
    let mut events = server.device(|_| {});
    let cause = |event: &Event| match event {
        Event::Offline { why: Trouble::Closed(closed), .. } | Event::Ended(Trouble::Closed(closed)) => {
            Some(closed.code)
        }
        _ => None,
    };
    for code in [1012, 4010] {
        server.online().await.close(code).await;
        assert_eq!(find(&mut events, "offline", cause).await, code);
    }
    server.online().await.close(4009).await;
    assert_eq!(find(&mut events, "the end", cause).await, 4009);
    assert!(within("nothing follows", events.recv()).await.is_none());
}

#[tokio::test]
async fn a_ready_that_comes_again_brings_a_sync() {
    let mut server = Server::start().await;
    let mut events = server.device(|_| {});
    let mut socket = server.online().await;
    assert_eq!(caught_up(&mut events).await, SyncCause::Ready);
    socket.send(&ready(SessionId::new())).await;
    server.call("/v1/sync").await.ok(&synced(ChannelId::new(), [1], true));
    assert_eq!(caught_up(&mut events).await, SyncCause::Ready);
}

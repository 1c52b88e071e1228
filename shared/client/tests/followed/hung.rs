//! A server that takes connections and says nothing, as one does that is stopped: its kernel goes on.

use crate::server::{Server, message, name, within};
use serde_json::json;
use std::time::Duration;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, timeout},
};
use touchline_client::{Client, ClientError, Event, NewMessage, Trouble};
use touchline_ids::{ChannelId, MessageId};
use touchline_mesh::Shutdown;

/// How long a server may take to begin its answer where there is another one, and at all.
const TURN: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(10);

/// The server and the connections it took.
struct Hung {
    url: String,
    connections: mpsc::Receiver<TcpStream>,
    life: Shutdown,
}

impl Hung {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (to_test, connections) = mpsc::channel(16);
        let life = Shutdown::new();
        life.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if to_test.send(stream).await.is_err() {
                    return;
                }
            }
        });
        Self { url, connections, life }
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

#[tokio::test]
async fn a_device_whose_api_hangs_asks_the_next_one_in_three_seconds_and_stays_there() {
    let (mut server, mut hung) = (Server::start().await, Hung::start().await);
    let began = Instant::now();
    let client = Client::any_of(&[&hung.url, &server.url]).expect("URLs");
    let mut events = server.device_of(&client, |_| {});
    let _socket = server.connect(1).await;
    let _stuck = hung.connections.recv().await.expect("it was asked first");
    assert!(began.elapsed() >= TURN);
    let channel = ChannelId::new();
    let messages = [message(channel, 1)];
    let synced = json!({"channel_id": channel, "head_seq": 1, "messages": messages, "more": false, "reset": true});
    server.call("/v1/sync").await.ok(&json!({"channels": [synced], "gone": []}));
    let mut seen = Vec::new();
    while let Some(event) = within("a message", events.recv()).await {
        match event {
            Event::Message(_) => break,
            event => seen.push(event),
        }
    }
    let failed = |event: &Event| matches!(event, Event::Offline { .. } | Event::SyncFailed { .. });
    assert!(!seen.iter().any(failed), "it is no failure: {seen:?}");
    assert!(hung.connections.try_recv().is_err(), "it is left alone");
}

#[tokio::test]
async fn a_call_that_hangs_goes_to_the_next_server_as_it_was() {
    let (mut server, hung) = (Server::start().await, Hung::start().await);
    let client = Client::any_of(&[&hung.url, &server.url]).expect("URLs").as_user("first token");
    let (channel, hello) = (ChannelId::new(), NewMessage::new("hello"));
    let path = format!("/v1/channels/{channel}/messages");
    let calls = async {
        let (synced, connected, sent) = tokio::join!(
            async { client.beginning_with(0).sync(&[], Some(3)).await },
            async { client.beginning_with(0).connect(&name()).await },
            async { client.beginning_with(0).send(channel, &hello).await },
        );
        synced.expect("the next one answers");
        assert_eq!(connected.expect_err("as it says").status(), Some(503), "an answer is an answer");
        assert_eq!(sent.expect("the next one answers").seq.0, 1);
    };
    let answers = async {
        for _ in 0..3 {
            let call = server.any_call().await;
            assert_eq!(call.token, "Bearer first token");
            match call.path.as_str() {
                "/v1/sync" => {
                    assert_eq!(call.body, json!({"cursors": [], "recent": 3}));
                    call.ok(&json!({"channels": [], "gone": []}));
                }
                "/v1/connect" => call.refuse(503, "unavailable", Some(1)),
                other => {
                    assert_eq!((other, &call.body), (path.as_str(), &json!(hello)));
                    call.ok(&json!({
                        "channel_id": channel, "seq": 1, "message_id": MessageId::new(),
                        "created_at": "2026-01-02T03:04:05Z", "duplicate": false,
                    }));
                }
            }
        }
    };
    tokio::join!(calls, answers);
}

#[tokio::test]
async fn a_send_that_one_server_may_still_store_is_not_refused_by_another() {
    let (mut server, hung) = (Server::start().await, Hung::start().await);
    let client = Client::any_of(&[&hung.url, &server.url]).expect("URLs").as_user("first token");
    let (channel, hello) = (ChannelId::new(), NewMessage::new("hello"));
    for (status, is_unknown) in [(503, true), (429, true), (401, true), (409, false)] {
        let sender = client.beginning_with(0);
        let refuse = async { server.any_call().await.refuse(status, "x", Some(1)) };
        let (sent, ()) = tokio::join!(sender.send(channel, &hello), refuse);
        assert_eq!(sent.expect_err("refused").is_unknown(), is_unknown, "{status}");
    }
}

#[tokio::test]
async fn what_must_not_be_made_twice_is_not() {
    let (mut server, hung) = (Server::start().await, Hung::start().await);
    let client = Client::any_of(&[&hung.url, &server.url]).expect("URLs").as_user("first token");
    // The refresh token is used up by whoever reads it first; the channel would be there twice.
    let refresh = timeout(TURN * 2, client.refresh("r"));
    let other = client.beginning_with(0);
    let create = timeout(TURN * 2, other.create_channel("c", &[]));
    let (refresh, create) = tokio::join!(refresh, create);
    assert!(refresh.is_err() && create.is_err(), "both wait on");
    assert!(!server.is_called());
    // The next call goes to the next server.
    let next = async {
        server.call("/v1/sync").await.ok(&json!({"channels": [], "gone": []}));
    };
    let (synced, ()) = tokio::join!(client.sync(&[], None), next);
    synced.expect("an answer");
}

#[tokio::test]
async fn with_one_address_an_answer_is_waited_for_in_all() {
    let (server, mut hung) = (Server::start().await, Hung::start().await);
    let client = Client::new(&hung.url).expect("a URL");
    let began = Instant::now();
    let mut events = server.device_of(&client, |_| {});
    let Some(Event::Offline { why, .. }) = within("the end of its patience", events.recv()).await else {
        panic!("not offline");
    };
    assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
    assert!(matches!(why, Trouble::Failed(ClientError::TooSlow)), "{why}");
    assert!(hung.connections.recv().await.is_some());
}

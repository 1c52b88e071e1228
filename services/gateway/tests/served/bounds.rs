//! What is bounded is driven to its bound.

use crate::{
    client::{Api, message, within},
    fixture::Served,
};
use futures_util::SinkExt as _;
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tonic::Code;
use touchline_ids::{ChannelId, UserId};
use touchline_proto::push::push_service_client::PushServiceClient;
use touchline_registry::Registry as _;

#[tokio::test]
async fn a_client_that_asks_but_does_not_read_is_not_read_from_either() {
    let served = Served::start(|config| {
        config.limits.frames_per_second = 1_000_000;
        config.limits.frame_burst = 1_000_000_000;
        config.times.write_ms = 300;
        config.times.close_ms = 300;
    })
    .await;
    let user = UserId::new();
    let mut client = served.connect(user, "phone", 1).await;
    let ping = || Frame::text(r#"{"type":"ping"}"#);
    // Until nobody takes them any more; then the session is slow like any other.
    within("nobody reads", async {
        while let Ok(Ok(())) = timeout(Duration::from_millis(100), client.socket.send(ping())).await {}
    })
    .await;
    served.world.routes_become(user, &[]).await;
}

#[tokio::test]
async fn no_push_is_read_while_too_many_acks_are_awaited_and_none_is_lost() {
    let served = Served::start(|config| {
        config.limits.awaited_acks = 3;
        config.times.early_check_ms = 50;
    })
    .await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    for seq in 1..=10 {
        api.push(message(channel, seq), &[user], 30_000).await;
    }
    for seq in 1..=3 {
        assert_eq!(client.hear().await["seq"], seq);
    }
    assert_eq!(client.is_alive().await, 3, "the rest waits in the stream");
    client.ack(channel, 10).await;
    for seq in 4..=10 {
        assert_eq!(client.hear().await["seq"], seq);
    }
    for push_id in 1..=10 {
        assert_eq!(api.answer_to(push_id).await.unacked, []);
    }
}

#[tokio::test]
async fn so_many_apis_have_a_push_stream_and_no_more() {
    let served = Served::start(|_| {}).await;
    let mut apis = Vec::new();
    for _ in 0..256 {
        apis.push(served.api().await);
    }
    let channel = touchline_mesh::client::stream_channel(&format!("http://{}", served.grpc)).expect("an address");
    let mut service = PushServiceClient::new(channel);
    let mut push = async || {
        let (_pushes, receiver) = mpsc::channel(1);
        service.push(ReceiverStream::new(receiver)).await.map(drop)
    };
    assert_eq!(push().await.expect_err("one too many").code(), Code::ResourceExhausted);
    apis.pop();
    within("a place", async { while push().await.is_err() {} }).await;
}

#[tokio::test]
async fn an_api_that_does_not_take_results_loses_its_stream() {
    let served = Served::start(|_| {}).await;
    let mut api: Api = served.api().await;
    let nobody: Vec<_> = (0..20_000).map(|_| UserId::new()).collect();
    let channel = ChannelId::new();
    // Each answer names all of them.
    let pushing = async {
        for seq in 1.. {
            api.push(message(channel, seq), &nobody, 0).await;
        }
    };
    let lost = async {
        let streams = async || served.world.registry.gateways().await.expect("answers")[0].push_streams;
        for wanted in [1, 0] {
            while streams().await != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let lost = timeout(Duration::from_secs(60), async {
        tokio::select! {
            () = pushing => {}
            () = lost => {}
        }
    });
    lost.await.expect("in time");
}

#[tokio::test]
async fn a_push_to_more_recipients_than_one_may_have_reaches_nobody_and_says_so() {
    let served = Served::start(|_| {}).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    let mut users = Vec::from_iter((0..20_000).map(|_| UserId::new()));
    users.push(user);
    api.push(message(channel, 1), &users, 0).await;
    assert_eq!(api.answer().await.gone, users);
    api.push(message(channel, 2), &users[1..], 0).await;
    assert_eq!(client.hear().await["seq"], 2, "as many as it may have are served");
    assert_eq!(api.answer().await.unacked, [user]);
}

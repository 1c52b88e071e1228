//! What devices have acked, told to the apis.

use crate::fixture::Served;
use touchline_ids::{ChannelId, UserId};

#[tokio::test]
async fn what_devices_ack_is_told_to_the_oldest_stream_once() {
    let served = Served::start(|config| config.times.acks_ms = 50).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    let (mut oldest, _newer) = (served.api().await, served.api().await);
    client.ack(channel, 5).await;
    assert_eq!(oldest.acks().await, Some(vec![(user, channel, 5)]));
    // Nothing new is no news.
    client.ack(channel, 4).await;
    client.ack(channel, 7).await;
    assert_eq!(oldest.acks().await, Some(vec![(user, channel, 7)]));
}

#[tokio::test]
async fn what_was_told_to_a_stream_that_broke_is_told_to_another() {
    let served = Served::start(|config| config.times.acks_ms = 50).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    let (mut oldest, mut newer) = (served.api().await, served.api().await);
    client.ack(channel, 5).await;
    assert_eq!(oldest.acks().await, Some(vec![(user, channel, 5)]));
    drop(oldest);
    assert_eq!(newer.acks().await, Some(vec![(user, channel, 5)]));
}

#[tokio::test]
async fn acks_wait_for_an_api() {
    let served = Served::start(|config| config.times.acks_ms = 50).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    for seq in 1..=3 {
        client.ack(channel, seq).await;
    }
    client.is_alive().await;
    drop(client);
    served.world.routes_become(user, &[]).await;
    assert_eq!(served.api().await.acks().await, Some(vec![(user, channel, 3)]));
}

#[tokio::test]
async fn a_stopping_gateway_tells_the_last_acks_before_its_streams_end() {
    let served = Served::start(|config| {
        config.times.acks_ms = 3_600_000;
        config.times.drain_head_start_ms = 0;
    })
    .await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    client.ack(channel, 5).await;
    client.is_alive().await;
    served.shutdown.stop();
    assert_eq!(client.hear().await["type"], "reconnect");
    client.ack(channel, 6).await;
    client.is_alive().await;
    drop(client);
    assert_eq!(api.acks().await, Some(vec![(user, channel, 6)]));
    assert_eq!(api.acks().await, None, "the stream ends in order");
    assert!(served.ended().await.is_ok());
}

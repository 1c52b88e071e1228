//! What an api asks besides showing a message: who has acked, and that sessions sync.

use crate::{
    client::{Answer, message},
    fixture::Served,
};
use std::time::{Duration, Instant};
use touchline_ids::{ChannelId, IncarnationId, UserId};
use touchline_proto::{
    convert::pack_users,
    push::{PushRequest, push_request::Purpose},
};

#[tokio::test]
async fn asking_shows_nothing_and_names_who_has_not_acked() {
    let served = Served::start(|_| {}).await;
    let [acked, silent, gone] = std::array::from_fn(|_| UserId::new());
    let channel = ChannelId::new();
    let mut acking = served.connect(acked, "phone", 1).await;
    let mut waiting = served.connect(silent, "phone", 1).await;
    let mut api = served.api().await;
    acking.ack(channel, 5).await;
    acking.is_alive().await;
    let answer = api.ask(message(channel, 5), &[acked, silent, gone], 0).await;
    assert_eq!(answer, Answer { push_id: 1, gone: vec![gone], unacked: vec![silent], ..Answer::default() });
    assert_eq!((acking.is_alive().await, waiting.is_alive().await), (0, 0), "nobody was shown anything");
}

#[tokio::test]
async fn asking_without_a_wait_is_answered_at_once_whatever_waits_before_it() {
    let served = Served::start(|_| {}).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    let begin = Instant::now();
    for seq in 1..=10 {
        api.push(message(channel, seq), &[user], 30_000).await;
    }
    for _ in 0..10 {
        client.hear().await;
    }
    assert_eq!(api.ask(message(channel, 10), &[user], 0).await.unacked, [user]);
    client.ack(channel, 10).await;
    client.is_alive().await;
    assert_eq!(api.ask(message(channel, 10), &[user], 0).await.unacked, []);
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn asking_with_a_wait_waits_for_the_ack() {
    let served = Served::start(|config| config.times.early_check_ms = 50).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    let users = [user];
    let (answer, ()) = tokio::join!(api.ask(message(channel, 1), &users, 30_000), client.ack(channel, 1));
    assert_eq!(answer, Answer { push_id: 1, ..Answer::default() });
}

#[tokio::test]
async fn the_named_users_are_told_to_sync_and_nobody_else() {
    let served = Served::start(|_| {}).await;
    let (ann, bob) = (UserId::new(), UserId::new());
    let mut anns = [served.connect(ann, "phone", 1).await, served.connect(ann, "laptop", 1).await];
    let mut bobs = served.connect(bob, "phone", 1).await;
    let mut api = served.api().await;
    api.resync(&[ann, UserId::new()]).await;
    for device in &mut anns {
        device.ready().await;
    }
    bobs.say(&serde_json::json!({"type":"ping"})).await;
    assert_eq!(bobs.hear().await["type"], "pong", "it was not told");
}

#[tokio::test]
async fn naming_nobody_tells_everybody_to_sync() {
    let served = Served::start(|_| {}).await;
    let mut devices = Vec::new();
    for _ in 0..20 {
        devices.push(served.connect(UserId::new(), "phone", 1).await);
    }
    served.api().await.resync(&[]).await;
    for device in &mut devices {
        device.ready().await;
    }
}

#[tokio::test]
async fn another_life_of_the_database_ends_every_ack_and_has_everybody_sync() {
    let served = Served::start(|_| {}).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut device = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    device.ack(channel, 5).await;
    device.is_alive().await;
    assert_eq!(api.ask(message(channel, 5), &[user], 0).await.unacked, []);
    for life in [7, 7, 8] {
        let change = |push: &mut PushRequest| {
            push.set_purpose(Purpose::Life);
            push.database_life = life;
        };
        assert_eq!(api.ask(message(channel, 5), &[user], 0).await.unacked, [], "the same life: nothing is forgotten");
        let push_id = api.send(change).await;
        assert_eq!(api.answer_to(push_id).await, Answer { push_id, ..Answer::default() });
    }
    device.ready().await;
    assert_eq!(api.ask(message(channel, 5), &[user], 0).await.unacked, [user], "that was another log's 5");
    device.ack(channel, 4).await;
    device.is_alive().await;
    assert_eq!(api.ask(message(channel, 4), &[user], 0).await.unacked, []);
}

#[tokio::test]
async fn sessions_are_told_to_sync_while_the_registry_is_away() {
    let served = Served::start(|_| {}).await;
    let user = UserId::new();
    let mut device = served.connect(user, "phone", 1).await;
    served.world.registry.set_away(true);
    served.api().await.resync(&[user]).await;
    device.ready().await;
}

#[tokio::test]
async fn another_incarnation_is_neither_asked_nor_resynced() {
    let served = Served::start(|_| {}).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut device = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    for purpose in [Purpose::Ask, Purpose::Resync] {
        let push_id = api
            .send(|push| {
                push.incarnation = IncarnationId::new().as_bytes().to_vec().into();
                push.recipients = pack_users([user].iter());
                push.message = Some(message(channel, 1));
                push.set_purpose(purpose);
            })
            .await;
        assert_eq!(api.answer().await, Answer { push_id, stale: true, ..Answer::default() });
    }
    device.say(&serde_json::json!({"type":"ping"})).await;
    assert_eq!(device.hear().await["type"], "pong", "it was not told");
}

#[tokio::test]
async fn a_purpose_of_the_future_is_shown_to_nobody() {
    let served = Served::start(|_| {}).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut device = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    let push_id = api
        .send(|push| {
            push.recipients = pack_users([user].iter());
            push.message = Some(message(channel, 1));
            push.purpose = 99;
        })
        .await;
    assert_eq!(api.answer().await, Answer { push_id, gone: vec![user], ..Answer::default() });
    assert_eq!(device.is_alive().await, 0);
}

//! From the push stream to the sockets and back.

use crate::{
    client::{Answer, Client, message, message_with},
    fixture::Served,
};
use std::time::{Duration, Instant};
use touchline_ids::{ChannelId, IncarnationId, MessageId, UserId};
use touchline_proto::convert::pack_users;

async fn hear_seqs(client: &mut Client, count: usize) -> Vec<i64> {
    let mut seqs = Vec::new();
    for _ in 0..count {
        let frame = client.hear().await;
        assert_eq!(frame["type"], "message", "{frame}");
        seqs.push(frame["seq"].as_i64().expect("a number"));
    }
    seqs
}

#[tokio::test]
async fn a_message_reaches_every_device_as_it_was_pushed() {
    let served = Served::start(|_| {}).await;
    let (ann, bob, channel) = (UserId::new(), UserId::new(), ChannelId::new());
    let mut devices = [served.connect(ann, "phone", 1).await, served.connect(ann, "laptop", 1).await];
    let mut stranger = served.connect(bob, "phone", 1).await;
    let mut api = served.api().await;
    let pushed = message_with(channel, 7, r#"{"text":"hé \"there\"","deep":[{}]}"#);
    api.push(pushed.clone(), &[ann], 3_000).await;
    for device in &mut devices {
        let frame = device.hear().await;
        let id = MessageId::from_slice(&pushed.message_id).expect("an id");
        let expected = serde_json::json!({
            "type": "message", "channel_id": channel.to_string(), "seq": 7, "message_id": id.to_string(),
            "sender_id": UserId::from_slice(&pushed.sender_id).expect("an id").to_string(), "kind": "text",
            "content": {"text": "hé \"there\"", "deep": [{}]}, "created_at": "2025-11-24T16:00:00.000Z",
            "check": id.check(),
        });
        assert_eq!(frame, expected);
    }
    assert_eq!(devices[0].is_alive().await, 1);
    assert_eq!(stranger.is_alive().await, 0);
}

#[tokio::test]
async fn pushes_arrive_in_order_and_are_counted() {
    let served = Served::start(|_| {}).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    for seq in 1..=200 {
        api.push(message(channel, seq), &[user], 3_000).await;
    }
    assert_eq!(hear_seqs(&mut client, 200).await, Vec::from_iter(1..=200));
    assert_eq!(client.is_alive().await, 200);
}

#[tokio::test]
async fn an_acked_push_is_answered_before_its_wait_is_over() {
    let served = Served::start(|config| config.times.early_check_ms = 200).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    let begin = Instant::now();
    let push_id = api.push(message(channel, 5), &[user], 10_000).await;
    client.hear().await;
    client.ack(channel, 5).await;
    assert_eq!(api.answer().await, Answer { push_id, ..Answer::default() });
    assert!(begin.elapsed() < Duration::from_secs(9));
}

#[tokio::test]
async fn one_acking_device_is_enough_and_a_cumulative_ack_counts() {
    let served = Served::start(|config| config.times.early_check_ms = 100).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut phone = served.connect(user, "phone", 1).await;
    let _laptop = served.connect(user, "laptop", 1).await;
    let mut api = served.api().await;
    for seq in 1..=3 {
        api.push(message(channel, seq), &[user], 10_000).await;
    }
    hear_seqs(&mut phone, 3).await;
    phone.ack(channel, 3).await;
    for push_id in 1..=3 {
        assert_eq!(api.answer().await, Answer { push_id, ..Answer::default() });
    }
}

#[tokio::test]
async fn the_result_names_exactly_the_exceptions() {
    let served = Served::start(|config| {
        config.times.early_check_ms = 50;
        config.limits.queue_frames = 1;
        config.times.write_ms = 60_000;
    })
    .await;
    let [acking, silent, gone, slow] = std::array::from_fn(|_| UserId::new());
    let channel = ChannelId::new();
    let mut client = served.connect(acking, "phone", 1).await;
    let _silent = served.connect(silent, "phone", 1).await;
    let _slow = served.connect(slow, "phone", 1).await;
    let mut api = served.api().await;
    // What the kernel takes before it is full is not ours to know: push until the queue has no room.
    let big = format!("\"{}\"", "x".repeat(60_000));
    for seq in 1.. {
        api.push(message_with(channel, seq, &big), &[slow], 0).await;
        let answer = api.answer().await;
        if answer.slow == [slow] {
            break;
        }
        assert_eq!(answer.unacked, [slow]);
    }
    client.ack(channel, 1_000_000).await;
    client.is_alive().await;
    let push_id = api.push(message(channel, 1_000_000), &[acking, silent, gone, slow], 300).await;
    let answer = api.answer().await;
    assert_eq!((answer.push_id, answer.stale, &answer.unacked), (push_id, false, &vec![silent]));
    // The slow session may be over by now.
    let mut missed = [answer.gone, answer.slow].concat();
    missed.sort();
    let mut expected = vec![gone, slow];
    expected.sort();
    assert_eq!(missed, expected);
}

#[tokio::test]
async fn a_slow_reader_is_closed_4010_and_its_neighbours_notice_nothing() {
    let served = Served::start(|config| config.times.close_ms = 10_000).await;
    let (slow, quick, channel) = (UserId::new(), UserId::new(), ChannelId::new());
    let mut reader = served.connect(slow, "phone", 1).await;
    let mut neighbour = served.connect(quick, "phone", 1).await;
    let mut api = served.api().await;
    let big = format!("\"{}\"", "x".repeat(40_000));
    for seq in 1.. {
        api.push(message_with(channel, seq, &big), &[slow, quick], 0).await;
        assert_eq!(hear_seqs(&mut neighbour, 1).await, [seq]);
        let answer = api.answer().await;
        if answer.slow == [slow] {
            break;
        }
        assert_eq!(answer.gone, []);
        assert!(seq < 2_000, "never slow");
    }
    // It reads again: first what was on its way, without a hole, then why it was closed.
    let (code, _, before) = reader.closed().await;
    assert_eq!(code, 4010);
    let seqs: Vec<_> = before.iter().map(|frame| frame["seq"].as_i64().expect("a number")).collect();
    assert_eq!(seqs, Vec::from_iter(1..=seqs.len() as i64));
    served.world.routes_become(slow, &[]).await;
}

#[tokio::test]
async fn a_reader_that_stands_still_is_closed_even_when_its_queue_has_room() {
    let served = Served::start(|config| {
        config.times.write_ms = 300;
        config.times.close_ms = 300;
        config.limits.queue_bytes = 64 << 20;
        config.limits.queue_frames = 100_000;
    })
    .await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let _reader = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    let big = format!("\"{}\"", "x".repeat(60_000));
    for seq in 1..=500 {
        api.push(message_with(channel, seq, &big), &[user], 0).await;
        api.answer().await;
    }
    served.world.routes_become(user, &[]).await;
}

#[tokio::test]
async fn a_push_for_another_incarnation_is_shown_to_nobody() {
    let served = Served::start(|_| {}).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    for incarnation in [IncarnationId::new().as_bytes().to_vec(), vec![], vec![1; 17]] {
        let push_id = api
            .send(|push| {
                push.incarnation = incarnation.into();
                push.recipients = pack_users([user].iter());
                push.message = Some(message(channel, 1));
            })
            .await;
        assert_eq!(api.answer().await, Answer { push_id, stale: true, ..Answer::default() });
    }
    assert_eq!(client.is_alive().await, 0);
}

#[tokio::test]
async fn a_malformed_push_reaches_nobody_says_so_and_leaves_the_stream_alone() {
    let served = Served::start(|config| config.times.early_check_ms = 50).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    let mut api = served.api().await;
    let broken: [fn(&mut touchline_proto::push::PushRequest); 5] = [
        |push| push.message = None,
        |push| push.message.as_mut().expect("a message").channel_id = vec![1],
        |push| push.message.as_mut().expect("a message").content = vec![0xff].into(),
        |push| push.message.as_mut().expect("a message").seq = 0,
        |push| push.recipients = [&push.recipients[..], &[1, 2, 3]].concat().into(),
    ];
    for change in broken {
        let push_id = api
            .send(|push| {
                push.recipients = pack_users([user].iter());
                push.message = Some(message(channel, 1));
                change(push);
            })
            .await;
        assert_eq!(api.answer().await, Answer { push_id, gone: vec![user], ..Answer::default() });
    }
    api.push(message(channel, 1), &[user], 500).await;
    assert_eq!(hear_seqs(&mut client, 1).await, [1]);
    assert_eq!(api.answer().await.unacked, [user]);
}

#[tokio::test]
async fn ten_thousand_recipients_are_one_push() {
    let served = Served::start(|_| {}).await;
    let mut users: Vec<_> = (0..10_000).map(|_| UserId::new()).collect();
    let mut client = served.connect(users[5_000], "phone", 1).await;
    let mut api = served.api().await;
    api.push(message(ChannelId::new(), 1), &users, 0).await;
    assert_eq!(hear_seqs(&mut client, 1).await, [1]);
    let answer = api.answer().await;
    let here = users.remove(5_000);
    assert_eq!((answer.gone, answer.unacked), (users, vec![here]));
}

#[tokio::test]
async fn two_apis_push_at_once() {
    let served = Served::start(|config| config.times.early_check_ms = 50).await;
    let (user, channels) = (UserId::new(), [ChannelId::new(), ChannelId::new()]);
    let mut client = served.connect(user, "phone", 1).await;
    let mut apis = [served.api().await, served.api().await];
    for seq in 1..=50 {
        for (api, channel) in apis.iter_mut().zip(channels) {
            api.push(message(channel, seq), &[user], 5_000).await;
        }
    }
    hear_seqs(&mut client, 100).await;
    for channel in channels {
        client.ack(channel, 50).await;
    }
    for api in &mut apis {
        for push_id in 1..=50 {
            assert_eq!(api.answer().await, Answer { push_id, ..Answer::default() });
        }
    }
}

//! Whom no device reached: the way from a missed message to a push, over a real notifier and the fake FCM.

mod scene;
mod several;
mod wishes;

use anyhow::{Context as _, Result, ensure};
use scene::Scene;
use serde_json::Value;
use std::time::{Duration, SystemTime};
use touchline_fake_fcm::{Behaviour, Change, RetryAfter};
use touchline_harness::eventually;
use touchline_storage::{PushOutcome, TargetKind};

#[tokio::test(flavor = "multi_thread")]
async fn who_is_away_is_pushed_to_once_and_three_seconds_later_with_the_new_count() -> Result<()> {
    let scene = Scene::processes(1).await?;
    let [alice, bob, carol] = scene.stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = scene.stack.channel(&[&alice, &bob, &carol]).await?;
    scene.register(&bob, "android", "ok-bob").await?;
    scene.register(&carol, "android", "ok-carol").await?;
    // Carol is there, and acks.
    let laptop = carol.device("laptop").await?;
    let first = alice.send(channel, "one").await?;
    laptop.expect(first).await?;
    let pushed = scene.pushed("ok-bob", first.seq).await;
    assert_eq!((pushed.channel.as_deref(), pushed.n), (Some(channel.to_string().as_str()), Some(1)));
    let mut last = first;
    for text in ["two", "three", "four"] {
        last = alice.send(channel, text).await?;
        laptop.expect(last).await?;
    }
    let pushed = scene.pushed("ok-bob", last.seq).await;
    assert_eq!(pushed.n, Some(4), "nobody acked the first one");
    let report = scene.report();
    assert!(report.is_clean() && report.too_close == 0 && report.duplicates == 0, "{report:?}");
    assert_eq!(report.delivered, 2, "the three between share a push, and carol needs none");
    eventually("the push is written down", async || {
        let letters = scene.stack.storage().notification_letters(false, None, 10).await?;
        Ok(letters.iter().map(|row| (row.user_id, row.due_ms)).collect::<Vec<_>>() == [(bob.id, None)])
    })
    .await?;
    bob.client().mark_read(channel, last.seq).await?;
    assert_eq!(scene.stack.storage().notification_letters(false, None, 10).await?, []);
    scene.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_wakes_and_tells_no_secrets() -> Result<()> {
    let scene = Scene::processes(1).await?;
    let [alice, bob] = scene.stack.sign_up_all(["alice", "bob"]).await?;
    let other = scene.stack.channel(&[&alice, &bob]).await?;
    let channel = scene.stack.channel(&[&alice, &bob]).await?;
    scene.fake.change(Change { needles: vec!["secret".to_owned()].into(), ..Change::default() });
    bob.client().put_device(&"phone".parse()?, "ios", "fid", "ok-fid").await?;
    alice.send(other, "another secret").await?;
    alice.send(channel, "the secret of this message").await?;
    let name = channel.to_string();
    let number = scene.fake.log().wait_for(0, |entry| entry.channel.as_deref() == Some(&*name)).await.number;
    let message = scene.message(number)?;
    assert_eq!((&message["fid"], &message["token"]), (&Value::from("ok-fid"), &Value::Null));
    assert_eq!(message["data"]["ch"], channel.to_string());
    let aps = &message["apns"]["payload"]["aps"];
    let unread: i64 = bob.client().channels().await?.iter().map(|channel| channel.unread).sum();
    assert_eq!(aps["badge"], unread, "over all channels");
    assert_eq!(message["apns"]["headers"]["apns-collapse-id"], channel.to_string());
    assert_eq!(aps["thread-id"], channel.to_string());
    let report = scene.report();
    assert!(report.is_clean() && report.leaks == 0, "{report:?}");
    scene.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn text_goes_out_only_where_the_operator_wants_it_and_is_cut_to_fit() -> Result<()> {
    let scene = Scene::with(|config| config.show_text = true).await?;
    let [alice, bob] = scene.stack.sign_up_all(["alice", "bob"]).await?;
    let channel = scene.stack.channel(&[&alice, &bob]).await?;
    scene.register(&bob, "android", "ok-bob").await?;
    let text = "schöne Grüße 👩‍👩‍👧 ".repeat(800);
    let message = touchline_client::NewMessage::new(Value::from(text.as_str()));
    let sent = alice.client().send(channel, &message).await?;
    let number = scene.pushed("ok-bob", sent.seq).await.number;
    let pushed = scene.message(number)?;
    let body = pushed["data"]["body"].as_str().context("a text")?;
    let shown = body.trim_end_matches('…').strip_prefix("alice: ").context("its sender")?;
    assert!(text.starts_with(shown) && shown.len() > 1_000, "{body}");
    assert_eq!(pushed["data"]["title"], "a channel");
    let mut bare = pushed.clone();
    bare.as_object_mut().context("a message")?.remove("token");
    assert!(bare.to_string().len() <= 3_500, "{}", bare.to_string().len());
    scene.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_void_token_is_forgotten_and_the_others_are_not() -> Result<()> {
    let scene = Scene::processes(1).await?;
    let [alice, bob] = scene.stack.sign_up_all(["alice", "bob"]).await?;
    let channel = scene.stack.channel(&[&alice, &bob]).await?;
    for (device, token) in [
        ("gone", "unreg-1"),
        ("wrong", "badtok-1"),
        ("field", "badfield-1"),
        ("foreign", "mismatch-1"),
        ("apple", "apnskey-1"),
        ("phone", "ok-1"),
    ] {
        bob.client().put_device(&device.parse()?, "android", "token", token).await?;
    }
    let sent = alice.send(channel, "hello").await?;
    scene.pushed("ok-1", sent.seq).await;
    let names = async || -> Result<Vec<String>> {
        let devices = bob.client().devices().await?;
        Ok(devices.into_iter().map(|device| device.device_id.to_string()).collect())
    };
    eventually("the void ones are forgotten", async || Ok(names().await? == ["apple", "foreign", "phone"])).await?;
    eventually("the foreign one is suspect", async || {
        let devices = scene.stack.storage().devices_of(bob.id).await?;
        let suspect: Vec<_> = devices.iter().filter(|device| device.suspect_since_ms.is_some()).collect();
        Ok(suspect.iter().map(|device| device.device_id.as_str()).collect::<Vec<_>>() == ["foreign"])
    })
    .await?;
    let next = alice.send(channel, "again").await?;
    scene.pushed("ok-1", next.seq).await;
    let report = scene.report();
    assert!(report.is_clean(), "{report:?}");
    scene.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_registered_again_during_the_push_is_kept() -> Result<()> {
    let scene = Scene::processes(1).await?;
    let [alice, bob] = scene.stack.sign_up_all(["alice", "bob"]).await?;
    let channel = scene.stack.channel(&[&alice, &bob]).await?;
    scene.register(&bob, "android", "unreg-old").await?;
    scene.fake.change(Change { latency: Some(touchline_fake_fcm::Latency::fixed(1_500.0)), ..Change::default() });
    let sent = alice.send(channel, "hello").await?;
    scene.fake.log().wait_for(0, |entry| &*entry.token == "unreg-old").await;
    scene.register(&bob, "android", "ok-new").await?;
    scene.outcome(&bob, channel, sent.seq, PushOutcome::TokenVoid).await?;
    assert_eq!(bob.client().devices().await?.len(), 1, "it has another token by now");
    let next = alice.send(channel, "again").await?;
    scene.pushed("ok-new", next.seq).await;
    scene.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_while_it_is_put_off_is_not_sent_again() -> Result<()> {
    let scene = Scene::processes(1).await?;
    let [alice, bob, carol] = scene.stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = scene.stack.channel(&[&alice, &bob, &carol]).await?;
    scene.register(&bob, "android", "ok-bob").await?;
    scene.register(&carol, "android", "ok-carol").await?;
    for token in ["ok-bob", "ok-carol"] {
        scene.fake.script(token, Behaviour::Unavailable { retry_after: RetryAfter::Absent }, 1);
    }
    let sent = alice.send(channel, "hello").await?;
    scene.outcome(&bob, channel, sent.seq, PushOutcome::Delayed).await?;
    scene.outcome(&carol, channel, sent.seq, PushOutcome::Delayed).await?;
    bob.client().mark_read(channel, sent.seq).await?;
    // Hers comes ten seconds later or more; his would have come about then, too.
    scene.pushed("ok-carol", sent.seq).await;
    let letters = scene.stack.storage().notification_letters(false, None, 10).await?;
    assert!(letters.iter().all(|row| row.user_id == carol.id), "{letters:?}");
    assert_eq!(scene.tries("ok-bob"), 1);
    let report = scene.report();
    assert!(report.is_clean(), "{report:?}");
    scene.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_called_wrong_is_given_up_and_blocks_nobody() -> Result<()> {
    let scene = Scene::processes(1).await?;
    let [alice, bob, carol] = scene.stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = scene.stack.channel(&[&alice, &bob, &carol]).await?;
    scene.register(&bob, "android", "ok-bob").await?;
    scene.register(&carol, "android", "ok-carol").await?;
    let wrong =
        r#"{"error":{"code":400,"message":"Request contains an invalid argument.","status":"INVALID_ARGUMENT"}}"#;
    scene.fake.script("ok-bob", Behaviour::Other { status: 400, body: wrong.to_owned() }, 1);
    let sent = alice.send(channel, "hello").await?;
    scene.pushed("ok-carol", sent.seq).await;
    let dead = async || scene.stack.storage().notification_letters(true, None, 10).await;
    eventually("it is given up", async || Ok(dead().await?.len() == 1)).await?;
    assert_eq!(bob.client().devices().await?.len(), 1, "the token is not to blame");
    // As an operator sees it and mends it.
    let (user, name) = (bob.id.to_string(), channel.to_string());
    let listed = scene.notifications(&["list", "--dead", "--json"]).await?;
    let row: Value = serde_json::from_str(&listed)?;
    assert_eq!(
        (&row["state"], &row["user_id"], &row["channel_id"]),
        (&"dead".into(), &user.as_str().into(), &name.as_str().into())
    );
    assert_eq!(scene.notifications(&["retry", &user, &name]).await?, "retried 1\n");
    scene.pushed("ok-bob", sent.seq).await;
    eventually("it is sent", async || Ok(scene.notifications(&["list"]).await?.contains(", sent"))).await?;
    assert_eq!(scene.notifications(&["retry", "--all-dead"]).await?, "retried 0\n");
    assert_eq!(scene.notifications(&["drop", &user, &name, "--yes"]).await?, "dropped 1\n");
    assert!(scene.notifications(&["drop", &user, &name, "--yes"]).await.is_err(), "there is none any more");
    scene.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_of_a_large_channel_who_is_away_is_pushed_to_and_nobody_else() -> Result<()> {
    const AWAY: usize = 40;
    let scene = Scene::processes(1).await?;
    let people = scene.stack.crowd(1_100).await?;
    let all: Vec<_> = people.iter().collect();
    let channel = scene.stack.channel(&all).await?;
    let (alice, others) = people.split_first().context("an owner")?;
    // Every 25th has a device that can be pushed to; two of those are there.
    let away: Vec<_> = others.iter().step_by(25).take(AWAY).collect();
    for person in &away {
        scene.register(person, "android", &format!("ok-{}", person.handle)).await?;
    }
    let (present, away) = away.split_at(2);
    let mut screens = Vec::new();
    for person in present {
        screens.push(person.device("laptop").await?);
    }
    let sent = alice.send(channel, "hello").await?;
    for screen in &screens {
        screen.expect(sent).await?;
    }
    for person in away {
        let pushed = scene.pushed(&format!("ok-{}", person.handle), sent.seq).await;
        assert!(pushed.n >= Some(1));
    }
    let report = scene.report();
    assert!(report.is_clean() && report.duplicates == 0, "{report:?}");
    assert_eq!(report.delivered, away.len() as u64, "those who are there need none");
    let storage = scene.stack.storage();
    assert_eq!(storage.notification_letters(false, None, 10).await?, [], "not a row for each");
    let written = async || Ok(storage.push_outcomes(channel, sent.seq).await?.len() == away.len());
    eventually("what came of each is written down", written).await?;
    scene.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_prints_what_would_go_out_without_secrets() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stack = touchline_harness::Stack::dev(folder.path()).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    bob.client().put_device(&"phone".parse()?, "web", "token", "never-shown").await?;
    alice.send(channel, "never shown either").await?;
    let dev = stack.api(0)?;
    let (user, shown) = (bob.id.to_string(), SystemTime::now());
    eventually("dev prints what would go out", async || {
        Ok(dev.log().lines().any(|line| line.contains(&user) && line.contains("push") && line.contains("phone")))
    })
    .await?;
    ensure!(shown.elapsed()? < Duration::from_secs(60));
    let log = dev.log();
    assert!(!log.contains("never"), "no token and no text in a log");
    assert_eq!(stack.storage().devices_of(bob.id).await?[0].target_kind, TargetKind::Token);
    stack.stop().await
}

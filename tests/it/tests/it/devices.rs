//! Devices that can be pushed to, and what their owners wish: registering, moving tokens, logging out, wishes, quiet
//! hours, mentions.

use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use touchline_client::{Client, NewMessage, NotifyWish, QuietHours};
use touchline_harness::{PASSWORD, Person, Stack, eventually};
use touchline_ids::{DeviceId, Seq};

const DAY_MS: i64 = 86_400_000;

fn named(name: &str) -> DeviceId {
    name.parse().expect("a device id")
}

/// The names of somebody's devices.
async fn names(client: &Client) -> Result<Vec<String>> {
    let devices = client.devices().await?;
    Ok(devices.into_iter().map(|device| device.device_id.to_string()).collect())
}

async fn put(person: &Person, api: usize, name: &str, token: &str) -> Result<()> {
    person.client_at(api).put_device(&named(name), "android", "token", token).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_moves_between_users_on_two_apis() -> Result<()> {
    let stack = Stack::processes(2, 1).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let device = alice.client().put_device(&named("phone"), "ios", "fid", "one-token").await?;
    assert_eq!((device.platform.as_str(), device.push.kind.as_str()), ("ios", "fid"));
    assert_eq!(alice.client_at(1).devices().await?, [device]);
    put(&alice, 0, "tablet", "another").await?;
    bob.client_at(1).put_device(&named("phone"), "ios", "fid", "one-token").await?;
    assert_eq!(names(alice.client()).await?, ["tablet"]);
    assert_eq!(names(bob.client()).await?, ["phone"]);

    // Both at once, at different apis: both are answered well, and one has it.
    for round in 0..10 {
        let token = format!("round-{round}");
        tokio::try_join!(put(&alice, 0, "phone", &token), put(&bob, 1, "phone", &token))?;
        let mut holders = 0;
        for person in [&alice, &bob] {
            let devices = stack.storage().devices_of(person.id).await?;
            holders += devices.iter().filter(|device| device.push_token == token).count();
        }
        assert_eq!(holders, 1);
    }
    alice.client().delete_device(&named("tablet")).await?;
    alice.client().delete_device(&named("tablet")).await?;
    assert!(!names(alice.client_at(1)).await?.contains(&"tablet".to_owned()));
    stack.stop().await
}

#[tokio::test]
async fn the_value_of_a_push_token_is_told_to_nobody() -> Result<()> {
    const TOKEN: &str = "nobody-reads-this-again";
    let stack = Stack::local().start().await?;
    let alice = stack.sign_up("alice").await?;
    let body = json!({"platform": "web", "push": {"kind": "token", "value": TOKEN}});
    let put = alice.client().call(Method::PUT, "/v1/devices/browser", Some(&body)).await?;
    let listed = alice.client().call(Method::GET, "/v1/devices", None).await?;
    assert_eq!(listed, json!({ "devices": [put] }));
    let fields: BTreeSet<&str> = put.as_object().context("a device")?.keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(["created_at", "device_id", "last_seen_at", "platform", "push"]));
    assert_eq!(put["push"], json!({"kind": "token"}));
    assert!(!listed.to_string().contains(TOKEN));
    stack.stop().await
}

#[tokio::test]
async fn logging_out_forgets_what_the_log_in_registered_and_nothing_else() -> Result<()> {
    let stack = Stack::local().start().await?;
    let nobody = stack.client(0);
    let phone = nobody.sign_up("alice", PASSWORD, None).await?;
    let laptop = nobody.log_in("alice", PASSWORD).await?;
    let stolen = nobody.log_in("alice", PASSWORD).await?;
    let logins = [("phone", &phone), ("laptop", &laptop), ("stolen", &stolen)];
    for (name, login) in logins {
        nobody.as_user(&login.access_token).put_device(&named(name), "android", "token", name).await?;
    }
    let (at_phone, at_laptop) = (nobody.as_user(&phone.access_token), nobody.as_user(&laptop.access_token));
    at_phone.log_out().await?;
    assert_eq!(names(&at_laptop).await?, ["laptop", "stolen"]);
    // The access token lives on; what comes late by it brings the device not back.
    let late = at_phone.put_device(&named("phone"), "android", "token", "phone").await.expect_err("logged out");
    assert_eq!((late.status(), late.code()), (Some(401), Some("unauthenticated")));

    nobody.refresh(&stolen.refresh_token).await?;
    nobody.refresh(&stolen.refresh_token).await.expect_err("it was used before");
    assert_eq!(names(&at_laptop).await?, ["laptop"]);
    stack.stop().await
}

#[tokio::test]
async fn of_too_many_devices_the_one_unseen_for_longest_goes() -> Result<()> {
    let stack = Stack::local().start().await?;
    let alice = stack.sign_up("alice").await?;
    for n in 0..20 {
        put(&alice, 0, &format!("d{n}"), &format!("t{n}")).await?;
    }
    let curtain = stack.curtain().await?;
    curtain.change("UPDATE devices SET last_seen_at = 5 WHERE device_id = 'd7'", []).await?;
    put(&alice, 0, "one-more", "t20").await?;
    let names = names(alice.client()).await?;
    assert!(names.len() == 20 && !names.contains(&"d7".to_owned()), "{names:?}");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_connects_or_syncs_is_seen() -> Result<()> {
    let stack = Stack::local().start().await?;
    let alice = stack.sign_up("alice").await?;
    for name in ["connects", "syncs", "stays-away"] {
        put(&alice, 0, name, name).await?;
    }
    let curtain = stack.curtain().await?;
    curtain.change("UPDATE devices SET last_seen_at = last_seen_at - 86400000", []).await?;
    let seen = async || -> Result<Vec<(String, i64)>> {
        let devices = stack.storage().devices_of(alice.id).await?;
        Ok(devices.into_iter().map(|device| (device.device_id.to_string(), device.last_seen_at_ms)).collect())
    };
    let before = seen().await?;
    alice.ticket(&named("connects")).await?;
    let body = json!({"cursors": [], "device_id": "syncs"});
    alice.client().call(Method::POST, "/v1/sync", Some(&body)).await?;
    eventually("two were seen", async || {
        let now = seen().await?;
        let raised = |n: usize| now[n].1 - before[n].1 >= DAY_MS;
        Ok(now[0].0 == "connects" && raised(0) && raised(2))
    })
    .await?;
    assert_eq!(seen().await?[1], before[1], "who stays away is not");
    stack.stop().await
}

#[tokio::test]
async fn a_member_says_of_what_to_be_notified() -> Result<()> {
    let stack = Stack::local().start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let wish =
        |level: &str, until: Option<&str>| NotifyWish { level: level.to_owned(), mute_until: until.map(str::to_owned) };
    assert_eq!(bob.client().notify(channel).await?, wish("all", None));
    let far = "2199-01-01T00:00:00Z";
    let set = bob.client().set_notify(channel, &wish("mentions", Some("2199-01-01T01:00:00+01:00"))).await?;
    assert_eq!(set, wish("mentions", Some(far)));
    assert_eq!(bob.client().notify(channel).await?, set);
    assert_eq!(alice.client().notify(channel).await?, wish("all", None));
    // What is over is not there, and who names no end is not muted.
    assert_eq!(bob.client().set_notify(channel, &wish("none", Some("2001-01-01T00:00:00Z"))).await?.mute_until, None);
    let path = format!("/v1/channels/{channel}/notifications");
    let plain = bob.client().call(Method::PUT, &path, Some(&json!({"level": "none"}))).await?;
    assert_eq!(plain, json!({"level": "none", "mute_until": Value::Null}));
    stack.stop().await
}

#[tokio::test]
async fn quiet_hours_are_kept_until_they_are_cleared() -> Result<()> {
    let stack = Stack::local().start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let none = alice.client().quiet_hours().await.expect_err("none yet");
    assert_eq!((none.status(), none.code()), (Some(404), Some("no_quiet_hours")));
    let hours = |from: &str, zone: &str| QuietHours {
        from: from.to_owned(),
        to: "07:00".to_owned(),
        time_zone: zone.to_owned(),
    };
    alice.client().set_quiet_hours(&hours("22:00", "UTC")).await?;
    let set = alice.client().set_quiet_hours(&hours("23:30", "america/new_york")).await?;
    assert_eq!(set, hours("23:30", "America/New_York"));
    assert_eq!(alice.client().quiet_hours().await?, set);
    bob.client().quiet_hours().await.expect_err("hers are not his");
    alice.client().clear_quiet_hours().await?;
    alice.client().clear_quiet_hours().await?;
    alice.client().quiet_hours().await.expect_err("cleared");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_mentioned_is_stored_with_the_message() -> Result<()> {
    let stack = Stack::processes(2, 1).start().await?;
    let [alice, bob, carol] = stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let curtain = stack.curtain().await?;
    let count = async |of: &str| curtain.number(&format!("SELECT COUNT(*) AS n FROM mentions {of}")).await;

    alice.client().send(channel, &NewMessage::new("nobody in particular")).await?;
    assert_eq!(count("").await?, 0);
    let mentions = vec![bob.id, carol.id, bob.id];
    let message = NewMessage { mentions, ..NewMessage::new("bob, and carol who is not here") };
    let sent = alice.client().send(channel, &message).await?;
    let bobs = format!("WHERE user_id = '{}' AND channel_id = '{channel}' AND seq = {}", bob.id, sent.seq);
    assert_eq!((count("").await?, count(&bobs).await?), (1, 1), "only members are mentioned");

    // The same once more is the same message, also named in another order; with others mentioned it is not.
    let turned = NewMessage { mentions: vec![carol.id, bob.id], ..message.clone() };
    assert!(alice.client_at(1).send(channel, &turned).await?.duplicate);
    for mentions in [vec![], vec![bob.id], vec![bob.id, carol.id, alice.id]] {
        let other = NewMessage { mentions, ..message.clone() };
        let refused = alice.client_at(1).send(channel, &other).await.expect_err("another message");
        assert_eq!((refused.status(), refused.code()), (Some(409), Some("client_message_id_reused")));
    }
    let plain = NewMessage::new("as ever");
    let first = alice.client().send(channel, &plain).await?;
    assert!(alice.client_at(1).send(channel, &plain).await?.duplicate);
    let late = NewMessage { mentions: vec![bob.id], ..plain };
    alice.client().send(channel, &late).await.expect_err("it mentioned nobody");
    assert_eq!((first.seq, count("").await?), (Seq(4), 1));
    // What members see of it is the message as ever.
    let history = bob.client().history(channel, None, None, Some(2)).await?;
    assert_eq!(history.messages[0].content, json!("bob, and carol who is not here"));
    stack.stop().await
}

//! Channels over REST: what a member is shown, page by page, and what the log tells of who came and went.

use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use touchline_client::NewMessage;
use touchline_harness::Stack;
use touchline_ids::{ChannelId, Seq};

fn fields(value: &Value) -> Vec<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[tokio::test]
async fn a_channel_shows_each_member_where_they_stand() -> Result<()> {
    let stack = Stack::local().start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let body = json!({"name": "lobby", "member_ids": [bob.id]});
    let made = alice.client().call(Method::POST, "/v1/channels", Some(&body)).await?;
    assert_eq!(fields(&made), ["created_at", "id", "last_seq", "name", "read_seq", "role", "unread"]);
    assert_eq!((&made["name"], &made["role"], &made["last_seq"]), (&json!("lobby"), &json!("owner"), &json!(1)));
    let channel: ChannelId = made["id"].as_str().context("an id")?.parse()?;
    assert_eq!(
        (channel.0.get_version_num(), made["id"].as_str()),
        (7, Some(channel.0.hyphenated().to_string().as_str()))
    );
    let created_at = made["created_at"].as_str().context("a time")?;
    assert!(
        OffsetDateTime::parse(created_at, &Rfc3339)?.offset().is_utc() && created_at.ends_with('Z'),
        "{created_at}"
    );
    for text in ["one", "two", "three"] {
        alice.send(channel, text).await?;
    }

    let stands = async || -> Result<(Seq, Seq, i64)> {
        let one = bob.client().channel(channel).await?;
        let listed = bob.client().channels().await?;
        assert_eq!(listed, std::slice::from_ref(&one), "the list and the channel agree");
        Ok((one.last_seq, one.read_seq, one.unread))
    };
    assert_eq!(stands().await?, (Seq(4), Seq(0), 4));
    for (mark, read) in [(2, 2), (1, 2), (0, 2), (4, 4), (3, 4)] {
        let answer = bob.client().mark_read(channel, Seq(mark)).await?;
        assert_eq!((answer.read_seq, answer.unread), (Seq(read), 4 - read), "a mark never moves back");
        assert_eq!(stands().await?, (Seq(4), Seq(read), 4 - read));
    }
    let renamed = alice.client().rename_channel(channel, "hall").await?;
    assert_eq!((renamed.name.as_str(), renamed.last_seq), ("hall", Seq(5)));
    assert_eq!(stands().await?, (Seq(5), Seq(4), 1), "a new name is an entry too");
    stack.stop().await
}

/// Every element of a list, by pages of two.
async fn by_pages(client: &touchline_client::Client, path: &str, list: &str, id: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = client.call(Method::GET, &format!("{path}?limit=2{after}"), None).await?;
        let elements = page[list].as_array().context("a list")?;
        all.extend(elements.iter().filter_map(|element| element[id].as_str().map(str::to_owned)));
        match page["next"].as_str() {
            Some(next) => {
                assert_eq!((elements.len(), Some(next)), (2, all.last().map(String::as_str)));
                after = format!("&after={next}");
            }
            None => return Ok(all),
        }
    }
}

#[tokio::test]
async fn my_channels_and_their_members_come_in_pages() -> Result<()> {
    let stack = Stack::local().start().await?;
    let alice = stack.sign_up("alice").await?;
    let others = stack.crowd(4).await?;
    let everybody: Vec<_> = std::iter::once(&alice).chain(&others).collect();
    let mut mine = BTreeSet::new();
    for _ in 0..5 {
        mine.insert(stack.channel(&everybody).await?.to_string());
    }
    let listed = by_pages(alice.client(), "/v1/channels", "channels", "id").await?;
    assert_eq!((listed.len(), listed.iter().cloned().collect()), (5, mine.clone()));

    let path = format!("/v1/channels/{}/members", listed[0]);
    let members = by_pages(others[0].client(), &path, "members", "user_id").await?;
    let expected: BTreeSet<_> = everybody.iter().map(|person| person.id.to_string()).collect();
    assert_eq!((members.len(), members.into_iter().collect()), (5, expected));
    // Full pages only: the last one still says that it is.
    alice.client().remove_member(listed[0].parse()?, others[3].id).await?;
    assert_eq!(by_pages(others[0].client(), &path, "members", "user_id").await?.len(), 4);
    stack.stop().await
}

#[tokio::test]
async fn who_comes_and_goes_is_told_by_the_log() -> Result<()> {
    let stack = Stack::local().start().await?;
    let [alice, bob, carol] = stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = stack.channel(&[&alice]).await?;
    let phone = alice.device("phone").await?;
    assert_eq!(alice.client().add_members(channel, &[bob.id, carol.id]).await?, Some(Seq(2)));
    assert_eq!(alice.client().add_members(channel, &[bob.id]).await?, None, "he is in it");
    bob.client().remove_member(channel, bob.id).await?;
    alice.client().set_role(channel, carol.id, "admin").await?;
    let refused = alice.client().remove_member(channel, alice.id).await.expect_err("she owns it");
    assert_eq!((refused.status(), refused.code()), (Some(409), Some("owner_must_hand_over")));
    alice.client().set_role(channel, carol.id, "owner").await?;
    carol.client().remove_member(channel, alice.id).await.expect("alice is an admin now, carol the owner");

    let history = carol.client().history(channel, None, None, None).await?;
    let told: Vec<_> =
        history.messages.iter().map(|entry| (entry.seq.0, entry.kind.as_str(), &entry.content)).collect();
    let expected = [
        (2, "joined", &json!({"user_ids": [bob.id, carol.id]})),
        (3, "left", &json!({"user_id": bob.id})),
        (4, "role_changed", &json!({"user_id": carol.id, "role": "admin"})),
        (5, "role_changed", &json!({"user_id": carol.id, "role": "owner"})),
        (6, "left", &json!({"user_id": alice.id})),
    ];
    assert_eq!(told, expected);
    // And her devices were told as it happened, until she was out.
    for (seq, kind, content) in &expected[..4] {
        let pushed = phone.expect_seq(channel, Seq(*seq)).await?;
        assert_eq!((pushed.kind.as_str(), &&pushed.content), (*kind, content));
    }
    assert_eq!(bob.client().channel(channel).await.expect_err("he left").status(), Some(404));
    stack.stop().await
}

#[tokio::test]
async fn a_first_sync_brings_as_many_recent_messages_as_asked_for() -> Result<()> {
    let stack = Stack::local().start().await?;
    let alice = stack.sign_up("alice").await?;
    let channel = stack.channel(&[&alice]).await?;
    for number in 0..59 {
        alice.client().send(channel, &NewMessage::new(number.to_string())).await?;
    }
    for (recent, expected) in [(None, 20), (Some(0), 0), (Some(1), 1), (Some(50), 50)] {
        let synced = alice.client().sync(&[], recent).await?;
        assert_eq!(synced.channels.len(), 1);
        let synced = &synced.channels[0];
        assert_eq!((synced.channel_id, synced.head_seq, synced.reset, synced.more), (channel, Seq(60), true, false));
        let seqs: Vec<_> = synced.messages.iter().map(|message| message.seq.0).collect();
        assert_eq!(seqs, (61 - expected..=60).collect::<Vec<_>>(), "{recent:?}");
    }
    stack.stop().await
}

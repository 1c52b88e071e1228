//! Who does not want to be pushed to, and for how long.

use super::scene::Scene;
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, SystemTime};
use touchline_client::{NewMessage, NotifyWish, QuietHours};
use touchline_harness::eventually;

/// `HH:MM` in UTC, so many hours from now.
fn clock(hours: u64) -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let minutes = (seconds / 60 + 60 * hours) % (24 * 60);
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_mutes_mentions_quiet_hours_and_no_push_are_held_to() -> Result<()> {
    let scene = Scene::processes(1).await?;
    let names = ["alice", "none", "mentioned", "unmentioned", "muted", "quiet", "away"];
    let people @ [alice, none, mentioned, unmentioned, muted, quiet, away] = &scene.stack.sign_up_all(names).await?;
    let all: Vec<_> = people.iter().collect();
    let channel = scene.stack.channel(&all).await?;
    for person in &all[1..] {
        scene.register(person, "android", &format!("ok-{}", person.handle)).await?;
    }
    let wish = |level: &str| NotifyWish { level: level.to_owned(), mute_until: None };
    none.client().set_notify(channel, &wish("none")).await?;
    for person in [mentioned, unmentioned] {
        person.client().set_notify(channel, &wish("mentions")).await?;
    }
    let until = time::OffsetDateTime::now_utc() + Duration::from_secs(3_600);
    let mute_until = Some(until.format(&time::format_description::well_known::Rfc3339)?);
    muted.client().set_notify(channel, &NotifyWish { level: "all".to_owned(), mute_until }).await?;
    let hours = QuietHours { from: clock(23), to: clock(2), time_zone: "UTC".to_owned() };
    quiet.client().set_quiet_hours(&hours).await?;

    let message = NewMessage { no_push: true, ..NewMessage::new(json!("nobody hears of this")) };
    alice.client().send(channel, &message).await?;
    let ids = vec![mentioned.id, none.id, muted.id];
    let message = NewMessage { mentions: ids, ..NewMessage::new(json!("hello")) };
    let sent = alice.client().send(channel, &message).await?;
    let pushed = scene.pushed("ok-away", sent.seq).await;
    assert_eq!(pushed.n, Some(1), "what is not to be pushed does not count");
    let pushed = scene.pushed("ok-mentioned", sent.seq).await;
    assert_eq!(scene.message(pushed.number)?["data"]["mention"], "1");
    let waiting = async || -> Result<Vec<_>> {
        let letters = scene.stack.storage().notification_letters(false, None, 10).await?;
        Ok(letters.into_iter().filter(|row| row.user_id != away.id && row.user_id != mentioned.id).collect())
    };
    eventually("all but one are settled", async || Ok(waiting().await?.len() == 1)).await?;
    let row = &waiting().await?[0];
    assert_eq!((row.user_id, row.tries), (quiet.id, 0));
    let hours = row.due_ms.unwrap_or_default() / 3_600_000;
    assert!((1..=2).contains(&hours), "when the quiet ends: {row:?}");
    assert_eq!(scene.report().delivered, 2);
    scene.stop().await
}

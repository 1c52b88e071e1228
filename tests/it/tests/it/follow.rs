//! The client library against real processes: whatever happens to its connection, a follower shows every message once,
//! in order. What it does with each frame is tested in `shared/client`.

use anyhow::{Context as _, Result, ensure};
use std::time::Duration;
use tokio::time::timeout;
use touchline_client::{DeviceOptions, Frame, SyncCause};
use touchline_harness::{Checker, Follower, Person, Sighting, Stack};
use touchline_ids::ChannelId;

/// Sends a message through each api in turn, and notes it.
async fn send_all(from: &Person, channel: ChannelId, checker: &Checker, count: usize) -> Result<Sighting> {
    let mut last = None;
    for number in 0..count {
        let sent = from.send_at(number % 2, channel, &number.to_string()).await?;
        checker.accepted(sent);
        last = Some(sent);
    }
    last.context("something was sent")
}

fn judge(follower: &Follower, checker: &Checker, channel: ChannelId) -> Result<()> {
    let verdict = checker.judge(&[channel], &follower.sightings());
    ensure!(verdict.is_exact(), "{verdict}");
    Ok(())
}

/// The number of the gateway a follower is at.
fn gateway_of(stack: &Stack, follower: &Follower) -> Result<usize> {
    let story = follower.story();
    let (url, _) = story.sockets.last().context("never online")?;
    (0..stack.gateways()).find(|gateway| stack.gateway_url(*gateway) == url).context("a gateway of the stack")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_outlives_its_gateway_and_shows_everything_once() -> Result<()> {
    let mut stack = Stack::processes(2, 3).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let (phone, tablet) = (bob.follower("phone").await?, bob.follower("tablet").await?);
    let checker = Checker::new();
    for kills in 1..=2 {
        send_all(&alice, channel, &checker, 10).await?;
        stack.kill_gateway(gateway_of(&stack, &phone)?).await?;
        send_all(&alice, channel, &checker, 10).await?;
        phone.until("it is online elsewhere", |story| story.sockets.len() > kills).await?;
    }
    let last = send_all(&alice, channel, &checker, 10).await?;
    for follower in [phone, tablet] {
        follower.expect(last).await?;
        judge(&follower, &checker, channel)?;
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_moves_a_follower_without_a_gap() -> Result<()> {
    let mut stack = Stack::processes(2, 2).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let phone = bob.follow(DeviceOptions { raw: true, ..bob.follower_options("phone")? }).await?;
    let checker = Checker::new();
    let from = gateway_of(&stack, &phone)?;

    let drained = async { timeout(Duration::from_secs(90), stack.stop_gateway(from)).await.context("it drains")? };
    let sent = async {
        while phone.story().sockets.len() < 2 {
            send_all(&alice, channel, &checker, 2).await?;
        }
        send_all(&alice, channel, &checker, 10).await
    };
    let (drained, last) = tokio::join!(drained, sent);
    drained?;
    phone.expect(last?).await?;
    judge(&phone, &checker, channel)?;
    {
        let story = phone.story();
        assert!(story.offline.is_empty(), "{:?}", story.offline);
        assert_eq!(story.sockets.iter().map(|(_, moved)| *moved).collect::<Vec<_>>(), [false, true]);
        assert!(story.wire.iter().any(|frame| matches!(frame, Frame::Reconnect { .. })));
    }
    assert_ne!(gateway_of(&stack, &phone)?, from);
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_cut_again_and_again_shows_everything_once() -> Result<()> {
    let stack = Stack::processes(2, 2).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let phone = bob.follower("phone").await?;
    let checker = Checker::new();
    for cuts in 1..=4 {
        send_all(&alice, channel, &checker, 5).await?;
        phone.cut().await?;
        send_all(&alice, channel, &checker, 5).await?;
        phone.until("it is back", |story| story.sockets.len() > cuts).await?;
    }
    phone.expect(send_all(&alice, channel, &checker, 5).await?).await?;
    judge(&phone, &checker, channel)?;
    assert!(phone.story().syncs.iter().all(|cause| *cause == SyncCause::Ready), "{:?}", phone.story().syncs);
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_goes_on_where_its_last_life_ended() -> Result<()> {
    let stack = Stack::local().start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let (checker, phone) = (Checker::new(), bob.follower("phone").await?);
    let seen = alice.send(channel, "seen").await?;
    phone.expect(seen).await?;
    let (cursors, connection) = phone.close().await?;

    let missed = alice.send(channel, "missed").await?;
    checker.accepted(missed);
    let options = DeviceOptions { cursors, connection, ..DeviceOptions::new("phone".parse()?) };
    let phone = bob.follow(options).await?;
    phone.expect(missed).await?;
    judge(&phone, &checker, channel)?;
    assert!(phone.story().resets.is_empty());
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_replaced_ends() -> Result<()> {
    let stack = Stack::local().start().await?;
    let bob = stack.sign_up("bob").await?;
    let first = bob.follower("phone").await?;
    let _second = bob.follower("phone").await?;
    let replaced = first.until("nothing", |_| false).await.expect_err("it ends").to_string();
    assert!(replaced.contains("4009"), "{replaced}");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_told_by_the_next_sync() -> Result<()> {
    let stack = Stack::local().start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let phone = bob.follower("phone").await?;
    alice.client().remove_member(channel, bob.id).await?;
    alice.send(channel, "not for bob").await?;
    phone.cut().await?;
    phone.until("the channel is gone", |story| story.gone == [channel]).await?;
    assert_eq!(phone.story().shown.len(), 1);
    stack.stop().await
}

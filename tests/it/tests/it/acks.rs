//! What an ack means: it is kept, it cancels, and what was never acked is shown again or synced.

use crate::registry::servers::Server;
use anyhow::Result;
use futures_util::future::try_join_all;
use touchline_client::Frame;
use touchline_harness::{Checker, Device, Inbox, Link, LinkKind, OwnPostgres, Stack, eventually};
use touchline_ids::{ChannelId, Seq, UserId};

/// Sooner than by default; the order of things is the same.
fn quick(api: &mut touchline_api::Config) {
    (api.ack_wait_ms, api.second_look_ms) = (500, 100);
}

async fn ack(device: &Device, channel: ChannelId, seq: Seq) -> Result<()> {
    device.send(format!(r#"{{"type":"ack","cursors":{{"{channel}":{}}}}}"#, seq.0)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_ack_cancels_the_notification() -> Result<()> {
    for stack in [Stack::local(), Stack::processes(2, 2)] {
        let stack = stack.api(quick).start().await?;
        let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
        let channel = stack.channel(&[&alice, &bob]).await?;
        let phone = bob.silent_device("phone").await?;
        let sent = alice.send(channel, "hello").await?;
        phone.expect(sent).await?;
        let pending = async || stack.storage().pending_notifications(channel).await;
        eventually("bob is to be notified", async || Ok(pending().await?.iter().any(|row| row.0 == bob.id))).await?;
        ack(&phone, channel, sent.seq).await?;
        eventually("bob is not to be notified any more", async || Ok(pending().await?.is_empty())).await?;
        stack.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acked_stays_acked_when_everything_is_killed() -> Result<()> {
    let mut postgres = OwnPostgres::start().await?;
    let mut stack = Stack::processes(1, 1).on_postgres(&postgres).start().await?;
    let [alice, bob, carol] = stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = stack.channel(&[&alice, &bob, &carol]).await?;
    let phone = bob.device("phone").await?;
    let acked = alice.send(channel, "hello").await?;
    phone.expect(acked).await?;
    // Whoever has acked a message is not to be notified of it, whatever asks for that.
    let notified = async |stack: &Stack| -> Result<Vec<UserId>> {
        stack.storage().notify(&[(bob.id, channel, acked.seq), (carol.id, channel, acked.seq)]).await?;
        Ok(stack.storage().pending_notifications(channel).await?.into_iter().map(|(user, ..)| user).collect())
    };
    eventually("the ack is kept", async || Ok(notified(&stack).await? == [carol.id])).await?;

    let nodes: Vec<_> = stack.nodes().collect();
    for node in &nodes {
        stack.kill(*node).await?;
    }
    postgres.stop_immediately()?;
    postgres.start_again().await?;
    for node in nodes.into_iter().rev() {
        stack.start_node(node).await?;
    }
    eventually("the database is back for us too", async || Ok(stack.storage().ping().await.is_ok())).await?;
    assert_eq!(notified(&stack).await?, [carol.id], "only who had not acked");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_that_heals_closes_its_holes_without_a_new_message() -> Result<()> {
    let stack = Stack::processes(1, 2).api(quick).proxied(&[LinkKind::ApiGateway]).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let phone = bob.device_at("phone", stack.gateway_url(1)).await?;
    let mut inbox = Inbox::new();
    inbox.sync(&bob).await?;
    let before = alice.send(channel, "before").await?;
    inbox.take(&[phone.expect(before).await?]);

    let link = stack.link(Link::ApiGateway(1))?;
    link.refuse(true);
    link.reset_all();
    let sent = alice.send(channel, "into the void").await?;
    eventually("bob is to be notified", async || {
        Ok(stack.storage().pending_notifications(channel).await?.iter().any(|row| row.0 == bob.id))
    })
    .await?;
    assert!(!phone.sightings().contains(&sent));
    link.refuse(false);
    link.heal();
    // Its session is told to sync.
    phone.frame(|frame| matches!(frame, Frame::Ready { .. })).await?;
    inbox.sync(&bob).await?;
    assert_eq!(inbox.end(channel), Some(sent.seq));
    // A cursor that is right says what an ack says.
    inbox.sync(&bob).await?;
    eventually("and is not to be notified any more", async || {
        Ok(stack.storage().pending_notifications(channel).await?.is_empty())
    })
    .await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_forgets_everything_under_load_costs_no_push() -> Result<()> {
    let redis = Server::start(&[]).await;
    let stack = Stack::processes(2, 2).registry(&[redis.url()]).unlimited().start().await?;
    let people = stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let mut phones = Vec::new();
    for (index, person) in people[1..].iter().enumerate() {
        phones.push(person.device_at("phone", stack.gateway_url(index)).await?);
    }
    let checker = Checker::new();
    // Each api has streams to both gateways.
    for api in 0..2 {
        let sent = people[0].send_at(api, channel, "before").await?;
        checker.accepted(sent);
        for phone in &phones {
            phone.expect(sent).await?;
        }
    }
    for round in 0..3 {
        redis.run::<()>("FLUSHALL").await?;
        for number in 0..20 {
            let sent = people[0].send_at(number % 2, channel, &format!("{round}.{number}")).await?;
            checker.accepted(sent);
        }
        // No phone syncs: each is pushed to.
        for phone in &phones {
            for seq in checker.seqs(channel) {
                phone.expect_seq(channel, seq).await?;
            }
        }
    }
    // Acks that came late took their notifications away.
    eventually("nobody is to be notified", async || {
        Ok(stack.storage().pending_notifications(channel).await?.is_empty())
    })
    .await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_registry_hangs_pushes_are_broadcast_until_it_answers() -> Result<()> {
    let redis = Server::start(&[]).await;
    let stack = Stack::processes(1, 2).registry(&[redis.url()]).unlimited().start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    // Each asks the registry by itself, so that they fail at the same time.
    let mut channels = Vec::new();
    for _ in 0..8 {
        channels.push(stack.channel(&[&alice, &bob]).await?);
    }
    let phone = bob.device_at("phone", stack.gateway_url(1)).await?;
    let said = |what: &str| Ok(stack.api(0)?.log().contains(what));
    let all_arrive = async || {
        for sent in try_join_all(channels.iter().map(|channel| alice.send(*channel, "hello"))).await? {
            phone.expect(sent).await?;
        }
        anyhow::Ok(())
    };
    redis.signal("STOP");
    eventually("the breaker opens", async || {
        all_arrive().await?;
        said("every push is broadcast")
    })
    .await?;
    redis.signal("CONT");
    eventually("the breaker closes", async || {
        all_arrive().await?;
        said("pushes are routed")
    })
    .await?;
    stack.stop().await
}

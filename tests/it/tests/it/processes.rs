//! What happens to processes: killed, hanging, stopped. One checker judges every run: lost, duplicated, out of order.

use crate::{binary::Tail, registry::servers::Server};
use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use std::time::Duration;
use tokio::time::timeout;
use touchline_client::Frame;
use touchline_harness::{Checker, Device, Inbox, Person, Stack, eventually};
use touchline_ids::{ChannelId, Seq};
use uuid::Uuid;

/// A person's phone as an application runs it: it reconnects and syncs.
struct Phone {
    person: Person,
    device: Device,
    inbox: Inbox,
}

impl Phone {
    async fn at(person: &Person, gateway: &str) -> Result<Self> {
        let device = person.device_at("phone", gateway).await?;
        let mut phone = Self { person: person.clone(), device, inbox: Inbox::new() };
        phone.inbox.sync(person).await?;
        Ok(phone)
    }

    /// Opens another socket, wherever the api says, and syncs.
    async fn reconnect(&mut self) -> Result<()> {
        self.inbox.take(&self.device.messages());
        self.device = self.person.device("phone").await?;
        self.inbox.sync(&self.person).await
    }

    /// Takes what came, fills what is missing, and holds all of it to the checker.
    async fn is_exact(&mut self, checker: &Checker, channel: ChannelId) -> Result<()> {
        self.inbox.take(&self.device.messages());
        self.inbox.sync(&self.person).await?;
        let mut shown = self.inbox.shown();
        // The channel's first entry, its creation, was not sent by anybody.
        shown.retain(|sighting| sighting.seq.0 > 1);
        let verdict = checker.judge(&[channel], &shown);
        anyhow::ensure!(verdict.is_exact(), "{}: {verdict}", self.person.handle);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_loses_no_message() -> Result<()> {
    let mut stack = Stack::processes(2, 3).start().await?;
    let people = stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let mut phones = Vec::new();
    for (index, person) in people.iter().enumerate() {
        phones.push(Phone::at(person, stack.gateway_url(index)).await?);
    }

    let checker = Checker::new();
    for number in 0..60 {
        if number == 20 {
            stack.kill_gateway(1).await?;
        }
        if number == 40 {
            phones[1].device.closed().await?;
            phones[1].reconnect().await?;
        }
        let sent = people[0].send_at(number % 2, channel, &number.to_string()).await?;
        checker.accepted(sent);
        // The other gateways never notice.
        phones[0].device.expect(sent).await?;
        phones[2].device.expect(sent).await?;
    }
    for phone in &mut phones {
        phone.is_exact(&checker, channel).await?;
    }
    assert_eq!((checker.conflicts(), checker.holes(channel)), (vec![], vec![]));
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_again_is_found_again() -> Result<()> {
    let mut stack = Stack::processes(1, 1).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let mut phone = Phone::at(&bob, stack.gateway_url(0)).await?;
    let checker = Checker::new();
    checker.accepted(alice.send(channel, "before").await?);
    stack.kill_gateway(0).await?;
    checker.accepted(alice.send(channel, "while it is away").await?);
    stack.start_gateway(0).await?;

    // The api names the dead address until it looks again.
    eventually("the api names the new address", async || {
        Ok(bob.ticket(phone.device.name()).await?.gateways[0].url == stack.gateway_url(0))
    })
    .await?;
    phone.reconnect().await?;
    let after = alice.send(channel, "after").await?;
    checker.accepted(after);
    phone.device.expect(after).await?;
    phone.is_exact(&checker, channel).await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_gateway_holds_nobody_else_up() -> Result<()> {
    // Longer than a request may take: a sender who waited for the hanging gateway's result would get a timeout.
    let stack = Stack::processes(1, 2).api(|api| api.ack_wait_ms = 30_000).start().await?;
    let people = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let mut well = Phone::at(&people[0], stack.gateway_url(0)).await?;
    let mut hanging = Phone::at(&people[1], stack.gateway_url(1)).await?;

    let checker = Checker::new();
    stack.gateway(1)?.pause()?;
    for number in 0..20 {
        let sent = people[0].send(channel, &number.to_string()).await?;
        checker.accepted(sent);
        well.device.expect(sent).await?;
    }
    stack.gateway(1)?.resume()?;
    well.is_exact(&checker, channel).await?;
    hanging.is_exact(&checker, channel).await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_api_accepted_is_there_for_everybody() -> Result<()> {
    let mut stack = Stack::processes(2, 2).start().await?;
    let people = stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let mut phones = Vec::new();
    for (index, person) in people.iter().enumerate() {
        phones.push(Phone::at(person, stack.gateway_url(index % 2)).await?);
    }

    // Many at once, and the api dies among them: some are answered, some are not, all may be stored.
    let checker = Checker::new();
    let sends = (0..40).map(|number| people[number % 3].send_at(1, channel, "hello"));
    let (answers, killed) = tokio::join!(futures_util::future::join_all(sends), stack.kill_api(1));
    killed?;
    answers.into_iter().flatten().for_each(|sent| checker.accepted(sent));
    let last = people[0].send(channel, "after").await?;

    // The other api goes on. What the killed one did not get to push is in the sync.
    for phone in &phones {
        phone.device.expect(last).await?;
    }
    // What was stored without an answer counts as accepted now.
    let history = people[0].client().history(channel, Some(Seq(1)), None, Some(200)).await?;
    history.messages.iter().for_each(|message| checker.accepted(message.into()));
    assert_eq!((checker.conflicts(), checker.holes(channel)), (vec![], vec![]));
    for phone in &mut phones {
        phone.is_exact(&checker, channel).await?;
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_gateway_sends_its_clients_on_and_ends_well() -> Result<()> {
    let mut stack = Stack::processes(1, 2).start().await?;
    let people = stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let mut phones = Vec::new();
    for person in &people {
        phones.push(Phone::at(person, stack.gateway_url(0)).await?);
    }
    let checker = Checker::new();
    checker.accepted(people[0].send(channel, "before").await?);

    let stopped = async { timeout(Duration::from_secs(90), stack.stop_gateway(0)).await.context("it drains")? };
    let moved = try_join_all(phones.iter_mut().map(|phone| async {
        phone.device.frame(|frame| matches!(frame, Frame::Reconnect { .. })).await?;
        phone.reconnect().await
    }));
    let (stopped, moved) = tokio::join!(stopped, moved);
    stopped?;
    moved?;

    let after = people[0].send(channel, "after").await?;
    checker.accepted(after);
    for phone in &mut phones {
        assert_eq!(phone.device.gateway(), stack.gateway_url(1));
        phone.device.expect(after).await?;
        phone.is_exact(&checker, channel).await?;
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_api_finishes_what_it_accepted() -> Result<()> {
    let mut stack = Stack::processes(2, 1).start().await?;
    let people = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let mut phone = Phone::at(&people[1], stack.gateway_url(0)).await?;
    let checker = Checker::new();
    let sends = (0..40).map(|_| people[0].send_at(1, channel, "hello"));
    let (answers, stopped) = tokio::join!(futures_util::future::join_all(sends), stack.stop_api(1));
    stopped?;
    answers.into_iter().flatten().for_each(|sent| checker.accepted(sent));
    for seq in checker.seqs(channel) {
        phone.device.expect_seq(channel, seq).await?;
    }
    let history = people[0].client().history(channel, Some(Seq(1)), None, Some(200)).await?;
    history.messages.iter().for_each(|message| checker.accepted(message.into()));
    phone.is_exact(&checker, channel).await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_connected_devices_still_get_everything() -> Result<()> {
    let mut redis = Server::start(&[]).await;
    let stack = Stack::processes(1, 2).registry(&[redis.url()]).start().await?;
    let people = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let mut phones = Vec::new();
    for (index, person) in people.iter().enumerate() {
        phones.push(Phone::at(person, stack.gateway_url(index)).await?);
    }
    let checker = Checker::new();
    redis.kill();
    for number in 0..10 {
        let sent = people[0].send(channel, &number.to_string()).await?;
        checker.accepted(sent);
        for phone in &phones {
            phone.device.expect(sent).await?;
        }
    }
    redis.restart().await;
    let after = people[0].send(channel, "after").await?;
    checker.accepted(after);
    for phone in &mut phones {
        phone.device.expect(after).await?;
        phone.is_exact(&checker, channel).await?;
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_forgot_everything_is_filled_again() -> Result<()> {
    let redis = Server::start(&[]).await;
    let stack = Stack::processes(1, 2).registry(&[redis.url()]).start().await?;
    let people = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let mut phones = Vec::new();
    for (index, person) in people.iter().enumerate() {
        phones.push(Phone::at(person, stack.gateway_url(index)).await?);
    }
    let checker = Checker::new();
    redis.run::<()>("FLUSHALL").await?;
    for phone in &phones {
        eventually("a message is pushed again", async || {
            let sent = people[0].send(channel, "is anybody there").await?;
            checker.accepted(sent);
            Ok(phone.device.sightings().iter().any(|sighting| checker.knows(*sighting)))
        })
        .await?;
    }
    for phone in &mut phones {
        phone.is_exact(&checker, channel).await?;
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_while_the_registry_had_forgotten_a_session_comes_by_itself() -> Result<()> {
    let redis = Server::start(&[]).await;
    // The second look is over long before the routes are back: nobody pushes the message any more.
    let stack = Stack::processes(1, 1).registry(&[redis.url()]).api(|api| api.second_look_ms = 1).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let token = stack.access_tokens().issue(bob.id, Uuid::now_v7())?;
    let mut tail = Tail::start(stack.folder(), &["tail", "--token", &token, "--url", stack.api_url(0)])?;
    assert!(tail.line().await?.contains("made the channel"));
    redis.run::<()>("FLUSHALL").await?;
    alice.send(channel, "in between").await?;
    assert!(tail.line().await?.ends_with(r#"{"text":"in between"}"#));
    stack.stop().await
}

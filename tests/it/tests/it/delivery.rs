//! Who gets a message: everybody who should, nobody else, once, in order, whatever the topology.

use anyhow::Result;
use futures_util::future::try_join_all;
use serde_json::json;
use touchline_client::{Frame, NewMessage};
use touchline_harness::{Checker, Inbox, Sighting, Stack, eventually};
use touchline_ids::Seq;

/// Every way we run: one process; processes on one Redis; processes on a Redis Cluster.
async fn everywhere() -> Result<Vec<Stack>> {
    let builders = [Stack::local(), Stack::processes(2, 3), Stack::on_cluster(2, 3)];
    try_join_all(builders.map(|builder| builder.start())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_every_device_of_every_member_and_nobody_else() -> Result<()> {
    for stack in everywhere().await? {
        let [alice, bob, carol, mallory] = stack.sign_up_all(["alice", "bob", "carol", "mallory"]).await?;
        let channel = stack.channel(&[&alice, &bob, &carol]).await?;
        let other = stack.channel(&[&alice, &mallory]).await?;
        let mut devices = Vec::new();
        for gateway in 0..stack.gateways() {
            let name = format!("device-{gateway}");
            for person in [&alice, &bob, &carol] {
                devices.push(person.device_at(&name, stack.gateway_url(gateway)).await?);
            }
        }
        let outsider = mallory.device("phone").await?;

        let sent = alice.send(channel, "hello").await?;
        for device in &devices {
            let message = device.expect(sent).await?;
            assert_eq!(message.sender_id, alice.id);
            assert_eq!(message.content, json!({"text": "hello"}));
            assert_eq!(message.check, sent.message.check());
        }
        // What was sent after it has arrived: it would have, too.
        let fence = alice.send(other, "for mallory").await?;
        outsider.expect(fence).await?;
        assert!(outsider.messages().iter().all(|message| message.channel_id == other));
        for device in &devices {
            assert_eq!(device.sightings().iter().filter(|sighting| **sighting == sent).count(), 1);
        }
        stack.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_sends_through_two_apis_are_dense_and_agree_everywhere() -> Result<()> {
    const EACH: usize = 25;
    let stack = Stack::processes(2, 3).start().await?;
    let people = stack.sign_up_all(["alice", "bob", "carol", "dave"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let mut devices = Vec::new();
    for (index, person) in people.iter().enumerate() {
        devices.push(person.device_at("phone", stack.gateway_url(index % 3)).await?);
    }

    let checker = Checker::new();
    let send_all = people.iter().enumerate().map(|(index, person)| {
        let checker = &checker;
        async move {
            for number in 0..EACH {
                checker.accepted(person.send_at((index + number) % 2, channel, &format!("{index}.{number}")).await?);
            }
            anyhow::Ok(())
        }
    });
    try_join_all(send_all).await?;
    assert_eq!((checker.conflicts(), checker.holes(channel)), (vec![], vec![]));

    for (device, person) in devices.iter().zip(&people) {
        for seq in checker.seqs(channel) {
            device.expect_seq(channel, seq).await?;
        }
        // Between apis the order may differ; seq restores it.
        let mut seen = device.sightings();
        seen.retain(|sighting| checker.knows(*sighting));
        seen.sort_unstable();
        assert!(checker.judge(&[channel], &seen).is_exact(), "{}", checker.judge(&[channel], &seen));
        let history = person.client().history(channel, Some(Seq(1)), None, Some(200)).await?;
        let read: Vec<Sighting> = history.messages.iter().map(Sighting::from).collect();
        assert_eq!(read, seen, "history and sockets agree");
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_retries_of_one_client_message_id_make_one_message() -> Result<()> {
    for stack in [Stack::local(), Stack::processes(2, 1)] {
        let stack = stack.start().await?;
        let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
        let channel = stack.channel(&[&alice, &bob]).await?;
        let phone = bob.device("phone").await?;

        let message = NewMessage::new(json!({"text": "once"}));
        let tries = (0..10).map(|index| alice.client_at(index % stack.apis()).send(channel, &message));
        let answers = try_join_all(tries).await?;
        assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1);
        assert!(answers.iter().all(|answer| Sighting::from(answer) == Sighting::from(&answers[0])));

        let other = NewMessage { content: json!({"text": "twice"}), ..message };
        let refused = alice.client().send(channel, &other).await.expect_err("the key is taken");
        assert_eq!(refused.status(), Some(409));

        let after = alice.send(channel, "after").await?;
        assert_eq!(after.seq, answers[0].seq.next(), "no seq was used up");
        phone.expect(after).await?;
        let texts = phone.messages().into_iter().filter(|message| message.kind == "text").count();
        assert_eq!(texts, 2);
        stack.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_after_an_absence_returns_exactly_what_was_missed_in_order() -> Result<()> {
    /// More than one sync answers at once.
    const MISSED: usize = 450;
    for stack in [Stack::local(), Stack::processes(2, 1)] {
        let stack = stack.start().await?;
        let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
        let channel = stack.channel(&[&alice, &bob]).await?;
        let quiet = stack.channel(&[&bob, &alice]).await?;
        let mut inbox = Inbox::new();
        inbox.sync(&bob).await?;

        let checker = Checker::new();
        let phone = bob.device("phone").await?;
        let seen = alice.send(channel, "seen").await?;
        checker.accepted(seen);
        inbox.take(&[phone.expect(seen).await?]);
        phone.close().await?;
        for number in 0..MISSED {
            checker.accepted(alice.send(channel, &number.to_string()).await?);
        }

        let cursors: Vec<_> = [channel, quiet].into_iter().filter_map(|channel| inbox.cursor(channel)).collect();
        assert_eq!(cursors.len(), 2);
        let first = bob.client().sync(&cursors, None).await?;
        assert_eq!(first.channels.len(), 1, "an unchanged channel is left out");
        assert_eq!((first.channels[0].messages.len(), first.channels[0].more), (200, true));
        inbox.sync(&bob).await?;
        let mut shown = inbox.shown();
        shown.retain(|sighting| sighting.seq > Seq(1));
        assert!(checker.judge(&[channel], &shown).is_exact(), "{}", checker.judge(&[channel], &shown));
        assert_eq!(inbox.resets(), 0);
        stack.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_receives_and_reads_nothing_from_then_on() -> Result<()> {
    for stack in everywhere().await? {
        let [alice, bob, carol] = stack.sign_up_all(["alice", "bob", "carol"]).await?;
        let channel = stack.channel(&[&alice, &bob, &carol]).await?;
        let side = stack.channel(&[&alice, &carol]).await?;
        let (of_bob, of_carol) = (bob.device("phone").await?, carol.device("phone").await?);
        let before = alice.send(channel, "before").await?;
        of_carol.expect(before).await?;

        alice.client().remove_member(channel, carol.id).await?;
        // Through the other api, whose member cache has not heard of it, when there is one.
        let after = alice.send_at(stack.apis() - 1, channel, "after").await?;
        of_bob.expect(after).await?;
        let fence = alice.send_at(stack.apis() - 1, side, "fence").await?;
        of_carol.expect(fence).await?;
        let last = of_carol.messages().into_iter().filter(|message| message.channel_id == channel).map(|m| m.seq).max();
        assert_eq!(last, Some(before.seq), "nothing with seq ≥ left_seq");

        let gone = Some(404);
        let client = carol.client_at(stack.apis() - 1);
        assert_eq!(client.history(channel, None, None, None).await.expect_err("not a member").status(), gone);
        assert_eq!(client.members(channel).await.expect_err("not a member").status(), gone);
        assert_eq!(client.send(channel, &NewMessage::new("hi")).await.expect_err("not a member").status(), gone);
        let synced = client.sync(&[], Some(50)).await?;
        assert!(synced.channels.iter().all(|synced| synced.channel_id == side), "{synced:?}");
        stack.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_member_starts_where_they_joined() -> Result<()> {
    let stack = Stack::local().start().await?;
    let [alice, bob, carol] = stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    alice.send(channel, "before carol").await?;
    let phone = carol.device("phone").await?;
    alice.client().add_members(channel, &[carol.id]).await?;
    let joined = phone.frame(|frame| matches!(frame, Frame::Message(message) if message.kind == "joined")).await?;
    let Frame::Message(joined) = joined else { unreachable!("matched a message") };
    assert_eq!(joined.content, json!({"user_ids": [carol.id]}));

    let hello = bob.send(channel, "hello carol").await?;
    phone.expect(hello).await?;
    let history = carol.client().history(channel, Some(Seq(0)), None, None).await?;
    let seqs: Vec<Seq> = history.messages.iter().map(|message| message.seq).collect();
    assert_eq!(seqs, [joined.seq, hello.seq]);
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_socket_is_closed_4010_and_loses_nothing_after_sync() -> Result<()> {
    /// More than what the kernel and the queue hold between a gateway and a device that does not read.
    const MESSAGES: usize = 350;
    const LENGTH: usize = 48_000;
    // The goodbye waits for the reader, however slow this machine is.
    let stack = Stack::local().gateway(|gateway| gateway.times.close_ms = 60_000).start().await?;
    let [alice, bob, carol] = stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = stack.channel(&[&alice, &bob, &carol]).await?;
    let (slow, fast) = (bob.device("phone").await?, carol.device("phone").await?);
    let mut inbox = Inbox::new();
    inbox.sync(&bob).await?;

    let checker = Checker::new();
    slow.stop_reading().await?;
    let text = "x".repeat(LENGTH);
    for _ in 0..MESSAGES {
        let sent = alice.send(channel, &text).await?;
        checker.accepted(sent);
        fast.expect(sent).await?;
    }
    slow.read_again().await?;
    assert_eq!(slow.closed().await?.code, 4010);

    inbox.take(&slow.messages());
    assert!(inbox.end(channel) < checker.seqs(channel).last().copied(), "it missed some");
    let phone = bob.device("phone").await?;
    inbox.sync(&bob).await?;
    let after = alice.send(channel, "after").await?;
    checker.accepted(after);
    inbox.take(&[phone.expect(after).await?]);
    let mut shown = inbox.shown();
    shown.retain(|sighting| sighting.seq > Seq(1));
    assert!(checker.judge(&[channel], &shown).is_exact(), "{}", checker.judge(&[channel], &shown));
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_ack_gets_one_notification_and_nobody_else_does() -> Result<()> {
    for stack in [Stack::local(), Stack::processes(1, 2)] {
        // Sooner than by default; the order of things is the same.
        let quick = |api: &mut touchline_api::Config| (api.ack_wait_ms, api.second_look_ms) = (1_500, 500);
        let stack = stack.api(quick).start().await?;
        let [alice, bob, carol, dave] = stack.sign_up_all(["alice", "bob", "carol", "dave"]).await?;
        let acks = bob.device("phone").await?;
        let silent = carol.silent_device("phone").await?;
        let channel = stack.channel(&[&alice, &bob, &carol, &dave]).await?;
        let first = alice.send(channel, "hello").await?;
        let second = alice.send(channel, "anybody").await?;
        for device in [&acks, &silent] {
            device.expect(second).await?;
        }
        let away = [carol.id, dave.id];
        eventually("carol and dave are to be notified of both", async || {
            let rows = stack.storage().pending_notifications(channel).await?;
            Ok(away.iter().all(|user| rows.iter().any(|row| row.0 == *user && row.1 == second.seq)))
        })
        .await?;
        let rows = stack.storage().pending_notifications(channel).await?;
        assert!(rows.iter().all(|row| away.contains(&row.0)), "{rows:?}: neither the sender nor who acked");
        assert_eq!(rows.len(), 2, "one row per user");
        assert!(first.seq < second.seq);
        stack.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_push_notifies_nobody() -> Result<()> {
    let quick = |api: &mut touchline_api::Config| (api.ack_wait_ms, api.second_look_ms) = (500, 100);
    let stack = Stack::local().api(quick).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let other = stack.channel(&[&alice, &bob]).await?;
    let quiet = NewMessage { no_push: true, ..NewMessage::new("psst") };
    alice.client().send(channel, &quiet).await?;
    // The one after it has come so far that it is noted down: so has the one before.
    alice.send(other, "hey").await?;
    eventually("bob is to be notified of the other", async || {
        Ok(!stack.storage().pending_notifications(other).await?.is_empty())
    })
    .await?;
    let rows = stack.storage().pending_notifications(channel).await?;
    assert!(rows.iter().all(|row| row.1 == Seq(1)), "{rows:?}");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_has_no_more_members_than_it_may_from_the_start() -> Result<()> {
    let stack = Stack::local().api(|api| api.max_members = 2).start().await?;
    let [alice, bob, carol] = stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let refused = alice.client().create_channel("three", &[bob.id, carol.id]).await.expect_err("one too many");
    assert_eq!(refused.status(), Some(409));
    // Who is named twice counts once.
    let two = alice.client().create_channel("two", &[alice.id, bob.id, bob.id]).await?;
    let refused = alice.client().add_members(two.id, &[carol.id]).await.expect_err("one too many");
    assert_eq!(refused.status(), Some(409));
    stack.stop().await
}

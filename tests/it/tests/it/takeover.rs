//! Apis that die, stop or cannot reach a gateway: what they accepted is delivered by another one, and every row of the
//! outbox comes to an end.

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use sea_orm::{ConnectionTrait as _, Database};
use std::time::{Duration, Instant};
use touchline_client::NewMessage;
use touchline_harness::{Checker, Link, LinkKind, NodeName, Person, Rules, Sighting, Stack, eventually};
use touchline_ids::{ChannelId, Seq};
use touchline_storage::MAX_ATTEMPTS;

/// How long a process may take to notice that it is to die.
const DYING: Duration = Duration::from_secs(20);
/// The api that something happens to.
const VICTIM: NodeName = NodeName::Api(1);

/// Two apis, of which the second one has these crash points.
async fn with_crash_points(points: &str) -> Result<Stack> {
    Stack::processes(2, 2).environment(VICTIM, "FAILPOINTS", points).start().await
}

/// Nothing of what was sent waits for anybody, and nothing was given up.
async fn outbox_is_empty(stack: &Stack) -> Result<()> {
    eventually("the outbox is empty", async || {
        let counts = stack.storage().outbox_counts().await?;
        ensure!(counts.dead == 0, "a dead letter");
        Ok(counts.waiting == 0)
    })
    .await
}

/// Acks that come late, on a machine that is busy, take their notifications away.
async fn nobody_is_notified(stack: &Stack, channel: ChannelId) -> Result<()> {
    let pending = async || Ok(stack.storage().pending_notifications(channel).await?.is_empty());
    eventually("nobody is to be notified", pending).await
}

/// Everything the first person can read, from the first sent message on.
async fn history(person: &Person, channel: ChannelId) -> Result<Vec<Sighting>> {
    let (mut all, mut after) = (Vec::new(), Seq(1));
    loop {
        let page = person.client().history(channel, Some(after), None, Some(200)).await?.messages;
        let Some(last) = page.last() else { return Ok(all) };
        after = last.seq;
        all.extend(page.iter().map(Sighting::from));
    }
}

/// Sends at the victim, which dies of it; then how long the others took to push it, from its death on.
async fn dies_and_others_deliver(points: &str) -> Result<()> {
    let mut stack = with_crash_points(points).await?;
    let people = stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let mut phones = Vec::new();
    for (index, person) in people.iter().enumerate() {
        phones.push(person.device_at("phone", stack.gateway_url(index % 2)).await?);
    }
    let message = NewMessage::new("as it dies");
    let sent = people[0].client_at(1).send(channel, &message).await;
    let died = Instant::now();
    ensure!(!stack.ended(VICTIM, DYING).await?.success(), "it crashed");
    for phone in &phones {
        phone.expect_seq(channel, Seq(2)).await?;
    }
    println!("{points}: everybody had it {:?} after the api's death", died.elapsed());

    let again = people[0].client_at(0).send(channel, &message).await?;
    assert_eq!((again.seq, again.duplicate), (Seq(2), true), "the first answer was {sent:?}");
    outbox_is_empty(&stack).await?;
    nobody_is_notified(&stack, channel).await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_api_committed_before_it_died_is_pushed_by_another() -> Result<()> {
    dies_and_others_deliver("after_commit=1*return").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_api_had_half_pushed_when_it_died_is_pushed_by_another() -> Result<()> {
    dies_and_others_deliver("after_push=1*return").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_whose_answer_was_cut_off_is_stored_once() -> Result<()> {
    let stack = with_crash_points("before_response=1*return").await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let phone = bob.device("phone").await?;
    let message = NewMessage::new("once");
    let error = alice.client_at(1).send(channel, &message).await.expect_err("the connection is cut");
    assert_eq!(error.status(), None, "{error}");
    phone.expect_seq(channel, Seq(2)).await?;
    let again = alice.client_at(1).send(channel, &message).await?;
    assert_eq!((again.seq, again.duplicate), (Seq(2), true));
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_api_under_load_leaves_nothing_unpushed() -> Result<()> {
    const SENDERS: usize = 6;
    const EACH: usize = 30;
    let mut stack = Stack::processes(2, 2).unlimited().start().await?;
    let people = stack.crowd(SENDERS).await?;
    let channel = stack.channel(&people.iter().collect::<Vec<_>>()).await?;
    let mut phones = Vec::new();
    for (index, person) in people.iter().enumerate() {
        phones.push(person.device_at("phone", stack.gateway_url(index % 2)).await?);
    }
    let checker = Checker::new();
    let sends = people.iter().map(|person| async {
        for number in 0..EACH {
            let message = NewMessage::new(number.to_string());
            // Whoever gets no answer tries again, with the same id, at the one that lives.
            let sent = match person.client_at(1).send(channel, &message).await {
                Ok(sent) => sent,
                Err(_) => person.client_at(0).send(channel, &message).await?,
            };
            checker.accepted((&sent).into());
        }
        anyhow::Ok(())
    });
    let kill = async {
        phones[0].expect_seq(channel, Seq(60)).await?;
        stack.kill(VICTIM).await
    };
    let (sent, killed) = tokio::join!(join_all(sends), kill);
    killed?;
    sent.into_iter().collect::<Result<Vec<_>>>()?;
    let died = Instant::now();
    let stored = history(&people[0], channel).await?;
    assert_eq!(stored.len(), SENDERS * EACH, "each once");
    // Without a sync: all of it was pushed.
    for phone in &phones {
        for sighting in &stored {
            phone.expect(*sighting).await?;
        }
    }
    println!("everybody had everything {:?} after the last send", died.elapsed());
    assert!(stored.iter().all(|sighting| checker.knows(*sighting)));
    outbox_is_empty(&stack).await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_api_hands_over_what_it_cannot_finish() -> Result<()> {
    // Nobody acks, so nothing is finished while the first api has the patience to live.
    let patient = |api: &mut touchline_api::Config| (api.stop_s, api.ack_wait_ms) = (1, 30_000);
    let mut stack = Stack::processes(2, 1).api(patient).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let phone = bob.silent_device("phone").await?;
    let sent = alice.send_at(1, channel, "hello").await?;
    phone.expect(sent).await?;
    stack.stop_node(VICTIM).await?;
    let stopped = Instant::now();
    eventually("the other api pushes it again", async || {
        Ok(phone.sightings().iter().filter(|sighting| **sighting == sent).count() == 2)
    })
    .await?;
    println!("the other api pushed it {:?} after the stop", stopped.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_an_api_cannot_reach_another_one_reaches() -> Result<()> {
    let stack = Stack::processes(2, 2).proxied(&[LinkKind::ApiGateway]).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let of_alice = alice.device_at("phone", stack.gateway_url(0)).await?;
    let of_bob = bob.device_at("phone", stack.gateway_url(1)).await?;
    let before = alice.send_at(1, channel, "before").await?;
    of_bob.expect(before).await?;

    let victim = stack.node(VICTIM)?.pid().context("it runs")?;
    let link = stack.link(Link::ApiGateway(1))?;
    link.set_for(victim, Rules::black_hole());
    let began = Instant::now();
    let sent = alice.send_at(1, channel, "past the hole").await?;
    of_alice.expect(sent).await?;
    of_bob.expect(sent).await?;
    println!("past the black hole: {:?}", began.elapsed());
    link.heal();
    outbox_is_empty(&stack).await?;
    nobody_is_notified(&stack, channel).await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_database_refuses_to_settle_is_given_up_and_holds_nobody_up() -> Result<()> {
    let quick = |api: &mut touchline_api::Config| (api.ack_wait_ms, api.second_look_ms) = (200, 100);
    let stack = Stack::local().with(2, 1).api(quick).start().await?;
    // Nobody is connected: whoever gets a message is to be notified of it.
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let (poisoned, well) = (stack.channel(&[&alice, &bob]).await?, stack.channel(&[&alice, &bob]).await?);
    let file = format!("sqlite://{}", stack.folder().join("touchline.db").display());
    let trigger = format!(
        "CREATE TRIGGER poison BEFORE INSERT ON notifications WHEN hex(NEW.channel_id) = '{}' \
         BEGIN SELECT RAISE(ABORT, 'poison'); END",
        poisoned.0.simple().to_string().to_uppercase()
    );
    let database = Database::connect(file).await?;
    database.execute_unprepared(&trigger).await?;
    for number in 0..20 {
        alice.send_at(number % 2, if number == 5 { poisoned } else { well }, "hello").await?;
    }
    eventually("bob is to be notified of the others", async || {
        let rows = stack.storage().pending_notifications(well).await?;
        Ok(rows.iter().any(|row| row.0 == bob.id && row.1 == Seq(20)))
    })
    .await?;
    eventually("the poisoned row is given up", async || {
        let counts = stack.storage().outbox_counts().await?;
        Ok((counts.waiting, counts.dead) == (0, 1))
    })
    .await?;
    assert_eq!(stack.storage().pending_notifications(poisoned).await?, []);
    database.close().await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_that_panics_is_tried_again_by_another_api() -> Result<()> {
    let stack = with_crash_points("fan_out=1*off->1*panic(as a bug would)").await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let phone = bob.device("phone").await?;
    for number in 0..4 {
        let sent = alice.send_at(1, channel, &number.to_string()).await?;
        phone.expect(sent).await?;
    }
    outbox_is_empty(&stack).await?;
    assert!(stack.node(VICTIM)?.log().contains("as a bug would"), "it did panic");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_told_once_with_what_to_do_and_stands_in_the_list() -> Result<()> {
    let stack = Stack::processes(2, 1).start().await?;
    let alice = stack.sign_up("alice").await?;
    let channel = stack.channel(&[&alice]).await?;
    let next = alice.send(channel, "hello").await?.seq;
    outbox_is_empty(&stack).await?;
    // As five apis left it, one after the other.
    let nobody = uuid::Uuid::nil();
    let row = |seq: Seq, attempts: u32| {
        format!(
            "INSERT INTO outbox (channel_id, seq, owner, claim_until, attempts, no_push) \
             VALUES ('{channel}', {}, '{nobody}', 0, {attempts}, FALSE)",
            seq.0
        )
    };
    let database = Database::connect(stack.database_url()).await?;
    database.execute_unprepared(&row(Seq(1), MAX_ATTEMPTS)).await?;
    eventually("it is given up", async || Ok(stack.storage().outbox_counts().await?.dead == 1)).await?;
    let told = || -> Result<Vec<String>> {
        let logs = [stack.api(0)?.log(), stack.api(1)?.log()].concat();
        Ok(logs.lines().filter(|line| line.contains("touchline outbox list --dead")).map(str::to_owned).collect())
    };
    eventually("an operator is told", async || Ok(!told()?.is_empty())).await?;
    // A row that is taken after it shows that they looked again.
    database.execute_unprepared(&row(next, 1)).await?;
    eventually("the next one is settled", async || Ok(stack.storage().outbox_counts().await?.waiting == 0)).await?;
    let told = told()?;
    let [line] = &told[..] else { panic!("told once: {told:?}") };
    assert!(line.to_uppercase().contains("ERROR") && line.contains("outbox.dead"), "{line}");
    let letters = stack.storage().letters(true, None, 10).await?;
    assert_eq!(letters.iter().map(|letter| (letter.channel_id, letter.seq)).collect::<Vec<_>>(), [(channel, Seq(1))]);
    database.close().await?;
    stack.stop().await
}

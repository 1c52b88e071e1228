//! What happens between clients and us.

use crate::{
    notices::{Notices, Notified},
    outcome::Outcome,
    probe::Probe,
    scenario::{Context, Scenario, scenario},
    stage::Scene,
};
use anyhow::{Context as _, Result};
use futures_util::future::{join_all, try_join_all};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::{Instant, interval, sleep};
use touchline_client::NewMessage;
use touchline_harness::{Checker, Link, LinkKind, NodeName, Rules, Sighting, Stack, Way};
use touchline_load::Mix;

pub(super) const ROWS: &[Scenario] = &[
    scenario!(1, cut_links_resume_on_any_gateway, "caught up p99 ≤ 2 s after reconnecting", true),
    scenario!(2, half_open_devices_are_notified_and_dropped, "unnotified 0; sockets dropped within 75 s", true),
    scenario!(3, an_old_socket_that_lingers_does_not_end_the_new_session, "notified while live 0", false),
    scenario!(10, an_answer_that_is_lost_is_found_again_by_its_id, "stored twice 0", true),
    scenario!(
        20,
        slow_sockets_are_closed_and_disturb_nobody,
        "memory < 300 KiB per slow socket; others' p99 ≤ 1.2 × before + 50 ms",
        false
    ),
    scenario!(33, a_message_sent_three_times_at_once_is_stored_once, "rows = ids", true),
];

/// Each second a tenth of the sockets gets an RST.
async fn cut_links_resume_on_any_gateway(context: Context) -> Result<Outcome> {
    let builder = Stack::processes(2, 3).proxied(&[LinkKind::ClientGateway]);
    let mut stage = Scene::new(&context).open(builder, &context).await?;
    stage.load.fault_began("cut");
    let (seconds, mut cut, mut ticks) = (context.pick(8, 60), 0, interval(Duration::from_secs(1)));
    for _ in 0..seconds {
        ticks.tick().await;
        for gateway in 0..3 {
            cut += stage.stack.link(Link::ClientGateway(gateway))?.reset(0.1, &mut stage.random);
        }
    }
    let (mut outcome, report) = stage.close_with_report().await?;
    outcome.tell(format!("{cut} sockets cut; caught up p99 {:.0} ms after reconnecting", report.resume.p99_ms));
    outcome.aim(report.resume.p99_ms <= 2_000.0, format!("catching up took {:.0} ms", report.resume.p99_ms));
    Ok(outcome)
}

/// Nothing passes between clients and gateways any more, though every socket is open: both ways, then each way alone.
async fn half_open_devices_are_notified_and_dropped(context: Context) -> Result<Outcome> {
    let builder = Stack::processes(2, 2).proxied(&[LinkKind::ClientGateway]);
    let mut scene = Scene::new(&context);
    (scene.people, scene.channels, scene.mix) = (40, 8, Mix::steady());
    let stage = scene.open(builder, &context).await?;
    let everybody = stage.users(touchline_load::Kind::Steady);
    let registry = stage.stack.registry().await?;
    let whole = [Rules::black_hole_down(), Rules::black_hole_up(), Rules::black_hole()];
    let (mut notified, mut dropped) = (Notified::default(), None);
    for rules in context.pick(&whole[2..], &whole[..]) {
        stage.load.fault_began("half-open");
        let began = Instant::now();
        set_all(&stage.stack, *rules)?;
        sleep(Duration::from_secs(2)).await;
        let some = stage.notices.reach(&everybody).await?;
        notified = Notified { yes: notified.yes + some.yes, no: notified.no + some.no, after: some.after };
        if !context.short && *rules == Rules::black_hole() {
            while dropped.is_none() && began.elapsed() < Duration::from_secs(100) {
                sleep(Duration::from_millis(500)).await;
                let sessions: u32 = registry.gateways().await?.iter().map(|lease| lease.sessions).sum();
                dropped = (sessions == 0).then(|| began.elapsed());
            }
        }
        set_all(&stage.stack, Rules::default())?;
        stage.recover().await;
    }
    let mut outcome = stage.close().await?;
    outcome.notify(notified);
    outcome.tell(format!("the last one was notified {:.1} s after its message", notified.after.as_secs_f64()));
    if !context.short {
        outcome.tell(format!("every socket was dropped after {dropped:?}"));
        // The heartbeat's 60 s, and a lease that tells of it each 5 s.
        outcome.require(dropped.is_some_and(|took| took <= Duration::from_secs(75)), "dead sockets stay");
    }
    Ok(outcome)
}

fn set_all(stack: &Stack, rules: Rules) -> Result<()> {
    (0..stack.gateways()).try_for_each(|gateway| {
        stack.link(Link::ClientGateway(gateway))?.set(rules);
        Ok(())
    })
}

/// The same device comes by another way; the end of its old socket arrives ten seconds later.
async fn an_old_socket_that_lingers_does_not_end_the_new_session(context: Context) -> Result<Outcome> {
    let builder = Stack::processes(2, 2).proxied(&[LinkKind::ClientGateway]).unlimited().logs_in(&context.logs);
    let stack = builder.start().await?;
    let people = stack.crowd(context.pick(5, 20)).await?;
    let channel = stack.channel(&people.iter().collect::<Vec<_>>()).await?;
    let notices = Notices::watch(stack.curtain().await?);
    let open = |gateway: usize| {
        let url = stack.gateway_url(gateway);
        try_join_all(people.iter().map(move |person| person.device_at("phone", url)))
    };
    let old = open(0).await?;
    stack.link(Link::ClientGateway(0))?.set(Rules::black_hole());
    let new = open(1).await?;
    drop(old);
    let checker = Checker::new();
    let (began, mut ticks) = (Instant::now(), interval(Duration::from_millis(250)));
    let mut healed = false;
    while began.elapsed() < Duration::from_secs(16) {
        ticks.tick().await;
        if !healed && began.elapsed() > Duration::from_secs(10) {
            stack.link(Link::ClientGateway(0))?.heal();
            healed = true;
        }
        checker.accepted(people[0].send(channel, "on").await?);
    }
    let mut outcome = Outcome::default();
    let mut expected = checker.seqs(channel);
    outcome.accepted = expected.len() as u64;
    let last = expected.pop().context("something was sent")?;
    for device in &new {
        outcome.require(device.expect_seq(channel, last).await.is_ok(), "the new session got nothing");
        let mut shown = device.sightings();
        // The channel's first entry, its creation, was not sent by anybody.
        shown.retain(|sighting| sighting.seq.0 > 1);
        let verdict = checker.judge(&[channel], &shown);
        outcome.lost += verdict.lost.len() as u64;
        outcome.duplicated_on_wire += verdict.duplicated.len() as u64;
        outcome.misdelivered += verdict.foreign.len() as u64;
    }
    let everybody: BTreeSet<_> = people.iter().map(|person| person.id).collect();
    // The last second look is over.
    sleep(Duration::from_secs(6)).await;
    outcome.notified_while_live = notices.ever(&everybody);
    let live = outcome.notified_while_live;
    outcome.require(outcome.lost + outcome.misdelivered == 0, "pushes went past the new sessions");
    outcome.require(live == 0, format!("{live} notifications for devices that were there"));
    outcome.tell(format!("{} devices moved", people.len()));
    drop(new);
    outcome.look_at(stack, 0, false).await?;
    Ok(outcome)
}

/// One api does not answer what it committed, at random; the way back from the other is cut each second.
async fn an_answer_that_is_lost_is_found_again_by_its_id(context: Context) -> Result<Outcome> {
    let builder = Stack::processes(2, 2).proxied(&[LinkKind::ClientApi]).environment(
        NodeName::Api(0),
        "FAILPOINTS",
        "before_response=20%return",
    );
    let stage = Scene::new(&context).open(builder, &context).await?;
    stage.load.fault_began("lost answers");
    let (seconds, mut ticks) = (context.pick(10, 30), interval(Duration::from_secs(1)));
    for _ in 0..seconds {
        ticks.tick().await;
        let link = stage.stack.link(Link::ClientApi(1))?;
        link.set(Rules::cut_answer());
        sleep(Duration::from_millis(200)).await;
        link.heal();
    }
    let (mut outcome, report) = stage.close_with_report().await?;
    let sends = report.sends;
    outcome.tell(format!("{} answers lost, {} found again by their id", sends.unknown, sends.resolved));
    outcome.require(sends.unknown > 0, "no answer was lost");
    outcome.require(report.broken.twice_in_log == 0, "stored twice");
    outcome.require(sends.unresolved == 0, format!("{} sends never became known", sends.unresolved));
    Ok(outcome)
}

/// Sockets that take 100 bytes a second, in a channel that is busier than that.
async fn slow_sockets_are_closed_and_disturb_nobody(context: Context) -> Result<Outcome> {
    let slow = context.pick(100, 1_000);
    let mut scene = Scene::new(&context);
    (scene.people, scene.channels, scene.members, scene.mix) = (slow, 1, slow, Mix::steady());
    // A queue of 192 KiB and the kernel's buffers are full after half a dozen of these. More of them would only show
    // that one machine cannot read them all again.
    (scene.rate, scene.text_bytes, scene.twice) = (context.pick(1.0, 0.25), 40_000, 0.0);
    let stage = scene.open(Stack::processes(2, 2).proxied(&[LinkKind::ClientGateway]), &context).await?;
    let gateways = (0..2).map(|gateway| stage.stack.gateway(gateway)).collect::<Result<Vec<_>>>()?;
    let direct = gateways.iter().map(|gateway| gateway.address("ws")).collect::<Result<Vec<_>>>()?;
    let probe = Probe::open(&stage.stack, 8, &direct).await?;
    let length = context.seconds(10, 20);
    let before = probe.run(length).await?;
    let memory = || -> u64 { gateways.iter().filter_map(|gateway| gateway.resident_bytes()).sum() };
    let begin = memory();
    stage.load.fault_began("slow sockets");
    for gateway in 0..2 {
        let link = stage.stack.link(Link::ClientGateway(gateway))?;
        link.shrink_window(4_096);
        link.set(Rules { down: Way { bytes_per_second: Some(100), ..Way::default() }, ..Rules::default() });
        // With the small window, a slow reader is noticed after kilobytes instead of megabytes.
        link.reset_all();
    }
    let (during, most) = most_meanwhile(memory, probe.run(length * 3)).await;
    let during = during?;
    set_all(&stage.stack, Rules::default())?;
    let grown = most.saturating_sub(begin) / 1_024 / slow as u64;
    let mut outcome = stage.close().await?;
    outcome.tell(format!(
        "{slow} sockets at 100 B/s: {grown} KiB each; others' p99 {:.0} → {:.0} ms",
        before.p99_ms, during.p99_ms
    ));
    outcome.require(grown < 300, format!("{grown} KiB per slow socket"));
    outcome.aim(during.is_like(&before), "the others became slower");
    Ok(outcome)
}

/// Runs it; also gives the most that `memory` was meanwhile.
async fn most_meanwhile<T>(memory: impl Fn() -> u64, run: impl Future<Output = T>) -> (T, u64) {
    let (mut run, mut ticks, mut most) = (std::pin::pin!(run), interval(Duration::from_millis(250)), 0);
    loop {
        tokio::select! {
            done = &mut run => return (done, most),
            _ = ticks.tick() => most = most.max(memory()),
        }
    }
}

/// Each message three times in parallel, at two apis.
async fn a_message_sent_three_times_at_once_is_stored_once(context: Context) -> Result<Outcome> {
    let stack = Stack::processes(2, 2).unlimited().logs_in(&context.logs).start().await?;
    let people = stack.crowd(4).await?;
    let channel = stack.channel(&people.iter().collect::<Vec<_>>()).await?;
    let messages = context.pick(100, 1_000);
    let (mut answers, mut outcome) = (BTreeMap::<Sighting, usize>::new(), Outcome::default());
    let (mut first, checker) = (0, Checker::new());
    for number in 0..messages {
        let (person, message) = (&people[number % 4], NewMessage::new("thrice"));
        let sends = (0..3).map(|time| person.client_at(time % 2).send(channel, &message));
        for sent in join_all(sends).await {
            let sent = sent.context("a message that is sent three times is accepted three times")?;
            *answers.entry(Sighting::from(&sent)).or_default() += 1;
            checker.accepted((&sent).into());
            first += usize::from(!sent.duplicate);
        }
    }
    outcome.accepted = answers.len() as u64;
    outcome.require(
        answers.len() == messages && first == messages,
        format!("{} positions for {messages} ids", answers.len()),
    );
    outcome.require(answers.values().all(|times| *times == 3), "answers for one id name different positions");
    outcome
        .require(checker.holes(channel).is_empty() && checker.conflicts().is_empty(), "the log has holes or conflicts");
    let rows =
        stack.curtain().await?.number("SELECT COUNT(*) AS n FROM messages WHERE client_message_id IS NOT NULL").await?;
    outcome.require(rows == messages as i64, format!("{rows} rows for {messages} ids"));
    outcome.tell(format!("{messages} ids, {rows} rows"));
    outcome.look_at(stack, 0, false).await?;
    Ok(outcome)
}

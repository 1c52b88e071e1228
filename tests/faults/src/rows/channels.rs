//! What happens in channels: leaving while somebody sends, poison, oversize, crowds.

use crate::{
    outcome::Outcome,
    oversize,
    probe::Probe,
    scenario::{Context, Scenario, scenario},
    stage::Scene,
};
use anyhow::{Context as _, Result};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use touchline_client::Message;
use touchline_harness::{Device, Person, Stack, eventually};
use touchline_ids::{ChannelId, Seq};
use touchline_load::Mix;
use uuid::Uuid;

pub(super) const ROWS: &[Scenario] = &[
    scenario!(
        30,
        a_poisoned_message_is_put_aside_and_delays_nobody,
        "dead letters 1; others' p99 ≤ 1.2 × before + 50 ms",
        true
    ),
    scenario!(31, what_is_too_big_is_refused_and_not_kept_in_memory, "413 and 1009; memory < 2 MiB", true),
    scenario!(
        32,
        a_crowded_channel_does_not_slow_down_a_small_one,
        "small channel's p99 ≤ 1.2 × before + 50 ms",
        false
    ),
    scenario!(38, who_was_removed_gets_nothing_after_it, "leaks 0", true),
];

/// A message that nobody can read any more lies in the outbox.
async fn a_poisoned_message_is_put_aside_and_delays_nobody(context: Context) -> Result<Outcome> {
    let mut stage = Scene::new(&context).open(Stack::processes(2, 2), &context).await?;
    let gateways = [stage.stack.gateway_url(0), stage.stack.gateway_url(1)];
    let probe = Probe::open(&stage.stack, 6, &gateways).await?;
    let length = context.seconds(8, 20);
    let before = probe.run(length).await?;
    let poisoned = stage.stack.crowd_called("poisoned", 2).await?;
    let channel = stage.stack.channel(&poisoned.iter().collect::<Vec<_>>()).await?;
    let sent = poisoned[0].send(channel, "soon unreadable").await?;
    let curtain = stage.stack.curtain().await?;
    // Its own fan-out would take the row away that is to poison others.
    let rows = format!("SELECT COUNT(*) AS n FROM outbox WHERE channel_id = '{channel}'");
    eventually("the first fan-out has ended", async || Ok(curtain.number(&rows).await? == 0)).await?;
    let broken = "UPDATE messages SET kind = 'unheard_of' WHERE channel_id = $1 AND seq = $2";
    curtain.change(broken, [channel.0.into(), sent.seq.0.into()]).await?;
    stage.load.fault_began("poison");
    let back = "INSERT INTO outbox (channel_id, seq, owner, claim_until, attempts, no_push) VALUES ($1, $2, $3, 0, 1, FALSE) \
                ON CONFLICT (channel_id, seq) DO UPDATE SET claim_until = 0, owner = excluded.owner";
    curtain.change(back, [channel.0.into(), sent.seq.0.into(), Uuid::nil().into()]).await?;
    let during = probe.run(length).await?;
    let mut dead = 0;
    for _ in 0..120 {
        dead = stage.stack.storage().outbox_counts().await?.dead;
        if dead > 0 {
            break;
        }
        sleep(Duration::from_millis(500)).await;
    }
    stage.dead_letters = 1;
    stage.panics = true;
    let mut outcome = stage.close().await?;
    outcome.tell(format!("dead letters {dead}; the others' p99 {:.0} → {:.0} ms", before.p99_ms, during.p99_ms));
    outcome.aim(during.is_like(&before), "the others became slower");
    Ok(outcome)
}

/// A little too much, far too much, and much in small pieces, over REST and over the socket.
async fn what_is_too_big_is_refused_and_not_kept_in_memory(context: Context) -> Result<Outcome> {
    oversize::run(&context).await
}

/// The largest channel there may be, a part of it online.
async fn a_crowded_channel_does_not_slow_down_a_small_one(context: Context) -> Result<Outcome> {
    let (members, online) = context.pick((1_000, 300), (10_000, 3_000));
    let mut scene = Scene::new(&context);
    (scene.people, scene.channels, scene.members, scene.rate) = (online, 1, online, 1.0);
    (scene.mix, scene.twice, scene.before) = (Mix::steady(), 0.0, Duration::from_secs(1));
    let stage = scene.open(Stack::processes(2, 3), &context).await?;
    let gateways: Vec<_> = (0..3).map(|gateway| stage.stack.gateway_url(gateway)).collect();
    let probe = Probe::open(&stage.stack, 6, &gateways).await?;
    let before = probe.run(context.seconds(6, 15)).await?;
    // The rest of the members has no device at all.
    let rest = stage.stack.crowd_called("absent", members - online).await?;
    let ids: Vec<_> = rest.iter().map(|person| person.id).collect();
    for some in ids.chunks(500) {
        stage.people[0].client().add_members(stage.channels[0], some).await?;
    }
    stage.load.fault_began("crowd");
    let during = probe.run(context.seconds(10, 30)).await?;
    let (mut outcome, report) = stage.close_with_report().await?;
    let cpu = report.cost.as_ref().map_or(0.0, |cost| cost.cpu_per_delivery_us);
    outcome.tell(format!(
        "{members} members, {online} online: send → last socket {:.0} ms, {cpu:.0} µs CPU per delivery; small channel's p99 {:.0} → {:.0} ms",
        outcome.max_ms, before.p99_ms, during.p99_ms
    ));
    outcome.aim(during.is_like(&before), "the small channel became slower");
    Ok(outcome)
}

/// Removing and sending at the same time, at two apis, again and again.
async fn who_was_removed_gets_nothing_after_it(context: Context) -> Result<Outcome> {
    let stack = Stack::processes(2, 2).unlimited().logs_in(&context.logs).start().await?;
    let people = stack.crowd(12).await?;
    let (owner, others) = people.split_first().context("people")?;
    let channel = stack.channel(&people.iter().collect::<Vec<_>>()).await?;
    let mut devices = Vec::new();
    for person in others {
        devices.push((person, person.device("phone").await?, Vec::<(Seq, Seq)>::new()));
    }
    let (pairs, mut outcome) = (context.pick(100, 1_000), Outcome::default());
    for number in 0..pairs {
        let place = number % devices.len();
        let (person, _, outside) = &mut devices[place];
        let send = async {
            let mut sent = 0;
            for _ in 0..3 {
                sent += u64::from(owner.send_at(number % 2, channel, "race").await.is_ok());
            }
            sent
        };
        let (removed, sent) = tokio::join!(owner.client_at((number + 1) % 2).remove_member(channel, person.id), send);
        removed?;
        outcome.accepted += sent;
        let left = entry(owner, channel, person).await?;
        let again = owner.client().add_members(channel, &[person.id]).await?.context("they come back")?;
        outside.push((left, again));
    }
    let last = owner.send(channel, "the end").await?;
    // What is late comes within the second look.
    sleep(Duration::from_secs(6)).await;
    let mut leaks = 0;
    for (person, device, outside) in &devices {
        device.expect(last).await?;
        leaks += leaked(&device.messages(), channel, outside) + synced_leaks(person, channel, outside).await?;
    }
    outcome.misdelivered = leaks as u64;
    outcome.tell(format!("{pairs} pairs, {leaks} leaks"));
    outcome.require(leaks == 0, format!("{leaks} messages reached somebody who had been removed"));
    drop::<Vec<(&Person, Device, _)>>(devices);
    outcome.look_at(stack, 0, false).await?;
    Ok(outcome)
}

/// The seq of the newest entry that says that `person` left.
async fn entry(owner: &Person, channel: ChannelId, person: &Person) -> Result<Seq> {
    let newest = owner.client().history(channel, None, None, Some(50)).await?;
    let left =
        |message: &&Message| message.kind == "left" && message.content.to_string().contains(&person.id.to_string());
    Ok(newest.messages.iter().rev().find(left).context("the log says who left")?.seq)
}

fn leaked(messages: &[Message], channel: ChannelId, outside: &[(Seq, Seq)]) -> usize {
    let inside = |message: &&Message| message.channel_id == channel;
    let leaked = |message: &Message| outside.iter().any(|(left, again)| (*left..*again).contains(&message.seq));
    messages.iter().filter(inside).filter(|message| leaked(message)).count()
}

/// What a sync and the history would tell them of the time they were away.
async fn synced_leaks(person: &Person, channel: ChannelId, outside: &[(Seq, Seq)]) -> Result<usize> {
    let ask = async {
        let synced = person.client().sync(&[], Some(50)).await?;
        let history = person.client().history(channel, None, None, Some(200)).await?;
        anyhow::Ok((synced, history))
    };
    let (synced, history) = timeout(Duration::from_secs(30), ask).await??;
    let synced: Vec<Message> = synced.channels.into_iter().flat_map(|channel| channel.messages).collect();
    Ok(leaked(&synced, channel, outside) + leaked(&history.messages, channel, outside))
}

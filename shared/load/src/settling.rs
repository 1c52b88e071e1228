//! The end of a load: the devices come to the head of every channel, the logs are read back, and the verdict is spoken.

use crate::{
    board::{Board, spans},
    clock::seconds,
    findings::Kind as Broke,
    judge::Evidence,
    listening::{Phase, Targets},
    log::Log,
    report::{Cost, Deliveries, Loaded, Report},
    running::{LOOK_EVERY, Running},
};
use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, stream};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use touchline_client::{Client, ClientError};
use touchline_ids::{ChannelId, Seq};

/// Logs that are read at the same time.
const READING: usize = 8;
/// For the cost, steady devices are waited for so long.
const CATCH_UP: Duration = Duration::from_secs(10);
/// A device acks once a second; then the api finishes the message.
const ACKS: Duration = Duration::from_secs(3);

/// Where every channel's log ends now.
pub(crate) async fn read_heads(board: &Board, clients: &[Client], deadline: Instant) -> Result<Vec<(ChannelId, Seq)>> {
    let mut heads = Vec::with_capacity(board.plan.channels.len());
    for (at, channel) in board.plan.channels.iter().enumerate() {
        let read = as_reader(board, clients, at, deadline, async |client| client.channel(channel.id).await).await;
        let channel = read.with_context(|| format!("reading the head of {}", channel.id))?;
        heads.push((channel.id, channel.last_seq));
    }
    Ok(heads)
}

/// Calls as the first member of a channel, at one api after the other, until it works.
async fn as_reader<T>(
    board: &Board,
    clients: &[Client],
    channel: usize,
    deadline: Instant,
    mut call: impl AsyncFnMut(&Client) -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let reader = board.plan.channels[channel].members[0];
    let mut attempt = 0;
    loop {
        let client = clients[(channel + attempt) % clients.len()].as_user(&board.token(reader));
        let error = match call(&client).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let refusal = error.refusal();
        let may_pass = error.is_unknown() || refusal.is_some_and(|refusal| refusal.is_temporary());
        let is_over = error.status() == Some(401) && board.renew(reader).await;
        let wait = refusal.and_then(|refusal| refusal.retry_after).unwrap_or(LOOK_EVERY * 10);
        if !(may_pass || is_over) || Instant::now() + wait > deadline {
            return Err(error);
        }
        sleep(wait).await;
        attempt += 1;
    }
}

/// Reads what follows in each log. Those that cannot be read are broken: nothing is proven about them.
async fn read_on(board: &Board, clients: &[Client], logs: Vec<Log>, deadline: Instant) -> Vec<Log> {
    let read = |(at, mut log): (usize, Log)| async move {
        match as_reader(board, clients, at, deadline, async |client| log.read(client, &board.run).await).await {
            Ok(()) => {}
            Err(error) => board.broke(Broke::UnreadLogs, || format!("{}: {error}", log.channel)),
        }
        log
    };
    stream::iter(logs.into_iter().enumerate()).map(read).buffered(READING).collect().await
}

/// Up to where the devices of each user must come.
fn targets(board: &Board, logs: &[Log]) -> Targets {
    let mut targets = Targets::new();
    for user in &board.plan.users {
        let mine = logs.iter().filter(|log| log.has(user.id));
        targets.insert(user.id, mine.map(|log| (log.channel, log.head())).collect());
    }
    targets
}

/// Ends a load whose senders have ended, and judges it.
pub(crate) async fn finish(running: &mut Running) -> Result<Report> {
    let (board, clients) = (Arc::clone(&running.board), running.clients.clone());
    let (sent, deadline) = (board.clock.now(), Instant::now() + board.plan.settle);
    let shown_while_sent = board.counts.shown.load(Ordering::Relaxed);
    // Before the logs are read back: that is no delivery.
    let (cost, own) = cost(running).await;
    let empty = board.plan.channels.iter().map(|channel| Log::new(channel.id)).collect();
    let logs = read_on(&board, &clients, empty, deadline).await;
    let heads: HashMap<_, _> = logs.iter().map(|log| (log.channel, log.head())).collect();

    running.phase.send_replace(Phase::Settle(Arc::new(targets(&board, &logs))));
    let all_there = settle(&board, deadline).await;
    let outages = board.outages.so_far();
    let seen = running.collect().await;
    // Once more: what a device showed since is in the log too.
    let logs = read_on(&board, &clients, logs, Instant::now() + board.plan.settle).await;

    let evidence = Evidence {
        outcomes: &board.outcomes(),
        logs: &logs,
        spans: &spans(&running.start_heads, &heads),
        said: &board.ledger.all(),
        seen: &seen,
        resets_expected: board.plan.resets_expected,
    };
    let mut findings = board.findings();
    findings.merge(evidence.judge());
    let sent_for = seconds(sent.saturating_sub(running.started));
    let last_shown = board.seats.iter().map(|seat| seat.last_shown.load(Ordering::Relaxed)).max().unwrap_or(0);
    let mut report = report(&board, running.started);
    // Those that were given up where they stood are among them.
    report.sends.unresolved = report.sends.messages - report.sends.accepted - report.sends.refused;
    report.outages = outages;
    report.load.sent_for_s = sent_for;
    report.load.settled_in_s = all_there.then(|| seconds(last_shown.saturating_sub(sent)));
    report.deliveries.per_second = shown_while_sent as f64 / sent_for.max(1e-3);
    report.broken = findings.broken;
    report.examples = findings.examples;
    report.cost = cost;
    report.own_cpu_s = own.as_secs_f64();
    report.clean = report.is_clean();
    Ok(report)
}

/// What it cost the servers until the steady devices had everything, with the acks and what follows from them.
async fn cost(running: &Running) -> (Option<Cost>, Duration) {
    let (heads, deadline) = (running.board.heads(), Instant::now() + CATCH_UP);
    while running.board.lagging(&heads) > 0 && Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
    }
    let own = running.costs.own();
    if running.board.plan.servers.is_empty() {
        return (None, own);
    }
    sleep(ACKS).await;
    (running.costs.report(running.board.counts.shown.load(Ordering::Relaxed)), own)
}

/// Waits until every device is at head; notes those that are not in time.
async fn settle(board: &Board, deadline: Instant) -> bool {
    let missing = || board.seats.iter().filter(|seat| !seat.at_head.load(Ordering::Relaxed));
    while missing().next().is_some() {
        if Instant::now() > deadline {
            for seat in missing() {
                let how = if seat.is_online() { "connected" } else { "not connected" };
                board.broke(Broke::Behind, || format!("{} ({how})", seat.name));
            }
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}

/// What the board says by itself.
fn report(board: &Board, started: u64) -> Report {
    let mut devices = BTreeMap::new();
    for seat in board.seats.iter().filter(|seat| !seat.is_canary) {
        *devices.entry(seat.kind.name()).or_insert(0) += 1;
    }
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (plan, counts) = (&board.plan, &board.counts);
    Report {
        load: Loaded {
            seed: plan.seed,
            users: plan.users.len(),
            channels: plan.channels.len(),
            devices,
            canaries: plan.canaries.len(),
            sending: Some(plan.sending.clone()),
            listening: Some(plan.devices.clone()),
            ..Loaded::default()
        },
        sends: counts.sends(),
        deliveries: Deliveries {
            shown: read(&counts.shown),
            frames: read(&counts.frames),
            duplicated_on_wire: read(&counts.repeated),
            per_second: 0.0,
            connects: read(&counts.connects),
            disconnects: read(&counts.disconnects),
            resets: read(&counts.resets),
        },
        endings: board.endings(),
        answer: board.answer.times(),
        send_to_device: board.delivery.times(),
        accepted_to_device: board.after_answer.times(),
        resume: board.resume.times(),
        faults: board.faults.all().map(|fault| fault.report(started)).collect(),
        ..Report::default()
    }
}

//! What happens to the database.

use crate::{
    outcome::{GUARANTEES, Outcome, closed},
    probe::Probe,
    scenario::{Context, Scenario, scenario},
    stage::Scene,
};
use anyhow::Result;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::{Instant, interval, sleep};
use touchline_client::NewMessage;
use touchline_harness::{Link, LinkKind, OwnPostgres, Rules, Stack};
use touchline_ids::{ChannelId, Seq};
use touchline_load::Kind;

pub(super) const ROWS: &[Scenario] = &[
    scenario!(
        16,
        without_a_database_sends_are_refused_at_once_and_nothing_is_lost,
        "503 within 1 s; sockets closed 0",
        true
    ),
    scenario!(17, a_locked_channel_holds_up_only_itself, "others' p99 ≤ 1.2 × before + 50 ms", false),
    scenario!(
        17,
        a_slow_database_loses_nothing,
        "every answer within 10 s: accepted, or 503 with Retry-After; sockets closed 0",
        false
    ),
    scenario!(
        18,
        clients_of_a_database_that_lost_its_tail_start_again,
        "every device that held some of the tail is reset",
        false
    ),
    scenario!(19, a_full_disk_refuses_sends_and_recovers, "the process lives; refused sends are not stored", false),
    scenario!(
        19,
        a_second_writer_delays_sends_and_loses_none,
        "busy for 3 s: accepted; for 8 s: accepted or 503",
        false
    ),
];

/// Stopped where it stands, started again later.
async fn without_a_database_sends_are_refused_at_once_and_nothing_is_lost(context: Context) -> Result<Outcome> {
    let mut postgres = OwnPostgres::start().await?;
    let stage = Scene::new(&context).open(Stack::processes(2, 2).on_postgres(&postgres), &context).await?;
    stage.load.fault_began("database down");
    postgres.stop_immediately()?;
    let (began, mut ticks) = (Instant::now(), interval(Duration::from_millis(500)));
    let (mut slowest, mut others, mut refused) = (Duration::ZERO, Vec::new(), 0);
    while began.elapsed() < context.seconds(8, 30) {
        ticks.tick().await;
        let asked = Instant::now();
        let sent = stage.people[0].client().send(stage.channels[0], &NewMessage::new("anybody there")).await;
        slowest = slowest.max(asked.elapsed());
        let refusal = sent.as_ref().err().and_then(|error| error.refusal());
        match refusal {
            Some(refusal) if refusal.status == 503 && refusal.retry_after.is_some() => refused += 1,
            _ => others.push(sent.map_or_else(|error| error.to_string(), |_| "accepted".into())),
        }
    }
    postgres.start_again().await?;
    let (mut outcome, report) = stage.close_with_report().await?;
    let closed = closed(&report);
    outcome.tell(format!("{refused} × 503 after at most {} ms; sockets closed {closed}", slowest.as_millis()));
    outcome.aim(slowest <= Duration::from_secs(1), format!("a refusal took {slowest:?}"));
    // What was under way when it stopped is unknown.
    outcome.require(others.len() <= 1, format!("other answers: {others:?}"));
    outcome.require(closed == 0, format!("{closed} sockets were closed"));
    Ok(outcome)
}

/// Somebody holds the lock of one channel's row.
async fn a_locked_channel_holds_up_only_itself(context: Context) -> Result<Outcome> {
    let stage = Scene::new(&context).open(Stack::processes(2, 2), &context).await?;
    let gateways = [stage.stack.gateway_url(0), stage.stack.gateway_url(1)];
    let probe = Probe::open(&stage.stack, 8, &gateways).await?;
    let length = context.seconds(8, 30);
    let before = probe.run(length).await?;
    let curtain = stage.stack.curtain().await?;
    stage.load.fault_began("locked channel");
    let lock = curtain.lock(stage.channels[0]).await?;
    let during = probe.run(length).await?;
    lock.rollback().await?;
    let mut outcome = stage.close().await?;
    outcome.tell(format!("the others' p99 {:.0} → {:.0} ms, {} refused", before.p99_ms, during.p99_ms, during.refused));
    outcome.aim(during.is_like(&before) && during.refused == 0, "other channels waited too");
    Ok(outcome)
}

/// A fifth of a second more for each question to the database: a transaction takes a second and a half, and keeps its
/// channels from the other api as long. What is over its budget then is refused and told when to come back, and the
/// senders do; how much is accepted meanwhile follows from the number of questions and channels, and is told only.
async fn a_slow_database_loses_nothing(context: Context) -> Result<Outcome> {
    let mut scene = Scene::new(&context);
    scene.rate = 10.0;
    let stage = scene.open(Stack::processes(2, 2).proxied(&[LinkKind::Database]), &context).await?;
    let before = stage.load.progress();
    stage.load.fault_began("slow database");
    for api in 0..2 {
        stage.stack.link(Link::Database(api))?.set(Rules::slow(Duration::from_millis(100), Duration::ZERO));
    }
    sleep(context.seconds(10, 30)).await;
    let after = stage.load.progress();
    for api in 0..2 {
        stage.stack.link(Link::Database(api))?.heal();
    }
    let (mut outcome, report) = stage.close_with_report().await?;
    let (sends, answer, closed) = (report.sends, report.answer, closed(&report));
    let percent = (after.accepted - before.accepted) * 100 / (after.messages - before.messages).max(1);
    outcome.tell(format!(
        "accepted {percent} % meanwhile, {} told to come later; accepted in the end after p50 {:.0} ms, p99 {:.0} ms; sockets closed {closed}",
        sends.deferred, answer.p50_ms, answer.p99_ms
    ));
    outcome.require(sends.refused + sends.unresolved == 0, "sends failed for good");
    outcome.require(closed == 0, format!("{closed} sockets were closed"));
    outcome.aim(sends.unknown == 0, format!("{} sends had no answer in 10 s", sends.unknown));
    Ok(outcome)
}

/// Its files are set back to what they were a while ago, as a fail-over to a replica that was late would.
async fn clients_of_a_database_that_lost_its_tail_start_again(context: Context) -> Result<Outcome> {
    let mut postgres = OwnPostgres::start().await?;
    let mut scene = Scene::new(&context);
    scene.resets_expected = true;
    let stage = scene.open(Stack::processes(2, 2).on_postgres(&postgres), &context).await?;
    postgres.stop_immediately()?;
    postgres.save()?;
    postgres.start_again().await?;
    let saved = heads(&stage.stack).await?;
    sleep(context.seconds(6, 10)).await;
    stage.load.fault_began("lost tail");
    let lost = heads(&stage.stack).await?;
    postgres.stop_immediately()?;
    postgres.restore()?;
    postgres.start_again().await?;
    let lost: BTreeSet<_> =
        lost.iter().filter(|(channel, head)| saved.get(channel) < Some(head)).map(|(id, _)| *id).collect();
    let there = stage.users(Kind::Steady).into_values().chain(stage.users(Kind::Flappy).into_values());
    let expected = there.flatten().filter(|channel| lost.contains(channel)).count() as u64;
    let (mut outcome, report) = stage.close_with_report().await?;
    let (broken, resets) = (report.broken, report.deliveries.resets);
    // What was accepted and is gone now, and what devices showed of it, is what the fault is: only a device that was
    // not told to start again holds it against the log in silence.
    outcome.broke.retain(|broke| !broke.starts_with(GUARANTEES));
    outcome.lost = broken.lost + broken.behind;
    outcome.misdelivered = expected.saturating_sub(resets);
    outcome.out_of_order = broken.out_of_order;
    outcome.tell(format!(
        "{} accepted messages were in the lost tail; {resets} resets where {expected} were due",
        broken.not_in_log
    ));
    let elsewhere = broken.refused_yet_delivered + broken.outside_membership + broken.canary;
    let damaged = broken.holes_in_log + broken.unread_logs;
    let zeros = [outcome.lost, outcome.misdelivered, outcome.duplicated, outcome.out_of_order, elsewhere, damaged];
    outcome.require(zeros.iter().all(|count| *count == 0), format!("{broken:?}"));
    outcome.require(expected > 0, "nothing was lost");
    Ok(outcome)
}

/// Where each channel's messages end.
async fn heads(stack: &Stack) -> Result<BTreeMap<ChannelId, Seq>> {
    let mut heads = BTreeMap::new();
    for (channel, _, seq) in stack.curtain().await?.newest().await? {
        let head = heads.entry(channel).or_insert(seq);
        *head = seq.max(*head);
    }
    Ok(heads)
}

/// A file system in memory, 64 MB, unmounted when dropped.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn mount() -> Result<Self> {
        let folder = TempDir::with_prefix("touchline-disk.")?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(folder.path()).status()?;
        anyhow::ensure!(mounted.success(), "mounting a tmpfs needs root");
        Ok(Self { folder })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Takes all the room there is; gives the file that does.
    fn fill(&self) -> Result<PathBuf> {
        let filler = self.folder.path().join("filler");
        // Fails when the disk is full, which is what is wanted.
        let _ = std::fs::write(&filler, vec![0_u8; 64 << 20]);
        Ok(filler)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if !Command::new("umount").arg("-l").arg(self.folder.path()).status().is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.folder.path().display());
        }
    }
}

/// SQLite on a disk that is full for a while.
async fn a_full_disk_refuses_sends_and_recovers(context: Context) -> Result<Outcome> {
    let disk = SmallDisk::mount()?;
    let mut scene = Scene::new(&context);
    (scene.people, scene.channels, scene.rate) = (20, 4, 20.0);
    let stage = scene.open(Stack::dev(&disk.data()), &context).await?;
    stage.load.fault_began("disk full");
    let filler = disk.fill()?;
    let (mut statuses, mut ticks, began) = (BTreeMap::new(), interval(Duration::from_millis(250)), Instant::now());
    while began.elapsed() < context.seconds(6, 20) {
        ticks.tick().await;
        let message = NewMessage::new("x".repeat(8_000));
        let sent = stage.people[0].client().send(stage.channels[0], &message).await;
        let status = sent.map_or_else(
            |error| error.status().map_or("unknown".to_owned(), |status| status.to_string()),
            |_| "2xx".into(),
        );
        *statuses.entry(status).or_insert(0) += 1;
    }
    std::fs::remove_file(filler)?;
    let alive = stage.stack.api(0)?.pid().is_some();
    let mut outcome = stage.close().await?;
    outcome.tell(format!("answers while full: {statuses:?}"));
    outcome.require(alive, "the process ended");
    let expected = |status: &String| ["2xx", "503", "507"].contains(&status.as_str());
    outcome.require(statuses.keys().all(expected), format!("answers while full: {statuses:?}"));
    Ok(outcome)
}

/// Another process holds SQLite's write lock, for less and for more than one waits for it.
async fn a_second_writer_delays_sends_and_loses_none(context: Context) -> Result<Outcome> {
    let folder = TempDir::with_prefix("touchline-dev.")?;
    let mut scene = Scene::new(&context);
    (scene.people, scene.channels, scene.rate) = (20, 4, 10.0);
    let stage = scene.open(Stack::dev(&folder.path().join("data")), &context).await?;
    let curtain = stage.stack.curtain().await?;
    let mut answers = Vec::new();
    for length in [3, 8] {
        stage.load.fault_began("busy");
        let lock = curtain.begin_immediate().await?;
        let (asked, message) = (Instant::now(), NewMessage::new("patience"));
        let send = async {
            let sent = stage.people[0].client().send(stage.channels[0], &message).await;
            (sent.map_or_else(|error| error.status().unwrap_or_default(), |_| 201), asked.elapsed())
        };
        let hold = async {
            sleep(Duration::from_secs(length)).await;
            lock.rollback().await
        };
        let (answer, held) = tokio::join!(send, hold);
        held?;
        answers.push((length, answer));
        stage.recover().await;
    }
    let mut outcome = stage.close().await?;
    for (length, (status, took)) in answers {
        outcome.tell(format!("locked for {length} s: {status} after {:.1} s", took.as_secs_f64()));
        outcome.require(status == 201 || (status == 503 && length > 5), format!("locked for {length} s: {status}"));
    }
    Ok(outcome)
}

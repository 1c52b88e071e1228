//! The database is away, locked, read-only or set back: what its users notice, and that it ends by itself.

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DbBackend, Statement, TransactionTrait as _,
};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use touchline_client::{ClientError, DeviceOptions, NewMessage};
use touchline_harness::{DEADLINE, OwnPostgres, Person, Sighting, Stack, eventually};
use touchline_ids::ChannelId;

/// Sends at the same time while something is wrong.
const AT_ONCE: usize = 40;

/// A send, and how long its answer took.
async fn timed(person: &Person, channel: ChannelId) -> (Duration, Result<Sighting, ClientError>) {
    let begun = Instant::now();
    let sent = person.client().send(channel, &NewMessage::new("x")).await;
    (begun.elapsed(), sent.map(|sent| (&sent).into()))
}

/// Many sends at once: the answers' times in order, and the answers.
async fn burst(
    person: &Person,
    channel: ChannelId,
    count: usize,
) -> (Vec<Duration>, Vec<Result<Sighting, ClientError>>) {
    let answers = join_all((0..count).map(|_| timed(person, channel))).await;
    let (mut times, answers): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    times.sort();
    (times, answers)
}

fn assert_not_stored(answer: &Result<Sighting, ClientError>) {
    let refusal = answer.as_ref().expect_err("it cannot be stored").refusal().expect("an answer");
    assert_eq!((refusal.status, refusal.code.as_str()), (503, "unavailable"), "{refusal}");
    assert!(refusal.retry_after.is_some_and(|wait| wait <= Duration::from_secs(1)), "{refusal:?}");
}

/// Sends until one is stored.
async fn recovered(person: &Person, channel: ChannelId) -> Result<Sighting> {
    let mut stored = None;
    eventually("a send is stored again", async || {
        stored = timed(person, channel).await.1.ok();
        Ok(stored.is_some())
    })
    .await?;
    stored.context("waited for it")
}

async fn connection(url: &str) -> Result<DatabaseConnection> {
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    Ok(Database::connect(options).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_down_nothing_hangs_and_then_it_recovers_by_itself() -> Result<()> {
    let mut postgres = OwnPostgres::start().await?;
    let stack = Stack::processes(1, 1).on_postgres(&postgres).unlimited().start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let phone = bob.follower("phone").await?;
    let mut accepted = vec![alice.send(channel, "before").await?];
    phone.expect(accepted[0]).await?;

    postgres.stop_immediately()?;
    let mut slowest = Duration::ZERO;
    let mut refused = 0;
    for _ in 0..5 {
        let (times, answers) = burst(&alice, channel, AT_ONCE).await;
        slowest = slowest.max(times[AT_ONCE - 1]);
        for answer in answers {
            // A commit under way may be lost with its answer: neither stored nor refused, for all one knows.
            if !answer.as_ref().is_err_and(ClientError::is_unknown) {
                assert_not_stored(&answer);
                refused += 1;
            }
        }
        let begun = Instant::now();
        let read = bob.client().sync(&[], None).await.expect_err("it cannot be read");
        assert_eq!(read.status(), Some(503));
        slowest = slowest.max(begun.elapsed());
    }
    println!("database down: {refused} sends refused, slowest answer {slowest:?}");
    assert!(slowest < DEADLINE, "nothing hangs: {slowest:?}");

    postgres.start_again().await?;
    let begun = Instant::now();
    accepted.push(recovered(&alice, channel).await?);
    println!("database back: stored again after {:?}", begun.elapsed());
    for sent in &accepted {
        phone.expect(*sent).await?;
    }
    let history = alice.client().history(channel, None, None, Some(200)).await?;
    let seqs: Vec<_> = history.messages.iter().map(|message| message.seq.0).collect();
    assert_eq!(seqs, (1..=seqs.len() as i64).collect::<Vec<_>>(), "dense");
    assert!(accepted.iter().all(|sent| history.messages.iter().any(|message| Sighting::from(message) == *sent)));
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_channel_makes_only_itself_wait() -> Result<()> {
    let stack = Stack::processes(1, 1).unlimited().start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let (locked, free) = (stack.channel(&[&alice, &bob]).await?, stack.channel(&[&alice, &bob]).await?);
    let (before, _) = burst(&alice, free, AT_ONCE).await;

    let holder = connection(stack.database_url()).await?;
    let transaction = holder.begin().await?;
    let lock = "SELECT id FROM channels WHERE id = $1 FOR UPDATE";
    let lock = Statement::from_sql_and_values(DbBackend::Postgres, lock, [locked.0.into()]);
    transaction.query_all_raw(lock).await?;
    let during = async {
        let mut times = Vec::new();
        for _ in 0..5 {
            let (some, answers) = burst(&alice, free, AT_ONCE).await;
            times.extend(some);
            assert!(answers.iter().all(Result::is_ok), "the others are stored");
        }
        times.sort();
        times
    };
    let rename = async { bob.client().rename_channel(locked, "another").await };
    let ((waits, answers), renamed) = tokio::join!(burst(&alice, locked, 400), rename);
    let ((_, more), during) = tokio::join!(burst(&alice, locked, AT_ONCE), during);
    more.iter().for_each(assert_not_stored);
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100 - 1];
    println!("free channel p99: {:?} before, {:?} while another is locked", p99(&before), p99(&during));
    println!("locked channel: 400 sends refused after {:?} to {:?}", waits[0], waits[399]);
    answers.iter().for_each(assert_not_stored);
    assert!(renamed.is_err());
    assert!(waits[399] < DEADLINE, "nothing hangs");

    transaction.rollback().await?;
    let sent = recovered(&alice, locked).await?;
    assert_eq!(sent.seq.0, 2, "what was refused is not there");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_lost_its_tail_resets_and_hides_nothing() -> Result<()> {
    let mut postgres = OwnPostgres::start().await?;
    let stack = Stack::processes(1, 1).on_postgres(&postgres).unlimited().start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let (ahead, overtaken) = (stack.channel(&[&alice, &bob]).await?, stack.channel(&[&alice, &bob]).await?);
    let phone = bob.follower("phone").await?;
    for channel in [ahead, overtaken] {
        phone.expect(alice.send(channel, "kept").await?).await?;
    }
    postgres.stop_immediately()?;
    postgres.save()?;
    postgres.start_again().await?;
    for channel in [ahead, overtaken] {
        let mut lost = recovered(&alice, channel).await?;
        for _ in 0..5 {
            lost = alice.send(channel, "lost").await?;
        }
        phone.expect(lost).await?;
    }
    let (cursors, connection) = phone.close().await?;

    postgres.stop_immediately()?;
    postgres.restore()?;
    postgres.start_again().await?;
    // One log stays shorter than what the device holds, the other one grows beyond it.
    let mut new = vec![recovered(&alice, ahead).await?];
    for _ in 0..12 {
        new.push(alice.send(overtaken, "new").await?);
    }
    let options = DeviceOptions { cursors, connection, ..bob.follower_options("phone")? };
    let phone = bob.follow(options).await?;
    phone.until("both are reset", |story| [ahead, overtaken].iter().all(|id| story.resets.contains(id))).await?;
    for sent in &new {
        phone.expect(*sent).await?;
    }
    let resets = phone.story().resets.len();
    println!("database lost its tail: {resets} resets, {} new messages shown", new.len());
    // What the api remembered of the lost tail is served to nobody.
    let synced = alice.client().sync(&[], Some(50)).await?;
    for channel in &synced.channels {
        let history = alice.client().history(channel.channel_id, None, None, Some(50)).await?;
        assert_eq!(channel.messages, history.messages);
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_only_reads_refuses_sends_and_answers_reads() -> Result<()> {
    let stack = Stack::processes(1, 1).unlimited().start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    alice.send(channel, "before").await?;
    let operator = connection(stack.database_url()).await?;
    let name = stack.database_url().rsplit('/').next().context("a name")?.to_owned();
    let only_reads = async |on: bool| -> Result<()> {
        let value = if on { "SET default_transaction_read_only = on" } else { "RESET default_transaction_read_only" };
        operator.execute_unprepared("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE").await?;
        operator.execute_unprepared(&format!("ALTER DATABASE {name} {value}")).await?;
        // It holds for new connections.
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                      AND pid <> pg_backend_pid()";
        operator.execute_unprepared(others).await?;
        Ok(())
    };
    only_reads(true).await?;
    eventually("reads go on", async || Ok(bob.client().sync(&[], None).await.is_ok())).await?;
    let (_, answers) = burst(&alice, channel, AT_ONCE).await;
    for answer in answers {
        let status = answer.err().context("it cannot be stored")?.status();
        ensure!(status == Some(503), "{status:?}");
    }
    only_reads(false).await?;
    let sent = recovered(&alice, channel).await?;
    assert_eq!(sent.seq.0, 3);
    timeout(DEADLINE, stack.stop()).await?
}

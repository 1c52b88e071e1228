//! How fast one notifier pushes: thousands of due notifications, each of another user with one device, to the fake FCM
//! in a process of its own.

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hdrhistogram::Histogram;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use touchline_client::NewMessage;
use touchline_fake_fcm::Page;
use touchline_harness::{NodeName, Person, Stack, binary};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_load::processes::cpu;
use touchline_notifier::config;
use touchline_proto::notify::{WakeRequest, notify_service_client::NotifyServiceClient};
use touchline_storage::{NewDevice, Platform, PutDevice, TargetKind};

/// Members of each channel.
const MEMBERS: usize = 100;
/// Devices registered at the same time.
const REGISTERING: usize = 8;
/// More than the notifier is ever able to.
const NO_LIMIT: u32 = 1_000_000;
/// Batches a second at an even pace.
const BATCHES: u32 = 20;
/// What is not there by then does not come.
const PATIENCE: Duration = Duration::from_secs(120);
/// The fan-out of the messages is over, and two pushes to one user are far enough apart.
const SETTLE: Duration = Duration::from_secs(10);

/// The fake's process, and where it is.
struct Fake {
    ready: HashMap<String, String>,
    http: reqwest::Client,
    _child: Child,
}

/// What one run showed.
struct Run {
    name: String,
    wall: Duration,
    cpu: Duration,
    /// Milliseconds from due to accepted.
    times: Histogram<u64>,
}

/// The stack, and who is to be notified of what.
struct Scene {
    stack: Stack,
    fake: Fake,
    missed: Vec<(UserId, ChannelId, Seq)>,
    wake: NotifyServiceClient<tonic::transport::Channel>,
}

/// Measures with `users` at once, then `rate` a second; in clear and over TLS.
pub(crate) async fn run(users: usize, rate: u32) -> Result<()> {
    let mut rows = Vec::new();
    for over in ["h2c", "TLS"] {
        eprintln!("notifier: {users} devices, {over}");
        let mut scene = Scene::start(users, over == "TLS").await?;
        rows.push(scene.at_once(over).await?);
        sleep(SETTLE).await;
        rows.push(scene.evenly(over, rate).await?);
        scene.stack.stop().await?;
    }
    println!("\n{users} users with a device each, one notifier, 4 connections × 100 streams\n");
    println!("| | pushes/s | due → accepted p50 | p99 | notifier's CPU per push |\n|---|---|---|---|---|");
    rows.iter().for_each(|row| println!("{}", row.line()));
    Ok(())
}

impl Scene {
    async fn start(users: usize, tls: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let fake = Fake::start(folder.path()).await?;
        let (endpoint, key) = if tls { ("https", "key") } else { ("http", "key_http") };
        let fcm = config::Fcm {
            service_account_file: Some(PathBuf::from(fake.at(key)?)),
            ca_file: Some(PathBuf::from(fake.at("ca")?)),
            endpoint: fake.at(endpoint)?.to_owned(),
            rate: NO_LIMIT,
            ..config::Fcm::default()
        };
        let stack = Stack::processes(1, 1)
            .unlimited()
            .notifiers(1, |config| (config.provider, config.fcm) = (config::Kind::Fcm, fcm))
            .start()
            .await?;
        let people = stack.crowd(users).await?;
        let register = stream::iter(people.iter().map(|person| register(&stack, person)));
        register.buffer_unordered(REGISTERING).try_collect::<Vec<()>>().await?;
        let mut missed = Vec::with_capacity(users);
        for some in people.chunks(MEMBERS) {
            let channel = stack.channel(&some.iter().collect::<Vec<_>>()).await?;
            let message = NewMessage { no_push: true, ..NewMessage::new("missed") };
            // Two: one for each run.
            let seq = some[0].client().send(channel, &message).await?.seq;
            some[0].client().send(channel, &NewMessage { no_push: true, ..NewMessage::new("too") }).await?;
            missed.extend(some.iter().map(|person| (person.id, channel, seq)));
        }
        let grpc = stack.node(NodeName::Notifier(0))?.address("grpc")?.to_owned();
        let wake = NotifyServiceClient::connect(grpc).await?;
        sleep(SETTLE).await;
        Ok(Self { stack, fake, missed, wake })
    }

    /// Everything is due at the same moment.
    async fn at_once(&mut self, over: &str) -> Result<Run> {
        let before = self.cpu()?;
        self.stack.storage().notify(&self.missed).await?;
        let (due_ms, begun) = (now_ms(), Instant::now());
        self.wake.wake(WakeRequest {}).await?;
        let due = self.missed.iter().map(|(user, ..)| (*user, due_ms)).collect();
        self.got(self.missed.len()).await?;
        let wall = begun.elapsed();
        // Results are still written.
        sleep(Duration::from_secs(1)).await;
        self.ended(format!("all at once, {over}"), &due, wall, before).await
    }

    /// So many become due each second.
    async fn evenly(&mut self, over: &str, rate: u32) -> Result<Run> {
        self.fake.forget().await?;
        let before = self.cpu()?;
        let batch = usize::try_from(rate.div_ceil(BATCHES))?;
        let mut ticks = interval(Duration::from_secs(1) / BATCHES);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (mut due, begun) = (HashMap::new(), Instant::now());
        for some in self.missed.chunks(batch) {
            ticks.tick().await;
            let next: Vec<_> = some.iter().map(|&(user, channel, seq)| (user, channel, Seq(seq.0 + 1))).collect();
            self.stack.storage().notify(&next).await?;
            let at_ms = now_ms();
            due.extend(some.iter().map(|(user, ..)| (*user, at_ms)));
            self.wake.wake(WakeRequest {}).await?;
        }
        self.got(self.missed.len()).await?;
        let wall = begun.elapsed();
        sleep(Duration::from_secs(1)).await;
        self.ended(format!("{rate}/s, {over}"), &due, wall, before).await
    }

    /// Waits until the fake has got so many since its log began.
    async fn got(&self, count: usize) -> Result<()> {
        let first = self.fake.page(0, 0).await?.next;
        let last = first + u64::try_from(count)? - 1;
        let all = async {
            while self.fake.page(last, 1).await?.entries.is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        timeout(PATIENCE, all).await.context("not every push came")?
    }

    async fn ended(&self, name: String, due: &HashMap<UserId, i64>, wall: Duration, before: Duration) -> Result<Run> {
        let mut times = Histogram::new(3)?;
        let mut since = 0;
        loop {
            let page = self.fake.page(since, 10_000).await?;
            if page.entries.is_empty() {
                break;
            }
            since = page.next;
            for entry in &page.entries {
                ensure!(entry.processed, "a push was answered {:?}", entry.outcome);
                let user = entry.token.trim_start_matches("ok-").parse()?;
                let due_ms = due.get(&user).context("a push to somebody else")?;
                times.record(entry.at_ms.saturating_sub(u64::try_from(*due_ms)?))?;
            }
        }
        ensure!(times.len() == due.len() as u64, "{} pushes for {}", times.len(), due.len());
        Ok(Run { name, wall, cpu: self.cpu()? - before, times })
    }

    fn cpu(&self) -> Result<Duration> {
        cpu(self.stack.node(NodeName::Notifier(0))?.pid().context("the notifier ended")?)
    }
}

impl Run {
    fn line(&self) -> String {
        let pushes = self.times.len() as f64;
        format!(
            "| {} | {:.0} | {} ms | {} ms | **{:.0} µs** |",
            self.name,
            pushes / self.wall.as_secs_f64(),
            self.times.value_at_quantile(0.5),
            self.times.value_at_quantile(0.99),
            self.cpu.as_secs_f64() * 1e6 / pushes,
        )
    }
}

impl Fake {
    async fn start(folder: &Path) -> Result<Self> {
        let program = binary()?.with_file_name("fake-fcm");
        let mut child = Command::new(program)
            .arg("--key-dir")
            .arg(folder)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting fake-fcm")?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let Some(line) = lines.next_line().await? else { bail!("fake-fcm did not start") };
        let words = line.split(' ').filter_map(|word| word.split_once('='));
        let ready = words.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Ok(Self { ready, http: reqwest::Client::new(), _child: child })
    }

    fn at(&self, key: &str) -> Result<&str> {
        self.ready.get(key).map(String::as_str).with_context(|| format!("fake-fcm named no {key}"))
    }

    async fn page(&self, since: u64, limit: usize) -> Result<Page> {
        let url = format!("{}/log?since={since}&limit={limit}", self.at("control")?);
        Ok(serde_json::from_slice(&self.http.get(url).send().await?.error_for_status()?.bytes().await?)?)
    }

    async fn forget(&self) -> Result<()> {
        self.http.delete(format!("{}/log", self.at("control")?)).send().await?.error_for_status()?;
        Ok(())
    }
}

async fn register(stack: &Stack, person: &Person) -> Result<()> {
    let put = stack.storage().put_device(NewDevice {
        user_id: person.id,
        device_id: "phone".parse()?,
        platform: Platform::Android,
        target_kind: TargetKind::Token,
        push_token: format!("ok-{}", person.id),
        login: None,
        now_ms: now_ms(),
    });
    ensure!(matches!(put.await?, PutDevice::Put(_)), "the device is not registered");
    Ok(())
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

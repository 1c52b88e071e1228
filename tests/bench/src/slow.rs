//! What clients that hardly read cost: the memory that each adds to a gateway, and what the others notice. Messages are
//! pushed to the gateway itself, another one to each client, so that nothing is shared and no api is in the way.

use crate::{
    audience::{Audience, Manners, open},
    measure::now,
    system::{System, seat},
};
use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hdrhistogram::Histogram;
use std::time::Duration;
use tokio::{
    io::AsyncReadExt as _,
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use touchline_harness::Person;
use touchline_ids::{ChannelId, IncarnationId, MessageId, UserId};
use touchline_load::processes::resident;
use touchline_mesh::Shutdown;
use touchline_proto::{
    convert::pack_users,
    push::{Message, PushRequest, push_service_client::PushServiceClient},
};

/// How much each client is sent: enough to fill whatever is bounded well before the end.
const MESSAGE: usize = 8 * 1024;
const PER_SECOND: u32 = 4;
/// What a slow client reads per second.
const READ: usize = 100;
/// Clients whose delay is taken.
const OTHERS: usize = 100;
/// Opening at the same time.
const OPENING: usize = 32;

/// One measurement of everybody.
#[derive(Debug)]
struct Measured {
    peak: u64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures with `clients` that read as they should, then with as many that do not.
pub(crate) async fn run(clients: usize, seconds: u32) -> Result<()> {
    let system = System::start(1, OTHERS + clients).await?;
    let registry = system.stack().registry().await?;
    let lease = registry.gateways().await?.pop().context("a gateway")?;
    let (others, crowd) = system.people().split_at(OTHERS);
    let pushes = Pushes::open(&lease.grpc_url, lease.incarnation).await?;
    let pid = system.stack().gateway(0)?.pid().context("the gateway ended")?;

    eprintln!("slow: {clients} clients that read as they should");
    let readers = Audience::seat(crowd.iter().map(seat), &Manners::Silent).await?;
    let before = measure(&pushes, others, crowd, seconds, pid).await?;
    readers.leave().await?;

    eprintln!("slow: {clients} clients that read {READ} bytes a second");
    let life = Shutdown::new();
    let slow = stream::iter(crowd.iter().map(|person| async { open(seat(person).await?, true).await }));
    let slow: Vec<_> = slow.buffer_unordered(OPENING).try_collect().await?;
    let idle = resident(pid)?;
    for socket in slow {
        life.spawn_until_stop(async move {
            let (mut stream, mut buffer) = (socket.into_inner(), [0; READ]);
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                sleep(Duration::from_secs(1)).await;
            }
        });
    }
    let with = measure(&pushes, others, crowd, seconds, pid).await?;
    life.stop_now();

    let added = with.peak.saturating_sub(idle) as f64 / 1024.0 / clients as f64;
    println!(
        "\n| {clients} clients | others' p50 | others' p99 | memory added by each |\n|---|---|---|---|\n\
         | reading as they should | {:.1} ms | {:.1} ms | |\n| reading {READ} B/s | {:.1} ms | {:.1} ms ({:.2} times) | **{added:.0} KiB** |",
        before.p50_ms,
        before.p99_ms,
        with.p50_ms,
        with.p99_ms,
        with.p99_ms / before.p99_ms,
    );
    Ok(())
}

/// Sends everybody messages for so long; the gateway's greatest memory, and the delay of the others.
async fn measure(pushes: &Pushes, others: &[Person], crowd: &[Person], seconds: u32, pid: u32) -> Result<Measured> {
    let audience = Audience::seat(others.iter().map(seat), &Manners::Silent).await?;
    let ids: Vec<_> = others.iter().map(|person| person.id).collect();
    let (mut turn, mut peak) = (interval(Duration::from_secs(1) / PER_SECOND), 0);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = Instant::now() + Duration::from_secs(seconds.into());
    for seq in 1.. {
        turn.tick().await;
        if Instant::now() >= end {
            break;
        }
        for (index, person) in crowd.iter().enumerate() {
            pushes.push(seq, &[person.id]).await?;
            // The others' message somewhere in the middle of it.
            if index == crowd.len() / 2 {
                pushes.push(seq, &ids).await?;
            }
        }
        peak = peak.max(resident(pid)?);
    }
    sleep(Duration::from_secs(2)).await;
    let mut times = Histogram::<u64>::new(3)?;
    for nanoseconds in audience.leave().await?.concat() {
        times.record(nanoseconds)?;
    }
    let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Measured { peak, p50_ms: ms(0.5), p99_ms: ms(0.99) })
}

/// A push stream of our own.
struct Pushes {
    requests: mpsc::Sender<PushRequest>,
    incarnation: IncarnationId,
    channel: ChannelId,
    text: String,
    life: Shutdown,
}

impl Pushes {
    async fn open(url: &str, incarnation: IncarnationId) -> Result<Self> {
        let (requests, receiver) = mpsc::channel(64);
        let channel = touchline_mesh::client::stream_channel(url)?;
        let mut answers = PushServiceClient::new(channel).push(ReceiverStream::new(receiver)).await?.into_inner();
        let life = Shutdown::new();
        life.spawn_until_stop(async move { while let Ok(Some(_)) = answers.message().await {} });
        Ok(Self { requests, incarnation, channel: ChannelId::new(), text: "x".repeat(MESSAGE), life })
    }

    async fn push(&self, seq: i64, users: &[UserId]) -> Result<()> {
        let message = Message {
            channel_id: self.channel.as_bytes().to_vec(),
            seq,
            message_id: MessageId::new().as_bytes().to_vec(),
            sender_id: users[0].as_bytes().to_vec(),
            kind: "text".to_owned(),
            content: format!(r#"{{"at":{},"text":"{}"}}"#, now(), self.text).into(),
            created_at_ms: 1_764_000_000_000,
            prev: None,
        };
        let request = PushRequest {
            incarnation: self.incarnation.as_bytes().to_vec().into(),
            recipients: pack_users(users.iter()),
            message: Some(message),
            ..PushRequest::default()
        };
        self.requests.send(request).await.context("the push stream ended")
    }
}

impl Drop for Pushes {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

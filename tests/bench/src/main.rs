//! The fan-out benchmark: what a delivery and an idle session cost, beside a bare loop of socket writes in the same
//! run. Start it with `tests/run bench`, which brings Postgres and Redis; `--help` names what can be changed.
//!
//! Never depends on the services' code: it starts the `touchline` that was built beside it.

mod audience;
mod bare;
mod measure;
mod notifier;
mod report;
mod slow;
mod system;

use anyhow::Result;
use audience::{Audience, Manners, Seat};
use bare::Bare;
use clap::{Parser, Subcommand};
use report::{Fanout, Idle};
use std::{
    future::{Ready, ready},
    time::Duration,
};
use system::{Pace, System};
use tokio::time::{Instant, sleep};
use touchline_load::processes;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a delivery to a socket and an idle session cost.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// Sockets in the channel.
    #[arg(long, default_value_t = 1_000)]
    sockets: usize,
    /// Messages per run.
    #[arg(long, default_value_t = 300)]
    messages: usize,
    /// Idle sessions.
    #[arg(long, default_value_t = 5_000)]
    sessions: usize,
    /// Gateway processes.
    #[arg(long, default_value_t = 1)]
    gateways: usize,
    /// Senders of the run at full speed.
    #[arg(long, default_value_t = 8)]
    senders: usize,
    /// Messages per second of the run at an even pace.
    #[arg(long, default_value_t = 20)]
    rate: u32,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Clone, Subcommand)]
enum Part {
    /// What clients that hardly read cost.
    Slow {
        /// So many of them.
        #[arg(long, default_value_t = 1_000)]
        clients: usize,
        /// For so long, once with clients that read and once with clients that do not.
        #[arg(long, default_value_t = 30)]
        seconds: u32,
    },
    /// How fast one notifier pushes to the fake FCM.
    Notifier {
        /// So many notifications, each of another user.
        #[arg(long, default_value_t = 20_000)]
        users: usize,
        /// Of them due per second in the run at an even pace.
        #[arg(long, default_value_t = 500)]
        rate: u32,
    },
    /// The baseline's process; started by the benchmark itself.
    #[command(hide = true)]
    Bare,
}

/// Messages before the clock starts: streams, caches and pools are warm then.
const WARM_UP: usize = 20;
/// After the last delivery: acks, finished outbox rows and results belong to the cost.
const SETTLE: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    match options.part {
        Some(Part::Bare) => return bare::serve().await,
        Some(Part::Slow { clients, seconds }) => return slow::run(clients, seconds).await,
        Some(Part::Notifier { users, rate }) => return notifier::run(users, rate).await,
        None => {}
    }
    let idle = (idle_sessions(&options).await?, idle_bare(&options).await?);
    let (burst, bytes) = fan_out(&options, "touchline, full speed", Pace::Senders(options.senders)).await?;
    let (even, _) = fan_out(&options, "touchline, even pace", Pace::PerSecond(options.rate)).await?;
    let bare_burst = fan_out_bare(&options, "bare loop, full speed", bytes, 0).await?;
    let bare_even = fan_out_bare(&options, "bare loop, even pace", bytes, options.rate).await?;
    print!("{}", report::text(&options, &[(burst, bare_burst), (even, bare_even)], &idle, bytes));
    Ok(())
}

async fn idle_sessions(options: &Options) -> Result<Idle> {
    eprintln!("idle: {} sessions at touchline", options.sessions);
    let system = System::start(options.gateways, options.sessions).await?;
    let before = system.gateways_resident()?;
    let audience = system.audience(&Manners::Silent).await?;
    sleep(SETTLE).await;
    let grown = system.gateways_resident()?.saturating_sub(before);
    audience.leave().await?;
    Ok(Idle { name: "touchline", bytes: grown / options.sessions as u64 })
}

async fn idle_bare(options: &Options) -> Result<Idle> {
    eprintln!("idle: {} sessions at the bare loop", options.sessions);
    let bare = Bare::start().await?;
    let before = processes::resident(bare.pid()?)?;
    let audience = Audience::seat(bare_seats(&bare, options.sessions), &Manners::Silent).await?;
    sleep(SETTLE).await;
    let grown = processes::resident(bare.pid()?)?.saturating_sub(before);
    audience.leave().await?;
    Ok(Idle { name: "bare loop", bytes: grown / options.sessions as u64 })
}

/// One run of messages through the whole path; also how long a frame was.
async fn fan_out(options: &Options, name: &'static str, pace: Pace) -> Result<(Fanout, usize)> {
    eprintln!("fan-out: {name}");
    let system = System::start(options.gateways, options.sockets).await?;
    let channel = system.channel().await?;
    let audience = system.audience(&Manners::Acks(channel.to_string())).await?;
    system.send(channel, WARM_UP, Pace::Senders(1)).await?;
    audience.has_received((WARM_UP * options.sockets) as u64).await?;
    sleep(SETTLE).await;

    let (cpu, start) = (system.cpu()?, Instant::now());
    system.send(channel, options.messages, pace).await?;
    audience.has_received(((WARM_UP + options.messages) * options.sockets) as u64).await?;
    let wall = start.elapsed();
    sleep(SETTLE).await;
    let used = system.cpu()?;

    let bytes = audience.frame_bytes();
    let times = audience.leave().await?;
    let cpu = vec![("api", used.api - cpu.api), ("gateway", used.gateways - cpu.gateways)];
    Ok((Fanout::new(name, wall, cpu, measured(&times, WARM_UP)), bytes))
}

async fn fan_out_bare(options: &Options, name: &'static str, bytes: usize, rate: u32) -> Result<Fanout> {
    eprintln!("fan-out: {name}, frames of {bytes} bytes");
    let mut bare = Bare::start().await?;
    let pid = bare.pid()?;
    let audience = Audience::seat(bare_seats(&bare, options.sockets), &Manners::Silent).await?;
    let (cpu, start) = (processes::cpu(pid)?, Instant::now());
    bare.write(options.sockets, options.messages, bytes, rate).await?;
    audience.has_received((options.messages * options.sockets) as u64).await?;
    let (wall, used) = (start.elapsed(), processes::cpu(pid)?);
    let times = audience.leave().await?;
    Ok(Fanout::new(name, wall, vec![("loop", used - cpu)], measured(&times, 0)))
}

fn bare_seats(bare: &Bare, count: usize) -> impl Iterator<Item = Ready<Result<Seat>>> {
    std::iter::repeat_n(Seat { url: bare.url.clone(), hello: None }, count).map(|seat| ready(Ok(seat)))
}

/// The times of every socket without those of its first `skip` frames.
fn measured(times: &[Vec<u64>], skip: usize) -> Vec<u64> {
    times.iter().flat_map(|socket| socket.iter().skip(skip)).copied().collect()
}

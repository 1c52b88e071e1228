//! `fake-fcm`: the imitation as a process of its own.

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use std::{io::Write as _, net::SocketAddr, path::PathBuf};
use touchline_fake_fcm::{FakeFcm, Options, bench};
use touchline_mesh::Shutdown;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Imitates Firebase Cloud Messaging (HTTP v1) and Google's token endpoint. Says on standard output when and where it is
/// ready; ends on SIGTERM.
#[derive(Debug, Parser)]
struct Arguments {
    /// FCM over TLS (h2 or http/1.1).
    #[arg(long, default_value = "127.0.0.1:0")]
    https: SocketAddr,
    /// FCM without TLS (HTTP/2 with prior knowledge, or HTTP/1.1).
    #[arg(long, default_value = "127.0.0.1:0")]
    http: SocketAddr,
    /// Control and log.
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// Where to write service-account.json, service-account-http.json and ca.pem.
    #[arg(long, default_value = "fake-fcm")]
    key_dir: PathBuf,
    /// The project of the service account.
    #[arg(long, default_value = "touchline-test")]
    project: String,
    /// Requests the log keeps.
    #[arg(long, default_value_t = 2_000_000)]
    entries: usize,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Measures how fast a running fake answers.
    Bench(bench::Options),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.part {
            Some(Part::Bench(options)) => bench::run(options).await,
            None => serve(arguments).await,
        }
    })
}

async fn serve(arguments: Arguments) -> Result<()> {
    let life = Shutdown::new();
    life.on_signals().context("signal handlers")?;
    let Arguments { https, http, control, key_dir, project, entries, part: _ } = arguments;
    let fake = FakeFcm::start(Options { https, http, control, project, entries, ..Options::default() }).await?;
    let files = fake.write_keys(&key_dir).with_context(|| format!("{}", key_dir.display()))?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "fake-fcm ready https={} http={} control={} key={} key_http={} ca={}",
        fake.https(),
        fake.http(),
        fake.control(),
        files.key.display(),
        files.key_http.display(),
        files.ca.display(),
    )?;
    out.flush()?;
    life.stopping().await;
    Ok(())
}

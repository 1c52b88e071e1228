//! The life of a process: runtime, telemetry, signals, and the end of all three.

use crate::metrics;
use anyhow::Context as _;
use std::{future::Future, io::Write as _, time::Duration};
use tokio::runtime::{Builder, Runtime};
use touchline_mesh::Shutdown;
use touchline_telemetry::Telemetry;

/// What a service's own tasks may take after it has ended. The services themselves have longer, of their own.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a service until it ends, which the first SIGTERM or SIGINT asks for and the second one forces.
pub(crate) fn serve<F>(config: &touchline_telemetry::Config, service: impl FnOnce(Shutdown) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let telemetry = Telemetry::init(config)?;
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals().context("signal handlers")?;
        if let Some(listen) = config.listen {
            metrics::serve(listen, telemetry.scrape(), &shutdown).await?;
        }
        let service = Box::pin(service(shutdown.clone()));
        let result = tokio::select! {
            result = service => result,
            () = shutdown.stopping_now() => Ok(()),
        };
        shutdown.stop();
        shutdown.wait(PATIENCE).await;
        result
    });
    runtime.shutdown_timeout(PATIENCE);
    telemetry.shut_down()?;
    result
}

/// Runs a tool.
pub(crate) fn run(tool: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    runtime()?.block_on(Box::pin(tool))
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build().context("the async runtime")
}

/// Says on stdout that everything serves, and where.
pub(crate) fn say_ready(addresses: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "touchline ready {addresses}")?;
    stdout.flush()
}

//! What happens when one machine's clock is wrong.

use crate::{
    outcome::Outcome,
    scenario::{Context, Scenario, scenario},
    stage::Scene,
};
use anyhow::{Context as _, Result};
use std::{path::PathBuf, time::Duration};
use tempfile::TempDir;
use tokio::time::sleep;
use touchline_harness::{Builder, NodeName, Stack};

pub(super) const ROWS: &[Scenario] = &[
    scenario!(26, clocks_that_differ_within_the_leeway_change_nothing, "p99 ≤ 6 s; sends refused 0", false),
    scenario!(26, a_gateway_an_hour_off_takes_nobody_and_harms_nobody, "p99 ≤ 6 s", false),
];

/// Where Debian's package `libfaketime` puts it.
const PLACES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime"];

/// A wall clock that is read from a file; the monotonic clocks stay true.
struct FakeClock {
    library: String,
    file: PathBuf,
}

impl FakeClock {
    fn new(folder: &TempDir, name: &str, offset: &str) -> Result<Self> {
        let libraries = PLACES.map(|place| PathBuf::from(place).join("libfaketimeMT.so.1"));
        let library = libraries.iter().find(|library| library.exists()).context("needs apt-get install faketime")?;
        let clock = Self { library: library.display().to_string(), file: folder.path().join(name) };
        clock.set(offset)?;
        Ok(clock)
    }

    /// From now on the clock differs by `offset`, such as `+45s`.
    fn set(&self, offset: &str) -> Result<()> {
        Ok(std::fs::write(&self.file, offset)?)
    }

    fn put_on(&self, builder: Builder, node: NodeName) -> Result<Builder> {
        let file = self.file.to_str().context("a path of ours")?;
        Ok(builder
            .environment(node, "LD_PRELOAD", &self.library)
            .environment(node, "FAKETIME_TIMESTAMP_FILE", file)
            .environment(node, "FAKETIME_NO_CACHE", "1")
            .environment(node, "FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .environment(node, "DONT_FAKE_MONOTONIC", "1"))
    }
}

/// One api and one gateway are 45 s off in different directions, then step to the other side.
async fn clocks_that_differ_within_the_leeway_change_nothing(context: Context) -> Result<Outcome> {
    let folder = TempDir::with_prefix("touchline-clocks.")?;
    let api = FakeClock::new(&folder, "api", "+45s")?;
    let gateway = FakeClock::new(&folder, "gateway", "-25s")?;
    let builder = api.put_on(Stack::processes(2, 3), NodeName::Api(1))?;
    let builder = gateway.put_on(builder, NodeName::Gateway(1))?;
    let stage = Scene::new(&context).open(builder, &context).await?;
    stage.load.fault_began("step");
    api.set("-45s")?;
    gateway.set("+25s")?;
    sleep(context.seconds(10, 30)).await;
    let (mut outcome, report) = stage.close_with_report().await?;
    let refused = report.sends.refused;
    outcome.require(refused == 0, format!("{refused} sends were refused"));
    outcome.require_p99(Duration::from_secs(6));
    Ok(outcome)
}

/// One gateway steps an hour forward, and an hour back.
async fn a_gateway_an_hour_off_takes_nobody_and_harms_nobody(context: Context) -> Result<Outcome> {
    let folder = TempDir::with_prefix("touchline-clocks.")?;
    let clock = FakeClock::new(&folder, "gateway", "+0s")?;
    let builder = clock.put_on(Stack::processes(2, 3), NodeName::Gateway(1))?;
    let stage = Scene::new(&context).open(builder, &context).await?;
    for offset in ["+1h", "-1h"] {
        stage.load.fault_began("an hour off");
        clock.set(offset)?;
        sleep(context.seconds(8, 30)).await;
        clock.set("+0s")?;
        stage.recover().await;
    }
    let (mut outcome, report) = stage.close_with_report().await?;
    let closed: u64 = report.faults.iter().map(|fault| fault.disconnects).sum();
    outcome.tell(format!("sockets closed {closed}"));
    outcome.require_p99(Duration::from_secs(6));
    Ok(outcome)
}

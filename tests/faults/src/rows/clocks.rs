//! What happens when one machine's clock is wrong.

use crate::{
    outcome::{Outcome, closed},
    scenario::{Context, Scenario, scenario},
    stage::Scene,
};
use anyhow::{Context as _, Result};
use std::{path::PathBuf, time::Duration};
use tempfile::TempDir;
use tokio::time::sleep;
use touchline_harness::{Builder, NodeName, Stack};

pub(super) const ROWS: &[Scenario] = &[
    scenario!(
        26,
        clocks_that_differ_within_the_leeway_change_nothing,
        "p99 ≤ 6 s; sends refused 0; sockets closed 0",
        false
    ),
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

/// An api steps by 45 s, which access tokens bear (60 s), a gateway by 5 s, which tickets bear (10 s), in different
/// directions; then to the other side.
async fn clocks_that_differ_within_the_leeway_change_nothing(context: Context) -> Result<Outcome> {
    let folder = TempDir::with_prefix("touchline-clocks.")?;
    let api = FakeClock::new(&folder, "api", "+0s")?;
    let gateway = FakeClock::new(&folder, "gateway", "+0s")?;
    let builder = api.put_on(Stack::processes(2, 3), NodeName::Api(1))?;
    let builder = gateway.put_on(builder, NodeName::Gateway(1))?;
    let mut scene = Scene::new(&context);
    // A ticket of an api that is 45 s off is good nowhere: nobody connects anew meanwhile.
    scene.mix.flappy = 0;
    let stage = scene.open(builder, &context).await?;
    stage.load.fault_began("step");
    for (of_api, of_gateway) in [("+45s", "-5s"), ("-45s", "+5s")] {
        api.set(of_api)?;
        gateway.set(of_gateway)?;
        sleep(context.seconds(6, 25)).await;
    }
    api.set("+0s")?;
    gateway.set("+0s")?;
    let (mut outcome, report) = stage.close_with_report().await?;
    let refused = report.sends.refused;
    outcome.require(refused == 0, format!("{refused} sends were refused"));
    outcome.require_no_closes(&report);
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
    let closed = closed(&report);
    outcome.tell(format!("sockets closed {closed}"));
    outcome.require_p99(Duration::from_secs(6));
    Ok(outcome)
}

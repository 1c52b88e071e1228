//! Everybody loses their socket at once, and comes back.

use crate::{
    plan::{Devices, Pace, Plan, Sending},
    report::Report,
    running::Load,
};
use anyhow::Result;
use std::time::Duration;
use tokio::time::sleep;

impl Plan {
    /// Makes this a plan for many devices that come back at once: all steady, few messages, so that what is measured is
    /// the coming back.
    #[must_use]
    pub fn for_storm(mut self) -> Self {
        self.sending = Sending { pace: Pace::Even(2.0), ..Sending::default() };
        self.devices = Devices { connects_per_second: 500, ..Devices::default() };
        self.settle = Duration::from_secs(180);
        self.duration = None;
        self
    }
}

/// Runs a load during which `lose` takes the gateways away and brings them back; it returns when they serve again.
/// Then waits up to `patience` until everybody is connected and synced. The report's only
/// [`fault`](crate::Report::faults) says how long 99 % of them took, and all.
///
/// # Errors
/// When the devices do not get online in the first place, `lose` fails, or nothing can be judged.
pub async fn storm(plan: Plan, patience: Duration, lose: impl AsyncFnOnce() -> Result<()>) -> Result<Report> {
    /// So that there is something to miss, and to measure before.
    const CALM: Duration = Duration::from_secs(5);
    let running = Load::start(plan).await?;
    sleep(CALM).await;
    running.fault_began("all sockets lost");
    lose().await?;
    running.fault_healed();
    running.recovered(patience).await;
    sleep(CALM).await;
    running.finish().await
}

//! A load while it runs.

use crate::{plan::Plan, report::Report};
use anyhow::{Result, bail};
use std::time::Duration;

/// The way into a load.
#[derive(Debug, Clone, Copy)]
pub struct Load;

/// A load that runs. Dropping it ends it where it stands.
#[derive(Debug)]
pub struct Running;

/// How it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Since the first send.
    pub elapsed: Duration,
    /// Messages sent.
    pub messages: u64,
    /// Answered 2xx.
    pub accepted: u64,
    /// Refused for good.
    pub refused: u64,
    /// Requests with an unknown outcome.
    pub unknown: u64,
    /// Messages that wait for their answer.
    pub in_flight: u64,
    /// Messages shown by devices.
    pub shown: u64,
    /// Devices that are connected.
    pub online: usize,
    /// Devices that should be.
    pub devices: usize,
    /// Connected steady devices that miss something that is accepted.
    pub behind: usize,
    /// Positions devices disagree on, or that were shown twice or out of order, so far.
    pub broken: u64,
}

impl Load {
    /// Connects the devices at the plan's pace, waits until they have caught up, and begins to send.
    ///
    /// # Errors
    /// When the plan makes no sense, or the devices do not get online.
    pub async fn start(plan: Plan) -> Result<Running> {
        drop(plan);
        bail!("not yet")
    }
}

impl Running {
    /// How it stands now.
    pub fn progress(&self) -> Progress {
        Progress::default()
    }

    /// Something is broken from now on. What is sent from now until [`fault_healed`](Self::fault_healed) is also
    /// measured apart. A fault before that was not healed ends here.
    pub fn fault_began(&self, name: &str) {
        let _ = name;
    }

    /// It works again from now on: how long the devices take to be back is measured from here.
    pub fn fault_healed(&self) {}

    /// Waits until every steady device is connected and has everything that was accepted until now; gives how long
    /// that took, none when it takes longer than `patience`.
    pub async fn recovered(&self, patience: Duration) -> Option<Duration> {
        let _ = patience;
        None
    }

    /// Waits until the plan's time to send is over, for ever when it has none.
    pub async fn sent(&self) {
        std::future::pending().await
    }

    /// Stops sending, waits for the answers, for the devices to reach the head of every channel and for the logs to be
    /// read back, and judges.
    ///
    /// # Errors
    /// When nothing can be judged at all.
    pub async fn finish(self) -> Result<Report> {
        bail!("not yet")
    }
}

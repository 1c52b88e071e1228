//! Signals to processes of ours.

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// The caller holds the process as a child it has not waited for, so the number is not somebody else's.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a pid is not 0")?;
    Ok(kill_process(pid, signal)?)
}

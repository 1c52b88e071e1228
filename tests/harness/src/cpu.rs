//! Less CPU for one process.

use crate::signals::signal;
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use std::{fs, path::PathBuf, time::Duration};
use tokio::time::sleep;
use touchline_mesh::Shutdown;

/// One share is handed out in every such period.
const PERIOD_US: u32 = 50_000;
/// The cgroup tree of version 1; version 2 names its files differently.
const TREES: [(&str, Version); 2] = [("/sys/fs/cgroup/cpu", Version::One), ("/sys/fs/cgroup", Version::Two)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A process that gets a part of one CPU only, until this is dropped.
#[derive(Debug)]
pub struct Starved {
    by: Means,
}

#[derive(Debug)]
enum Means {
    /// The scheduler's own quota.
    Group { folder: PathBuf, parent: PathBuf, pid: u32 },
    /// SIGSTOP and SIGCONT in turn.
    Turns { pid: u32, life: Shutdown },
}

impl Starved {
    /// Gives the process `percent` of one CPU, by a cgroup where we may make one, otherwise by stopping and continuing
    /// it twenty times a second.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn to(pid: u32, percent: u32) -> Result<Self> {
        ensure!((1..=100).contains(&percent), "percent of one CPU");
        let group = TREES.iter().find_map(|(tree, version)| group(tree, *version, pid, percent).ok());
        if let Some(by) = group {
            return Ok(Self { by });
        }
        signal(pid, Signal::CONT)?;
        let life = Shutdown::new();
        life.spawn(turns(pid, percent));
        Ok(Self { by: Means::Turns { pid, life } })
    }

    /// How it is done: `cgroup` or `signals`.
    pub fn means(&self) -> &'static str {
        match self.by {
            Means::Group { .. } => "cgroup",
            Means::Turns { .. } => "signals",
        }
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        match &self.by {
            Means::Group { folder, parent, pid } => {
                // Fails when the process has ended, then the group is empty.
                _ = fs::write(parent.join("cgroup.procs"), pid.to_string());
                if let Err(error) = fs::remove_dir(folder) {
                    eprintln!("the group {} stays behind: {error}", folder.display());
                }
            }
            Means::Turns { pid, life } => {
                life.stop_now();
                _ = signal(*pid, Signal::CONT);
            }
        }
    }
}

fn group(tree: &str, version: Version, pid: u32, percent: u32) -> Result<Means> {
    let (parent, folder) = (PathBuf::from(tree), PathBuf::from(tree).join(format!("touchline-{pid}")));
    ensure!(version == Version::One || parent.join("cgroup.controllers").exists(), "not mounted");
    fs::create_dir(&folder)?;
    let quota = PERIOD_US * percent / 100;
    let limit = || -> Result<()> {
        match version {
            Version::One => {
                fs::write(folder.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
                fs::write(folder.join("cpu.cfs_quota_us"), quota.to_string())?;
            }
            Version::Two => fs::write(folder.join("cpu.max"), format!("{quota} {PERIOD_US}"))?,
        }
        fs::write(folder.join("cgroup.procs"), pid.to_string()).context("moving the process")
    };
    if let Err(error) = limit() {
        fs::remove_dir(&folder)?;
        return Err(error);
    }
    Ok(Means::Group { folder, parent, pid })
}

async fn turns(pid: u32, percent: u32) {
    let period = Duration::from_micros(PERIOD_US.into());
    let runs = period * percent / 100;
    // Until the process has ended.
    while signal(pid, Signal::STOP).is_ok() {
        sleep(period.saturating_sub(runs)).await;
        _ = signal(pid, Signal::CONT);
        sleep(runs).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::process::Command;

    #[tokio::test]
    async fn a_starved_process_goes_on_when_it_is_fed_again() {
        let mut process =
            Command::new("sh").args(["-c", "read line"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let starved = Starved::to(process.id().unwrap(), 10).unwrap();
        assert!(["cgroup", "signals"].contains(&starved.means()));
        drop(starved);
        drop(process.stdin.take());
        process.wait().await.unwrap();
    }

    #[tokio::test]
    async fn without_a_group_it_takes_turns() {
        let mut process =
            Command::new("sh").args(["-c", "read line"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = process.id().unwrap();
        let life = Shutdown::new();
        life.spawn(turns(pid, 50));
        drop(Starved { by: Means::Turns { pid, life } });
        drop(process.stdin.take());
        process.wait().await.unwrap();
    }
}

//! What the kernel says about processes of this machine.

use anyhow::{Context as _, Result};
use std::{fs, time::Duration};

/// CPU time of a process so far, user and system, threads that ended included (proc(5), `stat` fields 14 and 15).
/// In steps of one clock tick, 10 ms.
///
/// # Errors
/// When there is no such process.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name stands in parentheses and may contain anything; after it come fields 3, 4, …
    let (_, fields) = stat.rsplit_once(") ").context("stat has a command name")?;
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// Resident memory of a process in bytes.
///
/// # Errors
/// When there is no such process.
pub fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most memory that a process ever held resident, in bytes.
///
/// # Errors
/// When there is no such process.
pub fn most_resident(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("status has {field}"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_process_that_is_not_there_has_none() {
        let pid = std::process::id();
        assert!(cpu(pid).is_ok());
        assert!(resident(pid).unwrap() > 0);
        assert!(cpu(0).is_err() && resident(0).is_err());
    }
}

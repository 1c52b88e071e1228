//! What a load costs the servers' processes and its own.

use crate::{
    plan::Server,
    processes::{cpu, resident},
    report::{Cost, ProcessCost},
};
use std::time::Duration;

/// Readings of each process, at the moments that matter.
#[derive(Debug)]
pub(crate) struct Costs {
    processes: Vec<Process>,
    sessions: usize,
    own: Duration,
}

#[derive(Debug)]
struct Process {
    server: Server,
    before: u64,
    connected: u64,
    /// CPU time at the first send.
    cpu: Duration,
}

/// A process that ended costs nothing more.
fn cpu_of(pid: u32) -> Duration {
    cpu(pid).unwrap_or_default()
}

fn resident_of(pid: u32) -> u64 {
    resident(pid).unwrap_or_default()
}

impl Costs {
    /// Before any device connects.
    pub(crate) fn before(servers: &[Server]) -> Self {
        let process = |server: &Server| {
            let before = resident_of(server.pid);
            Process { server: server.clone(), before, connected: before, cpu: Duration::ZERO }
        };
        Self { processes: servers.iter().map(process).collect(), sessions: 0, own: Duration::ZERO }
    }

    /// With so many devices connected.
    pub(crate) fn connected(&mut self, sessions: usize) {
        self.sessions = sessions;
        self.processes.iter_mut().for_each(|process| process.connected = resident_of(process.server.pid));
    }

    /// At the first send.
    pub(crate) fn sending(&mut self) {
        self.own = cpu_of(std::process::id());
        self.processes.iter_mut().for_each(|process| process.cpu = cpu_of(process.server.pid));
    }

    /// CPU time of this process since the first send.
    pub(crate) fn own(&self) -> Duration {
        cpu_of(std::process::id()).saturating_sub(self.own)
    }

    /// When everything is delivered; none when no process was named.
    pub(crate) fn report(&self, deliveries: u64) -> Option<Cost> {
        if self.processes.is_empty() {
            return None;
        }
        let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        let process = |process: &Process| ProcessCost {
            name: process.server.name.clone(),
            pid: process.server.pid,
            cpu_s: cpu_of(process.server.pid).saturating_sub(process.cpu).as_secs_f64(),
            before_mib: mib(process.before),
            connected_mib: mib(process.connected),
            end_mib: mib(resident_of(process.server.pid)),
        };
        let processes: Vec<_> = self.processes.iter().map(process).collect();
        let grown: f64 = processes.iter().map(|process| process.connected_mib - process.before_mib).sum();
        let used: f64 = processes.iter().map(|process| process.cpu_s).sum();
        Some(Cost {
            cpu_per_delivery_us: used * 1e6 / deliveries.max(1) as f64,
            memory_per_session_kib: grown * 1024.0 / self.sessions.max(1) as f64,
            processes,
        })
    }
}

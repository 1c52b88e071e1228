//! The table, as it stands in the README.

use crate::Options;
use hdrhistogram::Histogram;
use std::{fmt::Write as _, time::Duration};

/// One run of messages.
pub(crate) struct Fanout {
    name: &'static str,
    wall: Duration,
    /// Whose CPU time, and how much.
    cpu: Vec<(&'static str, Duration)>,
    /// Nanoseconds from send to socket.
    times: Histogram<u64>,
}

/// Memory of idle sessions.
pub(crate) struct Idle {
    pub(crate) name: &'static str,
    /// Per session.
    pub(crate) bytes: u64,
}

impl Fanout {
    pub(crate) fn new(
        name: &'static str,
        wall: Duration,
        cpu: Vec<(&'static str, Duration)>,
        nanoseconds: Vec<u64>,
    ) -> Self {
        let mut times = Histogram::new(3).expect("three digits are allowed");
        for nanoseconds in nanoseconds {
            times.record(nanoseconds).expect("the range grows by itself");
        }
        Self { name, wall, cpu, times }
    }

    fn deliveries(&self) -> f64 {
        self.times.len() as f64
    }

    fn cpu_per_delivery(&self) -> f64 {
        self.cpu.iter().map(|(_, time)| time.as_secs_f64()).sum::<f64>() * 1e6 / self.deliveries()
    }

    fn row(&self) -> String {
        let split =
            |(whose, time): &(&str, Duration)| format!("{whose} {:.2}", time.as_secs_f64() * 1e6 / self.deliveries());
        let split: Vec<_> = self.cpu.iter().map(split).collect();
        let milliseconds = |quantile| self.times.value_at_quantile(quantile) as f64 / 1e6;
        format!(
            "| {} | {:.0} | {:.1} ms | {:.1} ms | **{:.1} µs** ({}) |",
            self.name,
            self.deliveries() / self.wall.as_secs_f64(),
            milliseconds(0.5),
            milliseconds(0.99),
            self.cpu_per_delivery(),
            split.join(", "),
        )
    }
}

/// Everything, as Markdown: each run and the idle sessions, with the baseline beside them.
pub(crate) fn text(options: &Options, runs: &[(Fanout, Fanout)], idle: &(Idle, Idle), bytes: usize) -> String {
    let Options { sockets, messages, sessions, gateways, senders, rate, .. } = options;
    let mut text = format!(
        "\n{sockets} sockets in one channel, {messages} messages, frames of {bytes} bytes; 1 api, {gateways} gateway(s); \
         full speed: {senders} senders; even pace: {rate} messages/s\n\n\
         | | deliveries/s | send→socket p50 | p99 | CPU per delivery | times the bare loop |\n|---|---|---|---|---|---|\n"
    );
    for (run, bare) in runs {
        let ratio = run.cpu_per_delivery() / bare.cpu_per_delivery();
        let _ = writeln!(text, "{} {ratio:.2} |\n{} 1 |", run.row(), bare.row());
    }
    let (ours, bare) = idle;
    let kib = |idle: &Idle| idle.bytes as f64 / 1024.0;
    let _ = write!(
        text,
        "\n| {sessions} idle sessions, no TLS | memory per session | times the bare loop |\n|---|---|---|\n\
         | {} | **{:.1} KiB** | {:.2} |\n| {} | {:.1} KiB | 1 |\n",
        ours.name,
        kib(ours),
        kib(ours) / kib(bare),
        bare.name,
        kib(bare),
    );
    text
}

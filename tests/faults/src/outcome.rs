//! What a scenario showed.

use serde::Serialize;
use std::time::Duration;
use touchline_load::Report;

/// The mark of the time before the fault.
pub(crate) const UNDISTURBED: &str = "undisturbed";

/// How [`Outcome::broke`] begins when the load's own judge found something, and when devices stayed away.
pub(crate) const GUARANTEES: &str = "guarantees broke";
pub(crate) const NOT_BACK: &str = "the devices did not come back";

/// The sockets that ended while a fault lasted.
pub(crate) fn closed(report: &Report) -> u64 {
    report.faults.iter().filter(|fault| fault.name != UNDISTURBED).map(|fault| fault.disconnects).sum()
}

/// The figures every row has, and what it missed.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) accepted: u64,
    pub(crate) unknown: u64,
    /// Never shown by a device that was entitled to it, or accepted and not in the log.
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) out_of_order: u64,
    /// Foreign, conflicting, refused yet delivered, outside of the membership, to a canary.
    pub(crate) misdelivered: u64,
    pub(crate) duplicated_on_wire: u64,
    /// Pairs of user and channel that were to be notified, and were.
    pub(crate) notified: usize,
    /// Those that were not in time.
    pub(crate) unnotified: usize,
    /// Deliveries to devices that were online for which a notification was due for a while.
    pub(crate) notified_while_live: usize,
    /// Send → shown before anything was broken.
    pub(crate) before_p99_ms: f64,
    /// Send → shown while the fault lasted; of several faults the worst.
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// From healed until every steady device was back and at head; none when nothing was to heal.
    pub(crate) recovery_s: Option<f64>,
    /// What only this row has.
    pub(crate) special: Vec<String>,
    /// What must hold on any machine and did not.
    pub(crate) broke: Vec<String>,
    /// Targets in time and numbers that were missed: on a busy machine they may be.
    pub(crate) missed: Vec<String>,
}

impl Outcome {
    /// The figures of a load; what broke counts as missed.
    pub(crate) fn of(report: &Report) -> Self {
        let broken = report.broken;
        let (before, faults): (Vec<_>, Vec<_>) = report.faults.iter().partition(|fault| fault.name == UNDISTURBED);
        let times: Vec<_> = faults.iter().map(|fault| fault.send_to_device).collect();
        let back: Option<Vec<f64>> = faults.iter().map(|fault| fault.recovered_s).collect();
        let mut outcome = Self {
            accepted: report.sends.accepted,
            unknown: report.sends.unknown,
            lost: broken.lost + broken.not_in_log + broken.holes_in_log + broken.behind,
            duplicated: broken.duplicated + broken.twice_in_log,
            out_of_order: broken.out_of_order + broken.against_sender_order,
            misdelivered: broken.foreign
                + broken.conflicting
                + broken.refused_yet_delivered
                + broken.outside_membership
                + broken.canary,
            duplicated_on_wire: report.deliveries.duplicated_on_wire,
            before_p99_ms: before.first().map_or(0.0, |before| before.send_to_device.p99_ms),
            p99_ms: times.iter().map(|times| times.p99_ms).fold(0.0, f64::max),
            max_ms: times.iter().map(|times| times.max_ms).fold(0.0, f64::max),
            recovery_s: back.as_ref().and_then(|back| back.iter().copied().reduce(f64::max)),
            ..Self::default()
        };
        if !report.is_clean() {
            outcome.broke.push(format!("{GUARANTEES}: {}", report.examples.join("; ")));
        }
        if back.is_none() {
            outcome.broke.push(format!("{NOT_BACK} after the fault"));
        }
        outcome
    }

    /// Whether everything held and the target is met.
    pub(crate) fn passed(&self) -> bool {
        self.broke.is_empty() && self.missed.is_empty()
    }

    /// How it ended, in a word.
    pub(crate) fn word(&self) -> &'static str {
        match (self.broke.is_empty(), self.missed.is_empty()) {
            (true, true) => "passed",
            (true, false) => "missed",
            (false, _) => "BROKE",
        }
    }

    /// What must hold on any machine: noted when it does not.
    pub(crate) fn require(&mut self, held: bool, what: impl Into<String>) {
        if !held {
            self.broke.push(what.into());
        }
    }

    /// A target in time or numbers: noted when it is missed.
    pub(crate) fn aim(&mut self, met: bool, what: impl Into<String>) {
        if !met {
            self.missed.push(what.into());
        }
    }

    /// Something to tell.
    pub(crate) fn tell(&mut self, what: impl Into<String>) {
        self.special.push(what.into());
    }

    /// No socket ended while a fault lasted; flappy devices, which the load itself cuts, do not count.
    pub(crate) fn require_no_closes(&mut self, report: &Report) {
        let closed = closed(report);
        self.tell(format!("sockets closed {closed}"));
        self.require(closed == 0, format!("{closed} sockets were closed"));
    }

    /// 99 % of the deliveries take at most so long while the fault lasts.
    pub(crate) fn require_p99(&mut self, limit: Duration) {
        let met = self.p99_ms <= limit.as_secs_f64() * 1e3;
        self.aim(met, format!("99 % of the deliveries took up to {:.0} ms, at most {limit:?}", self.p99_ms));
    }
}

//! Load and verdict: senders, devices of several kinds, and the checker that judges what they saw. Against any running
//! Touchline, by URL.
//!
//! Never depends on a service, a database or the registry: it sees what a client sees.

mod checker;
mod plan;
mod report;
mod running;

pub use checker::{Checker, Sighting, Verdict};
pub use plan::{Channel, Devices, InvalidMix, Kind, Mix, Pace, Plan, Sending, Server, User};
pub use report::{Broken, Cost, Deliveries, Fault, Loaded, ProcessCost, Report, Sends, Times};
pub use running::{Load, Progress, Running};

//! Load and verdict: senders, devices of several kinds, and the checker that judges what they saw. Against any running
//! Touchline, by URL.
//!
//! Never depends on a service, a database or the registry: it sees what a client sees.

mod board;
mod checker;
mod clock;
mod costs;
mod faults;
mod findings;
mod judge;
mod ledger;
mod listening;
mod log;
mod outages;
mod plan;
pub mod processes;
mod report;
mod running;
mod seat;
mod sending;
mod settling;
mod text;
mod text_report;
mod times;
mod track;

pub use checker::{Checker, Sighting, Verdict};
pub use plan::{Channel, Devices, InvalidMix, Kind, Mix, Pace, Plan, Sending, Server, User};
pub use report::{Broken, Cost, Deliveries, Fault, Loaded, Outages, ProcessCost, Report, Sends, Times};
pub use running::{Connecting, Load, Progress, Running, Watch};

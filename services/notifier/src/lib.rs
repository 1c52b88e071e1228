//! The notifier: tells people whom no device reached, through a push service.
//!
//! `work` claims what is due, `decide` says what is to be done about each notification, `deliver` sends it to every
//! device of the user, `settle` writes down what came of it. Large channels are notified by `walk`. A push service is a
//! `provider`: `fcm`, `webhook` or `log`.
//!
//! Never depends on the registry, and never calls an api or a gateway.

mod access_token;
pub mod answers;
mod app;
mod backoff;
mod bounded;
pub mod circuit;
mod clock;
pub mod config;
mod counters;
mod decide;
mod deliver;
pub mod error;
mod fcm;
mod log;
pub mod message;
mod metrics;
mod open;
pub mod pace;
mod per_device;
mod preview;
pub mod provider;
pub mod quiet;
mod retry_after;
mod rules;
pub mod service_account;
mod settle;
mod sweep;
mod switch;
mod token_call;
mod under_way;
mod wake;
mod walk;
mod webhook;
mod work;

#[cfg(test)]
mod test_account;
#[cfg(test)]
mod test_push;
#[cfg(test)]
mod test_server;

pub use app::{App, Dependencies, Error, build};
pub use config::Config;
pub use error::OpenError;
pub use open::open;
pub use provider::{Answer, Preview, Provider, Push};

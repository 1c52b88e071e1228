//! The notifier: tells people whom no device reached, through a push service.
//!
//! Never depends on the registry, and never calls an api or a gateway.

mod access_token;
pub mod answers;
mod bounded;
pub mod circuit;
pub mod config;
pub mod error;
mod fcm;
mod log;
pub mod message;
mod metrics;
mod open;
pub mod pace;
mod per_device;
pub mod provider;
mod retry_after;
pub mod service_account;
mod switch;
mod token_call;
mod webhook;

#[cfg(test)]
mod test_account;
#[cfg(test)]
mod test_push;
#[cfg(test)]
mod test_server;

pub use config::Config;
pub use error::OpenError;
pub use open::open;
pub use provider::{Answer, Preview, Provider, Push};

//! The notifier: tells people whom no device reached, through a push service.
//!
//! Never depends on the registry, and never calls an api or a gateway.

pub mod provider;
pub mod quiet;

pub use provider::{Answer, Preview, Provider, Push};

//! (stub, being written)
use crate::error::Error;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use touchline_config::Problem;
use touchline_ids::UserId;

/// How often one may ask.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {}

impl Settings {
    /// What is wrong (paths from the root: `api.limits.…`).
    pub fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}

/// The limits at work.
pub struct Limits {}

impl Limits {
    /// Limits by these settings; `trusted` proxies' X-Forwarded-For is believed.
    pub fn new(_: &Settings, _trusted: Vec<IpNet>) -> Self {
        Self {}
    }
    /// Sends and changes of channels, by user.
    pub fn check_send(&self, _: UserId) -> Result<(), Error> {
        Ok(())
    }
    /// Syncs, by user.
    pub fn check_sync(&self, _: UserId) -> Result<(), Error> {
        Ok(())
    }
    /// Tickets, by user.
    pub fn check_connect(&self, _: UserId) -> Result<(), Error> {
        Ok(())
    }
    /// Forgets who has not asked for long, every minute.
    pub async fn sweep_forever(&self) {}
}

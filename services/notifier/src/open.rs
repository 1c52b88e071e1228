//! From the configuration to the provider it names.

use crate::{
    Provider,
    config::{Config, Kind},
    error::OpenError,
    fcm::Fcm,
    log::Log,
    webhook::Webhook,
};
use std::sync::Arc;
use touchline_mesh::Shutdown;

/// Opens the configured provider. Its tasks (FCM's access token) belong to `life`.
///
/// # Errors
/// What is wrong with the files the configuration names; nothing is sent to find that out.
pub fn open(config: &Config, life: &Shutdown) -> Result<Arc<dyn Provider>, OpenError> {
    Ok(match config.provider {
        Kind::Log => Arc::new(Log::new()),
        Kind::Fcm => Arc::new(Fcm::open(&config.fcm, life)?),
        Kind::Webhook => Arc::new(Webhook::open(&config.webhook)?),
    })
}

//! What the configuration says about who gets a push, and when none is worth anything any more.

use crate::config::{Config, Kind};
use std::time::Duration;

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// Who gets a push.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// How long a notification is worth something.
    pub(crate) ttl: Duration,
    /// Whether a push may carry text.
    pub(crate) show_text: bool,
    /// Devices that were away for longer get none, in milliseconds.
    pub(crate) idle_ms: i64,
    /// Whoever tries it out sees in the log why there is no push.
    pub(crate) tells_skipped: bool,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Self {
        Self {
            ttl: Duration::from_secs(config.ttl_s.into()),
            show_text: config.show_text,
            idle_ms: i64::from(config.idle_days) * DAY_MS,
            tells_skipped: config.provider == Kind::Log,
        }
    }
}

/// After how long away a device is forgotten, in milliseconds.
pub(crate) fn forget_ms(config: &Config) -> i64 {
    i64::from(config.forget_days) * DAY_MS
}

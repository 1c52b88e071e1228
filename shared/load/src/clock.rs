//! One clock for everything a load measures.

use std::time::{Duration, Instant};

/// Microseconds since the load began to exist; monotonic, of this process only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Now.
    pub(crate) fn now(self) -> u64 {
        micros(self.origin.elapsed())
    }
}

/// Whole microseconds; what does not fit is a very long time.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The way back.
pub(crate) fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

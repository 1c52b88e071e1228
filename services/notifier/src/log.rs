//! Pushes as lines in the log, for development: what would go out, but neither to whom it is addressed nor the text.

use crate::{Answer, Provider, Push, metrics::Metrics};
use async_trait::async_trait;

/// How many lines at once are enough.
const AT_ONCE: usize = 100;

/// The log as a provider.
#[derive(Debug)]
pub(crate) struct Log {
    metrics: Metrics,
}

impl Log {
    /// Always ready.
    pub(crate) fn new() -> Self {
        Self { metrics: Metrics::new("log") }
    }
}

#[async_trait]
impl Provider for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    async fn ready(&self) -> usize {
        AT_ONCE
    }

    async fn send(&self, push: &Push) -> Answer {
        tracing::info!(
            user.id = %push.user,
            device.id = %push.device,
            device.platform = ?push.platform,
            channel.id = %push.channel,
            message.seq = %push.seq,
            push.count = push.count,
            push.badge = push.badge,
            push.mentioned = push.mentioned,
            "a push would go out"
        );
        let answer = Answer::Accepted { id: "log".into() };
        self.metrics.answered(&answer);
        answer
    }
}

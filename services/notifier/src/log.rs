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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Preview, test_push::push};
    use std::{
        io,
        sync::{Arc, Mutex},
    };
    use touchline_storage::Platform;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_line_says_what_would_go_out_but_neither_the_token_nor_the_text() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let preview = Some(Preview { title: "a title".into(), body: "a text".into() });
        let push = Push { preview, ..push(Platform::Ios, "a-token") };
        let log = Log::new();
        assert_eq!(log.ready().await, AT_ONCE);
        assert!(matches!(log.send(&push).await, Answer::Accepted { .. }));
        drop(guard);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        for part in ["device.id=phone", "message.seq=4711", "push.count=3", "push.badge=7", "push.mentioned=false"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for secret in ["a-token", "a title", "a text"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

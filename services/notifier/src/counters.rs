//! What operators see of the notifier's work.

use std::time::Duration;
use touchline_storage::{PushOutcome, Storage};
use touchline_telemetry::{Counter, KeyValue, meter};

/// How often the rows are counted. Every notifier counts the same ones: take the greatest figure, not the sum.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// Counts what comes of notifications.
pub(crate) struct Counters {
    pushes: Counter<u64>,
    skipped: Counter<u64>,
}

impl Default for Counters {
    fn default() -> Self {
        let pushes = meter()
            .u64_counter("touchline.notifier.pushes")
            .with_description("Pushes to devices, by what became of them")
            .build();
        let skipped = meter()
            .u64_counter("touchline.notifier.skipped")
            .with_description("Notifications that needed no push, by the reason")
            .build();
        Self { pushes, skipped }
    }
}

impl Counters {
    pub(crate) fn pushed(&self, outcome: PushOutcome) {
        self.pushes.add(1, &[KeyValue::new("outcome", outcome.as_str())]);
    }

    pub(crate) fn skipped(&self, why: &'static str) {
        self.skipped.add(1, &[KeyValue::new("reason", why)]);
    }
}

/// Counts the rows for ever. While the database is away the last figures stand.
pub(crate) async fn watch_rows(storage: Storage) {
    let rows = meter()
        .u64_gauge("touchline.notifications.rows")
        .with_description("Notifications by state: `due` now, `waiting` for their time, `sent` and not acked, `dead`")
        .build();
    let age = meter()
        .f64_gauge("touchline.notifications.oldest_due")
        .with_unit("s")
        .with_description("How long the notification that is due for longest has been")
        .build();
    loop {
        match storage.notification_counts().await {
            Ok(counts) => {
                let states =
                    [("due", counts.due), ("waiting", counts.waiting), ("sent", counts.sent), ("dead", counts.dead)];
                for (state, count) in states {
                    rows.record(count, &[KeyValue::new("state", state)]);
                }
                age.record(Duration::from_millis(counts.oldest_due_ms).as_secs_f64(), &[]);
            }
            Err(error) => tracing::debug!(%error, "notifications were not counted"),
        }
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

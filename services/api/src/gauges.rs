//! What operators see of the outbox: how much waits, how much nobody works on, and what was given up.

use std::time::Duration;
use touchline_storage::Storage;
use touchline_telemetry::{KeyValue, meter};

/// How often the outbox is counted. Every api counts the same rows: take the greatest of them, not the sum.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// Counts for ever. While the database is away the last figures stand.
pub async fn watch_outbox(storage: Storage) {
    let rows = meter()
        .u64_gauge("touchline.outbox.rows")
        .with_description("Messages whose fan-out is not finished, by state; `dead` ones were given up")
        .build();
    let age = meter()
        .f64_gauge("touchline.outbox.oldest_expired")
        .with_unit("s")
        .with_description("How long the oldest message has waited for an api to take it over")
        .build();
    loop {
        match storage.outbox_counts().await {
            Ok(counts) => {
                for (state, count) in [("waiting", counts.waiting), ("expired", counts.expired), ("dead", counts.dead)]
                {
                    rows.record(count, &[KeyValue::new("state", state)]);
                }
                age.record(Duration::from_millis(counts.oldest_expired_ms).as_secs_f64(), &[]);
            }
            Err(error) => tracing::debug!(%error, "the outbox was not counted"),
        }
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

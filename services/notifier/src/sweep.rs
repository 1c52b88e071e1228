//! What has served its time goes: old outcomes and notifications, devices nobody has seen, mentions nobody looks at.

use crate::clock;
use std::time::Duration;
use touchline_storage::Storage;

/// Between sweeps.
const EVERY: Duration = Duration::from_secs(600);
/// Rows of one kind that go in one statement.
const PORTION: u64 = 1_000;
/// How long a mention can decide about a push.
const MENTIONS_MS: i64 = 30 * DAY_MS;
/// How long a token may be another sender's before its device is forgotten.
const SUSPECT_MS: i64 = 14 * DAY_MS;
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// Sweeps for ever.
pub(crate) async fn run(storage: Storage, forget_ms: i64) {
    loop {
        if let Err(error) = sweep(&storage, forget_ms).await {
            tracing::warn!(%error, "not swept, again later");
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn sweep(storage: &Storage, forget_ms: i64) -> touchline_storage::Result<()> {
    while storage.sweep_notifications(PORTION).await? >= PORTION {}
    let now_ms = clock::now_ms();
    while storage.sweep_devices(now_ms - forget_ms, now_ms - SUSPECT_MS, PORTION).await? >= PORTION {}
    while storage.sweep_mentions(now_ms - MENTIONS_MS, PORTION).await? >= PORTION {}
    Ok(())
}

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

/// What is swept.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Outcomes,
    Notifications,
    Devices,
    Mentions,
}

/// Sweeps for ever. What goes wrong with one kind keeps no other kind.
pub(crate) async fn run(storage: Storage, forget_ms: i64) {
    loop {
        let now_ms = clock::now_ms();
        for kind in [Kind::Outcomes, Kind::Notifications, Kind::Devices, Kind::Mentions] {
            loop {
                match portion(&storage, kind, now_ms, forget_ms).await {
                    Ok(PORTION..) => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(?kind, %error, "not swept, again later");
                        break;
                    }
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn portion(storage: &Storage, kind: Kind, now_ms: i64, forget_ms: i64) -> touchline_storage::Result<u64> {
    match kind {
        Kind::Outcomes => storage.sweep_outcomes(PORTION).await,
        Kind::Notifications => storage.sweep_notifications(PORTION).await,
        Kind::Devices => storage.sweep_devices(now_ms - forget_ms, now_ms - SUSPECT_MS, PORTION).await,
        Kind::Mentions => storage.sweep_mentions(now_ms - MENTIONS_MS, PORTION).await,
    }
}

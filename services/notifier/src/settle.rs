//! Writing down what came of notifications, in batches. However long the database is away: what was sent is written
//! when it is back. Until then its rows are claimed, at most for 30 s.

use crate::deliver::Delivered;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_storage::{Storage, StorageError, Then};
use uuid::Uuid;

/// Most rows written by one transaction.
const BATCH: usize = 256;
/// Between tries while the database is away.
const RETRY: Duration = Duration::from_secs(1);

/// A claimed row that has come to its end.
pub(crate) struct Settled {
    /// Whose.
    pub(crate) user: UserId,
    /// Of which channel.
    pub(crate) channel: ChannelId,
    /// Up to where it was claimed.
    pub(crate) seq: Seq,
    /// When its pushes began, Unix milliseconds.
    pub(crate) begun_ms: i64,
    /// What came of it.
    pub(crate) delivered: Delivered,
    /// Its place among those under way; given back when it is written.
    pub(crate) _place: Option<OwnedSemaphorePermit>,
}

/// Writes until nobody is left to settle a row.
pub(crate) async fn run(storage: Storage, owner: Uuid, mut settled: mpsc::Receiver<Settled>) {
    let mut batch = Vec::with_capacity(BATCH);
    while settled.recv_many(&mut batch, BATCH).await > 0 {
        while let Err(error) = write(&storage, owner, &batch).await {
            if !matches!(error, StorageError::Unavailable(_) | StorageError::InDoubt(_)) {
                // Their claims end, and the rows are tried again: a notification twice rather than none.
                tracing::error!(%error, rows = batch.len(), "what came of notifications was refused");
                break;
            }
            tracing::warn!(%error, "what came of notifications is not written, trying again");
            tokio::time::sleep(RETRY).await;
        }
        batch.clear();
    }
}

async fn write(storage: &Storage, owner: Uuid, batch: &[Settled]) -> touchline_storage::Result<()> {
    forget_tokens(storage, batch.iter().map(|settled| (&settled.delivered, settled.begun_ms))).await?;
    let rows: Vec<(UserId, ChannelId, Seq, Then)> =
        batch.iter().map(|one| (one.user, one.channel, one.seq, one.delivered.then)).collect();
    let outcomes: Vec<_> = batch.iter().flat_map(|one| one.delivered.outcomes.iter().cloned()).collect();
    storage.settle_notifications(owner, &rows, &outcomes).await
}

/// Forgets void tokens and marks those of another sender, unless they were replaced since the push began.
pub(crate) async fn forget_tokens<'a>(
    storage: &Storage,
    delivered: impl Iterator<Item = (&'a Delivered, i64)> + Clone,
) -> touchline_storage::Result<()> {
    let void: Vec<_> = delivered
        .clone()
        .flat_map(|(delivered, begun_ms)| {
            let each = delivered.void.iter();
            each.map(move |push| (push.user, push.device.clone(), push.token.clone(), begun_ms))
        })
        .collect();
    let suspect: Vec<_> = delivered
        .flat_map(|(delivered, _)| &delivered.suspect)
        .map(|push| (push.user, push.device.clone(), push.token.clone()))
        .collect();
    if !void.is_empty() {
        let forgotten = storage.forget_void(&void).await?;
        tracing::info!(tokens.void = void.len(), devices.forgotten = forgotten, "void push tokens");
    }
    if !suspect.is_empty() {
        tracing::error!(
            devices.suspect = suspect.len(),
            "push tokens of another sender: is notifier.fcm.service_account_file of the project the apps were built for?"
        );
        storage.suspect(&suspect, crate::clock::now_ms()).await?;
    }
    Ok(())
}

//! Writing down what came of notifications, in batches. However long the database is away: what was sent is written
//! when it is back.

use crate::{deliver::Delivered, under_way::UnderWay};
use std::{slice, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_storage::{Settlement, Storage, StorageError, Then};

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
    /// When its pushes began, Unix milliseconds by the database's clock.
    pub(crate) begun_ms: i64,
    /// What came of it.
    pub(crate) delivered: Delivered,
    /// Its place among those under way; given back when it is written.
    pub(crate) _place: OwnedSemaphorePermit,
}

impl Settled {
    fn key(&self) -> (UserId, ChannelId) {
        (self.user, self.channel)
    }
}

/// Writes until nobody is left to settle a row.
pub(crate) async fn run(storage: Storage, under_way: &UnderWay, mut settled: mpsc::Receiver<Settled>) {
    let mut batch = Vec::with_capacity(BATCH);
    while settled.recv_many(&mut batch, BATCH).await > 0 {
        if let Err(error) = write_at_last(&storage, under_way, &batch).await {
            tracing::warn!(%error, rows = batch.len(), "refused, trying each notification by itself");
            for one in &batch {
                if let Err(error) = write_at_last(&storage, under_way, slice::from_ref(one)).await {
                    // Its claim ends and it is tried again: a notification twice rather than none.
                    tracing::error!(user.id = %one.user, channel.id = %one.channel, %error, "refused");
                    under_way.leave(one.key(), under_way.claim(one.key()));
                }
            }
        }
        batch.clear();
    }
}

/// However long the database is away. What it refuses for another reason is an error.
async fn write_at_last(storage: &Storage, under_way: &UnderWay, batch: &[Settled]) -> touchline_storage::Result<()> {
    loop {
        match write(storage, under_way, batch).await {
            Err(error @ (StorageError::Unavailable(_) | StorageError::InDoubt(_))) => {
                tracing::warn!(%error, "what came of notifications is not written, trying again");
                tokio::time::sleep(RETRY).await;
            }
            written => return written,
        }
    }
}

async fn write(storage: &Storage, under_way: &UnderWay, batch: &[Settled]) -> touchline_storage::Result<()> {
    note_tokens(storage, batch.iter().map(|settled| (&settled.delivered, settled.begun_ms))).await?;
    let settlement = |one: &Settled| Settlement {
        user: one.user,
        channel: one.channel,
        seq: one.seq,
        claim: under_way.claim(one.key()),
        then: one.delivered.then,
    };
    let settlements: Vec<_> = batch.iter().map(settlement).collect();
    let outcomes: Vec<_> = batch.iter().flat_map(|one| one.delivered.outcomes.iter().cloned()).collect();
    storage.settle_notifications(&settlements, &outcomes).await?;
    let late = settlements.into_iter().filter_map(|settled| {
        let claim = under_way.leave((settled.user, settled.channel), settled.claim)?;
        Some(Settlement { claim, then: Then::Released, ..settled })
    });
    let late: Vec<_> = late.collect();
    if !late.is_empty() {
        storage.settle_notifications(&late, &[]).await?;
    }
    Ok(())
}

/// Forgets void tokens, marks those of another sender, and clears those that proved right, unless they were replaced
/// since the push began.
pub(crate) async fn note_tokens<'a>(
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
    let each = delivered.clone().flat_map(|(delivered, _)| &delivered.suspect);
    let suspect: Vec<_> = each.map(|push| (push.user, push.device.clone(), push.token.clone())).collect();
    let trusted: Vec<_> = delivered.flat_map(|(delivered, _)| delivered.trusted.iter().cloned()).collect();
    if !void.is_empty() {
        let forgotten = storage.forget_void(&void).await?;
        tracing::info!(tokens.void = void.len(), devices.forgotten = forgotten, "void push tokens");
    }
    if !suspect.is_empty() && storage.suspect(&suspect, crate::clock::now_ms()).await? > 0 {
        tracing::error!(
            devices.suspect = suspect.len(),
            "push tokens of another sender: is notifier.fcm.service_account_file of the project the apps were built for?"
        );
    }
    if !trusted.is_empty() {
        storage.trust(&trusted).await?;
    }
    Ok(())
}

//! This api's rows in the outbox: renewed while it works on them, removed when their messages are finished and
//! whoever missed them has a notification row, let go when nobody here works on them any more.

use crate::claims::{Claim, Claims};
use std::{collections::HashSet, iter, slice, sync::Arc, time::Duration};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_storage::{Storage, StorageError};

/// Finished messages waiting to leave the outbox.
const QUEUE: usize = 16_384;
/// Most outbox rows removed by one statement.
const BATCH: usize = 256;
/// Most notifications written by one transaction, unless one message alone has more.
const NOTIFICATIONS: usize = 10_000;
/// How often this api says that it still works on its outbox rows; they expire after 5 s.
const CLAIM_RENEWAL: Duration = Duration::from_secs(2);
/// Between tries while the database is away.
const RETRY: Duration = Duration::from_secs(1);

/// A message whose fan-out is over.
pub struct Finished {
    /// Its row.
    pub claim: Claim,
    /// Who is to be notified of it.
    pub missed: Vec<UserId>,
    /// Its channel is too large for a row each of them.
    pub in_large: bool,
    /// Its share of what may be under way; given back when its rows are written.
    pub _room: OwnedSemaphorePermit,
}

/// The task that looks after the rows.
pub struct Outbox {
    storage: Storage,
    claims: Arc<Claims>,
    finished: mpsc::Receiver<Finished>,
    notifiers: Arc<Notify>,
}

impl Outbox {
    /// The task, and where finished messages go. `notifiers` is told when somebody is to be notified.
    pub fn new(storage: Storage, claims: Arc<Claims>, notifiers: Arc<Notify>) -> (Self, mpsc::Sender<Finished>) {
        let (done, finished) = mpsc::channel(QUEUE);
        (Self { storage, claims, finished, notifiers }, done)
    }

    /// Works until nobody is left to finish a message.
    pub async fn run(self) {
        let Self { storage, claims, mut finished, notifiers } = self;
        tokio::select! {
            () = settle_all(&storage, &notifiers, &mut finished) => {}
            () = keep_claims(&storage, &claims) => {}
            () = let_go(&storage, &claims) => {}
        }
    }
}

async fn settle_all(storage: &Storage, notifiers: &Notify, finished: &mut mpsc::Receiver<Finished>) {
    let mut batch = Vec::with_capacity(BATCH);
    while finished.recv_many(&mut batch, BATCH).await > 0 {
        let mut refused = HashSet::new();
        for portion in portions(&batch, Finished::rows) {
            if let Err(error) = settle(storage, portion).await {
                tracing::warn!(batch.size = portion.len(), %error, "refused, trying each message by itself");
                settle_each(storage, portion, &mut refused).await;
            }
            if portion.iter().any(|finished| !finished.missed.is_empty()) {
                notifiers.notify_one();
            }
        }
        for finished in batch.drain(..) {
            if !refused.contains(&finished.claim.row()) {
                finished.claim.settle();
            }
        }
    }
}

/// One message whose rows the database refuses must not keep its neighbours.
async fn settle_each(storage: &Storage, portion: &[Finished], refused: &mut HashSet<(ChannelId, Seq)>) {
    for finished in portion {
        if let Err(error) = settle(storage, slice::from_ref(finished)).await {
            let (channel, seq) = finished.claim.row();
            tracing::error!(channel.id = %channel, message.seq = %seq, %error, "refused: its row stays in the outbox");
            refused.insert((channel, seq));
        }
    }
}

/// However long the database is away: until the notification rows are there the outbox rows stay.
async fn settle(storage: &Storage, portion: &[Finished]) -> touchline_storage::Result<()> {
    let missed: Vec<_> = portion.iter().flat_map(Finished::notifications).collect();
    let in_large: Vec<_> = portion.iter().filter_map(Finished::walk).collect();
    let rows: Vec<_> = portion.iter().map(|finished| finished.claim.row()).collect();
    while goes_again("notification rows", storage.notify_all(&missed, &in_large).await)? {
        tokio::time::sleep(RETRY).await;
    }
    while goes_again("removal of outbox rows", storage.finish(&rows).await)? {
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

/// Whether to write again, because the database is away. What it refuses for another reason would hold everybody up
/// for ever: then the outbox rows stay.
fn goes_again(what: &'static str, written: touchline_storage::Result<()>) -> touchline_storage::Result<bool> {
    match written {
        Ok(()) => Ok(false),
        Err(error @ (StorageError::Unavailable(_) | StorageError::InDoubt(_))) => {
            tracing::warn!(what, %error, "not written, trying again");
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

impl Finished {
    /// One row for everybody who missed it, in a channel that is not too large for that.
    fn notifications(&self) -> impl Iterator<Item = (UserId, ChannelId, Seq)> {
        let (channel, seq) = self.claim.row();
        let each = if self.in_large { &[][..] } else { &self.missed };
        each.iter().map(move |user| (*user, channel, seq))
    }

    /// The walk that finds them in a large channel.
    fn walk(&self) -> Option<(ChannelId, Seq)> {
        (self.in_large && !self.missed.is_empty()).then(|| self.claim.row())
    }

    fn rows(&self) -> usize {
        if self.in_large { 1 } else { self.missed.len() }
    }
}

/// Cuts `all` into pieces of at most [`NOTIFICATIONS`] each, or of one element.
fn portions<T>(mut all: &[T], size: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    iter::from_fn(move || {
        let mut sum = 0;
        let fits = |element: &&T| {
            sum += size(element);
            sum <= NOTIFICATIONS
        };
        let count = all.iter().take_while(fits).count().max(1);
        let (portion, rest) = all.split_at_checked(count)?;
        all = rest;
        Some(portion)
    })
}

async fn keep_claims(storage: &Storage, claims: &Claims) {
    let mut tick = tokio::time::interval(CLAIM_RENEWAL);
    loop {
        tick.tick().await;
        for owner in claims.owners() {
            if let Err(error) = storage.renew_claims(owner).await {
                tracing::warn!(%error, "outbox claims not renewed");
            }
        }
    }
}

/// Lets go what nobody here works on any more: at once, so that another api need not wait for the claim's end.
async fn let_go(storage: &Storage, claims: &Claims) {
    loop {
        let rows = claims.let_go().await;
        for owner in claims.owners() {
            loop {
                match goes_again("rows to let go", storage.release(&rows, owner).await) {
                    Ok(true) => tokio::time::sleep(RETRY).await,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::error!(%error, rows = rows.len(), "not let go: they wait for this api's end");
                        break;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_are_written_in_portions_of_bounded_size() {
        let cut = |sizes: &[usize]| portions(sizes, |size| *size).map(<[usize]>::to_vec).collect::<Vec<_>>();
        assert!(cut(&[]).is_empty());
        assert_eq!(cut(&[1, 0, 2]), [vec![1, 0, 2]]);
        assert_eq!(cut(&[NOTIFICATIONS, 0, 1, 1]), [vec![NOTIFICATIONS, 0], vec![1, 1]]);
        assert_eq!(
            cut(&[3 * NOTIFICATIONS, 1, NOTIFICATIONS]),
            [vec![3 * NOTIFICATIONS], vec![1], vec![NOTIFICATIONS]]
        );
    }
}

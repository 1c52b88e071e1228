//! The end of a message's fan-out: collect results, look once more for whom it missed, write notification rows for
//! whoever still has no acking device, and only then remove the outbox row.

use crate::{
    deliver::{Deliverer, Pushed},
    resolve::Reached,
    send::Stored,
};
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::timeout};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_mesh::Shutdown;
use touchline_storage::Storage;
use uuid::Uuid;

/// Finished messages waiting to leave the outbox.
const QUEUE: usize = 16_384;
/// Most outbox rows removed by one statement.
const BATCH: usize = 256;
/// How often this api says that it still works on its outbox rows; they expire after 5 s.
const CLAIM_RENEWAL: Duration = Duration::from_secs(2);
/// Between tries while the database is away.
const RETRY: Duration = Duration::from_secs(1);

/// Finishes messages; shared by all of them.
pub struct Finisher {
    deliverer: Arc<Deliverer>,
    storage: Storage,
    second_look: Duration,
    done: mpsc::Sender<(ChannelId, Seq)>,
}

impl Finisher {
    /// A finisher and the task that empties the outbox for it.
    pub fn new(deliverer: Arc<Deliverer>, storage: Storage, owner: Uuid, second_look: Duration) -> (Self, OutboxTask) {
        let (done, finished) = mpsc::channel(QUEUE);
        let task = OutboxTask { storage: storage.clone(), owner, finished };
        (Self { deliverer, storage, second_look, done }, task)
    }

    /// Follows one message to its end.
    pub async fn finish(&self, stored: Stored, pushes: Vec<Pushed>) {
        let mut reached = Reached::nobody(Arc::clone(&stored.members));
        // The sender's devices get the message like everybody's, but the sender is never notified.
        reached.mark_user(&stored.entry.sender_id);
        self.collect(&mut reached, pushes).await;
        let mut missed = reached.missed();
        if !missed.is_empty() {
            tokio::time::sleep(self.second_look).await;
            missed = self.second_look(&stored, missed).await;
        }
        if stored.notify && !missed.is_empty() {
            self.notify(&stored, &missed).await;
        }
        // The task ends after every finisher: this fails only in a hard stop, and then the row stays for another api.
        let _ = self.done.send((stored.entry.channel_id, stored.entry.seq)).await;
    }

    async fn collect(&self, reached: &mut Reached, pushes: Vec<Pushed>) {
        let wait = self.deliverer.result_wait();
        let results = join_all(pushes.into_iter().map(|pushed| async move {
            // Too late and broken are alike: nobody is known to have it.
            let result = timeout(wait, pushed.result).await.ok()?.ok()?;
            Some((pushed.indexes, result))
        }));
        for (indexes, result) in results.await.into_iter().flatten() {
            reached.mark(&indexes, &result);
        }
    }

    /// Looks the missed up once more and pushes to whoever has come back. Who is missed again is returned.
    async fn second_look(&self, stored: &Stored, missed: Vec<UserId>) -> Vec<UserId> {
        let members = Arc::new(touchline_storage::Members { version: stored.members.version, users: missed });
        let targets = self.deliverer.route(&members.users).await;
        let pushes = self.deliverer.push(stored, &targets);
        let mut reached = Reached::nobody(members);
        self.collect(&mut reached, pushes).await;
        reached.missed()
    }

    /// Writes the notification rows, however long the database is away: until then the outbox row stays.
    async fn notify(&self, stored: &Stored, missed: &[UserId]) {
        let (channel, seq) = (stored.entry.channel_id, stored.entry.seq);
        let rows: Vec<_> = missed.iter().map(|user| (*user, channel, seq)).collect();
        while let Err(error) = self.storage.notify(&rows, crate::clock::now_ms()).await {
            tracing::warn!(channel.id = %channel, message.seq = %seq, %error, "notification rows not written, trying again");
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Removes finished messages from the outbox in batches, and keeps the claims on the others.
pub struct OutboxTask {
    storage: Storage,
    owner: Uuid,
    finished: mpsc::Receiver<(ChannelId, Seq)>,
}

impl OutboxTask {
    /// Works until every [`Finisher`] is gone.
    pub async fn run(mut self, shutdown: &Shutdown) {
        let claims = {
            let (storage, owner) = (self.storage.clone(), self.owner);
            shutdown.spawn(async move { keep_claims(storage, owner).await })
        };
        let mut batch = Vec::with_capacity(BATCH);
        while self.finished.recv_many(&mut batch, BATCH).await > 0 {
            while let Err(error) = self.storage.finish(&batch).await {
                tracing::warn!(batch.size = batch.len(), %error, "outbox rows not removed, trying again");
                tokio::time::sleep(RETRY).await;
            }
            batch.clear();
        }
        claims.abort();
    }
}

async fn keep_claims(storage: Storage, owner: Uuid) {
    let mut tick = tokio::time::interval(CLAIM_RENEWAL);
    loop {
        tick.tick().await;
        if let Err(error) = storage.renew_claims(owner).await {
            tracing::warn!(%error, "outbox claims not renewed");
        }
    }
}

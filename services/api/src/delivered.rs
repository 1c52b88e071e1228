//! What devices acked, on its way into the database: collected by (user, channel), so that a thousand acks of one user
//! in one channel are one row, and written in bulk every 2 s.
//!
//! An ack that is lost here costs little: the next one says the same and more.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_mesh::Shutdown;
use touchline_storage::{Storage, StorageError};

/// Between writes. With the 2 s that a gateway collects, a stored mark is at most 5 s behind.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// Most (user, channel) pairs that wait; then the one noted first is forgotten.
const CAPACITY: usize = 100_000;
/// Most pairs in one call to the storage: what is lost and written again when it fails in the middle.
const BATCH: usize = 10_000;

/// Acks that wait to be written. Shared by everybody who learns of one.
#[derive(Default)]
pub struct Delivered {
    waiting: Mutex<Waiting>,
}

impl Delivered {
    /// The user has a device that holds the channel up to `seq`.
    pub fn note(&self, user: UserId, channel: ChannelId, seq: Seq) {
        self.lock().note((user, channel), seq);
    }

    /// Forgets what waits, also what is being written: it is of a log that is no more.
    pub fn forget(&self) {
        let mut waiting = self.lock();
        *waiting = Waiting { log: waiting.log + 1, ..Waiting::default() };
    }

    /// Writes until the stop, and then what is left, once.
    pub async fn run(&self, storage: &Storage, shutdown: &Shutdown) {
        let mut stopping = std::pin::pin!(shutdown.stopping());
        loop {
            let stop = tokio::select! {
                () = &mut stopping => true,
                () = tokio::time::sleep(FLUSH_EVERY) => false,
            };
            self.flush(storage).await;
            if stop {
                return;
            }
        }
    }

    /// Writes what waits. What the database is not there for goes on waiting.
    async fn flush(&self, storage: &Storage) {
        let (log, (mut acks, forgotten)) = {
            let mut waiting = self.lock();
            (waiting.log, waiting.take())
        };
        if forgotten > 0 {
            tracing::warn!(acks.forgotten = forgotten, "more acks than there is room for");
        }
        while !acks.is_empty() {
            let rest = acks.split_off(acks.len().min(BATCH));
            match storage.delivered(&acks).await {
                Ok(()) => acks = rest,
                Err(error @ (StorageError::Unavailable(_) | StorageError::InDoubt(_))) => {
                    tracing::warn!(%error, "acks not written, trying again");
                    acks.extend(rest);
                    let mut waiting = self.lock();
                    if waiting.log == log {
                        waiting.put_back(acks);
                    }
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, acks.lost = acks.len(), "acks refused");
                    acks = rest;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A user, a channel, and up to where a device of that user holds it.
type Ack = (UserId, ChannelId, Seq);
type Key = (UserId, ChannelId);

#[derive(Default)]
struct Waiting {
    seqs: HashMap<Key, Seq>,
    /// Every key of `seqs` once, as they were noted first.
    order: VecDeque<Key>,
    forgotten: u64,
    /// Of which log they are: counts up when the database begins another one.
    log: u64,
}

impl Waiting {
    fn note(&mut self, key: Key, seq: Seq) {
        match self.seqs.entry(key) {
            Entry::Occupied(mut noted) => *noted.get_mut() = seq.max(*noted.get()),
            Entry::Vacant(place) => {
                place.insert(seq);
                self.order.push_back(key);
                self.forget_over(CAPACITY);
            }
        }
    }

    fn forget_over(&mut self, capacity: usize) {
        while self.order.len() > capacity {
            if let Some(oldest) = self.order.pop_front() {
                self.seqs.remove(&oldest);
                self.forgotten += 1;
            }
        }
    }

    /// Everything, first noted first, and how many were forgotten since the last time.
    fn take(&mut self) -> (Vec<Ack>, u64) {
        let Self { mut seqs, order, forgotten, .. } =
            std::mem::replace(self, Self { log: self.log, ..Self::default() });
        let acks = order.into_iter().filter_map(|key| seqs.remove(&key).map(|seq| (key.0, key.1, seq)));
        (acks.collect(), forgotten)
    }

    /// What was taken waits again, before what was noted since.
    fn put_back(&mut self, acks: Vec<Ack>) {
        for (user, channel, seq) in acks.into_iter().rev() {
            match self.seqs.entry((user, channel)) {
                Entry::Occupied(mut noted) => *noted.get_mut() = seq.max(*noted.get()),
                Entry::Vacant(place) => {
                    place.insert(seq);
                    self.order.push_front((user, channel));
                }
            }
        }
        self.forget_over(CAPACITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note_all(delivered: &Delivered, acks: &[Ack]) {
        acks.iter().for_each(|&(user, channel, seq)| delivered.note(user, channel, seq));
    }

    fn ack(seq: i64) -> Ack {
        (UserId::new(), ChannelId::new(), Seq(seq))
    }

    #[test]
    fn the_furthest_ack_of_a_pair_counts() {
        let (delivered, (ada, talk, _)) = (Delivered::default(), ack(0));
        let other = ack(7);
        note_all(&delivered, &[(ada, talk, Seq(4)), other, (ada, talk, Seq(9))]);
        delivered.note(ada, talk, Seq(5));
        assert_eq!(delivered.lock().take(), (vec![(ada, talk, Seq(9)), other], 0));
        assert_eq!(delivered.lock().take(), (vec![], 0));
    }

    #[test]
    fn the_full_collector_forgets_the_oldest_and_counts_them() {
        let delivered = Delivered::default();
        let acks: Vec<_> = (0..CAPACITY as i64 + 3).map(ack).collect();
        note_all(&delivered, &acks);
        note_all(&delivered, &acks[3..]);
        let (taken, forgotten) = delivered.lock().take();
        assert_eq!((taken.len(), forgotten), (CAPACITY, 3));
        assert_eq!(taken[0], acks[3]);
    }

    #[test]
    fn what_was_not_written_waits_again_and_loses_nothing_that_came_meanwhile() {
        let delivered = Delivered::default();
        let (a, b, c) = (ack(1), ack(2), ack(3));
        note_all(&delivered, &[a, b]);
        let (taken, _) = delivered.lock().take();
        note_all(&delivered, &[c, (a.0, a.1, Seq(8))]);
        delivered.lock().put_back(taken);
        let (taken, forgotten) = delivered.lock().take();
        assert_eq!((taken, forgotten), (vec![b, c, (a.0, a.1, Seq(8))], 0));
        let many: Vec<_> = (0..CAPACITY as i64).map(ack).collect();
        note_all(&delivered, &many);
        delivered.lock().put_back(vec![a, b]);
        let (taken, forgotten) = delivered.lock().take();
        assert_eq!((taken, forgotten), (many, 2));
    }

    #[tokio::test]
    async fn acks_wait_for_a_database_that_is_away_and_are_written_at_the_stop() {
        let (folder, life) = (tempfile::tempdir().unwrap(), Shutdown::new());
        let (storage, settings) = crate::fixtures::database(folder.path()).await;
        let away = Storage::connect(&settings).await.unwrap();
        away.clone().close().await.unwrap();
        let delivered = Delivered::default();
        note_all(&delivered, &[ack(1), ack(2)]);
        delivered.flush(&away).await;
        assert_eq!(delivered.lock().order.len(), 2);
        life.stop();
        delivered.run(&storage, &life).await;
        assert!(delivered.lock().order.is_empty());
    }
}

//! Which devices were here, on its way into the database: each once an hour, collected and written in bulk.
//!
//! What is lost here costs little: the device is noted again in an hour, and is forgotten only after months.

use crate::clock;
use moka::future::Cache;
use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use touchline_ids::{DeviceId, UserId};
use touchline_mesh::Shutdown;
use touchline_storage::{Storage, StorageError};

/// Between writes.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// A device is noted once in so long.
const NOTE_EVERY: Duration = Duration::from_secs(3_600);
/// Most devices that wait, and that are remembered as noted.
const CAPACITY: usize = 100_000;
/// Most devices in one call to the storage.
const BATCH: usize = 10_000;

type Key = (UserId, DeviceId);

/// Devices that were here and wait to be written. Shared by everybody who meets one.
pub struct Seen {
    noted: Cache<Key, ()>,
    waiting: Mutex<HashSet<Key>>,
}

impl Default for Seen {
    fn default() -> Self {
        let noted = Cache::builder().max_capacity(CAPACITY as u64).time_to_live(NOTE_EVERY).build();
        Self { noted, waiting: Mutex::default() }
    }
}

impl Seen {
    /// The user's device is here.
    pub async fn note(&self, user: UserId, device: &DeviceId) {
        let key = (user, device.clone());
        if self.noted.entry_by_ref(&key).or_insert(()).await.is_fresh() {
            let mut waiting = self.lock();
            // Full, while the database is away: it is noted when it comes again in an hour.
            if waiting.len() < CAPACITY {
                waiting.insert(key);
            }
        }
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
        let seen: Vec<Key> = mem::take(&mut *self.lock()).into_iter().collect();
        let mut portions = seen.chunks(BATCH);
        while let Some(some) = portions.next() {
            match storage.seen(some, clock::now_ms()).await {
                Ok(()) => {}
                Err(error @ (StorageError::Unavailable(_) | StorageError::InDoubt(_))) => {
                    tracing::warn!(%error, "devices seen not written, trying again");
                    let rest = [some].into_iter().chain(portions).flatten().cloned();
                    let mut waiting = self.lock();
                    let room = CAPACITY.saturating_sub(waiting.len());
                    waiting.extend(rest.take(room));
                    return;
                }
                Err(error) => tracing::error!(%error, devices.lost = some.len(), "devices seen refused"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use touchline_storage::{NewDevice, Platform, PutDevice, TargetKind};

    fn phone() -> DeviceId {
        "phone".parse().unwrap()
    }

    #[tokio::test]
    async fn a_device_is_noted_once_however_often_it_comes() {
        let (seen, ann) = (Seen::default(), UserId::new());
        for _ in 0..3 {
            seen.note(ann, &phone()).await;
        }
        seen.note(UserId::new(), &phone()).await;
        assert_eq!(mem::take(&mut *seen.lock()).len(), 2);
        seen.note(ann, &phone()).await;
        assert!(seen.lock().is_empty(), "it was noted within the hour");
    }

    #[tokio::test]
    async fn the_full_collector_takes_no_more() {
        let seen = Seen::default();
        seen.lock().extend((0..CAPACITY).map(|_| (UserId::new(), phone())));
        seen.note(UserId::new(), &phone()).await;
        assert_eq!(seen.lock().len(), CAPACITY);
    }

    #[tokio::test]
    async fn devices_wait_for_a_database_that_is_away_and_are_written_at_the_stop() {
        let (folder, life) = (tempfile::tempdir().unwrap(), Shutdown::new());
        let (storage, settings) = fixtures::database(folder.path()).await;
        let ann = fixtures::user(&storage).await;
        let device = NewDevice {
            user_id: ann,
            device_id: phone(),
            platform: Platform::Web,
            target_kind: TargetKind::Fid,
            push_token: "a".to_owned(),
            login: None,
            now_ms: 1,
        };
        assert!(matches!(storage.put_device(device).await.unwrap(), PutDevice::Put(_)));
        let away = Storage::connect(&settings).await.unwrap();
        away.clone().close().await.unwrap();
        let seen = Seen::default();
        seen.note(ann, &phone()).await;
        seen.flush(&away).await;
        assert_eq!(seen.lock().len(), 1);
        life.stop();
        seen.run(&storage, &life).await;
        assert!(seen.lock().is_empty());
        assert!(storage.devices_of(ann).await.unwrap()[0].last_seen_at_ms > 1);
    }
}

//! Taking over the messages of apis that died, stopped or handed them over: rows of the outbox whose claim has ended.

use crate::{claims::Claims, lanes::Lanes, resolve::Due, writer::Stored};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};
use touchline_mesh::Shutdown;
use touchline_storage::{Kind, Storage, StorageError, Taken};

/// How often every api looks, about.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// By how much less or more, in parts of it: so that several apis do not look together.
const JITTER: f64 = 0.2;
/// How long an api that handed a message over leaves such rows to others. It goes on to take what nobody else took:
/// there may be no others.
const LEAVE_TO_OTHERS: Duration = Duration::from_millis(1_500);
/// Rows taken at once; the next are taken when these are pushed, so that a backlog never stands in front of fresh
/// messages for longer than that.
const BATCH: u32 = 256;

/// Which rows an api takes when, without I/O.
#[derive(Default)]
pub struct Schedule {
    handed_over: Option<Instant>,
    #[cfg(feature = "simulation")]
    never: bool,
}

impl Schedule {
    /// Nobody takes anything over: broken on purpose, for the simulator to find.
    #[cfg(feature = "simulation")]
    pub fn never() -> Self {
        Self { never: true, ..Self::default() }
    }

    /// How long to wait before looking again; `random` is 0 to 1.
    pub fn pause(random: f64) -> Duration {
        LOOK_EVERY.mul_f64(1.0 - JITTER + 2.0 * JITTER * random)
    }

    /// Whether to look at all.
    #[cfg(feature = "simulation")]
    pub fn is_due(&self) -> bool {
        !self.never
    }

    /// This api has just handed a message over, because another one may reach whom it cannot.
    pub fn handed_over(&mut self, now: Instant) {
        self.handed_over = Some(now);
    }

    /// For how long a row must have been nobody's to be taken now: what this api let go a moment ago is for others.
    pub fn waited(&self, now: Instant) -> Duration {
        let lately = self.handed_over.is_some_and(|at| now < at + LEAVE_TO_OTHERS);
        if lately { LEAVE_TO_OTHERS } else { Duration::ZERO }
    }
}

/// The schedule, shared with whoever hands over.
#[derive(Clone)]
pub struct SharedSchedule(Arc<Mutex<Schedule>>);

impl Default for SharedSchedule {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Schedule::default())))
    }
}

impl SharedSchedule {
    /// As [`Schedule::handed_over`].
    pub fn handed_over(&self) {
        self.lock().handed_over(Instant::now());
    }

    fn waited(&self) -> Duration {
        self.lock().waited(Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that looks.
pub struct Takeover {
    storage: Storage,
    claims: Arc<Claims>,
    schedule: SharedSchedule,
    lanes: Lanes,
    /// One for each row of the present batch that is not pushed yet.
    turns: Arc<Semaphore>,
}

impl Takeover {
    /// Takes what it finds in the name of `claims` and hands it to `lanes`.
    pub fn new(storage: Storage, claims: Arc<Claims>, schedule: SharedSchedule, lanes: Lanes) -> Self {
        Self { storage, claims, schedule, lanes, turns: Arc::new(Semaphore::new(BATCH as usize)) }
    }

    /// The way into the lanes.
    pub fn lanes(&self) -> Lanes {
        self.lanes.clone()
    }

    /// Looks until the soft stop. What it has taken by then is handed on.
    pub async fn run(self, life: Shutdown) {
        let mut stopping = std::pin::pin!(life.stopping());
        loop {
            tokio::select! {
                () = &mut stopping => return,
                () = tokio::time::sleep(Schedule::pause(rand::random())) => {}
            }
            while !life.is_stopping() {
                if !self.take().await {
                    break;
                }
            }
        }
    }

    /// Takes a batch; true when there may be more.
    async fn take(&self) -> bool {
        // Every row of the batch before has been pushed when all of them are back.
        let Ok(mut turns) = Arc::clone(&self.turns).acquire_many_owned(BATCH).await else { return false };
        let taken = match self.storage.take_expired_since(self.claims.owner(), BATCH, self.schedule.waited()).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(%error, "the outbox was not looked at");
                if let StorageError::InDoubt(_) = error {
                    self.claims.doubt();
                }
                return false;
            }
        };
        if taken.is_empty() {
            return false;
        }
        let full = taken.len() == BATCH as usize;
        tracing::info!(rows = taken.len(), "took over messages that nobody worked on");
        for Taken { entry, members, no_push, attempts } in taken {
            let claim = self.claims.hold((entry.channel_id, entry.seq));
            // What changes a channel is nobody's notification.
            let notify = !no_push && entry.kind == Kind::Text;
            let stored = Stored { entry, members, notify, traceparent: String::new() };
            let due = Due { stored, attempt: attempts, claim, turn: turns.split(1) };
            self.lanes.send(due).await;
        }
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use std::{future::poll_fn, pin::pin, task::Poll};
    use tokio::sync::mpsc;
    use touchline_storage::{MemberCache, WhenLocked};

    /// A database with so many rows that nobody works on.
    async fn backlog(folder: &tempfile::TempDir, rows: u32) -> Storage {
        let (storage, _) = fixtures::database(folder.path()).await;
        let (owner, dead) = (fixtures::user(&storage).await, uuid::Uuid::now_v7());
        let channel = fixtures::channel(owner);
        let id = channel.id;
        storage.create_channel(channel, dead).await.unwrap();
        let messages = (1..rows).map(|number| fixtures::message(id, owner, &number.to_string())).collect();
        storage.append(messages, dead, &MemberCache::default(), WhenLocked::Wait).await.unwrap();
        assert_eq!(storage.release_all(&[dead]).await.unwrap(), u64::from(rows));
        storage
    }

    fn all(lanes: &mut [mpsc::Receiver<Due>]) -> Vec<Due> {
        lanes.iter_mut().flat_map(|lane| std::iter::from_fn(|| lane.try_recv().ok())).collect()
    }

    #[tokio::test]
    async fn a_backlog_is_taken_in_batches_each_when_the_one_before_is_pushed() {
        let folder = tempfile::tempdir().unwrap();
        let storage = backlog(&folder, BATCH + 45).await;
        let (ways_in, mut lanes) = crate::lanes::lanes();
        let takeover = Takeover::new(storage.clone(), Arc::default(), SharedSchedule::default(), ways_in);
        assert!(takeover.take().await, "there may be more");
        let mut taken = all(&mut lanes);
        assert_eq!(taken.len(), BATCH as usize);
        let last = taken.pop();
        taken.clear();

        let mut next = pin!(takeover.take());
        assert!(poll_fn(|context| Poll::Ready(next.as_mut().poll(context).is_pending())).await);
        assert_eq!(storage.outbox_counts().await.unwrap().expired, 45, "they wait in the outbox");
        drop(last);
        assert!(!next.await, "these were all");
        assert_eq!(all(&mut lanes).len(), 45);
        assert_eq!(storage.outbox_counts().await.unwrap().expired, 0);
    }

    #[test]
    fn an_api_looks_each_half_second_with_jitter() {
        assert_eq!(Schedule::pause(0.0), Duration::from_millis(400));
        assert_eq!(Schedule::pause(1.0), Duration::from_millis(600));
    }

    #[test]
    fn what_it_handed_over_it_leaves_to_others_for_a_while() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut schedule = Schedule::default();
        assert_eq!(schedule.waited(at(0)), Duration::ZERO);
        schedule.handed_over(at(600));
        assert_eq!(schedule.waited(at(700)), LEAVE_TO_OTHERS);
        assert_eq!(schedule.waited(at(2_100)), Duration::ZERO);
    }
}

//! Taking over the messages of apis that died, stopped or handed them over: rows of the outbox whose claim has ended.

use crate::{claims::Claims, lanes::Lanes, resolve::Due, writer::Stored};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};
use touchline_mesh::Shutdown;
use touchline_storage::{Kind, Storage, StorageError, Taken};

/// How often every api looks, about.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// By how much less or more, in parts of it: so that several apis do not look together.
const JITTER: f64 = 0.2;
/// How long an api that handed a message over leaves it to others…
const LEAVE_TO_OTHERS: Duration = Duration::from_millis(1_500);
/// …unless it has not looked for this long: there may be no others.
const LOOK_ANYWAY: Duration = Duration::from_secs(3);
/// Rows taken at once; the next are taken when these are pushed, so that a backlog never stands in front of fresh
/// messages for longer than that.
const BATCH: u32 = 256;

/// When an api looks for rows to take, without I/O.
pub struct Schedule {
    looked: Instant,
    handed_over: Option<Instant>,
    #[cfg(feature = "simulation")]
    never: bool,
}

impl Schedule {
    /// From now on.
    pub fn new(now: Instant) -> Self {
        Self {
            looked: now,
            handed_over: None,
            #[cfg(feature = "simulation")]
            never: false,
        }
    }

    /// Nobody takes anything over: broken on purpose, for the simulator to find.
    #[cfg(feature = "simulation")]
    pub fn never() -> Self {
        Self { never: true, ..Self::new(Instant::now()) }
    }

    /// How long to wait before asking [`is_due`](Self::is_due) again; `random` is 0 to 1.
    pub fn pause(random: f64) -> Duration {
        LOOK_EVERY.mul_f64(1.0 - JITTER + 2.0 * JITTER * random)
    }

    /// This api has just handed a message over, because another one may reach whom it cannot.
    pub fn handed_over(&mut self, now: Instant) {
        self.handed_over = Some(now);
    }

    /// Whether to look now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        #[cfg(feature = "simulation")]
        if self.never {
            return false;
        }
        let left_to_others = self.handed_over.is_some_and(|at| now < at + LEAVE_TO_OTHERS);
        let due = !left_to_others || now >= self.looked + LOOK_ANYWAY;
        if due {
            self.looked = now;
        }
        due
    }
}

/// The schedule, shared with whoever hands over.
#[derive(Clone)]
pub struct SharedSchedule(Arc<Mutex<Schedule>>);

impl Default for SharedSchedule {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Schedule::new(Instant::now()))))
    }
}

impl SharedSchedule {
    /// As [`Schedule::handed_over`].
    pub fn handed_over(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).handed_over(Instant::now());
    }

    fn is_due(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_due(Instant::now())
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
            while self.schedule.is_due() && !life.is_stopping() {
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
        let taken = match self.storage.take_expired(self.claims.owner(), BATCH).await {
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

    #[test]
    fn an_api_looks_each_half_second_with_jitter() {
        let mut schedule = Schedule::new(Instant::now());
        assert!(schedule.is_due(Instant::now()));
        assert_eq!(Schedule::pause(0.0), Duration::from_millis(400));
        assert_eq!(Schedule::pause(1.0), Duration::from_millis(600));
    }

    #[test]
    fn what_it_handed_over_it_leaves_to_others_but_not_for_ever() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut schedule = Schedule::new(began);
        assert!(schedule.is_due(at(500)));
        schedule.handed_over(at(600));
        assert!(!schedule.is_due(at(1_000)) && !schedule.is_due(at(2_000)));
        assert!(schedule.is_due(at(2_100)));
        // Handing over all the time does not keep it from looking: it may be alone.
        let looks = (0..100).filter(|n| {
            schedule.handed_over(at(2_500 + n * 100));
            schedule.is_due(at(2_500 + n * 100))
        });
        assert_eq!(looks.count(), 3);
    }
}

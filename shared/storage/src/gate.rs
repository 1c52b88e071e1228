//! Fails fast while the server of the database is away, so that nobody waits for what cannot come: one asks at a time
//! whether it is back, the others are told at once that it is not. The one is a task of its own, or where there is
//! none whoever comes when it is time to look again.
//!
//! A slow or overloaded database does not shut the gate: only a failure to reach it does, and only when nobody has
//! reached it since.

use crate::error::{Result, StorageError, not_reached, unreachable_now};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Between looks while no connection can be made.
const WHILE_AWAY: Duration = Duration::from_millis(250);
/// Between looks when a pooled connection was dead: the next one may be, too, or a new one is made.
const AFTER_A_DEAD_CONNECTION: Duration = Duration::from_millis(20);

/// How much later than the task somebody else looks: only when the task is not there any more.
const AFTER_THE_TASK: Duration = Duration::from_secs(10);

/// The gate; everything that needs a connection passes it.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    has_task: AtomicBool,
    shut: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Set while it is shut: when somebody may look again, and nobody else while somebody looks.
    shut: Option<Look>,
    reached_last: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Look {
    From(Instant),
    UnderWay,
}

impl Gate {
    /// Does `work`, or says at once that the database is away.
    pub(crate) async fn pass<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let visit = self.enter(Instant::now())?;
        let result = work.await;
        visit.leave(&result);
        result
    }

    /// For the task: until it is time to look.
    pub(crate) async fn time_to_look(&self) -> Visit<'_> {
        self.has_task.store(true, Ordering::Relaxed);
        loop {
            let shut = self.lock().shut;
            match shut {
                Some(Look::From(then)) => {
                    tokio::time::sleep_until(then).await;
                    if let Ok(visit) = self.enter_from(Instant::now()) {
                        return visit;
                    }
                }
                Some(Look::UnderWay) | None => self.shut.notified().await,
            }
        }
    }

    fn enter(&self, now: Instant) -> Result<Visit<'_>> {
        let later = if self.has_task.load(Ordering::Relaxed) { AFTER_THE_TASK } else { Duration::ZERO };
        // Who comes before it is time for the task does not come in time for us either.
        self.enter_from(now.checked_sub(later).unwrap_or(now))
    }

    /// Lets in, to look if it was time to at `now`.
    fn enter_from(&self, now: Instant) -> Result<Visit<'_>> {
        let mut state = self.lock();
        match state.shut {
            None => {}
            Some(Look::From(then)) if then <= now => state.shut = Some(Look::UnderWay),
            Some(_) => return Err(StorageError::Unavailable(unreachable_now())),
        }
        let looks = state.shut.is_some();
        Ok(Visit { gate: self, since: Instant::now(), looks })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody on the other side.
pub(crate) struct Visit<'a> {
    gate: &'a Gate,
    since: Instant,
    /// The one who looks whether the database is back.
    looks: bool,
}

impl Visit<'_> {
    pub(crate) fn leave<T>(mut self, result: &Result<T>) {
        let looked = std::mem::take(&mut self.looks);
        let now = Instant::now();
        let mut state = self.gate.lock();
        match result {
            Err(StorageError::Unavailable(error)) if not_reached(error).is_some() => {
                if looked || (state.shut.is_none() && state.reached_last.is_none_or(|reached| reached < self.since)) {
                    let pause = if not_reached(error) == Some(true) { AFTER_A_DEAD_CONNECTION } else { WHILE_AWAY };
                    state.shut = Some(Look::From(now + pause));
                    self.gate.shut.notify_one();
                }
            }
            // It answered, whatever it said.
            _ => {
                state.reached_last = Some(now);
                state.shut = None;
            }
        }
    }
}

impl Drop for Visit<'_> {
    /// Given up while looking: the next one looks.
    fn drop(&mut self) {
        if self.looks {
            self.gate.lock().shut = Some(Look::From(Instant::now()));
            self.gate.shut.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sea_orm::{DbErr, RuntimeErr};

    fn refused() -> Result<()> {
        Err(StorageError::Unavailable(DbErr::ConnectionAcquire(sea_orm::ConnAcquireErr::Timeout)))
    }

    fn dead() -> Result<()> {
        let io = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        Err(StorageError::Unavailable(DbErr::Exec(RuntimeErr::SqlxError(io.into()))))
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_database_is_away_one_looks_and_the_others_are_told_at_once() {
        let gate = Gate::default();
        assert!(gate.pass(async { refused() }).await.is_err());
        assert!(gate.enter(Instant::now()).is_err(), "shut");
        tokio::time::advance(WHILE_AWAY).await;
        let looking = gate.enter(Instant::now()).unwrap();
        assert!(gate.enter(Instant::now()).is_err(), "somebody looks already");
        looking.leave(&refused());
        assert!(gate.enter(Instant::now()).is_err(), "still away");
        tokio::time::advance(WHILE_AWAY).await;
        drop(gate.enter(Instant::now()).unwrap());
        assert!(gate.pass(async { Ok(()) }).await.is_ok(), "who gave up looking keeps nobody");
        assert!(gate.enter(Instant::now()).is_ok() && gate.enter(Instant::now()).is_ok(), "open");
    }

    #[tokio::test(start_paused = true)]
    async fn dead_connections_are_gone_through_quickly() {
        let gate = Gate::default();
        assert!(gate.pass(async { dead() }).await.is_err());
        for _ in 0..9 {
            tokio::time::advance(AFTER_A_DEAD_CONNECTION).await;
            assert!(gate.pass(async { dead() }).await.is_err());
        }
        tokio::time::advance(AFTER_A_DEAD_CONNECTION).await;
        assert!(gate.pass(async { Ok(()) }).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_task_looks_nobody_else_waits_for_the_answer() {
        let gate = Gate::default();
        let (answers, looks) = (AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
        let task = async {
            loop {
                let visit = gate.time_to_look().await;
                looks.fetch_add(1, Ordering::Relaxed);
                visit.leave(&if answers.load(Ordering::Relaxed) { Ok(()) } else { refused() });
            }
        };
        let others = async {
            tokio::task::yield_now().await;
            assert!(gate.pass(async { refused() }).await.is_err());
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                assert!(gate.enter(Instant::now()).is_err(), "told at once");
            }
            assert!((3..=4).contains(&looks.load(Ordering::Relaxed)));
            answers.store(true, Ordering::Relaxed);
            tokio::time::sleep(WHILE_AWAY).await;
            assert!(gate.enter(Instant::now()).is_ok());
        };
        tokio::select! {
            // Both may wake in the same moment: then the answer is there before somebody asks.
            biased;
            () = task => {}
            () = others => {}
        }
        // The task is gone, and somebody else looks in the end.
        assert!(gate.pass(async { refused() }).await.is_err());
        tokio::time::advance(AFTER_THE_TASK + WHILE_AWAY).await;
        assert!(gate.pass(async { Ok(()) }).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_answers_somebody_is_not_away() {
        let gate = Gate::default();
        let slow = gate.enter(Instant::now()).unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(gate.pass(async { Ok(()) }).await.is_ok());
        slow.leave(&refused());
        let lock_not_had = StorageError::Settings("anything that it says itself".to_owned());
        gate.pass::<()>(async { Err(lock_not_had) }).await.unwrap_err();
        assert!(gate.enter(Instant::now()).is_ok());
    }
}

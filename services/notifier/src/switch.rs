//! A [`Circuit`] at work: lets pushes through, waits for it, sounds the alarm.

use crate::{
    circuit::{Cause, Circuit, Outcome, State, Turn},
    metrics::Metrics,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::{sync::watch, time::Instant};

/// A circuit that many pushes share.
#[derive(Debug)]
pub(crate) struct Switch {
    circuit: Mutex<Circuit>,
    changed: watch::Sender<()>,
    metrics: Arc<Metrics>,
}

impl Switch {
    /// Closed.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { circuit: Mutex::default(), changed: watch::channel(()).0, metrics }
    }

    /// Waits until something may be sent: true when that is one probe only. Cancel-safe.
    pub(crate) async fn opening(&self) -> bool {
        let mut changed = self.changed.subscribe();
        loop {
            let state = self.lock().look(Instant::now());
            match state {
                State::Closed => return false,
                State::ProbeDue => return true,
                State::Open(_, until) => {
                    // Its sender lives in self: it cannot close.
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        _ = changed.changed() => {}
                    }
                }
            }
        }
    }

    /// Whether a push could go through now. Lets none through.
    pub(crate) fn look(&self) -> Result<(), Cause> {
        match self.lock().look(Instant::now()) {
            State::Closed | State::ProbeDue => Ok(()),
            State::Open(cause, _) => Err(cause),
        }
    }

    /// Lets one push through, if it may be sent.
    pub(crate) fn admit(&self) -> Result<Pass<'_>, Cause> {
        let probe = self.lock().admit(Instant::now())?;
        Ok(Pass { switch: self, probe, ended: false })
    }

    fn lock(&self) -> MutexGuard<'_, Circuit> {
        // No code that can panic runs under this lock.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, probe: bool, outcome: Outcome, why: &str) -> Option<Turn> {
        let (before, turn) = {
            let mut circuit = self.lock();
            (circuit.cause(), circuit.ended(probe, outcome, Instant::now()))
        };
        match turn {
            Some(Turn::Opened(cause)) => {
                if let Some(before) = before {
                    self.metrics.circuit(before, false);
                }
                self.metrics.circuit(cause, true);
                tracing::error!(
                    circuit.cause = cause.label(),
                    circuit.answer = why,
                    circuit.remedy = cause.remedy(),
                    "pushes are stopped: {cause}"
                );
            }
            Some(Turn::Closed(cause)) => {
                self.metrics.circuit(cause, false);
                tracing::info!(circuit.cause = cause.label(), "pushes go on");
            }
            None => {}
        }
        if turn.is_some() || probe {
            self.changed.send_replace(());
        }
        turn
    }
}

/// One push on its way through. Dropped without an end it was never sent.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    switch: &'a Switch,
    probe: bool,
    ended: bool,
}

impl Pass<'_> {
    /// Whether the circuit is open, and this push finds out whether it should be.
    pub(crate) fn is_probe(&self) -> bool {
        self.probe
    }

    /// Says how the push ended; `why` goes into the alarm.
    pub(crate) fn end(mut self, outcome: Outcome, why: &str) -> Option<Turn> {
        self.ended = true;
        self.switch.ended(self.probe, outcome, why)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe && !self.ended {
            self.switch.lock().give_back(Instant::now());
            self.switch.changed.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_when_a_probe_is_due_and_when_it_closed() {
        let switch = Switch::new(Arc::new(Metrics::new("test")));
        assert!(!switch.opening().await);
        switch.admit().unwrap().end(Outcome::Shut(Cause::Permission), "403");
        let begin = Instant::now();
        assert!(switch.admit().is_err());
        assert!(switch.opening().await);
        assert_eq!(begin.elapsed(), Duration::from_secs(60));
        let probe = switch.admit().unwrap();
        let mut waiting = std::pin::pin!(switch.opening());
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("a probe is under way"),
            () = std::future::ready(()) => {}
        }
        probe.end(Outcome::Well, "200");
        assert!(!waiting.await);
        assert_eq!(begin.elapsed(), Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_leaves_its_place_to_the_next() {
        let switch = Switch::new(Arc::new(Metrics::new("test")));
        switch.admit().unwrap().end(Outcome::Shut(Cause::Permission), "403");
        assert!(switch.opening().await);
        drop(switch.admit().unwrap());
        assert!(switch.opening().await);
        assert!(switch.admit().is_ok());
    }
}

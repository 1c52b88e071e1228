//! Whether this gateway may act: take newcomers, show pushes. What it must know for that is what became of its lease.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use touchline_registry::LEASE_LIFE;

/// Time since the machine started. Unlike [`Instant`] it also runs while the machine sleeps.
pub(crate) fn booted() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Neither is ever negative for this clock.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Whether new sockets are taken, and why not.
#[derive(Debug)]
pub(crate) struct Readiness {
    state: Mutex<State>,
    changed: Notify,
    asked: Notify,
    patience: Duration,
    /// A later incarnation holds the lease.
    pub(crate) fenced: CancellationToken,
    /// No api reaches this gateway, but others.
    pub(crate) unreached: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    draining: bool,
    renewed: Option<Instant>,
    /// On the clock of [`booted`]: when the last renewal that succeeded began, and the last that ended.
    renewed_at: Option<Duration>,
    asked_at: Option<Duration>,
    /// The last renewal got no answer.
    unanswered: bool,
}

impl Readiness {
    pub(crate) fn new(patience: Duration) -> Self {
        let (fenced, unreached) = (CancellationToken::new(), CancellationToken::new());
        Self { state: Mutex::default(), changed: Notify::new(), asked: Notify::new(), patience, fenced, unreached }
    }

    /// Why no new socket is taken now; none when it is.
    pub(crate) fn refusal(&self, now: Instant, booted: Duration) -> Option<&'static str> {
        let state = self.state();
        match state.renewed {
            _ if state.draining => Some("this gateway is going away"),
            None => Some("not registered yet"),
            // Redis away is no reason to send anybody home, only to send newcomers elsewhere.
            Some(renewed) if now.duration_since(renewed) >= self.patience => Some("the registry is away"),
            Some(_) => state.is_in_the_dark(booted).then_some("this gateway was stopped and looks what has changed"),
        }
    }

    /// Waits until it is known what became of the lease: at once, unless the process was stopped for longer than a
    /// lease lives. Then somebody else may hold it, and nobody may have looked for anybody here.
    pub(crate) async fn informed(&self) {
        loop {
            let asked = self.asked.notified();
            if !self.state().is_in_the_dark(booted()) {
                return;
            }
            asked.await;
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.state().draining
    }

    /// From now on no new sockets; the lease says so at once.
    pub(crate) fn drain(&self) {
        self.state().draining = true;
        self.changed.notify_one();
        self.asked.notify_waiters();
    }

    /// Resolves when the lease has something new to say.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The lease was renewed, asked for at `began`. How long after the renewal before it.
    pub(crate) fn renewed(&self, began: Duration, now: Instant) -> Duration {
        let mut state = self.state();
        state.renewed = Some(now);
        let before = state.renewed_at.replace(began);
        before.map_or(Duration::ZERO, |before| began.saturating_sub(before))
    }

    /// A renewal got no answer, though the registry may have carried it out.
    pub(crate) fn unanswered(&self) {
        self.state().unanswered = true;
    }

    /// Whether the renewal before the one just answered got no answer. What it would have told is lost: that the lease
    /// was missing, and the routes with it.
    pub(crate) fn was_unanswered(&self) -> bool {
        std::mem::take(&mut self.state().unanswered)
    }

    /// A renewal that began at `began` has ended, well or not; what follows from it is ordered.
    pub(crate) fn asked(&self, began: Duration) {
        self.state().asked_at = Some(began);
        self.asked.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether nobody has looked at the lease for longer than it lives. Ordinarily one looks every five seconds,
    /// whether the registry answers or not. When the gateway leaves, it no longer matters.
    fn is_in_the_dark(&self, booted: Duration) -> bool {
        !self.draining && self.asked_at.is_some_and(|asked| booted.saturating_sub(asked) > LEASE_LIFE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOTED: Duration = Duration::from_secs(1_000);

    #[test]
    fn a_gateway_is_ready_while_its_lease_is_fresh_and_it_stays() {
        let now = Instant::now();
        let readiness = Readiness::new(Duration::from_secs(30));
        let refusal = |after| readiness.refusal(now + Duration::from_secs(after), BOOTED);
        assert_eq!(refusal(0), Some("not registered yet"));
        readiness.renewed(BOOTED, now);
        assert_eq!(refusal(29), None);
        assert_eq!(refusal(30), Some("the registry is away"));
        readiness.renewed(BOOTED, now + Duration::from_secs(31));
        assert_eq!(refusal(31), None);
        readiness.drain();
        assert_eq!(refusal(31), Some("this gateway is going away"));
    }

    #[test]
    fn a_gateway_that_was_stopped_for_longer_than_a_lease_lives_is_not_ready_until_it_has_asked() {
        let now = Instant::now();
        let readiness = Readiness::new(Duration::from_secs(30));
        readiness.renewed(BOOTED, now);
        readiness.asked(BOOTED);
        assert_eq!(readiness.refusal(now, BOOTED + LEASE_LIFE), None);
        let woken = BOOTED + LEASE_LIFE + Duration::from_millis(1);
        assert!(readiness.refusal(now, woken).is_some());
        readiness.asked(woken);
        assert_eq!(readiness.refusal(now, woken), None, "also when the registry did not answer");
    }

    #[test]
    fn a_renewal_without_an_answer_is_remembered_until_the_next_one_is_answered() {
        let readiness = Readiness::new(Duration::from_secs(30));
        assert!(!readiness.was_unanswered());
        readiness.unanswered();
        assert!(readiness.was_unanswered());
        assert!(!readiness.was_unanswered());
    }

    #[test]
    fn the_time_between_two_renewals_is_measured_from_their_beginnings() {
        let readiness = Readiness::new(Duration::from_secs(30));
        assert_eq!(readiness.renewed(BOOTED, Instant::now()), Duration::ZERO);
        let later = BOOTED + Duration::from_secs(61);
        assert_eq!(readiness.renewed(later, Instant::now()), Duration::from_secs(61));
    }
}

//! Carries out what the [`Registrar`] says, at the registry.

use crate::{
    admission,
    gateway::Gateway,
    hub::{Hub, Member},
    queue::Order,
    registrar::{Candidate, Followed, Loss, Registrar, Work},
};
use futures_util::future::join_all;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use touchline_ids::UserId;
use touchline_registry::{Registered, Registration};

/// The registrar, and who waits for it.
#[derive(Debug)]
pub(crate) struct Routes {
    registrar: Mutex<Registrar>,
    changed: Notify,
    to_tell: Notify,
    forgotten: Notify,
}

impl Routes {
    /// With room for one ended session per place in the gateway.
    pub(crate) fn new(capacity: usize) -> Self {
        let registrar = Mutex::new(Registrar::new(capacity, Instant::now()));
        Self { registrar, changed: Notify::new(), to_tell: Notify::new(), forgotten: Notify::new() }
    }

    /// A session ended. Never blocks.
    pub(crate) fn forget(&self, registration: Registration) {
        if !self.registrar().forget(registration) {
            tracing::debug!("a route stays in the registry: too many sessions ended at once");
        }
        self.changed.notify_one();
    }

    /// Waits until every session that ended before is forgotten.
    pub(crate) async fn flush(&self) {
        loop {
            let forgotten = self.forgotten.notified();
            if self.registrar().has_forgotten() {
                return;
            }
            forgotten.await;
        }
    }

    /// The registry lost routes.
    pub(crate) fn lost(&self, hub: &Hub, loss: Loss) {
        self.registrar().lost(hub, loss, Instant::now());
        self.changed.notify_one();
    }

    /// Routes of these users led to nobody here.
    pub(crate) fn stale(&self, users: impl Iterator<Item = UserId>) {
        let (mut registrar, now) = (self.registrar(), Instant::now());
        users.for_each(|user| registrar.stale(user, now));
        drop(registrar);
        self.changed.notify_one();
    }

    /// These sessions may have missed something.
    pub(crate) fn resync(&self, hub: &Hub, members: &[Arc<Member>]) {
        self.registrar().resync(hub, members);
        self.to_tell.notify_one();
    }

    fn next(&self, hub: &Hub) -> Work {
        self.registrar().next(hub, Instant::now())
    }

    fn to_tell_now(&self) -> Result<Vec<Arc<Member>>, Option<Instant>> {
        self.registrar().tell(Instant::now())
    }

    /// What follows, and whether a loss is still being made good.
    fn registered(&self, hub: &Hub, batch: Vec<Candidate>, answers: Option<Vec<Registered>>) -> (Followed, bool) {
        let mut registrar = self.registrar();
        (registrar.registered(hub, batch, answers, Instant::now()), registrar.is_restoring())
    }

    fn registrar(&self) -> MutexGuard<'_, Registrar> {
        // Nothing in here panics half-way.
        self.registrar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the registry in step for as long as the gateway lives.
pub(crate) async fn keep(gateway: Arc<Gateway>) {
    let routes = &gateway.routes;
    loop {
        let work = routes.next(&gateway.hub);
        match work {
            Work::Register(batch) => register(&gateway, batch).await,
            Work::Forget(batch) => {
                forget(&gateway, &batch).await;
                routes.registrar().forgotten(&gateway.hub, &batch);
            }
            Work::Prune(users) => {
                let stale: Vec<_> = users.iter().map(|user| (*user, gateway.incarnation)).collect();
                let pruned = gateway.ask(gateway.registry.prune(&stale)).await;
                tracing::debug!(users = users.len(), routes = ?pruned.as_ref().ok(), "stale routes were removed");
                routes.registrar().pruned(&gateway.hub, &users, pruned.is_ok());
            }
            Work::Wait(until) => {
                routes.forgotten.notify_waiters();
                tokio::select! {
                    () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                    () = routes.changed.notified() => {}
                }
            }
        }
    }
}

/// Tells sessions to sync for as long as the gateway lives. Apart from the registry's work, which may take long when it
/// is away.
pub(crate) async fn tell(gateway: Arc<Gateway>) {
    let routes = &gateway.routes;
    loop {
        let batch = routes.to_tell_now();
        match batch {
            Ok(batch) => batch.iter().for_each(|member| member.queue.order(Order::Ready)),
            Err(Some(until)) => sleep_until(until).await,
            Err(None) => routes.to_tell.notified().await,
        }
    }
}

async fn register(gateway: &Gateway, batch: Vec<Candidate>) {
    let routes: Vec<_> = batch.iter().map(|candidate| candidate.member.registration.clone()).collect();
    let answers = match gateway.ask(gateway.registry.register(&routes)).await {
        Ok(answers) => Some(answers),
        Err(error) => {
            tracing::debug!(error = error.map(tracing::field::display), "sessions not registered again yet");
            None
        }
    };
    let (followed, restoring) = gateway.routes.registered(&gateway.hub, batch, answers);
    // Not before they were stored: only what is sent from now on is pushed again.
    followed.ready.iter().for_each(|member| member.queue.order(Order::Ready));
    if restoring {
        crash_half_way();
    }
    for (member, newer) in followed.newer {
        take_over(gateway, &member, &newer).await;
    }
}

/// The registry prefers another route of this device: a fail-over may have brought back a dead one.
async fn take_over(gateway: &Gateway, member: &Member, newer: &Registration) {
    let mine = &member.registration;
    if !matches!(admission::lives(gateway, newer).await, Ok(false)) {
        return;
    }
    let taken = gateway.ask(gateway.registry.take_over(mine, newer.incarnation, newer.connection)).await;
    if matches!(taken, Ok(true)) {
        member.queue.order(Order::Ready);
    }
}

async fn forget(gateway: &Gateway, routes: &[Registration]) {
    let answers = join_all(routes.iter().map(|route| gateway.ask(gateway.registry.unregister(route)))).await;
    let stayed = answers.iter().filter(|answer| answer.is_err()).count();
    if stayed > 0 {
        tracing::warn!(routes = stayed, "routes of ended sessions stay in the registry: it is away");
    }
}

/// Crash point: some sessions are registered again, others are not.
fn crash_half_way() {
    fail::fail_point!("mid_reregister", |_| std::process::abort());
}

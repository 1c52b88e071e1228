//! Keeps the registry's routes in step with the hub: forgets ended sessions, and registers every session again when
//! the registry lost them; their clients then sync, for what was sent in between found nobody. Both in batches, so that neither a mass close nor a lost Redis becomes a storm.

use crate::{gateway::Gateway, hub::Member, queue::Order};
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc, oneshot};
use touchline_registry::{Registered, Registration};

/// Routes removed at once.
const FORGOTTEN_AT_ONCE: usize = 64;
/// Sessions registered at once, and how often: 5,000 in a second.
const REGISTERED_AT_ONCE: usize = 250;
const REGISTERED_EVERY: Duration = Duration::from_millis(50);
/// Between two attempts while the registry is away.
const RETRY: Duration = Duration::from_secs(1);

/// What the forgetting task is told.
#[derive(Debug)]
pub(crate) enum Ended {
    /// This session ended.
    Session(Registration),
    /// Answer when everything before this is done.
    Flush(oneshot::Sender<()>),
}

/// Where ended sessions go.
#[derive(Debug)]
pub(crate) struct Routes {
    ended: mpsc::Sender<Ended>,
    lost: Notify,
}

impl Routes {
    /// With room for one ended session per place in the gateway.
    pub(crate) fn new(capacity: usize) -> (Self, mpsc::Receiver<Ended>) {
        let (ended, receiver) = mpsc::channel(capacity.max(FORGOTTEN_AT_ONCE));
        (Self { ended, lost: Notify::new() }, receiver)
    }

    /// A session ended. Never blocks: when the registry is so far behind that there is no room, the route stays, which
    /// is harmless, for its pushes are answered "gone".
    pub(crate) fn forget(&self, registration: Registration) {
        if self.ended.try_send(Ended::Session(registration)).is_err() {
            tracing::debug!("a route stays in the registry: too many sessions ended at once");
        }
    }

    /// Waits until every session that ended before is forgotten.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.ended.send(Ended::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// The registry lost this gateway's lease and so, surely, its routes.
    pub(crate) fn lost(&self) {
        self.lost.notify_one();
    }
}

/// Removes the routes of ended sessions for as long as the gateway lives.
pub(crate) async fn forget_ended(gateway: Arc<Gateway>, mut ended: mpsc::Receiver<Ended>) {
    let mut batch = Vec::new();
    while ended.recv_many(&mut batch, FORGOTTEN_AT_ONCE).await > 0 {
        let mut flushed = Vec::new();
        let routes = batch.drain(..).filter_map(|ended| match ended {
            Ended::Session(registration) => Some(registration),
            Ended::Flush(done) => {
                flushed.push(done);
                None
            }
        });
        // The same connection again, a client's mistake: the route is the new session's now.
        let routes: Vec<_> = routes.filter(|route| !gateway.hub.holds(route)).collect();
        let answers = join_all(routes.iter().map(|route| gateway.ask(gateway.registry.unregister(route)))).await;
        let stayed = answers.iter().filter(|answer| answer.is_err()).count();
        if stayed > 0 {
            tracing::warn!(routes = stayed, "routes of ended sessions stay in the registry: it is away");
        }
        for done in flushed {
            let _ = done.send(());
        }
    }
}

/// Registers every session again whenever the registry lost them, for as long as the gateway lives.
pub(crate) async fn restore_lost(gateway: Arc<Gateway>) {
    loop {
        gateway.routes.lost.notified().await;
        let members = gateway.hub.members();
        tracing::warn!(sessions = members.len(), "the registry lost the lease: registering every session again");
        for batch in members.chunks(REGISTERED_AT_ONCE) {
            restore(&gateway, batch).await;
            tokio::time::sleep(REGISTERED_EVERY).await;
        }
    }
}

/// Has sessions told to sync, paced.
pub(crate) async fn tell_ready(members: Vec<Arc<Member>>) {
    for batch in members.chunks(REGISTERED_AT_ONCE) {
        batch.iter().for_each(|member| member.queue.order(Order::Ready));
        tokio::time::sleep(REGISTERED_EVERY).await;
    }
}

async fn restore(gateway: &Gateway, batch: &[Arc<Member>]) {
    loop {
        let held: Vec<_> = batch.iter().filter(|member| gateway.hub.holds(&member.registration)).collect();
        if held.is_empty() {
            return;
        }
        let routes: Vec<_> = held.iter().map(|member| member.registration.clone()).collect();
        match gateway.ask(gateway.registry.register(&routes)).await {
            Ok(answers) => {
                for ((member, route), answer) in held.into_iter().zip(routes).zip(answers) {
                    if !gateway.hub.holds(&route) {
                        // It left in between and has just been registered once too often.
                        gateway.routes.forget(route);
                    } else if !matches!(answer, Registered::Newer { .. }) {
                        // Not before: only what is stored from now on is pushed again.
                        member.queue.order(Order::Ready);
                    }
                }
                return;
            }
            Err(error) => {
                tracing::debug!(error = error.map(tracing::field::display), "sessions not registered again yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

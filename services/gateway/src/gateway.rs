//! What every part of one gateway shares.

use crate::{
    addresses::Addresses,
    config::{Config, ms},
    hub::{Hub, HubLimits},
    queue::Bounds,
    readiness::{Readiness, booted},
    relay::Relay,
    routes::Routes,
    running::Running,
    session::Rules,
};
use futures_util::future::join_all;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use touchline_auth::TicketVerifier;
use touchline_ids::{GatewayId, IncarnationId};
use touchline_mesh::{Shutdown, Turnstile};
use touchline_registry::{Registry, RegistryError};

/// A task looks at its life's stop signal whenever it is polled, which takes a lock. Sessions share this many lives,
/// so that they do not all share one lock.
const SESSION_LIVES: usize = 32;

/// How many may be heard at once who are turned away.
const HEARD: usize = 256;

pub(crate) struct Gateway {
    pub(crate) id: GatewayId,
    pub(crate) incarnation: IncarnationId,
    pub(crate) config: Config,
    pub(crate) rules: Rules,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) tickets: TicketVerifier,
    pub(crate) hub: Hub,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) accepts: Turnstile,
    /// Places for those who are turned away and heard all the same.
    pub(crate) heard: Arc<Semaphore>,
    pub(crate) readiness: Readiness,
    pub(crate) running: Running,
    pub(crate) routes: Routes,
    pub(crate) relay: Relay,
    life: Shutdown,
    session_lives: Vec<Shutdown>,
    next_life: AtomicUsize,
}

impl Gateway {
    /// The shared state.
    pub(crate) fn new(
        config: Config,
        incarnation: IncarnationId,
        registry: Arc<dyn Registry>,
        tickets: TicketVerifier,
        life: Shutdown,
    ) -> Self {
        let (limits, times, now) = (&config.limits, &config.times, Instant::now());
        let named = config.id.clone();
        let id = named.unwrap_or_else(|| {
            format!("gateway-{incarnation}").parse().expect("a UUID is made of characters that a gateway id may have")
        });
        Self {
            id,
            incarnation,
            rules: Rules::new(limits, times),
            hub: Hub::new(HubLimits {
                capacity: limits.capacity,
                sessions_per_user: limits.sessions_per_user as usize,
                queue: Bounds { frames: limits.queue_frames, bytes: limits.queue_bytes },
            }),
            addresses: Arc::new(Addresses::new(limits, config.trusted_proxies.clone())),
            readiness: Readiness::new(ms(times.lease_ms)),
            session_lives: (0..SESSION_LIVES).map(|_| life.child()).collect(),
            next_life: AtomicUsize::new(0),
            heard: Arc::new(Semaphore::new(HEARD)),
            accepts: Turnstile::new(limits.accepts_per_second, now),
            running: Running::new(now, ms(times.late_ms)),
            routes: Routes::new(limits.capacity as usize),
            relay: Relay::default(),
            config,
            registry,
            tickets,
            life,
        }
    }

    /// Starts a task that ends with the gateway.
    pub(crate) fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.life.spawn(task)
    }

    /// Starts a session's task.
    pub(crate) fn spawn_session(&self, task: impl Future<Output = ()> + Send + 'static) {
        let turn = self.next_life.fetch_add(1, Ordering::Relaxed);
        self.session_lives[turn % SESSION_LIVES].spawn(task);
    }

    /// Waits until every session's task has ended, their goodbyes included; at most so long.
    pub(crate) async fn sessions_ended(&self, patience: Duration) {
        join_all(self.session_lives.iter().map(|life| life.wait(patience))).await;
    }

    /// Why no new socket is taken now; none when it is.
    pub(crate) fn refusal(&self, now: Instant) -> Option<&'static str> {
        let refusal = self.readiness.refusal(now, booted());
        refusal.or_else(|| self.running.is_lagging().then_some("this gateway has too much to do"))
    }

    /// Asks the registry, but not for ever. None: no answer in time.
    pub(crate) async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, Option<RegistryError>> {
        match timeout(ms(self.config.times.registry_ms), question).await {
            Ok(answer) => answer.map_err(Some),
            Err(_) => Err(None),
        }
    }
}

//! The lease: tells the registry that this gateway lives, and tells the gateway whether it may take new sockets.

use crate::gateway::Gateway;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};
use touchline_registry::{GatewayState, LEASE_RENEWAL, Lease, Renewal};

/// Whether new sockets are taken, and why not.
#[derive(Debug)]
pub(crate) struct Readiness {
    draining: AtomicBool,
    changed: Notify,
    renewed: Mutex<Option<Instant>>,
    patience: Duration,
    /// A later incarnation holds the lease.
    pub(crate) fenced: CancellationToken,
}

impl Readiness {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            draining: AtomicBool::new(false),
            changed: Notify::new(),
            renewed: Mutex::new(None),
            patience,
            fenced: CancellationToken::new(),
        }
    }

    /// Why no new socket is taken now; none when it is.
    pub(crate) fn refusal(&self, now: Instant) -> Option<&'static str> {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_draining() {
            Some("this gateway is going away")
        } else if let Some(renewed) = renewed {
            // Redis away is no reason to send anybody home, only to send newcomers elsewhere.
            (now.duration_since(renewed) >= self.patience).then_some("the registry is away")
        } else {
            Some("not registered yet")
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on no new sockets; the lease says so at once.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    fn renewed(&self, now: Instant) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }
}

/// What this gateway tells of itself.
pub(crate) struct Keeper {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) health: HealthReporter,
    pub(crate) service: &'static str,
    pub(crate) grpc_url: String,
    pub(crate) public_url: String,
}

impl Keeper {
    /// Renews until `stop`, or until a later incarnation holds the lease.
    pub(crate) async fn keep(self, stop: impl Future<Output = ()>) {
        let gateway = Arc::clone(&self.gateway);
        let mut turn = tokio::time::interval_at(Instant::now() + LEASE_RENEWAL, LEASE_RENEWAL);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                _ = turn.tick() => {}
                () = gateway.readiness.changed.notified() => {}
                () = gateway.readiness.fenced.cancelled() => return,
                () = &mut stop => return,
            }
            self.renew().await;
        }
    }

    /// Renews once and says in the health service what follows.
    pub(crate) async fn renew(&self) {
        let gateway = &self.gateway;
        match gateway.ask(gateway.registry.renew_lease(&self.lease())).await {
            Ok(Renewal::Renewed) => gateway.readiness.renewed(Instant::now()),
            Ok(Renewal::Missing) => {
                gateway.readiness.renewed(Instant::now());
                if gateway.hub.sessions() > 0 {
                    gateway.routes.lost();
                }
            }
            Ok(Renewal::Fenced) => {
                tracing::error!(gateway.id = %gateway.id, "a later incarnation holds the lease: this one ends");
                gateway.readiness.fenced.cancel();
            }
            Err(error) => {
                let error = error.map_or_else(|| "no answer in time".to_owned(), |error| error.to_string());
                tracing::warn!(error, "the lease was not renewed: sessions stay, newcomers will be sent elsewhere");
            }
        }
        let ready = gateway.readiness.refusal(Instant::now()).is_none();
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.health.set_service_status(self.service, status).await;
    }

    fn lease(&self) -> Lease {
        let gateway = &self.gateway;
        let draining = gateway.readiness.is_draining();
        Lease {
            gateway: gateway.id.clone(),
            incarnation: gateway.incarnation,
            grpc_url: self.grpc_url.clone(),
            public_url: self.public_url.clone(),
            state: if draining { GatewayState::Draining } else { GatewayState::Ready },
            sessions: gateway.hub.sessions(),
            capacity: gateway.config.limits.capacity,
            push_streams: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_ready_while_its_lease_is_fresh_and_it_stays() {
        let now = Instant::now();
        let readiness = Readiness::new(Duration::from_secs(30));
        assert_eq!(readiness.refusal(now), Some("not registered yet"));
        readiness.renewed(now);
        assert_eq!(readiness.refusal(now + Duration::from_secs(29)), None);
        assert_eq!(readiness.refusal(now + Duration::from_secs(30)), Some("the registry is away"));
        readiness.renewed(now + Duration::from_secs(31));
        assert_eq!(readiness.refusal(now + Duration::from_secs(31)), None);
        readiness.drain();
        assert_eq!(readiness.refusal(now + Duration::from_secs(31)), Some("this gateway is going away"));
    }
}

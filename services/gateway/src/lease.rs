//! The lease: tells the registry that this gateway lives, and tells the gateway what became of it.

use crate::{config::ms, gateway::Gateway, readiness::booted, registrar::Loss};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};
use tonic_health::{ServingStatus, server::HealthReporter};
use touchline_registry::{GatewayState, LEASE_LIFE, LEASE_RENEWAL, Lease, Renewal};

/// How soon a renewal that failed is tried again: a fail-over takes a second or two.
const RETRY: Duration = Duration::from_secs(1);

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
        let mut alone = Alone { patience: ms(gateway.config.times.alone_ms), since: None };
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                _ = turn.tick() => {}
                () = gateway.readiness.changed() => {}
                () = gateway.readiness.fenced.cancelled() => return,
                () = &mut stop => return,
            }
            if !self.renew().await {
                turn.reset_after(RETRY);
            }
            if alone.lasts(gateway.relay.streams(), gateway.running.now()) && self.others_are_reached().await {
                tracing::error!(gateway.id = %gateway.id, "no api reaches this gateway, but others: this one ends");
                gateway.readiness.unreached.cancel();
            }
        }
    }

    /// Renews and says in the health service what follows; whether it was renewed. After a stop it asks until it knows
    /// how things stand now.
    pub(crate) async fn renew(&self) -> bool {
        let renewed = loop {
            if let Some(renewed) = self.renew_once().await {
                break renewed;
            }
        };
        let ready = self.gateway.refusal(Instant::now()).is_none();
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.health.set_service_status(self.service, status).await;
        renewed
    }

    /// Whether it was renewed; none when the process was stopped meanwhile, so that the answer says nothing about now.
    async fn renew_once(&self) -> Option<bool> {
        let (gateway, began) = (&self.gateway, booted());
        let answer = gateway.ask(gateway.registry.renew_lease(&self.lease())).await;
        let fenced = matches!(answer, Ok(Renewal::Fenced));
        if fenced {
            tracing::error!(gateway.id = %gateway.id, "a later incarnation holds the lease: this one ends");
            gateway.readiness.fenced.cancel();
        } else if booted().saturating_sub(began) > LEASE_LIFE {
            return None;
        }
        let renewed = answer.is_ok();
        match answer {
            Ok(Renewal::Renewed) => self.renewed(began, None),
            Ok(Renewal::Doubtful) => self.renewed(began, Some(Loss::Possible)),
            Ok(Renewal::Missing) => self.renewed(began, Some(Loss::Certain)),
            Ok(Renewal::Fenced) => {}
            Err(error) => {
                let error = error.map_or_else(|| "no answer in time".to_owned(), |error| error.to_string());
                tracing::warn!(error, "the lease was not renewed: sessions stay, newcomers will be sent elsewhere");
                gateway.readiness.unanswered();
            }
        }
        gateway.readiness.asked(began);
        Some(renewed)
    }

    fn renewed(&self, began: Duration, loss: Option<Loss>) {
        let gateway = &self.gateway;
        // A lease that was not renewed in its life was over, even when the registry's clock stood still meanwhile.
        let expired = gateway.readiness.renewed(began, Instant::now()) > LEASE_LIFE;
        let loss = if expired { Some(Loss::Certain) } else { loss };
        let loss = loss.or(gateway.readiness.was_unanswered().then_some(Loss::Possible));
        let sessions = gateway.hub.sessions();
        if let Some(loss) = loss.filter(|_| sessions > 0) {
            tracing::warn!(?loss, sessions, "the registry may have lost routes: every session is registered again");
            gateway.routes.lost(&gateway.hub, loss);
        }
    }

    /// Whether a gateway that takes sessions has push streams.
    async fn others_are_reached(&self) -> bool {
        let gateway = &self.gateway;
        let leases = gateway.ask(gateway.registry.gateways()).await.unwrap_or_default();
        leases.iter().any(|lease| {
            lease.incarnation != gateway.incarnation && lease.state == GatewayState::Ready && lease.push_streams > 0
        })
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
            push_streams: u32::try_from(gateway.relay.streams()).unwrap_or(u32::MAX),
        }
    }
}

/// Since when no api has had a push stream.
#[derive(Debug)]
struct Alone {
    /// How long a gateway waits for an api.
    patience: Duration,
    since: Option<Instant>,
}

impl Alone {
    /// Whether there has been none for too long.
    fn lasts(&mut self, streams: usize, now: Instant) -> bool {
        if streams > 0 {
            self.since = None;
            return false;
        }
        now.saturating_duration_since(*self.since.get_or_insert(now)) >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_alone_when_no_api_came_for_thirty_seconds() {
        let (mut alone, begin) = (Alone { patience: Duration::from_secs(30), since: None }, Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert!(!alone.lasts(0, after(0)));
        assert!(!alone.lasts(0, after(29)));
        assert!(!alone.lasts(1, after(30)));
        assert!(!alone.lasts(0, after(31)));
        assert!(!alone.lasts(0, after(60)));
        assert!(alone.lasts(0, after(61)));
    }
}

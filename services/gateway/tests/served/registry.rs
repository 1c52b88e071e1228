//! The in-memory registry, with a switch that takes it away and one that makes it lose everything.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use touchline_ids::{ConnectionNumber, GatewayId, IncarnationId, UserId};
use touchline_registry::{Lease, MemoryRegistry, Registered, Registration, Registry, RegistryError, Renewal, Route};

#[derive(Default)]
pub struct Faulty {
    inner: Mutex<Arc<MemoryRegistry>>,
    away: AtomicBool,
}

impl Faulty {
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// As a Redis that was flushed.
    pub fn lose_everything(&self) {
        *self.inner.lock().expect("no panic inside") = Arc::default();
    }

    fn inner(&self) -> Result<Arc<MemoryRegistry>, RegistryError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(RegistryError::Unavailable("switched off".into()));
        }
        Ok(Arc::clone(&self.inner.lock().expect("no panic inside")))
    }
}

#[async_trait::async_trait]
impl Registry for Faulty {
    async fn renew_lease(&self, lease: &Lease) -> Result<Renewal, RegistryError> {
        self.inner()?.renew_lease(lease).await
    }

    async fn release_lease(&self, gateway: &GatewayId, incarnation: IncarnationId) -> Result<(), RegistryError> {
        self.inner()?.release_lease(gateway, incarnation).await
    }

    async fn gateways(&self) -> Result<Vec<Lease>, RegistryError> {
        self.inner()?.gateways().await
    }

    async fn register(&self, sessions: &[Registration]) -> Result<Vec<Registered>, RegistryError> {
        self.inner()?.register(sessions).await
    }

    async fn take_over(
        &self,
        session: &Registration,
        dead: IncarnationId,
        connection: ConnectionNumber,
    ) -> Result<bool, RegistryError> {
        self.inner()?.take_over(session, dead, connection).await
    }

    async fn unregister(&self, session: &Registration) -> Result<bool, RegistryError> {
        self.inner()?.unregister(session).await
    }

    async fn prune(&self, routes: &[(UserId, IncarnationId)]) -> Result<u64, RegistryError> {
        self.inner()?.prune(routes).await
    }

    async fn look_up(&self, users: &[UserId]) -> Result<Vec<Route>, RegistryError> {
        self.inner()?.look_up(users).await
    }

    async fn redeem_ticket(&self, ticket: &str) -> Result<bool, RegistryError> {
        self.inner()?.redeem_ticket(ticket).await
    }

    async fn ping(&self) -> Result<(), RegistryError> {
        self.inner()?.ping().await
    }
}

//! The registry in memory, as a test wants it to misbehave.

use crate::{Lease, MemoryRegistry, Registered, Registration, Registry, RegistryError, Renewal, Route};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use touchline_ids::{ConnectionNumber, GatewayId, IncarnationId, UserId};

/// What can be asked of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the trait's methods by their names")]
pub enum Call {
    RenewLease,
    ReleaseLease,
    Gateways,
    Register,
    TakeOver,
    Unregister,
    Prune,
    LookUp,
    RedeemTicket,
    Ping,
}

impl Call {
    const ALL: [Self; 10] = [
        Self::RenewLease,
        Self::ReleaseLease,
        Self::Gateways,
        Self::Register,
        Self::TakeOver,
        Self::Unregister,
        Self::Prune,
        Self::LookUp,
        Self::RedeemTicket,
        Self::Ping,
    ];
}

/// What is wrong with the answers to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It is unavailable.
    Fail,
    /// It never answers a call that begins now.
    Hang,
    /// It answers after a while.
    Delay(Duration),
}

/// A registry in memory that counts what it is asked, and hangs, fails, delays and forgets on demand.
#[derive(Default)]
pub struct FaultyRegistry {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    memory: Arc<MemoryRegistry>,
    faults: HashMap<Call, Fault>,
    calls: HashMap<Call, usize>,
}

impl FaultyRegistry {
    /// From now on these calls go wrong like this.
    pub fn set(&self, call: Call, fault: Fault) {
        self.lock().faults.insert(call, fault);
    }

    /// From now on every call fails, or none does anything wrong any more.
    pub fn set_away(&self, away: bool) {
        let fault = if away { Fault::Fail } else { Fault::None };
        Call::ALL.into_iter().for_each(|call| self.set(call, fault));
    }

    /// How often it was asked this, answered or not.
    pub fn calls(&self, call: Call) -> usize {
        self.lock().calls.get(&call).copied().unwrap_or_default()
    }

    /// As a Redis that was flushed.
    pub fn lose_everything(&self) {
        self.lock().memory = Arc::default();
    }

    /// Counts the call and lets its fault happen.
    async fn asked(&self, call: Call) -> Result<Arc<MemoryRegistry>, RegistryError> {
        let fault = {
            let mut state = self.lock();
            *state.calls.entry(call).or_default() += 1;
            state.faults.get(&call).copied().unwrap_or_default()
        };
        match fault {
            Fault::None => {}
            Fault::Fail => return Err(RegistryError::Unavailable("switched off".into())),
            Fault::Hang => std::future::pending().await,
            Fault::Delay(delay) => tokio::time::sleep(delay).await,
        }
        Ok(Arc::clone(&self.lock().memory))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl Registry for FaultyRegistry {
    async fn renew_lease(&self, lease: &Lease) -> Result<Renewal, RegistryError> {
        self.asked(Call::RenewLease).await?.renew_lease(lease).await
    }

    async fn release_lease(&self, gateway: &GatewayId, incarnation: IncarnationId) -> Result<(), RegistryError> {
        self.asked(Call::ReleaseLease).await?.release_lease(gateway, incarnation).await
    }

    async fn gateways(&self) -> Result<Vec<Lease>, RegistryError> {
        self.asked(Call::Gateways).await?.gateways().await
    }

    async fn register(&self, sessions: &[Registration]) -> Result<Vec<Registered>, RegistryError> {
        self.asked(Call::Register).await?.register(sessions).await
    }

    async fn take_over(
        &self,
        session: &Registration,
        dead: IncarnationId,
        connection: ConnectionNumber,
    ) -> Result<bool, RegistryError> {
        self.asked(Call::TakeOver).await?.take_over(session, dead, connection).await
    }

    async fn unregister(&self, session: &Registration) -> Result<bool, RegistryError> {
        self.asked(Call::Unregister).await?.unregister(session).await
    }

    async fn prune(&self, routes: &[(UserId, IncarnationId)]) -> Result<u64, RegistryError> {
        self.asked(Call::Prune).await?.prune(routes).await
    }

    async fn look_up(&self, users: &[UserId]) -> Result<Vec<Route>, RegistryError> {
        self.asked(Call::LookUp).await?.look_up(users).await
    }

    async fn redeem_ticket(&self, ticket: &str) -> Result<bool, RegistryError> {
        self.asked(Call::RedeemTicket).await?.redeem_ticket(ticket).await
    }

    async fn ping(&self) -> Result<(), RegistryError> {
        self.asked(Call::Ping).await?.ping().await
    }
}

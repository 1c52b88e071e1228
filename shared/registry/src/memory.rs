//! The registry in memory, for `touchline dev`: everything that takes part runs in one process.

use crate::{
    LEASE_LIFE, Lease, ROUTE_LIFE, Registered, Registration, Registry, RegistryError, Renewal, Route, TICKET_MEMORY,
};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use touchline_ids::{ConnectionNumber, DeviceId, GatewayId, IncarnationId, UserId};

/// [`Registry`] with the semantics of the one in Redis, lifetimes included.
pub struct MemoryRegistry {
    clock: Box<dyn Fn() -> Instant + Send + Sync>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    leases: HashMap<GatewayId, Kept<Lease>>,
    routes: HashMap<UserId, Kept<Vec<Device>>>,
    tickets: HashMap<String, Kept<()>>,
}

struct Kept<T> {
    value: T,
    until: Instant,
}

struct Device {
    id: DeviceId,
    incarnation: IncarnationId,
    connection: ConnectionNumber,
}

impl Device {
    fn is(&self, session: &Registration) -> bool {
        self.incarnation == session.incarnation && self.connection == session.connection
    }
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryRegistry {
    /// An empty registry that lives by the process's clock.
    pub fn new() -> Self {
        Self::with_clock(Instant::now)
    }

    /// An empty registry that lives by `clock`, which must not run backwards.
    pub fn with_clock(clock: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), held: Mutex::default() }
    }

    /// Removes a device's route whatever it is. No registry may do that for a session that ended: for tests that show
    /// what happens then.
    #[cfg(feature = "contract")]
    pub fn unregister_without_compare(&self, user: UserId, device: &DeviceId) {
        if let Some(devices) = self.held().routes.get_mut(&user) {
            devices.value.retain(|held| held.id != *device);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn store(&mut self, session: &Registration, now: Instant) {
        let devices = self.routes.entry(session.user).or_insert_with(|| Kept { value: Vec::new(), until: now });
        if devices.until <= now {
            devices.value.clear();
        }
        devices.until = now + ROUTE_LIFE;
        devices.value.retain(|device| device.id != session.device);
        let (incarnation, connection) = (session.incarnation, session.connection);
        devices.value.push(Device { id: session.device.clone(), incarnation, connection });
    }

    fn find(&self, session: &Registration, now: Instant) -> Option<&Device> {
        let devices = self.routes.get(&session.user).filter(|devices| devices.until > now)?;
        devices.value.iter().find(|device| device.id == session.device)
    }

    fn register(&mut self, session: &Registration, now: Instant) -> Registered {
        match self.find(session, now) {
            Some(device) if device.connection > session.connection => {
                Registered::Newer { incarnation: device.incarnation, connection: device.connection }
            }
            found => {
                let kept = found.is_some_and(|device| device.is(session));
                self.store(session, now);
                if kept { Registered::Kept } else { Registered::Stored }
            }
        }
    }

    fn prune(&mut self, user: UserId, incarnation: IncarnationId, now: Instant) -> u64 {
        let Entry::Occupied(mut devices) = self.routes.entry(user) else { return 0 };
        let before = if devices.get().until > now { devices.get().value.len() } else { 0 };
        devices.get_mut().value.retain(|device| device.incarnation != incarnation);
        let left = devices.get().value.len();
        if left == 0 {
            devices.remove();
        }
        before.saturating_sub(left) as u64
    }

    /// Drops what ended; rides on the renewals of leases, so that no timer is needed.
    fn sweep(&mut self, now: Instant) {
        self.leases.retain(|_, lease| lease.until > now);
        self.routes.retain(|_, devices| devices.until > now);
        self.tickets.retain(|_, ticket| ticket.until > now);
    }
}

#[async_trait::async_trait]
impl Registry for MemoryRegistry {
    async fn renew_lease(&self, lease: &Lease) -> Result<Renewal, RegistryError> {
        let (now, mut held) = ((self.clock)(), self.held());
        held.sweep(now);
        let before = held.leases.get(&lease.gateway).map(|kept| kept.value.incarnation);
        if before.is_some_and(|before| before > lease.incarnation) {
            return Ok(Renewal::Fenced);
        }
        held.leases.insert(lease.gateway.clone(), Kept { value: lease.clone(), until: now + LEASE_LIFE });
        Ok(if before == Some(lease.incarnation) { Renewal::Renewed } else { Renewal::Missing })
    }

    async fn release_lease(&self, gateway: &GatewayId, incarnation: IncarnationId) -> Result<(), RegistryError> {
        if let Entry::Occupied(lease) = self.held().leases.entry(gateway.clone())
            && lease.get().value.incarnation == incarnation
        {
            lease.remove();
        }
        Ok(())
    }

    async fn gateways(&self) -> Result<Vec<Lease>, RegistryError> {
        let now = (self.clock)();
        Ok(self.held().leases.values().filter(|lease| lease.until > now).map(|lease| lease.value.clone()).collect())
    }

    async fn register(&self, sessions: &[Registration]) -> Result<Vec<Registered>, RegistryError> {
        let (now, mut held) = ((self.clock)(), self.held());
        Ok(sessions.iter().map(|session| held.register(session, now)).collect())
    }

    async fn take_over(
        &self,
        session: &Registration,
        dead: IncarnationId,
        connection: ConnectionNumber,
    ) -> Result<bool, RegistryError> {
        let (now, mut held) = ((self.clock)(), self.held());
        let expected = |device: &Device| device.incarnation == dead && device.connection == connection;
        let unchanged = held.find(session, now).is_some_and(|device| expected(device) || device.is(session));
        if unchanged {
            held.store(session, now);
        }
        Ok(unchanged)
    }

    async fn unregister(&self, session: &Registration) -> Result<bool, RegistryError> {
        let (now, mut held) = ((self.clock)(), self.held());
        if !held.find(session, now).is_some_and(|device| device.is(session)) {
            return Ok(false);
        }
        if let Entry::Occupied(mut devices) = held.routes.entry(session.user) {
            devices.get_mut().value.retain(|device| device.id != session.device);
            if devices.get().value.is_empty() {
                devices.remove();
            }
        }
        Ok(true)
    }

    async fn prune(&self, routes: &[(UserId, IncarnationId)]) -> Result<u64, RegistryError> {
        let (now, mut held) = ((self.clock)(), self.held());
        Ok(routes.iter().map(|(user, incarnation)| held.prune(*user, *incarnation, now)).sum())
    }

    async fn look_up(&self, users: &[UserId]) -> Result<Vec<Route>, RegistryError> {
        let (now, held) = ((self.clock)(), self.held());
        let mut routes = Vec::with_capacity(users.len());
        for (index, user) in (0u32..).zip(users) {
            let first = routes.len();
            for device in held.routes.get(user).filter(|devices| devices.until > now).into_iter().flat_map(|d| &d.value)
            {
                let route = Route { index, incarnation: device.incarnation };
                if !routes[first..].contains(&route) {
                    routes.push(route);
                }
            }
        }
        Ok(routes)
    }

    async fn redeem_ticket(&self, ticket: &str) -> Result<bool, RegistryError> {
        let (now, mut held) = ((self.clock)(), self.held());
        if held.tickets.get(ticket).is_some_and(|used| used.until > now) {
            return Ok(false);
        }
        held.tickets.insert(ticket.to_owned(), Kept { value: (), until: now + TICKET_MEMORY });
        Ok(true)
    }

    async fn ping(&self) -> Result<(), RegistryError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{self, Fixture};
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    struct Memory {
        registry: Arc<dyn Registry>,
        elapsed_ms: Arc<AtomicU64>,
    }

    impl Memory {
        fn advance(&self, by: Duration) {
            self.elapsed_ms.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
        }
    }

    #[async_trait::async_trait]
    impl Fixture for Memory {
        fn registry(&self) -> Arc<dyn Registry> {
            self.registry.clone()
        }
        async fn lose_lease(&self, _: &GatewayId) {
            self.advance(LEASE_LIFE);
        }
    }

    async fn memory() -> Memory {
        let (start, elapsed_ms) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let clock = elapsed_ms.clone();
        let clock = move || start + Duration::from_millis(clock.load(Ordering::Relaxed));
        Memory { registry: Arc::new(MemoryRegistry::with_clock(clock)), elapsed_ms }
    }

    crate::contract_tests!(memory);

    #[tokio::test]
    async fn leases_tickets_and_routes_end_with_their_lives() {
        let fixture = memory().await;
        let registry = fixture.registry();
        let lease = contract::lease("gw-1", IncarnationId::new());
        let session = contract::session(UserId::new(), "phone", lease.incarnation, 1);
        registry.renew_lease(&lease).await.unwrap();
        registry.register(std::slice::from_ref(&session)).await.unwrap();
        assert!(registry.redeem_ticket("t").await.unwrap());

        fixture.advance(LEASE_LIFE - Duration::from_millis(1));
        assert_eq!(registry.gateways().await.unwrap().len(), 1);
        fixture.advance(Duration::from_millis(1));
        assert_eq!(registry.gateways().await.unwrap(), []);

        fixture.advance(TICKET_MEMORY - LEASE_LIFE - Duration::from_millis(1));
        assert!(!registry.redeem_ticket("t").await.unwrap());
        fixture.advance(Duration::from_millis(1));
        assert!(registry.redeem_ticket("t").await.unwrap());

        assert_eq!(registry.look_up(&[session.user]).await.unwrap().len(), 1);
        fixture.advance(ROUTE_LIFE - TICKET_MEMORY);
        assert_eq!(registry.look_up(&[session.user]).await.unwrap(), []);
        registry.renew_lease(&lease).await.unwrap();
        assert_eq!(registry.look_up(&[session.user]).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_has_ended_takes_no_memory_after_the_next_renewal() {
        let elapsed_ms = Arc::new(AtomicU64::new(0));
        let (began, elapsed) = (Instant::now(), Arc::clone(&elapsed_ms));
        let registry =
            MemoryRegistry::with_clock(move || began + Duration::from_millis(elapsed.load(Ordering::Relaxed)));
        let dead = contract::lease("gw-1", IncarnationId::new());
        registry.renew_lease(&dead).await.unwrap();
        for number in 0..100 {
            assert!(registry.redeem_ticket(&number.to_string()).await.unwrap());
            registry.register(&[contract::session(UserId::new(), "phone", dead.incarnation, 1)]).await.unwrap();
        }
        let held = || {
            let held = registry.held();
            (held.leases.len(), held.routes.len(), held.tickets.len())
        };
        assert_eq!(held(), (1, 100, 100));
        for (passed, left) in [(TICKET_MEMORY, (1, 100, 0)), (ROUTE_LIFE, (1, 0, 0))] {
            elapsed_ms.store(u64::try_from(passed.as_millis()).unwrap(), Ordering::Relaxed);
            registry.renew_lease(&contract::lease("gw-2", IncarnationId::new())).await.unwrap();
            assert_eq!(held(), left);
        }
    }
}

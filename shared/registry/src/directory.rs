//! Who is alive, as this process last saw it: read on every send, refreshed in the background.

use crate::{Lease, Registry, RegistryError, Route};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};
use touchline_ids::IncarnationId;

/// How often the view is refreshed anyway.
const REFRESH: Duration = Duration::from_secs(1);
/// The least time between two refreshes that unknown incarnations ask for.
const EARLY_REFRESH: Duration = Duration::from_millis(100);
/// Incarnations remembered as absent; beyond, all are forgotten, which costs one refresh each.
const ABSENT_MAX: usize = 10_000;

/// The live gateways at one moment.
#[derive(Debug, Default)]
pub struct View {
    leases: HashMap<IncarnationId, Arc<Lease>>,
}

impl View {
    /// The lease of a live incarnation.
    pub fn get(&self, incarnation: IncarnationId) -> Option<&Arc<Lease>> {
        self.leases.get(&incarnation)
    }

    /// All live incarnations, in no order.
    pub fn leases(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.leases.values()
    }
}

impl FromIterator<Lease> for View {
    fn from_iter<I: IntoIterator<Item = Lease>>(leases: I) -> Self {
        Self { leases: leases.into_iter().map(|lease| (lease.incarnation, Arc::new(lease))).collect() }
    }
}

/// The users that one live gateway has sessions of.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Where.
    pub lease: Arc<Lease>,
    /// Positions in the list of users that was looked up, ascending.
    pub users: Vec<u32>,
}

/// Look-up results by gateway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Groups {
    /// One for each live gateway that is concerned, in no order.
    pub live: Vec<Group>,
    /// Routes left out because their incarnation is dead.
    pub dead: usize,
}

/// Keeps a [`View`] fresh. While the registry is away the last view stays.
pub struct Directory {
    registry: Arc<dyn Registry>,
    view: RwLock<Arc<View>>,
    /// Seen in routes and not alive at a refresh after that: they ask for no further early refresh.
    absent: RwLock<HashSet<IncarnationId>>,
    /// Held while refreshing; when the last refresh began, if it brought a view.
    refreshed: Mutex<Option<Instant>>,
}

impl Directory {
    /// A directory with an empty view.
    pub fn new(registry: Arc<dyn Registry>) -> Self {
        Self { registry, view: RwLock::default(), absent: RwLock::default(), refreshed: Mutex::default() }
    }

    /// The present view.
    pub fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the registry who is alive. Callers at the same time share one question, if it began after they came.
    ///
    /// # Errors
    /// When the registry does not answer; the view stays as it was.
    pub async fn refresh(&self) -> Result<(), RegistryError> {
        self.refresh_since(Instant::now(), Duration::ZERO).await
    }

    /// Refreshes every second, for as long as it is polled: give it to a task.
    pub async fn refresh_forever(&self) {
        let mut ticks = tokio::time::interval(REFRESH);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut away = false;
        loop {
            ticks.tick().await;
            match self.refresh().await {
                Ok(()) if away => tracing::info!("the registry is back"),
                Err(error) if !away => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the registry is away");
                    away = true;
                    continue;
                }
                Err(_) => continue,
                Ok(()) => {}
            }
            away = false;
        }
    }

    /// Groups routes by live incarnation. An incarnation never seen before makes it refresh the view first, which
    /// takes up to 100 ms and an answer of the registry, once for each such incarnation.
    pub async fn group(&self, routes: &[Route]) -> Groups {
        let (groups, unknown) = self.group_by(&self.view(), routes);
        if unknown.is_empty() {
            return groups;
        }
        if self.refresh_since(Instant::now(), EARLY_REFRESH).await.is_err() {
            return groups;
        }
        let view = self.view();
        let (groups, unknown) = self.group_by(&view, routes);
        let mut absent = self.absent.write().unwrap_or_else(PoisonError::into_inner);
        if absent.len() + unknown.len() > ABSENT_MAX {
            absent.clear();
        }
        absent.extend(unknown);
        groups
    }

    /// Groups and the incarnations that are neither in the view nor known to be absent.
    fn group_by(&self, view: &View, routes: &[Route]) -> (Groups, HashSet<IncarnationId>) {
        let mut groups = Groups::default();
        let (mut position, mut dead) = (HashMap::<IncarnationId, usize>::new(), HashSet::new());
        for route in routes {
            if let Some(position) = position.get(&route.incarnation) {
                groups.live[*position].users.push(route.index);
            } else if let Some(lease) = view.get(route.incarnation) {
                position.insert(route.incarnation, groups.live.len());
                groups.live.push(Group { lease: lease.clone(), users: vec![route.index] });
            } else {
                groups.dead += 1;
                dead.insert(route.incarnation);
            }
        }
        if !dead.is_empty() {
            let absent = self.absent.read().unwrap_or_else(PoisonError::into_inner);
            dead.retain(|incarnation| !absent.contains(incarnation));
        }
        (groups, dead)
    }

    /// Makes sure of a view that was asked for after `since`, at least `apart` after the one before.
    async fn refresh_since(&self, since: Instant, apart: Duration) -> Result<(), RegistryError> {
        let mut refreshed = self.refreshed.lock().await;
        if let Some(last) = *refreshed {
            if last >= since {
                return Ok(());
            }
            tokio::time::sleep_until(last + apart).await;
        }
        let began = Instant::now();
        let view: View = self.registry.gateways().await?.into_iter().collect();
        if !self.absent.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            let mut absent = self.absent.write().unwrap_or_else(PoisonError::into_inner);
            absent.retain(|incarnation| !view.leases.contains_key(incarnation));
        }
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
        *refreshed = Some(began);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryRegistry, Registered, Registration, Renewal, contract::lease};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use touchline_ids::{ConnectionNumber, GatewayId, UserId};

    /// A registry that counts its `gateways` calls, takes 10 ms for each and can be away.
    #[derive(Default)]
    struct Watched {
        memory: MemoryRegistry,
        asked: AtomicUsize,
        away: AtomicBool,
    }

    #[async_trait::async_trait]
    impl Registry for Watched {
        async fn renew_lease(&self, lease: &Lease) -> Result<Renewal, RegistryError> {
            self.memory.renew_lease(lease).await
        }
        async fn release_lease(&self, gateway: &GatewayId, incarnation: IncarnationId) -> Result<(), RegistryError> {
            self.memory.release_lease(gateway, incarnation).await
        }
        async fn gateways(&self) -> Result<Vec<Lease>, RegistryError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            if self.away.load(Ordering::SeqCst) {
                return Err(RegistryError::Unavailable("away".into()));
            }
            self.memory.gateways().await
        }
        async fn register(&self, sessions: &[Registration]) -> Result<Vec<Registered>, RegistryError> {
            self.memory.register(sessions).await
        }
        async fn take_over(
            &self,
            session: &Registration,
            dead: IncarnationId,
            connection: ConnectionNumber,
        ) -> Result<bool, RegistryError> {
            self.memory.take_over(session, dead, connection).await
        }
        async fn unregister(&self, session: &Registration) -> Result<bool, RegistryError> {
            self.memory.unregister(session).await
        }
        async fn prune(&self, routes: &[(UserId, IncarnationId)]) -> Result<u64, RegistryError> {
            self.memory.prune(routes).await
        }
        async fn look_up(&self, users: &[UserId]) -> Result<Vec<Route>, RegistryError> {
            self.memory.look_up(users).await
        }
        async fn redeem_ticket(&self, ticket: &str) -> Result<bool, RegistryError> {
            self.memory.redeem_ticket(ticket).await
        }
        async fn ping(&self) -> Result<(), RegistryError> {
            self.memory.ping().await
        }
    }

    fn route(index: u32, lease: &Lease) -> Route {
        Route { index, incarnation: lease.incarnation }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_incarnation_is_found_early_and_an_absent_one_is_asked_for_once() {
        let registry = Arc::new(Watched::default());
        let directory = Directory::new(registry.clone());
        let (new, absent) = (lease("gw-1", IncarnationId::new()), lease("gw-2", IncarnationId::new()));
        directory.refresh().await.unwrap();
        registry.renew_lease(&new).await.unwrap();

        let routes = [route(0, &absent), route(0, &new), route(2, &new)];
        let groups = directory.group(&routes).await;
        let live = vec![Group { lease: Arc::new(new.clone()), users: vec![0, 2] }];
        assert_eq!(groups, Groups { live, dead: 1 });
        assert_eq!(registry.asked.load(Ordering::SeqCst), 2);
        directory.group(&routes).await;
        assert_eq!(registry.asked.load(Ordering::SeqCst), 2, "an absent incarnation asks once");

        // It was only late: the next ordinary refresh finds it.
        registry.renew_lease(&absent).await.unwrap();
        directory.refresh().await.unwrap();
        assert_eq!(directory.group(&routes).await.live.len(), 2);
        // And when it dies for good it is asked for once again, not for ever.
        registry.release_lease(&absent.gateway, absent.incarnation).await.unwrap();
        directory.refresh().await.unwrap();
        directory.group(&routes).await;
        directory.group(&routes).await;
        assert_eq!(registry.asked.load(Ordering::SeqCst), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_incarnations_share_one_refresh_and_refreshes_keep_apart() {
        let registry = Arc::new(Watched::default());
        let directory = Directory::new(registry.clone());
        let began = Instant::now();
        for round in 1..=5 {
            let leases: Vec<_> = (0..50).map(|n| lease(&format!("gw-{round}-{n}"), IncarnationId::new())).collect();
            let routes: Vec<_> = leases.iter().map(|lease| [route(0, lease)]).collect();
            futures_util::future::join_all(routes.iter().map(|routes| directory.group(routes))).await;
            assert_eq!(registry.asked.load(Ordering::SeqCst), round);
        }
        assert!(began.elapsed() >= 4 * EARLY_REFRESH, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_view_stays_while_the_registry_is_away() {
        let registry = Arc::new(Watched::default());
        let directory = Arc::new(Directory::new(registry.clone()));
        let lease = lease("gw-1", IncarnationId::new());
        registry.renew_lease(&lease).await.unwrap();
        let forever = async {
            directory.refresh_forever().await;
        };
        let scenario = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(directory.view().get(lease.incarnation).is_some());
            registry.away.store(true, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(directory.view().get(lease.incarnation).is_some());
            assert_eq!(registry.asked.load(Ordering::SeqCst), 11, "once a second");
            registry.release_lease(&lease.gateway, lease.incarnation).await.unwrap();
            registry.away.store(false, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(directory.view().get(lease.incarnation).is_none());
        };
        tokio::select! {
            () = forever => unreachable!("refreshes for ever"),
            () = scenario => {}
        }
    }
}

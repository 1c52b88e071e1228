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
/// How long an incarnation must have been absent before its routes may be removed: longer than any outage in which a
/// gateway lives on unseen, and if one does it registers its sessions again.
const LAPSE: Duration = Duration::from_secs(60);
/// How long a gateway whose lease is back may take to register all of its sessions again.
const REGISTERING: Duration = Duration::from_secs(10);

/// The live gateways at one moment: those with a live lease, and those that somebody vouches for.
#[derive(Debug, Default)]
pub struct View {
    leases: HashMap<IncarnationId, Arc<Lease>>,
    /// Those of them without a live lease: what their lease said may be out of date.
    unlisted: HashSet<IncarnationId>,
    /// Those of them whose routes may be missing.
    unsure: HashSet<IncarnationId>,
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

    /// Gateways that live and had no lease now or lately: the registry may have lost their routes with it, so a look-up
    /// that does not name them says nothing about them.
    pub fn unsure(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.unsure.iter().filter_map(|incarnation| self.leases.get(incarnation))
    }

    /// Where new sessions may go, in no order: gateways with a live lease, which take some; when there is none at all,
    /// because the registry lost them, whoever lives.
    pub fn open_to_sessions(&self) -> impl Iterator<Item = &Arc<Lease>> {
        let nobody_is_listed = self.unlisted.len() == self.leases.len();
        self.leases.values().filter(move |lease| nobody_is_listed || !self.unlisted.contains(&lease.incarnation))
    }
}

impl FromIterator<Lease> for View {
    fn from_iter<I: IntoIterator<Item = Lease>>(leases: I) -> Self {
        let leases = leases.into_iter().map(|lease| (lease.incarnation, Arc::new(lease))).collect();
        Self { leases, ..Self::default() }
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
    /// Routes left out because their incarnation is dead, as far as is known.
    pub left_out: Vec<Route>,
    /// Those of them whose incarnation has been dead for a minute: they may be pruned.
    pub lapsed: Vec<Route>,
}

/// Keeps a [`View`] fresh. While the registry is away the last view stays.
pub struct Directory {
    registry: Arc<dyn Registry>,
    view: RwLock<Arc<View>>,
    sources: std::sync::Mutex<Sources>,
    /// Seen in routes and not alive at a refresh after that, and since when: they ask for no further early refresh.
    absent: RwLock<HashMap<IncarnationId, Instant>>,
    /// Held while refreshing; when the last refresh began, if it brought a view.
    refreshed: Mutex<Option<Instant>>,
}

/// What a view is made of.
#[derive(Default)]
struct Sources {
    leased: HashMap<IncarnationId, Arc<Lease>>,
    vouched: HashMap<IncarnationId, Arc<Lease>>,
    /// Until when the routes of gateways that lived without a lease are not to be relied on.
    unsure: HashMap<IncarnationId, Instant>,
}

impl Sources {
    fn view(&mut self, now: Instant) -> View {
        let Self { leased, vouched, unsure } = self;
        let (mut leases, mut unlisted) = (leased.clone(), HashSet::new());
        for (incarnation, lease) in vouched {
            leases.entry(*incarnation).or_insert_with(|| {
                unlisted.insert(*incarnation);
                Arc::clone(lease)
            });
        }
        unsure.retain(|incarnation, until| now < *until && leases.contains_key(incarnation));
        unsure.extend(unlisted.iter().map(|incarnation| (*incarnation, now + REGISTERING)));
        let unsure = unsure.keys().copied().collect();
        View { leases, unlisted, unsure }
    }
}

impl Directory {
    /// A directory with an empty view.
    pub fn new(registry: Arc<dyn Registry>) -> Self {
        Self {
            registry,
            view: RwLock::default(),
            sources: std::sync::Mutex::default(),
            absent: RwLock::default(),
            refreshed: Mutex::default(),
        }
    }

    /// The caller sees this gateway alive (its push stream is healthy): it is in the view, whatever becomes of its
    /// lease, until [`unvouch`](Self::unvouch).
    pub fn vouch(&self, lease: Arc<Lease>) {
        self.change(|sources| {
            sources.vouched.insert(lease.incarnation, lease);
        });
    }

    /// The caller does not see it alive any more: from now on its lease alone decides.
    pub fn unvouch(&self, incarnation: IncarnationId) {
        self.change(|sources| {
            sources.vouched.remove(&incarnation);
        });
    }

    /// Changes what the view is made of, and the view with it.
    fn change(&self, change: impl FnOnce(&mut Sources)) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut sources);
        let view = sources.view(Instant::now());
        // With the sources still locked: a later change must not be overtaken.
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
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
        let (mut absent, now) = (self.absent.write().unwrap_or_else(PoisonError::into_inner), Instant::now());
        if absent.len() + unknown.len() > ABSENT_MAX {
            absent.clear();
        }
        for incarnation in unknown.into_iter().take(ABSENT_MAX) {
            absent.entry(incarnation).or_insert(now);
        }
        groups
    }

    /// Groups and the incarnations that are neither in the view nor known to be absent.
    fn group_by(&self, view: &View, routes: &[Route]) -> (Groups, HashSet<IncarnationId>) {
        let mut groups = Groups::default();
        let (mut position, mut dead) = (HashMap::<IncarnationId, usize>::new(), Vec::new());
        for route in routes {
            if let Some(position) = position.get(&route.incarnation) {
                groups.live[*position].users.push(route.index);
            } else if let Some(lease) = view.get(route.incarnation) {
                position.insert(route.incarnation, groups.live.len());
                groups.live.push(Group { lease: lease.clone(), users: vec![route.index] });
            } else {
                dead.push(*route);
            }
        }
        let mut unknown = HashSet::new();
        if !dead.is_empty() {
            let absent = self.absent.read().unwrap_or_else(PoisonError::into_inner);
            for route in dead.iter().copied() {
                match absent.get(&route.incarnation) {
                    Some(since) if since.elapsed() >= LAPSE => groups.lapsed.push(route),
                    Some(_) => {}
                    None => drop(unknown.insert(route.incarnation)),
                }
            }
        }
        groups.left_out = dead;
        (groups, unknown)
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
        let listed = self.registry.gateways().await?;
        let leased = listed.into_iter().map(|lease| (lease.incarnation, Arc::new(lease))).collect();
        self.change(|sources| sources.leased = leased);
        if !self.absent.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            let view = self.view();
            let mut absent = self.absent.write().unwrap_or_else(PoisonError::into_inner);
            absent.retain(|incarnation, _| view.get(*incarnation).is_none());
        }
        *refreshed = Some(began);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Call, Fault, FaultyRegistry, lease};

    /// Takes 10 ms for each look at the gateways.
    fn registry() -> Arc<FaultyRegistry> {
        let registry = Arc::new(FaultyRegistry::default());
        registry.set(Call::Gateways, Fault::Delay(Duration::from_millis(10)));
        registry
    }

    fn route(index: u32, lease: &Lease) -> Route {
        Route { index, incarnation: lease.incarnation }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_incarnation_is_found_early_and_an_absent_one_is_asked_for_once() {
        let registry = registry();
        let directory = Directory::new(registry.clone());
        let (new, absent) = (lease("gw-1", IncarnationId::new()), lease("gw-2", IncarnationId::new()));
        directory.refresh().await.unwrap();
        registry.renew_lease(&new).await.unwrap();

        let routes = [route(0, &absent), route(0, &new), route(2, &new)];
        let groups = directory.group(&routes).await;
        let live = vec![Group { lease: Arc::new(new.clone()), users: vec![0, 2] }];
        assert_eq!(groups, Groups { live, left_out: vec![routes[0]], lapsed: vec![] });
        assert_eq!(registry.calls(Call::Gateways), 2);
        directory.group(&routes).await;
        assert_eq!(registry.calls(Call::Gateways), 2, "an absent incarnation asks once");

        // It was only late: the next ordinary refresh finds it.
        registry.renew_lease(&absent).await.unwrap();
        directory.refresh().await.unwrap();
        assert_eq!(directory.group(&routes).await.live.len(), 2);
        // And when it dies for good it is asked for once again, not for ever.
        registry.release_lease(&absent.gateway, absent.incarnation).await.unwrap();
        directory.refresh().await.unwrap();
        directory.group(&routes).await;
        directory.group(&routes).await;
        assert_eq!(registry.calls(Call::Gateways), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_incarnations_share_one_refresh_and_refreshes_keep_apart() {
        let registry = registry();
        let directory = Directory::new(registry.clone());
        let began = Instant::now();
        for round in 1..=5 {
            let leases: Vec<_> = (0..50).map(|n| lease(&format!("gw-{round}-{n}"), IncarnationId::new())).collect();
            let routes: Vec<_> = leases.iter().map(|lease| [route(0, lease)]).collect();
            futures_util::future::join_all(routes.iter().map(|routes| directory.group(routes))).await;
            assert_eq!(registry.calls(Call::Gateways), round);
        }
        assert!(began.elapsed() >= 4 * EARLY_REFRESH, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_view_stays_while_the_registry_is_away() {
        let registry = registry();
        let directory = Arc::new(Directory::new(registry.clone()));
        let lease = lease("gw-1", IncarnationId::new());
        registry.renew_lease(&lease).await.unwrap();
        let forever = async {
            directory.refresh_forever().await;
        };
        let scenario = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(directory.view().get(lease.incarnation).is_some());
            registry.set(Call::Gateways, Fault::Fail);
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(directory.view().get(lease.incarnation).is_some());
            assert_eq!(registry.calls(Call::Gateways), 11, "once a second");
            registry.release_lease(&lease.gateway, lease.incarnation).await.unwrap();
            registry.set(Call::Gateways, Fault::None);
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(directory.view().get(lease.incarnation).is_none());
        };
        tokio::select! {
            () = forever => unreachable!("refreshes for ever"),
            () = scenario => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whom_somebody_vouches_for_lives_whatever_its_lease_says() {
        let registry = registry();
        let directory = Directory::new(registry.clone());
        let (one, two) = (lease("gw-1", IncarnationId::new()), lease("gw-2", IncarnationId::new()));
        registry.renew_lease(&one).await.unwrap();
        registry.renew_lease(&two).await.unwrap();
        directory.refresh().await.unwrap();
        directory.vouch(Arc::new(one.clone()));
        registry.release_lease(&one.gateway, one.incarnation).await.unwrap();
        directory.refresh().await.unwrap();
        let view = directory.view();
        assert!(view.get(one.incarnation).is_some() && view.get(two.incarnation).is_some());
        let open: Vec<_> = view.open_to_sessions().map(|lease| lease.incarnation).collect();
        assert_eq!(open, [two.incarnation], "nobody new is sent to it");
        let unsure =
            |directory: &Directory| -> Vec<_> { directory.view().unsure().map(|lease| lease.incarnation).collect() };
        assert_eq!(unsure(&directory), [one.incarnation]);
        registry.renew_lease(&one).await.unwrap();
        directory.refresh().await.unwrap();
        assert_eq!(unsure(&directory), [one.incarnation], "its sessions may not be registered yet");
        tokio::time::advance(REGISTERING).await;
        registry.renew_lease(&one).await.unwrap();
        directory.refresh().await.unwrap();
        assert_eq!(unsure(&directory), []);

        // When the registry has lost everybody, it is better than nobody.
        registry.lose_everything();
        directory.refresh().await.unwrap();
        assert_eq!(directory.view().open_to_sessions().count(), 1);
        directory.unvouch(one.incarnation);
        assert_eq!(directory.view().leases().count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn routes_of_an_incarnation_that_is_gone_for_a_minute_have_lapsed() {
        let registry = registry();
        let directory = Directory::new(registry.clone());
        let (dead, back) = (lease("gw-1", IncarnationId::new()), lease("gw-2", IncarnationId::new()));
        let routes = [route(0, &dead), route(1, &back)];
        assert_eq!(directory.group(&routes).await.lapsed, []);
        tokio::time::advance(LAPSE / 2).await;
        assert_eq!(directory.group(&routes).await.lapsed, []);
        registry.renew_lease(&back).await.unwrap();
        directory.refresh().await.unwrap();
        registry.release_lease(&back.gateway, back.incarnation).await.unwrap();
        directory.refresh().await.unwrap();
        tokio::time::advance(LAPSE / 2).await;
        assert_eq!(directory.group(&routes).await.lapsed, [routes[0]], "the other one was seen since");
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_absent_incarnations_are_all_forgotten_and_cost_one_refresh() {
        let registry = registry();
        let directory = Directory::new(registry.clone());
        let unknown = |count: u32| -> Vec<_> {
            (0..count).map(|index| Route { index, incarnation: IncarnationId::new() }).collect()
        };
        let known = || directory.absent.read().unwrap().len();
        let all = unknown(10_000);
        for (routes, calls, left) in [
            (&all[..], 1, ABSENT_MAX),
            (&all, 1, ABSENT_MAX),
            (&unknown(1), 2, 1),
            // Of those that were forgotten, and of more at once than are remembered.
            (&all[..9_000], 3, 9_001),
            (&unknown(10_001), 4, ABSENT_MAX),
        ] {
            assert_eq!(directory.group(routes).await.left_out.len(), routes.len());
            assert_eq!((registry.calls(Call::Gateways), known()), (calls, left));
        }
    }
}

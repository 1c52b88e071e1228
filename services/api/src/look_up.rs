//! Asking the registry where users are, without ever waiting long for it: a time budget for each question, and a
//! breaker, so that a registry that hangs costs the budget only now and then.

use crate::debts::Debts;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use touchline_ids::{IncarnationId, UserId};
use touchline_mesh::breaker::{Breaker, Rules};
use touchline_registry::{Directory, Group, Registry, RegistryError, Route};

/// What a look-up may take.
const BUDGET: Duration = Duration::from_millis(100);
/// What it may take to learn of a new incarnation: the directory keeps its questions 100 ms apart.
const VIEW_BUDGET: Duration = Duration::from_millis(200);
/// When the registry is not asked any more.
const RULES: Rules = Rules { failures: 20, within: Duration::from_secs(10), probe_every: Duration::from_secs(1) };
/// How often to see whether a probe is due.
const WATCH: Duration = Duration::from_millis(250);
/// Batches of lapsed routes waiting to be removed; more are met again.
const LAPSED: usize = 16;
/// Routes removed by one question.
const PRUNED: usize = 1_000;

/// The registry, as the fan-out asks it.
pub struct LookUps {
    registry: Arc<dyn Registry>,
    directory: Arc<Directory>,
    breaker: Mutex<Breaker>,
    debts: Arc<Debts>,
    lapsed: mpsc::Sender<Vec<(UserId, IncarnationId)>>,
}

/// Removes routes of incarnations that are gone for good.
pub struct Pruner {
    registry: Arc<dyn Registry>,
    lapsed: mpsc::Receiver<Vec<(UserId, IncarnationId)>>,
}

impl LookUps {
    /// Look-ups in this registry, and who removes what they find to have lapsed.
    pub fn new(registry: Arc<dyn Registry>, directory: Arc<Directory>, debts: Arc<Debts>) -> (Self, Pruner) {
        let (lapsed, to_prune) = mpsc::channel(LAPSED);
        let pruner = Pruner { registry: Arc::clone(&registry), lapsed: to_prune };
        (Self { registry, directory, breaker: Mutex::new(Breaker::new(RULES)), debts, lapsed }, pruner)
    }

    /// One pipelined look-up of all `users`, grouped by live gateway: positions in `users`. Without an answer in time
    /// every live gateway is taken to hold all of them: each says for whom it does not.
    pub async fn groups(&self, users: &[UserId]) -> Vec<Group> {
        if self.breaker().is_open() {
            return self.everywhere(users);
        }
        match self.ask(users).await {
            Ok(groups) => {
                self.succeeded();
                groups
            }
            Err(reason) => {
                if self.breaker().failed(Instant::now()) {
                    tracing::warn!(reason, "the registry fails too often: every push is broadcast until it answers");
                } else {
                    tracing::warn!(reason, "no routes from the registry, broadcasting");
                }
                self.everywhere(users)
            }
        }
    }

    /// Probes the registry while it is not asked otherwise.
    pub async fn probe_forever(&self) {
        let mut tick = tokio::time::interval(WATCH);
        loop {
            tick.tick().await;
            if self.breaker().probe_is_due(Instant::now()) {
                // A question like any other, about somebody who does not exist.
                match timeout(BUDGET, self.registry.look_up(&[UserId::new()])).await {
                    Ok(Ok(_)) => self.succeeded(),
                    Ok(Err(error)) => tracing::debug!(%error, "the registry still fails"),
                    Err(_) => tracing::debug!("the registry is still too slow"),
                }
            }
        }
    }

    async fn ask(&self, users: &[UserId]) -> Result<Vec<Group>, String> {
        let over = |_| "over its time budget".to_owned();
        let failed = |error: RegistryError| error.to_string();
        let routes = timeout(BUDGET, self.registry.look_up(users)).await.map_err(over)?.map_err(failed)?;
        // Asks the registry again when it meets an incarnation that it does not know.
        let groups = timeout(VIEW_BUDGET, self.directory.group(&routes)).await.map_err(over)?;
        for route in &groups.left_out {
            if let Some(user) = users.get(route.index as usize) {
                self.debts.left_out(route.incarnation, *user, Instant::now());
            }
        }
        if !groups.lapsed.is_empty() {
            self.prune(users, &groups.lapsed);
        }
        let (mut live, view) = (groups.live, self.directory.view());
        // The registry may have forgotten whom these hold: they are asked for everybody.
        for lease in view.unsure() {
            live.retain(|group| group.lease.incarnation != lease.incarnation);
            live.push(Group { lease: Arc::clone(lease), users: (0u32..).take(users.len()).collect() });
        }
        Ok(live)
    }

    fn prune(&self, users: &[UserId], lapsed: &[Route]) {
        let named = |route: &Route| users.get(route.index as usize).map(|user| (*user, route.incarnation));
        // A full queue: whoever is left out will be met again.
        let _ = self.lapsed.try_send(lapsed.iter().take(PRUNED).filter_map(named).collect());
    }

    fn succeeded(&self) {
        if self.breaker().succeeded() {
            tracing::info!("the registry answers again: pushes are routed");
        }
    }

    fn everywhere(&self, users: &[UserId]) -> Vec<Group> {
        self.debts.broadcast(users, Instant::now());
        let everyone: Vec<u32> = (0u32..).take(users.len()).collect();
        let view = self.directory.view();
        view.leases().map(|lease| Group { lease: Arc::clone(lease), users: everyone.clone() }).collect()
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pruner {
    /// Removes until every [`LookUps`] is gone.
    pub async fn run(mut self) {
        while let Some(lapsed) = self.lapsed.recv().await {
            match self.registry.prune(&lapsed).await {
                Ok(pruned) => tracing::debug!(pruned, "routes of gateways long gone were removed"),
                Err(error) => tracing::debug!(%error, "routes of gateways long gone stay for now"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchline_registry::contract::{Call, Fault, FaultyRegistry, lease, session};

    /// Somebody at one of two gateways.
    async fn scene() -> (Arc<FaultyRegistry>, Arc<LookUps>, Pruner, UserId) {
        let (registry, user) = (Arc::new(FaultyRegistry::default()), UserId::new());
        let leases = ["gw-1", "gw-2"].map(|name| lease(name, IncarnationId::new()));
        for lease in &leases {
            registry.renew_lease(lease).await.unwrap();
        }
        registry.register(&[session(user, "phone", leases[0].incarnation, 1)]).await.unwrap();
        let shared: Arc<dyn Registry> = Arc::<FaultyRegistry>::clone(&registry);
        let directory = Arc::new(Directory::new(Arc::clone(&shared)));
        directory.refresh().await.unwrap();
        let (look_ups, pruner) = LookUps::new(shared, directory, Arc::default());
        (registry, Arc::new(look_ups), pruner, user)
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_hangs_costs_its_budget_twenty_times_and_then_nothing_until_it_answers() {
        let (registry, look_ups, _pruner, user) = scene().await;
        assert_eq!(look_ups.groups(&[user]).await.len(), 1);
        registry.set(Call::LookUp, Fault::Hang);
        let began = Instant::now();
        for _ in 0..100 {
            assert_eq!(look_ups.groups(&[user]).await.len(), 2, "everywhere");
        }
        assert_eq!(began.elapsed(), 20 * BUDGET);
        assert_eq!(registry.calls(Call::LookUp), 21);

        let probing = async {
            look_ups.probe_forever().await;
        };
        let healing = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let probes = registry.calls(Call::LookUp) - 21;
            assert!((8..=10).contains(&probes), "{probes} in ten seconds");
            registry.set(Call::LookUp, Fault::None);
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            assert_eq!(look_ups.groups(&[user]).await.len(), 1, "it is asked again");
        };
        tokio::select! {
            () = probing => unreachable!("for ever"),
            () = healing => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gateways_whose_leases_the_registry_lost_are_asked_for_everybody() {
        let (registry, look_ups, _pruner, user) = scene().await;
        let directory = &look_ups.directory;
        let gateways: Vec<_> = directory.view().leases().cloned().collect();
        gateways.iter().for_each(|lease| directory.vouch(Arc::clone(lease)));
        registry.lose_everything();
        assert_eq!(look_ups.groups(&[user]).await.len(), 0, "nobody has seen it yet");
        // Two refreshes at one moment are one.
        tokio::time::advance(Duration::from_millis(1)).await;
        directory.refresh().await.unwrap();
        assert_eq!(look_ups.groups(&[user]).await.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn routes_of_a_gateway_long_gone_are_removed_by_whoever_meets_them() {
        let (registry, look_ups, pruner, user) = scene().await;
        registry.register(&[session(user, "tablet", IncarnationId::new(), 1)]).await.unwrap();
        look_ups.groups(&[user]).await;
        assert_eq!(registry.look_up(&[user]).await.unwrap().len(), 2);
        // Leases do not live so long here; the other gateway's absence is what counts.
        tokio::time::advance(Duration::from_secs(61)).await;
        look_ups.groups(&[user]).await;
        drop(look_ups);
        pruner.run().await;
        assert_eq!(registry.calls(Call::Prune), 1);
        assert_eq!(registry.look_up(&[user]).await.unwrap().len(), 1, "the live gateway's stays");
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_batches_of_lapsed_routes_wait_and_no_look_up_waits_for_them() {
        let (registry, look_ups, pruner, user) = scene().await;
        registry.register(&[session(user, "tablet", IncarnationId::new(), 1)]).await.unwrap();
        look_ups.groups(&[user]).await;
        tokio::time::advance(Duration::from_secs(61)).await;
        for _ in 0..2 * LAPSED {
            look_ups.groups(&[user]).await;
        }
        drop(look_ups);
        pruner.run().await;
        assert_eq!(registry.calls(Call::Prune), LAPSED);
    }
}

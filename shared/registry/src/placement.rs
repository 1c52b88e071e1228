//! Which gateway a new client should try: power of two choices, so that apis that know nothing of each other never
//! send everybody to the same "best" one (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing").

use crate::{GatewayState, LEASE_RENEWAL, Lease, View};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::Instant;
use touchline_ids::IncarnationId;

/// Chooses gateways and remembers what it handed out, because a lease tells only every few seconds who came.
pub struct Placement {
    state: Mutex<State>,
}

struct State {
    random: SmallRng,
    handed_out: HashMap<IncarnationId, HandedOut>,
}

/// Places given to clients that the lease does not count yet.
struct HandedOut {
    places: f64,
    /// What the lease said when last seen.
    sessions: u32,
    decayed: Instant,
}

impl HandedOut {
    /// Whoever the lease counts now has come. Of the rest, half are taken to have given up with every renewal's time.
    fn update(&mut self, sessions: u32, now: Instant) {
        let came = sessions.saturating_sub(self.sessions);
        self.places = (self.places - f64::from(came)).max(0.0);
        self.sessions = sessions;
        let renewals = now.duration_since(self.decayed).as_secs_f64() / LEASE_RENEWAL.as_secs_f64();
        self.places *= 0.5_f64.powf(renewals);
        self.decayed = now;
    }
}

impl Default for Placement {
    fn default() -> Self {
        Self::with_random(SmallRng::from_os_rng())
    }
}

impl Placement {
    /// A placement whose choices `seed` decides, for tests.
    pub fn seeded(seed: u64) -> Self {
        Self::with_random(SmallRng::seed_from_u64(seed))
    }

    fn with_random(random: SmallRng) -> Self {
        Self { state: Mutex::new(State { random, handed_out: HashMap::new() }) }
    }

    /// Up to `count` different gateways for one client to try, best first. Only gateways that are ready and not full;
    /// none when there is none. The first one's place counts as handed out.
    pub fn choose(&self, view: &View, count: usize) -> Vec<Arc<Lease>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { random, handed_out } = &mut *state;
        let now = Instant::now();
        handed_out.retain(|incarnation, _| view.get(*incarnation).is_some());
        let open = |lease: &&Arc<Lease>| lease.state == GatewayState::Ready && lease.sessions < lease.capacity;
        let mut open: Vec<(f64, &Arc<Lease>)> =
            view.open_to_sessions().filter(open).map(|lease| (load(handed_out, lease, now), lease)).collect();
        // The view has no order; the seed alone shall decide.
        open.sort_unstable_by_key(|(_, lease)| lease.incarnation);
        let mut chosen = Vec::with_capacity(count.min(open.len()));
        while chosen.len() < count && !open.is_empty() {
            let one = random.random_range(0..open.len());
            let other = (one + random.random_range(1..open.len().max(2))) % open.len();
            let best = if open[other].0 < open[one].0 { other } else { one };
            chosen.push(open.swap_remove(best).1.clone());
        }
        if let Some(handed_out) = chosen.first().and_then(|lease| handed_out.get_mut(&lease.incarnation)) {
            handed_out.places += 1.0;
        }
        chosen
    }
}

/// Sessions and places handed out, relative to the capacity.
fn load(handed_out: &mut HashMap<IncarnationId, HandedOut>, lease: &Lease, now: Instant) -> f64 {
    let sessions = lease.sessions;
    let handed_out =
        handed_out.entry(lease.incarnation).or_insert_with(|| HandedOut { places: 0.0, sessions, decayed: now });
    handed_out.update(sessions, now);
    (f64::from(sessions) + handed_out.places) / f64::from(lease.capacity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::lease;

    fn leases(sessions: &[u32]) -> Vec<Lease> {
        let lease = |(n, sessions): (usize, &u32)| {
            let gateway = lease(&format!("gw-{n}"), IncarnationId(uuid::Uuid::from_u128(n as u128)));
            Lease { sessions: *sessions, capacity: 18_000, ..gateway }
        };
        sessions.iter().enumerate().map(lease).collect()
    }

    /// Sends clients one after the other; how many went where, by the order of `leases`.
    fn send(placement: &Placement, leases: &[Lease], clients: usize) -> Vec<u32> {
        let view: View = leases.iter().cloned().collect();
        let mut sent = vec![0; leases.len()];
        for _ in 0..clients {
            let chosen = placement.choose(&view, 3);
            sent[leases.iter().position(|lease| lease == &*chosen[0]).unwrap()] += 1;
        }
        sent
    }

    fn assert_within_20_percent(counts: &[u32], seed: u64) {
        let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
        for count in counts {
            assert!((f64::from(*count) / mean - 1.0).abs() <= 0.2, "seed {seed}: {counts:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_clients_within_one_heartbeat_spread_evenly() {
        for seed in 0..50 {
            assert_within_20_percent(&send(&Placement::seeded(seed), &leases(&[0; 5]), 1_000), seed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_apis_that_know_nothing_of_each_other_spread_evenly_too() {
        for seed in 0..50 {
            let one = send(&Placement::seeded(seed), &leases(&[0; 5]), 500);
            let other = send(&Placement::seeded(seed + 1_000), &leases(&[0; 5]), 500);
            assert_within_20_percent(&one.iter().zip(other).map(|(a, b)| a + b).collect::<Vec<_>>(), seed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unequal_start_evens_out_without_a_rush_to_the_emptiest() {
        let start = [0, 150, 300, 300, 250];
        for seed in 0..50 {
            let (placement, leases) = (Placement::seeded(seed), leases(&start));
            let mut total = start;
            for _ in 0..10 {
                let sent = send(&placement, &leases, 100);
                // Two choices out of five meet a given gateway in two fifths of all cases.
                assert!(sent.iter().all(|sent| *sent <= 60), "seed {seed}: {sent:?}");
                for (total, sent) in total.iter_mut().zip(sent) {
                    *total += sent;
                }
            }
            assert_within_20_percent(&total, seed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_is_not_counted_twice_and_who_did_not_come_is_forgotten() {
        let placement = Placement::seeded(1);
        let mut leases = leases(&[0, 0]);
        // The first gateway is far away in sessions; everybody handed out goes to the second.
        leases[0].sessions = 10_000;
        assert_eq!(send(&placement, &leases, 1_000), [0, 1_000]);
        // All came: the renewed lease says so, nothing of them remains handed out.
        leases[1].sessions = 1_000;
        leases[0].sessions = 1_050;
        assert_eq!(send(&placement, &leases, 50), [0, 50]);
        // Nobody of the fifty came. After a while both gateways are even, and so is the spread.
        leases[0].sessions = 1_000;
        tokio::time::advance(LEASE_RENEWAL * 10).await;
        assert_within_20_percent(&send(&placement, &leases, 1_000), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_load_is_relative_to_the_capacity() {
        let mut leases = leases(&[100, 1_000]);
        leases[0].capacity = 200;
        assert_eq!(send(&Placement::seeded(1), &leases, 100), [0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_ready_gateways_with_room_are_chosen_each_once() {
        let placement = Placement::seeded(1);
        let mut leases = leases(&[5, 5, 5, 18_000, 5]);
        leases[0].state = GatewayState::Draining;
        let view: View = leases.iter().cloned().collect();
        for _ in 0..100 {
            let mut chosen: Vec<_> =
                placement.choose(&view, 10).iter().map(|lease| lease.gateway.to_string()).collect();
            chosen.sort();
            assert_eq!(chosen, ["gw-1", "gw-2", "gw-4"]);
            assert_eq!(placement.choose(&view, 2).len(), 2);
        }
        assert_eq!(placement.choose(&View::default(), 3), []);
    }
}

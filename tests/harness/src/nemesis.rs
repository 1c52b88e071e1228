//! A list of faults, drawn from a seed: the same seed makes the same list.

use crate::NodeName;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::{fmt, time::Duration};

/// Between the end of one fault and the beginning of the next, in milliseconds.
const REST_MS: std::ops::Range<u64> = 1_000..6_000;
/// How long one lasts, in milliseconds.
const LENGTH_MS: std::ops::Range<u64> = 500..8_000;

/// What can be done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; it is started again at the end.
    Kill,
    /// SIGSTOP; SIGCONT at the end.
    Hang,
    /// SIGTERM; it is started again at the end.
    Stop,
    /// A black hole between it and Redis.
    CutFromRedis,
    /// Its clients' connections are reset.
    ResetClients,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Kill, Self::Hang, Self::Stop, Self::CutFromRedis, Self::ResetClients];
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// When, from the beginning.
    pub at: Duration,
    /// What.
    pub fault: Fault,
    /// To whom.
    pub node: NodeName,
    /// For how long.
    pub length: Duration,
}

/// Faults one after the other, none while another lasts: what is promised is promised under any single fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nemesis {
    seed: u64,
    strikes: Vec<Strike>,
}

impl Nemesis {
    /// Draws faults to these processes until `end`.
    pub fn new(seed: u64, nodes: &[NodeName], end: Duration) -> Self {
        let (mut random, mut at, mut strikes) = (StdRng::seed_from_u64(seed), Duration::ZERO, Vec::new());
        loop {
            at += Duration::from_millis(random.random_range(REST_MS));
            let length = Duration::from_millis(random.random_range(LENGTH_MS));
            let (fault, node) = (Fault::ALL.choose(&mut random), nodes.choose(&mut random));
            let (Some(&fault), Some(&node)) = (fault, node) else { break };
            if at + length > end {
                break;
            }
            strikes.push(Strike { at, fault, node, length });
            at += length;
        }
        Self { seed, strikes }
    }

    /// In order.
    pub fn strikes(&self) -> &[Strike] {
        &self.strikes
    }
}

impl fmt::Display for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nemesis of seed {}: {} faults", self.seed, self.strikes.len())?;
        self.strikes.iter().try_for_each(|Strike { at, fault, node, length }| {
            write!(f, "\n  at {:6.3} s {fault:?} {node} for {:.3} s", at.as_secs_f64(), length.as_secs_f64())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_same_seed_makes_the_same_list() {
        let nodes = [NodeName::Api(0), NodeName::Gateway(1)];
        let one = Nemesis::new(7, &nodes, MINUTE);
        assert_eq!(one, Nemesis::new(7, &nodes, MINUTE));
        assert_ne!(one.strikes(), Nemesis::new(8, &nodes, MINUTE).strikes());
        assert!(one.to_string().lines().count() == one.strikes().len() + 1);
    }

    #[test]
    fn one_fault_at_a_time_and_none_after_the_end() {
        for seed in 0..100 {
            let nemesis = Nemesis::new(seed, &[NodeName::Gateway(0)], MINUTE);
            assert!(nemesis.strikes().len() > 3);
            assert!(nemesis.strikes().windows(2).all(|pair| pair[0].at + pair[0].length < pair[1].at));
            assert!(nemesis.strikes().iter().all(|strike| strike.at + strike.length <= MINUTE));
        }
    }
}

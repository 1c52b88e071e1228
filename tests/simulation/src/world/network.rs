//! Who reaches whom. A way that is closed is a black hole: nothing arrives, nobody is told.

use super::Node;
use rand::{Rng as _, rngs::SmallRng};
use std::{collections::BTreeMap, time::Duration};

/// The ways between nodes; all are open until a fault closes them.
#[derive(Default)]
pub(crate) struct Network {
    /// How many faults close the way from one to another.
    closed: BTreeMap<(Node, Node), u32>,
    /// How many faults cut a node off from everybody.
    alone: BTreeMap<Node, u32>,
}

impl Network {
    pub(crate) fn open(&self, from: Node, to: Node) -> bool {
        !self.closed.contains_key(&(from, to)) && !self.alone.contains_key(&from) && !self.alone.contains_key(&to)
    }

    pub(crate) fn reaches_and_back(&self, one: Node, other: Node) -> bool {
        self.open(one, other) && self.open(other, one)
    }

    pub(crate) fn close_way(&mut self, from: Node, to: Node) {
        *self.closed.entry((from, to)).or_default() += 1;
    }

    pub(crate) fn open_way(&mut self, from: Node, to: Node) {
        less(&mut self.closed, (from, to));
    }

    pub(crate) fn cut_off(&mut self, node: Node) {
        *self.alone.entry(node).or_default() += 1;
    }

    pub(crate) fn let_back(&mut self, node: Node) {
        less(&mut self.alone, node);
    }

    /// How long something is on its way: mostly a millisecond or two inside, some tens to a device, now and then more.
    pub(crate) fn delay(chance: &mut SmallRng, from: Node, to: Node) -> Duration {
        let outside = |node| matches!(node, Node::Device(_) | Node::Sender(_));
        let longest_us = if outside(from) || outside(to) { 40_000 } else { 2_000 };
        let us = chance.random_range(100..longest_us);
        Duration::from_micros(if chance.random_ratio(1, 50) { us * 10 } else { us })
    }
}

fn less<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

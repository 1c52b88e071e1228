//! Connections: in order and without loss in either direction for as long as they live, like TCP's. How they end, and
//! who learns of it, is where the faults are.

use super::{Node, Packet};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// Packets that may be under way or unread in one direction; then the writer has to wait, as for a full socket buffer.
const WINDOW: usize = 24;

/// Names a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WireId(pub(crate) u32);

/// One connection between two lives of processes.
pub(crate) struct Wire {
    pub(crate) ends: [End; 2],
    /// Whether both ends ask each other for signs of life: the push streams do.
    pub(crate) keepalive: bool,
}

/// One end of it.
pub(crate) struct End {
    pub(crate) node: Node,
    pub(crate) life: u32,
    /// Whether this end may send and is told what comes.
    pub(crate) open: bool,
    /// Whether nobody is there any more who could say that it is closed.
    pub(crate) hangs: bool,
    /// Whether it takes what arrives.
    pub(crate) reading: bool,
    /// Whether its process waits for room to send.
    pub(crate) waits_for_room: bool,
    /// On the way here, with the time of arrival.
    pub(crate) coming: VecDeque<(Instant, Flying)>,
    /// The last sign of life of the other end.
    pub(crate) heard: Instant,
}

/// What travels on a wire.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are packets")]
pub(crate) enum Flying {
    /// "May I?"
    Hello,
    /// "You may."
    Welcome,
    /// Something for the process.
    Packet(Packet),
    /// There is nothing after this: closed, or reset.
    End,
}

impl Wire {
    pub(crate) fn new(opener: (Node, u32), other: (Node, u32), keepalive: bool, now: Instant) -> Self {
        let end = |(node, life)| End {
            node,
            life,
            open: false,
            hangs: false,
            reading: true,
            waits_for_room: false,
            coming: VecDeque::new(),
            heard: now,
        };
        Self { ends: [end(opener), end(other)], keepalive }
    }

    /// Which end `node` holds.
    pub(crate) fn side(&self, node: Node) -> usize {
        usize::from(self.ends[0].node != node)
    }

    /// Puts something on the way to `side`; says when it arrives.
    pub(crate) fn send(&mut self, side: usize, flying: Flying, now: Instant, delay: Duration) -> Instant {
        let coming = &mut self.ends[side].coming;
        let at = coming.back().map_or(now + delay, |(last, _)| (*last).max(now + delay));
        coming.push_back((at, flying));
        at
    }

    /// Whether the writer towards `side` has to wait.
    pub(crate) fn is_full(&self, side: usize) -> bool {
        self.ends[side].coming.len() >= WINDOW
    }

    /// Whether nobody at either end has it.
    pub(crate) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| !end.open && end.coming.is_empty())
    }
}

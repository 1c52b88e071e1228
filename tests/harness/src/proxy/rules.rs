//! What a proxy does to the bytes that pass it.

use std::{collections::BTreeMap, time::Duration};

/// What happens to the bytes of one direction. Default: they pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way {
    /// How much later they come out.
    pub delay: Duration,
    /// Up to so much later still, at random. Bytes never overtake each other: it is one TCP stream.
    pub jitter: Duration,
    /// At most so many per second.
    pub bytes_per_second: Option<u32>,
    /// Nothing passes, no end of the connection either; everything stays open. Bytes that are held come out when the
    /// hole closes, as TCP would send them again.
    pub black_hole: bool,
    /// Counted from when the rule is set: the byte after so many does not pass, the connection is reset instead.
    pub cut_after: Option<u64>,
}

/// Both directions of a connection. Default: a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// From who dialled to the target.
    pub up: Way,
    /// From the target to who dialled.
    pub down: Way,
}

/// A hole that swallows one direction.
const HOLE: Way =
    Way { delay: Duration::ZERO, jitter: Duration::ZERO, bytes_per_second: None, black_hole: true, cut_after: None };

impl Rules {
    /// The same both ways.
    pub fn both(way: Way) -> Self {
        Self { up: way, down: way }
    }

    /// Nothing passes, both ways. New connections are taken and hang.
    pub fn black_hole() -> Self {
        Self::both(HOLE)
    }

    /// Nothing passes from who dialled to the target.
    pub fn black_hole_up() -> Self {
        Self { up: HOLE, ..Self::default() }
    }

    /// Nothing passes from the target to who dialled.
    pub fn black_hole_down() -> Self {
        Self { down: HOLE, ..Self::default() }
    }

    /// Later by `delay` and up to `jitter`, both ways.
    pub fn slow(delay: Duration, jitter: Duration) -> Self {
        Self::both(Way { delay, jitter, ..Way::default() })
    }

    /// Requests pass, the first byte of the next answer resets the connection.
    pub fn cut_answer() -> Self {
        Self { down: Way { cut_after: Some(0), ..Way::default() }, ..Self::default() }
    }

    /// A handshake needs both ways.
    pub(super) fn hangs(&self) -> bool {
        self.up.black_hole || self.down.black_hole
    }
}

/// The rules of all connections of a proxy.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) refuses: bool,
    /// The receive buffer towards the target, in bytes; else as the kernel likes.
    pub(super) window: Option<u32>,
    pub(super) everybody: Rules,
    /// Other rules for the connections that this process dialled.
    pub(super) diallers: BTreeMap<u32, Rules>,
}

impl Table {
    pub(super) fn rules(&self, dialler: Option<u32>) -> Rules {
        dialler.and_then(|pid| self.diallers.get(&pid)).copied().unwrap_or(self.everybody)
    }
}

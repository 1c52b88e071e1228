//! Ports that stay free while a server of ours is stopped.

use anyhow::{Context as _, Result};
use rand::Rng as _;
use std::{net::TcpListener, ops::Range};

/// Below the ports the kernel gives to clients, also with the 10,000 that Redis adds for its bus.
const RANGE: Range<u16> = 12_000..22_000;
const TRIES: usize = 100;

/// A port of 127.0.0.1 nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| rand::rng().random_range(RANGE)).take(TRIES).find(free).context("no free port")
}

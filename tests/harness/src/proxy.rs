//! A TCP proxy that delays, throttles, swallows, cuts and refuses, changed while it runs. It sits on a link between two
//! processes that know nothing of it.

mod connection;
mod dialler;
mod pipe;
mod rules;
#[cfg(test)]
mod tests;

pub use rules::{Rules, Way};

use connection::Connection;
use dialler::dialler;
use rand::{Rng, seq::IteratorRandom as _};
use rules::Table;
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    time::sleep,
};
use touchline_mesh::Shutdown;

/// Connections at once; one more is refused. Each takes two of the 20,000 files that a process may have.
const CONNECTIONS: usize = 8_000;
/// After a failed accept: usually there are no files left.
const BREATH: Duration = Duration::from_millis(20);

/// A proxy on 127.0.0.1. Dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    life: Shutdown,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    table: watch::Sender<Table>,
    connections: Mutex<BTreeMap<u64, Arc<Notify>>>,
    dialled: AtomicU64,
    tells_diallers_apart: bool,
}

impl Proxy {
    /// Listens on a free port and refuses everybody until it has a target.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn open() -> io::Result<Self> {
        Self::listen(false).await
    }

    /// As [`open`](Self::open), for a link whose rules differ by who dials; see [`set_for`](Self::set_for).
    ///
    /// # Errors
    /// When no port is free.
    pub async fn open_telling_diallers_apart() -> io::Result<Self> {
        Self::listen(true).await
    }

    async fn listen(tells_diallers_apart: bool) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let shared = Arc::new(Shared {
            target: Mutex::default(),
            table: watch::Sender::default(),
            connections: Mutex::default(),
            dialled: AtomicU64::new(0),
            tells_diallers_apart,
        });
        let (address, life) = (listener.local_addr()?, Shutdown::new());
        life.spawn(accept(listener, Arc::clone(&shared), life.clone()));
        Ok(Self { address, shared, life })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where new connections go from now on; those that are open stay where they are.
    pub fn lead_to(&self, target: SocketAddr) {
        *lock(&self.shared.target) = Some(target);
    }

    /// What happens to everybody's bytes from now on, those under way included.
    pub fn set(&self, rules: Rules) {
        self.shared.table.send_modify(|table| table.everybody = rules);
    }

    /// Other rules for what the process `pid` dialled and dials.
    pub fn set_for(&self, pid: u32, rules: Rules) {
        assert!(self.shared.tells_diallers_apart, "this proxy does not look who dials");
        self.shared.table.send_modify(|table| {
            table.diallers.insert(pid, rules);
        });
    }

    /// Takes at most about so many bytes from the target before it must wait, on connections dialled from now on: the
    /// kernel's own buffers hold megabytes, which hides who reads slowly.
    pub fn shrink_window(&self, bytes: u32) {
        self.shared.table.send_modify(|table| table.window = Some(bytes));
    }

    /// Whether new connections are reset at once; open ones stay.
    pub fn refuse(&self, refuses: bool) {
        self.shared.table.send_modify(|table| table.refuses = refuses);
    }

    /// Ends every rule; what was held comes out.
    pub fn heal(&self) {
        self.shared.table.send_modify(|table| *table = Table { window: table.window, ..Table::default() });
    }

    /// Resets (RST to both sides) each open connection with this probability; answers how many.
    pub fn reset(&self, share: f64, random: &mut impl Rng) -> usize {
        let connections = lock(&self.shared.connections);
        let cut: Vec<_> = connections.values().filter(|_| random.random_bool(share)).collect();
        cut.iter().for_each(|connection| connection.notify_one());
        cut.len()
    }

    /// Resets all open connections; answers how many.
    pub fn reset_all(&self) -> usize {
        let connections = lock(&self.shared.connections);
        connections.values().for_each(|connection| connection.notify_one());
        connections.len()
    }

    /// Resets one open connection, when there is one.
    pub fn reset_one(&self, random: &mut impl Rng) -> bool {
        let connections = lock(&self.shared.connections);
        connections.values().choose(random).inspect(|connection| connection.notify_one()).is_some()
    }

    /// Connections that are open now, those that hang included.
    pub fn connections(&self) -> usize {
        lock(&self.shared.connections).len()
    }

    /// Connections that were ever taken.
    pub fn dialled(&self) -> u64 {
        self.shared.dialled.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, life: Shutdown) {
    loop {
        let Ok((near, peer)) = listener.accept().await else {
            sleep(BREATH).await;
            continue;
        };
        let target = *lock(&shared.target);
        let full = lock(&shared.connections).len() >= CONNECTIONS;
        match target {
            Some(target) if !full && !shared.table.borrow().refuses => {
                let number = shared.dialled.fetch_add(1, Ordering::Relaxed);
                life.spawn(carry(near, peer, target, number, Arc::clone(&shared)));
            }
            _ => connection::reset(&near),
        }
    }
}

async fn carry(near: TcpStream, peer: SocketAddr, target: SocketAddr, number: u64, shared: Arc<Shared>) {
    let cut = Arc::new(Notify::new());
    lock(&shared.connections).insert(number, Arc::clone(&cut));
    let _leaves = Leaves { number, shared: &shared };
    let dialler = match near.local_addr() {
        Ok(here) if shared.tells_diallers_apart => {
            tokio::task::spawn_blocking(move || dialler(peer, here)).await.ok().flatten()
        }
        _ => None,
    };
    Connection { near, target, table: shared.table.subscribe(), dialler }.run(&cut).await;
}

/// Takes the connection off the list, however it ended.
struct Leaves<'a> {
    number: u64,
    shared: &'a Shared,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        lock(&self.shared.connections).remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A few HTTP/2 connections, and how many requests are under way on each.

use crate::{config, error::OpenError};
use reqwest::{Certificate, Client, ClientBuilder, redirect};
use std::{
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit};

const CONNECT: Duration = Duration::from_secs(5);
/// A connection whose peer does not even acknowledge bytes is given up after this long…
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);
/// …and one on which requests are under way and nothing comes is asked for a sign of life. Google ends connections that
/// ask more often.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_PATIENCE: Duration = Duration::from_secs(20);
/// A connection without requests is closed; servers would do so within minutes.
const IDLE: Duration = Duration::from_secs(90);
/// For one request for an access token.
const TOKEN_DEADLINE: Duration = Duration::from_secs(10);

/// All connections to FCM. A client of reqwest keeps one HTTP/2 connection per host, hence one client for each.
#[derive(Debug)]
pub(super) struct Connections {
    clients: Vec<Client>,
    /// One permit for each stream of all connections.
    streams: Semaphore,
    /// Requests under way, by connection. The next one goes where there are fewest; as long as it has a permit, that is
    /// where there is room.
    under_way: Mutex<Vec<u32>>,
}

impl Connections {
    /// As many as configured; each is made when it is needed first.
    pub(super) fn new(config: &config::Fcm) -> Result<Self, OpenError> {
        let clients: Vec<_> = (0..config.connections).map(|_| client(config)).collect::<Result<_, _>>()?;
        let streams = Semaphore::new(clients.len() * usize::try_from(config.streams).unwrap_or(usize::MAX));
        let under_way = Mutex::new(vec![0; clients.len()]);
        Ok(Self { clients, streams, under_way })
    }

    /// Waits until a stream is free, and takes it. Cancel-safe.
    pub(super) async fn slot(&self) -> Slot<'_> {
        // It is never closed.
        let permit = self.streams.acquire().await.ok();
        let mut under_way = self.under_way();
        let connection = (0..under_way.len()).min_by_key(|connection| under_way[*connection]).unwrap_or_default();
        under_way[connection] += 1;
        Slot { connections: self, connection, _permit: permit }
    }

    /// Waits until a stream is free, and says how many are. Cancel-safe.
    pub(super) async fn free(&self) -> usize {
        drop(self.streams.acquire().await);
        self.streams.available_permits().max(1)
    }

    fn under_way(&self) -> MutexGuard<'_, Vec<u32>> {
        // No code that can panic runs under this lock.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    connections: &'a Connections,
    connection: usize,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Slot<'_> {
    /// Its connection.
    pub(super) fn client(&self) -> &Client {
        &self.connections.clients[self.connection]
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.connections.under_way()[self.connection] -= 1;
    }
}

fn client(config: &config::Fcm) -> Result<Client, OpenError> {
    let mut builder = builder(config)?
        // Also within TLS: nothing else is offered to the server, so one connection is made where ten are wanted.
        .http2_prior_knowledge()
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_PATIENCE)
        .http2_keep_alive_while_idle(false)
        .pool_idle_timeout(IDLE)
        .tcp_user_timeout(UNACKNOWLEDGED);
    if config.endpoint.starts_with("http://") {
        builder = builder.no_proxy();
    }
    builder.build().map_err(OpenError::Client)
}

/// The client that asks for access tokens.
pub(super) fn token_client(config: &config::Fcm) -> Result<Client, OpenError> {
    builder(config)?.timeout(TOKEN_DEADLINE).build().map_err(OpenError::Client)
}

/// A proxy is used if the environment names one (`HTTPS_PROXY`).
fn builder(config: &config::Fcm) -> Result<ClientBuilder, OpenError> {
    let mut builder = Client::builder().connect_timeout(CONNECT).redirect(redirect::Policy::none());
    if let Some(path) = &config.ca_file {
        let unusable = |what: String| OpenError::CaFile { path: path.clone(), what };
        let pem = fs::read(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
        let authorities =
            Certificate::from_pem_bundle(&pem).map_err(|_| unusable("has no certificates in PEM".into()))?;
        builder = builder.tls_certs_merge(authorities);
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_connection_carries_more_than_its_streams() {
        let config = config::Fcm { connections: 3, streams: 2, ..config::Fcm::default() };
        let connections = Connections::new(&config).unwrap();
        let mut slots = Vec::new();
        for left in (0..6).rev() {
            assert_eq!(connections.free().await, left + 1);
            slots.push(connections.slot().await);
        }
        assert_eq!(*connections.under_way(), [2, 2, 2]);
        // Whatever ends, the next one goes there.
        slots.remove(3);
        slots.push(connections.slot().await);
        assert_eq!(*connections.under_way(), [2, 2, 2]);
        tokio::select! {
            biased;
            _ = connections.free() => panic!("none is"),
            () = std::future::ready(()) => {}
        }
    }

    #[test]
    fn an_authority_that_cannot_be_read_is_named() {
        let config = config::Fcm { ca_file: Some("no/such.pem".into()), ..config::Fcm::default() };
        let error = Connections::new(&config).unwrap_err().to_string();
        assert!(error.contains("no/such.pem") && error.contains("ca_file"), "{error}");
    }
}

//! One notifier from its start to its end.

use crate::{
    config::Config,
    counters::{self, Counters},
    provider::{LONGEST_SEND, Provider},
    rules::{Rules, forget_ms},
    settle, sweep,
    wake::Wake,
    walk,
    work::Desk,
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc};
use tonic::{server::NamedService as _, service::Routes};
use touchline_mesh::{Shutdown, server::GrpcListener};
use touchline_proto::notify::notify_service_server::NotifyServiceServer;
use touchline_storage::Storage;
use uuid::Uuid;

/// Settled rows that wait to be written.
const QUEUE: usize = 1_024;
/// How long a stop waits for pushes under way: a little more than a provider may take.
const PATIENCE: Duration = LONGEST_SEND.saturating_add(Duration::from_secs(2));

/// What a notifier works with.
pub struct Dependencies {
    /// Where the notifications are.
    pub storage: Storage,
    /// Where pushes go.
    pub provider: Arc<dyn Provider>,
}

/// Why a notifier does not start, or ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// A task without which nobody is notified has ended.
    #[error("the notifier's {0} has ended")]
    Task(&'static str),
}

/// A built notifier, bound and not yet serving.
pub struct App {
    desk: Arc<Desk>,
    grpc: GrpcListener,
    woken: Arc<Notify>,
    forget_ms: i64,
}

/// Builds a notifier and binds its listener.
///
/// # Errors
/// [`Error::Bind`].
pub fn build(config: &Config, dependencies: Dependencies) -> Result<App, Error> {
    let Dependencies { storage, provider } = dependencies;
    let listen = config.listen;
    let grpc = GrpcListener::bind(listen).map_err(|source| Error::Bind { address: listen, source })?;
    let woken = Arc::new(Notify::new());
    let desk = Desk {
        storage,
        provider,
        rules: Rules::from(config),
        owner: Uuid::now_v7(),
        woken: Arc::clone(&woken),
        counters: Counters::default(),
    };
    Ok(App { desk: Arc::new(desk), grpc, woken, forget_ms: forget_ms(config) })
}

impl App {
    /// Where its gRPC listens.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// Works until the soft stop; then what is under way is sent and written. A hard stop ends it where it stands: its
    /// claims end by themselves.
    ///
    /// # Errors
    /// When it ended by itself.
    pub async fn run(self, shutdown: &Shutdown) -> Result<(), Error> {
        let Self { desk, grpc, woken, forget_ms } = self;
        let (sending, serving) = (Shutdown::new(), Shutdown::new());
        let (done, settled) = mpsc::channel(QUEUE);
        let storage = desk.storage.clone();
        let settler = sending.spawn(settle::run(storage.clone(), desk.owner, settled));
        let mut work = sending.spawn(Arc::clone(&desk).work(done, sending.clone()));
        let mut walks = sending.spawn(walk::run(Arc::clone(&desk), sending.clone()));
        serving.spawn_until_stop(counters::watch_rows(storage.clone()));
        serving.spawn_until_stop(sweep::run(storage.clone(), forget_ms));
        serving.spawn_until_stop(async move { storage.look_forever().await });

        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status(NotifyServiceServer::<Wake>::NAME, tonic_health::ServingStatus::Serving).await;
        let services = Routes::new(health_service).add_service(NotifyServiceServer::new(Wake(woken)));
        tracing::info!(grpc = %grpc.address(), provider = desk.provider.name(), "the notifier works");
        let stop = serving.clone();
        let mut server = serving.spawn(async move { grpc.serve(services, &stop).await });

        let ended = tokio::select! {
            () = shutdown.stopping() => Ok(()),
            _ = &mut work => Err(Error::Task("work")),
            _ = &mut walks => Err(Error::Task("walks")),
            served = &mut server => match served {
                Ok(Some(Err(error))) => Err(error.into()),
                _ => Err(Error::Task("gRPC server")),
            },
        };
        drop(desk);
        sending.stop();
        let finish = async {
            // The settler ends when nobody is left to settle.
            let _ = settler.await;
        };
        tokio::select! {
            _ = tokio::time::timeout(PATIENCE, finish) => {}
            () = shutdown.stopping_now() => {}
        }
        for life in [&sending, &serving] {
            life.stop_now();
            life.wait(Duration::ZERO).await;
        }
        tracing::info!("the notifier has ended");
        ended
    }
}

//! One notifier from its start to its end.

use crate::{
    config::Config,
    counters::{self, Counters},
    provider::{LONGEST_SEND, Provider},
    rules::{Rules, forget_ms},
    settle, sweep,
    under_way::UnderWay,
    wake::Wake,
    walk,
    work::Desk,
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc};
use tonic::{server::NamedService as _, service::Routes};
use touchline_mesh::{Failed, Shutdown, Vital, server::GrpcListener};
use touchline_proto::notify::notify_service_server::NotifyServiceServer;
use touchline_storage::Storage;

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
    /// A task without which nobody is notified panicked.
    #[error(transparent)]
    Failed(#[from] Failed),
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
        under_way: UnderWay::default(),
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
        let (vital, sending, serving) = (Vital::default(), Shutdown::new(), Shutdown::new());
        let (done, settled) = mpsc::channel(QUEUE);
        let storage = desk.storage.clone();
        let settler = {
            let (desk, storage) = (Arc::clone(&desk), storage.clone());
            let run = async move { settle::run(storage, &desk.under_way, settled).await };
            vital.spawn(&sending, "settler", run)
        };
        vital.spawn(&sending, "work", Arc::clone(&desk).work(done, sending.clone()));
        let walks = vital.spawn(&sending, "walks", walk::run(Arc::clone(&desk), sending.clone()));
        vital.spawn(&serving, "counters", counters::watch_rows(storage.clone()));
        vital.spawn(&serving, "sweeper", sweep::run(storage.clone(), forget_ms));
        vital.spawn(&serving, "database's probe", async move { storage.look_forever().await });

        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status(NotifyServiceServer::<Wake>::NAME, tonic_health::ServingStatus::Serving).await;
        let services = Routes::new(health_service).add_service(NotifyServiceServer::new(Wake(woken)));
        tracing::info!(grpc = %grpc.address(), provider = desk.provider.name(), "the notifier works");
        let stop = serving.clone();
        let mut server = serving.spawn(async move { grpc.serve(services, &stop).await });

        let ended = tokio::select! {
            () = shutdown.stopping() => Ok(()),
            () = vital.failed() => Ok(()),
            served = &mut server => match served {
                Ok(Some(Err(error))) => Err(error.into()),
                _ => Ok(()),
            },
        };
        sending.stop();
        // The settler ends when nobody is left to settle.
        let finish = async { tokio::join!(walks, settler) };
        tokio::select! {
            finished = tokio::time::timeout(PATIENCE, finish) => {
                if finished.is_err() {
                    tracing::warn!("not everything was finished in time: it is sent again when its claims have ended");
                }
            }
            () = shutdown.stopping_now() => {}
        }
        for life in [&sending, &serving] {
            life.stop_now();
            life.wait(Duration::ZERO).await;
        }
        tracing::info!("the notifier has ended");
        vital.first().map_or(ended, |failed| Err(failed.into()))
    }
}

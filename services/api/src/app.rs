//! One api from its start to its end: what it is built of, and in which order it stops.

use crate::{
    Api, Config, Dependencies,
    auth::OutsideUsers,
    claims::Claims,
    deliver::Deliverer,
    delivered::Delivered,
    finish::{Finisher, OutboxTask},
    limits::Limits,
    push_stream::PushStreams,
    routes,
    send::FanOut,
    writer::{Stored, WriterTask, writer},
};
use futures_util::{FutureExt as _, future::FusedFuture as _};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::mpsc, task::JoinError};
use touchline_auth::Passwords;
use touchline_mesh::Shutdown;
use touchline_registry::{Directory, Placement};

/// Committed messages between the writer and the fan-out.
const FAN_OUT_QUEUE: usize = 1_024;

/// A built api, bound and not yet serving.
pub struct App {
    api: Arc<Api>,
    listener: TcpListener,
    address: SocketAddr,
    directory: Arc<Directory>,
    streams: Arc<PushStreams>,
    writer: WriterTask,
    stored: mpsc::Receiver<Stored>,
    fan_out: FanOut,
    outbox: OutboxTask,
    /// The life of requests and the writer: ends first, so that what they committed is still delivered.
    serving: Shutdown,
    /// The life of the fan-out and the push streams.
    delivering: Shutdown,
}

/// The writer panicked, so that nothing can be stored any more: the api has stopped, to be started anew.
#[derive(Debug, thiserror::Error)]
#[error("the writer failed")]
pub struct WriterFailed(#[source] JoinError);

/// Builds an api and binds its listener.
///
/// # Errors
/// When the address cannot be bound.
pub async fn build(config: Config, dependencies: Dependencies) -> io::Result<App> {
    let Dependencies { storage, registry, access, refresh_life, tickets, identities } = dependencies;
    let listener = TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let (serving, delivering) = (Shutdown::new(), Shutdown::new());
    let claims = Arc::<Claims>::default();
    let directory = Arc::new(Directory::new(Arc::clone(&registry)));
    let streams = Arc::new(PushStreams::new(delivering.clone()));
    let ack_wait = Duration::from_millis(config.ack_wait_ms.into());
    let second_look = Duration::from_millis(config.second_look_ms.into());
    let deliverer = Arc::new(Deliverer::new(registry, Arc::clone(&directory), Arc::clone(&streams), ack_wait));
    let (finisher, outbox) = Finisher::new(Arc::clone(&deliverer), storage.clone(), Arc::clone(&claims), second_look);
    let (fan_out_queue, stored) = mpsc::channel(FAN_OUT_QUEUE);
    let (writer, writer_task) = writer(storage.clone(), claims, config.max_members, config.writer_queue, fan_out_queue);
    let api = Arc::new(Api {
        passwords: Passwords::new(std::thread::available_parallelism().map_or(1, usize::from)),
        limits: Limits::new(&config.limits),
        directory: Arc::clone(&directory),
        placement: Placement::default(),
        config,
        storage,
        access,
        refresh_life,
        tickets,
        identities,
        outside_users: OutsideUsers::default(),
        writer,
        delivered: Arc::<Delivered>::default(),
        shutdown: serving.clone(),
    });
    let fan_out = FanOut::new(deliverer, Arc::new(finisher));
    Ok(App {
        api,
        listener,
        address,
        directory,
        streams,
        writer: writer_task,
        stored,
        fan_out,
        outbox,
        serving,
        delivering,
    })
}

impl App {
    /// Where REST listens.
    pub fn http_address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then finishes in the order of the path: requests, writer, pushes, outbox.
    ///
    /// # Errors
    /// When it ended by itself, as softly, because the writer had panicked.
    pub async fn run(self, shutdown: &Shutdown) -> Result<(), WriterFailed> {
        let address = self.address;
        let Self { api, listener, directory, streams, writer, stored, fan_out, outbox, serving, delivering, .. } = self;
        let patience = Duration::from_secs(api.config.stop_s.into());
        let directory_task = {
            let directory = Arc::clone(&directory);
            delivering.spawn(async move { directory.refresh_forever().await })
        };
        let streams_task = delivering.spawn(streams.follow_forever(directory));
        let limits_task = {
            let api = Arc::clone(&api);
            serving.spawn(async move { api.limits.sweep_forever().await })
        };
        let (writer_life, acking) = (Shutdown::new(), Shutdown::new());
        let acks_task = {
            let (api, life) = (Arc::clone(&api), acking.clone());
            acking.spawn(async move { api.delivered.run(&api.storage, &life).await })
        };
        let mut writer_task = {
            let life = writer_life.clone();
            writer_life.spawn(async move { writer.run(&life).await }).fuse()
        };
        delivering.spawn(fan_out.run(stored, delivering.clone()));
        let outbox_task = {
            let life = delivering.clone();
            delivering.spawn(async move { outbox.run(&life).await })
        };

        let router = routes::router(Arc::clone(&api));
        let (hard, late) = (shutdown.stopping_now(), serving.stopping());
        let mut failed = None;
        tracing::info!(http = %address, "the api serves");
        let work = async {
            let stop_serving = async {
                tokio::select! {
                    () = shutdown.stopping() => {}
                    ended = &mut writer_task => failed = ended.err(),
                }
                if let Some(error) = &failed {
                    tracing::error!(%error, "the writer failed, nothing can be stored any more: this api stops");
                }
                serving.stop();
            };
            tokio::join!(stop_serving, touchline_mesh::http::serve(listener, router, &serving, patience));
            limits_task.abort();
            // No request is left to ask for more; what is queued is committed and handed on.
            writer_life.stop();
            if !writer_task.is_terminated() {
                failed = (&mut writer_task).await.err();
            }
            // The writer is gone and so is its end of the fan-out: it runs dry, and with it the outbox task.
            let _ = outbox_task.await;
            // The last results brought the last acks.
            acking.stop();
            let _ = acks_task.await;
        };
        tokio::select! {
            () = work => {}
            () = hard => {}
            () = async { late.await; tokio::time::sleep(patience * 2).await } => {
                tracing::warn!("not everything was finished in time; the outbox keeps it");
            }
        }
        for task in [directory_task, streams_task] {
            task.abort();
        }
        for life in [&serving, &writer_life, &delivering, &acking] {
            life.stop_now();
        }
        for life in [&serving, &writer_life, &delivering, &acking] {
            life.wait(Duration::ZERO).await;
        }
        tracing::info!("the api has ended");
        failed.map_or(Ok(()), |error| Err(WriterFailed(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchline_auth::{AccessTokens, IdentityProviders, KeySet, SigningKey, TicketSigner};
    use touchline_registry::MemoryRegistry;
    use touchline_storage::Storage;

    async fn app(folder: &tempfile::TempDir) -> App {
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        let storage = Storage::connect(&touchline_storage::Settings { url, max_connections: 1 }).await.unwrap();
        storage.migrate_up().await.unwrap();
        let key = Arc::new(SigningKey::generate().unwrap().0);
        let keys = KeySet::from_jwks(&serde_json::json!({"keys": [key.public_jwk()]})).unwrap();
        let life = Duration::from_secs(900);
        let dependencies = Dependencies {
            storage,
            registry: Arc::new(MemoryRegistry::new()),
            access: AccessTokens::new(Arc::clone(&key), keys, "touchline", life).unwrap(),
            refresh_life: life,
            tickets: TicketSigner::new(key),
            identities: IdentityProviders::open(&[]).await.unwrap(),
        };
        build(Config { listen: ([127, 0, 0, 1], 0).into(), ..Config::default() }, dependencies).await.unwrap()
    }

    #[tokio::test]
    async fn an_api_whose_writer_panicked_stops_and_says_so() {
        let (folder, shutdown) = (tempfile::tempdir().unwrap(), Shutdown::new());
        let app = app(&folder).await;
        let (address, writer) = (app.http_address(), app.api.writer.clone());
        let ended = async { tokio::join!(app.run(&shutdown), writer.panic()).0 };
        let ended = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends by itself");
        assert!(ended.expect_err("the writer failed").0.is_panic());
        assert!(!shutdown.is_stopping(), "nobody asked for it");
        assert!(TcpListener::bind(address).await.is_ok(), "it serves no more");
    }

    #[tokio::test]
    async fn an_api_that_is_stopped_ends_well() {
        let (folder, shutdown) = (tempfile::tempdir().unwrap(), Shutdown::new());
        let app = app(&folder).await;
        shutdown.stop();
        let ended = tokio::time::timeout(Duration::from_secs(20), app.run(&shutdown)).await.expect("it ends");
        assert!(ended.is_ok());
    }
}

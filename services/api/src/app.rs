//! One api from its start to its end: what it is built of, and in which order it stops.

use crate::{
    Api, Config, Dependencies, Failed,
    admission::Admission,
    auth::OutsideUsers,
    claims::Claims,
    debts::Debts,
    deliver::Deliverer,
    delivered::Delivered,
    delivery::Times,
    finish::Finisher,
    gauges,
    lanes::lanes,
    limits::Limits,
    look_up::{LookUps, Pruner},
    outbox::Outbox,
    push_stream::PushStreams,
    resolve::Due,
    routes,
    seen::Seen,
    send::FanOut,
    store::Store,
    takeover::{SharedSchedule, Takeover},
    wake::Waker,
    writer::{Stored, WriterTask, writer},
};
use std::{io, mem, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use touchline_auth::Passwords;
use touchline_mesh::{Shutdown, Vital};
use touchline_registry::{Directory, Placement};

/// Committed messages between the writer and the fan-out.
const FAN_OUT_QUEUE: usize = 1_024;
/// How long the very end may take: letting rows go. Without it they expire.
const LETTING_GO: Duration = Duration::from_secs(2);

/// A built api, bound and not yet serving.
pub struct App {
    api: Arc<Api>,
    listener: TcpListener,
    address: SocketAddr,
    claims: Arc<Claims>,
    lives: Lives,
    path: Path,
    around: Around,
}

/// The path of a message after its request, in its order.
struct Path {
    writer: WriterTask,
    stored: mpsc::Receiver<Stored>,
    takeover: Takeover,
    lanes: Vec<mpsc::Receiver<Due>>,
    fan_out: Arc<FanOut>,
    outbox: Outbox,
}

/// What the path needs to be there.
struct Around {
    directory: Arc<Directory>,
    look_ups: Arc<LookUps>,
    pruner: Pruner,
    streams: Arc<PushStreams>,
    claims: Arc<Claims>,
    delivered: Arc<Delivered>,
    database_lives: watch::Receiver<Option<i64>>,
    waker: Waker,
}

/// Whose tasks end together, in the order in which they end.
#[derive(Clone)]
struct Lives {
    /// Requests, and taking messages over: end first, so that what they began is still delivered.
    serving: Shutdown,
    /// The writer.
    writing: Shutdown,
    /// The fan-out and the push streams.
    delivering: Shutdown,
    /// Acks, and which devices were seen, on their way into the database.
    acking: Shutdown,
}

/// Builds an api and binds its listener.
///
/// # Errors
/// When the address cannot be bound.
pub async fn build(config: Config, dependencies: Dependencies) -> io::Result<App> {
    #[cfg(feature = "failpoints")]
    crate::failpoints::from_environment();
    let Dependencies { storage, registry, access, refresh_life, tickets, identities } = dependencies;
    let listener = TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let claims = Arc::<Claims>::default();
    let delivered = Arc::<Delivered>::default();
    let lives = Lives {
        serving: Shutdown::new(),
        writing: Shutdown::new(),
        delivering: Shutdown::new(),
        acking: Shutdown::new(),
    };

    let directory = Arc::new(Directory::new(Arc::clone(&registry)));
    let debts = Arc::<Debts>::default();
    let (look_ups, pruner) = LookUps::new(registry, Arc::clone(&directory), Arc::clone(&debts));
    let look_ups = Arc::new(look_ups);
    let streams = Arc::new(PushStreams::new(
        Arc::clone(&directory),
        Arc::clone(&delivered),
        debts,
        storage.lives(),
        lives.delivering.clone(),
    ));
    let times = Times {
        ack_wait: Duration::from_millis(config.ack_wait_ms.into()),
        patience: Finisher::PATIENCE,
        second_look: Duration::from_millis(config.second_look_ms.into()),
    };
    let deliverer = Arc::new(Deliverer::new(Arc::clone(&look_ups), Arc::clone(&streams), times.ack_wait));

    let (stored_in, stored) = mpsc::channel(FAN_OUT_QUEUE);
    let store = Store::new(storage.clone(), Arc::clone(&claims), config.max_members, stored_in);
    let (writer, writer_task) = writer(store, config.writer_queue);
    let (lanes_in, lanes) = lanes();
    let schedule = SharedSchedule::default();
    let takeover = Takeover::new(storage.clone(), Arc::clone(&claims), schedule.clone(), lanes_in);
    let missed = Arc::<Notify>::default();
    let waker = Waker::new(&config.notifiers, Arc::clone(&missed)).map_err(io::Error::other)?;
    let (outbox, done) = Outbox::new(storage.clone(), Arc::clone(&claims), missed);
    let finisher = Finisher::new(Arc::clone(&deliverer), times, schedule, done);
    let fan_out = Arc::new(FanOut::new(deliverer, finisher));

    let database_lives = storage.lives();
    let api = Arc::new(Api {
        passwords: Passwords::new(std::thread::available_parallelism().map_or(1, usize::from)),
        limits: Limits::new(&config.limits),
        syncs: Admission::new(config.limits.syncs_per_second),
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
        delivered,
        seen: Seen::default(),
        shutdown: lives.serving.clone(),
    });
    let path = Path { writer: writer_task, stored, takeover, lanes, fan_out, outbox };
    let around = Around {
        directory,
        look_ups,
        pruner,
        streams,
        claims: Arc::clone(&claims),
        delivered: Arc::clone(&api.delivered),
        database_lives,
        waker,
    };
    Ok(App { api, listener, address, claims, lives, path, around })
}

impl App {
    /// Where REST listens.
    pub fn http_address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then finishes in the order of the path: requests, writer, pushes, outbox. What is not
    /// finished in time is let go, for another api to take at once.
    ///
    /// # Errors
    /// When it ended by itself, as softly, because a task without which it cannot serve had panicked.
    pub async fn run(self, shutdown: &Shutdown) -> Result<(), Failed> {
        let Self { api, listener, address, claims, lives, path, around } = self;
        let patience = Duration::from_secs(api.config.stop_s.into());
        let vital = Vital::default();
        around.start(&vital, &lives);
        let limits_task = {
            let api = Arc::clone(&api);
            lives.serving.spawn(async move { api.limits.sweep_forever().await })
        };
        {
            // To the very end: whatever still needs the database learns at once whether it is there.
            let api = Arc::clone(&api);
            vital.spawn(&lives.acking, "database's probe", async move { api.storage.look_forever().await });
        }
        lives.serving.spawn_until_stop(gauges::watch_outbox(api.storage.clone()));
        let acks_task = {
            let (api, life) = (Arc::clone(&api), lives.acking.clone());
            vital.spawn(&lives.acking, "collector of acks", async move { api.delivered.run(&api.storage, &life).await })
        };
        let seen_task = {
            let (api, life) = (Arc::clone(&api), lives.acking.clone());
            let run = async move { api.seen.run(&api.storage, &life).await };
            vital.spawn(&lives.acking, "collector of devices seen", run)
        };
        let (writer_task, outbox_task) = path.start(&claims, &vital, &lives);

        let router = routes::router(Arc::clone(&api));
        tracing::info!(http = %address, "the api serves");
        let work = async {
            let stop_serving = async {
                tokio::select! {
                    () = shutdown.stopping() => {}
                    () = vital.failed() => {}
                }
                lives.serving.stop();
            };
            tokio::join!(stop_serving, touchline_mesh::http::serve(listener, router, &lives.serving, patience));
            limits_task.abort();
            // No request is left to ask for more; what is queued is committed and handed on.
            lives.writing.stop();
            let _ = writer_task.await;
            // The writer is gone and so is its end of the fan-out: it runs dry, and with it the outbox's task.
            let _ = outbox_task.await;
            // The last results brought the last acks.
            lives.acking.stop();
            let _ = tokio::join!(acks_task, seen_task);
        };
        let late = async {
            lives.serving.stopping().await;
            tokio::time::sleep(patience * 2).await;
        };
        let hard = tokio::select! {
            () = work => false,
            () = late => {
                tracing::warn!("not everything was finished in time: it is let go");
                false
            }
            () = shutdown.stopping_now() => true,
        };
        lives.end().await;
        if !hard {
            let_go(&api, &claims).await;
        }
        tracing::info!("the api has ended");
        vital.first().map_or(Ok(()), Err)
    }
}

impl Path {
    /// Starts all of it; the tasks of the writer and of the outbox, by which one sees how far it has ended.
    fn start(
        self,
        claims: &Arc<Claims>,
        vital: &Vital,
        lives: &Lives,
    ) -> (JoinHandle<Option<()>>, JoinHandle<Option<()>>) {
        let Self { writer, stored, takeover, lanes, fan_out, outbox } = self;
        let Lives { serving, writing, delivering, .. } = lives;
        let take_in = FanOut::take_in(stored, Arc::clone(claims), takeover.lanes());
        vital.spawn(delivering, "fan-out", take_in);
        for lane in lanes {
            vital.spawn(delivering, "fan-out", Arc::clone(&fan_out).run(lane, delivering.clone()));
        }
        vital.spawn(serving, "takeover", takeover.run(serving.clone()));
        let life = writing.clone();
        let writer = vital.spawn(writing, "writer", async move { writer.run(&life).await });
        let outbox = vital.spawn(delivering, "outbox", outbox.run());
        (writer, outbox)
    }
}

impl Around {
    fn start(self, vital: &Vital, lives: &Lives) {
        let Self { directory, look_ups, pruner, streams, claims, delivered, mut database_lives, waker } = self;
        let life = &lives.delivering;
        vital.spawn(life, "directory", async move { directory.refresh_forever().await });
        vital.spawn(life, "registry's probe", async move { look_ups.probe_forever().await });
        vital.spawn(life, "registry's pruner", pruner.run());
        vital.spawn(life, "waker of notifiers", waker.run());
        vital.spawn(life, "push streams", Arc::clone(&streams).follow_forever());
        vital.spawn(life, "database's lives", async move {
            let mut present = *database_lives.borrow_and_update();
            while database_lives.changed().await.is_ok() {
                let before = mem::replace(&mut present, *database_lives.borrow_and_update());
                if before.is_some() {
                    // A database that lost its tail has rows again that were finished: nobody works on them, and under
                    // the present name they would be renewed for ever.
                    claims.doubt();
                    delivered.forget();
                }
            }
        });
    }
}

impl Lives {
    /// Ends every task where it stands.
    async fn end(&self) {
        let all = [&self.serving, &self.writing, &self.delivering, &self.acking];
        all.iter().for_each(|life| life.stop_now());
        for life in all {
            life.wait(Duration::ZERO).await;
        }
    }
}

/// Lets every row go that this api still has, so that another one need not wait for the end of its claims.
async fn let_go(api: &Api, claims: &Claims) {
    match timeout(LETTING_GO, api.storage.release_all(&claims.owners())).await {
        Ok(Ok(0)) => {}
        Ok(Ok(rows)) => tracing::info!(rows, "handed over to the other apis"),
        Ok(Err(error)) => tracing::warn!(%error, "rows were not let go: they expire"),
        Err(_) => tracing::warn!("rows were not let go in time: they expire"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use touchline_auth::{AccessTokens, IdentityProviders, KeySet, SigningKey, TicketSigner};
    use touchline_registry::MemoryRegistry;

    async fn app(folder: &tempfile::TempDir) -> App {
        let (storage, _) = fixtures::database(folder.path()).await;
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
        assert_eq!(ended.expect_err("the writer failed").task, "writer");
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

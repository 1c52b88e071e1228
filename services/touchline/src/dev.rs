//! `touchline dev`: everything in one process, with nothing to prepare.

use crate::{
    life, parts,
    settings::{Config, Service, Source},
};
use anyhow::Context as _;
use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};
use touchline_config::Flag;
use touchline_mesh::Shutdown;
use touchline_registry::{MemoryRegistry, Registry};
use touchline_storage::Storage;
use touchline_telemetry::Format;

const EXAMPLES: &str = "\
Examples:
  touchline                                          REST on 127.0.0.1:8080, WebSockets on 127.0.0.1:8081
  touchline dev --http 127.0.0.1:0 --ws 127.0.0.1:0 --data-dir /tmp/touchline

Prints `touchline ready http=… ws=…` when it serves; then read http://127.0.0.1:8080/docs/. Messages, users and keys
are kept in the data directory; delete it to start anew. Not for production: one process, in-memory registry.";

/// `touchline dev …`
#[derive(Debug, PartialEq, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Where REST listens; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value_t = local(8080))]
    http: SocketAddr,
    /// Where WebSockets arrive; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value_t = local(8081))]
    ws: SocketAddr,
    /// Where the database and the keys are kept
    #[arg(long, value_name = "DIR", default_value = "./touchline-data")]
    data_dir: PathBuf,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { source: Source::default(), http: local(8080), ws: local(8081), data_dir: "./touchline-data".into() }
    }
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Where things are in a data directory.
pub(crate) struct DataDir<'a>(pub &'a Path);

impl DataDir<'_> {
    /// The private key.
    pub(crate) fn signing_key(&self) -> PathBuf {
        self.0.join("signing-key.pem")
    }

    /// The public keys.
    pub(crate) fn public_keys(&self) -> PathBuf {
        self.0.join("public-keys.json")
    }

    /// The database's URL.
    pub(crate) fn database_url(&self) -> String {
        format!("sqlite://{}", self.0.join("touchline.db").display())
    }

    /// The keys of the configuration that a data directory decides.
    pub(crate) fn flags(&self) -> Vec<Flag<'static>> {
        let flag = |path, value: String| Flag { flag: "--data-dir", path, value: value.into() };
        vec![
            flag("database.url", self.database_url()),
            flag("auth.signing_key_file", self.signing_key().display().to_string()),
            flag("auth.public_keys_file", self.public_keys().display().to_string()),
        ]
    }

    /// Makes it, for its owner alone, and holds it until the file is closed.
    fn lock(&self) -> anyhow::Result<File> {
        let name = self.0.display();
        let opened = DirBuilder::new().recursive(true).mode(0o700).create(self.0).and_then(|()| {
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(self.0.join("lock"))
        });
        let file = opened.with_context(|| format!("the data directory {name}"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "the data directory {name} is used by another `touchline dev`: stop that one, or choose another directory with --data-dir"
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking the data directory {name}")),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let data_dir = DataDir(&arguments.data_dir);
    let mut flags = data_dir.flags();
    flags.push(Flag { flag: "--http", path: "api.listen", value: arguments.http.to_string().into() });
    flags.push(Flag { flag: "--ws", path: "gateway.ws", value: arguments.ws.to_string().into() });
    // Database, registry and keys are its own; whatever else a file or the environment says holds here too.
    let rules = |config: &Config| {
        let mut problems = config.telemetry_problems();
        problems.extend(Service::ALL.into_iter().flat_map(|service| config.service_problems(service)));
        problems
    };
    let mut config = arguments.source.load(&flags, rules)?.config;
    // Nobody else needs to find it.
    config.gateway.grpc = local(0);
    config.notifier.listen = local(0);
    if config.telemetry.format == Format::Auto {
        config.telemetry.format = Format::Text;
    }
    let lock = data_dir.lock()?;
    touchline_auth::create_key_files(&data_dir.signing_key(), &data_dir.public_keys())?;
    let telemetry = config.telemetry.clone();
    life::serve(&telemetry, async |shutdown| {
        let storage = Storage::connect(&config.database).await?;
        storage.migrate_up().await?;
        let result = serve(&mut config, storage.clone(), &shutdown).await;
        storage.close().await?;
        // Held until the database is closed.
        drop(lock);
        result
    })
}

/// The gateway first: when the api begins to serve, there is where to send clients.
async fn serve(config: &mut Config, storage: Storage, shutdown: &Shutdown) -> anyhow::Result<()> {
    let registry: Arc<dyn Registry> = Arc::new(MemoryRegistry::new());
    let notifier = parts::notifier(config, storage.clone(), shutdown)?;
    config.api.notifiers = vec![format!("http://{}", notifier.grpc_address())];
    let keys = parts::public_keys(config, shutdown).await?;
    let api = parts::api(config, keys.clone(), storage, Arc::clone(&registry), shutdown).await?;
    let gateway = parts::gateway(config, keys, Arc::clone(&registry)).await?;
    let ready = format!("http=http://{} ws=ws://{}", api.http_address(), gateway.ws_address());
    let incarnation = gateway.incarnation();
    let api = async {
        tokio::select! {
            () = parts::until_listed(registry.as_ref(), incarnation) => life::say_ready(&ready)?,
            () = shutdown.stopping() => {}
        }
        anyhow::Ok(api.run(shutdown).await?)
    };
    // What the api committed is still delivered when it stops: gateway and notifier stop after it. When one of them
    // ends by itself, the others still stop softly.
    let after_api = Shutdown::new();
    let stop_now = async {
        shutdown.stopping_now().await;
        after_api.stop_now();
    };
    let serve = async {
        let api = async {
            let ended = Box::pin(api).await;
            after_api.stop();
            ended
        };
        let gateway = async {
            let ended = Box::pin(gateway.run(&after_api)).await;
            shutdown.stop();
            ended
        };
        let notifier = async {
            let ended = Box::pin(notifier.run(&after_api)).await;
            shutdown.stop();
            ended
        };
        let (api, gateway, notifier) = tokio::join!(api, gateway, notifier);
        api.and(gateway.map_err(Into::into)).and(notifier.map_err(Into::into))
    };
    tokio::select! {
        served = serve => served,
        () = stop_now => Ok(()),
    }
}

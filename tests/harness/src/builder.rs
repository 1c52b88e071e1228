//! What a stack is made of, and its start.

use crate::{
    LinkKind, NodeName, OwnPostgres, OwnRedis, SENTINEL_MASTER, Stack, TestDatabase,
    links::Links,
    local,
    nodes::{Environment, Node, Recipe},
    redis_cluster_urls, redis_prefix, redis_url, settings,
    stack::Parts,
};
use anyhow::Result;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use touchline_mesh::Shutdown;
use touchline_registry::Mode;
use touchline_storage::Storage;

/// Where the processes of a stack run and what they share.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// All in this process: SQLite in a temporary folder, the registry in memory.
    Local,
    /// `touchline dev` with its data in this folder.
    Dev(PathBuf),
    /// Real processes on Postgres and a registry of this mode.
    Processes(Mode),
}

/// A stack to be.
#[derive(Debug, Clone)]
pub struct Builder {
    kind: Kind,
    apis: usize,
    gateways: usize,
    notifiers: usize,
    /// Redis servers other than those of the environment.
    servers: Option<Vec<String>>,
    /// A Postgres server other than that of the environment.
    database: Option<String>,
    proxied: BTreeSet<LinkKind>,
    logs: Option<PathBuf>,
    environment: Environment,
    api: touchline_api::Config,
    gateway: touchline_gateway::Config,
    notifier: Box<touchline_notifier::Config>,
}

impl Stack {
    /// Everything in this process, on SQLite and an in-memory registry.
    pub fn local() -> Builder {
        Builder::new(Kind::Local)
    }

    /// Everything in one process of its own, `touchline dev`, with its data in `folder`.
    pub fn dev(folder: &Path) -> Builder {
        Builder::new(Kind::Dev(folder.to_owned()))
    }

    /// Real processes, on Postgres and Redis.
    pub fn processes(apis: usize, gateways: usize) -> Builder {
        Builder::new(Kind::Processes(Mode::Single)).with(apis, gateways)
    }

    /// Real processes, on Postgres and a Redis Cluster.
    pub fn on_cluster(apis: usize, gateways: usize) -> Builder {
        Builder::new(Kind::Processes(Mode::Cluster)).with(apis, gateways)
    }
}

impl Builder {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            apis: 1,
            gateways: 1,
            notifiers: 0,
            servers: None,
            database: None,
            proxied: BTreeSet::new(),
            logs: None,
            environment: Environment::default(),
            api: settings::api(),
            gateway: settings::gateway(),
            notifier: Box::new(settings::notifier()),
        }
    }

    /// How many apis and gateways; else one of each.
    #[must_use]
    pub fn with(mut self, apis: usize, gateways: usize) -> Self {
        (self.apis, self.gateways) = (apis, gateways);
        self
    }

    /// Changes what every api is configured with.
    #[must_use]
    pub fn api(mut self, change: impl FnOnce(&mut touchline_api::Config)) -> Self {
        change(&mut self.api);
        self
    }

    /// Changes what every gateway is configured with.
    #[must_use]
    pub fn gateway(mut self, change: impl FnOnce(&mut touchline_gateway::Config)) -> Self {
        change(&mut self.gateway);
        self
    }

    /// So many notifiers, configured like this; without it there are none.
    #[must_use]
    pub fn notifiers(mut self, count: usize, change: impl FnOnce(&mut touchline_notifier::Config)) -> Self {
        self.notifiers = count;
        change(&mut self.notifier);
        self
    }

    /// Puts the registry on other Redis servers, such as one that the test kills.
    #[must_use]
    pub fn registry(mut self, servers: &[String]) -> Self {
        self.servers = Some(servers.to_vec());
        self
    }

    /// Puts the registry on a Redis of the test's own.
    #[must_use]
    pub fn on_redis(self, redis: &OwnRedis) -> Self {
        self.registry(&[redis.url()])
    }

    /// Finds the registry through this Sentinel.
    #[must_use]
    pub fn on_sentinel(mut self, sentinel: &OwnRedis) -> Self {
        self.kind = Kind::Processes(Mode::Sentinel);
        self.registry(&[sentinel.url()])
    }

    /// Puts the database on a Postgres of the test's own.
    #[must_use]
    pub fn on_postgres(mut self, postgres: &OwnPostgres) -> Self {
        self.database = Some(postgres.url());
        self
    }

    /// Puts a proxy on every link of these kinds.
    #[must_use]
    pub fn proxied(mut self, kinds: &[LinkKind]) -> Self {
        self.proxied.extend(kinds);
        self
    }

    /// What one process finds in its environment, such as `FAILPOINTS`.
    #[must_use]
    pub fn environment(mut self, node: NodeName, variable: &str, value: &str) -> Self {
        self.environment.set(node, variable, value);
        self
    }

    /// Keeps the processes' logs in this folder, also when the stack is gone.
    #[must_use]
    pub fn logs_in(mut self, folder: &Path) -> Self {
        self.logs = Some(folder.to_owned());
        self
    }

    /// Takes away what limits how much one user or one address may ask: a load comes from one machine.
    #[must_use]
    pub fn unlimited(self) -> Self {
        self.api(settings::unlimited)
    }

    /// Starts it and waits until everything serves.
    ///
    /// # Errors
    /// When a server or one of ours does not start.
    pub async fn start(self) -> Result<Stack> {
        let folder = TempDir::with_prefix("touchline-stack.")?;
        match self.kind.clone() {
            // Boxed: each holds the whole configuration, and tests hold many of them.
            Kind::Local => Box::pin(self.start_local(folder)).await,
            Kind::Dev(data) => Box::pin(self.start_dev(folder, &data)).await,
            Kind::Processes(mode) => Box::pin(self.start_processes(folder, mode)).await,
        }
    }

    async fn start_local(self, folder: TempDir) -> Result<Stack> {
        let url = format!("sqlite://{}", folder.path().join("touchline.db").display());
        let registry = touchline_registry::Settings::default();
        let settings = settings::Settings::new(folder.path(), url, registry, self.api, self.gateway, self.notifier)?;
        let storage = migrated(&settings.database).await?;
        let life = Shutdown::new();
        let local = local::start(&settings, storage.clone(), [self.apis, self.gateways, self.notifiers], &life).await?;
        let nodes = |urls: Vec<String>| urls.into_iter().map(|url| Node { url, process: None }).collect();
        let (apis, gateways, links) = (nodes(local.apis), nodes(local.gateways), Links::default());
        let notifiers = nodes(local.notifiers);
        let recipe = Recipe { settings, environment: self.environment, logs: self.logs, dev: None };
        Stack::new(Parts { apis, gateways, notifiers, links, life, storage, recipe, folder, database: None }).await
    }

    async fn start_dev(self, folder: TempDir, data: &Path) -> Result<Stack> {
        let url = format!("sqlite://{}", data.join("touchline.db").display());
        let registry = touchline_registry::Settings::default();
        let settings = settings::Settings::new(data, url, registry, self.api, self.gateway, self.notifier)?;
        let recipe = Recipe { settings, environment: self.environment, logs: self.logs, dev: Some(data.to_owned()) };
        let (mut links, life) = (Links::default(), Shutdown::new());
        let api = recipe.start(NodeName::Api(0), &mut links, folder.path()).await?;
        let gateway = Node { url: api.process()?.address("ws")?.to_owned(), process: None };
        let (apis, gateways, notifiers) = (vec![api], vec![gateway], Vec::new());
        let storage = Storage::connect(&recipe.settings.database).await?;
        Stack::new(Parts { apis, gateways, notifiers, links, life, storage, recipe, folder, database: None }).await
    }

    async fn start_processes(self, folder: TempDir, mode: Mode) -> Result<Stack> {
        let database = match &self.database {
            Some(server) => TestDatabase::create_on(server).await?,
            None => TestDatabase::create().await?,
        };
        let urls = match (&self.servers, mode) {
            (Some(servers), _) => servers.clone(),
            (None, Mode::Cluster) => redis_cluster_urls()?,
            (None, _) => vec![redis_url()?],
        };
        let mut registry = touchline_registry::Settings { mode, urls, prefix: redis_prefix(), ..Default::default() };
        if mode == Mode::Sentinel {
            registry.sentinel_master = SENTINEL_MASTER.to_owned();
        }
        let settings =
            settings::Settings::new(folder.path(), database.url(), registry, self.api, self.gateway, self.notifier)?;
        let storage = migrated(&settings.database).await?;
        let mut recipe = Recipe { settings, environment: self.environment, logs: self.logs, dev: None };
        let (mut apis, mut gateways, mut links) = (Vec::new(), Vec::new(), Links::new(&self.proxied));
        let mut notifiers = Vec::new();
        for index in 0..self.notifiers {
            let notifier = recipe.start(NodeName::Notifier(index), &mut links, folder.path()).await?;
            recipe.settings.api.notifiers.push(notifier.url.clone());
            notifiers.push(notifier);
        }
        for index in 0..self.gateways {
            gateways.push(recipe.start(NodeName::Gateway(index), &mut links, folder.path()).await?);
        }
        for index in 0..self.apis {
            apis.push(recipe.start(NodeName::Api(index), &mut links, folder.path()).await?);
        }
        let (life, database) = (Shutdown::new(), Some(database));
        Stack::new(Parts { apis, gateways, notifiers, links, life, storage, recipe, folder, database }).await
    }
}

async fn migrated(settings: &touchline_storage::Settings) -> Result<Storage> {
    let storage = Storage::connect(settings).await?;
    storage.migrate_up().await?;
    Ok(storage)
}

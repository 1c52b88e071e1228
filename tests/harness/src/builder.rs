//! What a stack is made of, and its start.

use crate::{
    Stack, TestDatabase, local, redis_cluster_urls, redis_prefix, redis_url, settings,
    stack::{Node, api_name, gateway_name},
};
use anyhow::Result;
use tempfile::TempDir;
use touchline_mesh::Shutdown;
use touchline_registry::Mode;
use touchline_storage::Storage;

/// Where the processes of a stack run and what they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All in this process: SQLite in a temporary folder, the registry in memory.
    Local,
    /// Real processes on Postgres and a registry of this mode.
    Processes(Mode),
}

/// A stack to be.
#[derive(Debug, Clone)]
pub struct Builder {
    kind: Kind,
    apis: usize,
    gateways: usize,
    /// Redis servers other than those of the environment.
    servers: Option<Vec<String>>,
    api: touchline_api::Config,
    gateway: touchline_gateway::Config,
}

impl Stack {
    /// Everything in this process, on SQLite and an in-memory registry.
    pub fn local() -> Builder {
        Builder::new(Kind::Local)
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
        Self { kind, apis: 1, gateways: 1, servers: None, api: settings::api(), gateway: settings::gateway() }
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

    /// Puts the registry on other Redis servers, such as one that the test kills.
    #[must_use]
    pub fn registry(mut self, servers: &[String]) -> Self {
        self.servers = Some(servers.to_vec());
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
        match self.kind {
            Kind::Local => self.start_local(folder).await,
            Kind::Processes(mode) => self.start_processes(folder, mode).await,
        }
    }

    async fn start_local(self, folder: TempDir) -> Result<Stack> {
        let url = format!("sqlite://{}", folder.path().join("touchline.db").display());
        let registry = touchline_registry::Settings::default();
        let settings = settings::Settings::new(folder.path(), url, registry, self.api, self.gateway)?;
        let storage = migrated(&settings.database).await?;
        let life = Shutdown::new();
        let local = local::start(&settings, storage.clone(), self.apis, self.gateways, &life).await?;
        let nodes = |urls: Vec<String>| urls.into_iter().map(|url| Node { url, process: None }).collect();
        let (apis, gateways) = (nodes(local.apis), nodes(local.gateways));
        Stack::new(apis, gateways, life, storage, settings, folder, None).await
    }

    async fn start_processes(self, folder: TempDir, mode: Mode) -> Result<Stack> {
        let database = TestDatabase::create().await?;
        let urls = match (&self.servers, mode) {
            (Some(servers), _) => servers.clone(),
            (None, Mode::Cluster) => redis_cluster_urls()?,
            (None, _) => vec![redis_url()?],
        };
        let registry = touchline_registry::Settings { mode, urls, prefix: redis_prefix(), ..Default::default() };
        let mut settings = settings::Settings::new(folder.path(), database.url(), registry, self.api, self.gateway)?;
        let storage = migrated(&settings.database).await?;
        let (mut apis, mut gateways) = (Vec::new(), Vec::new());
        for index in 0..self.gateways {
            let name = gateway_name(index);
            settings.gateway.id = Some(name.parse()?);
            settings.write(folder.path(), &name)?;
            gateways.push(Node::start("gateway", &name, folder.path()).await?);
        }
        for index in 0..self.apis {
            let name = api_name(index);
            settings.write(folder.path(), &name)?;
            apis.push(Node::start("api", &name, folder.path()).await?);
        }
        Stack::new(apis, gateways, Shutdown::new(), storage, settings, folder, Some(database)).await
    }
}

async fn migrated(settings: &touchline_storage::Settings) -> Result<Storage> {
    let storage = Storage::connect(settings).await?;
    storage.migrate_up().await?;
    Ok(storage)
}

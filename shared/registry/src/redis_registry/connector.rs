//! Opens connections in the three modes, for deadpool to keep. deadpool-redis' own managers for Sentinel and Cluster
//! take neither timeouts, retries nor a private authority, hence this one.

use crate::{Mode, RegistryError, Settings};
use deadpool::managed;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    TlsCertificates, TlsMode,
    aio::MultiplexedConnection,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::sync::Mutex;
use touchline_config::Secret;

/// For one answer, and for opening a connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// How many requests may wait for a connection's writer; a full one makes callers wait.
const WRITER_QUEUE: usize = 1024;

/// A connection that any number of tasks share by cloning it.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server. Stays broken once it broke.
    Server(MultiplexedConnection),
    /// To every node of a Cluster. Repairs itself.
    Cluster(ClusterConnection),
}

/// A connection and which one it is: no two opened by one [`Connector`] have the same serial.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) serial: u64,
    pub(super) connection: Connection,
}

/// Opens connections to whom the settings name.
pub(super) struct Connector {
    target: Target,
    opened: AtomicU64,
}

enum Target {
    Single(Box<deadpool_redis::Manager>),
    // `SentinelClient` asks for the master with `&mut self`.
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster(Box<ClusterClient>),
}

impl Connector {
    pub(super) fn new(settings: &Settings) -> Result<Self, RegistryError> {
        let tls = Tls::read(settings)?;
        let target = match settings.mode {
            Mode::Memory => return Err(RegistryError::Settings("mode: memory needs no connection".to_owned())),
            Mode::Single => single(settings, &tls),
            Mode::Sentinel => sentinel(settings, tls),
            Mode::Cluster => cluster(settings, tls),
        };
        let target = target.map_err(|error| RegistryError::Settings(error.to_string()))?;
        Ok(Self { target, opened: AtomicU64::new(0) })
    }
}

impl managed::Manager for Connector {
    type Type = Opened;
    type Error = RedisError;

    async fn create(&self) -> Result<Opened, RedisError> {
        let connection = match &self.target {
            Target::Single(manager) => Connection::Server(manager.create().await?),
            Target::Sentinel(client) => {
                Connection::Server(client.lock().await.get_async_connection_with_config(&config()).await?)
            }
            Target::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        };
        Ok(Opened { serial: self.opened.fetch_add(1, Ordering::Relaxed), connection })
    }

    async fn recycle(&self, opened: &mut Opened, _: &managed::Metrics) -> managed::RecycleResult<RedisError> {
        let ping = redis::cmd("PING");
        match &mut opened.connection {
            Connection::Server(connection) => ping.query_async::<()>(connection).await?,
            Connection::Cluster(connection) => ping.query_async::<()>(connection).await?,
        }
        Ok(())
    }
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
        .set_pipeline_buffer_size(WRITER_QUEUE)
}

/// A peer that vanished without a word (power, network) is noticed after this long, idle or not.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true).set_user_timeout(Duration::from_secs(5))
}

fn single(settings: &Settings, tls: &Tls) -> Result<Target, RedisError> {
    let nodes = nodes(settings, tls)?;
    let node = nodes.into_iter().next().ok_or((redis::ErrorKind::InvalidClientConfig, "urls: none"))?;
    Ok(Target::Single(Box::new(deadpool_redis::Manager::new_with_config(node, config())?)))
}

fn sentinel(settings: &Settings, tls: Tls) -> Result<Target, RedisError> {
    let addresses = nodes(settings, &tls)?.into_iter().map(|node| node.addr().clone());
    let mut builder =
        SentinelClientBuilder::new(addresses, settings.sentinel_master.clone(), SentinelServerType::Master)?
            .set_client_to_redis_tcp_settings(tcp())
            .set_client_to_sentinel_tcp_settings(tcp());
    if let Some((username, password)) = login(&settings.username, &settings.password) {
        builder = builder.set_client_to_redis_username(username).set_client_to_redis_password(password);
    }
    if let Some((username, password)) = login(&settings.sentinel_username, &settings.sentinel_password) {
        builder = builder.set_client_to_sentinel_username(username).set_client_to_sentinel_password(password);
    }
    if tls.on {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(tls.certificates.clone())
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_certificates(tls.certificates);
    }
    Ok(Target::Sentinel(Box::new(Mutex::new(builder.build()?))))
}

fn cluster(settings: &Settings, tls: Tls) -> Result<Target, RedisError> {
    let mut builder = ClusterClientBuilder::new(nodes(settings, &tls)?)
        .connection_timeout(PATIENCE)
        .response_timeout(PATIENCE)
        // The defaults wait at least 1.28 s before each of 16 retries.
        .retries(3)
        .min_retry_wait(10)
        .max_retry_wait(100)
        .tcp_settings(tcp());
    if tls.on {
        builder = builder.tls(TlsMode::Secure).certs(tls.certificates);
    }
    Ok(Target::Cluster(Box::new(builder.build()?)))
}

fn nodes(settings: &Settings, tls: &Tls) -> Result<Vec<ConnectionInfo>, RedisError> {
    let mut redis = RedisConnectionInfo::default();
    if let Some((username, password)) = login(&settings.username, &settings.password) {
        redis = redis.set_username(username).set_password(password);
    }
    let node = |url: &String| {
        let node = url.as_str().into_connection_info()?;
        let addr = match node.addr() {
            // Only this path lets a private authority into a single connection.
            ConnectionAddr::TcpTls { .. } => {
                redis::Client::build_with_tls(node, tls.certificates.clone())?.get_connection_info().addr().clone()
            }
            plain => plain.clone(),
        };
        let node = url.as_str().into_connection_info()?;
        Ok(node.set_addr(addr).set_redis_settings(redis.clone()).set_tcp_settings(tcp()))
    };
    settings.urls.iter().map(node).collect()
}

/// `None` when neither is set. Redis calls the user of a lone password `default`.
fn login<'a>(username: &'a str, password: &'a Secret) -> Option<(&'a str, &'a str)> {
    (!password.is_empty()).then(|| (if username.is_empty() { "default" } else { username }, password.expose()))
}

struct Tls {
    on: bool,
    certificates: TlsCertificates,
}

impl Tls {
    fn read(settings: &Settings) -> Result<Self, RegistryError> {
        let on = settings.urls.iter().any(|url| url.starts_with("rediss://"));
        let root_cert = match &settings.ca_file {
            None => None,
            Some(path) => {
                let unreadable = |error| RegistryError::Settings(format!("ca_file: {}: {error}", path.display()));
                Some(std::fs::read(path).map_err(unreadable)?)
            }
        };
        if on && rustls::crypto::CryptoProvider::get_default().is_none() {
            // redis picks no provider itself. An error means that another thread was faster: just as well.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        Ok(Self { on, certificates: TlsCertificates { client_tls: None, root_cert } })
    }
}

//! Who is connected where: gateway leases, routes and used tickets, in Redis or in memory.
//!
//! Everything here is a hint, never the truth: a stale entry is harmless by construction, because a route counts only
//! while its incarnation is alive and because a gateway refuses a push meant for another incarnation.
//!
//! Never depends on a database, a socket or another service.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod directory;
#[cfg(any(test, feature = "contract"))]
mod faulty;
mod keys;
mod memory;
mod placement;
mod redis_registry;
mod settings;

pub use directory::{Directory, Group, Groups, View};
pub use memory::MemoryRegistry;
pub use placement::Placement;
pub use settings::{Mode, Settings};

use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use touchline_ids::{ConnectionNumber, DeviceId, GatewayId, IncarnationId, UserId};

/// How long a lease lives without being renewed.
pub const LEASE_LIFE: Duration = Duration::from_secs(15);
/// How often a gateway renews its lease.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(5);
/// How long a user's routes stay without any registration; a safety net, not the way routes end.
pub const ROUTE_LIFE: Duration = Duration::from_secs(26 * 3600);
/// How long a used ticket is remembered: longer than a ticket lives.
pub const TICKET_MEMORY: Duration = Duration::from_secs(60);

/// Why the registry could not answer. Callers degrade: they broadcast, keep their sockets and try again.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Redis is away, slow or refused the command.
    #[error("the registry is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The settings cannot work; only while connecting.
    #[error("registry settings: {0}")]
    Settings(String),
}

/// Whether a gateway takes new sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayState {
    /// Takes new sessions.
    Ready,
    /// Is going away: still gets pushes, gets no new sessions.
    Draining,
}

/// What a gateway says of its present life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// The stable name over restarts.
    pub gateway: GatewayId,
    /// This life.
    pub incarnation: IncarnationId,
    /// Where apis reach its `PushService`, such as `http://10.0.0.7:9090`.
    pub grpc_url: String,
    /// Where clients reach its WebSocket, such as `wss://gw-7.chat.example.com`.
    pub public_url: String,
    /// Whether it takes new sessions.
    pub state: GatewayState,
    /// Authenticated sessions it holds.
    pub sessions: u32,
    /// Sessions it can hold.
    pub capacity: u32,
    /// Apis that have a push stream to it.
    pub push_streams: u32,
}

/// What renewing a lease found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease was there and lives on.
    Renewed,
    /// There was no lease (first time, expired, or Redis lost it), or a Redis node lost keys: what was sent meanwhile
    /// found nobody here. The lease is there now; the gateway must register every session again and let every client
    /// sync.
    Missing,
    /// The lease lives on, but nobody can vouch for the routes: the connection to a Redis node broke since the last
    /// renewal, and a fail-over may have dropped routes. The gateway must register every session again and let those
    /// clients sync whose routes were not there.
    Doubtful,
    /// A later incarnation of the same gateway holds the lease: this one is over and must stop.
    Fenced,
}

/// One session as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Whose session.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// Where.
    pub incarnation: IncarnationId,
    /// Which connection of that device; a greater one is newer.
    pub connection: ConnectionNumber,
}

/// What registering a session found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The route was not there; it is visible to every look-up from now on.
    Stored,
    /// Exactly this route was there already, and stays.
    Kept,
    /// A greater connection number of the same device is registered, at this incarnation: not stored.
    /// When that incarnation is dead, the caller may [`Registry::take_over`].
    Newer {
        /// Who holds the route.
        incarnation: IncarnationId,
        /// With which connection.
        connection: ConnectionNumber,
    },
}

/// One answer of a look-up: the user at `index` in the question has a session on `incarnation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Position in the list of users that was asked for.
    pub index: u32,
    /// Where a session is. Once per (user, incarnation), however many devices.
    pub incarnation: IncarnationId,
}

/// The registry's contract; one test suite holds every implementation to it.
#[async_trait::async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Renews or creates this incarnation's lease and lists the gateway in the directory.
    async fn renew_lease(&self, lease: &Lease) -> Result<Renewal, RegistryError>;

    /// Ends this incarnation's lease; another incarnation's lease stays untouched.
    async fn release_lease(&self, gateway: &GatewayId, incarnation: IncarnationId) -> Result<(), RegistryError>;

    /// Every gateway with a live lease, in no order.
    async fn gateways(&self) -> Result<Vec<Lease>, RegistryError>;

    /// Makes sessions visible, one answer each in order. Refuses a connection number older than the stored one of
    /// the same device; an equal one replaces it.
    async fn register(&self, sessions: &[Registration]) -> Result<Vec<Registered>, RegistryError>;

    /// Stores `session` in place of exactly (`dead`, `connection`), an entry whose incarnation the caller found dead.
    /// False when the entry has changed since.
    async fn take_over(
        &self,
        session: &Registration,
        dead: IncarnationId,
        connection: ConnectionNumber,
    ) -> Result<bool, RegistryError>;

    /// Removes a session's route if it is still exactly this one. True when it was.
    async fn unregister(&self, session: &Registration) -> Result<bool, RegistryError>;

    /// Removes every route of each user at that incarnation, whatever the device and connection; answers how many there
    /// were. For incarnations that are dead, and for users whom a live gateway knows not to hold.
    async fn prune(&self, routes: &[(UserId, IncarnationId)]) -> Result<u64, RegistryError>;

    /// Where `users` have sessions, in one pipelined call, sorted by index. Includes routes of dead incarnations:
    /// the caller holds them against its view of the gateways.
    async fn look_up(&self, users: &[UserId]) -> Result<Vec<Route>, RegistryError>;

    /// Marks a ticket as used. True the first time, false ever after (for [`TICKET_MEMORY`]).
    async fn redeem_ticket(&self, ticket: &str) -> Result<bool, RegistryError>;

    /// Whether the registry answers now.
    async fn ping(&self) -> Result<(), RegistryError>;
}

/// Opens the registry that `settings` describe and checks that it answers.
///
/// # Errors
/// [`RegistryError::Settings`] when the settings cannot work, [`RegistryError::Unavailable`] when nobody answers.
pub async fn connect(settings: &Settings) -> Result<Arc<dyn Registry>, RegistryError> {
    let problems = settings.problems();
    if !problems.is_empty() {
        let problems: Vec<_> = problems.into_iter().map(|(path, what)| format!("{path}: {what}")).collect();
        return Err(RegistryError::Settings(problems.join("; ")));
    }
    let registry: Arc<dyn Registry> = match settings.mode {
        Mode::Memory => Arc::new(MemoryRegistry::new()),
        Mode::Single | Mode::Sentinel | Mode::Cluster => Arc::new(redis_registry::RedisRegistry::new(settings)?),
    };
    registry.ping().await?;
    Ok(registry)
}

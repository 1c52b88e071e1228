//! The api: public REST, the send path, the fan-out to the gateways.
//!
//! Never depends on a WebSocket, on a gateway's code, or on SQL (that is storage's).

mod admission;
mod app;
mod auth;
mod channels;
mod claims;
mod client_address;
mod clock;
mod config;
mod connect;
mod debts;
mod deliver;
mod delivered;
mod delivery;
mod devices;
mod error;
mod extract;
#[cfg(feature = "failpoints")]
mod failpoints;
mod finish;
#[cfg(test)]
mod fixtures;
mod gauges;
mod history;
mod lanes;
pub mod limits;
mod lines;
mod logins;
mod look_up;
mod members;
mod name;
mod outbox;
mod owed;
mod push_stream;
mod quiet;
mod reached;
mod resolve;
mod routes;
mod seen;
mod send;
mod store;
mod sync;
mod takeover;
mod trace;
mod users;
mod wake;
mod wishes;
mod writer;

pub use app::{App, build};
pub use config::Config;
pub use routes::openapi;
pub use touchline_mesh::Failed;

/// The rules of the fan-out, for the simulator to drive without I/O.
#[cfg(feature = "simulation")]
pub mod simulation {
    pub use crate::{
        claims::{Claim, Claims, Owners},
        debts::Debts,
        deliver::message,
        delivery::{Ask, Delivery, Holder, Loss, Push, PushId, Step, Times},
        owed::Owed,
        reached::Reached,
        resolve::{Due, Group, resolve},
        takeover::Schedule,
        writer::Stored,
    };
}

use admission::Admission;
use auth::OutsideUsers;
use delivered::Delivered;
use limits::Limits;
use seen::Seen;
use std::{sync::Arc, time::Duration};
use touchline_auth::{AccessTokens, IdentityProviders, Passwords, TicketSigner};
use touchline_mesh::Shutdown;
use touchline_registry::{Directory, Placement, Registry};
use touchline_storage::Storage;
use writer::Writer;

/// What an api works with.
pub struct Dependencies {
    /// The database; its schema is current.
    pub storage: Storage,
    /// Who is connected where.
    pub registry: Arc<dyn Registry>,
    /// Issues and verifies our access tokens.
    pub access: AccessTokens,
    /// How long a refresh token lives.
    pub refresh_life: Duration,
    /// Signs connect tickets.
    pub tickets: TicketSigner,
    /// Whose tokens are accepted besides our own.
    pub identities: IdentityProviders,
}

/// What every request handler sees.
pub struct Api {
    config: Config,
    storage: Storage,
    access: AccessTokens,
    refresh_life: Duration,
    tickets: TicketSigner,
    identities: IdentityProviders,
    outside_users: OutsideUsers,
    passwords: Passwords,
    limits: Limits,
    syncs: Admission,
    directory: Arc<Directory>,
    placement: Placement,
    writer: Writer,
    delivered: Arc<Delivered>,
    seen: Seen,
    shutdown: Shutdown,
}

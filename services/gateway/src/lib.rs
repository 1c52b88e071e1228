//! The WebSocket gateway: holds the sockets, pushes messages into them, and says whom it did not reach.
//!
//! A socket comes in through `accept`, is greeted (`greeting`, `admission` in the order of `entry`) and lives in a task
//! of its own (`socket`, by the rules of `session`). A push comes in through `push`, finds sessions in the `hub` and
//! waits in their `queue`s, its result in `awaiting`; what
//! devices ack the `relay` tells. `lease` and `routes` (by the rules of `registrar`) keep
//! the registry in step, `running` notices when the process was stopped; `drain` ends it all in order.
//!
//! Never depends on a database and never calls an api.

mod accept;
mod acked;
mod addresses;
mod admission;
mod app;
mod awaiting;
mod close_codes;
mod config;
mod drain;
mod entry;
mod error;
mod frame;
mod gateway;
mod greeting;
mod hub;
mod lease;
mod push;
mod queue;
mod readiness;
mod registrar;
mod relay;
mod routes;
mod running;
mod session;
#[cfg(feature = "simulation")]
pub mod simulation;
mod socket;
mod upgrade;

pub use app::{App, Dependencies, build};
pub use close_codes::{CloseCode, Rule, Wait};
pub use config::{Config, Limits, Times};
pub use error::Error;

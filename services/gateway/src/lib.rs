//! The WebSocket gateway: holds the sockets, pushes messages into them, and says whom it did not reach.
//!
//! A socket comes in through `accept`, is greeted (`greeting`, `admission`) and lives in a task of its own (`socket`,
//! by the rules of `session`). A push comes in through `push`, finds sessions in the `hub` and waits in their `queue`s.
//! `lease` and `routes` keep the registry in step; `drain` ends it all in order.
//!
//! Never depends on a database and never calls an api.

mod accept;
mod addresses;
mod admission;
mod app;
mod close_codes;
mod config;
mod drain;
mod error;
mod frame;
mod gateway;
mod greeting;
mod hub;
mod lease;
mod push;
mod queue;
mod routes;
mod session;
mod socket;
mod upgrade;

pub use app::{App, Dependencies, build};
pub use close_codes::{CloseCode, Rule, Wait};
pub use config::{Config, Limits, Times};
pub use error::Error;

//! How our processes talk and how they stop: the one client stack, the one server stack, breaker, turnstile, HTTP
//! accept loop, a request's client address, status mapping, shutdown. It knows addresses, never users.
//!
//! Never depends on another crate of ours.

pub mod allowance;
pub mod breaker;
pub mod client;
pub mod client_address;
pub mod http;
pub mod server;
pub mod shutdown;
pub mod status;
pub mod turnstile;
pub mod vital;

pub use allowance::Allowance;
pub use breaker::Breaker;
pub use shutdown::Shutdown;
pub use status::Code;
pub use turnstile::Turnstile;
pub use vital::{Failed, Vital};

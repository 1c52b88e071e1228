//! A faithful imitation of Firebase Cloud Messaging (HTTP v1) and of Google's token endpoint, for machines without a
//! way to the real ones. It answers as they do, misbehaves when told to ([`Behaviour`]), and remembers every request,
//! so that a run can be judged afterwards ([`check`]).
//!
//! Never depends on a service.

mod access_tokens;
pub mod answers;
mod behaviours;
pub mod bench;
mod bucket;
mod check;
mod control;
mod control_api;
mod fake;
mod http1;
mod http2;
mod key;
mod latency;
mod listen;
mod log;
mod message_rules;
mod message_shape;
mod request;
mod send;
mod tls;
mod token_endpoint;
mod wire;
mod world;

pub use behaviours::{Behaviour, RetryAfter};
pub use check::{Finding, Report, Rules, check, newest_accepted};
pub use control::{Change, Mode, Quota, Script, Settings, TokenBehaviour, TokenMode};
pub use fake::{FakeFcm, KeyFiles, Options};
pub use latency::{Latency, Point};
pub use log::{Entry, Log, Outcome, Page};
pub use token_endpoint::TokenCall;

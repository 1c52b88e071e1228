//! What tests stand on: real servers, our services in one process or as many, people with devices, and the checker
//! that judges every run.
//!
//! Never depends on a fake of anything of ours: what a test starts here is what ships.

mod builder;
mod cpu;
mod curtain;
mod device;
mod follower;
mod inbox;
mod links;
mod local;
mod nemesis;
mod nodes;
mod own_postgres;
mod own_redis;
mod people;
mod ports;
mod process;
mod proxy;
mod servers;
mod settings;
mod signals;
mod stack;

pub use builder::Builder;
pub use cpu::Starved;
pub use curtain::Curtain;
pub use device::{DEADLINE, Device, eventually};
pub use follower::{Follower, Story};
pub use inbox::Inbox;
pub use links::{Link, LinkKind};
pub use nemesis::{Fault, Nemesis, Strike};
pub use nodes::NodeName;
pub use own_postgres::OwnPostgres;
pub use own_redis::{OwnRedis, SENTINEL_MASTER};
pub use people::Person;
pub use process::{Process, binary};
pub use proxy::{Proxy, Rules, Way};
pub use servers::{TestDatabase, redis_cluster_urls, redis_prefix, redis_url};
pub use stack::{PASSWORD, Stack};
pub use touchline_load::{Checker, Sighting, Verdict};

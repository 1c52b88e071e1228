//! What tests stand on: real servers, our services in one process or as many, people with devices, and the checker
//! that judges every run.
//!
//! Never depends on a fake of anything of ours: what a test starts here is what ships.

mod builder;
mod device;
mod inbox;
mod local;
mod people;
mod process;
mod proxy;
mod servers;
mod settings;
mod stack;

pub use builder::Builder;
pub use device::{DEADLINE, Device, eventually};
pub use inbox::Inbox;
pub use people::Person;
pub use process::{Process, binary};
pub use proxy::{Proxy, Rules, Way};
pub use servers::{TestDatabase, redis_cluster_urls, redis_prefix, redis_url};
pub use stack::{PASSWORD, Stack};
pub use touchline_load::{Checker, Sighting, Verdict};

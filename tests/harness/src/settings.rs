//! The configuration of what a test starts: ours as it ships, with free ports, and without the limits per address,
//! because every client of a test has the same one.

use anyhow::Result;
use serde::Serialize;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};
use touchline_auth::create_key_files;

/// The whole configuration file.
#[derive(Clone, Serialize)]
pub(crate) struct Settings {
    pub(crate) database: touchline_storage::Settings,
    pub(crate) registry: touchline_registry::Settings,
    pub(crate) auth: touchline_auth::Settings,
    pub(crate) api: touchline_api::Config,
    pub(crate) gateway: touchline_gateway::Config,
    pub(crate) notifier: Box<touchline_notifier::Config>,
}

impl Settings {
    /// Settings for a stack that keeps its keys in `folder`.
    pub(crate) fn new(
        folder: &Path,
        database: String,
        registry: touchline_registry::Settings,
        api: touchline_api::Config,
        gateway: touchline_gateway::Config,
        notifier: Box<touchline_notifier::Config>,
    ) -> Result<Self> {
        let auth = touchline_auth::Settings {
            signing_key_file: folder.join("signing-key.pem"),
            public_keys_file: folder.join("public-keys.json"),
            ..touchline_auth::Settings::default()
        };
        create_key_files(&auth.signing_key_file, &auth.public_keys_file)?;
        let database = touchline_storage::Settings { url: database, ..touchline_storage::Settings::default() };
        Ok(Self { database, registry, auth, api, gateway, notifier })
    }

    /// Writes the file that `touchline --config` reads.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<PathBuf> {
        let path = folder.join(format!("{name}.toml"));
        std::fs::write(&path, toml::to_string(self)?)?;
        Ok(path)
    }
}

/// A free port of this machine.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) fn api() -> touchline_api::Config {
    let mut config = touchline_api::Config { listen: ANY_PORT, ..touchline_api::Config::default() };
    let limits = &mut config.limits;
    limits.requests_per_address = 0;
    limits.sign_ups_per_address = 0;
    limits.log_ins_per_address = 0;
    limits.log_ins_per_handle_and_address = 0;
    limits.refreshes_per_address = 0;
    limits.connects_per_address = 0;
    config
}

/// Also without the limits per user, for those who measure.
pub(crate) fn unlimited(config: &mut touchline_api::Config) {
    let limits = &mut config.limits;
    limits.requests_per_user = 0;
    limits.sends_per_user = 0;
    limits.syncs_per_user = 0;
    limits.connects_per_user = 0;
}

pub(crate) fn notifier() -> touchline_notifier::Config {
    touchline_notifier::Config { listen: ANY_PORT, ..touchline_notifier::Config::default() }
}

pub(crate) fn gateway() -> touchline_gateway::Config {
    let mut config = touchline_gateway::Config { ws: ANY_PORT, grpc: ANY_PORT, ..touchline_gateway::Config::default() };
    config.limits.sockets_per_address = config.limits.capacity;
    config.limits.unauthenticated_per_address = config.limits.unauthenticated;
    config
}

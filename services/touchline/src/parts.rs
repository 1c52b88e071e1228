//! What the services are built from, the same for `dev` as for processes of their own.

use crate::settings::Config;
use anyhow::Context as _;
use std::{error::Error as StdError, io, net::SocketAddr, sync::Arc, time::Duration};
use touchline_auth::{AccessTokens, IdentityProviders, KeySet, SigningKey, TicketSigner, TicketVerifier};
use touchline_ids::IncarnationId;
use touchline_mesh::Shutdown;
use touchline_registry::Registry;
use touchline_storage::Storage;

/// How soon to look again whether a gateway is listed.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The public keys, kept fresh.
pub(crate) async fn public_keys(config: &Config, shutdown: &Shutdown) -> anyhow::Result<KeySet> {
    let keys = KeySet::from_file(&config.auth.public_keys_file).await?;
    shutdown.spawn_until_stop(keys.clone().refresh_forever());
    Ok(keys)
}

/// An api, bound.
pub(crate) async fn api(
    config: &Config,
    keys: KeySet,
    storage: Storage,
    registry: Arc<dyn Registry>,
    shutdown: &Shutdown,
) -> anyhow::Result<touchline_api::App> {
    let auth = &config.auth;
    let signing_key = Arc::new(SigningKey::from_file(&auth.signing_key_file).await?);
    let identities = IdentityProviders::open(&auth.identity_providers).await?;
    shutdown.spawn_until_stop(identities.clone().refresh_forever());
    let dependencies = touchline_api::Dependencies {
        storage,
        registry,
        access: AccessTokens::new(Arc::clone(&signing_key), keys, &auth.issuer, auth.access_token_life())?,
        refresh_life: auth.refresh_token_life(),
        tickets: TicketSigner::new(signing_key),
        identities,
    };
    touchline_api::build(config.api.clone(), dependencies)
        .await
        .map_err(|error| not_bound(error, config.api.listen, "--http"))
}

/// A gateway, bound.
pub(crate) async fn gateway(
    config: &Config,
    keys: KeySet,
    registry: Arc<dyn Registry>,
) -> anyhow::Result<touchline_gateway::App> {
    let dependencies = touchline_gateway::Dependencies { registry, tickets: TicketVerifier::new(keys) };
    touchline_gateway::build(config.gateway.clone(), dependencies).await.map_err(|error| match error {
        touchline_gateway::Error::Bind { address, source } => {
            not_bound(source, address, if address == config.gateway.ws { "--ws" } else { "--grpc" })
        }
        error => error.into(),
    })
}

/// A notifier, bound.
pub(crate) fn notifier(
    config: &Config,
    storage: Storage,
    shutdown: &Shutdown,
) -> anyhow::Result<touchline_notifier::App> {
    let provider = touchline_notifier::open(&config.notifier, shutdown)?;
    let dependencies = touchline_notifier::Dependencies { storage, provider };
    touchline_notifier::build(&config.notifier, dependencies).map_err(|error| match error {
        touchline_notifier::Error::Bind { address, source } => not_bound(source, address, "--grpc"),
        error => error.into(),
    })
}

/// The registry that the configuration names.
pub(crate) async fn registry(config: &Config) -> anyhow::Result<Arc<dyn Registry>> {
    touchline_registry::connect(&config.registry).await.context("connecting to the registry (registry.urls)")
}

/// The database, with a schema that fits.
pub(crate) async fn storage(config: &Config) -> anyhow::Result<Storage> {
    let storage = connect(config).await?;
    storage.require_current_schema().await?;
    Ok(storage)
}

/// The database, whatever its schema. The URL is not named: it may hold a password.
pub(crate) async fn connect(config: &Config) -> anyhow::Result<Storage> {
    Storage::connect(&config.database).await.context("connecting to the database (database.url)")
}

/// Waits until the registry lists this life of a gateway, so that clients are sent to it.
pub(crate) async fn until_listed(registry: &dyn Registry, incarnation: IncarnationId) {
    loop {
        // While the registry is away the gateway tries to register too, and says so in the log.
        let leases = registry.gateways().await.unwrap_or_default();
        if leases.iter().any(|lease| lease.incarnation == incarnation) {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn not_bound(error: impl StdError + Send + Sync + 'static, address: SocketAddr, flag: &str) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    let taken = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::AddrInUse);
    if taken {
        anyhow::anyhow!("{address} is taken by another process: choose another address with {flag}, or port 0 for any")
    } else {
        error.context(format!("listening on {address} ({flag})"))
    }
}

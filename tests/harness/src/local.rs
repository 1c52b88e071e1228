//! Apis, gateways and notifiers in this process, as `touchline dev` runs them.

use crate::settings::Settings;
use anyhow::Result;
use std::sync::Arc;
use touchline_auth::{AccessTokens, IdentityProviders, KeySet, SigningKey, TicketSigner, TicketVerifier};
use touchline_mesh::Shutdown;
use touchline_registry::Registry;
use touchline_storage::Storage;

/// Where they serve.
pub(crate) struct Local {
    pub(crate) apis: Vec<String>,
    pub(crate) gateways: Vec<String>,
    pub(crate) notifiers: Vec<String>,
}

/// Starts them in `life`.
pub(crate) async fn start(
    settings: &Settings,
    storage: Storage,
    [apis, gateways, notifiers]: [usize; 3],
    life: &Shutdown,
) -> Result<Local> {
    let auth = &settings.auth;
    let key = Arc::new(SigningKey::from_file(&auth.signing_key_file).await?);
    let keys = KeySet::from_file(&auth.public_keys_file).await?;
    life.spawn_until_stop(keys.clone().refresh_forever());
    let registry: Arc<dyn Registry> = touchline_registry::connect(&settings.registry).await?;
    let mut local = Local { apis: Vec::new(), gateways: Vec::new(), notifiers: Vec::new() };
    for _ in 0..notifiers {
        let provider = touchline_notifier::open(&settings.notifier, life)?;
        let dependencies = touchline_notifier::Dependencies { storage: storage.clone(), provider };
        let app = touchline_notifier::build(&settings.notifier, dependencies)?;
        local.notifiers.push(format!("http://{}", app.grpc_address()));
        let inside = life.clone();
        life.spawn(async move { app.run(&inside).await });
    }
    let api = touchline_api::Config { notifiers: local.notifiers.clone(), ..settings.api.clone() };
    for _ in 0..gateways {
        let dependencies = touchline_gateway::Dependencies {
            registry: Arc::clone(&registry),
            tickets: TicketVerifier::new(keys.clone()),
        };
        let app = touchline_gateway::build(settings.gateway.clone(), dependencies).await?;
        local.gateways.push(format!("ws://{}", app.ws_address()));
        let inside = life.clone();
        life.spawn(async move { app.run(&inside).await });
    }
    for _ in 0..apis {
        let dependencies = touchline_api::Dependencies {
            storage: storage.clone(),
            registry: Arc::clone(&registry),
            access: AccessTokens::new(Arc::clone(&key), keys.clone(), &auth.issuer, auth.access_token_life())?,
            refresh_life: auth.refresh_token_life(),
            tickets: TicketSigner::new(Arc::clone(&key)),
            identities: IdentityProviders::open(&auth.identity_providers).await?,
        };
        let app = touchline_api::build(api.clone(), dependencies).await?;
        local.apis.push(format!("http://{}", app.http_address()));
        let inside = life.clone();
        life.spawn(async move { app.run(&inside).await });
    }
    Ok(local)
}

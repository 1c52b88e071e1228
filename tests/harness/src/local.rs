//! Apis and gateways in this process, as `touchline dev` runs them.

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
}

/// Starts them in `life`.
pub(crate) async fn start(
    settings: &Settings,
    storage: Storage,
    apis: usize,
    gateways: usize,
    life: &Shutdown,
) -> Result<Local> {
    let auth = &settings.auth;
    let key = Arc::new(SigningKey::from_file(&auth.signing_key_file).await?);
    let keys = KeySet::from_file(&auth.public_keys_file).await?;
    life.spawn_until_stop(keys.clone().refresh_forever());
    let registry: Arc<dyn Registry> = touchline_registry::connect(&settings.registry).await?;
    let mut local = Local { apis: Vec::new(), gateways: Vec::new() };
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
        let app = touchline_api::build(settings.api.clone(), dependencies).await?;
        local.apis.push(format!("http://{}", app.http_address()));
        let inside = life.clone();
        life.spawn(async move { app.run(&inside).await });
    }
    Ok(local)
}

//! Sending a device to a gateway: a short list to try, and the ticket that lets it in.

use crate::{
    Api,
    auth::{Caller, EXPIRED},
    client_address::ClientAddress,
    error::{Error, Problem},
    extract::Json,
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::SystemTime};
use touchline_auth::TICKET_LIFE;
use touchline_ids::DeviceId;
use utoipa::ToSchema;

/// Gateways in one answer: the chosen one, and others for when it is gone by then.
const CANDIDATES: usize = 3;

/// Which device wants to connect.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectBody {
    /// Chosen by the client once per installation and kept.
    device_id: DeviceId,
}

/// One gateway to try.
#[derive(Debug, Serialize, ToSchema)]
pub struct GatewayUrl {
    /// Open `{url}/v1/socket` with the subprotocol `touchline.v1.json`.
    url: String,
}

/// How to wait between tries: full jitter between 0 and a limit that doubles from `base_ms` to `cap_ms`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Backoff {
    base_ms: u32,
    cap_ms: u32,
}

/// How to connect.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectAnswer {
    /// Best first.
    gateways: Vec<GatewayUrl>,
    /// For the `hello` frame; works once. Never put it into a URL.
    ticket: String,
    /// How long the ticket lives, in seconds.
    expires_in_s: u64,
    /// Send a `ping` at least this often, in seconds.
    heartbeat_s: u32,
    backoff: Backoff,
}

/// Ask where to connect a device, and for the ticket to do it.
#[utoipa::path(post, path = "/v1/connect", tag = "sockets", request_body = ConnectBody, security(("bearer" = [])),
    responses((status = 200, body = ConnectAnswer), (status = 400, body = Problem), (status = 429, body = Problem),
        (status = 503, description = "No gateway takes connections now", body = Problem)))]
pub async fn connect(
    State(api): State<Arc<Api>>,
    caller: Caller,
    address: ClientAddress,
    Json(body): Json<ConnectBody>,
) -> Result<axum::Json<ConnectAnswer>, Error> {
    api.limits.check_connect(caller.user, address)?;
    // The clock leeway of the access token does not stretch the socket's life: it would be closed at once.
    if caller.token_expires <= SystemTime::now() {
        return Err(Error::Unauthenticated(EXPIRED));
    }
    api.seen.note(caller.user, &body.device_id).await;
    let chosen = api.placement.choose(&api.directory.view(), CANDIDATES);
    let gateways: Vec<_> = chosen.iter().map(|lease| GatewayUrl { url: lease.public_url.clone() }).collect();
    if gateways.is_empty() {
        return Err(Error::Unavailable { what: "no gateway takes connections now" });
    }
    // The socket lives as long as the access token that asked for it; a later hello renews it.
    let ticket = api.tickets.sign(caller.user, &body.device_id, caller.token_expires);
    let ticket = ticket.map_err(|error| Error::Internal(format!("cannot sign a ticket: {error}")))?;
    let backoff = Backoff { base_ms: api.config.backoff_base_ms, cap_ms: api.config.backoff_cap_ms };
    let (expires_in_s, heartbeat_s) = (TICKET_LIFE.as_secs(), api.config.heartbeat_s);
    Ok(axum::Json(ConnectAnswer { gateways, ticket, expires_in_s, heartbeat_s, backoff }))
}

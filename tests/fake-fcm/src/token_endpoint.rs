//! Google's token endpoint: an assertion for an access token.

use crate::{
    control::TokenBehaviour,
    key::{Claims, Forged},
    request::{Reply, Request},
    world::World,
};
use bytes::Bytes;
use http::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, UNIX_EPOCH},
};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Where real assertions are meant for.
const GOOGLE: &str = "https://oauth2.googleapis.com/token";
const SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"];
/// Seconds that an assertion may be good for.
const LONGEST: f64 = 3_600.0;
/// Seconds that its time of issue may be off.
const TOLERANCE: f64 = 300.0;
const NOT_NOW: &str = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.";
/// Calls that are remembered; older ones only count.
const REMEMBERED: usize = 10_000;

/// One call of `/token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCall {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// The fake's number for the connection it came on.
    pub connection: u32,
    /// What was answered; None when nothing was.
    pub status: Option<u16>,
    /// The number of the access token it got (as in [`Entry::bearer`](crate::Entry::bearer)).
    pub issued: Option<u32>,
    /// Why not, as the answer says it.
    pub error: Option<String>,
}

/// The calls so far.
#[derive(Debug, Default)]
pub(crate) struct TokenCalls {
    pub(crate) total: u64,
    pub(crate) last: VecDeque<TokenCall>,
}

impl TokenCalls {
    fn add(&mut self, call: TokenCall) {
        self.total += 1;
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(call);
    }
}

/// What the assertion got.
struct Verdict {
    reply: Reply,
    issued: Option<u32>,
    error: Option<String>,
}

/// Answers `/token`.
pub(crate) async fn answer(world: &World, request: &Request) -> Reply {
    let behaviour = world.control.next_token_behaviour();
    let verdict = match behaviour {
        TokenBehaviour::Ok | TokenBehaviour::Slow { .. } => judge(world, request),
        TokenBehaviour::InvalidGrant => refuse(400, "invalid_grant", "Invalid grant: account not found"),
        TokenBehaviour::Internal => refuse(500, "internal_failure", "Internal error"),
        TokenBehaviour::Unavailable => refuse(503, "temporarily_unavailable", "Try again later"),
        TokenBehaviour::Hang => Verdict { reply: Reply::Never, issued: None, error: None },
    };
    world.token_calls().add(TokenCall {
        at_ms: world.clock.unix_ms(),
        connection: request.way.connection,
        status: verdict.reply.status(),
        issued: verdict.issued,
        error: verdict.error,
    });
    if let TokenBehaviour::Slow { ms } = behaviour {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    verdict.reply
}

fn judge(world: &World, request: &Request) -> Verdict {
    match check(world, request) {
        Err(refusal) => refusal,
        Ok(()) => {
            let life = world.control.settings().access_token_life_s;
            let (token, number) = world.access_tokens().issue(world.clock.mono(), Duration::from_secs(life));
            let body = json!({ "access_token": token, "expires_in": life, "token_type": "Bearer" });
            Verdict { reply: Reply::value(StatusCode::OK, &body), issued: Some(number), error: None }
        }
    }
}

fn check(world: &World, request: &Request) -> Result<(), Verdict> {
    if request.method != Method::POST {
        return Err(refuse(405, "invalid_request", "Only POST is supported."));
    }
    let kind = request.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/x-www-form-urlencoded") {
        return Err(refuse(400, "invalid_request", "The content type must be application/x-www-form-urlencoded."));
    }
    let form: HashMap<_, _> = form_urlencoded::parse(&request.body).into_owned().collect();
    match form.get("grant_type").map(String::as_str) {
        Some(GRANT_TYPE) => {}
        Some(other) => return Err(refuse(400, "unsupported_grant_type", &format!("Invalid grant_type: {other}"))),
        None => return Err(refuse(400, "invalid_request", "Missing required parameter: grant_type")),
    }
    let Some(assertion) = form.get("assertion") else {
        return Err(refuse(400, "invalid_request", "Missing required parameter: assertion"));
    };
    let claims = world.key.verify(assertion).map_err(|forged| match forged {
        Forged::Malformed => refuse(400, "invalid_grant", "Invalid JWT: Failed to parse the assertion."),
        Forged::Signature => refuse(400, "invalid_grant", "Invalid JWT Signature."),
    })?;
    check_claims(world, &claims)
}

fn check_claims(world: &World, claims: &Claims) -> Result<(), Verdict> {
    if claims.iss.as_deref() != Some(world.key.email()) {
        return Err(refuse(400, "invalid_grant", "Invalid grant: account not found"));
    }
    if claims.sub.as_deref().is_some_and(|sub| sub != world.key.email()) {
        let why = "Client is unauthorized to retrieve access tokens using this method, or client not authorized for \
                   any of the scopes requested.";
        return Err(refuse(401, "unauthorized_client", why));
    }
    let audience = claims.aud.as_deref().unwrap_or_default();
    if audience != GOOGLE && !world.token_uris.iter().any(|uri| uri == audience) {
        let why = format!("Invalid JWT: Failed audience check. The right audience is {GOOGLE}");
        return Err(refuse(400, "invalid_grant", &why));
    }
    let scope = claims.scope.as_deref().unwrap_or_default();
    if !scope.split(' ').any(|one| SCOPES.contains(&one)) {
        return Err(refuse(400, "invalid_scope", "Invalid OAuth scope or ID token audience provided."));
    }
    let (Some(iat), Some(exp)) = (claims.iat, claims.exp) else {
        return Err(refuse(400, "invalid_grant", NOT_NOW));
    };
    let now = world.clock.shown().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let life = exp - iat;
    if life <= 0.0 || life > LONGEST || (now - iat).abs() > TOLERANCE || exp <= now {
        return Err(refuse(400, "invalid_grant", NOT_NOW));
    }
    Ok(())
}

fn refuse(status: u16, error: &str, description: &str) -> Verdict {
    let body: Value = json!({ "error": error, "error_description": description });
    let reply = Reply::json(status, Bytes::from(body.to_string()));
    Verdict { reply, issued: None, error: Some(format!("{error}: {description}")) }
}

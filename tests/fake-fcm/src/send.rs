//! `messages:send`: who sends, whether the message is one, what becomes of it, and the log's entry.

use crate::{
    answers,
    behaviours::{Behaviour, RetryAfter},
    control::Settings,
    log::{Entry, Outcome},
    message_rules, message_shape,
    request::{Reply, Request},
    world::World,
};
use bytes::Bytes;
use http::{Method, header};
use serde_json::{Map, Value};
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

const TARGETS: [&str; 4] = ["token", "fid", "topic", "condition"];
/// What a message that was only validated is called.
const VALIDATED: &str = "fake_message_id";

/// What becomes of a request.
struct Ruling {
    reply: Reply,
    outcome: Outcome,
    /// Whether the message counts as delivered.
    accepts: bool,
    retry_after: RetryAfter,
    /// Before the answer, besides the latency of all answers.
    delay: Duration,
}

/// The project in a path of this method.
pub(crate) fn project(path: &str) -> Option<&str> {
    let project = path.strip_prefix("/v1/projects/")?.strip_suffix("/messages:send")?;
    (!project.is_empty() && !project.contains('/')).then_some(project)
}

/// Answers a request to send.
pub(crate) async fn answer(world: &World, request: &Request, project: &str) -> Reply {
    let settings = world.control.settings();
    let body: Option<Value> = serde_json::from_slice(&request.body).ok();
    let (bearer, is_good) = bearer(world, request);
    let entry = describe(world, request, body.as_ref(), bearer, &settings);
    let token = Arc::clone(&entry.token);
    let open = world.log.begin(entry, &request.body, &world.clock);

    let ruling = rule(world, request, project, is_good, body.as_ref(), &token);
    let (Ok(mut ruling) | Err(mut ruling)) = ruling;
    if ruling.accepts {
        open.processed();
    }
    let delay = ruling.delay + settings.latency.at(rand::random());
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    if matches!(ruling.reply, Reply::Never) {
        // The entry stays open until the client goes.
        std::future::pending::<()>().await;
    }
    ruling.retry_after.onto(&mut ruling.reply, world.clock.shown());
    open.end(ruling.outcome, ruling.reply.status(), ruling.retry_after.seconds());
    ruling.reply
}

/// Err is a refusal, so that `?` ends the checks.
fn rule(
    world: &World,
    request: &Request,
    project: &str,
    bearer_is_good: bool,
    body: Option<&Value>,
    token: &str,
) -> Result<Ruling, Ruling> {
    if request.method != Method::POST {
        return Err(refusal(answers::page(404, answers::HTML_404), Outcome::Other));
    }
    if !bearer_is_good {
        return Err(refusal(answers::sample(401, answers::UNAUTHENTICATED), Outcome::Unauthenticated));
    }
    let luck = rand::random();
    let mode = world.control.next_mode();
    if let Some(mode) = &mode
        && !mode.accepts(luck, true)
    {
        return Err(refuse_by(mode, project));
    }
    if let Err(retry_after) = world.control.take_from_project(world.clock.mono()) {
        return Err(refuse_by(&Behaviour::Quota { retry_after }, project));
    }
    if project != world.key.project() {
        return Err(refuse_by(&Behaviour::Forbidden, project));
    }
    let message = read(body)?;
    if message.validate_only {
        return Ok(taken(answers::accepted(project, VALIDATED), Outcome::Validated, false));
    }
    message_rules::check(&message.fields).map_err(invalid)?;
    let own = world.control.next_of_token(token);
    let has_quota = own != Behaviour::DeviceQuota || world.control.take_from_device(token, world.clock.mono());
    if !own.accepts(luck, has_quota) {
        return Err(refuse_by(&own, project));
    }
    // A mode that accepts does it in its own way.
    Ok(accept_by(&mode.unwrap_or(own), project, request.body.len(), world))
}

struct Message {
    validate_only: bool,
    fields: Map<String, Value>,
}

fn read(body: Option<&Value>) -> Result<Message, Ruling> {
    let Some(body) = body else {
        let text = "Invalid JSON payload received. Unexpected token.";
        return Err(refusal(answers::violation("", text), Outcome::Invalid));
    };
    let mut request = message_shape::read(body).map_err(invalid)?;
    let validate_only = request.get("validate_only") == Some(&Value::Bool(true));
    let Some(Value::Object(fields)) = request.remove("message") else {
        return Err(refusal(answers::sample(400, answers::NO_RECIPIENT), Outcome::Invalid));
    };
    if validate_only {
        message_rules::check(&fields).map_err(invalid)?;
    }
    Ok(Message { validate_only, fields })
}

fn invalid(reply: Reply) -> Ruling {
    refusal(reply, Outcome::Invalid)
}

fn refusal(reply: Reply, outcome: Outcome) -> Ruling {
    Ruling { reply, outcome, accepts: false, retry_after: RetryAfter::Absent, delay: Duration::ZERO }
}

fn taken(reply: Reply, outcome: Outcome, accepts: bool) -> Ruling {
    Ruling { reply, outcome, accepts, retry_after: RetryAfter::Absent, delay: Duration::ZERO }
}

fn refuse_by(behaviour: &Behaviour, project: &str) -> Ruling {
    let reply = behaviour.refusal(project).unwrap_or(Reply::Never);
    let outcome = match behaviour {
        Behaviour::WrongSender => Outcome::WrongSender,
        Behaviour::PlatformKey => Outcome::PlatformKey,
        Behaviour::BadToken | Behaviour::BadTokenField => Outcome::BadToken,
        Behaviour::Refuse => Outcome::Refused,
        _ => reply.status().map_or(Outcome::Reset, Outcome::of_status),
    };
    Ruling { retry_after: behaviour.retry_after(), ..refusal(reply, outcome) }
}

fn accept_by(behaviour: &Behaviour, project: &str, bytes: usize, world: &World) -> Ruling {
    let name = format!("0:{}%{:08x}{bytes:08x}", world.clock.mono_us(), rand::random::<u32>());
    match behaviour {
        Behaviour::AcceptThenReset => taken(Reply::Reset, Outcome::Reset, true),
        Behaviour::Other { status, body } => taken(Reply::json(*status, body.clone().into()), Outcome::Accepted, true),
        Behaviour::Slow { ms } => Ruling {
            delay: Duration::from_millis(*ms),
            ..taken(answers::accepted(project, &name), Outcome::Accepted, true)
        },
        _ => taken(answers::accepted(project, &name), Outcome::Accepted, true),
    }
}

/// The access token's number, and whether it is good.
fn bearer(world: &World, request: &Request) -> (u32, bool) {
    let token = request
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    token.and_then(|token| world.access_tokens().find(token, world.clock.mono())).unwrap_or((0, false))
}

fn describe(world: &World, request: &Request, body: Option<&Value>, bearer: u32, settings: &Settings) -> Entry {
    let message = body.and_then(|body| body.get("message"));
    let target = TARGETS.iter().find_map(|target| message?.get(target)?.as_str()).unwrap_or_default();
    let data = |key: &str| message?.get("data")?.get(key)?.as_str();
    Entry {
        number: 0,
        at_ms: world.clock.unix_ms(),
        begun_us: 0,
        ended_us: None,
        connection: request.way.connection,
        stream: request.way.stream,
        bearer,
        token: target.into(),
        channel: data("ch").map(Arc::from),
        seq: data("seq").and_then(|seq| seq.parse().ok()),
        n: data("n").and_then(|n| n.parse().ok()),
        body_hash: hash(&request.body),
        bytes: u32::try_from(request.body.len()).unwrap_or(u32::MAX),
        leaked: leaks(&settings.needles, &request.body, body),
        processed: false,
        outcome: Outcome::Pending,
        status: None,
        retry_after: None,
    }
}

fn hash(body: &Bytes) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

/// Whether a needle stands in the body, as it was sent or with its escapes undone.
fn leaks(needles: &[String], body: &Bytes, value: Option<&Value>) -> bool {
    if needles.is_empty() {
        return false;
    }
    let raw = String::from_utf8_lossy(body);
    needles.iter().any(|needle| raw.contains(needle.as_str()) || value.is_some_and(|value| holds(value, needle)))
}

fn holds(value: &Value, needle: &str) -> bool {
    match value {
        Value::String(text) => text.contains(needle),
        Value::Array(values) => values.iter().any(|value| holds(value, needle)),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains(needle) || holds(value, needle)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

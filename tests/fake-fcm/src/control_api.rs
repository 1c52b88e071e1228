//! Control and log over HTTP, for a fake that is a process of its own. JSON in and out:
//!
//! | | |
//! |---|---|
//! | `GET /control` | how things stand ([`Settings`](crate::Settings)) |
//! | `POST /control` | a [`Change`]; answers how things stand then |
//! | `GET /log?since=&limit=` | a [`Page`](crate::Page) of the log |
//! | `DELETE /log` | forgets it |
//! | `GET /body?number=` | the body of a request, if it is among the last ones |
//! | `GET /token-calls` | `{"total": …, "last": [TokenCall]}` |
//! | `POST /check` | the log judged by these [`Rules`] (`{}`: the contract's); a [`Report`](crate::Report) |

use crate::{
    check::{Rules, check},
    control::Change,
    request::{Reply, Request},
    world::World,
};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

/// Entries on a page that asks for no number.
const PAGE: u64 = 10_000;

/// Answers on the control address.
pub(crate) fn answer(world: &World, request: &Request) -> Reply {
    match (&request.method, request.uri.path()) {
        (&Method::GET, "/control") => json_of(&*world.control.settings()),
        (&Method::POST, "/control") => match parse::<Change>(&request.body) {
            Ok(change) => {
                world.change(change);
                json_of(&*world.control.settings())
            }
            Err(reply) => reply,
        },
        (&Method::GET, "/log") => {
            let limit = usize::try_from(number(request, "limit").unwrap_or(PAGE)).unwrap_or(usize::MAX);
            json_of(&world.log.since(number(request, "since").unwrap_or(0), limit))
        }
        (&Method::DELETE, "/log") => {
            world.log.clear();
            json_of(&json!({}))
        }
        (&Method::GET, "/body") => match number(request, "number").and_then(|number| world.log.body(number)) {
            Some(body) => Reply::json(200, body),
            None => problem(StatusCode::NOT_FOUND, "no such body is kept"),
        },
        (&Method::GET, "/token-calls") => {
            let calls = world.token_calls();
            json_of(&json!({ "total": calls.total, "last": calls.last }))
        }
        (&Method::POST, "/check") => match parse::<Rules>(&request.body) {
            Ok(rules) => json_of(&world.log.judge(|entries, forgotten| check(entries, forgotten, &rules))),
            Err(reply) => reply,
        },
        _ => problem(StatusCode::NOT_FOUND, "no such address, or not with this method"),
    }
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Reply> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| problem(StatusCode::BAD_REQUEST, &error.to_string()))
}

fn number(request: &Request, name: &str) -> Option<u64> {
    let query = request.uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name)?.1.parse().ok()
}

fn json_of(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => Reply::json(200, body.into()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn problem(status: StatusCode, what: &str) -> Reply {
    Reply::value(status, &json!({ "error": what }))
}

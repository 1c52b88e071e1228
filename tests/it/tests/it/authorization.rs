//! Who may do what: every operation of the OpenAPI document, by every kind of caller. An operation that is missing
//! from the matrix fails the test.

use anyhow::{Context as _, Result, ensure};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use touchline_harness::{PASSWORD, Person, Stack};
use touchline_ids::{ChannelId, UserId};
use uuid::Uuid;

/// Every kind of caller, in the order of the matrix's columns. Each owns a channel of their own besides, so that no
/// rule can confuse "an owner" with "the owner of this channel".
const CALLERS: [&str; 6] = ["anybody", "outsider", "ex-member", "member", "admin", "owner"];

/// What a row's request is about: a fresh channel for every cell, so that no cell depends on another.
struct Scene<'a> {
    channel: ChannelId,
    /// A plain member who is none of the callers.
    bystander: UserId,
    /// A user in no channel.
    newcomer: UserId,
    /// A refresh token of the caller.
    refresh_token: &'a str,
    unique: String,
}

struct Row {
    method: Method,
    path: &'static str,
    body: fn(&Scene<'_>) -> Value,
    /// The status for each of [`CALLERS`].
    expected: [u16; 6],
}

fn no_body(_: &Scene<'_>) -> Value {
    Value::Null
}

fn quiet_hours() -> Value {
    json!({"from": "22:00", "to": "07:00", "time_zone": "Europe/Berlin"})
}

fn device(token: &str) -> Value {
    json!({"platform": "web", "push": {"kind": "token", "value": token}})
}

fn matrix() -> Vec<Row> {
    let row = |method, path, body, expected| Row { method, path, body, expected };
    let public = |status| [status; 6];
    let signed_in = |status| [401, status, status, status, status, status];
    let members = |status| [401, 404, 404, status, status, status];
    let admins = |status| [401, 404, 404, 403, status, status];
    let the_owner = |status| [401, 404, 404, 403, 403, status];
    vec![
        row(Method::POST, "/v1/users", |s| json!({"handle": s.unique, "password": PASSWORD}), public(201)),
        row(Method::GET, "/v1/users?handle=owner", no_body, signed_in(200)),
        row(Method::POST, "/v1/sessions", |_| json!({"handle": "owner", "password": PASSWORD}), public(201)),
        row(Method::POST, "/v1/sessions/refresh", |s| json!({"refresh_token": s.refresh_token}), public(200)),
        row(Method::DELETE, "/v1/sessions/current", no_body, signed_in(204)),
        row(Method::GET, "/v1/me", no_body, signed_in(200)),
        // The two after it find what it set.
        row(Method::PUT, "/v1/me/quiet-hours", |_| quiet_hours(), signed_in(200)),
        row(Method::GET, "/v1/me/quiet-hours", no_body, signed_in(200)),
        row(Method::DELETE, "/v1/me/quiet-hours", no_body, signed_in(204)),
        row(Method::PUT, "/v1/devices/{device_id}", |s| device(&s.unique), signed_in(200)),
        row(Method::GET, "/v1/devices", no_body, signed_in(200)),
        row(Method::DELETE, "/v1/devices/{device_id}", no_body, signed_in(204)),
        row(Method::POST, "/v1/channels", |s| json!({"name": s.unique, "member_ids": [s.newcomer]}), signed_in(201)),
        row(Method::GET, "/v1/channels", no_body, signed_in(200)),
        row(Method::GET, "/v1/channels/{id}", no_body, members(200)),
        row(Method::PATCH, "/v1/channels/{id}", |s| json!({"name": s.unique}), admins(200)),
        row(Method::GET, "/v1/channels/{id}/members", no_body, members(200)),
        row(Method::POST, "/v1/channels/{id}/members", |s| json!({"user_ids": [s.newcomer]}), admins(200)),
        row(Method::PATCH, "/v1/channels/{id}/members/{user_id}", |_| json!({"role": "admin"}), the_owner(200)),
        row(Method::DELETE, "/v1/channels/{id}/members/{user_id}", no_body, admins(204)),
        row(
            Method::POST,
            "/v1/channels/{id}/messages",
            |s| json!({"client_message_id": s.unique, "content": "hello"}),
            members(201),
        ),
        row(Method::GET, "/v1/channels/{id}/messages", no_body, members(200)),
        row(Method::PUT, "/v1/channels/{id}/notifications", |_| json!({"level": "none"}), members(200)),
        row(Method::GET, "/v1/channels/{id}/notifications", no_body, members(200)),
        row(Method::PUT, "/v1/channels/{id}/read", |_| json!({"seq": 1}), members(200)),
        row(Method::POST, "/v1/sync", |s| json!({"cursors": [{"channel_id": s.channel, "seq": 0}]}), signed_in(200)),
        row(Method::POST, "/v1/connect", |_| json!({"device_id": "phone"}), signed_in(200)),
    ]
}

/// The people of the matrix and a way to ask as one of them.
struct World {
    stack: Stack,
    http: reqwest::Client,
    /// By [`CALLERS`]; `None` is anybody.
    callers: Vec<Option<Person>>,
    bystander: Person,
    newcomer: Person,
}

impl World {
    async fn new() -> Result<Self> {
        let stack = Stack::local().start().await?;
        let mut callers = vec![None];
        for name in &CALLERS[1..] {
            let person = stack.sign_up(name).await?;
            stack.channel(&[&person]).await?;
            callers.push(Some(person));
        }
        let [bystander, newcomer] = stack.sign_up_all(["bystander", "newcomer"]).await?;
        Ok(Self { stack, http: reqwest::Client::new(), callers, bystander, newcomer })
    }

    fn caller(&self, name: &str) -> Option<&Person> {
        let column = CALLERS.iter().position(|caller| *caller == name)?;
        self.callers[column].as_ref()
    }

    /// A channel in which every caller is what their name says.
    async fn channel(&self) -> Result<ChannelId> {
        let person = |name| self.caller(name).context("no such caller");
        let (owner, admin) = (person("owner")?, person("admin")?);
        let people = [owner, admin, person("member")?, person("ex-member")?, &self.bystander];
        let channel = self.stack.channel(&people).await?;
        let path = format!("/v1/channels/{channel}/members/{}", admin.id);
        let promoted = self.ask(Some(owner), &Method::PATCH, &path, &json!({"role": "admin"})).await?;
        ensure!(promoted.status() == StatusCode::OK, "promoting: {}", promoted.status());
        owner.client().remove_member(channel, person("ex-member")?.id).await?;
        owner.send(channel, "something to read").await?;
        Ok(channel)
    }

    async fn ask(&self, caller: Option<&Person>, method: &Method, path: &str, body: &Value) -> Result<Response> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.stack.api_url(0)));
        if let Some(person) = caller {
            request = request.bearer_auth(self.stack.access_tokens().issue(person.id, Uuid::now_v7())?);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        Ok(request.timeout(Duration::from_secs(20)).send().await?)
    }
}

#[tokio::test]
async fn every_operation_answers_every_kind_of_caller_as_the_matrix_says() -> Result<()> {
    let matrix = matrix();
    let document = serde_json::to_value(touchline_api::openapi())?;
    let described: BTreeSet<String> = document["paths"]
        .as_object()
        .context("no paths")?
        .iter()
        .flat_map(|(path, operations)| {
            operations
                .as_object()
                .into_iter()
                .flatten()
                .map(move |(method, _)| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let listed: BTreeSet<String> =
        matrix.iter().map(|row| format!("{} {}", row.method, row.path.split('?').next().unwrap_or_default())).collect();
    assert_eq!(described, listed, "the OpenAPI document (left) and the authorization matrix (right) differ");

    let world = World::new().await?;
    let mut wrong = Vec::new();
    for row in &matrix {
        for (column, caller) in CALLERS.iter().enumerate() {
            let channel = world.channel().await?;
            let unique = format!("u{}", &Uuid::now_v7().simple().to_string()[12..]);
            let refresh_token = match row.path {
                "/v1/sessions/refresh" => world.stack.client(0).log_in("owner", PASSWORD).await?.refresh_token,
                _ => String::new(),
            };
            let (bystander, newcomer) = (world.bystander.id, world.newcomer.id);
            let scene = Scene { channel, bystander, newcomer, refresh_token: &refresh_token, unique };
            let path = row.path.replace("{id}", &channel.to_string());
            let path = path.replace("{user_id}", &scene.bystander.to_string()).replace("{device_id}", "phone");
            let person = world.callers[column].as_ref();
            let answer = world.ask(person, &row.method, &path, &(row.body)(&scene)).await?;
            let (got, expected) = (answer.status().as_u16(), row.expected[column]);
            if got != expected {
                let body = answer.text().await?;
                wrong.push(format!("{} {} by {caller}: {got}, expected {expected}: {body}", row.method, row.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.stack.stop().await
}

#[tokio::test]
async fn no_such_channel_and_not_a_member_answer_alike() -> Result<()> {
    let world = World::new().await?;
    let channel = world.channel().await?;
    let missing = ChannelId::new();
    for row in matrix().iter().filter(|row| row.path.contains("{id}")) {
        for caller in ["outsider", "ex-member"] {
            let mut answers = Vec::new();
            for id in [channel, missing] {
                let unique = Uuid::now_v7().to_string();
                let (bystander, newcomer) = (world.bystander.id, world.newcomer.id);
                let scene = Scene { channel: id, bystander, newcomer, refresh_token: "", unique };
                let path = row.path.replace("{id}", &id.to_string());
                let path = path.replace("{user_id}", &scene.bystander.to_string());
                let answer = world.ask(world.caller(caller), &row.method, &path, &(row.body)(&scene)).await?;
                let mut headers = answer.headers().clone();
                for varying in ["date", "traceparent"] {
                    headers.remove(varying);
                }
                answers.push((answer.status(), headers, answer.text().await?));
            }
            assert_eq!(answers[0], answers[1], "{} {} by {caller}", row.method, row.path);
            assert_eq!(answers[0].0, StatusCode::NOT_FOUND);
        }
    }
    world.stack.stop().await
}

#[tokio::test]
async fn a_sync_brings_nothing_of_other_peoples_channels() -> Result<()> {
    let world = World::new().await?;
    let channel = world.channel().await?;
    for caller in ["outsider", "ex-member"] {
        let body = json!({"cursors": [{"channel_id": channel, "seq": 0}]});
        let answer = world.ask(world.caller(caller), &Method::POST, "/v1/sync", &body).await?;
        let answer: Value = answer.json().await?;
        assert_eq!(answer["gone"], json!([channel]));
        let synced = answer["channels"].as_array().context("no channels")?;
        assert!(synced.iter().all(|synced| synced["channel_id"] != json!(channel)), "{answer}");
    }
    world.stack.stop().await
}

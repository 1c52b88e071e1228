//! Bad input: every operation answers it with a clear problem, and nothing is stored.

use anyhow::{Context as _, Result};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use touchline_harness::{Person, Stack};
use touchline_ids::{ChannelId, Seq};
use uuid::Uuid;

struct World {
    stack: Stack,
    http: reqwest::Client,
    token: String,
    me: Person,
    channel: ChannelId,
}

impl World {
    async fn new() -> Result<Self> {
        let stack = Stack::local().start().await?;
        let me = stack.sign_up("myself").await?;
        let channel = stack.channel(&[&me]).await?;
        let token = stack.access_tokens().issue(me.id, Uuid::now_v7())?;
        Ok(Self { stack, http: reqwest::Client::new(), token, me, channel })
    }

    fn path(&self, template: &str) -> String {
        template
            .replace("{id}", &self.channel.to_string())
            .replace("{user_id}", &self.me.id.to_string())
            .replace("{device_id}", "phone")
    }

    async fn ask(&self, method: &Method, path: &str, media: &str, body: Vec<u8>) -> Result<Answer> {
        let url = format!("{}{path}", self.stack.api_url(0));
        let request = self.http.request(method.clone(), url).bearer_auth(&self.token);
        let request = if media.is_empty() { request } else { request.header(header::CONTENT_TYPE, media) };
        let response = request.body(body).send().await?;
        let status = response.status();
        let media = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = media.unwrap_or_default().to_owned();
        let text = response.text().await?;
        Ok(Answer { status, media, problem: serde_json::from_str(&text).unwrap_or(Value::Null) })
    }

    async fn ask_json(&self, method: &Method, path: &str, body: &Value) -> Result<Answer> {
        self.ask(method, path, "application/json", body.to_string().into_bytes()).await
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    media: String,
    problem: Value,
}

impl Answer {
    /// What is wrong with this answer to bad input, if anything.
    fn is_not(&self, status: u16, code: &str) -> Option<String> {
        let clear = self.media == "application/problem+json"
            && self.problem["type"] == format!("urn:touchline:problem:{code}")
            && self.problem["status"] == status
            && self.problem["detail"].as_str().is_some_and(|detail| detail.len() > 10);
        let right = self.status == status && self.problem["code"] == code && clear;
        (!right).then(|| format!("expected {status} {code}, got {self:?}"))
    }
}

/// Every operation of the OpenAPI document: method, path and whether it takes a body.
fn operations() -> Result<Vec<(Method, String, bool)>> {
    let document = serde_json::to_value(touchline_api::openapi())?;
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in methods.as_object().context("no methods")? {
            let method = method.to_uppercase().parse()?;
            operations.push((method, path.clone(), operation.get("requestBody").is_some()));
        }
    }
    Ok(operations)
}

#[tokio::test]
async fn what_is_not_the_body_of_an_operation_is_refused_by_all_of_them() -> Result<()> {
    const JSON: &str = "application/json";
    let deep = format!("{}{}", "[".repeat(100_000 / 4), "]".repeat(100_000 / 4)).into_bytes();
    let bodies: [(&str, &str, Vec<u8>, u16, &str); 9] = [
        ("no body", JSON, vec![], 400, "invalid_body"),
        ("no media type", "", b"{}".to_vec(), 415, "not_json"),
        ("another media type", "text/plain", b"{}".to_vec(), 415, "not_json"),
        ("not JSON", JSON, b"{handle: 1}".to_vec(), 400, "invalid_body"),
        ("half of it", JSON, b"{\"handle\":".to_vec(), 400, "invalid_body"),
        ("an array", JSON, b"[]".to_vec(), 400, "invalid_body"),
        ("an unknown field", JSON, b"{\"seq_\":1}".to_vec(), 400, "invalid_body"),
        ("not UTF-8", JSON, b"{\"\xff\":1}".to_vec(), 400, "invalid_body"),
        ("too deep", JSON, deep, 400, "invalid_body"),
    ];
    let world = World::new().await?;
    let mut wrong = Vec::new();
    for (method, template, _) in operations()?.into_iter().filter(|(_, _, takes_body)| *takes_body) {
        for (name, media, body, status, code) in &bodies {
            let answer = world.ask(&method, &world.path(&template), media, body.clone()).await?;
            wrong.extend(answer.is_not(*status, code).map(|what| format!("{method} {template}, {name}: {what}")));
        }
        let large = world.ask(&method, &world.path(&template), JSON, vec![b' '; 64 * 1024 + 1]).await?;
        wrong.extend(large.is_not(413, "body_too_large").map(|what| format!("{method} {template}, too large: {what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.stack.stop().await
}

#[tokio::test]
async fn what_is_not_an_id_is_refused_in_every_path() -> Result<()> {
    let world = World::new().await?;
    let ids = [
        "1",
        "x",
        "0190b3c87d3e7c619b1a2f6f0a6b8e11",
        "%00",
        "..%2F..%2Fetc",
        "'%20OR%201=1--",
        "0190b3c8-7d3e-7c61-9b1a-2f6f0a6b8e1g",
    ];
    let long = "x".repeat(65);
    let device_ids = ["%00", "..%2F..%2Fetc", "'%20OR%201=1--", "a%20b", "%C3%BC", &long];
    let mut wrong = Vec::new();
    for (method, template, _) in operations()?.into_iter().filter(|(_, path, _)| path.contains('{')) {
        let of_a_device = template.contains("{device_id}");
        for &bad in if of_a_device { &device_ids[..] } else { &ids[..] } {
            let path = if of_a_device {
                template.replace("{device_id}", bad)
            } else if template.contains("{user_id}") {
                world.path(&template.replace("{user_id}", bad))
            } else {
                template.replace("{id}", bad)
            };
            let answer = world.ask_json(&method, &path, &json!({})).await?;
            wrong.extend(answer.is_not(400, "invalid_path").map(|what| format!("{method} {path}: {what}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.stack.stop().await
}

#[tokio::test]
async fn every_bad_value_of_every_body_and_query_is_named() -> Result<()> {
    let world = World::new().await?;
    let (me, channel, someone) = (world.me.id, world.channel, Uuid::now_v7());
    let long = "x".repeat(300);
    let many: Vec<_> = (0..1_001).map(|_| Uuid::now_v7()).collect();
    let post = |path: &str, body| (Method::POST, path.to_owned(), body);
    let get = |path: String| (Method::GET, path, Value::Null);
    let messages = format!("/v1/channels/{channel}/messages");
    let members = format!("/v1/channels/{channel}/members");
    let mut cases: Vec<((Method, String, Value), u16, &str)> = Vec::new();

    for handle in ["", "ab", "with space", "ünïcode", "a/b", "'; drop table users; --", &long] {
        let body = json!({"handle": handle, "password": "long enough"});
        cases.push((post("/v1/users", body), 400, "invalid_field"));
    }
    for password in ["", "short", &long] {
        cases.push((post("/v1/users", json!({"handle": "newone", "password": password})), 400, "invalid_field"));
    }
    for name in ["a\u{202e}b", "a\nb", &long] {
        let body = json!({"handle": "newone", "password": "long enough", "display_name": name});
        cases.push((post("/v1/users", body), 400, "invalid_field"));
    }
    for body in [
        json!({"handle": 1, "password": "x"}),
        json!({"handle": "newone"}),
        json!({"handle": "newone", "password": null}),
    ] {
        cases.push((post("/v1/users", body), 400, "invalid_body"));
    }
    cases.push((post("/v1/users", json!({"handle": "myself", "password": "long enough"})), 409, "handle_taken"));
    cases.push((post("/v1/users", json!({"handle": "MySelf", "password": "long enough"})), 409, "handle_taken"));
    cases.push((post("/v1/users", json!({"handle": "n-1", "password": "long enough", "id": me})), 400, "invalid_body"));

    cases.push((
        post("/v1/sessions", json!({"handle": "myself", "password": "wrong password"})),
        401,
        "wrong_credentials",
    ));
    cases.push((
        post("/v1/sessions", json!({"handle": "nobody", "password": "wrong password"})),
        401,
        "wrong_credentials",
    ));
    cases.push((post("/v1/sessions/refresh", json!({"refresh_token": "made up"})), 401, "invalid_refresh_token"));
    cases.push((get("/v1/users?handle=nobody".into()), 404, "no_such_user"));
    cases.push((get("/v1/users".into()), 400, "invalid_query"));
    cases.push((get("/v1/users?handle=myself&x=1".into()), 400, "invalid_query"));

    for name in ["", "   ", "a\u{0}b", "a\u{2066}b", &long] {
        cases.push((post("/v1/channels", json!({"name": name, "member_ids": []})), 400, "invalid_field"));
        let rename = (Method::PATCH, format!("/v1/channels/{channel}"), json!({"name": name}));
        cases.push((rename, 400, "invalid_field"));
    }
    cases.push((post("/v1/channels", json!({"name": "n", "member_ids": many})), 400, "invalid_field"));
    cases.push((post("/v1/channels", json!({"name": "n", "member_ids": [someone]})), 400, "unknown_users"));
    cases.push((post("/v1/channels", json!({"name": "n", "member_ids": ["x"]})), 400, "invalid_body"));
    for owned in ["id", "role", "last_seq", "created_at"] {
        cases.push((post("/v1/channels", json!({"name": "n", owned: 1})), 400, "invalid_body"));
    }
    for query in ["limit=0", "limit=201", "limit=-1", "limit=x", "after=x", "offset=1"] {
        cases.push((get(format!("/v1/channels?{query}")), 400, "invalid_query"));
        cases.push((get(format!("{members}?{query}")), 400, "invalid_query"));
    }
    for query in ["limit=0", "limit=201", "after_seq=x", "before_seq=1.5", "page=1", "after_seq=9223372036854775808"] {
        cases.push((get(format!("{messages}?{query}")), 400, "invalid_query"));
    }

    cases.push((post(&members, json!({"user_ids": []})), 400, "invalid_field"));
    cases.push((post(&members, json!({"user_ids": many})), 400, "invalid_field"));
    cases.push((post(&members, json!({"user_ids": [someone]})), 400, "unknown_users"));
    cases.push(((Method::PATCH, format!("{members}/{me}"), json!({"role": "king"})), 400, "invalid_body"));
    cases.push(((Method::PATCH, format!("{members}/{someone}"), json!({"role": "admin"})), 404, "no_such_member"));
    cases.push(((Method::DELETE, format!("{members}/{someone}"), Value::Null), 404, "no_such_member"));

    let send = |id: &str, content: Value| json!({"client_message_id": id, "content": content});
    for id in ["", "with space", "ü", &long] {
        cases.push((post(&messages, send(id, json!("x"))), 400, "invalid_body"));
    }
    for content in [json!(""), json!(1), json!(null), json!([]), json!("x".repeat(49 * 1024))] {
        cases.push((post(&messages, send("one", content)), 400, "invalid_field"));
    }
    cases.push((post(&messages, json!({"content": "x"})), 400, "invalid_body"));
    cases.push((post(&messages, json!({"client_message_id": "one"})), 400, "invalid_body"));
    for owned in ["sender_id", "seq", "created_at", "message_id", "kind"] {
        let body = json!({"client_message_id": "one", "content": "x", owned: 1});
        cases.push((post(&messages, body), 400, "invalid_body"));
    }

    let many_mentions = json!({"client_message_id": "one", "content": "x", "mentions": many[..101]});
    cases.push((post(&messages, many_mentions), 400, "invalid_field"));
    for mentions in [json!("all"), json!(["x"]), json!([null]), json!(null)] {
        let body = json!({"client_message_id": "one", "content": "x", "mentions": mentions});
        cases.push((post(&messages, body), 400, "invalid_body"));
    }
    cases.extend(of_devices_and_wishes(channel));

    for (seq, code) in [
        (json!(-1), "invalid_field"),
        (json!(1_000), "beyond_end"),
        (json!(1.5), "invalid_body"),
        (json!("1"), "invalid_body"),
    ] {
        cases.push(((Method::PUT, format!("/v1/channels/{channel}/read"), json!({"seq": seq})), 400, code));
    }

    let cursor = |seq: Value, check: Value| json!({"cursors": [{"channel_id": channel, "seq": seq, "check": check}]});
    cases.push((post("/v1/sync", cursor(json!(-1), Value::Null)), 400, "invalid_field"));
    for check in ["", "xyz", "0123456g", "012345678"] {
        cases.push((post("/v1/sync", cursor(json!(1), json!(check))), 400, "invalid_field"));
    }
    cases.push((post("/v1/sync", json!({"recent": 51})), 400, "invalid_field"));
    let twice = json!({"cursors": [{"channel_id": channel, "seq": 1}, {"channel_id": channel, "seq": 2}]});
    cases.push((post("/v1/sync", twice), 400, "invalid_field"));
    let cursors: Vec<_> = many.iter().map(|id| json!({"channel_id": id, "seq": 1})).collect();
    cases.push((post("/v1/sync", json!({ "cursors": cursors })), 400, "invalid_field"));

    for device in ["", "a b", "ü", &long] {
        cases.push((post("/v1/connect", json!({"device_id": device})), 400, "invalid_body"));
        cases.push((post("/v1/sync", json!({"device_id": device})), 400, "invalid_body"));
    }
    cases.push((get("/v1/nothing".into()), 404, "no_such_path"));
    cases.push(((Method::DELETE, "/v1/me".into(), Value::Null), 405, "method_not_allowed"));
    cases.push((get(format!("/v1/me?{}", "x".repeat(8 * 1024))), 414, "url_too_long"));

    let mut wrong = Vec::new();
    for ((method, path, body), status, code) in &cases {
        let answer = world.ask_json(method, path, body).await?;
        let what = answer.is_not(*status, code);
        wrong.extend(what.map(|what| format!("{method} {} {}: {what}", &path[..path.len().min(120)], brief(body))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Nothing of it was stored: the channel holds its first entry only.
    assert_eq!(world.me.client().channel(channel).await?.last_seq, Seq(1));
    world.stack.stop().await
}

type Case = ((Method, String, Value), u16, &'static str);

fn of_devices_and_wishes(channel: ChannelId) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut put = |path: &str, body, code| cases.push(((Method::PUT, path.to_owned(), body), 400, code));
    let device = |platform: Value, kind: Value, value: Value| json!({"platform": platform, "push": {"kind": kind, "value": value}});
    let phone = "/v1/devices/phone";
    for token in ["", "a b", "ü", "a\u{0}", "line\n", &"x".repeat(513)] {
        put(phone, device(json!("web"), json!("token"), json!(token)), "invalid_field");
    }
    for (platform, kind, value) in [
        (json!("symbian"), json!("token"), json!("x")),
        (json!("Web"), json!("token"), json!("x")),
        (json!("web"), json!("apns"), json!("x")),
        (json!("web"), json!(null), json!("x")),
        (json!("web"), json!("fid"), json!(1)),
    ] {
        put(phone, device(platform, kind, value), "invalid_body");
    }
    for owned in ["user_id", "created_at", "last_seen_at", "login_id", "device_id"] {
        let mut body = device(json!("web"), json!("token"), json!("x"));
        body[owned] = json!("x");
        put(phone, body, "invalid_body");
    }

    let wishes = format!("/v1/channels/{channel}/notifications");
    for level in [json!("some"), json!("ALL"), json!(null), json!(1)] {
        put(&wishes, json!({"level": level}), "invalid_body");
    }
    put(&wishes, json!({"mute_until": null}), "invalid_body");
    for time in ["", "tomorrow", "2026-11-22", "2026-11-22T09:30:00", "1763804400"] {
        put(&wishes, json!({"level": "all", "mute_until": time}), "invalid_field");
    }
    put(&wishes, json!({"level": "all", "mute_until": 1_763_804_400}), "invalid_body");

    let quiet = "/v1/me/quiet-hours";
    let hours = |from: &str, to: &str, zone: &str| json!({"from": from, "to": to, "time_zone": zone});
    for time in ["", "7:00", "24:00", "07:60", "07:00:00", "noon"] {
        put(quiet, hours(time, "08:00", "UTC"), "invalid_field");
        put(quiet, hours("08:00", time, "UTC"), "invalid_field");
    }
    put(quiet, hours("08:00", "08:00", "UTC"), "invalid_field");
    for zone in ["", "Mars/Phobos", "+02:00", "../../etc/passwd", &"x".repeat(65)] {
        put(quiet, hours("22:00", "07:00", zone), "invalid_field");
    }
    put(quiet, json!({"from": "22:00", "to": "07:00"}), "invalid_body");
    put(quiet, json!({"from": 22, "to": 7, "time_zone": "UTC"}), "invalid_body");
    cases
}

fn brief(body: &Value) -> String {
    body.to_string().chars().take(120).collect()
}

#[tokio::test]
async fn a_token_that_is_not_ours_is_refused_and_says_so() -> Result<()> {
    let world = World::new().await?;
    for header in ["", "Bearer", "Bearer x", "Basic bWU6bWU=", "Bearer a.b.c", "bearer null"] {
        let request = world.http.get(format!("{}/v1/me", world.stack.api_url(0)));
        let request = if header.is_empty() { request } else { request.header("authorization", header) };
        let answer = request.send().await?;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{header}");
        assert!(answer.headers().contains_key("www-authenticate"), "{header}");
        let problem: Value = answer.json().await?;
        assert_eq!(problem["code"], "unauthenticated", "{header}");
    }
    world.stack.stop().await
}

/// Any JSON, of the depth and the size that people type or programs make by mistake.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let key = prop_oneof![
            any::<String>(),
            prop::sample::select(vec![
                "handle",
                "password",
                "name",
                "member_ids",
                "user_ids",
                "content",
                "client_message_id",
                "no_push",
                "seq",
                "cursors",
                "channel_id",
                "check",
                "recent",
                "device_id",
                "refresh_token",
                "role",
                "display_name",
                "platform",
                "push",
                "kind",
                "value",
                "level",
                "mute_until",
                "from",
                "to",
                "time_zone",
                "mentions",
            ])
            .prop_map(str::to_owned),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

#[tokio::test]
async fn no_body_whatever_makes_the_server_fail() -> Result<()> {
    let world = World::new().await?;
    let operations: Vec<_> = operations()?.into_iter().filter(|(_, _, takes_body)| *takes_body).collect();
    let mut runner = TestRunner::default();
    let strategy = any_json();
    for round in 0..600 {
        let body = strategy.new_tree(&mut runner).map_err(anyhow::Error::msg)?.current();
        let (method, template, _) = &operations[round % operations.len()];
        let answer = world.ask_json(method, &world.path(template), &body).await?;
        let status = answer.status;
        assert!(!status.is_server_error(), "{method} {template} {body}: {answer:?}");
        assert!(
            status.is_success() || answer.media == "application/problem+json",
            "{method} {template} {body}: {answer:?}"
        );
    }
    world.stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_head_that_is_too_long_is_a_431() -> Result<()> {
    let world = World::new().await?;
    let ask = |bytes: usize| {
        let url = format!("{}/v1/me", world.stack.api_url(0));
        world.http.get(url).bearer_auth(&world.token).header("x-long", "x".repeat(bytes)).send()
    };
    assert_eq!(ask(20 * 1024).await?.status(), 200);
    // hyper looks at its bound between reads, so it may take one read more.
    assert_eq!(ask(64 * 1024).await?.status(), 431);
    world.stack.stop().await
}

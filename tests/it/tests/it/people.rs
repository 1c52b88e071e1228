//! People over HTTP: sign up, log in, refresh, log out, outside identities, limits. One api in this process, SQLite.

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use touchline_auth::{
    AccessTokens, IdentityProvider, IdentityProviders, KeySet, SigningKey, TicketSigner, create_key_files,
};
use touchline_ids::UserId;
use touchline_mesh::Shutdown;
use touchline_registry::MemoryRegistry;
use touchline_storage::Storage;

const PASSWORD: &str = "correct horse";
const OUTSIDE: &str = "https://id.example";

/// One api and what it trusts.
struct World {
    base: String,
    http: reqwest::Client,
    key: Arc<SigningKey>,
    access: AccessTokens,
    outside: EncodingKey,
    life: Shutdown,
    _folder: TempDir,
}

/// What an answer was.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: header::HeaderMap,
    body: Value,
}

impl Answer {
    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    fn text(&self, field: &str) -> Result<&str> {
        self.body[field].as_str().with_context(|| format!("{field} in {self:?}"))
    }

    /// Fails unless this is a problem of that status and code, told as RFC 9457 says.
    fn refused(&self, status: u16, code: &str) -> Result<()> {
        ensure!(self.status.as_u16() == status && self.code() == code, "expected {status} {code}: {self:?}");
        ensure!(self.headers[header::CONTENT_TYPE] == "application/problem+json", "{self:?}");
        let challenged = self.headers.contains_key(header::WWW_AUTHENTICATE);
        ensure!(challenged == (status == 401), "a challenge goes with 401 and only with it: {self:?}");
        let wait = self.headers.get(header::RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse::<u32>().ok());
        ensure!(wait.is_some_and(|wait| wait >= 1) == matches!(status, 429 | 503), "{self:?}");
        Ok(())
    }
}

impl World {
    async fn new() -> Result<Self> {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut touchline_api::Config)) -> Result<Self> {
        let folder = TempDir::with_prefix("touchline-people.")?;
        let path = |name: &str| folder.path().join(name);
        let url = format!("sqlite://{}", path("test.db").display());
        let storage =
            Storage::connect(&touchline_storage::Settings { url, ..touchline_storage::Settings::default() }).await?;
        storage.migrate_up().await?;
        create_key_files(&path("key.pem"), &path("keys.json"))?;
        let key = Arc::new(SigningKey::from_file(&path("key.pem")).await?);
        let keys = KeySet::from_file(path("keys.json")).await?;
        let access = AccessTokens::new(Arc::clone(&key), keys, "touchline", Duration::from_secs(900))?;

        let (outside, public) = outside_key()?;
        std::fs::write(path("outside.json"), json!({"keys": [public]}).to_string())?;
        let provider = IdentityProvider {
            issuer: OUTSIDE.to_owned(),
            audience: "chat".to_owned(),
            jwks_file: Some(path("outside.json")),
            jwks_url: None,
            algorithms: vec!["ES256".to_owned()],
        };
        let dependencies = touchline_api::Dependencies {
            storage,
            registry: Arc::new(MemoryRegistry::new()),
            access: access.clone(),
            refresh_life: Duration::from_secs(3600),
            tickets: TicketSigner::new(Arc::clone(&key)),
            identities: IdentityProviders::open(&[provider]).await?,
        };
        let mut config = touchline_api::Config { listen: ([127, 0, 0, 1], 0).into(), ..Default::default() };
        change(&mut config);
        let app = touchline_api::build(config, dependencies).await?;
        let base = format!("http://{}", app.http_address());
        let life = Shutdown::new();
        let inside = life.clone();
        life.spawn(async move { app.run(&inside).await });
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { base, http, key, access, outside, life, _folder: folder })
    }

    async fn ask(&self, method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Result<Answer> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await
    }

    async fn post(&self, path: &str, body: Value) -> Result<Answer> {
        self.ask(Method::POST, path, None, Some(&body)).await
    }

    async fn get(&self, path: &str, token: &str) -> Result<Answer> {
        self.ask(Method::GET, path, Some(token), None).await
    }

    async fn sign_up(&self, handle: &str) -> Result<Answer> {
        let answer = self.post("/v1/users", json!({"handle": handle, "password": PASSWORD})).await?;
        ensure!(answer.status == StatusCode::CREATED, "{answer:?}");
        Ok(answer)
    }

    async fn refresh(&self, token: &str) -> Result<Answer> {
        self.post("/v1/sessions/refresh", json!({"refresh_token": token})).await
    }

    /// A token of the outside provider, good but for `change`.
    fn outside_token(&self, subject: &str, change: Value) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut claims = json!({"iss": OUTSIDE, "aud": "chat", "sub": subject, "exp": now + 300});
        for (name, value) in change.as_object().context("claims")? {
            claims[name] = value.clone();
        }
        let header = Header { kid: Some("e1".to_owned()), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, &claims, &self.outside)?)
    }

    async fn stop(self) {
        self.life.stop();
        self.life.wait(Duration::from_secs(30)).await;
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await?;
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).context(text)? };
    Ok(Answer { status, headers, body })
}

fn outside_key() -> Result<(EncodingKey, Value)> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let point = pair.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    let public = json!({"kty": "EC", "crv": "P-256", "kid": "e1", "x": x, "y": y});
    Ok((EncodingKey::from_ec_der(pair.to_pkcs8v1()?.as_ref()), public))
}

fn fields(value: &Value) -> Vec<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[tokio::test]
async fn whoever_signs_up_is_logged_in_and_can_be_found() -> Result<()> {
    let world = World::new().await?;
    let body = json!({"handle": "Ann.B", "password": PASSWORD, "display_name": " Ann B. "});
    let ann = world.post("/v1/users", body).await?;
    assert_eq!(ann.status, StatusCode::CREATED);
    assert_eq!(fields(&ann.body), ["access_token", "expires_in", "refresh_token", "user"]);
    assert_eq!(ann.body["expires_in"], 900);
    assert_eq!(ann.headers[header::CACHE_CONTROL], "no-store");
    let user = &ann.body["user"];
    assert_eq!(fields(user), ["display_name", "handle", "id"]);
    assert_eq!((&user["handle"], &user["display_name"]), (&json!("ann.b"), &json!("Ann B.")));

    let token = ann.text("access_token")?;
    assert_eq!(&world.get("/v1/me", token).await?.body, user);
    assert_eq!(&world.get("/v1/users?handle=ann.b", token).await?.body, user);
    assert_eq!(&world.get("/v1/users?handle=ANN.B", token).await?.body, user);
    world.get("/v1/users?handle=nobody", token).await?.refused(404, "no_such_user")?;
    assert_eq!(world.sign_up("bob").await?.body["user"]["display_name"], "bob");

    let again = json!({"handle": "ANN.b", "password": PASSWORD});
    world.post("/v1/users", again).await?.refused(409, "handle_taken")?;
    let login = world.post("/v1/sessions", json!({"handle": "ANN.b", "password": PASSWORD})).await?;
    assert_eq!((login.status, &login.body["user"]), (StatusCode::CREATED, user));
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn one_handle_is_one_user_however_many_want_it() -> Result<()> {
    let world = World::new().await?;
    let wanting = (0..6).map(|_| world.post("/v1/users", json!({"handle": "ann", "password": PASSWORD})));
    let answers = futures_util::future::try_join_all(wanting).await?;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == StatusCode::CREATED);
    assert_eq!(won.len(), 1);
    for answer in lost {
        answer.refused(409, "handle_taken")?;
    }
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_used_refresh_token_ends_its_log_in_and_no_other() -> Result<()> {
    let world = World::new().await?;
    let first = world.sign_up("ann").await?;
    let other = world.post("/v1/sessions", json!({"handle": "ann", "password": PASSWORD})).await?;
    let old = first.text("refresh_token")?;
    let second = world.refresh(old).await?;
    assert_eq!((second.status, &second.body["user"]), (StatusCode::OK, &first.body["user"]));
    world.get("/v1/me", second.text("access_token")?).await?;
    let third = world.refresh(second.text("refresh_token")?).await?;
    assert_eq!(third.status, StatusCode::OK);

    world.refresh(old).await?.refused(401, "invalid_refresh_token")?;
    world.refresh(third.text("refresh_token")?).await?.refused(401, "invalid_refresh_token")?;
    assert_eq!(world.refresh(other.text("refresh_token")?).await?.status, StatusCode::OK);
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn two_refreshes_at_once_are_a_reuse() -> Result<()> {
    let world = World::new().await?;
    let token = world.sign_up("ann").await?.text("refresh_token")?.to_owned();
    let answers = futures_util::future::try_join_all((0..4).map(|_| world.refresh(&token))).await?;
    let good: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::OK).collect();
    assert_eq!(good.len(), 1);
    world.refresh(good[0].text("refresh_token")?).await?.refused(401, "invalid_refresh_token")?;
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn who_logs_out_cannot_refresh() -> Result<()> {
    let world = World::new().await?;
    let ann = world.sign_up("ann").await?;
    let token = ann.text("access_token")?;
    for _ in 0..2 {
        let out = world.ask(Method::DELETE, "/v1/sessions/current", Some(token), None).await?;
        assert_eq!((out.status, out.body), (StatusCode::NO_CONTENT, Value::Null));
    }
    world.refresh(ann.text("refresh_token")?).await?.refused(401, "invalid_refresh_token")?;
    assert_eq!(world.get("/v1/me", token).await?.status, StatusCode::OK);
    world.ask(Method::DELETE, "/v1/sessions/current", None, None).await?.refused(401, "unauthenticated")?;
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_and_a_wrong_handle_answer_alike() -> Result<()> {
    let world = World::new().await?;
    world.sign_up("ann").await?;
    // Somebody of an outside provider has no password at all.
    world.get("/v1/me", &world.outside_token("1", json!({"preferred_username": "bob"}))?).await?;
    let mut bodies = HashSet::new();
    for (handle, password) in [("ann", "correct horsf"), ("ann", ""), ("nobody", PASSWORD), ("bob", PASSWORD)] {
        let answer = world.post("/v1/sessions", json!({"handle": handle, "password": password})).await?;
        answer.refused(401, "wrong_credentials")?;
        bodies.insert(answer.body.to_string());
    }
    assert_eq!(bodies.len(), 1);
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn every_bad_body_is_named() -> Result<()> {
    let world = World::with(|config| config.limits.sign_ups_per_address = 0).await?;
    let token = world.access.issue(UserId::new(), uuid::Uuid::now_v7())?;
    let handles = ["", "ab", "a b", "a/b", "äöü", "a\u{202e}bc", "ann\n", &"x".repeat(33)];
    for handle in handles {
        let answer = world.post("/v1/users", json!({"handle": handle, "password": PASSWORD})).await?;
        answer.refused(400, "invalid_field").with_context(|| format!("{handle:?}"))?;
        assert!(answer.text("detail")?.contains("handle"));
        world
            .post("/v1/sessions", json!({"handle": handle, "password": PASSWORD}))
            .await?
            .refused(400, "invalid_field")?;
        let url = reqwest::Url::parse_with_params(&format!("{}/v1/users", world.base), [("handle", handle)])?;
        answer_of(&world, url, &token).await?.refused(400, "invalid_query")?;
    }
    for password in ["", "1234567", &"x".repeat(257)] {
        let answer = world.post("/v1/users", json!({"handle": "ann", "password": password})).await?;
        answer.refused(400, "invalid_field")?;
        assert!(answer.text("detail")?.contains("password"));
    }
    for name in ["", " ", "a\u{0}b", "a\u{202e}b", "a\nb", &"x".repeat(65)] {
        let body = json!({"handle": "ann", "password": PASSWORD, "display_name": name});
        world.post("/v1/users", body).await?.refused(400, "invalid_field")?;
    }
    let good = json!({"handle": "ann", "password": PASSWORD, "refresh_token": "x"});
    for (path, own) in [
        ("/v1/users", &["handle", "password"][..]),
        ("/v1/sessions", &["handle", "password"]),
        ("/v1/sessions/refresh", &["refresh_token"]),
    ] {
        let body = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
            let mut fields = own.iter().map(|&field| (field.to_owned(), good[field].clone())).collect();
            change(&mut fields);
            Value::Object(fields)
        };
        for field in own {
            for value in [json!(null), json!(1), json!([]), json!({})] {
                let bad = body(&|fields| drop(fields.insert((*field).to_owned(), value.clone())));
                world.post(path, bad).await?.refused(400, "invalid_body")?;
            }
            world.post(path, body(&|fields| drop(fields.remove(*field)))).await?.refused(400, "invalid_body")?;
        }
        for extra in ["id", "user_id", "role", "created_at", "sid", "login"] {
            let bad = body(&|fields| drop(fields.insert(extra.to_owned(), json!("x"))));
            world.post(path, bad).await?.refused(400, "invalid_body")?;
        }
        for bad in [json!(null), json!([]), json!("text"), json!(1)] {
            world.post(path, bad).await?.refused(400, "invalid_body")?;
        }
        let plain = world.http.post(format!("{}{path}", world.base)).body("{}");
        answer(plain).await?.refused(415, "not_json")?;
        world.get(path, &token).await.and_then(|answer| match path {
            "/v1/users" => answer.refused(400, "invalid_query"),
            _ => answer.refused(405, "method_not_allowed"),
        })?;
    }
    for token in ["", "x", "' OR 1=1 --", &"A".repeat(43), &"A".repeat(44)] {
        world.refresh(token).await?.refused(401, "invalid_refresh_token")?;
    }
    world.stop().await;
    Ok(())
}

async fn answer_of(world: &World, url: reqwest::Url, token: &str) -> Result<Answer> {
    answer(world.http.get(url).bearer_auth(token)).await
}

#[tokio::test]
async fn only_a_good_access_token_opens() -> Result<()> {
    let world = World::new().await?;
    let ann = world.sign_up("ann").await?;
    let user: UserId = ann.body["user"]["id"].as_str().context("id")?.parse()?;
    let good = ann.text("access_token")?;
    let ticket = TicketSigner::new(Arc::clone(&world.key)).sign(user, &"phone".parse()?, SystemTime::now())?;
    let (message, _) = good.rsplit_once('.').context("a token")?;
    let unsigned = format!("{message}.");
    let refresh = ann.text("refresh_token")?;
    for bad in ["x", "x.y.z", &ticket, &unsigned, refresh, &good[..good.len() - 8], &format!("{good}x")] {
        world.get("/v1/me", bad).await?.refused(401, "unauthenticated")?;
    }
    let headers: [(&str, &[&str]); 5] = [
        ("none", &[]),
        ("no scheme", &[good]),
        ("another scheme", &[&format!("Basic {good}")]),
        ("nothing after it", &["Bearer"]),
        ("two", &[&format!("Bearer {good}"), &format!("Bearer {good}")]),
    ];
    for (what, lines) in headers {
        let mut request = world.http.get(format!("{}/v1/me", world.base));
        for line in lines {
            request = request.header(header::AUTHORIZATION, *line);
        }
        answer(request).await?.refused(401, "unauthenticated").context(what)?;
    }
    let elsewhere = world.http.get(format!("{}/v1/me?access_token={good}", world.base));
    answer(elsewhere.header(header::COOKIE, format!("access_token={good}"))).await?.refused(401, "unauthenticated")?;
    // A good token whose user is not there (any more).
    let nobody = world.access.issue(UserId::new(), uuid::Uuid::now_v7())?;
    world.get("/v1/me", &nobody).await?.refused(401, "unauthenticated")?;
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_outside_person_is_a_user_from_the_first_request_on() -> Result<()> {
    let world = World::new().await?;
    world.sign_up("ann").await?;
    let claims = json!({"preferred_username": "Ann@id.example", "name": "Ann O."});
    let token = world.outside_token("subject 1", claims)?;
    // All at once: still one user.
    let answers = futures_util::future::try_join_all((0..10).map(|_| world.get("/v1/me", &token))).await?;
    let users: HashSet<_> = answers.iter().map(|answer| answer.body.to_string()).collect();
    assert_eq!(users.len(), 1, "{users:?}");
    let ann = &answers[0].body;
    assert_eq!(ann["display_name"], "Ann O.");
    let handle = ann["handle"].as_str().context("handle")?;
    assert!(handle.starts_with("ann-"), "the handle ann is taken: {handle}");

    // The same person with another token and other hints, and another person with the same hints.
    let later = world.outside_token("subject 1", json!({"preferred_username": "eve", "name": "Eve"}))?;
    assert_eq!(&world.get("/v1/me", &later).await?.body, ann);
    let other = world.get("/v1/me", &world.outside_token("subject 2", json!({"name": "Ann O."}))?).await?;
    assert_ne!(other.body["id"], ann["id"]);

    world.ask(Method::DELETE, "/v1/sessions/current", Some(&token), None).await?.refused(403, "forbidden")?;
    for bad in [json!({"aud": "other"}), json!({"exp": 1}), json!({"iss": "https://evil.example"}), json!({"sub": ""})]
    {
        world.get("/v1/me", &world.outside_token("subject 3", bad)?).await?.refused(401, "unauthenticated")?;
    }
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_flood_is_refused_and_leaves_the_others_alone() -> Result<()> {
    let world = World::with(|config| {
        config.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        config.limits.sign_ups_per_address = 3;
        config.limits.requests_per_user = 20;
        config.limits.requests_per_address = 60;
    })
    .await?;
    let sign_up = |handle: &str, from: &str| {
        let request = world.http.post(format!("{}/v1/users", world.base)).header("x-forwarded-for", from);
        answer(request.json(&json!({"handle": handle, "password": PASSWORD})))
    };
    let mut people = Vec::new();
    for handle in ["ann", "bob", "eve"] {
        let answer = sign_up(handle, "192.0.2.1").await?;
        ensure!(answer.status == StatusCode::CREATED, "{answer:?}");
        people.push(answer.text("access_token")?.to_owned());
    }
    sign_up("joe", "192.0.2.1").await?.refused(429, "rate_limited")?;
    // What the client itself writes in front changes nothing.
    sign_up("joe", "198.51.100.7, 192.0.2.1").await?.refused(429, "rate_limited")?;
    ensure!(sign_up("joe", "192.0.2.2").await?.status == StatusCode::CREATED);

    let me = |token: &str, from: &str| {
        let request = world.http.get(format!("{}/v1/me", world.base)).header("x-forwarded-for", from);
        answer(request.bearer_auth(token))
    };
    // Counted down, not out: what comes back with time may come back during the test.
    let flood = async |token: &str, from: &str| {
        for n in 0..1_000 {
            let answer = me(token, from).await?;
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                answer.refused(429, "rate_limited")?;
                return Ok(n);
            }
        }
        anyhow::bail!("never refused")
    };
    ensure!(flood(&people[0], "192.0.2.3").await? >= 20);
    ensure!(me(&people[1], "192.0.2.3").await?.status == StatusCode::OK, "the same address, another user");
    ensure!(flood("x", "192.0.2.4").await? >= 60);
    ensure!(me(&people[1], "192.0.2.5").await?.status == StatusCode::OK, "another address");
    // Probes are never refused.
    let probe = world.http.get(format!("{}/livez", world.base)).header("x-forwarded-for", "192.0.2.4");
    ensure!(probe.send().await?.status() == StatusCode::OK);
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn guessing_a_password_ends_soon() -> Result<()> {
    let world = World::with(|config| config.limits.log_ins_per_handle_and_address = 3).await?;
    world.sign_up("ann").await?;
    let guess = |password: &str| world.post("/v1/sessions", json!({"handle": "ann", "password": password}));
    for _ in 0..3 {
        guess("wrong password").await?.refused(401, "wrong_credentials")?;
    }
    // From here not even the right one is tried.
    guess(PASSWORD).await?.refused(429, "rate_limited")?;
    world.stop().await;
    Ok(())
}

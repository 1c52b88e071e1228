//! How fast a fake answers: what a sender's own speed is to be held against. Counts nothing but answers.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::Args;
use futures_util::future::try_join_all;
use h2::client::SendRequest;
use hdrhistogram::Histogram;
use http::{Method, Request, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::{
    future::Future,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::net::TcpStream;
use touchline_mesh::Shutdown;

/// What is measured.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The `key_http` of the fake's ready line; names its address too.
    #[arg(long)]
    pub key: PathBuf,
    /// Connections (h2c).
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Requests under way on each.
    #[arg(long, default_value_t = 100)]
    pub streams: usize,
    /// How long.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
}

/// Sends as fast as it is answered, and prints the rate and the times.
///
/// # Errors
/// When the fake is not there or refuses.
pub async fn run(options: Options) -> Result<()> {
    let key: Value = serde_json::from_slice(&std::fs::read(&options.key)?)?;
    let uri = key["token_uri"].as_str().context("the key has no token_uri")?;
    let host = uri.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/token")).context("not a key_http")?;
    let bearer = access_token(&key, uri).await?;
    let project = key["project_id"].as_str().unwrap_or_default();
    let target = Target { uri: format!("http://{host}/v1/projects/{project}/messages:send"), bearer };

    let life = Shutdown::new();
    let begun = Instant::now();
    let until = begun + Duration::from_secs(options.seconds);
    let mut workers = Vec::new();
    for connection in 0..options.connections {
        let socket = TcpStream::connect(host).await?;
        socket.set_nodelay(true)?;
        let (client, driver) = h2::client::handshake(socket).await?;
        life.spawn_until_stop(driver);
        for stream in 0..options.streams {
            let name = format!("ok-{connection}-{stream}");
            workers.push(spawned(&life, work(client.clone(), target.clone(), name, until)));
        }
    }
    let mut times = Histogram::<u64>::new(3)?;
    for part in try_join_all(workers).await? {
        times.add(part)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    life.stop_now();
    let ms = |share| Duration::from_micros(times.value_at_quantile(share)).as_secs_f64() * 1e3;
    let rate = times.len() as f64 / seconds;
    let (half, most) = (ms(0.5), ms(0.99));
    let Options { connections, streams, .. } = options;
    print(&format!(
        "{connections} connections x {streams} streams: {rate:.0} sends/s, p50 {half:.1} ms, p99 {most:.1} ms"
    ))
}

#[derive(Clone)]
struct Target {
    uri: String,
    bearer: String,
}

async fn spawned<T: Send + 'static>(
    life: &Shutdown,
    task: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    life.spawn(task).await?.context("stopped")?
}

/// One request after the other.
async fn work(client: SendRequest<Bytes>, target: Target, name: String, until: Instant) -> Result<Histogram<u64>> {
    let mut times = Histogram::new(3)?;
    let mut client = client;
    for seq in 0_u64.. {
        let begun = Instant::now();
        if begun >= until {
            break;
        }
        let body = json!({"message": {
            "token": name,
            "data": {"v": "1", "k": "msg", "ch": "123", "seq": seq.to_string(), "n": "3"},
            "android": {"priority": "HIGH", "ttl": "86400s"},
        }});
        let request = Request::builder()
            .method(Method::POST)
            .uri(&target.uri)
            .header(header::AUTHORIZATION, format!("Bearer {}", target.bearer))
            .header(header::CONTENT_TYPE, "application/json")
            .body(())?;
        client = client.ready().await?;
        let (answer, mut sending) = client.send_request(request, false)?;
        sending.send_data(body.to_string().into(), true)?;
        let answer = answer.await?;
        ensure!(answer.status() == 200, "answered {}", answer.status());
        let mut body = answer.into_body();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
        }
        times.record(u64::try_from(begun.elapsed().as_micros())?)?;
    }
    Ok(times)
}

async fn access_token(key: &Value, uri: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = json!({
        "iss": key["client_email"],
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": uri,
        "iat": now,
        "exp": now + 3_600,
    });
    let private = EncodingKey::from_rsa_pem(key["private_key"].as_str().unwrap_or_default().as_bytes())?;
    let assertion = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &private)?;
    let form = format!("grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion={assertion}");
    let request = reqwest::Client::new().post(uri).body(form);
    let answer = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").send().await?;
    let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
    Ok(answer["access_token"].as_str().context("no access token")?.to_owned())
}

fn print(line: &str) -> Result<()> {
    use std::io::Write as _;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

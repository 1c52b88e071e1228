//! What nobody may find in anything a process writes: keys, passwords, tokens, tickets, and what people tell each other.
//! The processes log all they can, and people do what is right and what is not.

use crate::registry::servers::Server;
use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::json;
use std::{fs, path::Path, process::Stdio};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};
use touchline_client::{Client, Connect, Frame, NewMessage, Socket};
use touchline_harness::{DEADLINE, Process, TestDatabase, binary, eventually};
use touchline_ids::{ConnectionNumber, DeviceId};

const DATABASE_PASSWORD: &str = "database-hunter2";
const REDIS_PASSWORD: &str = "redis-hunter2";
const PASSWORD: &str = "alices own secret horse";
const WRONG_PASSWORD: &str = "what mallory guesses";
const PUSH_TOKEN: &str = "cGhvbmU:APA91bH-hunter2";
const TEXT: &str = "meet me at the pier at nine";
const REFUSED_TEXT: &str = "this was never accepted";

/// Secrets by name.
type Secrets = Vec<(&'static str, String)>;

/// The part of a signed token that is worth stealing, wherever the rest is shown.
fn signature(token: &str) -> String {
    token.rsplit('.').next().unwrap_or_default().to_owned()
}

/// Everything with a secret in it that a client can do, well and badly. What the server answers to bad requests is
/// for the one who sent them; the logs are not.
async fn conversation(http: &str) -> Result<Secrets> {
    let nobody = Client::new(http)?;
    let login = nobody.sign_up("alice", PASSWORD, None).await?;
    let again = nobody.refresh(&login.refresh_token).await?;
    nobody.log_in("alice", WRONG_PASSWORD).await.expect_err("a wrong password");
    let alice = nobody.as_user(&again.access_token);
    let channel = alice.create_channel("lobby", &[]).await?.id;

    let device: DeviceId = "phone".parse()?;
    eventually("there is a gateway", async || Ok(alice.connect(&device).await.is_ok())).await?;
    let Connect { gateways, ticket, .. } = alice.connect(&device).await?;
    let mut socket = Socket::open(&gateways[0].url, &ticket, &device, ConnectionNumber(1)).await?;
    assert!(Socket::open(&gateways[0].url, &ticket, &device, ConnectionNumber(2)).await.is_err(), "a used ticket");
    for bad in [json!({"type": "dance", "text": REFUSED_TEXT}).to_string(), format!("{{\"{REFUSED_TEXT}\":")] {
        socket.send(bad).await?;
    }
    alice.send(channel, &NewMessage::new(TEXT)).await?;
    let arrived = async {
        loop {
            if matches!(socket.next().await?, Frame::Message(message) if message.content == TEXT) {
                return anyhow::Ok(());
            }
        }
    };
    timeout(DEADLINE, arrived).await.context("the message")??;

    alice.put_device(&device, "android", "token", PUSH_TOKEN).await?;
    alice.put_device(&device, "android", PUSH_TOKEN, PUSH_TOKEN).await.expect_err("no such kind");
    alice.put_device(&device, "android", "token", &format!("{PUSH_TOKEN} ")).await.expect_err("no visible character");
    assert!(!format!("{:?}", alice.devices().await?).contains(PUSH_TOKEN));

    let messages = format!("/v1/channels/{channel}/messages");
    for bad in [
        json!({"client_message_id": REFUSED_TEXT, "content": TEXT}),
        json!({"client_message_id": "1", "content": [REFUSED_TEXT]}),
        json!({"client_message_id": "1", "content": TEXT, "text": REFUSED_TEXT}),
    ] {
        alice.call(Method::POST, &messages, Some(&bad)).await.expect_err("a bad body");
    }
    for bad in [format!("{}x", again.access_token), ticket.clone(), again.refresh_token.clone()] {
        nobody.as_user(&bad).me().await.expect_err("not an access token");
    }
    assert_eq!(alice.history(channel, None, None, None).await?.messages.len(), 2);
    assert_eq!(alice.sync(&[], None).await?.channels.len(), 1);
    nobody.refresh(&login.refresh_token).await.expect_err("a used token");
    socket.close().await;
    Ok(vec![
        ("password", PASSWORD.to_owned()),
        ("wrong password", WRONG_PASSWORD.to_owned()),
        ("access token", signature(&login.access_token)),
        ("second access token", signature(&again.access_token)),
        ("refresh token", login.refresh_token),
        ("second refresh token", again.refresh_token),
        ("ticket", signature(&ticket)),
        ("push token", PUSH_TOKEN.to_owned()),
        ("text", TEXT.to_owned()),
        ("refused text", REFUSED_TEXT.to_owned()),
        ("password hash", "$argon2id$".to_owned()),
    ])
}

/// The private key, line by line: a part of it is bad enough.
fn private_key(file: &Path) -> Result<Secrets> {
    let pem = fs::read_to_string(file)?;
    Ok(pem.lines().filter(|line| !line.starts_with('-')).map(|line| ("private key", line.to_owned())).collect())
}

fn assert_shown_nowhere(secrets: &Secrets, shown: &[(String, String)]) {
    for (name, secret) in secrets {
        assert!(secret.len() >= 8, "{name} is too short to be looked for");
        for (place, text) in shown {
            let lines: Vec<_> = text.lines().filter(|line| line.contains(secret)).take(3).collect();
            assert!(lines.is_empty(), "the {name} is shown in {place}:\n{}", lines.join("\n"));
        }
    }
}

/// What a process shows the world: its log, and its command line to everybody on the machine.
fn shown_by(name: &str, process: &Process) -> Result<Vec<(String, String)>> {
    let pid = process.pid().context("it runs")?;
    let command_line = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline"))?).into_owned();
    let log = process.log();
    ensure!(log.contains("DEBUG"), "{name} does not log all it can: {log}");
    Ok(vec![(format!("the log of {name}"), log), (format!("the command line of {name}"), command_line)])
}

/// What `touchline ARGUMENTS…` writes, and whether it went well.
async fn run(folder: &Path, arguments: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(binary()?);
    command.args(arguments).current_dir(folder).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let ended = timeout(DEADLINE, command.output()).await.with_context(|| format!("{arguments:?} does not end"))??;
    let written = [ended.stdout, ended.stderr].concat();
    Ok((ended.status.success(), String::from_utf8_lossy(&written).into_owned()))
}

/// A URL with a password in it. The tests' Postgres asks for none, and takes any.
fn with_password(url: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").context("a URL")?;
    let (user, rest) = rest.split_once('@').context("a user in the URL")?;
    let user = user.split(':').next().unwrap_or_default();
    Ok(format!("{scheme}://{user}:{DATABASE_PASSWORD}@{rest}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_write_no_secret_anywhere() -> Result<()> {
    let database = TestDatabase::create().await?;
    let redis = Server::start(&[]).await;
    redis.run::<()>(&format!("ACL SETUSER touchline on >{REDIS_PASSWORD} ~* &* +@all")).await?;
    redis.run::<()>("ACL SETUSER default off").await?;
    let folder = TempDir::with_prefix("touchline-secrets.")?;
    let folder = folder.path();
    fs::write(folder.join("database-url"), with_password(&database.url())?)?;
    fs::write(folder.join("redis-password"), REDIS_PASSWORD)?;

    let (_, made) = run(folder, &["token", "new-key", "--dir", "keys"]).await?;
    let rest = format!(
        "[database]\nurl_file = \"database-url\"\n\
         [registry]\nmode = \"single\"\nurls = [\"{}\"]\nusername = \"touchline\"\npassword_file = \"redis-password\"\n\
         [api]\nlisten = \"127.0.0.1:0\"\n[gateway]\nws = \"127.0.0.1:0\"\ngrpc = \"127.0.0.1:0\"\n\
         [telemetry]\nfilter = \"trace\"\n",
        redis.url()
    );
    fs::write(folder.join("touchline.toml"), format!("{made}{rest}"))?;
    let mut shown = vec![("`touchline token new-key`".to_owned(), made)];
    for command in ["migrate up", "migrate status", "config print", "config check"] {
        let arguments: Vec<_> = command.split(' ').collect();
        let (fine, written) = run(folder, &arguments).await?;
        ensure!(fine, "{command}: {written}");
        shown.push((format!("`touchline {command}`"), written));
    }

    let mut gateway = Process::start("gateway", folder, &["gateway"]).await?;
    let mut api = Process::start("api", folder, &["api"]).await?;
    let mut secrets = conversation(api.address("http")?).await?;
    shown.extend(shown_by("the api", &api)?);
    shown.extend(shown_by("the gateway", &gateway)?);
    for process in [&mut api, &mut gateway] {
        process.terminate()?;
        ensure!(process.ended(DEADLINE).await?.success());
        shown.push(("the log of a stop".to_owned(), process.log()));
    }
    // And when the servers are not there.
    fs::write(folder.join("database-url"), format!("postgres://touchline:{DATABASE_PASSWORD}@127.0.0.1:1/none"))?;
    drop(redis);
    for command in ["api", "gateway", "migrate up"] {
        let arguments: Vec<_> = command.split(' ').collect();
        let (fine, written) = run(folder, &arguments).await?;
        ensure!(!fine, "{command} without its servers: {written}");
        shown.push((format!("`touchline {command}` without its servers"), written));
    }
    secrets.extend(private_key(&folder.join("keys/signing-key.pem"))?);
    secrets.push(("database password", DATABASE_PASSWORD.to_owned()));
    secrets.push(("Redis password", REDIS_PASSWORD.to_owned()));
    assert_shown_nowhere(&secrets, &shown);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_writes_no_secret_anywhere() -> Result<()> {
    let folder = TempDir::with_prefix("touchline-secrets.")?;
    let folder = folder.path();
    for format in ["text", "json"] {
        fs::write(folder.join("dev.toml"), format!("[telemetry]\nfilter = \"trace\"\nformat = \"{format}\"\n"))?;
        let addresses = ["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--data-dir", format];
        let arguments = [&["dev", "--config", "dev.toml"], &addresses[..]].concat();
        let dev = Process::start("dev", folder, &arguments).await?;
        let mut secrets = conversation(dev.address("http")?).await?;
        secrets.extend(private_key(&folder.join(format).join("signing-key.pem"))?);
        assert_shown_nowhere(&secrets, &shown_by("dev", &dev)?);
    }
    Ok(())
}

//! The binary as its users meet it: exit codes, ready lines, refusals, and the tools for hands.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Output, Stdio},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use touchline_client::Client;
use touchline_harness::{DEADLINE, Process, binary};

const USAGE: Option<i32> = Some(64);
const FAILURE: Option<i32> = Some(1);
const FINE: Option<i32> = Some(0);

const ANY_PORTS: [&str; 7] = ["dev", "--http", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--data-dir", "data"];

fn command(folder: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(arguments).current_dir(folder).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// Runs `touchline ARGUMENTS…` to its end.
async fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
    let ended = command(folder, arguments)?.envs(environment.iter().copied()).output();
    Ok(timeout(DEADLINE, ended).await.with_context(|| format!("{arguments:?} does not end"))??)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder with keys and a configuration that an api and a gateway could start with.
async fn configured() -> Result<TempDir> {
    let folder = TempDir::with_prefix("touchline-binary.")?;
    let made = run(folder.path(), &["token", "new-key", "--dir", "keys"], &[]).await?;
    ensure!(made.status.success(), "{}", text(&made.stderr));
    let rest =
        "[registry]\nmode = \"single\"\nurls = [\"redis://127.0.0.1:1\"]\n[database]\nurl = \"sqlite://messages.db\"\n";
    fs::write(folder.path().join("touchline.toml"), text(&made.stdout) + rest)?;
    Ok(folder)
}

#[tokio::test]
async fn every_problem_of_the_configuration_is_named_and_the_exit_code_is_64() -> Result<()> {
    let folder = configured().await?;
    let file = folder.path().join("touchline.toml");
    let good = fs::read_to_string(&file)?;
    fs::write(&file, good.replace("single", "clustr") + "max_conections = 3\n[gatway]\n[api]\nheartbeat_s = 1\n")?;
    let environment = [("TOUCHLINE__API__MAX_MEMBERS", "many"), ("TOUCHLINE__AUTH__SIGNING_KEY_FILE", "/nowhere.pem")];
    let checked = run(folder.path(), &["config", "check"], &environment).await?;
    let told = text(&checked.stderr);
    assert_eq!(checked.status.code(), USAGE, "{told}");
    for expected in [
        "database.max_conections: unknown key; did you mean database.max_connections? (touchline.toml:",
        "gatway: unknown key; did you mean gateway? (touchline.toml:",
        "api.heartbeat_s: must be 5 to 300 (touchline.toml:",
        "registry.mode: expected one of `memory`, `single`, `sentinel`, `cluster` (touchline.toml:",
        "api.max_members: expected usize (TOUCHLINE__API__MAX_MEMBERS)",
        "auth.signing_key_file: /nowhere.pem: No such file",
    ] {
        assert_eq!(told.lines().filter(|line| line.starts_with(expected)).count(), 1, "{expected}\n{told}");
    }
    assert!(checked.stdout.is_empty());
    // A service says the same instead of starting.
    let started = run(folder.path(), &["api"], &environment).await?;
    assert_eq!((started.status.code(), text(&started.stderr).contains("gatway")), (USAGE, true));
    Ok(())
}

#[tokio::test]
async fn a_good_configuration_passes_and_its_secrets_are_not_printed() -> Result<()> {
    let folder = configured().await?;
    let key = folder.path().join("keys/signing-key.pem");
    assert_eq!(fs::metadata(&key)?.permissions().mode() & 0o777, 0o600);
    for arguments in [&["config", "check"][..], &["config", "check", "gateway"]] {
        let checked = run(folder.path(), arguments, &[]).await?;
        assert_eq!(checked.status.code(), FINE, "{}", text(&checked.stderr));
    }
    fs::write(folder.path().join("password"), "hunter2\n")?;
    let environment = [
        ("TOUCHLINE__REGISTRY__PASSWORD_FILE", "password"),
        ("TOUCHLINE__DATABASE__URL", "postgres://touchline:hunter2@db/touchline"),
    ];
    let printed = run(folder.path(), &["config", "print"], &environment).await?;
    let printed = text(&printed.stdout);
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("password = \"***\"  # TOUCHLINE__REGISTRY__PASSWORD_FILE"), "{printed}");
    assert!(
        printed.contains("url = \"postgres://touchline:***@db/touchline\"  # TOUCHLINE__DATABASE__URL"),
        "{printed}"
    );
    Ok(())
}

#[tokio::test]
async fn bad_usage_ends_with_64_and_help_with_0() -> Result<()> {
    let folder = TempDir::new()?;
    for bad in [&["serve"][..], &["dev", "--http", "here"], &["tail"], &["config", "check", "--config", "missing.toml"]]
    {
        let ended = run(folder.path(), bad, &[]).await?;
        assert_eq!(ended.status.code(), USAGE, "{bad:?}");
        assert!(!ended.stderr.is_empty() && ended.stdout.is_empty(), "{bad:?}");
    }
    for good in [&["--help"][..], &["--version"], &["tail", "--help"]] {
        let ended = run(folder.path(), good, &[]).await?;
        assert_eq!(ended.status.code(), FINE, "{good:?}");
        assert!(ended.stderr.is_empty() && !ended.stdout.is_empty(), "{good:?}");
    }
    Ok(())
}

#[tokio::test]
async fn dev_needs_nothing_and_prints_one_ready_line() -> Result<()> {
    let folder = TempDir::new()?;
    let mut dev = command(folder.path(), &ANY_PORTS)?.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut stdout = BufReader::new(dev.stdout.take().context("stdout is piped")?);
    let mut ready = String::new();
    timeout(DEADLINE, stdout.read_line(&mut ready)).await??;
    let words: Vec<_> = ready.split_whitespace().collect();
    let ["touchline", "ready", http, ws] = words[..] else { anyhow::bail!("{ready:?}") };
    let http = http.strip_prefix("http=").context(ready.clone())?;
    assert!(http.starts_with("http://127.0.0.1:") && !http.ends_with(":0"), "{ready}");
    assert!(ws.starts_with("ws=ws://127.0.0.1:") && !ws.ends_with(":0"), "{ready}");
    // It serves from that line on: a client that connects at once is sent to the gateway.
    let nobody = Client::new(http)?;
    let alice = nobody.sign_up("alice", "correct horse battery", None).await?;
    let connect = nobody.as_user(&alice.access_token).connect(&"phone".parse()?).await?;
    assert_eq!(format!("ws={}", connect.gateways[0].url), ws);
    let data = folder.path().join("data");
    assert_eq!(fs::metadata(&data)?.permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(data.join("signing-key.pem"))?.permissions().mode() & 0o777, 0o600);

    let pid = dev.id().context("it runs")?.to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await?.success());
    let ended = timeout(DEADLINE, dev.wait()).await??;
    assert_eq!(ended.code(), FINE);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await?;
    assert_eq!(rest, "", "stdout has the ready line and nothing else");
    Ok(())
}

#[tokio::test]
async fn a_second_dev_on_one_data_dir_stops_with_a_clear_error() -> Result<()> {
    let folder = TempDir::new()?;
    let _first = Process::start("first", folder.path(), &ANY_PORTS).await?;
    let second = run(folder.path(), &ANY_PORTS, &[]).await?;
    let told = text(&second.stderr);
    assert_eq!(second.status.code(), FAILURE, "{told}");
    assert!(told.contains("data is used by another `touchline dev`") && told.contains("--data-dir"), "{told}");
    assert!(second.stdout.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_the_flag() -> Result<()> {
    let folder = TempDir::new()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    for (http, ws, flag) in [(address.as_str(), "127.0.0.1:0", "--http"), ("127.0.0.1:0", address.as_str(), "--ws")] {
        let arguments = ["dev", "--http", http, "--ws", ws, "--data-dir", "data"];
        let ended = run(folder.path(), &arguments, &[]).await?;
        let told = text(&ended.stderr);
        assert_eq!(ended.status.code(), FAILURE, "{told}");
        assert!(told.contains(&format!("{address} is taken")) && told.contains(flag), "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn an_older_schema_is_refused_and_migrate_mends_it() -> Result<()> {
    let folder = configured().await?;
    let refused = run(folder.path(), &["api"], &[]).await?;
    let told = text(&refused.stderr);
    assert_eq!(refused.status.code(), FAILURE, "{told}");
    assert!(told.contains("touchline migrate up"), "{told}");

    let migrate = async |action: &[&str]| -> Result<String> {
        let arguments: Vec<_> = ["migrate"].iter().chain(action).copied().collect();
        let ended = run(folder.path(), &arguments, &[]).await?;
        ensure!(ended.status.success(), "{action:?}: {}", text(&ended.stderr));
        Ok(text(&ended.stdout))
    };
    let missing = migrate(&["status"]).await?;
    let steps = missing.lines().count();
    assert!(steps > 0 && missing.lines().all(|line| line.starts_with("missing ")), "{missing}");
    assert_eq!(migrate(&["up"]).await?.lines().filter(|line| line.starts_with("applied ")).count(), steps);
    assert_eq!(migrate(&["up"]).await?, "nothing to do\n");
    migrate(&["down", "--steps", "1"]).await?;
    let status = migrate(&["status"]).await?;
    assert_eq!(status.lines().filter(|line| line.starts_with("missing ")).count(), 1, "{status}");
    // Now only the registry is missing, which is a failure of another kind.
    migrate(&["up"]).await?;
    let refused = run(folder.path(), &["api", "--http", "127.0.0.1:0"], &[]).await?;
    let told = text(&refused.stderr);
    assert!(refused.status.code() == FAILURE && told.contains("registry") && !told.contains("migrate"), "{told}");
    Ok(())
}

#[tokio::test]
async fn dev_brings_an_older_data_dir_up_to_date_and_keeps_what_is_in_it() -> Result<()> {
    let folder = TempDir::new()?;
    let mut dev = Process::start("dev", folder.path(), &ANY_PORTS).await?;
    let alice = Client::new(dev.address("http")?)?.sign_up("alice", "correct horse battery", None).await?;
    dev.terminate()?;
    assert!(dev.ended(DEADLINE).await?.success());
    let database = [("TOUCHLINE__DATABASE__URL", "sqlite://data/touchline.db")];
    let down = run(folder.path(), &["migrate", "down", "--steps", "1"], &database).await?;
    assert!(down.status.success(), "{}", text(&down.stderr));

    let dev = Process::start("again", folder.path(), &ANY_PORTS).await?;
    // The key is the old one too: the token of before is as good as ever.
    let again = Client::new(dev.address("http")?)?.as_user(&alice.access_token);
    assert_eq!(again.me().await?, alice.user);
    let status = run(folder.path(), &["migrate", "status"], &database).await?;
    assert!(text(&status.stdout).lines().all(|line| line.starts_with("applied ")), "{}", text(&status.stdout));
    Ok(())
}

#[tokio::test]
async fn a_token_made_by_hand_is_accepted() -> Result<()> {
    let folder = TempDir::new()?;
    let dev = Process::start("dev", folder.path(), &ANY_PORTS).await?;
    let nobody = Client::new(dev.address("http")?)?;
    let alice = nobody.sign_up("alice", "correct horse battery", None).await?.user;
    for user in [alice.handle.clone(), alice.id.to_string()] {
        let minted = run(folder.path(), &["token", &user, "--data-dir", "data"], &[]).await?;
        assert_eq!(minted.status.code(), FINE, "{}", text(&minted.stderr));
        assert_eq!(nobody.as_user(text(&minted.stdout).trim()).me().await?, alice);
    }
    let nobody = run(folder.path(), &["token", "mallory", "--data-dir", "data"], &[]).await?;
    assert_eq!((nobody.status.code(), nobody.stdout.is_empty()), (FAILURE, true));
    Ok(())
}

/// A running `touchline tail`.
pub struct Tail {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Tail {
    pub fn start(folder: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = command(folder, arguments)?.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        Ok(Self { lines, _child: child })
    }

    /// The next line. Its time of day is cut off.
    pub async fn line(&mut self) -> Result<String> {
        let line = timeout(DEADLINE, self.lines.next_line()).await.context("no line came")??;
        let line = line.context("tail has ended")?;
        Ok(line.split_once(' ').map_or(line.as_str(), |(_, rest)| rest).to_owned())
    }
}

async fn send(folder: &Path, url: &str, arguments: &[&str]) -> Result<String> {
    let arguments: Vec<_> = ["send", "--url", url].iter().chain(arguments).copied().collect();
    let sent = run(folder, &arguments, &[]).await?;
    ensure!(sent.status.success(), "{arguments:?}: {}", text(&sent.stderr));
    Ok(text(&sent.stdout))
}

/// The README's three terminals.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_sent_by_hand_arrives_in_the_tail() -> Result<()> {
    let folder = TempDir::new()?;
    let dev = Process::start("dev", folder.path(), &ANY_PORTS).await?;
    let url = dev.address("http")?;
    // Whoever is invited must exist: `tail --as` would sign bob up, at a moment nobody can see from outside.
    let nobody = Client::new(url)?;
    nobody.sign_up("bob", "touchline-development", None).await?;
    let mut tail = Tail::start(folder.path(), &["tail", "--as", "bob", "--url", url])?;
    let sent = send(folder.path(), url, &["general", "hello", "--as", "alice", "--invite", "bob"]).await?;
    assert!(sent.starts_with("general seq=2 message_id="), "{sent}");
    assert!(tail.line().await?.starts_with("general * alice made the channel, with "));
    assert_eq!(tail.line().await?, "general alice: hello");
    send(folder.path(), url, &["general", "\u{1b}[31mred", "--as", "alice"]).await?;
    assert_eq!(tail.line().await?, "general alice: \\u{1b}[31mred");

    // One channel only, as frames, beginning with the last message.
    let arguments = ["tail", "general", "--as", "bob", "--url", url, "--json", "--recent", "1"];
    let mut frames = Tail::start(folder.path(), &arguments)?;
    let frame: serde_json::Value = serde_json::from_str(&frames.line().await?)?;
    assert_eq!((frame["type"].as_str(), frame["seq"].as_i64()), (Some("message"), Some(3)), "{frame}");

    let refused = run(folder.path(), &["send", "other", "x", "--as", "alice", "--url", url], &[]).await?;
    assert_eq!(refused.status.code(), FAILURE);
    assert!(text(&refused.stderr).contains("--invite"), "{}", text(&refused.stderr));

    // Only a refused password makes it ask for one.
    nobody.sign_up("eve", "her own secret", None).await?;
    for (who, asks) in [("eve", true), ("no handle", false)] {
        let refused = run(folder.path(), &["send", "other", "x", "--as", who, "--url", url], &[]).await?;
        let told = text(&refused.stderr);
        assert_eq!((refused.status.code(), told.contains("--password")), (FAILURE, asks), "{told}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_outlives_its_server_and_shows_everything_once() -> Result<()> {
    let folder = TempDir::new()?;
    let mut dev = Process::start("dev", folder.path(), &ANY_PORTS).await?;
    let url = dev.address("http")?.to_owned();
    let (http, ws) = (address(&url)?, address(dev.address("ws")?)?);
    Client::new(&url)?.sign_up("bob", "touchline-development", None).await?;
    send(folder.path(), &url, &["general", "one", "--as", "alice", "--invite", "bob"]).await?;
    let mut tail = Tail::start(folder.path(), &["tail", "general", "--as", "bob", "--url", &url])?;
    assert!(tail.line().await?.contains("made the channel"));
    assert_eq!(tail.line().await?, "general alice: one");

    dev.kill().await?;
    let arguments = ["dev", "--http", &http, "--ws", &ws, "--data-dir", "data"];
    let _again = Process::start("again", folder.path(), &arguments).await?;
    for number in ["two", "three", "four"] {
        send(folder.path(), &url, &["general", number, "--as", "alice"]).await?;
        assert_eq!(tail.line().await?, format!("general alice: {number}"));
    }
    Ok(())
}

fn address(url: &str) -> Result<String> {
    Ok(url.split_once("://").context("a URL")?.1.to_owned())
}

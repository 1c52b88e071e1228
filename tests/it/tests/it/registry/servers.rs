//! Redis servers of a test's own, to stop, hang and restart.

use super::raw;
use redis::aio::MultiplexedConnection;
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// One redis-server process on 127.0.0.1 with a folder of its own. Ends with the value.
pub(crate) struct Server {
    process: Child,
    port: u16,
    folder: PathBuf,
    options: Vec<String>,
}

impl Server {
    /// Starts one that keeps its data over restarts. `options` are lines of redis.conf.
    pub(crate) async fn start(options: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("touchline-redis-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).expect("a temporary folder");
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        for _ in 0..5 {
            let port = free_port();
            let process = spawn(port, &folder, &options);
            let mut server = Self { process, port, folder: folder.clone(), options: options.clone() };
            if server.answers().await {
                return server;
            }
            // Somebody else took the port; dropping the value removes the folder.
            drop(server);
            std::fs::create_dir(&folder).expect("a temporary folder");
        }
        panic!("redis-server does not start");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it was running");
        self.process.wait().expect("it ends");
    }

    /// Kills it first, unless that was done.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.process = spawn(self.port, &self.folder, &self.options);
        assert!(self.answers().await, "redis-server does not start again");
    }

    /// STOP makes it hang, CONT makes it go on.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.process.id().to_string()).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Runs a command on it.
    pub(crate) async fn run<T: redis::FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut cmd = redis::Cmd::new();
        for arg in command.split(' ') {
            cmd.arg(arg);
        }
        cmd.query_async(&mut self.connection().await).await
    }

    async fn connection(&self) -> MultiplexedConnection {
        raw(&self.url()).await
    }

    /// Waits until this very process answers. False when it ended instead.
    async fn answers(&mut self) -> bool {
        let client = redis::Client::open(self.url()).expect("a redis URL");
        let own = format!("process_id:{}\r", self.process.id());
        let mut running = true;
        eventually("redis-server answers", async || {
            running = self.process.try_wait().expect("its state is known").is_none();
            let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return !running };
            let info = redis::cmd("INFO").arg("server").query_async::<String>(&mut connection).await;
            // It tells while it still loads its data; a ping waits for that.
            let loaded = redis::cmd("PING").query_async::<()>(&mut connection).await.is_ok();
            !running || loaded && info.is_ok_and(|info| info.contains(&own))
        })
        .await;
        running
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn spawn(port: u16, folder: &Path, options: &[String]) -> Child {
    let config = folder.join("redis.conf");
    // Sentinel and Cluster keep their state in files of this folder; a restart must find it.
    if !config.exists() {
        let sentinel = options.iter().any(|option| option.starts_with("sentinel "));
        let durable = if sentinel { "" } else { "appendonly yes\nappendfsync always\nsave \"\"\n" };
        let lines = format!("bind 127.0.0.1\nport {port}\ndir {}\n{durable}{}\n", folder.display(), options.join("\n"));
        std::fs::write(&config, lines).expect("writes its configuration");
    }
    let mut command = Command::new("redis-server");
    command.arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
    if options.iter().any(|option| option.starts_with("sentinel ")) {
        command.arg("--sentinel");
    }
    command.spawn().expect("redis-server is installed: run tests/run")
}

/// Free now, and low enough for the Cluster bus, which listens 10,000 above.
pub(super) fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        if port <= 55_535 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// Three masters that share all slots, and nobody else.
pub(crate) async fn cluster() -> Vec<Server> {
    let options = ["cluster-enabled yes", "cluster-node-timeout 2000", "cluster-require-full-coverage no"];
    let mut servers = Vec::new();
    for (first, last) in [(0, 5_460), (5_461, 10_922), (10_923, 16_383)] {
        let server = Server::start(&options).await;
        server.run::<()>(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")).await.expect("takes slots");
        servers.push(server);
    }
    for server in &servers[1..] {
        servers[0].run::<()>(&format!("CLUSTER MEET 127.0.0.1 {}", server.port)).await.expect("meets");
    }
    eventually("every node knows every slot", async || {
        for server in &servers {
            let info: String = server.run("CLUSTER INFO").await.expect("tells");
            if !info.contains("cluster_slots_assigned:16384") || !info.contains("cluster_state:ok") {
                return false;
            }
        }
        true
    })
    .await;
    servers
}

/// Waits until `happens`, half a minute at most.
pub(crate) async fn eventually(what: &str, mut happens: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !happens().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

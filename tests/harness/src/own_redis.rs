//! Redis servers of a test's own, to stop, hang, flush and fail over.

use crate::{eventually, ports::free_port, signals::signal};
use anyhow::{Context as _, Result, bail};
use redis::{FromRedisValue, aio::MultiplexedConnection};
use rustix::process::Signal;
use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// Ports that are tried; somebody else may be quicker.
const TRIES: usize = 5;
/// How a master is called at its Sentinels.
pub const SENTINEL_MASTER: &str = "touchline";
/// How soon a Sentinel thinks that a master is gone.
const DOWN_AFTER_MS: u32 = 2_000;

/// One redis-server on 127.0.0.1. It keeps nothing over a restart unless its options say so. Ends with the value.
#[derive(Debug)]
pub struct OwnRedis {
    process: Child,
    port: u16,
    folder: TempDir,
    sentinel: bool,
}

impl OwnRedis {
    /// Starts one. `options` are lines of redis.conf.
    ///
    /// # Errors
    /// When redis-server is not installed or does not start.
    pub async fn start(options: &[&str]) -> Result<Self> {
        Self::start_as(options, false).await
    }

    /// Starts a Sentinel that watches `master` alone: its word decides. Promotes a replica two seconds after the
    /// master died, and leaves replicas of another address than the master's alone for minutes.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn sentinel(master: &Self) -> Result<Self> {
        let monitor = format!("sentinel monitor {SENTINEL_MASTER} 127.0.0.1 {} 1", master.port);
        let down = format!("sentinel down-after-milliseconds {SENTINEL_MASTER} {DOWN_AFTER_MS}");
        let failover = format!("sentinel failover-timeout {SENTINEL_MASTER} 300000");
        Self::start_as(&[&monitor, &down, &failover], true).await
    }

    async fn start_as(options: &[&str], sentinel: bool) -> Result<Self> {
        for _ in 0..TRIES {
            let (port, folder) = (free_port()?, TempDir::with_prefix("touchline-redis.")?);
            let options = options.join("\n");
            let own = format!("bind 127.0.0.1\nport {port}\ndir {}\nsave \"\"\n", folder.path().display());
            let debug = if sentinel { "" } else { "enable-debug-command yes\n" };
            std::fs::write(folder.path().join("redis.conf"), format!("{own}{debug}{options}\n"))?;
            let mut server = Self { process: spawn(&folder, sentinel)?, port, folder, sentinel };
            if server.answers().await? {
                return Ok(server);
            }
        }
        bail!("redis-server does not start")
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Such as `redis://127.0.0.1:12345`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn kill(&mut self) -> Result<()> {
        signal(self.process.id(), Signal::KILL)?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// When somebody else took the port.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = spawn(&self.folder, self.sentinel)?;
        if self.answers().await? { Ok(()) } else { bail!("redis-server does not start again") }
    }

    /// SIGSTOP: it hangs.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        signal(self.process.id(), Signal::STOP)
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Result<()> {
        signal(self.process.id(), Signal::CONT)
    }

    /// Runs a command, its words separated by blanks, such as `CLIENT PAUSE 5000 ALL`.
    ///
    /// # Errors
    /// When it cannot be reached or refuses.
    pub async fn run<T: FromRedisValue>(&self, command: &str) -> Result<T> {
        let mut request = redis::Cmd::new();
        command.split(' ').for_each(|word| {
            request.arg(word);
        });
        request.query_async(&mut self.connection().await?).await.with_context(|| command.to_owned())
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(Duration::from_secs(10)));
        Ok(redis::Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// Waits until this very process answers. False when it ended instead.
    async fn answers(&mut self) -> Result<bool> {
        let own = format!("process_id:{}\r", self.process.id());
        let mut running = true;
        eventually("redis-server answers", async || {
            running = self.process.try_wait()?.is_none();
            // It tells while it still loads its data; a ping waits for that.
            let there = self.run::<String>("INFO server").await.is_ok_and(|info| info.contains(&own))
                && self.run::<()>("PING").await.is_ok();
            Ok(!running || there)
        })
        .await?;
        Ok(running)
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn spawn(folder: &TempDir, sentinel: bool) -> Result<Child> {
    let mut command = Command::new("redis-server");
    command.arg(folder.path().join("redis.conf"));
    if sentinel {
        command.arg("--sentinel");
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("redis-server: run tests/run, it installs it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn killed_it_forgets_everything_and_keeps_its_port() {
        let mut redis = OwnRedis::start(&[]).await.unwrap();
        redis.run::<()>("SET key value").await.unwrap();
        let url = redis.url();
        redis.kill().unwrap();
        assert!(redis.run::<()>("PING").await.is_err());
        redis.start_again().await.unwrap();
        assert_eq!((redis.run::<i64>("DBSIZE").await.unwrap(), redis.url()), (0, url));
    }

    #[tokio::test]
    async fn a_sentinel_knows_its_master() {
        let redis = OwnRedis::start(&[]).await.unwrap();
        let sentinel = OwnRedis::sentinel(&redis).await.unwrap();
        let ask = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {SENTINEL_MASTER}");
        let (host, port): (String, u16) = sentinel.run(&ask).await.unwrap();
        assert_eq!((host.as_str(), port), ("127.0.0.1", redis.port()));
    }
}

//! A Postgres of a test's own, to stop where it stands, start again, and set back to an earlier day.

use crate::{eventually, ports::free_port, signals::signal};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Signal, getuid};
use sea_orm::ConnectOptions;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// Ports that are tried; somebody else may be quicker.
const TRIES: usize = 5;
/// Where Debian puts each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// One Postgres server on 127.0.0.1 with a data folder of its own. Ends with the value.
#[derive(Debug)]
pub struct OwnPostgres {
    server: Option<Child>,
    port: u16,
    folder: TempDir,
    counts_statements: bool,
}

impl OwnPostgres {
    /// Makes its data folder and starts it.
    ///
    /// # Errors
    /// When Postgres is not installed or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(false).await
    }

    /// One that counts every statement (`pg_stat_statements`), for [`Curtain::reads`](crate::Curtain::reads).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_counting() -> Result<Self> {
        Self::start_with(true).await
    }

    async fn start_with(counts_statements: bool) -> Result<Self> {
        // Under /tmp: short enough for a Unix socket's path.
        let folder = TempDir::with_prefix_in("touchline-postgres.", "/tmp")?;
        if getuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(folder.path()))?;
        }
        let data = folder.path().join("db");
        let arguments = ["-U", "touchline", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"];
        run(program("initdb")?.arg("-D").arg(&data).args(arguments))?;
        let mut this = Self { server: None, port: 0, folder, counts_statements };
        for _ in 0..TRIES {
            this.port = free_port()?;
            if this.start_again().await.is_ok() {
                return Ok(this);
            }
        }
        bail!("postgres does not start: {}", std::fs::read_to_string(this.log())?)
    }

    /// The address of its first database, as `TOUCHLINE_TEST_POSTGRES` would name it.
    pub fn url(&self) -> String {
        format!("postgres://touchline@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts it again, on the same port and data, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start_again(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let server = program("postgres")?
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.folder.path())
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-c", "max_connections=400"])
            .args(self.counts_statements.then_some("--shared_preload_libraries=pg_stat_statements"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let server = self.server.insert(server);
        let url = format!("postgres://touchline@127.0.0.1:{}/postgres", self.port);
        eventually("postgres answers", async || {
            ensure!(server.try_wait()?.is_none(), "postgres ended");
            let mut options = ConnectOptions::new(&url);
            options.max_connections(1).sqlx_logging(false).connect_timeout(Duration::from_secs(1));
            Ok(sea_orm::Database::connect(options).await.is_ok())
        })
        .await
    }

    /// As `pg_ctl stop -m immediate`: no goodbye, no checkpoint; the next start recovers from its log.
    ///
    /// # Errors
    /// When it is not running.
    pub fn stop_immediately(&mut self) -> Result<()> {
        let mut server = self.server.take().context("postgres is not running")?;
        signal(server.id(), Signal::QUIT)?;
        server.wait()?;
        Ok(())
    }

    /// Copies the data of the stopped server, for [`restore`](Self::restore).
    ///
    /// # Errors
    /// When it runs, or there is no room.
    pub fn save(&self) -> Result<()> {
        ensure!(self.server.is_none(), "a running server's files do not fit together");
        copy(&self.data(), &self.saved())
    }

    /// Puts the saved data in the place of what the stopped server has now.
    ///
    /// # Errors
    /// When it runs, or nothing was saved.
    pub fn restore(&self) -> Result<()> {
        ensure!(self.server.is_none(), "stop the server first");
        std::fs::remove_dir_all(self.data())?;
        copy(&self.saved(), &self.data())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    fn saved(&self) -> PathBuf {
        self.folder.path().join("saved")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            // It ends within milliseconds, and its files go after it.
            _ = self.stop_immediately();
        }
    }
}

/// A program of the newest Postgres. It refuses to run as root, so it becomes the user that Debian makes for it.
fn program(name: &str) -> Result<Command> {
    let newest = |folder: PathBuf| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| newest(entry.path())).max();
    let path = newest.map_or_else(|| name.into(), |version| PathBuf::from(format!("{VERSIONS}/{version}/bin/{name}")));
    if !getuid().is_root() {
        return Ok(Command::new(path));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(path);
    // The folder we stand in may be closed to that user.
    command.current_dir("/");
    Ok(command)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").arg("-a").arg(from).arg(to))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sea_orm::ConnectionTrait as _;

    async fn run_there(postgres: &OwnPostgres, sql: &str) -> Result<()> {
        let connection = sea_orm::Database::connect(postgres.url()).await?;
        connection.execute_unprepared(sql).await?;
        Ok(connection.close().await?)
    }

    #[tokio::test]
    async fn stopped_where_it_stands_it_keeps_what_was_committed() {
        let mut postgres = OwnPostgres::start().await.unwrap();
        run_there(&postgres, "CREATE TABLE kept (id int)").await.unwrap();
        postgres.stop_immediately().unwrap();
        assert!(run_there(&postgres, "SELECT 1").await.is_err());
        postgres.start_again().await.unwrap();
        run_there(&postgres, "SELECT * FROM kept").await.unwrap();
    }

    #[tokio::test]
    async fn restored_it_has_lost_what_came_after() {
        let mut postgres = OwnPostgres::start().await.unwrap();
        assert!(postgres.save().is_err(), "it runs");
        postgres.stop_immediately().unwrap();
        postgres.save().unwrap();
        postgres.start_again().await.unwrap();
        run_there(&postgres, "CREATE TABLE late (id int)").await.unwrap();
        postgres.stop_immediately().unwrap();
        postgres.restore().unwrap();
        postgres.start_again().await.unwrap();
        assert!(run_there(&postgres, "SELECT * FROM late").await.is_err());
    }
}

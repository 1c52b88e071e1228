//! The real servers a test stands on: a database of its own and a key prefix of its own.

use anyhow::{Context as _, Result};
use sea_orm::{ConnectOptions, ConnectionTrait as _};
use std::time::Duration;
use uuid::Uuid;

const POSTGRES: &str = "TOUCHLINE_TEST_POSTGRES";
const REDIS: &str = "TOUCHLINE_TEST_REDIS";
const REDIS_CLUSTER: &str = "TOUCHLINE_TEST_REDIS_CLUSTER";

/// A Postgres database of one test. Dropped with it, whoever is still connected.
#[derive(Debug)]
pub struct TestDatabase {
    server: String,
    name: String,
    /// Goes away with its server.
    stays: bool,
}

impl TestDatabase {
    /// Creates an empty database on the server named by `TOUCHLINE_TEST_POSTGRES`.
    ///
    /// # Errors
    /// When there is no such server.
    pub async fn create() -> Result<Self> {
        Self::create_at(server(POSTGRES)?, false).await
    }

    /// Creates an empty database on a server of the test's own, which may be away when the test ends: it stays there.
    ///
    /// # Errors
    /// When the server is not there.
    pub async fn create_on(server: &str) -> Result<Self> {
        Self::create_at(server.to_owned(), true).await
    }

    async fn create_at(server: String, stays: bool) -> Result<Self> {
        let database = Self { server, name: format!("t{}", Uuid::now_v7().simple()), stays };
        run(&database.server, &format!("CREATE DATABASE {}", database.name)).await?;
        Ok(database)
    }

    /// Its address, such as `postgres://touchline@127.0.0.1:5432/t0190…`.
    pub fn url(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').expect("the address ends in /database");
        format!("{server}/{}", self.name)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let server = self.server.clone();
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // Drop cannot await and a runtime does not nest: a thread with a runtime of its own.
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&server, &statement))
        });
        if !matches!(dropped.join(), Ok(Ok(()))) {
            eprintln!("the database {} stays behind", self.name);
        }
    }
}

/// `statement` is made of our own names only: neither CREATE nor DROP DATABASE takes parameters.
async fn run(server: &str, statement: &str) -> Result<()> {
    let mut options = ConnectOptions::new(server);
    options.max_connections(1).sqlx_logging(false).connect_timeout(Duration::from_secs(10));
    let connection = sea_orm::Database::connect(options).await.context("connecting to the test's Postgres")?;
    connection.execute_unprepared(statement).await.with_context(|| statement.to_owned())?;
    connection.close().await?;
    Ok(())
}

/// The Redis of the tests, such as `redis://127.0.0.1:6379`.
///
/// # Errors
/// When none is named.
pub fn redis_url() -> Result<String> {
    server(REDIS)
}

/// The masters of the tests' Redis Cluster.
///
/// # Errors
/// When none is named.
pub fn redis_cluster_urls() -> Result<Vec<String>> {
    Ok(server(REDIS_CLUSTER)?.split(',').map(str::to_owned).collect())
}

/// A key prefix nobody else has.
pub fn redis_prefix() -> String {
    format!("t{}:", Uuid::now_v7().simple())
}

fn server(variable: &str) -> Result<String> {
    std::env::var(variable).with_context(|| {
        format!("{variable} names no server: run the tests with tests/run, or one command with `tests/run with …`")
    })
}

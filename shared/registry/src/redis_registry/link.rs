//! The way to Redis: one shared connection, got again from the pool when it broke.

use super::{
    connector::{Connection, Connector, Opened, PATIENCE},
    pipeline::{
        Call, IN_FLIGHT, Make, Part, is_about_slots, is_of_a_wrong_server, one_by_one, pack, server_pipeline, to,
    },
    slots::{Master, SlotMap},
};
use crate::{RegistryError, Settings};
use deadpool::managed::{Pool, PoolError, Timeouts};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use redis::{
    Cmd, ErrorKind, RedisError, Value,
    aio::ConnectionLike,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
};
use std::{
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

/// What each further call of a long pipeline adds to the patience.
const PATIENCE_PER_CALL: Duration = Duration::from_micros(50);
/// After a failed attempt to connect, callers are refused for this long instead of queueing up for the next.
const REST: Duration = Duration::from_millis(50);

/// Values in the order of the calls, and the serial of the connection that brought them.
pub(super) struct Answers {
    pub(super) values: Vec<Value>,
    pub(super) serial: u64,
    /// Some of the calls may have been made twice.
    pub(super) repeated: bool,
}

/// What a master of a Cluster said about our connection to it.
pub(super) struct NodeAnswer {
    pub(super) master: Master,
    pub(super) values: Vec<Value>,
}

/// The way to Redis; clones of its one connection carry every command.
pub(super) struct Link {
    pool: Pool<Connector>,
    kept: RwLock<Option<Opened>>,
    /// Held while getting a connection; when that last failed.
    failed: Mutex<Option<Instant>>,
    slots: RwLock<Arc<SlotMap>>,
}

impl Link {
    pub(super) fn new(settings: &Settings) -> Result<Self, RegistryError> {
        let patience = Some(PATIENCE);
        // One connection is shared by all: 383,000 operations/s, against 22,000 when each takes its own from the pool.
        let pool = Pool::builder(Connector::new(settings)?)
            .max_size(1)
            .timeouts(Timeouts { wait: patience, create: patience, recycle: patience })
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|error| RegistryError::Settings(error.to_string()))?;
        let slots = RwLock::new(Arc::new(SlotMap::unknown()));
        Ok(Self { pool, kept: RwLock::new(None), failed: Mutex::new(None), slots })
    }

    /// One call, sent at most once.
    pub(super) async fn once(&self, command: &Cmd) -> Result<Value, RegistryError> {
        self.patiently(0, async {
            let opened = self.opened().await?;
            let answer = match opened.connection.clone() {
                Connection::Server(mut connection) => connection.req_packed_command(command).await,
                Connection::Cluster(mut connection) => connection.req_packed_command(command).await,
            };
            answer.and_then(Value::extract_error).map_err(|error| self.failed(&opened, error))
        })
        .await
    }

    /// One call, sent again if the connection turns out to be broken.
    pub(super) async fn call(&self, make: &(dyn Fn() -> Call + Sync)) -> Result<Value, RegistryError> {
        let mut answers = self.pipelined(1, &|_| make()).await?;
        answers.values.pop().unwrap_or(Value::Nil).extract_error().map_err(unavailable)
    }

    /// Calls `make(0)` to `make(count - 1)`, pipelined, one pipeline per Cluster master. `make` may be called more than
    /// once for an index. Values may be [`Value::ServerError`].
    pub(super) async fn pipelined(&self, count: usize, make: Make<'_>) -> Result<Answers, RegistryError> {
        self.patiently(count, async {
            let opened = self.opened().await?;
            match self.pipeline(&opened, count, make).await {
                Ok((values, repeated)) => return Ok(Answers { values, serial: opened.serial, repeated }),
                // A server that restarted: the first to notice does not fail for it.
                Err(error) if error.is_unrecoverable_error() => _ = self.failed(&opened, error),
                Err(error) => return Err(self.failed(&opened, error)),
            }
            let opened = self.opened().await?;
            let values = self.pipeline(&opened, count, make).await;
            let (values, _) = values.map_err(|error| self.failed(&opened, error))?;
            Ok(Answers { values, serial: opened.serial, repeated: true })
        })
        .await
    }

    /// Sends the same calls to every master of a Cluster and learns the present masters; nobody when it is no Cluster.
    /// Masters that do not answer are left out.
    pub(super) async fn each_master(
        &self,
        make: &(dyn Fn(&Master) -> Vec<Cmd> + Sync),
    ) -> Result<Vec<NodeAnswer>, RegistryError> {
        self.patiently(0, async {
            let opened = self.opened().await?;
            let Connection::Cluster(connection) = &opened.connection else { return Ok(Vec::new()) };
            let slots = self.learn_slots(connection.clone()).await.map_err(unavailable)?;
            let mut answers = Vec::new();
            for master in slots.masters().iter().cloned() {
                let pipeline = pack(make(&master).into_iter());
                let (mut connection, count) = (connection.clone(), pipeline.len());
                answers.push(async move {
                    let values = connection.route_pipeline(pipeline, 0, count, to(master.slot)).await.ok()?;
                    Some(NodeAnswer { master, values })
                });
            }
            Ok(future::join_all(answers).await.into_iter().flatten().collect())
        })
        .await
    }

    /// The answers, and whether some of the calls were made twice.
    async fn pipeline(&self, opened: &Opened, count: usize, make: Make<'_>) -> Result<(Vec<Value>, bool), RedisError> {
        match &opened.connection {
            Connection::Server(connection) => Ok((server_pipeline(connection, count, make).await?, false)),
            Connection::Cluster(connection) => self.cluster_pipeline(connection, count, make).await,
        }
    }

    /// One pipeline per master, all at the same time.
    async fn cluster_pipeline(
        &self,
        connection: &ClusterConnection,
        count: usize,
        make: Make<'_>,
    ) -> Result<(Vec<Value>, bool), RedisError> {
        let slots = self.slots.read().expect("not poisoned: nothing panics while it is held").clone();
        let mut parts: Vec<Part> = slots.masters().iter().map(|master| Part::new(master.slot)).collect();
        for index in 0..count {
            let call = make(index);
            parts[slots.owner(call.slot)].push(index, call.command);
        }
        parts.retain(|part| !part.indexes.is_empty());
        let answers = parts.into_iter().map(|part| self.part(connection, part, make));
        let (mut values, mut repeated) = (vec![Value::Nil; count], false);
        for (indexes, answers, again) in future::try_join_all(answers).await? {
            repeated |= again;
            for (index, answer) in indexes.into_iter().zip(answers) {
                values[index] = answer;
            }
        }
        Ok((values, repeated))
    }

    /// What one master answers; call by call where its slots have moved meanwhile.
    async fn part(
        &self,
        connection: &ClusterConnection,
        part: Part,
        make: Make<'_>,
    ) -> Result<(Vec<usize>, Vec<Value>, bool), RedisError> {
        let answers = stream::iter(part.pipelines)
            .map(|pipeline| {
                let (mut connection, count) = (connection.clone(), pipeline.len());
                async move { connection.route_pipeline(pipeline, 0, count, to(part.slot)).await }
            })
            .buffered(IN_FLIGHT)
            .try_concat()
            .await;
        match answers {
            Err(error) if is_about_slots(&error) => {
                self.learn_slots(connection.clone()).await?;
                let commands: Vec<Cmd> = part.indexes.iter().map(|index| make(*index).command).collect();
                Ok((part.indexes, one_by_one(connection, commands).await?, true))
            }
            answers => Ok((part.indexes, answers?, false)),
        }
    }

    async fn learn_slots(&self, mut connection: ClusterConnection) -> Result<Arc<SlotMap>, RedisError> {
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
        let answer = connection.route_command(question, route).await?.extract_error()?;
        let slots = Arc::new(SlotMap::read(&answer).ok_or((ErrorKind::Parse, "CLUSTER SLOTS"))?);
        *self.slots.write().expect("not poisoned: nothing panics while it is held") = slots.clone();
        Ok(slots)
    }

    /// The kept connection, or another from the pool.
    async fn opened(&self) -> Result<Opened, RegistryError> {
        match self.kept() {
            Some(opened) => Ok(opened),
            // Boxed: connecting is rare and its future takes 20 KiB.
            None => Box::pin(self.open()).await,
        }
    }

    async fn open(&self) -> Result<Opened, RegistryError> {
        let mut failed = self.failed.lock().await;
        if let Some(opened) = self.kept() {
            return Ok(opened);
        }
        if failed.is_some_and(|at| at.elapsed() < REST) {
            return Err(RegistryError::Unavailable("connecting failed a moment ago".into()));
        }
        let opened = match self.pool.get().await {
            Ok(opened) => Opened::clone(&opened),
            Err(error) => {
                *failed = Some(Instant::now());
                return Err(RegistryError::Unavailable(match error {
                    PoolError::Backend(error) => Box::new(error),
                    error => Box::new(error),
                }));
            }
        };
        if let Connection::Cluster(connection) = &opened.connection {
            self.learn_slots(connection.clone()).await.map_err(unavailable)?;
        }
        *failed = None;
        *self.kept.write().expect("not poisoned: nothing panics while it is held") = Some(opened.clone());
        Ok(opened)
    }

    fn kept(&self) -> Option<Opened> {
        self.kept.read().expect("not poisoned: nothing panics while it is held").clone()
    }

    /// Stops using a connection on which something failed that another one may do better.
    fn failed(&self, opened: &Opened, error: RedisError) -> RegistryError {
        let wrong_server = matches!(error.kind(), ErrorKind::Server(kind) if is_of_a_wrong_server(kind));
        if error.is_unrecoverable_error() || error.is_timeout() || wrong_server {
            self.forget(opened.serial);
        }
        if (error.is_unrecoverable_error() || wrong_server) && matches!(opened.connection, Connection::Server(_)) {
            self.pool.retain(|pooled, _| pooled.serial != opened.serial);
        }
        unavailable(error)
    }

    /// The next caller gets a connection from the pool, which is this one again if it still answers a ping.
    fn forget(&self, serial: u64) {
        let mut kept = self.kept.write().expect("not poisoned: nothing panics while it is held");
        if kept.as_ref().is_some_and(|opened| opened.serial == serial) {
            *kept = None;
        }
    }

    async fn patiently<T>(
        &self,
        count: usize,
        work: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let patience = PATIENCE + PATIENCE_PER_CALL * u32::try_from(count).unwrap_or(u32::MAX);
        match tokio::time::timeout(patience, work).await {
            Ok(result) => result,
            Err(elapsed) => {
                if let Some(opened) = self.kept() {
                    self.forget(opened.serial);
                }
                Err(RegistryError::Unavailable(Box::new(elapsed)))
            }
        }
    }
}

pub(super) fn unavailable(error: RedisError) -> RegistryError {
    RegistryError::Unavailable(Box::new(error))
}

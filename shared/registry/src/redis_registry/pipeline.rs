//! Pipelines: how calls are cut into them, and what their failures mean.

use super::slots;
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::{
    Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster_async::ClusterConnection,
    cluster_routing::{Route, SingleNodeRoutingInfo, SlotAddr},
};

/// Calls in one pipeline. Measured for look-ups of 10,000: no slower than one pipeline of all, and others get a turn.
const CHUNK: usize = 1_000;
/// Pipelines on their way to one server at a time; the next is packed while these are answered.
pub(super) const IN_FLIGHT: usize = 4;
/// Calls one by one on their way at a time, when a Cluster refused a pipeline.
const SINGLES_IN_FLIGHT: usize = 128;

/// Makes the call at an index; see [`Link::pipelined`](super::link::Link::pipelined).
pub(super) type Make<'a> = &'a (dyn Fn(usize) -> Call + Sync);

/// A command on one key. Must be harmless when sent twice: a broken connection does not tell whether it was.
pub(super) struct Call {
    pub(super) slot: u16,
    pub(super) command: Cmd,
}

impl Call {
    pub(super) fn new(key: &[u8], command: Cmd) -> Self {
        Self { slot: slots::slot(key), command }
    }
}

/// What one master is asked, and at which positions the answers belong.
pub(super) struct Part {
    pub(super) slot: u16,
    pub(super) indexes: Vec<usize>,
    pub(super) pipelines: Vec<Pipeline>,
}

impl Part {
    pub(super) fn new(slot: u16) -> Self {
        Self { slot, indexes: Vec::new(), pipelines: Vec::new() }
    }

    pub(super) fn push(&mut self, index: usize, command: Cmd) {
        if self.indexes.len().is_multiple_of(CHUNK) {
            self.pipelines.push(Pipeline::new());
        }
        self.indexes.push(index);
        if let Some(pipeline) = self.pipelines.last_mut() {
            pipeline.add_command(command);
        }
    }
}

/// Sends all calls to one server.
pub(super) async fn server_pipeline(
    connection: &MultiplexedConnection,
    count: usize,
    make: Make<'_>,
) -> Result<Vec<Value>, RedisError> {
    stream::iter((0..count).step_by(CHUNK))
        .map(|start| {
            let pipeline = pack((start..count.min(start + CHUNK)).map(|index| make(index).command));
            let (mut connection, count) = (connection.clone(), pipeline.len());
            async move { connection.req_packed_commands(&pipeline, 0, count).await }
        })
        .buffered(IN_FLIGHT)
        .map(|values| match values {
            Ok(values) if values.iter().any(comes_from_a_wrong_server) => {
                Value::Array(values).extract_error().map(|_| Vec::new())
            }
            values => values,
        })
        .try_concat()
        .await
}

/// Sends commands that each find their own way.
pub(super) async fn one_by_one(connection: &ClusterConnection, commands: Vec<Cmd>) -> Result<Vec<Value>, RedisError> {
    stream::iter(commands)
        .map(|command| {
            let mut connection = connection.clone();
            async move { connection.req_packed_command(&command).await }
        })
        .buffered(SINGLES_IN_FLIGHT)
        .try_collect()
        .await
}

/// One pipeline of all.
pub(super) fn pack(commands: impl ExactSizeIterator<Item = Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline
}

/// To the master of the slot.
pub(super) fn to(slot: u16) -> SingleNodeRoutingInfo {
    SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master))
}

/// Whether a pipeline failed because keys in it lie elsewhere: its calls, one by one, each find their own way.
pub(super) fn is_about_slots(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, CrossSlot, Moved, TryAgain};
    matches!(error.kind(), ErrorKind::Server(Ask | ClusterDown | CrossSlot | Moved | TryAgain))
}

/// Whether a server answers, and pings, but is no master (any more, or yet): only another connection finds the master.
pub(super) fn is_of_a_wrong_server(kind: ServerErrorKind) -> bool {
    use ServerErrorKind::{BusyLoading, MasterDown, ReadOnly};
    matches!(kind, BusyLoading | MasterDown | ReadOnly)
}

fn comes_from_a_wrong_server(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.kind().is_some_and(is_of_a_wrong_server))
}

//! Where the recipients are, and pushing to the gateways that hold them.

use crate::{
    push_stream::{PendingResult, PushStreams},
    writer::Stored,
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use touchline_ids::UserId;
use touchline_proto::{
    convert::pack_users,
    push::{Message, PushRequest, push_request::Purpose},
};
use touchline_registry::{Directory, Group, Lease, Registry};

/// What a look-up may take. After that the push is broadcast: every live gateway says for whom it holds a session.
const LOOK_UP_BUDGET: Duration = Duration::from_millis(100);
/// What it may take to learn of a new incarnation: the directory keeps its questions 100 ms apart.
const VIEW_BUDGET: Duration = Duration::from_millis(200);

/// The recipients that one gateway holds.
pub struct Target {
    gateway: Arc<Lease>,
    /// Positions in the list of users that was routed.
    indexes: Arc<[u32]>,
    /// The same users, packed for the wire; every message to them shares it.
    packed: Bytes,
}

/// One push under way.
pub struct Pushed {
    /// Positions in the list of users that was routed.
    pub indexes: Arc<[u32]>,
    /// What the gateway will say.
    pub result: PendingResult,
}

/// Routes users to gateways and pushes to them.
pub struct Deliverer {
    registry: Arc<dyn Registry>,
    directory: Arc<Directory>,
    streams: Arc<PushStreams>,
    ack_wait: Duration,
}

impl Deliverer {
    /// `ack_wait` is how long gateways wait for acks.
    pub fn new(
        registry: Arc<dyn Registry>,
        directory: Arc<Directory>,
        streams: Arc<PushStreams>,
        ack_wait: Duration,
    ) -> Self {
        Self { registry, directory, streams, ack_wait }
    }

    /// One pipelined look-up of all `users`, grouped by live gateway. Never fails: without an answer from the registry
    /// in time it is a broadcast.
    pub async fn route(&self, users: &[UserId]) -> Vec<Target> {
        let grouped = match timeout(LOOK_UP_BUDGET, self.registry.look_up(users)).await {
            // Asks the registry again when it meets an incarnation that it does not know.
            Ok(Ok(routes)) => match timeout(VIEW_BUDGET, self.directory.group(&routes)).await {
                Ok(groups) => groups.live,
                Err(_) => self.broadcast(users.len(), "over its time budget for who is alive"),
            },
            Ok(Err(error)) => self.broadcast(users.len(), &error.to_string()),
            Err(_) => self.broadcast(users.len(), "over its time budget"),
        };
        let pack = |indexes: &[u32]| {
            if indexes.len() == users.len() {
                return pack_users(users.iter());
            }
            let chosen: Vec<_> = indexes.iter().filter_map(|index| users.get(*index as usize)).copied().collect();
            pack_users(chosen.iter())
        };
        grouped
            .into_iter()
            .map(|Group { lease, users }| Target { packed: pack(&users), gateway: lease, indexes: users.into() })
            .collect()
    }

    fn broadcast(&self, users: usize, reason: &str) -> Vec<Group> {
        let everyone: Vec<u32> = (0u32..).take(users).collect();
        let view = self.directory.view();
        let groups: Vec<_> =
            view.leases().map(|lease| Group { lease: Arc::clone(lease), users: everyone.clone() }).collect();
        tracing::warn!(reason, gateways = groups.len(), "no routes from the registry, broadcasting");
        groups
    }

    /// Hands one message to the stream of every target, without waiting. Messages handed over one after another reach
    /// each gateway in that order.
    pub fn push(&self, stored: &Stored, targets: &[Target]) -> Vec<Pushed> {
        let entry = &stored.entry;
        let message = Message {
            channel_id: Bytes::copy_from_slice(entry.channel_id.as_bytes()).into(),
            seq: entry.seq.0,
            message_id: Bytes::copy_from_slice(entry.message_id.as_bytes()).into(),
            sender_id: Bytes::copy_from_slice(entry.sender_id.as_bytes()).into(),
            kind: entry.kind.as_str().to_owned(),
            content: Bytes::copy_from_slice(entry.content.as_bytes()),
            created_at_ms: entry.created_at_ms,
        };
        let request = |target: &Target| PushRequest {
            push_id: 0, // the stream numbers its pushes
            incarnation: Bytes::copy_from_slice(target.gateway.incarnation.as_bytes()),
            recipients: target.packed.clone(),
            ack_wait_ms: u32::try_from(self.ack_wait.as_millis()).unwrap_or(u32::MAX),
            traceparent: stored.traceparent.clone(),
            message: Some(message.clone()),
            purpose: Purpose::Show.into(),
        };
        targets
            .iter()
            .map(|target| Pushed {
                indexes: Arc::clone(&target.indexes),
                result: self.streams.push(&target.gateway, request(target)),
            })
            .collect()
    }

    /// How long a result can take at most: the gateway's wait for acks and the way there and back.
    pub fn result_wait(&self) -> Duration {
        self.ack_wait + Duration::from_secs(1)
    }
}

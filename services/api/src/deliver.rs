//! Where the recipients are, and pushing to the gateways that hold them.

use crate::{
    delivery::{Ask, Delivery, Holder, Push},
    look_up::LookUps,
    push_stream::{PendingResult, PushStreams},
    writer::Stored,
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use touchline_ids::UserId;
use touchline_proto::{
    convert::pack_users,
    push::{Message, PushRequest, push_request::Purpose},
};
use touchline_registry::{Group, Lease};
use touchline_storage::Entry;

/// Messages that look some of their recipients up again at the same time: thousands do when a gateway dies, and all of
/// them at once would take longer than each may.
const AGAIN: usize = 64;

/// The recipients that one gateway holds.
pub struct Target {
    gateway: Arc<Lease>,
    /// The same as the rules of the delivery see it: positions among the members.
    pub holder: Holder,
    /// The same users, packed for the wire; every message to them shares it.
    packed: Bytes,
}

/// Routes users to gateways and pushes to them.
pub struct Deliverer {
    look_ups: Arc<LookUps>,
    streams: Arc<PushStreams>,
    ack_wait: Duration,
    again: Semaphore,
}

impl Deliverer {
    /// `ack_wait` is how long gateways wait for acks.
    pub fn new(look_ups: Arc<LookUps>, streams: Arc<PushStreams>, ack_wait: Duration) -> Self {
        Self { look_ups, streams, ack_wait, again: Semaphore::new(AGAIN) }
    }

    /// Which gateways hold whom of all these members. Never fails: without an answer from the registry in time it is a
    /// broadcast.
    pub async fn route(&self, members: &[UserId]) -> Vec<Target> {
        let groups = self.look_ups.groups(members).await;
        groups.into_iter().map(|group| target(members, group.lease, group.users)).collect()
    }

    /// The same for the members at these positions.
    pub async fn route_again(&self, delivery: &Delivery, positions: &[u32]) -> Vec<Target> {
        let users = delivery.users(positions);
        // Closed never.
        let _turn = self.again.acquire().await;
        let groups = self.look_ups.groups(&users).await;
        let of = |Group { lease, users: indexes }: Group| {
            let Target { gateway, mut holder, packed } = target(&users, lease, indexes);
            holder.users = holder.users.iter().map(|index| positions[*index as usize]).collect();
            Target { gateway, holder, packed }
        };
        groups.into_iter().map(of).collect()
    }

    /// Hands pushes of one message to the streams of their targets, without waiting. Messages handed over one after
    /// another reach each gateway in that order. One result for each push, in order.
    pub fn push(
        &self,
        stored: &Stored,
        delivery: &Delivery,
        targets: &[Target],
        pushes: &[Push],
    ) -> Vec<PendingResult> {
        let message = message(&stored.entry);
        let hand_over = |push: &Push| {
            let target = targets.iter().find(|target| target.holder.gateway == push.gateway)?;
            let whole = Arc::ptr_eq(&target.holder.users, &push.users);
            let recipients = if whole { target.packed.clone() } else { pack_users(delivery.users(&push.users).iter()) };
            let (purpose, ack_wait, message) = match push.ask {
                Ask::Show => (Purpose::Show, self.ack_wait, message.clone()),
                Ask::Acked => (Purpose::Ask, Duration::ZERO, Message { content: Bytes::new(), ..message.clone() }),
            };
            let request = PushRequest {
                push_id: 0, // the stream numbers its pushes
                incarnation: Bytes::copy_from_slice(push.gateway.as_bytes()),
                recipients,
                ack_wait_ms: u32::try_from(ack_wait.as_millis()).unwrap_or(u32::MAX),
                traceparent: stored.traceparent.clone(),
                message: Some(message),
                purpose: purpose.into(),
                ..PushRequest::default()
            };
            Some(self.streams.push(&target.gateway, request))
        };
        // Every push is to one of the targets; without one it would be lost.
        pushes.iter().map(|push| hand_over(push).unwrap_or_else(PushStreams::refused)).collect()
    }
}

fn target(users: &[UserId], gateway: Arc<Lease>, indexes: Vec<u32>) -> Target {
    let packed = if indexes.len() == users.len() {
        pack_users(users.iter())
    } else {
        let chosen: Vec<_> = indexes.iter().filter_map(|index| users.get(*index as usize)).copied().collect();
        pack_users(chosen.iter())
    };
    let holder = Holder { gateway: gateway.incarnation, users: indexes.into() };
    Target { gateway, holder, packed }
}

/// An entry as gateways get it.
pub fn message(entry: &Entry) -> Message {
    Message {
        channel_id: Bytes::copy_from_slice(entry.channel_id.as_bytes()).into(),
        seq: entry.seq.0,
        message_id: Bytes::copy_from_slice(entry.message_id.as_bytes()).into(),
        sender_id: Bytes::copy_from_slice(entry.sender_id.as_bytes()).into(),
        kind: entry.kind.as_str().to_owned(),
        content: Bytes::copy_from_slice(entry.content.as_bytes()),
        created_at_ms: entry.created_at_ms,
        prev: entry.prev.map(|check| check.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Times;
    use futures_util::future::join_all;
    use std::pin::pin;
    use tokio::{sync::watch, time::timeout};
    use touchline_mesh::Shutdown;
    use touchline_registry::{
        Directory, Registry,
        contract::{Call, Fault, FaultyRegistry},
    };
    use touchline_storage::Members;

    #[tokio::test(start_paused = true)]
    async fn only_so_many_messages_look_up_again_at_the_same_time() {
        const TAKES: Duration = Duration::from_millis(50);
        let registry = Arc::new(FaultyRegistry::default());
        registry.set(Call::LookUp, Fault::Delay(TAKES));
        let shared: Arc<dyn Registry> = Arc::<FaultyRegistry>::clone(&registry);
        let directory = Arc::new(Directory::new(Arc::clone(&shared)));
        let look_ups = Arc::new(LookUps::new(shared, Arc::clone(&directory), Arc::default()).0);
        let streams = Arc::new(PushStreams::new(
            directory,
            Arc::default(),
            Arc::default(),
            watch::channel(None).1,
            Shutdown::new(),
        ));
        let deliverer = Deliverer::new(look_ups, streams, Duration::ZERO);

        let times = Times { ack_wait: TAKES, patience: TAKES, second_look: TAKES };
        let members = Arc::new(Members { version: 1, users: vec![UserId::new()] });
        let delivery = Delivery::new(members, &UserId::new(), 1, times);
        let mut all = pin!(join_all((0..=2 * AGAIN).map(|_| deliverer.route_again(&delivery, &[0]))));
        let mut asked = Vec::new();
        for wait in [TAKES / 2, TAKES, TAKES] {
            assert!(timeout(wait, &mut all).await.is_err());
            asked.push(registry.calls(Call::LookUp));
        }
        assert_eq!(asked, [AGAIN, 2 * AGAIN, 2 * AGAIN + 1]);
        assert_eq!(all.await.len(), 2 * AGAIN + 1, "the others only waited");
    }
}

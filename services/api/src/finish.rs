//! The end of a message's fan-out: collect results, look once more for whom it missed, write notification rows for
//! whoever still has no acking device, and only then remove the outbox row.

use crate::{
    claims::Claims,
    clock,
    deliver::{Deliverer, Pushed},
    resolve::Reached,
    writer::Stored,
};
use futures_util::future::join_all;
use std::{iter, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_mesh::Shutdown;
use touchline_storage::{Storage, StorageError};

/// Finished messages waiting to leave the outbox.
const QUEUE: usize = 16_384;
/// Most outbox rows removed by one statement.
const BATCH: usize = 256;
/// Most notifications written by one transaction, unless one message alone has more.
const NOTIFICATIONS: usize = 10_000;
/// How often this api says that it still works on its outbox rows; they expire after 5 s.
const CLAIM_RENEWAL: Duration = Duration::from_secs(2);
/// Between tries while the database is away.
const RETRY: Duration = Duration::from_secs(1);

/// A message whose fan-out is over.
struct Finished {
    channel: ChannelId,
    seq: Seq,
    /// Who is to be notified of it.
    missed: Vec<UserId>,
    /// Its share of what may be under way; given back when its rows are written.
    _room: OwnedSemaphorePermit,
}

/// Finishes messages; shared by all of them.
pub struct Finisher {
    deliverer: Arc<Deliverer>,
    second_look: Duration,
    done: mpsc::Sender<Finished>,
}

impl Finisher {
    /// A finisher and the task that empties the outbox for it.
    pub fn new(
        deliverer: Arc<Deliverer>,
        storage: Storage,
        claims: Arc<Claims>,
        second_look: Duration,
    ) -> (Self, OutboxTask) {
        let (done, finished) = mpsc::channel(QUEUE);
        (Self { deliverer, second_look, done }, OutboxTask { storage, claims, finished })
    }

    /// Follows one message to its end.
    pub async fn finish(&self, stored: Stored, pushes: Vec<Pushed>, room: OwnedSemaphorePermit) {
        let mut reached = Reached::nobody(Arc::clone(&stored.members));
        // The sender's devices get the message like everybody's, but the sender is never notified.
        reached.mark_user(&stored.entry.sender_id);
        let lost = self.collect(&mut reached, pushes).await;
        let mut missed = reached.missed();
        // A push without a result leaves holes on healthy sockets, also of users whom another gateway reached.
        lost.iter().for_each(|indexes| reached.unmark(indexes));
        let again = reached.missed();
        if !again.is_empty() {
            tokio::time::sleep(self.second_look).await;
            let still = self.second_look(&stored, again).await;
            missed.retain(|user| still.binary_search(user).is_ok());
        }
        if !stored.notify {
            missed.clear();
        }
        let (channel, seq) = (stored.entry.channel_id, stored.entry.seq);
        // The task ends after every finisher: this fails only in a hard stop, and then the row stays for another api.
        let _ = self.done.send(Finished { channel, seq, missed, _room: room }).await;
    }

    /// Marks whom the results tell of. Returned are the recipients of pushes without a result.
    async fn collect(&self, reached: &mut Reached, pushes: Vec<Pushed>) -> Vec<Arc<[u32]>> {
        let wait = self.deliverer.result_wait();
        let results = join_all(pushes.into_iter().map(|pushed| async move {
            // Too late and broken are alike: nobody is known to have it.
            let result = timeout(wait, pushed.result).await.ok().and_then(Result::ok);
            (pushed.indexes, result)
        }));
        let mut lost = Vec::new();
        for (indexes, result) in results.await {
            match result {
                Some(result) => reached.mark(&indexes, &result),
                None => lost.push(indexes),
            }
        }
        lost
    }

    /// Looks the missed up once more and pushes to whoever has come back. Who is missed again is returned, in order.
    async fn second_look(&self, stored: &Stored, missed: Vec<UserId>) -> Vec<UserId> {
        let members = Arc::new(touchline_storage::Members { version: stored.members.version, users: missed });
        let targets = self.deliverer.route(&members.users).await;
        let pushes = self.deliverer.push(stored, &targets);
        let mut reached = Reached::nobody(members);
        self.collect(&mut reached, pushes).await;
        reached.missed()
    }
}

/// Writes the notifications of finished messages and removes them from the outbox, in batches; keeps the claims on the
/// others.
pub struct OutboxTask {
    storage: Storage,
    claims: Arc<Claims>,
    finished: mpsc::Receiver<Finished>,
}

impl OutboxTask {
    /// Works until every [`Finisher`] is gone.
    pub async fn run(mut self, shutdown: &Shutdown) {
        let claims = {
            let (storage, claims) = (self.storage.clone(), Arc::clone(&self.claims));
            shutdown.spawn(async move { keep_claims(storage, &claims).await })
        };
        let mut batch = Vec::with_capacity(BATCH);
        while self.finished.recv_many(&mut batch, BATCH).await > 0 {
            for portion in portions(&batch, |finished| finished.missed.len()) {
                if let Err(error) = self.settle(portion).await {
                    tracing::error!(batch.size = portion.len(), %error, "refused: these rows stay in the outbox");
                }
            }
            batch.clear();
        }
        claims.abort();
    }

    /// However long the database is away: until the notification rows are there the outbox rows stay.
    async fn settle(&self, portion: &[Finished]) -> touchline_storage::Result<()> {
        let missed: Vec<_> = portion.iter().flat_map(Finished::notifications).collect();
        let rows: Vec<_> = portion.iter().map(|finished| (finished.channel, finished.seq)).collect();
        while goes_again("notification rows", self.storage.notify(&missed, clock::now_ms()).await)? {
            tokio::time::sleep(RETRY).await;
        }
        while goes_again("removal of outbox rows", self.storage.finish(&rows).await)? {
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
    }
}

/// Whether to write again, because the database is away. What it refuses for another reason would hold everybody up
/// for ever: then the outbox rows stay.
fn goes_again(what: &'static str, written: touchline_storage::Result<()>) -> touchline_storage::Result<bool> {
    match written {
        Ok(()) => Ok(false),
        Err(error @ (StorageError::Unavailable(_) | StorageError::InDoubt(_))) => {
            tracing::warn!(what, %error, "not written, trying again");
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

impl Finished {
    fn notifications(&self) -> impl Iterator<Item = (UserId, ChannelId, Seq)> {
        self.missed.iter().map(|user| (*user, self.channel, self.seq))
    }
}

/// Cuts `all` into pieces of at most [`NOTIFICATIONS`] each, or of one element.
fn portions<T>(mut all: &[T], size: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    iter::from_fn(move || {
        let mut sum = 0;
        let fits = |element: &&T| {
            sum += size(element);
            sum <= NOTIFICATIONS
        };
        let count = all.iter().take_while(fits).count().max(1);
        let (portion, rest) = all.split_at_checked(count)?;
        all = rest;
        Some(portion)
    })
}

async fn keep_claims(storage: Storage, claims: &Claims) {
    let mut tick = tokio::time::interval(CLAIM_RENEWAL);
    loop {
        tick.tick().await;
        for owner in claims.owners() {
            if let Err(error) = storage.renew_claims(owner).await {
                tracing::warn!(%error, "outbox claims not renewed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push_stream::PushStreams;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;
    use tokio_stream::wrappers::ReceiverStream;
    use tonic::{Request, Response, Status, Streaming, service::Routes};
    use touchline_ids::{ConnectionNumber, IncarnationId, MessageId};
    use touchline_mesh::server::GrpcListener;
    use touchline_proto::push::{
        PushAnswer, PushRequest, PushResult,
        push_service_server::{PushService, PushServiceServer},
    };
    use touchline_registry::{Directory, GatewayState, Lease, MemoryRegistry, Registration, Registry};
    use touchline_storage::{Entry, Kind, Members};

    /// A gateway whose first streams break at their first push; on every later one everybody acks at once.
    #[derive(Clone, Default)]
    struct Gateway {
        to_break: Arc<AtomicUsize>,
        acked: Arc<AtomicUsize>,
    }

    #[tonic::async_trait]
    impl PushService for Gateway {
        type PushStream = ReceiverStream<Result<PushAnswer, Status>>;

        async fn push(&self, request: Request<Streaming<PushRequest>>) -> Result<Response<Self::PushStream>, Status> {
            let (results, receiver) = mpsc::channel(8);
            let (this, mut requests) = (self.clone(), request.into_inner());
            #[expect(clippy::disallowed_methods, reason = "ends with its stream")]
            tokio::spawn(async move {
                while let Ok(Some(push)) = requests.message().await {
                    let breaks = this.to_break.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
                    if breaks.is_ok() {
                        return;
                    }
                    this.acked.fetch_add(1, Ordering::SeqCst);
                    let _ =
                        results.send(Ok(PushResult { push_id: push.push_id, ..PushResult::default() }.into())).await;
                }
            });
            Ok(Response::new(ReceiverStream::new(receiver)))
        }
    }

    impl Gateway {
        /// Serves, with one session of `user`.
        async fn start(&self, name: &str, user: UserId, registry: &MemoryRegistry, life: &Shutdown) {
            let listener = GrpcListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
            let lease = Lease {
                gateway: name.parse().unwrap(),
                incarnation: IncarnationId::new(),
                grpc_url: format!("http://{}", listener.address()),
                public_url: "ws://unused".to_owned(),
                state: GatewayState::Ready,
                sessions: 1,
                capacity: 10,
                push_streams: 0,
            };
            let (service, inside) = (PushServiceServer::new(self.clone()), life.clone());
            life.spawn(async move { listener.serve(Routes::new(service), &inside).await });
            registry.renew_lease(&lease).await.unwrap();
            let (incarnation, connection) = (lease.incarnation, ConnectionNumber(1));
            let session = Registration { user, device: name.parse().unwrap(), incarnation, connection };
            registry.register(&[session]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_broken_push_is_sent_again_although_another_gateway_reached_the_user() {
        let (folder, life) = (tempfile::tempdir().unwrap(), Shutdown::new());
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        let storage = Storage::connect(&touchline_storage::Settings { url, max_connections: 1 }).await.unwrap();
        let (well, broken) = (Gateway::default(), Gateway::default());
        broken.to_break.store(1, Ordering::SeqCst);
        let (sender, registry) = (UserId::new(), Arc::new(MemoryRegistry::new()));
        well.start("phone", sender, &registry, &life).await;
        broken.start("laptop", sender, &registry, &life).await;

        let directory = Arc::new(Directory::new(Arc::<MemoryRegistry>::clone(&registry)));
        let streams = Arc::new(PushStreams::new(life.clone()));
        let deliverer = Arc::new(Deliverer::new(registry, directory, streams, Duration::from_millis(100)));
        // Longer than it takes to open the stream again.
        let second_look = Duration::from_millis(500);
        let (finisher, mut outbox) = Finisher::new(Arc::clone(&deliverer), storage, Arc::default(), second_look);
        let stored = Stored {
            entry: Entry {
                channel_id: ChannelId::new(),
                seq: Seq(1),
                message_id: MessageId::new(),
                sender_id: sender,
                kind: Kind::Text,
                content: "\"hi\"".to_owned(),
                created_at_ms: 0,
            },
            members: Arc::new(Members { version: 1, users: vec![sender] }),
            notify: true,
            traceparent: String::new(),
        };
        let targets = deliverer.route(&[sender]).await;
        let pushes = deliverer.push(&stored, &targets);
        assert_eq!(pushes.len(), 2);
        let room = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        finisher.finish(stored, pushes, room).await;

        assert_eq!(broken.acked.load(Ordering::SeqCst), 1, "the laptop has it, too");
        let finished = outbox.finished.recv().await.unwrap();
        assert_eq!(finished.missed, [], "and nobody is notified");
        life.stop_now();
    }

    #[test]
    fn notifications_are_written_in_portions_of_bounded_size() {
        let cut = |sizes: &[usize]| portions(sizes, |size| *size).map(<[usize]>::to_vec).collect::<Vec<_>>();
        assert!(cut(&[]).is_empty());
        assert_eq!(cut(&[1, 0, 2]), [vec![1, 0, 2]]);
        assert_eq!(cut(&[NOTIFICATIONS, 0, 1, 1]), [vec![NOTIFICATIONS, 0], vec![1, 1]]);
        assert_eq!(
            cut(&[3 * NOTIFICATIONS, 1, NOTIFICATIONS]),
            [vec![3 * NOTIFICATIONS], vec![1], vec![NOTIFICATIONS]]
        );
    }
}

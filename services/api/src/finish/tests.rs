//! Messages to gateways that answer, break, hang and are not there.

use super::*;
use crate::{claims::Claims, delivered::Delivered, look_up::LookUps, push_stream::PushStreams, writer::Stored};
use std::{net::SocketAddr, sync::Mutex};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc::UnboundedReceiver, mpsc::UnboundedSender, mpsc::unbounded_channel, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, service::Routes};
use touchline_ids::{ChannelId, IncarnationId, MessageId, Seq, UserId};
use touchline_mesh::{Shutdown, server::GrpcListener};
use touchline_proto::{
    convert::unpack_users,
    push::{
        PushAnswer, PushRequest,
        push_request::Purpose,
        push_service_server::{PushService, PushServiceServer},
    },
};
use touchline_registry::{Directory, Lease, MemoryRegistry, Registry, contract};
use touchline_storage::{Entry, Kind, Members};

const SOON: Duration = Duration::from_secs(20);

/// What a gateway does with a push.
#[derive(Clone, Copy)]
enum Does {
    /// Everybody acked.
    Answer,
    /// The stream ends.
    Break,
    /// Nothing.
    Nothing,
}

/// A gateway that does these things with the pushes it gets, one after the other, and answers the rest.
#[derive(Clone)]
struct Gateway {
    script: Arc<Mutex<Vec<Does>>>,
    seen: UnboundedSender<(Purpose, Vec<UserId>)>,
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
                let does = this.script.lock().unwrap().pop().unwrap_or(Does::Answer);
                let _ = this.seen.send((push.purpose(), unpack_users(&push.recipients).unwrap().collect()));
                match does {
                    Does::Answer => {
                        let result = PushResult { push_id: push.push_id, ..PushResult::default() };
                        let _ = results.send(Ok(result.into())).await;
                    }
                    Does::Break => return,
                    Does::Nothing => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// An api's fan-out, two users and the registry that knows where they are.
struct Scene {
    users: Vec<UserId>,
    registry: Arc<MemoryRegistry>,
    directory: Arc<Directory>,
    deliverer: Arc<Deliverer>,
    finisher: Finisher,
    claims: Arc<Claims>,
    done: mpsc::Receiver<Finished>,
    life: Shutdown,
}

impl Scene {
    fn new() -> Self {
        let life = Shutdown::new();
        let registry = Arc::new(MemoryRegistry::new());
        let shared: Arc<dyn Registry> = Arc::<MemoryRegistry>::clone(&registry);
        let directory = Arc::new(Directory::new(Arc::clone(&shared)));
        let streams = Arc::new(PushStreams::new(
            Arc::clone(&directory),
            Arc::<Delivered>::default(),
            Arc::default(),
            watch::channel(None).1,
            life.clone(),
        ));
        let times = Times {
            ack_wait: Duration::from_millis(100),
            patience: Duration::from_millis(900),
            // Longer than it takes to open a stream again.
            second_look: Duration::from_millis(500),
        };
        let look_ups = Arc::new(LookUps::new(shared, Arc::clone(&directory), Arc::default()).0);
        let deliverer = Arc::new(Deliverer::new(look_ups, streams, times.ack_wait));
        let (sender, done) = mpsc::channel(8);
        let finisher = Finisher::new(Arc::clone(&deliverer), times, SharedSchedule::default(), sender);
        let mut users = vec![UserId::new(), UserId::new()];
        users.sort_unstable();
        Self { users, registry, directory, deliverer, finisher, claims: Arc::default(), done, life }
    }

    /// A lease at this address, with a session of a user.
    async fn at(&self, address: SocketAddr, user: usize, device: &str) -> Lease {
        let lease = Lease { grpc_url: format!("http://{address}"), ..contract::lease(device, IncarnationId::new()) };
        self.registry.renew_lease(&lease).await.unwrap();
        let session = contract::session(self.users[user], device, lease.incarnation, 1);
        self.registry.register(&[session]).await.unwrap();
        lease
    }

    /// A gateway with a session of a user, and what it sees.
    async fn gateway(
        &self,
        user: usize,
        device: &str,
        script: &[Does],
    ) -> (Lease, UnboundedReceiver<(Purpose, Vec<UserId>)>) {
        let (seen, pushes) = unbounded_channel();
        let script = Arc::new(Mutex::new(script.iter().rev().copied().collect()));
        let listener = GrpcListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let lease = self.at(listener.address(), user, device).await;
        let service = PushServiceServer::new(Gateway { script, seen });
        let inside = self.life.clone();
        self.life.spawn(async move { listener.serve(Routes::new(service), &inside).await });
        (lease, pushes)
    }

    /// Sends the first user's message to its end.
    async fn send(&self, attempt: u32) {
        let entry = Entry {
            channel_id: ChannelId::new(),
            seq: Seq(1),
            message_id: MessageId::new(),
            sender_id: self.users[0],
            kind: Kind::Text,
            content: "\"hi\"".to_owned(),
            created_at_ms: 0,
            prev: None,
        };
        let claim = self.claims.hold((entry.channel_id, entry.seq));
        let members = Arc::new(Members { version: 1, users: self.users.clone() });
        let stored = Stored { entry, members, notify: true, traceparent: String::new() };
        let targets = self.deliverer.route(&self.users).await;
        let room = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let due = Due { stored, attempt, claim, turn: None };
        let message = UnderWay::begin(due, &targets, &self.finisher, room);
        timeout(SOON, self.finisher.finish(message)).await.expect("it ends");
    }

    /// Who is missed by the message that was finished.
    fn missed(&mut self) -> Vec<UserId> {
        self.done.try_recv().expect("it is finished").missed
    }
}

#[tokio::test]
async fn whom_a_broken_stream_left_behind_a_hole_is_told_to_sync_by_the_next_one() {
    let mut scene = Scene::new();
    let (_, mut well) = scene.gateway(1, "phone", &[]).await;
    let (_, mut broken) = scene.gateway(1, "laptop", &[Does::Break]).await;
    scene.send(1).await;
    assert_eq!(scene.missed(), [], "the phone has it: nobody is notified");
    let whom = vec![scene.users[1]];
    assert_eq!(well.recv().await, Some((Purpose::Show, whom.clone())));
    assert_eq!(broken.recv().await, Some((Purpose::Show, whom.clone())));
    let next = timeout(SOON, broken.recv()).await.expect("before any other push");
    assert_eq!(next, Some((Purpose::Resync, whom)));
}

#[tokio::test]
async fn what_a_broken_stream_lost_is_shown_again_by_the_next_one() {
    let mut scene = Scene::new();
    let (_, mut seen) = scene.gateway(1, "phone", &[Does::Break]).await;
    scene.send(1).await;
    assert_eq!(scene.missed(), []);
    for expected in [Purpose::Show, Purpose::Resync, Purpose::Show] {
        assert_eq!(seen.recv().await.unwrap().0, expected);
    }
}

#[tokio::test]
async fn a_gateway_that_refuses_is_gone_and_its_recipients_are_missed() {
    let mut scene = Scene::new();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    scene.at(nobody, 1, "phone").await;
    scene.send(1).await;
    assert_eq!(scene.missed(), [scene.users[1]]);
}

#[tokio::test]
async fn a_gateway_that_takes_connections_and_says_nothing_is_out_of_reach() {
    let mut scene = Scene::new();
    // Longer than a stream may take to open, so that it is the stream that tells.
    scene.finisher.times.patience = SOON;
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.at(hung.local_addr().unwrap(), 1, "phone").await;
    scene.send(1).await;
    assert!(scene.done.try_recv().is_err(), "not finished");
    assert_eq!(scene.claims.let_go().await.len(), 1, "but handed over");
}

#[tokio::test]
async fn a_silent_gateway_is_vouched_for_no_longer_until_it_speaks() {
    let scene = Scene::new();
    let (lease, _seen) = scene.gateway(1, "phone", &[Does::Nothing]).await;
    scene.registry.renew_lease(&lease).await.unwrap();
    scene.send(1).await;
    assert_eq!(scene.claims.let_go().await.len(), 1, "handed over");
    scene.registry.release_lease(&lease.gateway, lease.incarnation).await.unwrap();
    let lives = async |expected: bool| {
        timeout(SOON, async {
            loop {
                scene.directory.refresh().await.unwrap();
                if scene.directory.view().get(lease.incarnation).is_some() == expected {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("soon");
    };
    lives(false).await;
    scene.registry.renew_lease(&lease).await.unwrap();
    lives(true).await;
    scene.send(1).await;
    scene.registry.release_lease(&lease.gateway, lease.incarnation).await.unwrap();
    scene.directory.refresh().await.unwrap();
    assert!(scene.directory.view().get(lease.incarnation).is_some(), "its stream is well: that is enough");
}

#[tokio::test]
async fn on_a_later_attempt_a_silent_gateway_ends_in_a_notification() {
    let mut scene = Scene::new();
    scene.gateway(1, "phone", &[Does::Nothing, Does::Nothing]).await;
    scene.send(2).await;
    assert_eq!(scene.missed(), [scene.users[1]]);
}

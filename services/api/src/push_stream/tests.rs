//! Streams to a gateway that the test plays itself, as far as they go.

use super::*;
use bytes::Bytes;
use exchange::PENDING;
use std::net::SocketAddr;
use tonic::{Request, Response, service::Routes};
use touchline_ids::UserId;
use touchline_mesh::server::GrpcListener;
use touchline_proto::{
    convert::{pack_users, unpack_users},
    push::{
        push_request::Purpose,
        push_service_server::{PushService, PushServiceServer},
    },
};
use touchline_registry::{MemoryRegistry, contract};

const SOON: Duration = Duration::from_secs(60);

type Opened = (Streaming<PushRequest>, mpsc::Sender<Result<PushAnswer, Status>>);

/// A gateway that hands its streams to the test.
struct Gateway {
    opened: mpsc::Sender<Opened>,
}

#[tonic::async_trait]
impl PushService for Gateway {
    type PushStream = ReceiverStream<Result<PushAnswer, Status>>;

    async fn push(&self, request: Request<Streaming<PushRequest>>) -> Result<Response<Self::PushStream>, Status> {
        let (answers, receiver) = mpsc::channel(8);
        let _ = self.opened.send((request.into_inner(), answers)).await;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct Scene {
    streams: PushStreams,
    gateway: Arc<Lease>,
    opened: mpsc::Receiver<Opened>,
    database: watch::Sender<Option<i64>>,
    life: Shutdown,
}

impl Scene {
    fn new() -> Self {
        let (opened_in, opened) = mpsc::channel(1);
        let listener = GrpcListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let grpc_url = format!("http://{}", listener.address());
        let gateway = Arc::new(Lease { grpc_url, ..contract::lease("gw-1", IncarnationId::new()) });
        let life = Shutdown::new();
        let (inside, service) = (life.clone(), PushServiceServer::new(Gateway { opened: opened_in }));
        life.spawn(async move { listener.serve(Routes::new(service), &inside).await });
        let directory = Arc::new(Directory::new(Arc::new(MemoryRegistry::new())));
        let (database, lives) = watch::channel(None);
        let streams = PushStreams::new(directory, Arc::default(), Arc::default(), lives, life.clone());
        Self { streams, gateway, opened, database, life }
    }

    fn push(&self, to: UserId) -> PendingResult {
        let recipients = pack_users([to].iter());
        self.streams.push(&self.gateway, PushRequest { recipients, ack_wait_ms: 60_000, ..PushRequest::default() })
    }

    async fn opened(&mut self) -> Opened {
        timeout(SOON, self.opened.recv()).await.expect("in time").expect("the gateway serves")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

async fn next(requests: &mut Streaming<PushRequest>) -> PushRequest {
    timeout(SOON, requests.message()).await.expect("in time").expect("the stream is well").expect("and open")
}

fn users(recipients: &Bytes) -> Vec<UserId> {
    unpack_users(recipients).unwrap().collect()
}

#[tokio::test]
async fn a_push_too_many_for_the_queue_is_lost_and_its_recipients_are_told_to_sync() {
    let mut scene = Scene::new();
    // Nothing is sent before this test waits for something.
    let mut results: Vec<_> = (0..QUEUE).map(|_| scene.push(UserId::new())).collect();
    let one_too_many = UserId::new();
    let mut lost = scene.push(one_too_many);
    assert_eq!(lost.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    assert!(results.iter_mut().all(|result| result.try_recv() == Err(oneshot::error::TryRecvError::Empty)));

    let (mut requests, _answers) = scene.opened().await;
    let first = next(&mut requests).await;
    assert_eq!((first.purpose(), users(&first.recipients)), (Purpose::Resync, vec![one_too_many]));
    for _ in 0..QUEUE {
        assert_eq!(next(&mut requests).await.purpose(), Purpose::Show);
    }
}

#[tokio::test]
async fn every_stream_is_told_the_databases_life_first_and_whenever_it_is_another_one() {
    let mut scene = Scene::new();
    scene.database.send_replace(Some(7));
    let _result = scene.push(UserId::new());
    let (mut requests, answers) = scene.opened().await;
    let told = async |requests: &mut Streaming<PushRequest>| {
        let request = next(requests).await;
        (request.purpose(), request.database_life)
    };
    assert_eq!(told(&mut requests).await, (Purpose::Life, 7));
    assert_eq!(told(&mut requests).await, (Purpose::Show, 0));
    scene.database.send_replace(Some(8));
    assert_eq!(told(&mut requests).await, (Purpose::Life, 8));
    // It breaks: the next one begins with it, too, and only then owes what had no result.
    drop((requests, answers));
    let (mut requests, _answers) = scene.opened().await;
    assert_eq!(told(&mut requests).await, (Purpose::Life, 8));
    assert_eq!(told(&mut requests).await, (Purpose::Resync, 0));
}

#[tokio::test]
async fn no_more_is_sent_while_so_many_pushes_have_no_result() {
    const AT_ONCE: usize = 512;
    let (mut scene, user) = (Scene::new(), UserId::new());
    let mut results = Vec::with_capacity(PENDING + QUEUE);
    results.push(scene.push(user));
    let (mut requests, answers) = scene.opened().await;
    assert_eq!(next(&mut requests).await.push_id, 1);
    while results.len() < PENDING {
        let count = AT_ONCE.min(PENDING - results.len());
        results.extend((0..count).map(|_| scene.push(user)));
        for _ in 0..count {
            next(&mut requests).await;
        }
    }
    // How many more are taken until one is refused, while everything that can happen does.
    let fill = async |results: &mut Vec<PendingResult>| {
        let before = results.len();
        loop {
            let mut result = scene.push(user);
            if result.try_recv() == Err(oneshot::error::TryRecvError::Closed) {
                return results.len() - before;
            }
            results.push(result);
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(fill(&mut results).await, QUEUE, "they stay in the queue");

    let result = PushResult { push_id: 1, ..PushResult::default() };
    answers.send(Ok(result.clone().into())).await.unwrap();
    assert_eq!(timeout(SOON, results.remove(0)).await.expect("in time"), Ok(Ok(result)));
    // One for one. Who was refused is owed, and that is not held back.
    let mut sent = next(&mut requests).await;
    if sent.purpose() == Purpose::Resync {
        assert_eq!(users(&sent.recipients), [user]);
        sent = next(&mut requests).await;
    }
    assert_eq!(sent.purpose(), Purpose::Show);
    assert_eq!(fill(&mut results).await, 1);
}

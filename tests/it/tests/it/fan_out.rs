//! What an api asks of the registry and of the gateways: one look-up a message, one stream and one push a gateway, and
//! what it makes of the results. These gateways write down what they get and answer as they are told.

use anyhow::{Context as _, Result};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, service::Routes};
use touchline_auth::{AccessTokens, IdentityProviders, KeySet, SigningKey, TicketSigner, create_key_files};
use touchline_client::{Client, NewMessage};
use touchline_harness::{DEADLINE, eventually};
use touchline_ids::{ChannelId, IncarnationId, Seq, UserId};
use touchline_mesh::{Shutdown, server::GrpcListener};
use touchline_proto::{
    convert::{pack_users, unpack_users},
    push::{
        PushAnswer, PushRequest, PushResult,
        push_request::Purpose,
        push_service_server::{PushService, PushServiceServer},
    },
};
use touchline_registry::{
    LEASE_RENEWAL, Lease, Registry,
    contract::{self, Call, Fault, FaultyRegistry},
};
use touchline_storage::{CreateUser, NewUser, Storage};
use uuid::Uuid;

/// What a gateway answers to a push; `None`: nothing, ever.
type Answer = Arc<dyn Fn(&PushRequest) -> Option<PushResult> + Send + Sync>;

fn everybody_acked() -> Answer {
    Arc::new(|push| Some(PushResult { push_id: push.push_id, ..PushResult::default() }))
}

struct Recorder {
    seen: mpsc::UnboundedSender<PushRequest>,
    streams: Arc<AtomicUsize>,
    answer: Answer,
    life: Shutdown,
}

#[tonic::async_trait]
impl PushService for Recorder {
    type PushStream = ReceiverStream<Result<PushAnswer, Status>>;

    async fn push(&self, request: Request<Streaming<PushRequest>>) -> Result<Response<Self::PushStream>, Status> {
        self.streams.fetch_add(1, Ordering::SeqCst);
        let (results, receiver) = mpsc::channel(64);
        let (seen, answer, mut pushes) = (self.seen.clone(), Arc::clone(&self.answer), request.into_inner());
        self.life.spawn(async move {
            while let Ok(Some(push)) = pushes.message().await {
                // In which life the database is, is no push of a message.
                let is_life = push.purpose() == Purpose::Life;
                let done = PushResult { push_id: push.push_id, ..PushResult::default() };
                let result = if is_life { Some(done) } else { answer(&push) };
                if !is_life {
                    // The test may have seen enough.
                    let _ = seen.send(push);
                }
                if let Some(result) = result
                    && results.send(Ok(result.into())).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// A gateway as an api sees it.
struct Gateway {
    lease: Lease,
    seen: mpsc::UnboundedReceiver<PushRequest>,
    streams: Arc<AtomicUsize>,
}

impl Gateway {
    fn start(name: &str, answer: Answer, life: &Shutdown) -> Result<Self> {
        let (seen, pushes) = mpsc::unbounded_channel();
        let streams = Arc::new(AtomicUsize::new(0));
        let listener = GrpcListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let grpc_url = format!("http://{}", listener.address());
        let recorder = Recorder { seen, streams: Arc::clone(&streams), answer, life: life.clone() };
        let (routes, inside) = (Routes::new(PushServiceServer::new(recorder)), life.clone());
        life.spawn(async move { listener.serve(routes, &inside).await });
        let lease = Lease { grpc_url, ..contract::lease(name, IncarnationId::new()) };
        Ok(Self { lease, seen: pushes, streams })
    }

    /// The next push: its seq and for whom it is.
    async fn push(&mut self) -> Result<(i64, Vec<UserId>)> {
        let push = timeout(DEADLINE, self.seen.recv()).await.context("no push came")?.context("the gateway is gone")?;
        assert_eq!(push.incarnation, self.lease.incarnation.as_bytes().as_slice());
        let recipients = unpack_users(&push.recipients)?.collect();
        Ok((push.message.context("a push has a message")?.seq, recipients))
    }

    fn has_more(&mut self) -> bool {
        self.seen.try_recv().is_ok()
    }
}

/// One api, its gateways, and people. The first one asks.
struct World {
    gateways: Vec<Gateway>,
    registry: Arc<FaultyRegistry>,
    storage: Storage,
    users: Vec<UserId>,
    client: Client,
    life: Shutdown,
    _folder: TempDir,
}

impl World {
    async fn new(gateways: usize, users: usize, answer: Answer, config: touchline_api::Config) -> Result<Self> {
        let folder = TempDir::with_prefix("touchline-fan-out.")?;
        let life = Shutdown::new();
        let registry = Arc::new(FaultyRegistry::default());
        let gateways: Vec<_> = (0..gateways)
            .map(|n| Gateway::start(&format!("gw-{n}"), Arc::clone(&answer), &life))
            .collect::<Result<_>>()?;
        for lease in gateways.iter().map(|gateway| gateway.lease.clone()) {
            registry.renew_lease(&lease).await?;
            let registry = Arc::clone(&registry);
            life.spawn_until_stop(async move {
                loop {
                    tokio::time::sleep(LEASE_RENEWAL).await;
                    registry.renew_lease(&lease).await.expect("it is in memory");
                }
            });
        }

        let path = |name: &str| folder.path().join(name);
        let url = format!("sqlite://{}", path("test.db").display());
        let storage = Storage::connect(&touchline_storage::Settings { url, ..Default::default() }).await?;
        storage.migrate_up().await?;
        create_key_files(&path("key.pem"), &path("keys.json"))?;
        let key = Arc::new(SigningKey::from_file(&path("key.pem")).await?);
        let keys = KeySet::from_file(path("keys.json")).await?;
        let access = AccessTokens::new(Arc::clone(&key), keys, "touchline", Duration::from_secs(900))?;
        let dependencies = touchline_api::Dependencies {
            storage: storage.clone(),
            registry: Arc::clone(&registry) as Arc<dyn Registry>,
            access: access.clone(),
            refresh_life: Duration::from_secs(3600),
            tickets: TicketSigner::new(key),
            identities: IdentityProviders::open(&[]).await?,
        };
        let config = touchline_api::Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..config };
        let app = touchline_api::build(config, dependencies).await?;
        let base = format!("http://{}", app.http_address());
        let inside = life.clone();
        life.spawn(async move { app.run(&inside).await });

        let users = create_users(&storage, users).await?;
        let client = Client::new(&base)?.as_user(&access.issue(users[0], Uuid::now_v7())?);
        Ok(Self { gateways, registry, storage, users, client, life, _folder: folder })
    }

    /// Gives a user a session on a gateway.
    async fn connect(&self, user: usize, device: &str, gateway: usize) -> Result<()> {
        let session = contract::session(self.users[user], device, self.gateways[gateway].lease.incarnation, 1);
        self.registry.register(&[session]).await?;
        Ok(())
    }

    /// A channel with everybody in it.
    async fn channel(&self) -> Result<ChannelId> {
        Ok(self.client.create_channel("everybody", &self.users[1..]).await?.id)
    }

    async fn send(&self, channel: ChannelId) -> Result<Seq> {
        Ok(self.client.send(channel, &NewMessage::new("hello")).await?.seq)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

/// Users by rising id.
async fn create_users(storage: &Storage, count: usize) -> Result<Vec<UserId>> {
    let mut users: Vec<_> = (0..count).map(|_| UserId::new()).collect();
    users.sort_unstable();
    for (n, id) in users.iter().enumerate() {
        let (handle, display_name) = (format!("user-{n}"), "Somebody".to_owned());
        let user = NewUser { id: *id, handle, display_name, password_hash: None, external: None, created_at_ms: 0 };
        assert!(matches!(storage.create_user(user).await?, CreateUser::Created(_)));
    }
    Ok(users)
}

#[tokio::test]
async fn a_message_is_one_look_up_and_one_push_to_each_gateway_on_one_stream() -> Result<()> {
    let mut world = World::new(3, 30, everybody_acked(), touchline_api::Config::default()).await?;
    for user in 0..30 {
        world.connect(user, "phone", user % 3).await?;
    }
    // Two devices on one gateway are one recipient of its push; a third one elsewhere is another.
    world.connect(0, "tablet", 0).await?;
    world.connect(0, "laptop", 1).await?;
    let expected = |gateway: usize| -> Vec<UserId> {
        let on = |user: &usize| user % 3 == gateway || (*user == 0 && gateway == 1);
        (0..30).filter(on).map(|user| world.users[user]).collect()
    };
    let expected: Vec<_> = (0..3).map(expected).collect();

    let channel = world.channel().await?;
    for seq in 1..=6 {
        if seq > 1 {
            assert_eq!(world.send(channel).await?, Seq(seq));
        }
        for (gateway, recipients) in world.gateways.iter_mut().zip(&expected) {
            assert_eq!(gateway.push().await?, (seq, recipients.clone()));
        }
    }
    assert_eq!(world.registry.calls(Call::LookUp), 6, "one a message");
    for gateway in &mut world.gateways {
        assert_eq!(gateway.streams.load(Ordering::SeqCst), 1);
        assert!(!gateway.has_more(), "one push a message");
    }
    Ok(())
}

#[tokio::test]
async fn whom_the_results_name_is_looked_for_once_more_and_then_noted_down() -> Result<()> {
    let [sender, acked, gone, unacked, slow, late, offline] = [0, 1, 2, 3, 4, 5, 6];
    // Whom it names: by the place among the recipients, who are pushed in the order of their ids.
    let answer: Answer = Arc::new(move |push| {
        let users: Vec<_> = unpack_users(&push.recipients).expect("whole ids").collect();
        let named = |places: &[usize]| pack_users(places.iter().map(|place| &users[*place]));
        let push_id = push.push_id;
        Some(match users.len() {
            // The first push, to all who are connected.
            6 => PushResult {
                push_id,
                gone: named(&[gone, late]),
                slow: named(&[slow]),
                unacked: named(&[sender, unacked]),
                ..PushResult::default()
            },
            // The second look, to whom it was not handed: all but the last are missed again.
            3 => PushResult { push_id, unacked: named(&[0, 1]), ..PushResult::default() },
            // And the question whether who was handed it has acked by now: no.
            1 if push.purpose() == Purpose::Ask => {
                PushResult { push_id, unacked: named(&[0]), ..PushResult::default() }
            }
            _ => PushResult { push_id, ..PushResult::default() },
        })
    });
    let config = touchline_api::Config { ack_wait_ms: 100, second_look_ms: 1, ..Default::default() };
    let mut world = World::new(1, 7, answer, config).await?;
    for user in [sender, acked, gone, unacked, slow, late] {
        world.connect(user, "phone", 0).await?;
    }
    let user = |place: usize| world.users[place];
    let all = [sender, acked, gone, unacked, slow, late].map(user).to_vec();
    let (not_handed, handed) = ([gone, slow, late].map(user).to_vec(), vec![user(unacked)]);
    let noted = [gone, unacked, slow, offline].map(user);

    let channel = world.channel().await?;
    for seq in 1..=2 {
        if seq > 1 {
            world.send(channel).await?;
        }
        assert_eq!(world.gateways[0].push().await?, (seq, all.clone()));
        assert_eq!(world.gateways[0].push().await?, (seq, not_handed.clone()), "the second look");
        assert_eq!(world.gateways[0].push().await?, (seq, handed.clone()), "who has it is only asked about");
    }
    // The channel's own first entry is nobody's notification; the message is.
    let expected = noted.map(|user| (user, Seq(2), 1)).to_vec();
    eventually("those missed twice, and nobody else, are noted down", async || {
        Ok(world.storage.pending_notifications(channel).await? == expected)
    })
    .await?;
    assert!(!world.gateways[0].has_more(), "nobody is looked for a third time");
    Ok(())
}

#[tokio::test]
async fn without_an_answer_from_the_registry_every_gateway_gets_every_recipient() -> Result<()> {
    let mut world = World::new(2, 3, everybody_acked(), touchline_api::Config::default()).await?;
    for user in 0..3 {
        world.connect(user, "phone", 0).await?;
    }
    let users = world.users.clone();
    let channel = world.channel().await?;
    assert_eq!(world.gateways[0].push().await?, (1, users.clone()));
    world.registry.set(Call::LookUp, Fault::Hang);
    world.send(channel).await?;
    for gateway in &mut world.gateways {
        assert_eq!(gateway.push().await?, (2, users.clone()));
    }
    Ok(())
}

#[tokio::test]
async fn a_send_is_answered_while_no_gateway_answers_a_push() -> Result<()> {
    // Longer than a request may take: whoever waited for a result would be answered with a timeout.
    let config = touchline_api::Config { ack_wait_ms: 60_000, ..Default::default() };
    let mut world = World::new(1, 2, Arc::new(|_| None), config).await?;
    world.connect(1, "phone", 0).await?;
    let channel = world.channel().await?;
    for seq in 2..=4 {
        assert_eq!(world.send(channel).await?, Seq(seq));
    }
    for seq in 1..=4 {
        assert_eq!(world.gateways[0].push().await?, (seq, vec![world.users[1]]), "it was pushed all the same");
    }
    Ok(())
}

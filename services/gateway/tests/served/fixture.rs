//! A gateway that serves, and what a test needs to talk to it.

use crate::client::{Api, Client, within};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::task::JoinHandle;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use touchline_auth::{KeySet, SigningKey, TicketSigner, TicketVerifier};
use touchline_gateway::{Config, Dependencies, Error, build};
use touchline_ids::{GatewayId, IncarnationId, UserId};
use touchline_mesh::Shutdown;
use touchline_registry::{Registry as _, Route, contract::FaultyRegistry};

pub const PUSH_SERVICE: &str = "touchline.push.v1.PushService";

/// What the gRPC health service says; none when it does not know the service (yet).
pub async fn health(grpc: SocketAddr, service: &str) -> Option<ServingStatus> {
    let channel = touchline_mesh::client::stream_channel(&format!("http://{grpc}")).expect("an address");
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel).check(request).await.ok().map(|answer| answer.into_inner().status())
}

/// What several gateways share.
#[derive(Clone)]
pub struct World {
    pub registry: Arc<FaultyRegistry>,
    pub signer: TicketSigner,
    pub pem: String,
    pub kid: String,
    keys: KeySet,
}

/// One gateway that serves.
pub struct Served {
    pub world: World,
    pub ws: SocketAddr,
    pub grpc: SocketAddr,
    pub incarnation: IncarnationId,
    pub shutdown: Shutdown,
    pub run: JoinHandle<Option<Result<(), Error>>>,
}

pub fn local_config() -> Config {
    let mut config = Config { ws: any_port(), grpc: any_port(), ..Config::default() };
    // All clients of a test have one address.
    config.limits.unauthenticated_per_address = 1_000;
    config.limits.sockets_per_address = 10_000;
    config
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

impl World {
    pub fn new() -> Self {
        let (key, pem) = SigningKey::generate().expect("a key");
        let keys = KeySet::from_jwks(&serde_json::json!({"keys": [key.public_jwk()]})).expect("a key set");
        let kid = key.kid().to_owned();
        Self { registry: Arc::default(), signer: TicketSigner::new(Arc::new(key)), pem, kid, keys }
    }

    pub fn dependencies(&self) -> Dependencies {
        Dependencies { registry: self.registry.clone(), tickets: TicketVerifier::new(self.keys.clone()) }
    }

    pub async fn serve(&self, change: impl FnOnce(&mut Config)) -> Served {
        let mut config = local_config();
        change(&mut config);
        let app = build(config, self.dependencies()).await.expect("binds");
        let (ws, grpc, incarnation) = (app.ws_address(), app.grpc_address(), app.incarnation());
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let run = shutdown.spawn(async move { app.run(&stop).await });
        if self.registry.ping().await.is_ok() {
            // Not by /readyz: a probe's socket counts for a moment after its answer, and some tests count.
            within("readiness", async { while health(grpc, PUSH_SERVICE).await != Some(ServingStatus::Serving) {} })
                .await;
        }
        Served { world: self.clone(), ws, grpc, incarnation, shutdown, run }
    }

    pub fn ticket(&self, user: UserId, device: &str, session: Duration) -> String {
        let device = device.parse().expect("a device");
        self.signer.sign(user, &device, SystemTime::now() + session).expect("signs")
    }

    /// The incarnations at which the registry has this user.
    pub async fn routes(&self, user: UserId) -> Vec<IncarnationId> {
        let routes = self.registry.look_up(&[user]).await.expect("the registry is there");
        routes.into_iter().map(|Route { incarnation, .. }| incarnation).collect()
    }

    /// Waits until the registry has this user at these incarnations.
    pub async fn routes_become(&self, user: UserId, expected: &[IncarnationId]) {
        within("the routes", async {
            while self.routes(user).await != expected {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

impl Served {
    pub async fn start(change: impl FnOnce(&mut Config)) -> Self {
        World::new().serve(change).await
    }

    pub async fn open(&self) -> Client {
        Client::open(self.ws, &[]).await.expect("upgrades")
    }

    /// A session of this user's device.
    pub async fn connect(&self, user: UserId, device: &str, connection: i64) -> Client {
        let mut client = self.try_connect(user, device, connection).await;
        client.ready().await;
        client
    }

    /// As far as the hello.
    pub async fn try_connect(&self, user: UserId, device: &str, connection: i64) -> Client {
        let mut client = self.open().await;
        let ticket = self.world.ticket(user, device, Duration::from_secs(900));
        client.hello(&ticket, device, connection).await;
        client
    }

    pub async fn api(&self) -> Api {
        Api::connect(self.grpc, self.incarnation).await
    }

    pub async fn ended(self) -> Result<(), Error> {
        within("the end", self.run).await.expect("no panic").expect("not stopped hard")
    }
}

pub fn gateway_id(id: &str) -> Option<GatewayId> {
    Some(id.parse().expect("an id"))
}

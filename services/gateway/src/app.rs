//! Puts a gateway together and runs it.

use crate::{
    accept,
    config::{Config, ms},
    drain,
    error::Error,
    gateway::Gateway,
    lease::Keeper,
    push::Pushes,
    relay, routes, running,
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::timeout,
};
use tonic::{server::NamedService as _, service::Routes};
use touchline_auth::TicketVerifier;
use touchline_ids::IncarnationId;
use touchline_mesh::{
    Shutdown,
    server::{GrpcListener, MESSAGE_LIMIT},
};
use touchline_proto::push::push_service_server::PushServiceServer;
use touchline_registry::Registry;

/// Connections the kernel may complete before we accept them: a reconnect storm waits here.
const BACKLOG: u32 = 4096;
/// How long each of the last steps may take once the sessions are gone.
const LAST_STEP: Duration = Duration::from_secs(3);

/// What a gateway works with.
#[derive(Clone)]
pub struct Dependencies {
    /// Who is connected where.
    pub registry: Arc<dyn Registry>,
    /// Who may connect.
    pub tickets: TicketVerifier,
}

/// A gateway whose listeners are bound and that does not serve yet.
pub struct App {
    ws: TcpListener,
    ws_address: SocketAddr,
    grpc: GrpcListener,
    gateway: Arc<Gateway>,
    life: Shutdown,
}

/// Binds the listeners.
///
/// # Errors
/// [`Error::Settings`] when the settings have problems, [`Error::Bind`] when an address is taken or not ours.
pub async fn build(config: Config, dependencies: Dependencies) -> Result<App, Error> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(Error::Settings(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")));
    }
    let (ws, grpc) = (config.ws, config.grpc);
    let ws = listen(ws).map_err(|source| Error::Bind { address: ws, source })?;
    let ws_address = ws.local_addr().map_err(|source| Error::Bind { address: config.ws, source })?;
    let grpc = GrpcListener::bind(grpc).map_err(|source| Error::Bind { address: grpc, source })?;
    let life = Shutdown::new();
    let Dependencies { registry, tickets } = dependencies;
    set_crash_points();
    let gateway = Gateway::new(config, IncarnationId::new(), registry, tickets, life.clone());
    Ok(App { ws, ws_address, grpc, gateway: Arc::new(gateway), life })
}

/// Sets the crash points that the environment names (`FAILPOINTS=before_ack=1%return;…`). Not by `FailScenario`: an
/// api in this process may have one, and there is one at a time.
fn set_crash_points() {
    if fail::has_failpoints()
        && let Ok(points) = std::env::var("FAILPOINTS")
    {
        for (name, actions) in points.split(';').filter_map(|point| point.trim().split_once('=')) {
            if let Err(error) = fail::cfg(name, actions) {
                tracing::error!(name, error, "a crash point was not set");
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl App {
    /// Where the WebSocket listener landed.
    pub fn ws_address(&self) -> SocketAddr {
        self.ws_address
    }

    /// Where the gRPC listener landed.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// This life of the gateway.
    pub fn incarnation(&self) -> IncarnationId {
        self.gateway.incarnation
    }

    /// Serves until the soft stop, then drains: sessions are sent elsewhere over the drain window, every push is
    /// answered, the lease is released. A hard stop ends it where it stands.
    ///
    /// # Errors
    /// [`Error::Fenced`] after draining, when a later incarnation holds the lease; [`Error::Grpc`] when the gRPC
    /// server fails.
    pub async fn run(self, shutdown: &Shutdown) -> Result<(), Error> {
        // Whatever ends this function ends every task with it.
        let _end = StopNow(self.life.clone());
        tokio::select! {
            result = self.serve(shutdown) => result,
            () = shutdown.stopping_now() => Ok(()),
        }
    }

    async fn serve(self, shutdown: &Shutdown) -> Result<(), Error> {
        let Self { ws, ws_address, grpc, gateway, life } = self;
        let (health, health_service) = tonic_health::server::health_reporter();
        let config = &gateway.config;
        let keeper = Keeper {
            gateway: Arc::clone(&gateway),
            health,
            service: PushServiceServer::<Pushes>::NAME,
            grpc_url: config.grpc_url.clone().unwrap_or_else(|| format!("http://{}", grpc.address())),
            public_url: config.public_url.clone().unwrap_or_else(|| format!("ws://{ws_address}")),
        };
        life.spawn(running::beat_forever(Arc::clone(&gateway)));
        // Before the first socket is accepted, so that nobody is sent away while the registry is well.
        keeper.renew().await;
        life.spawn(routes::keep(Arc::clone(&gateway)));
        life.spawn(routes::tell(Arc::clone(&gateway)));
        life.spawn(relay::tell_forever(Arc::clone(&gateway), ms(gateway.config.times.acks_ms)));
        let lease = life.spawn(keeper.keep(life.stopping()));
        life.spawn(accept::serve(ws, Arc::clone(&gateway), life.stopping()));

        let grpc_life = Shutdown::new();
        let pushes = PushServiceServer::new(Pushes { gateway: Arc::clone(&gateway), stop: grpc_life.clone() })
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let services = Routes::new(health_service).add_service(pushes);
        let stop = grpc_life.clone();
        let mut server = life.spawn(async move { grpc.serve(services, &stop).await });
        tracing::info!(
            gateway.id = %gateway.id,
            gateway.incarnation = %gateway.incarnation,
            ws = %ws_address,
            "the gateway serves"
        );

        tokio::select! {
            () = shutdown.stopping() => {}
            () = gateway.readiness.fenced.cancelled() => {}
            () = gateway.readiness.unreached.cancelled() => {}
            ended = &mut server => {
                if let Ok(Some(Err(error))) = ended {
                    return Err(error.into());
                }
                return Ok(());
            }
        }
        drain::drain(&gateway).await;
        // The last acks go before the streams end.
        relay::tell(&gateway);
        grpc_life.stop();
        if timeout(LAST_STEP, server).await.is_err() {
            tracing::warn!("push streams are left behind");
        }
        gateway.sessions_ended(ms(gateway.config.times.close_ms)).await;
        let _ = timeout(LAST_STEP, gateway.routes.flush()).await;
        // The keeper must not renew what is released next.
        life.stop();
        let _ = lease.await;
        if gateway.readiness.fenced.is_cancelled() {
            return Err(Error::Fenced(gateway.id.clone()));
        }
        if gateway.ask(gateway.registry.release_lease(&gateway.id, gateway.incarnation)).await.is_err() {
            tracing::warn!("the lease was not released: it expires by itself");
        }
        if gateway.readiness.unreached.is_cancelled() {
            return Err(Error::Unreached(gateway.id.clone()));
        }
        tracing::info!("the gateway has ended");
        Ok(())
    }
}

/// Ends every task of a life when it is dropped.
struct StopNow(Shutdown);

impl Drop for StopNow {
    fn drop(&mut self) {
        self.0.stop_now();
    }
}

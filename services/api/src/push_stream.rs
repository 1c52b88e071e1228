//! The `PushService` streams: one to every live gateway incarnation.

mod exchange;

use crate::{debts::Debts, delivered::Delivered, delivery::Loss, owed::Owed};
use exchange::{Ended, exchange};
use std::{
    collections::HashMap,
    error::Error as _,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use touchline_ids::IncarnationId;
use touchline_mesh::{Shutdown, client};
use touchline_proto::push::{PushAnswer, PushRequest, PushResult, push_service_client::PushServiceClient};
use touchline_registry::{Directory, Lease, View};

/// Pushes waiting for one gateway's stream. More means that the gateway does not keep up: they count as not reached.
const QUEUE: usize = 1_024;
/// Pushes handed to the transport but not yet written.
const IN_TRANSPORT: usize = 64;
/// Largest message of a gateway: a result that names every recipient, or 10,000 acks.
const ANSWER_LIMIT: usize = 1024 * 1024;
/// How often the streams are held against the live gateways.
const FOLLOW: Duration = Duration::from_millis(250);
/// How long a gateway may take to answer the opening of a stream.
const OPENING: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// A push on its way: resolves with the gateway's result, or with why there will be none. Also when its sender is
/// dropped: then the stream broke.
pub type PendingResult = oneshot::Receiver<Result<PushResult, Loss>>;

struct Push {
    request: PushRequest,
    reply: oneshot::Sender<Result<PushResult, Loss>>,
}

/// The streams to all gateways.
pub struct PushStreams {
    streams: Mutex<HashMap<IncarnationId, Stream>>,
    directory: Arc<Directory>,
    delivered: Arc<Delivered>,
    debts: Arc<Debts>,
    /// The database's present life.
    lives: watch::Receiver<Option<i64>>,
    life: Shutdown,
}

struct Stream {
    queue: mpsc::Sender<Push>,
    owed: Arc<Owed>,
}

impl PushStreams {
    /// No streams yet; their tasks belong to `life`. Healthy ones vouch for their gateways in the directory, and the
    /// acks that gateways tell of go to `delivered`. What gateways that are not in the view owe is in `debts`.
    /// Every stream begins with the database's life, and is told when it is another one.
    pub fn new(
        directory: Arc<Directory>,
        delivered: Arc<Delivered>,
        debts: Arc<Debts>,
        lives: watch::Receiver<Option<i64>>,
        life: Shutdown,
    ) -> Self {
        Self { streams: Mutex::default(), directory, delivered, debts, lives, life }
    }

    /// Hands one push to the gateway's stream, opening it when there is none. Never waits. Pushes handed over one
    /// after another arrive in that order.
    pub fn push(&self, gateway: &Arc<Lease>, request: PushRequest) -> PendingResult {
        let (reply, result) = oneshot::channel();
        let (queue, owed) = self.stream_to(gateway);
        if let Err(refused) = queue.try_send(Push { request, reply }) {
            let (mpsc::error::TrySendError::Full(push) | mpsc::error::TrySendError::Closed(push)) = refused;
            tracing::warn!(gateway.id = %gateway.gateway, gateway.incarnation = %gateway.incarnation, "push queue full");
            owed.add(&push.request.recipients);
        }
        result
    }

    /// A push that was not even tried.
    pub fn refused() -> PendingResult {
        oneshot::channel().1
    }

    /// Keeps one stream open to every live gateway, so that the first push to it waits for no handshake.
    pub async fn follow_forever(self: Arc<Self>) {
        let mut tick = tokio::time::interval(FOLLOW);
        loop {
            tick.tick().await;
            self.follow(&self.directory.view());
        }
    }

    /// A stream to a gateway that is no longer live gets no more pushes; what is under way on it is still awaited. One
    /// that is healthy never gets here: it vouches for its gateway.
    fn follow(&self, live: &View) {
        self.lock().retain(|incarnation, _| live.get(*incarnation).is_some());
        for lease in live.leases() {
            self.stream_to(lease);
        }
    }

    fn stream_to(&self, gateway: &Arc<Lease>) -> (mpsc::Sender<Push>, Arc<Owed>) {
        let mut streams = self.lock();
        let stream = streams.entry(gateway.incarnation).or_insert_with(|| {
            let (queue, pushes) = mpsc::channel(QUEUE);
            let owed = Arc::new(self.debts.take(gateway.incarnation, Instant::now()));
            let line = Line {
                gateway: Arc::clone(gateway),
                directory: Arc::clone(&self.directory),
                delivered: Arc::clone(&self.delivered),
                owed: Arc::clone(&owed),
                debts: Arc::clone(&self.debts),
                lives: self.lives.clone(),
                vouched: false,
            };
            self.life.spawn(async move { line.keep_open(pushes).await });
            Stream { queue, owed }
        });
        (stream.queue.clone(), Arc::clone(&stream.owed))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IncarnationId, Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task's side of a stream.
struct Line {
    gateway: Arc<Lease>,
    directory: Arc<Directory>,
    delivered: Arc<Delivered>,
    owed: Arc<Owed>,
    debts: Arc<Debts>,
    lives: watch::Receiver<Option<i64>>,
    vouched: bool,
}

type Inbound = Streaming<PushAnswer>;

impl Line {
    /// Keeps a stream to one incarnation until nobody holds its queue any more.
    async fn keep_open(mut self, mut pushes: mpsc::Receiver<Push>) {
        let channel = match client::stream_channel(&self.gateway.grpc_url) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::error!(gateway.id = %self.gateway.gateway, %error, "gateway registered an address that is none");
                return;
            }
        };
        let mut client = PushServiceClient::new(channel).max_decoding_message_size(ANSWER_LIMIT);
        let (mut retry, mut failed) = (FIRST_RETRY, None);
        loop {
            match self.open(&mut client, failed, &mut pushes).await {
                Some(Ok((outbound, inbound))) => {
                    tracing::info!(gateway.id = %self.gateway.gateway, gateway.incarnation = %self.gateway.incarnation, "push stream open");
                    let opened = Instant::now();
                    self.vouch(true);
                    let ended = exchange(&mut self, &mut pushes, &outbound, inbound).await;
                    self.vouch(false);
                    let Ended::Broken(error, _) = ended else { return };
                    tracing::warn!(gateway.id = %self.gateway.gateway, error, "push stream broke");
                    failed = None;
                    retry = FIRST_RETRY;
                    // Most likely it can be opened again at once. One that breaks again and again must wait.
                    if opened.elapsed() >= LAST_RETRY {
                        continue;
                    }
                }
                Some(Err(loss)) => {
                    // A gateway that died is dialled until its lease ends; saying so once is enough.
                    if failed.replace(loss).is_none() {
                        tracing::warn!(gateway.id = %self.gateway.gateway, gateway.grpc = self.gateway.grpc_url, ?loss, "push stream not opened, trying on");
                    }
                }
                None => return,
            }
            let wait = tokio::time::sleep(retry);
            if self.refusing(failed.unwrap_or(Loss::Broken), &mut pushes, wait).await.is_none() {
                return;
            }
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    /// Dials. After a failure, pushes that come meanwhile are refused: they must not wait longer than a second look
    /// takes. `None` when the stream is no longer wanted.
    async fn open(
        &self,
        client: &mut PushServiceClient<Channel>,
        failed: Option<Loss>,
        pushes: &mut mpsc::Receiver<Push>,
    ) -> Option<Result<(mpsc::Sender<PushRequest>, Inbound), Loss>> {
        let (outbound, requests) = mpsc::channel(IN_TRANSPORT);
        let opening = timeout(OPENING, client.push(ReceiverStream::new(requests)));
        let opened = match failed {
            Some(loss) => self.refusing(loss, pushes, opening).await?,
            None => opening.await,
        };
        Some(match opened {
            Ok(Ok(response)) => Ok((outbound, response.into_inner())),
            Ok(Err(status)) => Err(loss_of(&status)),
            // The kernel takes connections for a process that hangs.
            Err(_) => Err(Loss::Unreachable),
        })
    }

    /// Waits and refuses what comes meanwhile. `None` when the stream is no longer wanted.
    async fn refusing<T>(
        &self,
        loss: Loss,
        pushes: &mut mpsc::Receiver<Push>,
        until: impl Future<Output = T>,
    ) -> Option<T> {
        let mut until = std::pin::pin!(until);
        loop {
            tokio::select! {
                done = &mut until => return Some(done),
                push = pushes.recv() => {
                    let Push { request, reply } = push?;
                    self.owed.add(&request.recipients);
                    let _ = reply.send(Err(loss));
                }
            }
        }
    }

    /// Says in the directory whether this gateway is seen alive from here.
    fn vouch(&mut self, healthy: bool) {
        if self.vouched == healthy {
            return;
        }
        self.vouched = healthy;
        if healthy {
            self.directory.vouch(Arc::clone(&self.gateway));
        } else {
            self.directory.unvouch(self.gateway.incarnation);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.vouch(false);
        self.debts.keep(self.gateway.incarnation, &self.owed, Instant::now());
    }
}

/// A gateway that refuses is gone, or goes: its clients are or will be elsewhere. One that cannot be reached may be
/// well for others.
fn loss_of(status: &Status) -> Loss {
    let mut cause = status.source();
    while let Some(error) = cause {
        // No answer to a keepalive: nobody said that it is gone.
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout) {
            return Loss::Unreachable;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    Loss::Broken
                }
                _ => Loss::Unreachable,
            };
        }
        cause = error.source();
    }
    Loss::Broken
}

#[cfg(test)]
mod tests;

//! One long-lived `PushService` stream to every live gateway incarnation.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use touchline_ids::IncarnationId;
use touchline_mesh::{Shutdown, client};
use touchline_proto::push::{
    PushAnswer, PushRequest, PushResult, push_answer::Answer, push_service_client::PushServiceClient,
};
use touchline_registry::{Directory, Lease, View};

/// Pushes waiting for one gateway's stream. More means that the gateway does not keep up: they count as not reached.
const QUEUE: usize = 1_024;
/// Pushes handed to the transport but not yet written.
const IN_TRANSPORT: usize = 64;
/// Largest result of one push: every recipient named.
const RESULT_LIMIT: usize = 1024 * 1024;
/// How often the streams are held against the live gateways.
const FOLLOW: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// A push on its way: resolves with the gateway's result, or with an error when the stream broke, was full or the
/// gateway is gone. An error means that nobody is known to have got it.
pub type PendingResult = oneshot::Receiver<PushResult>;

struct Push {
    request: PushRequest,
    reply: oneshot::Sender<PushResult>,
}

/// The streams to all gateways.
pub struct PushStreams {
    streams: Mutex<HashMap<IncarnationId, mpsc::Sender<Push>>>,
    life: Shutdown,
}

impl PushStreams {
    /// No streams yet; their tasks belong to `life`.
    pub fn new(life: Shutdown) -> Self {
        Self { streams: Mutex::default(), life }
    }

    /// Hands one push to the gateway's stream, opening it when there is none. Never waits. Pushes handed over one
    /// after another arrive in that order.
    pub fn push(&self, gateway: &Lease, request: PushRequest) -> PendingResult {
        let (reply, result) = oneshot::channel();
        let queue = self.stream_to(gateway);
        if queue.try_send(Push { request, reply }).is_err() {
            tracing::warn!(gateway.id = %gateway.gateway, gateway.incarnation = %gateway.incarnation, "push queue full");
        }
        result
    }

    /// Keeps one stream open to every live gateway, so that the first push to it waits for no handshake.
    pub async fn follow_forever(self: Arc<Self>, directory: Arc<Directory>) {
        let mut tick = tokio::time::interval(FOLLOW);
        loop {
            tick.tick().await;
            self.follow(&directory.view());
        }
    }

    fn follow(&self, live: &View) {
        self.lock().retain(|incarnation, _| live.get(*incarnation).is_some());
        for lease in live.leases() {
            self.stream_to(lease);
        }
    }

    fn stream_to(&self, gateway: &Lease) -> mpsc::Sender<Push> {
        let mut streams = self.lock();
        if let Some(queue) = streams.get(&gateway.incarnation) {
            return queue.clone();
        }
        let (queue, pushes) = mpsc::channel(QUEUE);
        streams.insert(gateway.incarnation, queue.clone());
        let gateway = gateway.clone();
        self.life.spawn(async move { keep_open(gateway, pushes).await });
        queue
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IncarnationId, mpsc::Sender<Push>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a stream to one incarnation until nobody holds its queue any more.
async fn keep_open(gateway: Lease, mut pushes: mpsc::Receiver<Push>) {
    let channel = match client::stream_channel(&gateway.grpc_url) {
        Ok(channel) => channel,
        Err(error) => {
            tracing::error!(gateway.id = %gateway.gateway, %error, "gateway registered an address that is none");
            return;
        }
    };
    let mut client = PushServiceClient::new(channel).max_decoding_message_size(RESULT_LIMIT);
    let mut retry = FIRST_RETRY;
    loop {
        let (outbound, requests) = mpsc::channel(IN_TRANSPORT);
        match client.push(ReceiverStream::new(requests)).await {
            Ok(response) => {
                tracing::info!(gateway.id = %gateway.gateway, gateway.incarnation = %gateway.incarnation, "push stream open");
                retry = FIRST_RETRY;
                match exchange(&mut pushes, &outbound, response.into_inner()).await {
                    Ended::Unwanted => return,
                    Ended::Broken(error) => {
                        tracing::warn!(gateway.id = %gateway.gateway, error, "push stream broke");
                    }
                }
            }
            Err(status) => {
                let (code, error) = (status.code(), status.message());
                // A gateway that died is dialled until its lease ends; saying so once is enough.
                if retry == FIRST_RETRY {
                    tracing::warn!(gateway.id = %gateway.gateway, gateway.grpc = gateway.grpc_url, rpc.code = ?code, error, "push stream not opened, trying on");
                } else {
                    tracing::debug!(gateway.id = %gateway.gateway, rpc.code = ?code, error, "push stream not opened");
                }
            }
        }
        if !refuse_for(retry, &mut pushes).await {
            return;
        }
        retry = (retry * 2).min(LAST_RETRY);
    }
}

enum Ended {
    /// The gateway is no longer live, or we stop.
    Unwanted,
    /// The transport failed, or the gateway ended the stream.
    Broken(String),
}

/// Writes pushes and reads results until either side ends. Pushes without a result are dropped with the pending map,
/// which tells their senders at once.
async fn exchange(
    pushes: &mut mpsc::Receiver<Push>,
    outbound: &mpsc::Sender<PushRequest>,
    mut inbound: tonic::Streaming<PushAnswer>,
) -> Ended {
    let mut pending: HashMap<u64, oneshot::Sender<PushResult>> = HashMap::new();
    let mut last_id = 0;
    loop {
        // Both halves are cancel-safe: an unused permit goes back, an unreceived push stays queued.
        let next = async {
            let permit = outbound.reserve().await.ok()?;
            Some((permit, pushes.recv().await))
        };
        tokio::select! {
            answer = inbound.message() => match answer {
                Ok(Some(PushAnswer { answer: Some(Answer::Result(result)) })) => {
                    if let Some(reply) = pending.remove(&result.push_id) {
                        // Whoever asked may have given up waiting.
                        let _ = reply.send(result);
                    }
                }
                // What a newer gateway says besides.
                Ok(Some(_)) => {}
                Ok(None) => return Ended::Broken("ended by the gateway".to_owned()),
                Err(status) => return Ended::Broken(status.message().to_owned()),
            },
            next = next => match next {
                Some((permit, Some(Push { mut request, reply }))) => {
                    last_id += 1;
                    request.push_id = last_id;
                    pending.insert(last_id, reply);
                    permit.send(request);
                }
                Some((_, None)) => return Ended::Unwanted,
                None => return Ended::Broken("the transport stopped reading".to_owned()),
            },
        }
    }
}

/// Waits `delay` before the next try and refuses what comes meanwhile: a push must not wait longer than a second look
/// takes. False when the stream is no longer wanted.
async fn refuse_for(delay: Duration, pushes: &mut mpsc::Receiver<Push>) -> bool {
    let mut delay = std::pin::pin!(tokio::time::sleep(delay));
    loop {
        tokio::select! {
            () = &mut delay => return true,
            push = pushes.recv() => match push {
                Some(push) => drop(push),
                None => return false,
            },
        }
    }
}

//! The clients' side of the sockets: connects, counts frames and takes the time of each. Kept cheap, because it runs on
//! the same cores as what is measured.

use crate::measure::now;
use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, stream};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue, protocol::WebSocketConfig},
};
use touchline_mesh::Shutdown;

pub(crate) type Socket = WebSocketStream<TcpStream>;

/// Connecting at the same time.
const CONNECTING: usize = 32;
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// The least that the kernel receives for a socket; it takes more than it is told.
const SMALL: u32 = 2048;
/// PROTOCOL.md: a client acks at most once a second per socket.
const ACK_EVERY: Duration = Duration::from_secs(1);

/// What a listener does besides reading.
#[derive(Debug, Clone)]
pub(crate) enum Manners {
    /// Nothing: the bare loop on the other side only writes.
    Silent,
    /// Acks this channel like a client of ours.
    Acks(String),
}

/// One socket to open.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    /// The whole address, such as `ws://127.0.0.1:8081/v1/socket`.
    pub(crate) url: String,
    /// What to say first; the answer is waited for.
    pub(crate) hello: Option<String>,
}

/// Open sockets, each read by a task of its own.
pub(crate) struct Audience {
    listeners: Vec<JoinHandle<Option<Vec<u64>>>>,
    heard: Arc<Heard>,
    life: Shutdown,
}

/// What all sockets together got so far.
#[derive(Debug, Default)]
struct Heard {
    frames: AtomicU64,
    /// The length of the last frame.
    bytes: AtomicUsize,
}

impl Audience {
    /// Opens every seat and starts listening. A seat is a future: a ticket does not keep for long.
    pub(crate) async fn seat<S>(seats: impl Iterator<Item = S>, manners: &Manners) -> Result<Self>
    where
        S: Future<Output = Result<Seat>>,
    {
        let life = Shutdown::new();
        let heard = Arc::new(Heard::default());
        let sockets: Vec<Socket> = stream::iter(seats)
            .map(|seat| async move { open(seat.await?, false).await })
            .buffer_unordered(CONNECTING)
            .try_collect()
            .await?;
        let listen = |socket| life.spawn(listen(socket, manners.clone(), Arc::clone(&heard), life.clone()));
        Ok(Self { listeners: sockets.into_iter().map(listen).collect(), heard, life })
    }

    /// Frames with a time in them that arrived so far, over all sockets.
    pub(crate) fn received(&self) -> u64 {
        self.heard.frames.load(Ordering::Relaxed)
    }

    /// How long the last of them was.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.heard.bytes.load(Ordering::Relaxed)
    }

    /// Waits until `target` frames have arrived.
    pub(crate) async fn has_received(&self, target: u64) -> Result<()> {
        let deadline = time::Instant::now() + PATIENCE;
        while self.received() < target {
            ensure!(time::Instant::now() < deadline, "only {} of {target} frames arrived", self.received());
            time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Closes every socket; gives, per socket, the nanoseconds from send to socket of every frame.
    pub(crate) async fn leave(self) -> Result<Vec<Vec<u64>>> {
        self.life.stop();
        let mut times = Vec::with_capacity(self.listeners.len());
        for listener in self.listeners {
            times.push(listener.await?.context("a listener was stopped hard")?);
        }
        Ok(times)
    }
}

/// Opens one; with `small`, one whose kernel takes next to nothing for it.
pub(crate) async fn open(seat: Seat, small: bool) -> Result<Socket> {
    let mut request = seat.url.as_str().into_client_request()?;
    let address = request.uri().authority().context("an address")?.to_string();
    if seat.hello.is_some() {
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("touchline.v1.json"));
    }
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(1024);
    let socket = TcpSocket::new_v4()?;
    if small {
        socket.set_recv_buffer_size(SMALL)?;
    }
    let stream = socket.connect(address.parse()?).await?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = client_async_with_config(request, stream, Some(config)).await?;
    if let Some(hello) = seat.hello {
        socket.send(Message::text(hello)).await?;
        match socket.next().await.context("the gateway closed the socket")?? {
            Message::Text(text) if text.contains("\"ready\"") => {}
            other => bail!("expected ready, got {other:?}"),
        }
    }
    Ok(socket)
}

async fn listen(mut socket: Socket, manners: Manners, heard: Arc<Heard>, life: Shutdown) -> Vec<u64> {
    let mut times = Vec::new();
    let mut unacked = None;
    let mut ack_due = Box::pin(time::sleep(Duration::ZERO));
    let mut leaving = std::pin::pin!(life.stopping());
    loop {
        let frame = tokio::select! {
            frame = socket.next() => frame,
            () = &mut ack_due, if unacked.is_some() => {
                if let (Manners::Acks(channel), Some(seq)) = (&manners, unacked.take()) {
                    let ack = format!(r#"{{"type":"ack","cursors":{{"{channel}":{seq}}}}}"#);
                    let _ = socket.send(Message::text(ack)).await;
                }
                ack_due.as_mut().reset(time::Instant::now() + ACK_EVERY);
                continue;
            }
            () = &mut leaving => break,
        };
        let Some(Ok(frame)) = frame else { break };
        let Message::Text(text) = frame else { continue };
        let Some(sent) = number(&text, "\"at\":") else { continue };
        times.push(now().saturating_sub(sent));
        if matches!(manners, Manners::Acks(_)) {
            unacked = number(&text, "\"seq\":");
        }
        heard.bytes.store(text.len(), Ordering::Relaxed);
        heard.frames.fetch_add(1, Ordering::Relaxed);
    }
    let _ = socket.close(None).await;
    times
}

/// The number after `key`, without reading the rest as JSON.
fn number(text: &str, key: &str) -> Option<u64> {
    let (_, rest) = text.split_once(key)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

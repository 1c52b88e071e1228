//! A device: one connected socket that collects what it gets, so that a test can wait for it.

use crate::Sighting;
use anyhow::{Context as _, Result, bail, ensure};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval_at, sleep, sleep_until, timeout},
};
use touchline_client::{Closed, Frame, Message, Socket};
use touchline_ids::{ChannelId, DeviceId, Seq};
use touchline_mesh::Shutdown;

/// How long a test waits for something that must come. Only a failing test waits so long.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at what only shows when one looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// PROTOCOL.md: a client acks at most once a second per socket.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// Orders that may wait for a device's task.
const ORDERS: usize = 16;

/// Looks until it is so, for what has no event to wait for.
///
/// # Errors
/// When it is not so before [`DEADLINE`], or looking fails.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while !is_so().await? {
        ensure!(Instant::now() < deadline, "not in time: {what}");
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// A connected device. Dropping it cuts its connection without a goodbye.
#[derive(Debug)]
pub struct Device {
    name: DeviceId,
    gateway: String,
    orders: mpsc::Sender<Order>,
    seen: watch::Receiver<Seen>,
    life: Shutdown,
}

/// Everything that came so far.
#[derive(Debug, Default)]
struct Seen {
    frames: Vec<Frame>,
    closed: Option<Closed>,
}

#[derive(Debug)]
enum Order {
    Send(String),
    Read(bool),
    Close,
}

impl Device {
    /// Takes over an open socket. With `acks` it acks as PROTOCOL.md says; without, never, so that an api takes what
    /// is sent to it for missed.
    pub(crate) fn new(name: DeviceId, gateway: String, socket: Socket, acks: bool) -> Self {
        let (orders, to_do) = mpsc::channel(ORDERS);
        let (report, seen) = watch::channel(Seen::default());
        let life = Shutdown::new();
        life.spawn(Session { socket, acks, report, held: BTreeMap::new(), unacked: BTreeMap::new() }.run(to_do));
        Self { name, gateway, orders, seen, life }
    }

    /// The device's id.
    pub fn name(&self) -> &DeviceId {
        &self.name
    }

    /// The public address of the gateway it is connected to.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Every frame so far, in the order they came.
    pub fn frames(&self) -> Vec<Frame> {
        self.seen.borrow().frames.clone()
    }

    /// Every message so far, in the order they came, those that came twice included.
    pub fn messages(&self) -> Vec<Message> {
        self.seen.borrow().frames.iter().filter_map(message).cloned().collect()
    }

    /// What the [`Checker`](crate::Checker) judges.
    pub fn sightings(&self) -> Vec<Sighting> {
        self.seen.borrow().frames.iter().filter_map(message).map(Sighting::from).collect()
    }

    /// Waits for this message and gives it as it came.
    ///
    /// # Errors
    /// When the socket closes or [`DEADLINE`] passes before.
    pub async fn expect(&self, wanted: impl Into<Sighting>) -> Result<Message> {
        let wanted = wanted.into();
        let found = self.frame(|frame| message(frame).is_some_and(|message| Sighting::from(message) == wanted));
        match found.await {
            Ok(Frame::Message(message)) => Ok(message),
            Ok(_) => unreachable!("only a message matches"),
            Err(error) => Err(error.context(format!("{} waited for {wanted:?}", self.name))),
        }
    }

    /// Waits for the message at `seq` of `channel`.
    ///
    /// # Errors
    /// As [`expect`](Self::expect).
    pub async fn expect_seq(&self, channel: ChannelId, seq: Seq) -> Result<Message> {
        let at = |message: &Message| message.channel_id == channel && message.seq == seq;
        match self.frame(|frame| message(frame).is_some_and(at)).await {
            Ok(Frame::Message(message)) => Ok(message),
            Ok(_) => unreachable!("only a message matches"),
            Err(error) => Err(error.context(format!("{} waited for {seq} of {channel:?}", self.name))),
        }
    }

    /// Waits for the first frame, from the beginning on, that `matches`.
    ///
    /// # Errors
    /// As [`expect`](Self::expect).
    pub async fn frame(&self, matches: impl Fn(&Frame) -> bool) -> Result<Frame> {
        let mut seen = self.seen.clone();
        let there = |seen: &Seen| seen.closed.is_some() || seen.frames.iter().any(&matches);
        let waited = timeout(DEADLINE, seen.wait_for(there)).await;
        let seen = waited.context("it did not come")?.context("the device's task is gone")?;
        match (seen.frames.iter().find(|frame| matches(frame)), &seen.closed) {
            (Some(frame), _) => Ok(frame.clone()),
            (None, Some(closed)) => bail!("the socket was {closed}"),
            (None, None) => unreachable!("waited for one of the two"),
        }
    }

    /// Waits until the socket is closed and says how.
    ///
    /// # Errors
    /// When it is still open after [`DEADLINE`].
    pub async fn closed(&self) -> Result<Closed> {
        let mut seen = self.seen.clone();
        let waited = timeout(DEADLINE, seen.wait_for(|seen| seen.closed.is_some())).await;
        let seen = waited.with_context(|| format!("the socket of {} stays open", self.name))??;
        seen.closed.clone().context("waited for it")
    }

    /// Sends a text frame as it is.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn send(&self, text: impl Into<String>) -> Result<()> {
        self.order(Order::Send(text.into())).await
    }

    /// Stops reading; what the gateway sends from now on fills the buffers between.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn stop_reading(&self) -> Result<()> {
        self.order(Order::Read(false)).await
    }

    /// Reads again.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn read_again(&self) -> Result<()> {
        self.order(Order::Read(true)).await
    }

    /// Says goodbye and waits until the socket is closed.
    ///
    /// # Errors
    /// When it was already.
    pub async fn close(self) -> Result<()> {
        self.order(Order::Close).await?;
        self.closed().await.map(drop)
    }

    async fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).await.with_context(|| format!("the socket of {} is closed", self.name))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

fn message(frame: &Frame) -> Option<&Message> {
    match frame {
        Frame::Message(message) => Some(message),
        _ => None,
    }
}

/// The task that holds the socket.
struct Session {
    socket: Socket,
    acks: bool,
    report: watch::Sender<Seen>,
    /// The contiguous end of what came, by channel.
    held: BTreeMap<ChannelId, Seq>,
    /// What of it was not acked yet.
    unacked: BTreeMap<ChannelId, Seq>,
}

impl Session {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let heartbeat = self.socket.heartbeat();
        let mut pings = interval_at(Instant::now() + heartbeat, heartbeat);
        let mut ack_from = Instant::now();
        let mut reads = true;
        let closed = loop {
            let done = tokio::select! {
                frame = self.socket.next(), if reads => frame.map(|frame| self.take(frame)),
                () = sleep_until(ack_from), if reads && !self.unacked.is_empty() => {
                    ack_from = Instant::now() + ACK_EVERY;
                    let cursors = std::mem::take(&mut self.unacked);
                    self.socket.ack(&cursors).await
                }
                _ = pings.tick(), if reads => self.socket.ping().await,
                order = orders.recv() => match order {
                    Some(Order::Send(text)) => self.socket.send(text).await,
                    Some(Order::Read(on)) => {
                        reads = on;
                        Ok(())
                    }
                    Some(Order::Close) | None => {
                        self.socket.close().await;
                        break Closed { code: 1000, reason: "by the test".to_owned() };
                    }
                },
            };
            if let Err(closed) = done {
                break closed;
            }
        };
        self.report.send_modify(|seen| seen.closed = Some(closed));
    }

    fn take(&mut self, frame: Frame) {
        if let Some(message) = message(&frame).filter(|_| self.acks) {
            // What came before the first message is not this device's to hold: it did not sync.
            let held = self.held.entry(message.channel_id).or_insert(Seq(message.seq.0 - 1));
            if message.seq == held.next() {
                *held = message.seq;
                self.unacked.insert(message.channel_id, message.seq);
            }
        }
        self.report.send_modify(|seen| seen.frames.push(frame));
    }
}

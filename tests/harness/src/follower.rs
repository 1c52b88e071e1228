//! A device with the client library: what an application would show, and what happened on the way. The task that runs
//! it collects, so that a test can wait for anything of it.

use crate::{DEADLINE, Sighting};
use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use touchline_client::{Cursor, Device, Event, Frame, Message, SyncCause};
use touchline_ids::{ChannelId, ConnectionNumber, Seq};
use touchline_mesh::Shutdown;

/// Orders that may wait for a follower's task.
const ORDERS: usize = 16;

/// A device that follows its person's channels by itself. Dropping it cuts its connection.
#[derive(Debug)]
pub struct Follower {
    orders: mpsc::Sender<Order>,
    story: watch::Receiver<Story>,
    life: Shutdown,
}

/// Everything that happened to a follower so far.
#[derive(Debug, Default)]
pub struct Story {
    /// What an application would have shown, in this order.
    pub shown: Vec<Message>,
    /// In raw mode, every frame as it came.
    pub wire: Vec<Frame>,
    /// Each socket: its gateway, and whether the one before it was still open.
    pub sockets: Vec<(String, bool)>,
    /// How often no socket was open any more, and why.
    pub offline: Vec<String>,
    /// What each whole sync was for.
    pub syncs: Vec<SyncCause>,
    /// How many syncs failed.
    pub failed_syncs: usize,
    /// Channels that began anew although they were held.
    pub resets: Vec<ChannelId>,
    /// Channels that were lost.
    pub gone: Vec<ChannelId>,
    /// Why it has ended by itself.
    pub ended: Option<String>,
}

#[derive(Debug)]
enum Order {
    Cut,
    Read(bool),
    Close(oneshot::Sender<(Vec<Cursor>, ConnectionNumber)>),
}

impl Follower {
    /// Runs a device of the client library.
    pub fn start(device: Device) -> Self {
        let (orders, to_do) = mpsc::channel(ORDERS);
        let (report, story) = watch::channel(Story::default());
        let life = Shutdown::new();
        life.spawn(run(device, report, to_do));
        Self { orders, story, life }
    }

    /// What happened so far. Holds the follower up until it is dropped.
    pub fn story(&self) -> watch::Ref<'_, Story> {
        self.story.borrow()
    }

    /// Waits until this is so.
    ///
    /// # Errors
    /// When it is not before [`DEADLINE`], or the device has ended.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Story) -> bool) -> Result<()> {
        let mut story = self.story.clone();
        let waited = timeout(DEADLINE, story.wait_for(|story| is_so(story) || story.ended.is_some())).await;
        let Ok(waited) = waited else { bail!("not in time: {what}; {}", self.summary()) };
        let story = waited.context("the follower's task is gone")?;
        ensure!(is_so(&story), "the device has ended before {what}: {:?}", story.ended);
        Ok(())
    }

    /// Waits until this message was shown.
    ///
    /// # Errors
    /// As [`until`](Self::until).
    pub async fn expect(&self, wanted: impl Into<Sighting>) -> Result<()> {
        let wanted = wanted.into();
        let at = |story: &Story| story.shown.iter().rev().any(|message| Sighting::from(message) == wanted);
        self.until(&format!("{wanted:?}"), at).await
    }

    /// What a [`Checker`](crate::Checker) judges: what was shown, but for the first entry of each channel, which nobody
    /// sent.
    pub fn sightings(&self) -> Vec<Sighting> {
        let story = self.story.borrow();
        story.shown.iter().filter(|message| message.seq > Seq(1)).map(Sighting::from).collect()
    }

    /// Cuts the connection without a goodbye.
    ///
    /// # Errors
    /// When the device has ended.
    pub async fn cut(&self) -> Result<()> {
        self.order(Order::Cut).await
    }

    /// Stops or goes on reading.
    ///
    /// # Errors
    /// When the device has ended.
    pub async fn set_reading(&self, reading: bool) -> Result<()> {
        self.order(Order::Read(reading)).await
    }

    /// Says goodbye; gives what the next life of this device begins with.
    ///
    /// # Errors
    /// When the device has ended.
    pub async fn close(self) -> Result<(Vec<Cursor>, ConnectionNumber)> {
        let (answer, closed) = oneshot::channel();
        self.order(Order::Close(answer)).await?;
        timeout(DEADLINE, closed).await.context("it does not close")?.context("the follower's task is gone")
    }

    async fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).await.context("the device has ended")
    }

    fn summary(&self) -> String {
        let Story { shown, sockets, offline, syncs, .. } = &*self.story.borrow();
        format!("{} shown, sockets {sockets:?}, offline {offline:?}, syncs {syncs:?}", shown.len())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

async fn run(mut device: Device, report: watch::Sender<Story>, mut orders: mpsc::Receiver<Order>) {
    loop {
        tokio::select! {
            event = device.next() => match event {
                Some(event) => report.send_modify(|story| story.take(event)),
                None => return,
            },
            order = orders.recv() => match order {
                Some(Order::Cut) => device.cut(),
                Some(Order::Read(reading)) => device.set_reading(reading),
                Some(Order::Close(answer)) => {
                    let left = (device.cursors(), device.connection());
                    device.close().await;
                    // Who asked may have gone.
                    let _ = answer.send(left);
                    return;
                }
                None => return,
            },
        }
    }
}

impl Story {
    fn take(&mut self, event: Event) {
        match event {
            Event::Message(message) => self.shown.push(message),
            Event::Wire(frame) => self.wire.push(frame),
            Event::Online { gateway, moved, .. } => self.sockets.push((gateway, moved)),
            Event::Offline { why, .. } => self.offline.push(why.to_string()),
            Event::CaughtUp { cause, .. } => self.syncs.push(cause),
            Event::SyncFailed { .. } => self.failed_syncs += 1,
            Event::Reset { channel_id, held, .. } => self.resets.extend(held.map(|_| channel_id)),
            Event::Gone(channel) => self.gone.push(channel),
            Event::Ended(why) => self.ended = Some(why.to_string()),
            Event::Complaint { .. } => {}
        }
    }
}

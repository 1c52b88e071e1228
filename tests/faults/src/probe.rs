//! A few devices at chosen gateways in a channel of their own: how long their messages take while something else is
//! broken.

use anyhow::{Context as _, Result};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, interval, interval_at, sleep};
use touchline_client::{Frame, Socket};
use touchline_harness::{Person, Stack};
use touchline_ids::{ChannelId, ConnectionNumber, DeviceId, Seq};
use touchline_mesh::Shutdown;

/// Between two messages.
const EVERY: Duration = Duration::from_millis(100);
/// What is not there by then counts as having taken so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Differences below this are the machine's, not ours.
const NOISE_MS: f64 = 50.0;

type Arrivals = Arc<Mutex<HashMap<(usize, Seq), Instant>>>;

/// Devices that are connected and time what comes.
pub(crate) struct Probe {
    people: Vec<Person>,
    channel: ChannelId,
    arrivals: Arrivals,
    apis: usize,
    life: Shutdown,
}

/// How long deliveries took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timed {
    pub(crate) p99_ms: f64,
    /// Sends that were not accepted.
    pub(crate) refused: usize,
}

impl Probe {
    /// People with a device each at one of these gateways.
    ///
    /// # Errors
    /// When they do not get connected.
    pub(crate) async fn open(stack: &Stack, count: usize, gateways: &[&str]) -> Result<Self> {
        let people = stack.crowd_called("probe", count).await?;
        let channel = stack.channel(&people.iter().collect::<Vec<_>>()).await?;
        let (arrivals, life) = (Arrivals::default(), Shutdown::new());
        for (at, person) in people.iter().enumerate() {
            let device: DeviceId = "probe".parse()?;
            let ticket = person.ticket(&device).await?.ticket;
            let gateway = gateways[at % gateways.len()];
            let socket = Socket::open(gateway, &ticket, &device, ConnectionNumber(1)).await;
            let socket = socket.with_context(|| format!("connecting to {gateway}"))?;
            life.spawn(listen(socket, at, Arc::clone(&arrivals)));
        }
        Ok(Self { people, channel, arrivals, apis: stack.apis(), life })
    }

    /// Sends for so long and times every delivery.
    ///
    /// # Errors
    /// When a message was neither accepted nor refused.
    pub(crate) async fn run(&self, length: Duration) -> Result<Timed> {
        let (mut ticks, end) = (interval(EVERY), Instant::now() + length);
        let (mut sent, mut refused, mut at) = (Vec::new(), 0, 0);
        while Instant::now() < end {
            ticks.tick().await;
            let began = Instant::now();
            match self.people[0].send_at(at % self.apis, self.channel, "probe").await {
                Ok(sighting) => sent.push((began, sighting.seq)),
                Err(_) => refused += 1,
            }
            at += 1;
        }
        let mut took = Vec::new();
        for (began, seq) in sent {
            for device in 0..self.people.len() {
                took.push(self.arrival(device, seq, began).await.duration_since(began).as_secs_f64() * 1e3);
            }
        }
        took.sort_by(f64::total_cmp);
        let p99 = took.get(took.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
        Ok(Timed { p99_ms: p99, refused })
    }

    async fn arrival(&self, device: usize, seq: Seq, began: Instant) -> Instant {
        loop {
            let at = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).get(&(device, seq)).copied();
            match at {
                Some(at) => return at,
                None if began.elapsed() > PATIENCE => return began + PATIENCE,
                None => sleep(EVERY).await,
            }
        }
    }
}

impl Timed {
    /// At most a fifth slower, beyond what a busy machine does by itself.
    pub(crate) fn is_like(&self, before: &Self) -> bool {
        self.p99_ms <= before.p99_ms * 1.2 + NOISE_MS
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

async fn listen(mut socket: Socket, device: usize, arrivals: Arrivals) {
    let heartbeat = socket.heartbeat();
    let (mut pings, mut acks) = (interval_at(Instant::now() + heartbeat, heartbeat), interval(Duration::from_secs(1)));
    let mut held = BTreeMap::new();
    loop {
        let done = tokio::select! {
            frame = socket.next() => frame.map(|frame| if let Frame::Message(message) = frame {
                let at = Instant::now();
                arrivals.lock().unwrap_or_else(PoisonError::into_inner).entry((device, message.seq)).or_insert(at);
                held.insert(message.channel_id, message.seq);
            }),
            _ = acks.tick(), if !held.is_empty() => socket.ack(&std::mem::take(&mut held)).await,
            _ = pings.tick() => socket.ping().await,
        };
        if done.is_err() {
            return;
        }
    }
}

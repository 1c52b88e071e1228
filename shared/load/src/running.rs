//! A load while it runs.

use crate::{
    board::Board,
    costs::Costs,
    judge::Seen,
    listening::{Phase, listen},
    outages,
    plan::{Kind, Plan},
    report::Report,
    sending::Senders,
    settling,
};
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use touchline_client::Client;
use touchline_ids::{ChannelId, Seq};
use touchline_mesh::Shutdown;
use uuid::Uuid;

/// Between two looks at what only shows when one looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Beyond the ramp, the devices may take this long to be online and caught up before the first send.
const ONLINE: Duration = Duration::from_secs(60);
/// Calls of all devices at the same time: when thousands come back at once, the others wait.
const CALLS: usize = 256;
/// Files besides one socket per device: connections to the apis, and what every process has open.
const OTHER_FILES: u64 = 800;

/// The way into a load.
#[derive(Debug, Clone, Copy)]
pub struct Load;

/// Everything of a load that lives; ends with it.
struct Life(Shutdown);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.stop_now();
    }
}

/// A load that connects its devices. Dropping it gives up.
pub struct Connecting {
    board: Arc<Board>,
    clients: Vec<Client>,
    life: Life,
    phase: watch::Sender<Phase>,
    devices: Vec<JoinHandle<Option<Seen>>>,
    costs: Costs,
    deadline: Instant,
}

/// A load that runs. Dropping it ends it where it stands.
pub struct Running {
    pub(crate) board: Arc<Board>,
    pub(crate) clients: Vec<Client>,
    life: Life,
    sending: Shutdown,
    sender: Option<JoinHandle<Option<()>>>,
    pub(crate) phase: watch::Sender<Phase>,
    devices: Vec<JoinHandle<Option<Seen>>>,
    pub(crate) costs: Costs,
    /// Where the logs ended before the first send, and when that was.
    pub(crate) start_heads: HashMap<ChannelId, Seq>,
    pub(crate) started: u64,
}

/// How it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Since the first send.
    pub elapsed: Duration,
    /// Messages sent.
    pub messages: u64,
    /// Answered 2xx.
    pub accepted: u64,
    /// Refused for good.
    pub refused: u64,
    /// Requests that were refused for now.
    pub deferred: u64,
    /// Requests with an unknown outcome.
    pub unknown: u64,
    /// Messages that wait for their answer.
    pub in_flight: u64,
    /// Messages that an open loop had no place for.
    pub dropped: u64,
    /// Messages shown by devices.
    pub shown: u64,
    /// Devices that are connected.
    pub online: usize,
    /// Devices that should be: all but the absent ones.
    pub devices: usize,
    /// Steady devices that are connected and miss something that is accepted.
    pub behind: usize,
    /// What broke so far, as far as it shows before the end.
    pub broken: u64,
}

impl Load {
    /// Connects the devices at the plan's pace, waits until they have caught up, and begins to send.
    ///
    /// # Errors
    /// When the plan makes no sense, or the devices do not get online.
    pub async fn start(plan: Plan) -> Result<Running> {
        Self::connect(plan)?.start().await
    }

    /// Begins to connect the devices.
    ///
    /// # Errors
    /// When the plan makes no sense.
    pub fn connect(plan: Plan) -> Result<Connecting> {
        check(&plan)?;
        let client = Client::any_of(&plan.apis.iter().map(String::as_str).collect::<Vec<_>>())?;
        // Each keeps to its api, so that all of them are sent to, also after one was away for a while: what fails is
        // tried at the next one anyway.
        let clients = plan.apis.iter().map(|api| Client::new(api)).collect::<Result<Vec<_>, _>>()?;
        let calls = client.at_most(CALLS);
        let costs = Costs::before(&plan.servers);
        // Short, and of this load alone: it stands in every text and every device's name.
        let run = Uuid::new_v4().simple().to_string()[..12].to_owned();
        let board = Arc::new(Board::new(plan, run));
        let (life, phase) = (Life(Shutdown::new()), watch::Sender::new(Phase::Load));
        let between = Duration::from_secs(1) / board.plan.devices.connects_per_second.max(1);
        let device = |at: usize| {
            let client = calls.beginning_with(at);
            let delay = between * u32::try_from(at).unwrap_or(u32::MAX);
            life.0.spawn(listen(Arc::clone(&board), at, client, phase.subscribe(), delay))
        };
        let devices = (0..board.seats.len()).map(device).collect();
        let ramp = between * u32::try_from(board.seats.len()).unwrap_or(u32::MAX);
        let deadline = Instant::now() + ramp + ONLINE;
        Ok(Connecting { board, clients, life, phase, devices, costs, deadline })
    }
}

/// Refuses what cannot work, before anything is connected.
fn check(plan: &Plan) -> Result<()> {
    ensure!(!plan.apis.is_empty(), "a load needs an api");
    ensure!(!plan.users.is_empty() && !plan.channels.is_empty(), "a load needs users and a channel");
    for channel in &plan.channels {
        ensure!(!channel.members.is_empty(), "channel {} has no members", channel.id);
        let known = channel.members.iter().all(|member| *member < plan.users.len());
        ensure!(known, "channel {} has members who are not among the users", channel.id);
    }
    let devices = if plan.devices.count == 0 { plan.users.len() } else { plan.devices.count } + plan.canaries.len();
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = devices as u64 + OTHER_FILES;
    ensure!(
        needed <= files,
        "{devices} devices need about {needed} open files and this process may open {files}: raise it (`ulimit -n`), or \
         take fewer devices"
    );
    Ok(())
}

/// Tells how a load stands, while somebody else holds it.
#[derive(Clone)]
pub struct Watch {
    board: Arc<Board>,
    started: u64,
}

impl Watch {
    /// How it stands now.
    pub fn now(&self) -> Progress {
        progress(&self.board, self.started)
    }
}

impl Connecting {
    /// To see how it stands.
    pub fn watch(&self) -> Watch {
        Watch { board: Arc::clone(&self.board), started: 0 }
    }

    /// Waits until all devices have caught up, and begins to send.
    ///
    /// # Errors
    /// When some do not get online in a minute beyond the ramp; names the last trouble.
    pub async fn start(mut self) -> Result<Running> {
        self.online().await?;
        self.costs.connected(self.board.seats.iter().filter(|seat| seat.is_online()).count());
        let logs = settling::read_heads(&self.board, &self.clients, self.deadline).await?;
        let start_heads: HashMap<_, _> = logs.into_iter().collect();
        start_heads.iter().for_each(|(channel, head)| self.board.raise(*channel, *head));
        let started = self.board.clock.now();
        self.costs.sending();
        let sending = self.life.0.child();
        let senders = Arc::new(Senders::new(Arc::clone(&self.board), self.clients.clone()));
        let sender = Some(self.life.0.spawn(senders.run(sending.clone())));
        let watched = Arc::clone(&self.board);
        self.life.0.spawn_until_stop(async move { outages::watch(&watched).await });
        let Self { board, clients, life, phase, devices, costs, .. } = self;
        Ok(Running { board, clients, life, sending, sender, phase, devices, costs, start_heads, started })
    }

    async fn online(&self) -> Result<()> {
        let settled = |seat: &&crate::seat::Seat| seat.settled.load(Ordering::Relaxed);
        let expected = || self.board.seats.iter().filter(|seat| seat.kind != Kind::Absent);
        loop {
            let (all, there) = (expected().count(), expected().filter(settled).count());
            if there == all {
                return Ok(());
            }
            let trouble = || self.board.last_trouble().unwrap_or_else(|| "they said no reason".into());
            if Instant::now() > self.deadline {
                anyhow::bail!("only {there} of {all} devices got online: {}", trouble());
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

fn progress(board: &Board, started: u64) -> Progress {
    let sends = board.counts.sends();
    let (expected, heads) = (|| board.seats.iter().filter(|seat| seat.kind != Kind::Absent), board.heads());
    Progress {
        elapsed: Duration::from_micros(board.clock.now().saturating_sub(started)),
        messages: sends.messages,
        accepted: sends.accepted,
        refused: sends.refused,
        deferred: sends.deferred,
        unknown: sends.unknown,
        in_flight: sends.messages.saturating_sub(sends.accepted + sends.refused + sends.unresolved),
        dropped: sends.dropped,
        shown: board.counts.shown.load(Ordering::Relaxed),
        online: expected().filter(|seat| seat.is_online()).count(),
        devices: expected().count(),
        behind: board.behind(&heads),
        broken: board.findings().broken.total(),
    }
}

impl Running {
    /// How it stands now.
    pub fn progress(&self) -> Progress {
        progress(&self.board, self.started)
    }

    /// What it was asked to do.
    pub fn plan(&self) -> &Plan {
        &self.board.plan
    }

    /// To see how it stands while it is waited for.
    pub fn watch(&self) -> Watch {
        Watch { board: Arc::clone(&self.board), started: self.started }
    }

    /// Something is broken from now on. What is sent from now until [`fault_healed`](Self::fault_healed) is also
    /// measured apart. A fault before that was not healed ends here.
    pub fn fault_began(&self, name: &str) {
        self.board.faults.begin(name, self.board.clock.now());
    }

    /// It works again from now on: how long the devices take to be back is measured from here.
    pub fn fault_healed(&self) {
        let board = Arc::clone(&self.board);
        let Some(_) = board.faults.heal(board.clock.now()) else { return };
        let which = board.faults.all().count() - 1;
        self.life.0.spawn_until_stop(async move { watch_recovery(&board, which).await });
    }

    /// Waits until every steady device is connected and has everything that was accepted before the last fault was
    /// healed; gives how long that took from then on, none when it takes longer than `patience` from now, or when no
    /// fault was healed.
    pub async fn recovered(&self, patience: Duration) -> Option<Duration> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(took) = self.board.faults.latest()?.recovery() {
                return Some(Duration::from_micros(took));
            }
            sleep(LOOK_EVERY).await;
        }
        None
    }

    /// Waits until the plan's time to send is over and everything is answered; for ever when it has none.
    pub async fn sent(&mut self) {
        if let Some(sender) = &mut self.sender {
            let _ = sender.await;
            self.sender = None;
        }
    }

    /// Stops sending, waits for the answers, for the devices to reach the head of every channel and for the logs to be
    /// read back, and judges.
    ///
    /// # Errors
    /// When nothing can be judged at all.
    pub async fn finish(mut self) -> Result<Report> {
        self.sending.stop();
        self.sent().await;
        let report = settling::finish(&mut self).await.context("judging the load");
        self.life.0.stop();
        self.life.0.wait(Duration::from_secs(1)).await;
        report
    }

    /// Lets every device say goodbye and hand over what it saw.
    pub(crate) async fn collect(&mut self) -> Vec<Seen> {
        self.phase.send_replace(Phase::End);
        let mut seen = Vec::with_capacity(self.devices.len());
        for device in self.devices.drain(..) {
            if let Ok(Some(device)) = device.await {
                seen.push(device);
            }
        }
        seen
    }
}

/// Notes when the devices have what was accepted before the fault was healed.
async fn watch_recovery(board: &Board, which: usize) {
    let (heads, steady) = (board.heads(), board.steady().count());
    loop {
        let lagging = board.lagging(&heads);
        let (Some(fault), now) = (board.faults.all().nth(which), board.clock.now()) else { return };
        if lagging * 100 <= steady {
            fault.nearly_recovered(now);
        }
        if lagging == 0 {
            fault.recovered(now);
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

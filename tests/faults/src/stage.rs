//! Where a scenario is acted out: a stack, people in channels, and a load that runs before, during and after.

use crate::{
    notices::{Notices, Notified},
    outcome::{Outcome, UNDISTURBED},
    pushes::{ok_token, register},
    scenario::Context,
};
use anyhow::{Context as _, Result};
use rand::{SeedableRng as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};
use touchline_harness::{Builder, NodeName, Person, Stack};
use touchline_ids::{ChannelId, UserId};
use touchline_load::{Channel, Devices, Kind, Load, Mix, Pace, Plan, Report, Running, Sending, Server, User};
use uuid::Uuid;

/// How long devices may take to be back before the row counts as failed.
const RECOVERY: Duration = Duration::from_secs(90);
/// The whole of settling: longest back-off and one more.
const SETTLE: Duration = Duration::from_secs(60);
/// The outbox may take so long to empty: an api in doubt about what it holds lets go after half a minute.
const OUTBOX: Duration = Duration::from_secs(60);
/// Opening a stack and connecting its devices.
const OPENING: Duration = Duration::from_secs(120);

/// What is to be there.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// Users with one device each.
    pub(crate) people: usize,
    pub(crate) channels: usize,
    /// Members of each channel.
    pub(crate) members: usize,
    /// Messages a second.
    pub(crate) rate: f64,
    pub(crate) mix: Mix,
    /// The share of messages that are sent again although they were answered.
    pub(crate) twice: f64,
    pub(crate) text_bytes: usize,
    pub(crate) connects_per_second: u32,
    pub(crate) resets_expected: bool,
    /// Whether everybody has a device that can be pushed to; see [`ok_token`].
    pub(crate) pushed: bool,
    /// How long the load runs undisturbed before the fault.
    pub(crate) before: Duration,
}

/// What is there.
pub(crate) struct Stage {
    pub(crate) stack: Stack,
    pub(crate) load: Running,
    pub(crate) people: Vec<Person>,
    pub(crate) channels: Vec<ChannelId>,
    pub(crate) notices: Notices,
    pub(crate) random: StdRng,
    kinds: Vec<Kind>,
    /// The channels of each user.
    memberships: BTreeMap<UserId, Vec<ChannelId>>,
    after: Duration,
    /// Where the load's own report is kept.
    logs: PathBuf,
    /// Whether messages may be left in the outbox for good.
    pub(crate) dead_letters: u64,
    /// Whether a process may have panicked.
    pub(crate) panics: bool,
}

impl Scene {
    /// Sixty people, mostly steady, in twelve channels of ten, 40 messages a second.
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            people: 60,
            channels: 12,
            members: 10,
            rate: context.pick(30.0, 40.0),
            mix: Mix { steady: 20, flappy: 1, slow: 0, half_open: 0, absent: 3 },
            twice: 0.05,
            text_bytes: 80,
            connects_per_second: 300,
            resets_expected: false,
            pushed: false,
            before: context.seconds(3, 5),
        }
    }

    /// Starts the stack and the load, and lets it run undisturbed for a while.
    pub(crate) async fn open(self, builder: Builder, context: &Context) -> Result<Stage> {
        let before = self.before;
        let ramp = Duration::from_secs(1) / self.connects_per_second * u32::try_from(self.people)?;
        let opened = timeout(OPENING + 2 * ramp, Box::pin(self.build(builder, context))).await;
        let stage = opened.context("the stage was not set in time")??;
        stage.load.fault_began(UNDISTURBED);
        sleep(before).await;
        stage.recover().await;
        Ok(stage)
    }

    async fn build(self, builder: Builder, context: &Context) -> Result<Stage> {
        let stack = builder.unlimited().logs_in(&context.logs).start().await?;
        let mut people = stack.crowd(self.people + 1).await?;
        let canary = people.pop().context("somebody who is in no channel")?;
        let mut channels = Vec::new();
        let mut memberships: BTreeMap<UserId, Vec<ChannelId>> = BTreeMap::new();
        for at in 0..self.channels {
            let members = self.members_of(at);
            let some: Vec<&Person> = members.iter().map(|member| &people[*member]).collect();
            let id = stack.channel(&some).await?;
            some.iter().for_each(|person| memberships.entry(person.id).or_default().push(id));
            channels.push(Channel { id, members });
        }
        if self.pushed {
            for person in &people {
                register(&stack, person.id, "phone", &ok_token(person.id)).await?;
            }
        }
        let user = |person: &Person| Ok(User::new(person.id, &stack.access_tokens().issue(person.id, Uuid::now_v7())?));
        let users = people.iter().map(user).collect::<Result<Vec<_>>>()?;
        let apis = (0..stack.apis()).map(|api| stack.api_url(api).to_owned()).collect();
        let mut plan = Plan::new(apis, users, channels.clone());
        plan.canaries = vec![user(&canary)?];
        plan.sending = Sending {
            pace: Pace::Poisson(self.rate),
            twice: self.twice,
            text_bytes: self.text_bytes,
            ..Sending::default()
        };
        plan.devices = Devices { mix: self.mix, connects_per_second: self.connects_per_second, ..Devices::default() };
        plan.settle = SETTLE;
        plan.resets_expected = self.resets_expected;
        plan.servers = servers(&stack);
        plan.seed = context.seed;
        let load = Load::start(plan).await?;
        let notices = Notices::watch(stack.curtain().await?);
        Ok(Stage {
            load,
            notices,
            random: StdRng::seed_from_u64(context.seed),
            kinds: self.mix.deal(self.people),
            memberships,
            after: context.seconds(2, 5),
            logs: context.logs.clone(),
            channels: channels.iter().map(|channel| channel.id).collect(),
            people,
            stack,
            dead_letters: 0,
            panics: false,
        })
    }

    /// Neighbours, so that everybody is in about as many channels as everybody else.
    fn members_of(&self, channel: usize) -> Vec<usize> {
        let first = channel * self.people / self.channels;
        (0..self.members.min(self.people)).map(|offset| (first + offset) % self.people).collect()
    }
}

fn servers(stack: &Stack) -> Vec<Server> {
    let server = |name: NodeName| Some(Server { name: name.to_string(), pid: stack.node(name).ok()?.pid()? });
    stack.nodes().filter_map(server).collect()
}

impl Stage {
    /// The users whose device is of this kind, with their channels.
    pub(crate) fn users(&self, kind: Kind) -> BTreeMap<UserId, Vec<ChannelId>> {
        let some = self.people.iter().zip(&self.kinds).filter(|(_, has)| **has == kind);
        some.filter_map(|(person, _)| Some((person.id, self.memberships.get(&person.id)?.clone()))).collect()
    }

    /// The fault is over: waits until everybody is back.
    pub(crate) async fn recover(&self) -> Option<Duration> {
        self.load.fault_healed();
        self.load.recovered(RECOVERY).await
    }

    /// Heals, lets the load run on for a while, and judges.
    ///
    /// # Errors
    /// When nothing can be judged.
    pub(crate) async fn close(self) -> Result<Outcome> {
        Ok(self.close_with_report().await?.0)
    }

    /// As [`close`](Self::close), with everything the load has to say.
    ///
    /// # Errors
    /// When nothing can be judged.
    pub(crate) async fn close_with_report(self) -> Result<(Outcome, Report)> {
        self.recover().await;
        sleep(self.after).await;
        let absent = self.notices.reach(&self.users(Kind::Absent)).await?;
        let steady: BTreeSet<UserId> = self.users(Kind::Steady).into_keys().collect();
        let while_live = self.notices.ever(&steady);
        let Self { stack, load, dead_letters, panics, logs, .. } = self;
        let report = load.finish().await?;
        std::fs::write(logs.join("load.json"), serde_json::to_vec_pretty(&report)?)?;
        let mut outcome = Outcome::of(&report);
        outcome.notify(absent);
        outcome.notified_while_live = while_live;
        outcome.look_at(stack, dead_letters, panics).await?;
        Ok((outcome, report))
    }
}

impl Outcome {
    /// Takes over who was notified; everybody should have been.
    pub(crate) fn notify(&mut self, notified: Notified) {
        self.notified += notified.yes;
        self.unnotified += notified.no;
        let all = notified.no == 0;
        self.require(all, format!("{} were not notified after {:?}", notified.no, notified.after));
    }

    /// The outbox is empty but for so many dead letters, nobody panicked, and everything stops softly.
    pub(crate) async fn look_at(&mut self, stack: Stack, dead_letters: u64, panics: bool) -> Result<()> {
        let storage = stack.storage().clone();
        let mut dead = None;
        // A database that was away may break the first connection of the pool.
        let (began, mut waiting) = (Instant::now(), None);
        while waiting != Some(0) && began.elapsed() < OUTBOX {
            sleep(Duration::from_millis(250)).await;
            let counts = storage.outbox_counts().await.ok();
            (dead, waiting) = (counts.map(|counts| counts.dead), counts.map(|counts| counts.waiting));
        }
        self.require(waiting == Some(0), format!("after {OUTBOX:?} the outbox still holds {waiting:?}"));
        self.require(dead == Some(dead_letters), format!("{dead:?} dead letters instead of {dead_letters}"));
        for name in stack.nodes() {
            let Ok(process) = stack.node(name) else { continue };
            let panicked = process.log().contains("panicked at");
            self.require(panics || !panicked, format!("{name} panicked, see its log"));
        }
        let stopped = stack.stop().await;
        if let Err(error) = stopped {
            self.broke.push(format!("stopping: {error:#}"));
        }
        Ok(())
    }
}

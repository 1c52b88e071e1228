//! What is measured: one api and some gateways, each a process of its own, on real Postgres and Redis, with limits that
//! a load from one address does not hit.

use crate::{
    audience::{Audience, Manners, Seat},
    measure::now,
};
use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use touchline_client::NewMessage;
use touchline_harness::{Person, Stack};
use touchline_ids::{ChannelId, DeviceId};
use touchline_load::processes::{cpu, resident};

/// The text of every message, of the length of a usual one.
const TEXT: &str = "The quick brown fox jumps over the lazy dog, and then it does so once more.";

/// How messages are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// So many senders, each the next as soon as the last is answered.
    Senders(usize),
    /// So many messages per second, whatever the answers.
    PerSecond(u32),
}

/// The processes and the people who use them.
pub(crate) struct System {
    stack: Stack,
    gateways: usize,
    people: Vec<Person>,
}

/// CPU time so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) api: Duration,
    pub(crate) gateways: Duration,
}

impl System {
    /// Starts the processes and creates the people.
    pub(crate) async fn start(gateways: usize, people: usize) -> Result<Self> {
        let stack = Stack::processes(1, gateways)
            .unlimited()
            .gateway(|gateway| gateway.limits.accepts_per_second = 1_000_000)
            .start()
            .await?;
        let people = stack.crowd(people).await?;
        Ok(Self { stack, gateways, people })
    }

    /// The processes.
    pub(crate) fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Everybody.
    pub(crate) fn people(&self) -> &[Person] {
        &self.people
    }

    /// One socket for everybody.
    pub(crate) async fn audience(&self, manners: &Manners) -> Result<Audience> {
        Audience::seat(self.people.iter().map(seat), manners).await
    }

    /// A channel with everybody in it.
    pub(crate) async fn channel(&self) -> Result<ChannelId> {
        self.stack.channel(&self.people.iter().collect::<Vec<_>>()).await
    }

    /// Sends `count` messages; returns when all are answered.
    pub(crate) async fn send(&self, channel: ChannelId, count: usize, pace: Pace) -> Result<()> {
        let send = |index: usize| {
            let client = self.people[index % self.people.len()].client();
            async move {
                let message = NewMessage::new(json!({ "at": now(), "text": TEXT }));
                client.send(channel, &message).await.context("sending")
            }
        };
        match pace {
            Pace::Senders(senders) => stream::iter(0..count).map(send).buffer_unordered(senders).try_collect().await,
            Pace::PerSecond(rate) => {
                let mut ticks = interval(Duration::from_secs(1) / rate);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let paced = stream::unfold(ticks, |mut ticks| async move {
                    ticks.tick().await;
                    Some(((), ticks))
                });
                let numbered = paced.take(count).enumerate().map(|(index, ())| send(index));
                numbered.buffer_unordered(count).try_collect().await
            }
        }
        .map(|_: Vec<_>| ())
    }

    /// CPU time of our processes.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let api = cpu(self.stack.api(0)?.pid().context("the api ended")?)?;
        let gateways = self.gateway_pids()?.into_iter().map(cpu).sum::<Result<Duration>>()?;
        Ok(Cpu { api, gateways })
    }

    /// Resident memory of all gateways.
    pub(crate) fn gateways_resident(&self) -> Result<u64> {
        self.gateway_pids()?.into_iter().map(resident).sum()
    }

    fn gateway_pids(&self) -> Result<Vec<u32>> {
        (0..self.gateways).map(|index| self.stack.gateway(index)?.pid().context("a gateway ended")).collect()
    }
}

/// The next socket of this person's device.
pub(crate) async fn seat(person: &Person) -> Result<Seat> {
    let device: DeviceId = "bench".parse()?;
    let answer = person.ticket(&device).await?;
    let gateway = answer.gateways.first().context("the api named no gateway")?;
    // A clock that all sockets of this process share counts as well as a number kept per device.
    let connection = now() / 1_000;
    let hello = json!({"type": "hello", "ticket": answer.ticket, "device_id": device, "connection": connection});
    Ok(Seat { url: format!("{}/v1/socket", gateway.url), hello: Some(hello.to_string()) })
}

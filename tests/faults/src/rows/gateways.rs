//! What happens to gateways: killed, hanging, starved, drained.

use crate::{
    crashes::crash,
    outcome::Outcome,
    probe::Probe,
    scenario::{Context, Scenario, scenario},
    stage::{Scene, Stage},
};
use anyhow::Result;
use rand::Rng as _;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{interval, sleep},
};
use touchline_harness::{Link, LinkKind, NodeName, Proxy, Stack, Starved};
use touchline_load::{Kind, Mix};
use touchline_mesh::Shutdown;

pub(super) const ROWS: &[Scenario] = &[
    scenario!(4, a_killed_gateway_loses_no_message, "p99 ≤ 6 s, caught up ≤ 2 s after reconnecting", true),
    scenario!(
        4,
        a_gateway_that_dies_before_it_notes_an_ack_loses_no_message,
        "p99 ≤ 6 s; notified while live < 0.1 %",
        false
    ),
    scenario!(
        5,
        a_hanging_gateway_holds_up_no_send,
        "answers p99 ≤ 1 s, max ≤ 5 s; everybody notified or served",
        true
    ),
    scenario!(6, a_starved_gateway_does_not_slow_down_the_others, "p99 of the others ≤ 1.2 × before + 50 ms", false),
    scenario!(
        27,
        gateways_are_replaced_one_by_one_and_nobody_is_notified,
        "notified while live < 0.1 %; reconnects per second ≤ 2 × the even rate",
        true
    ),
    scenario!(39, a_gateway_killed_while_it_drains_loses_no_message, "p99 ≤ 6 s", false),
];

const KILLED: Duration = Duration::from_secs(6);
const CAUGHT_UP_MS: f64 = 2_000.0;

/// Kills one of three at random moments, again and again; each is started anew.
async fn a_killed_gateway_loses_no_message(context: Context) -> Result<Outcome> {
    let mut stage = Scene::new(&context).open(Stack::processes(2, 3), &context).await?;
    let kills = context.pick(2, 20);
    for _ in 0..kills {
        let gateway = NodeName::Gateway(stage.random.random_range(0..3));
        stage.load.fault_began("killed");
        stage.stack.kill(gateway).await?;
        let rest = Duration::from_millis(stage.random.random_range(500..5_000));
        sleep(rest).await;
        stage.stack.start_node(gateway).await?;
        stage.recover().await;
    }
    let (mut outcome, report) = stage.close_with_report().await?;
    outcome.tell(format!("{kills} kills; caught up p99 {:.0} ms after reconnecting", report.resume.p99_ms));
    outcome.require_p99(KILLED);
    outcome.aim(report.resume.p99_ms <= CAUGHT_UP_MS, format!("catching up took {:.0} ms", report.resume.p99_ms));
    Ok(outcome)
}

/// The process ends when a device's ack is read and nobody knows it yet, at three acks in a hundred; it is started
/// again each time.
async fn a_gateway_that_dies_before_it_notes_an_ack_loses_no_message(context: Context) -> Result<Outcome> {
    let mut scene = Scene::new(&context);
    // Who comes anew goes to the gateway that has just been started, and holds fewest.
    (scene.mix.steady, scene.mix.flappy) = (10, 10);
    let mut stage = scene.open(Stack::processes(2, 3), &context).await?;
    let (node, length) = (NodeName::Gateway(1), context.seconds(15, 60));
    let crashes = crash(&mut stage, node, "before_ack=3%return", "before_ack", length).await?;
    let (mut outcome, report) = stage.close_with_report().await?;
    let share = outcome.notified_while_live as f64 / report.deliveries.shown.max(1) as f64;
    outcome.tell(format!("{crashes} crashes; notified while live {:.3} %", share * 100.0));
    outcome.require(crashes > 0, "the crash point never ended it");
    outcome.require_p99(KILLED);
    outcome.aim(share < 0.001, format!("{} notifications for devices that were there", outcome.notified_while_live));
    Ok(outcome)
}

/// SIGSTOP, for shorter and for longer than a lease lives, then SIGCONT.
async fn a_hanging_gateway_holds_up_no_send(context: Context) -> Result<Outcome> {
    let stage = Scene::new(&context).open(Stack::processes(2, 3), &context).await?;
    let lengths = context.pick(vec![8], vec![5, 20, 60]);
    for length in &lengths {
        stage.load.fault_began("hanging");
        stage.stack.gateway(1)?.pause()?;
        sleep(Duration::from_secs(*length)).await;
        stage.stack.gateway(1)?.resume()?;
        stage.recover().await;
    }
    let (mut outcome, report) = stage.close_with_report().await?;
    let answer = report.answer;
    outcome
        .tell(format!("stopped for {lengths:?} s; answers p99 {:.0} ms, max {:.0} ms", answer.p99_ms, answer.max_ms));
    outcome.aim(answer.p99_ms <= 1_000.0, format!("99 % of the answers took up to {:.0} ms", answer.p99_ms));
    outcome.aim(answer.max_ms <= 5_000.0, format!("a send was blocked for {:.0} ms", answer.max_ms));
    Ok(outcome)
}

/// A tenth of one CPU for one gateway; devices on the others are timed apart.
async fn a_starved_gateway_does_not_slow_down_the_others(context: Context) -> Result<Outcome> {
    let stage = Scene::new(&context).open(Stack::processes(2, 3), &context).await?;
    let healthy = [stage.stack.gateway_url(0), stage.stack.gateway_url(1)];
    let probe = Probe::open(&stage.stack, 8, &healthy).await?;
    let length = context.seconds(8, 20);
    let before = probe.run(length).await?;
    stage.load.fault_began("starved");
    let pid = stage.stack.gateway(2)?.pid().unwrap_or_default();
    let starved = Starved::to(pid, 10)?;
    let means = starved.means();
    let during = probe.run(length).await?;
    drop(starved);
    let mut outcome = stage.close().await?;
    outcome.tell(format!("by {means}; the others' p99 {:.0} → {:.0} ms", before.p99_ms, during.p99_ms));
    outcome.aim(during.is_like(&before), "the other gateways became slower");
    Ok(outcome)
}

/// SIGTERM for each of three in turn; a new one starts in its place before the next goes.
async fn gateways_are_replaced_one_by_one_and_nobody_is_notified(context: Context) -> Result<Outcome> {
    let per_second = context.pick(30, 100);
    let mut scene = Scene::new(&context);
    (scene.people, scene.channels, scene.rate) = context.pick((240, 24, 20.0), (3_000, 150, 20.0));
    scene.mix = Mix::steady();
    let builder = Stack::processes(2, 3)
        .proxied(&[LinkKind::ClientGateway])
        .gateway(|gateway| gateway.times.drain_sessions_per_second = per_second);
    let mut stage = scene.open(builder, &context).await?;
    let mut busiest = Vec::new();
    for gateway in (0..3).map(NodeName::Gateway) {
        stage.load.fault_began("drained");
        let reconnects = Reconnects::watch(&stage)?;
        stage.stack.stop_node(gateway).await?;
        busiest.push(reconnects.end().await);
        stage.stack.start_node(gateway).await?;
        stage.recover().await;
    }
    let live = stage.users(Kind::Steady).len();
    let (mut outcome, report) = stage.close_with_report().await?;
    let share = outcome.notified_while_live as f64 / (report.deliveries.shown.max(1)) as f64;
    outcome.tell(format!("{live} sockets; notified while live {:.3} %", share * 100.0));
    outcome.aim(share < 0.001, format!("{} notifications for devices that were there", outcome.notified_while_live));
    let most = busiest.into_iter().max().unwrap_or_default();
    outcome.tell(format!("in the busiest second {most} reconnected, evenly {per_second}/s"));
    outcome.aim(most <= 2 * u64::from(per_second), format!("{most} reconnects in one second"));
    Ok(outcome)
}

/// Counts what the gateways' proxies are dialled while one drains.
struct Reconnects {
    busiest: JoinHandle<Option<u64>>,
    life: Shutdown,
}

impl Reconnects {
    fn watch(stage: &Stage) -> Result<Self> {
        let links = (0..stage.stack.gateways()).map(|gateway| stage.stack.link(Link::ClientGateway(gateway)).cloned());
        let links = links.collect::<Result<Vec<_>>>()?;
        let life = Shutdown::new();
        let busiest = life.spawn(busiest_second(links, life.clone()));
        Ok(Self { busiest, life })
    }

    /// The most in one second.
    async fn end(self) -> u64 {
        self.life.stop();
        self.busiest.await.ok().flatten().unwrap_or_default()
    }
}

async fn busiest_second(links: Vec<Arc<Proxy>>, life: Shutdown) -> u64 {
    // Both ends of ten tenths.
    const SAMPLES: usize = 11;
    let (mut ticks, mut counts, mut busiest) = (interval(Duration::from_secs(1) / 10), VecDeque::new(), 0);
    while !life.is_stopping() {
        ticks.tick().await;
        let dialled: u64 = links.iter().map(|link| link.dialled()).sum();
        counts.push_back(dialled);
        if counts.len() > SAMPLES {
            counts.pop_front();
        }
        busiest = busiest.max(dialled - counts[0]);
    }
    busiest
}

/// SIGTERM, and SIGKILL a second later in the middle of the drain.
async fn a_gateway_killed_while_it_drains_loses_no_message(context: Context) -> Result<Outcome> {
    // Clients are told to move at once, five a second: a second later most are still to be told.
    let builder = Stack::processes(2, 3)
        .gateway(|gateway| (gateway.times.drain_head_start_ms, gateway.times.drain_sessions_per_second) = (0, 5));
    let mut stage = Scene::new(&context).open(builder, &context).await?;
    for gateway in (0..context.pick(1, 3)).map(NodeName::Gateway) {
        stage.load.fault_began("killed while draining");
        stage.stack.node(gateway)?.terminate()?;
        sleep(Duration::from_secs(1)).await;
        stage.stack.kill(gateway).await?;
        sleep(Duration::from_secs(2)).await;
        stage.stack.start_node(gateway).await?;
        stage.recover().await;
    }
    let mut outcome = stage.close().await?;
    outcome.require_p99(KILLED);
    Ok(outcome)
}

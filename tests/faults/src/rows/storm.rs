//! What happens when everybody comes back at once.

use crate::{
    outcome::Outcome,
    scenario::{Context, Scenario, scenario},
    stage::Scene,
};
use anyhow::{Context as _, Result};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use touchline_harness::{Curtain, NodeName, OwnPostgres, Stack};
use touchline_load::Mix;

pub(super) const ROWS: &[Scenario] =
    &[scenario!(29, everybody_comes_back_after_all_gateways_died, "99 % back; database reads per reconnect ≤ 2", true)];

/// How long they may take before the row counts as failed: the machine runs clients and servers.
const BACK: Duration = Duration::from_secs(180);

/// Kills every gateway and starts them again.
async fn everybody_comes_back_after_all_gateways_died(context: Context) -> Result<Outcome> {
    let sockets = context.pick(1_000, 15_000);
    let mut scene = Scene::new(&context);
    (scene.people, scene.channels, scene.members) = (sockets, sockets / 50, 50);
    (scene.rate, scene.mix, scene.connects_per_second) = (4.0, Mix::steady(), 250);
    let postgres = OwnPostgres::start_counting().await?;
    let mut stage = scene.open(Stack::processes(2, 3).on_postgres(&postgres), &context).await?;
    let curtain = stage.stack.curtain().await?;
    let quiet = reads_per_second(&curtain, Duration::from_secs(5)).await?;
    let online = stage.load.progress().online;
    stage.load.fault_began("storm");
    let (before, began) = (curtain.reads().await?, Instant::now());
    for gateway in 0..3 {
        stage.stack.kill_gateway(gateway).await?;
    }
    for gateway in 0..3 {
        stage.stack.start_gateway(gateway).await?;
    }
    stage.load.fault_healed();
    stage.load.recovered(BACK).await;
    let reads = (curtain.reads().await? - before) as f64 - quiet * began.elapsed().as_secs_f64();
    let per_reconnect = reads / online.max(1) as f64;
    let memory: u64 = stage.stack.nodes().filter_map(|node| most_memory(&stage.stack, node)).sum();
    let (mut outcome, report) = stage.close_with_report().await?;
    let fault = report.faults.last().context("the storm")?;
    outcome.tell(format!(
        "{online} sockets: 99 % back and synced {:.1} s, all {:.1} s after the gateways were; {per_reconnect:.2} database reads per reconnect; {} MiB in all processes at most",
        fault.recovered_99_s.unwrap_or(f64::NAN),
        fault.recovered_s.unwrap_or(f64::NAN),
        memory >> 20,
    ));
    outcome.require(per_reconnect > 0.0, "the reads were not counted");
    outcome.require(per_reconnect <= 2.0, format!("{per_reconnect:.2} database reads per reconnect"));
    outcome.aim(fault.recovered_99_s.is_some(), "less than 99 % came back");
    Ok(outcome)
}

/// How many the database answers without a storm.
async fn reads_per_second(curtain: &Curtain, length: Duration) -> Result<f64> {
    let (before, began) = (curtain.reads().await?, Instant::now());
    sleep(length).await;
    Ok((curtain.reads().await? - before) as f64 / began.elapsed().as_secs_f64())
}

/// The most that a process ever held, in bytes.
fn most_memory(stack: &Stack, node: NodeName) -> Option<u64> {
    stack.node(node).ok()?.most_resident_bytes()
}

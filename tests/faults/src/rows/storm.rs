//! What happens when everybody comes back at once.

use crate::{
    outcome::Outcome,
    scenario::{Context, Scenario, scenario},
    stage::Scene,
};
use anyhow::{Context as _, Result};
use std::time::Duration;
use tokio::time::sleep;
use touchline_harness::{Curtain, NodeName, Stack};
use touchline_load::Mix;

pub(super) const ROWS: &[Scenario] =
    &[scenario!(29, everybody_comes_back_after_all_gateways_died, "99 % back; database reads per reconnect ≤ 2", true)];

/// Kills every gateway and starts them again.
async fn everybody_comes_back_after_all_gateways_died(context: Context) -> Result<Outcome> {
    let sockets = context.pick(1_000, 15_000);
    let mut scene = Scene::new(&context);
    (scene.people, scene.channels, scene.members) = (sockets, sockets / 50, 50);
    (scene.rate, scene.mix, scene.connects_per_second) = (4.0, Mix::steady(), 400);
    let mut stage = scene.open(Stack::processes(2, 3), &context).await?;
    let curtain = stage.stack.curtain().await?;
    let quiet = transactions_in(&curtain, Duration::from_secs(5)).await?;
    let connects = stage.load.progress();
    stage.load.fault_began("storm");
    let (before, began) = (transactions(&curtain).await?, tokio::time::Instant::now());
    for gateway in 0..3 {
        stage.stack.kill_gateway(gateway).await?;
    }
    for gateway in 0..3 {
        stage.stack.start_gateway(gateway).await?;
    }
    stage.recover().await;
    // Postgres tells its counts with a delay of a second or so.
    sleep(Duration::from_secs(2)).await;
    let ours = transactions(&curtain).await? - before - quiet * began.elapsed().as_secs_f64();
    let per_reconnect = ours / connects.online.max(1) as f64;
    let memory: u64 = stage.stack.nodes().filter_map(|node| most_memory(&stage.stack, node)).sum();
    let (mut outcome, report) = stage.close_with_report().await?;
    let fault = report.faults.last().context("the storm")?;
    outcome.tell(format!(
        "{} sockets: 99 % back and synced {:.1} s, all {:.1} s after the gateways were; {per_reconnect:.2} database transactions per reconnect; {} MiB in all processes at most",
        connects.online,
        fault.recovered_99_s.unwrap_or(f64::NAN),
        fault.recovered_s.unwrap_or(f64::NAN),
        memory >> 20,
    ));
    outcome.require(per_reconnect <= 2.1, format!("{per_reconnect:.2} database transactions per reconnect"));
    outcome.aim(fault.recovered_99_s.is_some(), "less than 99 % came back");
    Ok(outcome)
}

/// How many the database has finished.
async fn transactions(curtain: &Curtain) -> Result<f64> {
    let sql = "SELECT xact_commit + xact_rollback AS n FROM pg_stat_database WHERE datname = current_database()";
    Ok(curtain.number(sql).await? as f64)
}

/// Per second, without a storm.
async fn transactions_in(curtain: &Curtain, length: Duration) -> Result<f64> {
    let before = transactions(curtain).await?;
    sleep(length).await;
    Ok((transactions(curtain).await? - before) / length.as_secs_f64())
}

/// The most that a process ever held, in bytes.
fn most_memory(stack: &Stack, node: NodeName) -> Option<u64> {
    stack.node(node).ok()?.most_resident_bytes()
}

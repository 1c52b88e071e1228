//! What happens when faults come one after the other, whoever they hit.

use crate::{
    outcome::{NOT_BACK, Outcome},
    scenario::{Context, Scenario, scenario},
    stage::{Scene, Stage},
};
use anyhow::Result;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use touchline_harness::{Fault, Link, LinkKind, Nemesis, NodeName, Rules, Stack, Strike};

pub(super) const ROWS: &[Scenario] =
    &[scenario!(40, any_faults_one_after_the_other_lose_no_message, "the zeros, over a minute or ten", false)];

/// A nemesis drawn from the seed. Ten minutes of it are no soak of hours, which is for a machine with nothing else to do.
async fn any_faults_one_after_the_other_lose_no_message(context: Context) -> Result<Outcome> {
    let kinds = [LinkKind::ClientApi, LinkKind::ClientGateway, LinkKind::Redis];
    let builder = Stack::processes(2, 3).proxied(&kinds).gateway(|gateway| gateway.times.drain_ms = 5_000);
    let mut stage = Scene::new(&context).open(builder, &context).await?;
    let nodes: Vec<_> = stage.stack.nodes().collect();
    let nemesis = Nemesis::new(context.seed, &nodes, context.seconds(60, 600));
    println!("  {nemesis}");
    let began = Instant::now();
    for strike in nemesis.strikes() {
        sleep_until(began + strike.at).await;
        stage.load.fault_began(&format!("{:?}", strike.fault));
        act(&mut stage, strike).await?;
        // What came of it shows in the end; the next one does not wait.
        stage.load.fault_healed();
    }
    // The last one's.
    sleep(Duration::from_secs(1)).await;
    let (mut outcome, report) = stage.close_with_report().await?;
    let recovered = |fault: &&touchline_load::Fault| fault.recovered_s.is_some();
    let (all, back) = (report.faults.len(), report.faults.iter().filter(recovered).count());
    outcome.tell(format!("seed {}: {all} faults, recovered from {back} before the next", context.seed));
    outcome.broke.retain(|broke| !broke.starts_with(NOT_BACK));
    Ok(outcome)
}

async fn act(stage: &mut Stage, Strike { fault, node, length, .. }: &Strike) -> Result<()> {
    match fault {
        Fault::Kill => {
            stage.stack.kill(*node).await?;
            sleep(*length).await;
            supervise(stage, *node).await?;
        }
        Fault::Hang => {
            stage.stack.node(*node)?.pause()?;
            sleep(*length).await;
            stage.stack.node(*node)?.resume()?;
        }
        Fault::Stop => {
            stage.stack.stop_node(*node).await?;
            sleep(*length).await;
            supervise(stage, *node).await?;
        }
        Fault::CutFromRedis => {
            let redis = stage.stack.link(Link::Redis(*node))?.clone();
            redis.set(Rules::black_hole());
            sleep(*length).await;
            redis.heal();
        }
        Fault::ResetClients => {
            let link = match node {
                NodeName::Api(index) => Link::ClientApi(*index),
                NodeName::Gateway(index) => Link::ClientGateway(*index),
                NodeName::Notifier(_) => return Ok(()),
            };
            stage.stack.link(link)?.reset_all();
            sleep(*length).await;
        }
    }
    Ok(())
}

/// Starts a process as whoever looks after it does: again, when it could not reach what it needs.
async fn supervise(stage: &mut Stage, node: NodeName) -> Result<()> {
    const TRIES: usize = 5;
    for _ in 1..TRIES {
        let Err(error) = stage.stack.start_node(node).await else { return Ok(()) };
        println!("  {node} starts once more: {}", error.to_string().lines().next().unwrap_or_default());
    }
    stage.stack.start_node(node).await
}

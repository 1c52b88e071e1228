//! Processes that end by themselves at a crash point, and are started again each time.

use crate::stage::Stage;
use anyhow::Result;
use std::time::Duration;
use tokio::time::Instant;
use touchline_harness::NodeName;

/// Gives `node` these crash points for so long, under the name of `fault`, and starts it again whenever it ended; at
/// last once more without them. Gives how often it ended.
///
/// # Errors
/// When it does not start.
pub(crate) async fn crash(
    stage: &mut Stage,
    node: NodeName,
    points: &str,
    fault: &str,
    length: Duration,
) -> Result<usize> {
    arm(stage, node, points).await?;
    stage.load.fault_began(fault);
    let (mut crashes, end) = (0, Instant::now() + length);
    while Instant::now() < end {
        if stage.stack.ended(node, end.saturating_duration_since(Instant::now())).await.is_ok() {
            crashes += 1;
            stage.stack.start_node(node).await?;
        }
    }
    stage.stack.clear_environment(node);
    stage.stack.kill(node).await?;
    stage.stack.start_node(node).await?;
    Ok(crashes)
}

/// Starts `node` anew with these crash points.
///
/// # Errors
/// When it does not start.
pub(crate) async fn arm(stage: &mut Stage, node: NodeName, points: &str) -> Result<()> {
    stage.stack.set_environment(node, "FAILPOINTS", points);
    stage.stack.stop_node(node).await?;
    stage.stack.start_node(node).await
}

//! What happens to notifiers. Not in the table of failure modes: they were no part of it when it was written.

use super::fcm::open;
use crate::{
    outcome::Outcome,
    pushes::{Fcm, change},
    scenario::{Context, Scenario, scenario},
};
use anyhow::{Context as _, Result};
use rand::Rng as _;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use touchline_fake_fcm::{Latency, Outcome as Said, Rules, Settings};
use touchline_harness::NodeName;

pub(super) const ROWS: &[Scenario] =
    &[scenario!(41, killed_notifiers_lose_no_notification, "lost 0; duplicates only of what was under way", true)];

const NOTIFIERS: usize = 3;
/// What a killed notifier had claimed is free after 30 s, several times over if its heirs are killed as well.
const LATE: Duration = Duration::from_secs(100);

/// `kill -9` of two of three while there is something under way, again and again.
async fn killed_notifiers_lose_no_notification(context: Context) -> Result<Outcome> {
    let mut fcm = Fcm::start(Settings::default()).await?;
    let mut stage = open(&fcm, NOTIFIERS, &context).await?;
    // So that a kill meets some under way.
    change(&fcm.fake, |change| change.latency = Some(Latency::fixed(400.0)));
    fcm.breaks(&stage, "killed notifiers");
    let (rounds, mut kills) = (context.pick(3, 20), 0);
    for _ in 0..rounds {
        let begun = fcm.fake.log().next();
        let push = timeout(Duration::from_secs(60), fcm.fake.log().wait_for(begun, |_| true));
        push.await.context("nobody pushes any more")?;
        // More of them come with it.
        sleep(Duration::from_millis(150)).await;
        // One of these two has most of what is due at this moment, more often than not.
        let spared = stage.random.random_range(0..NOTIFIERS);
        let nodes: Vec<_> = (0..NOTIFIERS).filter(|node| *node != spared).map(NodeName::Notifier).collect();
        for node in &nodes {
            stage.stack.kill(*node).await?;
            kills += 1;
        }
        sleep(Duration::from_millis(stage.random.random_range(200..1_500))).await;
        for node in nodes {
            stage.stack.start_node(node).await?;
        }
        sleep(Duration::from_millis(stage.random.random_range(200..2_000))).await;
    }
    fcm.heals(&stage);
    let met = fcm.fake.log().judge(|entries, _| entries.iter().filter(|entry| entry.outcome == Said::Gone).count());
    // Its heir cannot know what it was told last.
    let (mut outcome, _) = fcm.close(stage, LATE, &Rules { gone_ms: 0, ..Rules::default() }).await?;
    outcome.tell(format!("{kills} kills, {met} pushes under way met"));
    outcome.require(met > 0, "no kill met a push");
    Ok(outcome)
}

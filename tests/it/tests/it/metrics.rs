//! What operators read of a process.

use anyhow::{Context as _, Result};
use sea_orm::{ConnectionTrait as _, Database};
use touchline_harness::{NodeName, Stack, eventually};

const API: NodeName = NodeName::Api(0);

/// Where a process said that it serves its metrics.
fn address(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("metrics are served"))?;
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(format!("http://{}/metrics", line["http"].as_str()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_seen_by_metric() -> Result<()> {
    let stack = Stack::processes(1, 1).environment(API, "TOUCHLINE__TELEMETRY__LISTEN", "127.0.0.1:0").start().await?;
    let metrics = address(&stack.node(API)?.log()).context("no address in its log")?;
    let database = Database::connect(stack.database_url()).await?;
    let dead = "INSERT INTO outbox (channel_id, seq, owner, claim_until, attempts, no_push) \
                VALUES (gen_random_uuid(), 1, gen_random_uuid(), 9223372036854775807, 5, false)";
    database.execute_unprepared(dead).await?;
    let names = ["touchline_outbox_rows{state=\"dead\"} 1", "touchline_outbox_rows{state=\"waiting\"} 0"];
    eventually("it is counted", async || {
        let answer = reqwest::get(&metrics).await?;
        anyhow::ensure!(answer.headers()["content-type"] == "text/plain; version=0.0.4", "{:?}", answer.headers());
        let text = answer.text().await?;
        Ok(names.iter().all(|name| text.lines().any(|line| line == *name)))
    })
    .await?;
    // It is for operators: not where clients ask, and nothing else is there.
    for elsewhere in [format!("{}/metrics", stack.api_url(0)), metrics.replace("/metrics", "/v1/me")] {
        assert_eq!(reqwest::get(elsewhere).await?.status(), 404);
    }
    database.close().await?;
    stack.stop().await
}

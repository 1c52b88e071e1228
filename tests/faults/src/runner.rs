//! Acts out scenarios and prints what came of each.

use crate::{
    outcome::Outcome,
    results::Row,
    scenario::{Context, Scenario},
};
use anyhow::{Context as _, Result, anyhow};
use futures_util::FutureExt as _;
use std::{
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// The longest a scenario may take; every wait inside has its own bound.
const LIMIT: Duration = Duration::from_secs(1_200);

/// What is the same for all of them.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) short: bool,
}

impl Run {
    /// Acts one out and prints it when it is over. Whatever goes wrong is its outcome.
    pub(crate) async fn act(&self, scenario: Scenario) -> Result<Row> {
        let logs = fresh_folder(scenario.name)?;
        let context = Context { seed: self.seed, short: self.short, logs: logs.clone() };
        let began = Instant::now();
        let acted = timeout(LIMIT, AssertUnwindSafe((scenario.run)(context)).catch_unwind()).await;
        let outcome = match acted {
            Ok(Ok(Ok(outcome))) => outcome,
            Ok(Ok(Err(error))) => failed(&error),
            Ok(Err(_)) => failed(&anyhow!("the scenario panicked")),
            Err(_) => failed(&anyhow!("not done after {LIMIT:?}")),
        };
        let row = Row { scenario, outcome, seconds: began.elapsed().as_secs_f64() };
        std::fs::write(logs.join("outcome.json"), serde_json::to_vec_pretty(&row.outcome)?)?;
        print(&row, &logs);
        Ok(row)
    }
}

fn failed(error: &anyhow::Error) -> Outcome {
    Outcome { broke: vec![format!("{error:#}")], ..Outcome::default() }
}

fn print(Row { scenario, outcome, seconds }: &Row, logs: &Path) {
    println!("\n{} {}\n  target: {}", scenario.row, scenario.name, scenario.target);
    println!(
        "  accepted {}, unknown {}, lost {}, dup visible {}, out of order visible {}, misdelivered {}, dup on wire {}",
        outcome.accepted,
        outcome.unknown,
        outcome.lost,
        outcome.duplicated,
        outcome.out_of_order,
        outcome.misdelivered,
        outcome.duplicated_on_wire,
    );
    println!(
        "  notified {}, unnotified {}, notified while live {}; p99 before {:.0} ms, during the fault {:.0} ms, max {:.0} ms; recovery {}",
        outcome.notified,
        outcome.unnotified,
        outcome.notified_while_live,
        outcome.before_p99_ms,
        outcome.p99_ms,
        outcome.max_ms,
        outcome.recovery_s.map_or("-".into(), |seconds| format!("{seconds:.1} s")),
    );
    outcome.special.iter().for_each(|special| println!("  {special}"));
    outcome.broke.iter().for_each(|broke| println!("  BROKE {broke}"));
    outcome.missed.iter().for_each(|missed| println!("  MISSED {missed}"));
    let verdict = if outcome.passed() { String::new() } else { format!(", logs in {}", logs.display()) };
    println!("  {}{verdict} after {seconds:.0} s", outcome.word());
}

/// Beside the binary: `target/faults/NAME`, emptied.
fn fresh_folder(name: &str) -> Result<PathBuf> {
    let binary = std::env::current_exe()?;
    let target = binary.parent().and_then(Path::parent).context("a binary stands in target/profile")?;
    let folder = target.join("faults").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

//! `touchline load`: senders and devices against a running Touchline, and a verdict.

mod arguments;
mod crowd;

pub(crate) use arguments::Arguments;

use crate::life;
use anyhow::Context as _;
use crowd::Crowd;
use std::{
    io::{self, Write as _},
    path::Path,
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use touchline_load::{Connecting, Load, Plan, Progress, Report, Running};

/// How often progress is said.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// A guarantee did not hold; the report says which.
#[derive(Debug, thiserror::Error)]
#[error("the delivery contract did not hold; see the report")]
struct Broken;

/// Ctrl-C while there is nothing to judge yet, or for the second time.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    life::run(async {
        arguments.check()?;
        let mut interrupt = signal(SignalKind::interrupt()).context("signal handlers")?;
        let plan = tokio::select! {
            plan = plan(arguments) => plan?,
            _ = interrupt.recv() => return Err(Interrupted.into()),
        };
        let report = play(plan, &mut interrupt).await?;
        print(&report, arguments.json.as_deref())?;
        verdict(&report)
    })
}

/// Makes the users and channels and says what to do with them.
async fn plan(arguments: &Arguments) -> anyhow::Result<Plan> {
    let crowd = Crowd::make(arguments).await?;
    let mut plan = Plan::new(arguments.urls.clone(), crowd.users, crowd.channels);
    plan.canaries = crowd.canaries;
    arguments.fill(&mut plan);
    Ok(plan)
}

/// Runs the load, saying once a second how it stands. Ctrl-C ends it early, a second one at once.
async fn play(plan: Plan, interrupt: &mut Signal) -> anyhow::Result<Report> {
    let devices = if plan.devices.count == 0 { plan.users.len() } else { plan.devices.count };
    let (canaries, rate) = (plan.canaries.len(), plan.devices.connects_per_second);
    say(&format!("connecting {devices} devices and {canaries} canaries, {rate} per second"));
    let connecting = Load::connect(plan)?;
    let mut running = connect(connecting, interrupt).await?;
    tokio::select! {
        () = watch(&mut running) => {}
        _ = interrupt.recv() => say("stopping early; Ctrl-C again ends without a verdict"),
    }
    say("waiting until every device has everything, then reading the logs back");
    tokio::select! {
        report = running.finish() => report,
        _ = interrupt.recv() => Err(Interrupted.into()),
    }
}

async fn connect(connecting: Connecting, interrupt: &mut Signal) -> anyhow::Result<Running> {
    let mut ticks = ticks();
    let progress = connecting.watch();
    let start = connecting.start();
    tokio::pin!(start);
    loop {
        tokio::select! {
            running = &mut start => return running,
            _ = ticks.tick() => {
                let Progress { online, devices, .. } = progress.now();
                say(&format!("online {online}/{devices}"));
            }
            _ = interrupt.recv() => return Err(Interrupted.into()),
        }
    }
}

/// Until the plan's time to send is over and everything is answered.
async fn watch(running: &mut Running) {
    let (mut ticks, progress) = (ticks(), running.watch());
    let mut before = progress.now();
    let sent = running.sent();
    tokio::pin!(sent);
    loop {
        tokio::select! {
            () = &mut sent => return,
            _ = ticks.tick() => {
                let now = progress.now();
                let seconds = now.elapsed.saturating_sub(before.elapsed).as_secs_f64().max(0.001);
                say(&format!("{now}  {:.0} deliveries/s", (now.shown - before.shown) as f64 / seconds));
                before = now;
            }
        }
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(SAY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once.
    ticks.reset();
    ticks
}

fn say(what: &str) {
    // When nobody reads it, so be it.
    let _ = writeln!(io::stderr(), "{what}");
}

/// The report on stdout; as JSON into a file, or on stdout in its place when the file is `-`.
fn print(report: &Report, json: Option<&Path>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let Some(path) = json else { return Ok(write!(stdout, "{report}")?) };
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    if path.as_os_str() == "-" {
        return Ok(stdout.write_all(text.as_bytes())?);
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())?;
    Ok(write!(stdout, "{report}")?)
}

/// Clean, or an error that ends the process with 1.
fn verdict(report: &Report) -> anyhow::Result<()> {
    if report.is_clean() { Ok(()) } else { Err(Broken.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;
    use std::process::ExitCode;
    use touchline_load::Broken;

    #[test]
    fn a_broken_guarantee_ends_with_1_and_a_clean_run_with_0() {
        let code = |broken| format!("{:?}", exit::code(verdict(&Report { broken, ..Report::default() })));
        assert_eq!(code(Broken::default()), format!("{:?}", ExitCode::SUCCESS));
        for broken in [
            Broken { lost: 1, ..Broken::default() },
            Broken { duplicated: 1, ..Broken::default() },
            Broken { out_of_order: 1, ..Broken::default() },
            Broken { foreign: 1, ..Broken::default() },
            Broken { canary: 1, ..Broken::default() },
            Broken { behind: 1, ..Broken::default() },
        ] {
            assert_eq!(code(broken), format!("{:?}", ExitCode::FAILURE), "{broken:?}");
        }
    }
}

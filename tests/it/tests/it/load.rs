//! The load and its verdict: clean where nothing is broken, and not where something is.

use anyhow::{Context as _, Result, ensure};
use sea_orm::{ConnectionTrait as _, Database, Statement};
use serde_json::Value;
use std::{process::Stdio, time::Duration};
use tokio::{process::Command, time::timeout};
use touchline_harness::{DEADLINE, Stack, binary, eventually};
use touchline_load::{Broken, Channel, Load, Mix, Pace, Plan, Report, User};
use uuid::Uuid;

/// Ten people in three channels, all kinds of devices, and one whom nothing concerns.
async fn plan(stack: &Stack) -> Result<Plan> {
    let people = stack.crowd(11).await?;
    let (canary, people) = people.split_last().context("a crowd")?;
    let user = |person: &touchline_harness::Person| {
        Ok::<_, anyhow::Error>(User::new(person.id, &stack.access_tokens().issue(person.id, Uuid::now_v7())?))
    };
    let users = people.iter().map(user).collect::<Result<_>>()?;
    let mut channels = Vec::new();
    for members in [vec![0, 1], vec![1, 2, 3, 4], (0..10).collect()] {
        let id = stack.channel(&members.iter().map(|member| &people[*member]).collect::<Vec<_>>()).await?;
        channels.push(Channel { id, members });
    }
    let apis = (0..stack.apis()).map(|api| stack.api_url(api).to_owned()).collect();
    let mut plan = Plan::new(apis, users, channels);
    plan.canaries = vec![user(canary)?];
    plan.sending.twice = 0.3;
    plan.devices.count = 20;
    plan.devices.mix = "steady=14,flappy=2,slow=2,half_open=1,absent=1".parse()?;
    plan.devices.flap_within = Duration::from_secs(2);
    plan.duration = Some(Duration::from_secs(4));
    Ok(plan)
}

async fn played(plan: Plan) -> Result<Report> {
    let mut running = Load::start(plan).await?;
    running.sent().await;
    running.finish().await
}

/// What holds for every clean run of [`plan`].
fn check(report: &Report) -> Result<()> {
    ensure!(report.is_clean() && report.clean, "{report}");
    let (sends, came) = (report.sends, report.deliveries);
    ensure!(sends.accepted > 0 && sends.messages == sends.accepted, "{report}");
    ensure!(sends.twice > 0 && sends.duplicates >= sends.twice, "{report}");
    ensure!(came.shown > sends.accepted && report.send_to_device.count > 0, "{report}");
    ensure!(report.load.settled_in_s.is_some(), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_on_one_process_is_clean() -> Result<()> {
    let stack = Stack::local().unlimited().start().await?;
    check(&played(plan(&stack).await?).await?)?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_on_processes_is_clean_whatever_its_pace() -> Result<()> {
    let stack = Stack::processes(2, 2).unlimited().start().await?;
    let mut random = plan(&stack).await?;
    random.sending.pace = Pace::Poisson(80.0);
    let mut closed = random.clone();
    closed.sending.pace = Pace::Closed(3);
    for plan in [random, closed] {
        check(&played(plan).await?)?;
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_measured_apart_from_its_beginning_until_everybody_is_back() -> Result<()> {
    let mut stack = Stack::processes(1, 2).unlimited().start().await?;
    let mut plan = plan(&stack).await?;
    plan.duration = None;
    let running = Load::start(plan).await?;
    let shown = async |more: u64| {
        let target = running.progress().shown + more;
        eventually("deliveries go on", async || Ok(running.progress().shown > target)).await
    };
    shown(50).await?;
    running.fault_began("a gateway is killed");
    stack.kill_gateway(0).await?;
    shown(50).await?;
    stack.start_gateway(0).await?;
    running.fault_healed();
    ensure!(running.recovered(DEADLINE).await.is_some(), "{}", running.progress());
    shown(20).await?;
    let report = running.finish().await?;
    ensure!(report.is_clean(), "{report}");
    let [fault] = report.faults.as_slice() else { anyhow::bail!("{report}") };
    ensure!(fault.send_to_device.count > 0 && fault.recovered_s.is_some() && fault.lasted_s.is_some(), "{report}");
    ensure!(fault.disconnects > 0, "{report}");
    ensure!(report.outages.count > 0 && report.outages.longest_s > 0.0, "noticed by itself, too: {report}");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_a_message_and_changed_another_is_found() -> Result<()> {
    let stack = Stack::local().unlimited().start().await?;
    let mut plan = plan(&stack).await?;
    plan.duration = None;
    plan.devices.mix = Mix::steady();
    let channel = plan.channels[2].id;
    let running = Load::start(plan).await?;
    let reader = stack.client(0).as_user(&running.plan().users[0].access_token);
    eventually("the channel has messages", async || Ok(reader.channel(channel).await?.last_seq.0 > 20)).await?;
    let database = Database::connect(format!("sqlite://{}", stack.folder().join("touchline.db").display())).await?;
    for sql in [
        "DELETE FROM messages WHERE channel_id = $1 AND seq = 5",
        "UPDATE messages SET content = '{\"text\":\"something else\"}' WHERE channel_id = $1 AND seq = 7",
    ] {
        let backend = database.get_database_backend();
        database.execute_raw(Statement::from_sql_and_values(backend, sql, [channel.0.into()])).await?;
    }
    let report = running.finish().await?;
    let found = Broken { not_in_log: 2, holes_in_log: 1, foreign: 2, ..Broken::default() };
    assert_eq!(report.broken, found, "{report}");
    assert!(!report.is_clean() && report.to_string().contains("BROKEN"), "{report}");
    stack.stop().await
}

/// Runs `touchline load ARGUMENTS…` to its end: exit code, stdout, stderr.
async fn load(url: &str, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(binary()?);
    command.args(["load", "--url", url]).args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DEADLINE * 2, command.output()).await.context("the load does not end")??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.code(), text(output.stdout), text(output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_makes_its_people_shows_progress_and_ends_with_the_verdict() -> Result<()> {
    let stack = Stack::local().unlimited().start().await?;
    let few = ["--users", "4", "--channels", "2", "--duration", "2s", "--json", "-"];
    let (code, stdout, stderr) = load(stack.api_url(0), &few).await?;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout)?;
    assert_eq!((&report["clean"], &report["broken"]["lost"]), (&true.into(), &0.into()));
    assert!(report["sends"]["accepted"].as_u64().is_some_and(|accepted| accepted > 50), "{stdout}");
    assert!(stderr.contains("online 5/5"), "{stderr}");
    stack.stop().await
}

#[tokio::test]
async fn bad_usage_ends_with_64_and_a_server_that_is_not_there_with_1() -> Result<()> {
    for bad in [["--members", "21"], ["--devices", "quick=1"], ["--duration", "soon"], ["--pid", "0"], ["--rate", "0"]]
    {
        let (code, stdout, stderr) = load("http://127.0.0.1:1", &bad).await?;
        assert_eq!((code, stdout.is_empty()), (Some(64), true), "{bad:?}: {stderr}");
    }
    assert_eq!(load("nowhere", &[]).await?.0, Some(64));
    let (code, _, stderr) = load("http://127.0.0.1:1", &[]).await?;
    assert!(code == Some(1) && stderr.contains("no answer from the server"), "{stderr}");
    Ok(())
}

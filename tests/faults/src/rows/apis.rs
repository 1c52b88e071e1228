//! What happens to apis, and between them and the gateways.

use crate::{
    crashes::crash,
    outcome::Outcome,
    scenario::{Context, Scenario, scenario},
    stage::Scene,
};
use anyhow::{Context as _, Result};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use touchline_harness::{Link, LinkKind, NodeName, Rules, Stack};

pub(super) const ROWS: &[Scenario] = &[
    scenario!(8, an_api_that_cannot_reach_a_gateway_hands_its_messages_over, "p99 ≤ 6 s or notified", true),
    scenario!(8, a_gateway_no_api_can_reach_sends_its_clients_elsewhere, "drained within 60 s", false),
    scenario!(9, what_an_api_committed_before_it_died_is_taken_over, "p99 ≤ 6 s", true),
    scenario!(9, what_an_api_pushed_before_it_died_is_shown_once, "visibly duplicated 0; p99 ≤ 6 s", true),
    scenario!(28, apis_are_replaced_one_by_one_and_no_send_fails, "failed sends 0 after one retry", true),
    scenario!(36, pushes_out_of_order_are_shown_in_order, "visibly out of order 0", false),
];

/// A fan-out that is taken over takes as long as a claim lives, and a look each half second.
const TAKEN_OVER: Duration = Duration::from_secs(6);

/// One api and one gateway lose each other: both ways, then each way alone.
async fn an_api_that_cannot_reach_a_gateway_hands_its_messages_over(context: Context) -> Result<Outcome> {
    let stage = Scene::new(&context).open(Stack::processes(2, 3).proxied(&[LinkKind::ApiGateway]), &context).await?;
    let link = stage.stack.link(Link::ApiGateway(1))?.clone();
    let api = stage.stack.api(1)?.pid().context("it runs")?;
    let whole = [Rules::black_hole(), Rules::black_hole_up(), Rules::black_hole_down()];
    for rules in context.pick(&whole[..1], &whole[..]) {
        stage.load.fault_began("partition");
        link.set_for(api, *rules);
        sleep(context.seconds(12, 25)).await;
        link.set_for(api, Rules::default());
        stage.recover().await;
    }
    let mut outcome = stage.close().await?;
    outcome.require_p99(TAKEN_OVER);
    Ok(outcome)
}

/// Every api loses one gateway for longer than it waits before it drains.
async fn a_gateway_no_api_can_reach_sends_its_clients_elsewhere(context: Context) -> Result<Outcome> {
    let mut stage =
        Scene::new(&context).open(Stack::processes(2, 3).proxied(&[LinkKind::ApiGateway]), &context).await?;
    let registry = stage.stack.registry().await?;
    stage.load.fault_began("total cut");
    let began = Instant::now();
    stage.stack.link(Link::ApiGateway(1))?.set(Rules::black_hole());
    let gateway = NodeName::Gateway(1);
    let (name, mut drained) = (gateway.to_string(), None);
    while drained.is_none() && began.elapsed() < Duration::from_secs(90) {
        sleep(Duration::from_millis(500)).await;
        let leases = registry.gateways().await?;
        let holds = leases.iter().any(|lease| lease.gateway.to_string() == name && lease.sessions > 0);
        drained = (!holds).then(|| began.elapsed());
    }
    stage.stack.link(Link::ApiGateway(1))?.heal();
    if drained.is_some() {
        // It ends, so that whoever looks after it starts it anew.
        stage.stack.ended(gateway, Duration::from_secs(30)).await?;
        stage.stack.start_node(gateway).await?;
    }
    let mut outcome = stage.close().await?;
    match drained {
        Some(took) => outcome.tell(format!("its sockets were gone after {:.0} s", took.as_secs_f64())),
        None => outcome.tell("its sockets stayed"),
    }
    // 15 s until the keepalive gives the streams up, 30 s without one, then the drain.
    let in_time = drained.is_some_and(|took| took <= Duration::from_secs(60));
    outcome.aim(in_time, "a gateway nobody pushes to keeps its sockets");
    Ok(outcome)
}

/// The process ends between the commit and the first push, for one send in ten; it is started again each time.
async fn what_an_api_committed_before_it_died_is_taken_over(context: Context) -> Result<Outcome> {
    dying_api(&context, "after_commit").await
}

/// The process ends when pushes are with the streams, and may have left or not, for one message in ten.
async fn what_an_api_pushed_before_it_died_is_shown_once(context: Context) -> Result<Outcome> {
    dying_api(&context, "after_push").await
}

/// An api that ends at a crash point again and again.
async fn dying_api(context: &Context, point: &str) -> Result<Outcome> {
    let builder = Stack::processes(2, 3).proxied(&[LinkKind::ClientApi]);
    let mut stage = Scene::new(context).open(builder, context).await?;
    let points = format!("{point}=10%return");
    let crashes = crash(&mut stage, NodeName::Api(1), &points, point, context.seconds(15, 40)).await?;
    let mut outcome = stage.close().await?;
    outcome.tell(format!("{crashes} crashes"));
    outcome.require(crashes > 0, "the crash point never ended it");
    outcome.require_p99(TAKEN_OVER);
    Ok(outcome)
}

/// SIGTERM for each api in turn under load. New connections are led to the other one before, as a load balancer does
/// with a server it is about to take away, and to the new one when it serves.
async fn apis_are_replaced_one_by_one_and_no_send_fails(context: Context) -> Result<Outcome> {
    let builder = Stack::processes(2, 2).proxied(&[LinkKind::ClientApi]);
    let mut stage = Scene::new(&context).open(builder, &context).await?;
    for round in 0..context.pick(1, 3) {
        for api in 0..2 {
            stage.load.fault_began(&format!("replaced {round}"));
            let other = stage.stack.api(1 - api)?.address("http")?;
            let other = other.trim_start_matches("http://").parse().context("an address")?;
            stage.stack.link(Link::ClientApi(api))?.lead_to(other);
            stage.stack.stop_api(api).await?;
            stage.stack.start_api(api).await?;
            stage.recover().await;
        }
    }
    let (mut outcome, report) = stage.close_with_report().await?;
    let (sends, failed) = (report.sends, report.sends.refused + report.sends.unresolved);
    outcome.tell(format!("failed {failed}, unknown {}, {} tries for one at most", sends.unknown, sends.most_tries));
    outcome.require(failed == 0, "sends failed for good");
    outcome.aim(sends.most_tries <= 2, format!("a send took {} tries", sends.most_tries));
    outcome.require_p99(TAKEN_OVER);
    Ok(outcome)
}

/// Each link between an api and a gateway is late by something else.
async fn pushes_out_of_order_are_shown_in_order(context: Context) -> Result<Outcome> {
    let stage = Scene::new(&context).open(Stack::processes(3, 3).proxied(&[LinkKind::ApiGateway]), &context).await?;
    stage.load.fault_began("jitter");
    for gateway in 0..3 {
        stage.stack.link(Link::ApiGateway(gateway))?.set(Rules::slow(Duration::ZERO, Duration::from_millis(500)));
    }
    sleep(context.seconds(8, 30)).await;
    for gateway in 0..3 {
        stage.stack.link(Link::ApiGateway(gateway))?.heal();
    }
    let mut outcome = stage.close().await?;
    outcome.require_p99(TAKEN_OVER);
    Ok(outcome)
}

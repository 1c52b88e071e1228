//! What happens to Redis, and to who needs it.

use crate::{
    crashes::arm,
    outcome::Outcome,
    scenario::{Context, Scenario, scenario},
    stage::Scene,
};
use anyhow::{Context as _, Result};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use touchline_harness::{Link, LinkKind, NodeName, OwnRedis, Rules, Stack, eventually};
use touchline_ids::{ConnectionNumber, IncarnationId, UserId};
use touchline_load::{Kind, Mix};
use touchline_registry::{Registration, Registry};

pub(super) const ROWS: &[Scenario] = &[
    scenario!(7, a_gateway_cut_from_redis_keeps_its_sockets, "sockets closed 0", true),
    scenario!(11, without_redis_messages_still_arrive, "accepted ≥ 90 %", true),
    scenario!(
        12,
        a_redis_failover_that_loses_writes_loses_no_message,
        "p99 ≤ 6 s; sockets closed 0; every route back within 5.5 s",
        false
    ),
    scenario!(13, a_flushed_redis_is_filled_again, "routes back within 5.5 s + sessions / 5,000 per s", true),
    scenario!(
        13,
        a_gateway_that_dies_half_way_through_registering_again_is_made_good,
        "p99 ≤ 6 s; every route back",
        false
    ),
    scenario!(14, a_slow_redis_slows_down_nobody, "p99 ≤ 300 ms more than before", true),
    scenario!(15, stale_routes_are_met_once_and_removed, "misdelivered 0; every stale route removed", false),
];

/// A lease is renewed each 5 s, and found missing; half a second for a call and for looking.
const ROUTES_BACK: Duration = Duration::from_millis(5_500);

/// Nothing passes between one gateway and Redis for longer than a lease lives.
async fn a_gateway_cut_from_redis_keeps_its_sockets(context: Context) -> Result<Outcome> {
    let stage = Scene::new(&context).open(Stack::processes(2, 3).proxied(&[LinkKind::Redis]), &context).await?;
    let redis = stage.stack.link(Link::Redis(NodeName::Gateway(1)))?.clone();
    stage.load.fault_began("cut from redis");
    redis.set(Rules::black_hole());
    sleep(context.seconds(20, 60)).await;
    redis.heal();
    let (mut outcome, report) = stage.close_with_report().await?;
    outcome.require_no_closes(&report);
    outcome.require_p99(Duration::from_secs(6));
    Ok(outcome)
}

/// Killed, and started again empty.
async fn without_redis_messages_still_arrive(context: Context) -> Result<Outcome> {
    let mut redis = OwnRedis::start(&[]).await?;
    let stage = Scene::new(&context).open(Stack::processes(2, 3).on_redis(&redis), &context).await?;
    let before = stage.load.progress();
    stage.load.fault_began("redis down");
    redis.kill()?;
    sleep(context.seconds(15, 60)).await;
    let after = stage.load.progress();
    redis.start_again().await?;
    let (mut outcome, report) = stage.close_with_report().await?;
    let (messages, accepted) = (after.messages - before.messages, after.accepted - before.accepted);
    let percent = accepted * 100 / messages.max(1);
    outcome.tell(format!("accepted {percent} % meanwhile"));
    outcome.require_no_closes(&report);
    outcome.tell(format!("notified while live {}", outcome.notified_while_live));
    outcome.aim(percent >= 90, format!("only {percent} % were accepted"));
    Ok(outcome)
}

/// The replica misses what was written last, the primary dies, the Sentinel promotes the replica.
async fn a_redis_failover_that_loses_writes_loses_no_message(context: Context) -> Result<Outcome> {
    let mut primary = OwnRedis::start(&[]).await?;
    let link = touchline_harness::Proxy::open().await?;
    link.lead_to(([127, 0, 0, 1], primary.port()).into());
    let replica = OwnRedis::start(&[&format!("replicaof 127.0.0.1 {}", link.address().port())]).await?;
    eventually("the replica follows", async || {
        Ok(replica.run::<String>("INFO replication").await?.contains("master_link_status:up"))
    })
    .await?;
    let sentinel = OwnRedis::sentinel(&primary).await?;
    eventually("the sentinel knows the replica", async || {
        Ok(sentinel.run::<String>("INFO sentinel").await?.contains("slaves=1"))
    })
    .await?;
    let mut scene = Scene::new(&context);
    scene.mix.flappy = 8;
    let stage = scene.open(Stack::processes(2, 3).on_sentinel(&sentinel), &context).await?;
    let registry = stage.stack.registry().await?;
    let steady: Vec<_> = stage.users(Kind::Steady).into_keys().collect();
    link.set(Rules::black_hole());
    sleep(context.seconds(4, 8)).await;
    stage.load.fault_began("failover");
    primary.kill()?;
    eventually("the replica is promoted", async || {
        // The Sentinel ends every connection of the server it promotes.
        let told = replica.run::<String>("INFO replication").await;
        Ok(told.is_ok_and(|told| told.contains("role:master")))
    })
    .await?;
    let promoted = Instant::now();
    everybody_has_a_route(&*registry, &steady).await?;
    let back = promoted.elapsed();
    let (mut outcome, report) = stage.close_with_report().await?;
    outcome.tell(format!("every route back {:.1} s after the promotion", back.as_secs_f64()));
    outcome.aim(back <= ROUTES_BACK, format!("the routes took {back:?} to come back"));
    outcome.require_no_closes(&report);
    outcome.require_p99(Duration::from_secs(6));
    Ok(outcome)
}

/// FLUSHALL, again and again.
async fn a_flushed_redis_is_filled_again(context: Context) -> Result<Outcome> {
    let redis = OwnRedis::start(&[]).await?;
    let stage = Scene::new(&context).open(Stack::processes(2, 3).on_redis(&redis), &context).await?;
    let registry = stage.stack.registry().await?;
    let steady: Vec<_> = stage.users(Kind::Steady).into_keys().collect();
    let times = context.pick(2, 10);
    let mut slowest = Duration::ZERO;
    for _ in 0..times {
        stage.load.fault_began("flushed");
        redis.run::<()>("FLUSHALL").await?;
        let began = Instant::now();
        everybody_has_a_route(&*registry, &steady).await?;
        slowest = slowest.max(began.elapsed());
        stage.recover().await;
        sleep(context.seconds(2, 10)).await;
    }
    let limit = ROUTES_BACK + Duration::from_secs(steady.len() as u64) / 5_000;
    let (mut outcome, report) = stage.close_with_report().await?;
    outcome.require_no_closes(&report);
    outcome.tell(format!(
        "{times} times; all {} routes back after at most {:.1} s",
        steady.len(),
        slowest.as_secs_f64()
    ));
    outcome.aim(slowest <= limit, format!("the routes took {slowest:?} to come back"));
    outcome.require_p99(Duration::from_secs(6));
    Ok(outcome)
}

/// One gateway holds nearly everybody when Redis is flushed, and dies when a part of its sessions is registered again.
async fn a_gateway_that_dies_half_way_through_registering_again_is_made_good(context: Context) -> Result<Outcome> {
    let redis = OwnRedis::start(&[]).await?;
    let mut scene = Scene::new(&context);
    // More than the 250 that are registered at once.
    (scene.people, scene.channels, scene.mix) = (600, 60, Mix::steady());
    let mut stage = scene.open(Stack::processes(2, 2).on_redis(&redis), &context).await?;
    let (registry, dying, other) = (stage.stack.registry().await?, NodeName::Gateway(1), NodeName::Gateway(0));
    let steady: Vec<_> = stage.users(Kind::Steady).into_keys().collect();
    let (times, mut slowest) = (context.pick(1, 4), Duration::ZERO);
    for _ in 0..times {
        arm(&mut stage, dying, "mid_reregister=1*return").await?;
        // By then every api knows it, and everybody comes to it.
        sleep(Duration::from_secs(2)).await;
        stage.stack.kill(other).await?;
        sleep(Duration::from_secs(1)).await;
        eventually("everybody is there", async || {
            let now = stage.load.progress();
            Ok(now.online == now.devices && now.behind == 0)
        })
        .await?;
        stage.stack.start_node(other).await?;
        // Long enough that this death is a fault by itself.
        sleep(Duration::from_secs(6)).await;
        stage.load.fault_began("flushed");
        redis.run::<()>("FLUSHALL").await?;
        stage.stack.ended(dying, Duration::from_secs(20)).await.context("the crash point did not end it")?;
        let began = Instant::now();
        stage.stack.start_node(dying).await?;
        stage.recover().await;
        everybody_has_a_route(&*registry, &steady).await?;
        slowest = slowest.max(began.elapsed());
    }
    let mut outcome = stage.close().await?;
    let slowest = slowest.as_secs_f64();
    outcome.tell(format!("{times} times; all {} routes back {slowest:.1} s after its death at most", steady.len()));
    outcome.require_p99(Duration::from_secs(6));
    Ok(outcome)
}

async fn everybody_has_a_route(registry: &dyn Registry, users: &[UserId]) -> Result<()> {
    eventually("every route is back", async || {
        // While the primary changes nobody answers.
        let routes = registry.look_up(users).await.unwrap_or_default();
        let mut found: Vec<_> = routes.iter().map(|route| route.index).collect();
        found.dedup();
        Ok(found.len() == users.len())
    })
    .await
}

/// Paused by its own command, then asleep in the middle of one.
async fn a_slow_redis_slows_down_nobody(context: Context) -> Result<Outcome> {
    let redis = OwnRedis::start(&[]).await?;
    let stage = Scene::new(&context).open(Stack::processes(2, 3).on_redis(&redis), &context).await?;
    for _ in 0..context.pick(1, 3) {
        stage.load.fault_began("slow redis");
        redis.run::<()>("CLIENT PAUSE 5000 ALL").await?;
        sleep(Duration::from_secs(6)).await;
        redis.run::<()>("DEBUG SLEEP 3").await?;
        stage.recover().await;
        sleep(Duration::from_secs(2)).await;
    }
    let (mut outcome, report) = stage.close_with_report().await?;
    outcome.require_no_closes(&report);
    // Beyond what the machine takes anyway.
    outcome.require_p99(Duration::from_millis(300) + Duration::from_secs_f64(outcome.before_p99_ms / 1e3));
    Ok(outcome)
}

/// Routes of a gateway that is dead, and of one that lives and never had such a session.
async fn stale_routes_are_met_once_and_removed(context: Context) -> Result<Outcome> {
    let redis = OwnRedis::start(&[]).await?;
    let stage = Scene::new(&context).open(Stack::processes(2, 3).on_redis(&redis), &context).await?;
    let registry = stage.stack.registry().await?;
    let live = registry.gateways().await?.first().context("a gateway")?.incarnation;
    let users: Vec<_> = stage.users(Kind::Absent).into_keys().collect();
    let per_user = context.pick(1_000, 10_000) / users.len();
    let mut stale = Vec::new();
    for (at, user) in users.iter().enumerate() {
        let incarnation = if at % 2 == 0 { live } else { IncarnationId::new() };
        for number in 0..per_user {
            let (device, connection) = (format!("stale-{number}").parse()?, ConnectionNumber(1));
            stale.push(Registration { user: *user, device, incarnation, connection });
        }
    }
    stage.load.fault_began("stale routes");
    for some in stale.chunks(1_000) {
        registry.register(some).await?;
    }
    let began = Instant::now();
    // Those of a dead incarnation are believed for a minute: its lease may only be late.
    let patience = Duration::from_secs(100);
    let mut left = users.len();
    while left > 0 && began.elapsed() < patience {
        sleep(Duration::from_millis(500)).await;
        left = registry.look_up(&users).await?.len();
    }
    let took = began.elapsed();
    let mut outcome = stage.close().await?;
    outcome.tell(format!("{} stale routes, removed within {:.0} s", stale.len(), took.as_secs_f64()));
    outcome.require(left == 0, format!("{left} users still have stale routes after {took:?}"));
    Ok(outcome)
}

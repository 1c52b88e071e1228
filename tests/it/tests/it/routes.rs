//! What becomes of routes, and of the people behind them, when the registry loses them, holds stale ones, or a gateway is
//! stopped or cut off from it. Figures are printed; what is asserted is who got what.

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::time::{Duration, Instant};
use tokio::time::sleep;
use touchline_client::Frame;
use touchline_harness::{Checker, Follower, Link, LinkKind, NodeName, OwnRedis, Person, Rules, Stack, eventually};
use touchline_ids::{ChannelId, UserId};
use touchline_registry::{Registry, contract};

/// Where this user's routes lead.
async fn is_found(registry: &dyn Registry, user: UserId) -> bool {
    registry.look_up(&[user]).await.is_ok_and(|routes| !routes.is_empty())
}

/// Everybody has exactly what was sent, and nobody's socket was closed.
async fn settled(followers: &[Follower], checker: &Checker, channel: ChannelId, sent: usize) -> Result<()> {
    for follower in followers {
        follower.until("everything was shown", |story| story.shown.len() > sent).await?;
        let verdict = checker.judge(&[channel], &follower.sightings());
        ensure!(verdict.is_exact(), "{verdict}");
        ensure!(follower.story().sockets.len() == 1, "sockets: {:?}", follower.story().sockets);
        ensure!(follower.story().offline.is_empty(), "offline: {:?}", follower.story().offline);
    }
    Ok(())
}

async fn followers(people: &[Person]) -> Result<Vec<Follower>> {
    stream::iter(people).map(|person| person.follower("phone")).buffered(8).try_collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_routes_come_back_after_a_flush_and_every_client_syncs() -> Result<()> {
    const SESSIONS: usize = 2_000;
    let redis = OwnRedis::start(&[]).await?;
    let stack = Stack::processes(1, 1).on_redis(&redis).unlimited().start().await?;
    let people = stack.crowd(SESSIONS).await?;
    let devices = stream::iter(&people).map(|person| person.silent_device("phone")).buffered(64);
    let devices: Vec<_> = devices.try_collect().await?;
    let routes = async || redis.run::<usize>("DBSIZE").await;
    ensure!(routes().await? >= SESSIONS, "everybody is registered");
    redis.run::<()>("FLUSHALL").await?;
    let flushed = Instant::now();
    eventually("every route is back", async || Ok(routes().await? > SESSIONS)).await?;
    println!("{SESSIONS} routes were back {:.1} s after FLUSHALL", flushed.elapsed().as_secs_f64());
    for device in &devices {
        let readies = || device.frames().iter().filter(|frame| matches!(frame, Frame::Ready { .. })).count();
        eventually("it is told to sync", async || Ok(readies() >= 1)).await?;
    }
    println!("every client was told to sync {:.1} s after FLUSHALL", flushed.elapsed().as_secs_f64());
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_that_loses_routes_is_made_good() -> Result<()> {
    let mut primary = OwnRedis::start(&[]).await?;
    let replica = OwnRedis::start(&[&format!("replicaof 127.0.0.1 {}", primary.port())]).await?;
    let in_step = async || Ok(replica.run::<String>("INFO replication").await?.contains("master_link_status:up"));
    eventually("the replica follows", in_step).await?;
    let sentinel = OwnRedis::sentinel(&primary).await?;
    let known = async || Ok(sentinel.run::<String>("INFO sentinel").await?.contains("slaves=1"));
    eventually("the sentinel knows the replica", known).await?;
    let stack = Stack::processes(1, 2).on_sentinel(&sentinel).start().await?;
    let people = stack.sign_up_all(["alice", "bob", "carol"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let registry = stack.registry().await?;
    let early = people[0].follower("phone").await?;
    eventually("the replica has the first route", async || Ok(replica.run::<usize>("DBSIZE").await? >= 4)).await?;

    // From now on nothing reaches the replica: it is thrown out, and nobody new may come in.
    let mut insider = primary.connection().await?;
    for command in ["CONFIG SET requirepass nobody-knows", "CLIENT KILL TYPE replica"] {
        let mut cmd = redis::Cmd::new();
        command.split(' ').for_each(|arg| _ = cmd.arg(arg));
        cmd.query_async::<()>(&mut insider).await?;
    }
    let late = followers(&people[1..]).await?;
    primary.kill()?;
    eventually("the replica is the master now", async || {
        Ok(replica.run::<String>("INFO replication").await?.contains("role:master"))
    })
    .await?;
    eventually("it is asked", async || Ok(registry.look_up(&[people[0].id]).await.is_ok())).await?;
    let failed_over = Instant::now();
    for person in &people[1..] {
        eventually("the lost route is back", async || Ok(is_found(&*registry, person.id).await)).await?;
    }
    println!("lost routes were back {:.1} s after the fail-over", failed_over.elapsed().as_secs_f64());
    let (checker, mut all) = (Checker::new(), late);
    all.push(early);
    for number in 0..10 {
        checker.accepted(people[number % 3].send(channel, &number.to_string()).await?);
    }
    settled(&all, &checker, channel, 10).await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_stale_routes_waste_one_push_each_and_mislead_nobody() -> Result<()> {
    const STALE: usize = 9_998;
    /// One call of the registry, on a machine that has other things to do.
    const AT_ONCE: usize = 1_000;
    let stack = Stack::processes(1, 1).unlimited().start().await?;
    let people = stack.sign_up_all(["alice", "mallory"]).await?;
    let [alice, mallory] = &people;
    let crowd = stack.crowd(STALE).await?;
    let members: Vec<_> = [alice].into_iter().chain(&crowd).collect();
    let channel = stack.channel(&members).await?;
    let (here, elsewhere) = (alice.follower("phone").await?, mallory.follower("phone").await?);
    let registry = stack.registry().await?;
    let gateway = registry.gateways().await?.pop().context("a gateway")?.incarnation;
    // Half lead to an incarnation that is no more, half to sessions that are no more.
    let dead = touchline_ids::IncarnationId::new();
    let stale = crowd.iter().enumerate().map(|(n, person)| {
        let incarnation = if n.is_multiple_of(2) { dead } else { gateway };
        contract::session(person.id, "gone", incarnation, 1)
    });
    for stale in stale.collect::<Vec<_>>().chunks(AT_ONCE) {
        registry.register(stale).await?;
    }

    let users: Vec<_> = crowd.iter().map(|person| person.id).collect();
    let misleading = async || {
        let mut misleading = 0;
        for users in users.chunks(AT_ONCE) {
            let routes = registry.look_up(users).await?;
            misleading += routes.iter().filter(|route| route.incarnation == gateway).count();
        }
        Ok::<_, anyhow::Error>(misleading)
    };
    let sent = alice.send(channel, "the first").await?;
    here.expect(sent).await?;
    let begin = Instant::now();
    // The entries of the members' own joining may have met some of them before.
    eventually("routes to sessions that are no more are gone", async || Ok(misleading().await? == 0)).await?;
    println!("{} stale routes were gone {:.1} s after the first push", STALE / 2, begin.elapsed().as_secs_f64());
    let sent = alice.send(channel, "the second").await?;
    here.expect(sent).await?;
    ensure!(elsewhere.story().shown.is_empty(), "a stranger was shown something");
    stack.stop().await
}

/// Stops a gateway for so long while messages are sent, and lets it go on.
async fn stopped_for(seconds: u64) -> Result<()> {
    let stack = Stack::processes(1, 2).start().await?;
    let people = stack.sign_up_all(["alice", "bob", "carol", "dave"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let followers = followers(&people).await?;
    let there = followers.iter().filter(|follower| follower.story().sockets[0].0.starts_with(stack.gateway_url(0)));
    println!("{} of {} are at the gateway that stops", there.count(), followers.len());
    let checker = Checker::new();
    checker.accepted(people[0].send(channel, "before").await?);
    stack.gateway(0)?.pause()?;
    for second in 0..seconds {
        checker.accepted(people[0].send(channel, &second.to_string()).await?);
        sleep(Duration::from_secs(1)).await;
    }
    stack.gateway(0)?.resume()?;
    let resumed = Instant::now();
    settled(&followers, &checker, channel, seconds as usize + 1).await?;
    println!("everybody had everything {:.1} s after a stop of {seconds} s", resumed.elapsed().as_secs_f64());
    checker.accepted(people[0].send(channel, "after").await?);
    settled(&followers, &checker, channel, seconds as usize + 2).await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_stopped_for_5_seconds_closes_nobody_and_everybody_catches_up() -> Result<()> {
    stopped_for(5).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_stopped_for_20_seconds_closes_nobody_and_everybody_catches_up() -> Result<()> {
    stopped_for(20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_cut_off_from_the_registry_keeps_its_sockets_and_is_pushed_to() -> Result<()> {
    let stack = Stack::processes(1, 1).proxied(&[LinkKind::Redis]).start().await?;
    let people = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&people.each_ref()).await?;
    let followers = followers(&people).await?;
    let checker = Checker::new();
    let cut = stack.link(Link::Redis(NodeName::Gateway(0)))?;
    cut.set(Rules::black_hole());
    // Longer than a lease lives.
    for second in 0..18 {
        let sent = people[0].send(channel, &second.to_string()).await?;
        checker.accepted(sent);
        followers[1].expect(sent).await?;
        sleep(Duration::from_secs(1)).await;
    }
    cut.heal();
    settled(&followers, &checker, channel, 18).await?;
    let registry = stack.registry().await?;
    eventually("its lease is back", async || Ok(!registry.gateways().await?.is_empty())).await?;
    stack.stop().await
}

//! How a gateway ends, and how it lives through the registry's faults.

use crate::{
    client::{Answer, Client, message, within},
    fixture::{PUSH_SERVICE, Served, World, gateway_id, health},
    raw::get,
};
use std::time::{Duration, Instant};
use tonic_health::pb::health_check_response::ServingStatus;
use touchline_gateway::Error;
use touchline_ids::{ChannelId, ConnectionNumber, UserId};
use touchline_registry::{GatewayState, Registration, Registry as _};

#[tokio::test]
async fn a_stopping_gateway_sends_its_sessions_elsewhere_and_releases_its_lease() {
    let served = Served::start(|_| {}).await;
    let world = served.world.clone();
    let (obeying, staying, channel) = (UserId::new(), UserId::new(), ChannelId::new());
    let mut leaves = served.connect(obeying, "phone", 1).await;
    let mut stays = served.connect(staying, "phone", 1).await;
    let mut api = served.api().await;
    assert_eq!(health(served.grpc, PUSH_SERVICE).await, Some(ServingStatus::Serving));
    let lease = world.registry.gateways().await.expect("answers").pop().expect("one gateway");
    assert_eq!((lease.state, lease.public_url), (GatewayState::Ready, format!("ws://{}", served.ws)));
    assert_eq!(lease.grpc_url, format!("http://{}", served.grpc));

    served.shutdown.stop();
    for client in [&mut leaves, &mut stays] {
        let frame = client.hear().await;
        assert_eq!(frame["type"], "reconnect");
        assert!(frame["after_ms"].as_u64() <= Some(60_000), "{frame}");
    }
    assert_eq!(get(served.ws, "/readyz").await, 503);
    assert_eq!(get(served.ws, "/livez").await, 200);
    assert_eq!(Client::open(served.ws, &[]).await.err().expect("is refused").status(), 503);
    assert_eq!(health(served.grpc, PUSH_SERVICE).await, Some(ServingStatus::NotServing));
    let lease = world.registry.gateways().await.expect("answers").pop().expect("still there");
    assert_eq!(lease.state, GatewayState::Draining);

    drop(leaves);
    // Who stays is still pushed to, and closed in the end.
    api.push(message(channel, 1), &[staying], 30_000).await;
    assert_eq!(stays.hear().await["seq"], 1);
    assert_eq!(stays.close_code().await, 1012);
    assert_eq!(api.answer().await, Answer { push_id: 1, unacked: vec![staying], ..Answer::default() });
    assert_eq!(api.next_answer().await, None, "the stream ends in order");
    assert!(served.ended().await.is_ok());
    assert!(world.registry.gateways().await.expect("answers").is_empty());
    assert!(world.routes(staying).await.is_empty());
}

#[tokio::test]
async fn nobody_is_asked_to_leave_before_the_apis_know_that_the_gateway_goes() {
    let head_start = Duration::from_millis(1_000);
    let served = Served::start(|config| config.times.drain_head_start_ms = 1_000).await;
    let mut client = served.connect(UserId::new(), "phone", 1).await;
    served.shutdown.stop();
    let leases = async || served.world.registry.gateways().await.expect("answers");
    within("the lease says so", async {
        while leases().await[0].state != GatewayState::Draining {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let said = Instant::now();
    assert_eq!(client.hear().await["type"], "reconnect");
    assert!(said.elapsed() > head_start / 2, "{:?}", said.elapsed());
}

#[tokio::test]
async fn a_gateway_that_no_api_reaches_while_they_reach_another_sends_its_sessions_there() {
    let world = World::new();
    let reached = world.serve(|_| {}).await;
    let _api = reached.api().await;
    let cut_off = world.serve(|config| config.times.alone_ms = 1).await;
    let mut client = cut_off.connect(UserId::new(), "phone", 1).await;
    assert_eq!(client.hear().await["type"], "reconnect");
    drop(client);
    assert!(matches!(cut_off.ended().await, Err(Error::Unreached(_))));
    let leases = world.registry.gateways().await.expect("answers");
    assert_eq!(leases.iter().map(|lease| lease.incarnation).collect::<Vec<_>>(), [reached.incarnation]);
}

#[tokio::test]
async fn a_lease_tells_how_many_apis_reach_the_gateway_and_one_that_none_reaches_stays_when_none_reaches_any() {
    let served = Served::start(|config| config.times.alone_ms = 1).await;
    let mut client = served.connect(UserId::new(), "phone", 1).await;
    let streams = async |wanted| {
        within("the lease says so", async {
            while served.world.registry.gateways().await.expect("answers")[0].push_streams != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    let apis = [served.api().await, served.api().await];
    streams(2).await;
    drop(apis);
    streams(0).await;
    client.is_alive().await;
}

#[tokio::test]
async fn an_idle_gateway_stops_at_once_and_frees_its_ports() {
    let served = Served::start(|_| {}).await;
    let begin = Instant::now();
    let address = served.ws;
    served.shutdown.stop();
    assert!(served.ended().await.is_ok());
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert!(tokio::net::TcpListener::bind(address).await.is_ok());
}

#[tokio::test]
async fn a_hard_stop_waits_for_nobody() {
    let served = Served::start(|config| config.times.drain_sessions_per_second = 1).await;
    let mut client = served.connect(UserId::new(), "phone", 1).await;
    served.shutdown.stop();
    assert_eq!(client.hear().await["type"], "reconnect");
    served.shutdown.stop_now();
    within("the end", served.run).await.expect("no panic");
    let ended = within("the socket's end", futures_util::StreamExt::next(&mut client.socket)).await;
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
}

#[tokio::test]
async fn a_later_incarnation_of_the_same_gateway_ends_the_earlier_one() {
    let world = World::new();
    let first = world.serve(|config| config.id = gateway_id("gw-1")).await;
    let mut client = first.connect(UserId::new(), "phone", 1).await;
    let second = world.serve(|config| config.id = gateway_id("gw-1")).await;
    assert_eq!(client.hear().await["type"], "reconnect");
    drop(client);
    assert!(matches!(first.ended().await, Err(Error::Fenced(id)) if id.as_str() == "gw-1"));
    let leases = world.registry.gateways().await.expect("answers");
    assert_eq!(leases.iter().map(|lease| lease.incarnation).collect::<Vec<_>>(), [second.incarnation]);
}

#[tokio::test]
async fn a_registry_that_lost_everything_gets_every_session_again() {
    let served = Served::start(|_| {}).await;
    let users: [UserId; 3] = std::array::from_fn(|_| UserId::new());
    let mut clients = Vec::new();
    for user in users {
        clients.push(served.connect(user, "phone", 1).await);
    }
    served.world.registry.lose_everything();
    for user in users {
        served.world.routes_become(user, &[served.incarnation]).await;
    }
    for client in &mut clients {
        client.is_alive().await;
    }
}

#[tokio::test]
async fn a_session_whose_route_was_lost_is_told_to_sync_once_it_is_found_again() {
    let served = Served::start(|_| {}).await;
    let user = UserId::new();
    let mut client = served.try_connect(user, "phone", 1).await;
    let first = client.ready().await;
    served.world.registry.lose_everything();
    let again = client.ready().await;
    assert_eq!(served.world.routes(user).await, [served.incarnation], "what is sent from now on is pushed");
    assert_eq!(again["session_id"], first["session_id"]);
    assert_eq!(again["heartbeat_s"], first["heartbeat_s"]);
    assert_eq!(client.is_alive().await, 0);
}

#[tokio::test]
async fn a_route_that_led_to_nobody_is_removed_and_those_of_sessions_stay() {
    let served = Served::start(|_| {}).await;
    let (gone, here) = (UserId::new(), UserId::new());
    let mut client = served.connect(here, "phone", 1).await;
    let stale = |user| Registration {
        user,
        device: "tablet".parse().expect("a device"),
        incarnation: served.incarnation,
        connection: ConnectionNumber(3),
    };
    served.world.registry.register(&[stale(gone), stale(here)]).await.expect("answers");
    let mut api = served.api().await;
    let channel = ChannelId::new();
    api.push(message(channel, 1), &[gone, here], 0).await;
    assert_eq!(api.answer().await.gone, [gone]);
    assert_eq!(client.hear().await["seq"], 1);
    served.world.routes_become(gone, &[]).await;
    assert_eq!(served.world.routes(here).await, [served.incarnation]);
}

#[tokio::test]
async fn without_the_registry_sessions_stay_and_newcomers_are_sent_elsewhere() {
    let served = Served::start(|config| config.times.lease_ms = 300).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut client = served.connect(user, "phone", 1).await;
    served.world.registry.set_away(true);
    within("not ready", async { while get(served.ws, "/readyz").await != 503 {} }).await;
    assert_eq!(get(served.ws, "/livez").await, 200);
    assert_eq!(Client::open(served.ws, &[]).await.err().expect("is refused").status(), 503);
    let mut api = served.api().await;
    api.push(message(channel, 1), &[user], 3_000).await;
    assert_eq!(client.hear().await["seq"], 1);
    served.world.registry.set_away(false);
    within("ready again", async { while get(served.ws, "/readyz").await != 200 {} }).await;
}

#[tokio::test]
async fn a_gateway_that_starts_without_the_registry_is_alive_but_not_ready() {
    let world = World::new();
    world.registry.set_away(true);
    let served = world.serve(|_| {}).await;
    within("answering", async { while get(served.ws, "/readyz").await != 503 {} }).await;
    assert_eq!(get(served.ws, "/livez").await, 200);
    assert_eq!(health(served.grpc, PUSH_SERVICE).await, Some(ServingStatus::NotServing));
    assert_eq!(health(served.grpc, "").await, Some(ServingStatus::Serving));
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let served = Served::start(|_| {}).await;
    let config = touchline_gateway::Config { ws: served.ws, ..crate::fixture::local_config() };
    let error = touchline_gateway::build(config, served.world.dependencies()).await.err().expect("is taken");
    assert!(matches!(error, Error::Bind { address, .. } if address == served.ws), "{error}");
}

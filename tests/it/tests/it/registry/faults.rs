//! Servers that restart, hang, fail over and move slots. Nothing here may need a new registry, and nothing that could
//! have lost routes may look like an ordinary renewal.

use super::{
    Redis,
    servers::{Server, cluster, eventually},
};
use futures_util::future::join_all;
use touchline_ids::{IncarnationId, UserId};
use touchline_registry::{Mode, Registration, Registry, Renewal, Settings, connect, contract, contract::Fixture};

const ANSWERS: &str = "redis answers";

/// A gateway's lease with one session, renewed once, so that the next renewal finds nothing unusual.
async fn settled(registry: &dyn Registry) -> (touchline_registry::Lease, Registration) {
    let lease = contract::lease("gw-1", IncarnationId::new());
    let session = contract::session(UserId::new(), "phone", lease.incarnation, 1);
    assert_eq!(registry.renew_lease(&lease).await.expect(ANSWERS), Renewal::Missing);
    registry.register(std::slice::from_ref(&session)).await.expect(ANSWERS);
    assert_eq!(registry.renew_lease(&lease).await.expect(ANSWERS), Renewal::Renewed);
    (lease, session)
}

#[tokio::test]
async fn after_a_restart_the_first_call_succeeds_and_the_renewal_is_doubtful() {
    let mut server = Server::start(&[]).await;
    let redis = Redis::at(Mode::Single, vec![server.url()]).await;
    let (lease, session) = settled(&*redis.registry).await;

    server.restart().await;
    assert_eq!(redis.registry.look_up(&[session.user]).await.unwrap().len(), 1);
    // The lease survived, as it would with a snapshot that is older than the newest routes.
    assert_eq!(redis.registry.gateways().await.unwrap(), std::slice::from_ref(&lease));
    assert_eq!(redis.registry.renew_lease(&lease).await.unwrap(), Renewal::Doubtful);
    assert_eq!(redis.registry.renew_lease(&lease).await.unwrap(), Renewal::Renewed);
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_until_it_is_back() {
    let mut server = Server::start(&[]).await;
    let redis = Redis::at(Mode::Single, vec![server.url()]).await;
    let (lease, session) = settled(&*redis.registry).await;
    server.kill();
    for _ in 0..3 {
        redis.registry.look_up(&[session.user]).await.unwrap_err();
        redis.registry.renew_lease(&lease).await.unwrap_err();
        redis.registry.ping().await.unwrap_err();
    }
    assert!(connect(&redis.settings).await.is_err());
    server.restart().await;
    eventually("it is used again", async || redis.registry.look_up(&[session.user]).await.is_ok()).await;
    assert_eq!(redis.registry.renew_lease(&lease).await.unwrap(), Renewal::Doubtful);
}

#[tokio::test]
async fn a_server_that_hangs_is_an_error_and_the_same_connection_goes_on() {
    let server = Server::start(&[]).await;
    let redis = Redis::at(Mode::Single, vec![server.url()]).await;
    let (lease, session) = settled(&*redis.registry).await;
    server.signal("STOP");
    redis.registry.look_up(&[session.user]).await.unwrap_err();
    redis.registry.renew_lease(&lease).await.unwrap_err();
    // Far more than may wait for the writer: all of them are told, and none waits for the others.
    let user = [session.user];
    let answers = join_all((0..5_000).map(|_| redis.registry.look_up(&user)));
    let answers = tokio::time::timeout(std::time::Duration::from_secs(10), answers).await.expect("nobody waits long");
    assert!(answers.iter().all(Result::is_err));
    server.signal("CONT");
    eventually("it is used again", async || redis.registry.look_up(&[session.user]).await.is_ok()).await;
    assert_eq!(redis.registry.look_up(&[session.user]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_demoted_server_is_left_for_whoever_is_master_now() {
    let server = Server::start(&[]).await;
    let redis = Redis::at(Mode::Single, vec![server.url()]).await;
    let (lease, session) = settled(&*redis.registry).await;
    // A replica of nobody: it answers everything but writes.
    server.run::<()>("REPLICAOF 127.0.0.1 1").await.unwrap();
    redis.registry.register(std::slice::from_ref(&session)).await.unwrap_err();
    server.run::<()>("REPLICAOF NO ONE").await.unwrap();
    redis.registry.register(std::slice::from_ref(&session)).await.unwrap();
    assert_eq!(redis.registry.renew_lease(&lease).await.unwrap(), Renewal::Doubtful, "over another connection");
}

#[tokio::test]
async fn the_acl_rules_that_keys_rs_names_are_enough() {
    let server = Server::start(&[]).await;
    let rules = "ACL SETUSER touchline on >hunter2 ~tl:* resetchannels -@all +@read +@write +@scripting \
                 -@dangerous +ping +client|info";
    server.run::<()>(&rules.split_whitespace().collect::<Vec<_>>().join(" ")).await.unwrap();
    server.run::<()>("ACL SETUSER default off").await.unwrap();
    let settings = Settings {
        mode: Mode::Single,
        urls: vec![server.url()],
        username: "touchline".to_owned(),
        password: "hunter2".into(),
        ..Settings::default()
    };
    let registry = connect(&settings).await.unwrap();
    let (lease, session) = settled(&*registry).await;
    assert_eq!(registry.gateways().await.unwrap(), std::slice::from_ref(&lease));
    assert!(registry.take_over(&session, lease.incarnation, session.connection).await.unwrap());
    assert!(registry.redeem_ticket("jti").await.unwrap());
    assert!(registry.unregister(&session).await.unwrap());
    registry.release_lease(&lease.gateway, lease.incarnation).await.unwrap();
    assert_eq!(registry.gateways().await.unwrap(), []);

    let wrong = Settings { password: "hunter3".into(), ..settings };
    let refusal = format!("{:?}", connect(&wrong).await.err().expect("a wrong password"));
    assert!(!refusal.contains("hunter3"), "{refusal}");
}

#[tokio::test]
async fn a_sentinel_fail_over_is_followed_and_makes_the_renewal_doubtful() {
    let mut master = Server::start(&[]).await;
    let replica = Server::start(&[&format!("replicaof 127.0.0.1 {}", master.port())]).await;
    eventually("the replica follows", async || {
        replica.run::<String>("INFO replication").await.unwrap().contains("master_link_status:up")
    })
    .await;
    let monitor = format!("sentinel monitor chat 127.0.0.1 {} 1", master.port());
    let sentinel =
        Server::start(&[&monitor, "sentinel down-after-milliseconds chat 1000", "sentinel failover-timeout chat 5000"])
            .await;
    eventually("the sentinel knows the replica", async || {
        sentinel.run::<Vec<redis::Value>>("SENTINEL REPLICAS chat").await.unwrap().len() == 1
    })
    .await;
    let settings = Settings {
        mode: Mode::Sentinel,
        urls: vec![sentinel.url()],
        sentinel_master: "chat".to_owned(),
        ..Settings::default()
    };
    let registry = connect(&settings).await.unwrap();
    let (lease, session) = settled(&*registry).await;
    eventually("the replica has the route", async || replica.run::<i64>("DBSIZE").await.unwrap() == 3).await;

    master.kill();
    registry.look_up(&[session.user]).await.unwrap_err();
    let mut renewal = None;
    eventually("the replica is used as master", async || {
        renewal = registry.renew_lease(&lease).await.ok();
        renewal.is_some()
    })
    .await;
    assert_eq!(renewal, Some(Renewal::Doubtful));
    assert_eq!(registry.renew_lease(&lease).await.unwrap(), Renewal::Renewed);
    assert_eq!(registry.look_up(&[session.user]).await.unwrap().len(), 1);
    assert!(replica.run::<String>("INFO replication").await.unwrap().contains("role:master"));
}

#[tokio::test]
async fn a_cluster_master_that_lost_its_keys_makes_the_renewal_missing_wherever_the_lease_is() {
    let mut servers = cluster().await;
    let redis = Redis::at(Mode::Cluster, vec![servers[0].url()]).await;
    let (lease, _) = settled(&*redis.registry).await;
    // Each in turn, so at least two that do not hold the lease.
    for server in &servers {
        server.run::<()>("FLUSHALL").await.unwrap();
        assert_eq!(redis.registry.renew_lease(&lease).await.unwrap(), Renewal::Missing, "flushed {}", server.url());
        assert_eq!(redis.registry.renew_lease(&lease).await.unwrap(), Renewal::Renewed);
    }
    for server in &mut servers {
        server.restart().await;
        eventually("the cluster is whole", async || {
            server.run::<String>("CLUSTER INFO").await.unwrap().contains("cluster_state:ok")
        })
        .await;
        let mut renewal = None;
        eventually("the lease is renewed", async || {
            renewal = redis.registry.renew_lease(&lease).await.ok();
            renewal.is_some()
        })
        .await;
        // While a master is not connected yet it cannot vouch, and must not be taken to.
        if renewal == Some(Renewal::Renewed) {
            eventually("the restart is noticed", async || {
                redis.registry.renew_lease(&lease).await.is_ok_and(|renewal| renewal != Renewal::Renewed)
            })
            .await;
        }
        eventually("all is well again", async || {
            redis.registry.renew_lease(&lease).await.is_ok_and(|renewal| renewal == Renewal::Renewed)
        })
        .await;
    }
}

#[tokio::test]
async fn users_are_found_when_slots_have_moved() {
    let servers = cluster().await;
    let redis = Redis::at(Mode::Cluster, vec![servers[0].url()]).await;
    let registry = redis.registry();
    let users: Vec<_> = (0..2_000).map(|_| UserId::new()).collect();
    assert_eq!(registry.look_up(&users).await.unwrap(), []);
    move_empty_slots(&servers, 0, 2, 200).await;
    let here = IncarnationId::new();
    let sessions: Vec<_> = users.iter().map(|user| contract::session(*user, "phone", here, 1)).collect();
    registry.register(&sessions).await.unwrap();
    let routes = registry.look_up(&users).await.unwrap();
    assert_eq!(routes.len(), users.len());
    assert!(routes.iter().zip(0u32..).all(|(route, index)| route.index == index));
}

/// Moves the first `count` slots, behind everybody's back.
async fn move_empty_slots(servers: &[Server], from: usize, to: usize, count: usize) {
    let old_owner: String = servers[from].run("CLUSTER MYID").await.expect(ANSWERS);
    let new_owner: String = servers[to].run("CLUSTER MYID").await.expect(ANSWERS);
    for slot in 0..count {
        // Ending an import gives the new owner a later epoch, so that no gossip of the old one takes the slot back.
        servers[to].run::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {old_owner}")).await.expect(ANSWERS);
        servers[to].run::<()>(&format!("CLUSTER SETSLOT {slot} NODE {new_owner}")).await.expect(ANSWERS);
        servers[from].run::<()>(&format!("CLUSTER SETSLOT {slot} NODE {new_owner}")).await.expect(ANSWERS);
    }
    eventually("every node knows the new owner", async || {
        for server in servers {
            // The owner's own view names it `myself`; its slots stand at the end of its line.
            let nodes: String = server.run("CLUSTER NODES").await.expect(ANSWERS);
            let line = nodes.lines().find(|line| line.starts_with(&new_owner)).expect("it knows all nodes");
            if !line.contains(&format!(" 0-{} ", count - 1)) {
                return false;
            }
        }
        true
    })
    .await;
}

//! The registry on real Redis: its contract on one server and on a Cluster, lifetimes, and what happens when servers
//! restart, hang, fail over and move slots.

mod faults;
pub(crate) mod servers;
mod tls;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use std::sync::Arc;
use touchline_ids::{GatewayId, IncarnationId, UserId};
use touchline_registry::{
    LEASE_LIFE, Mode, ROUTE_LIFE, Registry, Renewal, Settings, TICKET_MEMORY, connect, contract, contract::Fixture,
    contract_tests,
};
use uuid::Uuid;

/// A registry with a key prefix of its own.
struct Redis {
    registry: Arc<dyn Registry>,
    settings: Settings,
}

impl Redis {
    async fn at(mode: Mode, urls: Vec<String>) -> Self {
        let prefix = format!("test-{}:", Uuid::new_v4().simple());
        let settings = Settings { mode, urls, prefix, ..Settings::default() };
        Self { registry: connect(&settings).await.expect("the registry answers"), settings }
    }

    /// Runs a command behind the registry's back. `{}` in an argument stands for the prefix.
    async fn run<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut cmd = redis::Cmd::new();
        for arg in command {
            cmd.arg(arg.replace("{}", &self.settings.prefix));
        }
        let answer = match self.settings.mode {
            Mode::Cluster => {
                let client = redis::cluster::ClusterClient::new(self.settings.urls.clone()).expect("a cluster");
                let mut connection = client.get_async_connection().await.expect("the cluster answers");
                connection.req_packed_command(&cmd).await
            }
            _ => raw(&self.settings.urls[0]).await.req_packed_command(&cmd).await,
        };
        let answer = answer.and_then(redis::Value::extract_error).expect("the command is understood");
        redis::from_redis_value(answer).expect("the answer is understood")
    }
}

#[async_trait::async_trait]
impl Fixture for Redis {
    fn registry(&self) -> Arc<dyn Registry> {
        self.registry.clone()
    }
    async fn lose_lease(&self, gateway: &GatewayId) {
        assert_eq!(self.run::<i64>(&["DEL", &format!("{{}}gw:{gateway}")]).await, 1);
    }
}

async fn raw(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a redis URL");
    client.get_multiplexed_async_connection().await.expect("redis answers")
}

fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/run"))
}

async fn one_server() -> Redis {
    Redis::at(Mode::Single, vec![given("TOUCHLINE_TEST_REDIS")]).await
}

async fn three_masters() -> Redis {
    Redis::at(Mode::Cluster, given("TOUCHLINE_TEST_REDIS_CLUSTER").split(',').map(str::to_owned).collect()).await
}

mod single {
    touchline_registry::contract_tests!(super::one_server);
}

mod cluster {
    super::contract_tests!(super::three_masters);
}

#[tokio::test]
async fn keys_are_stored_as_documented_and_end_by_themselves() {
    for redis in [one_server().await, three_masters().await] {
        let lease = contract::lease("gw-1", IncarnationId::new());
        let session = contract::session(UserId::new(), "phone", lease.incarnation, 7);
        redis.registry.renew_lease(&lease).await.unwrap();
        redis.registry.register(std::slice::from_ref(&session)).await.unwrap();
        redis.registry.redeem_ticket("jti").await.unwrap();

        let user = format!("{{}}u:{}", session.user.0.simple());
        let mut route = lease.incarnation.as_bytes().to_vec();
        route.extend(7i64.to_be_bytes());
        assert_eq!(redis.run::<Vec<u8>>(&["HGET", &user, "phone"]).await, route);
        assert_eq!(redis.run::<Vec<String>>(&["SMEMBERS", "{}gws"]).await, ["gw-1"]);
        for (key, life) in [("{}gw:gw-1", LEASE_LIFE), (&user, ROUTE_LIFE), ("{}ticket:jti", TICKET_MEMORY)] {
            let left = redis.run::<i64>(&["PTTL", key]).await;
            assert!((1..=life.as_millis() as i64).contains(&left), "{key}: {left}");
        }
        // Registering another device gives the whole user a new life.
        redis.run::<()>(&["EXPIRE", &user, "5"]).await;
        let pad = contract::session(session.user, "pad", lease.incarnation, 1);
        redis.registry.register(&[pad]).await.unwrap();
        assert!(redis.run::<i64>(&["TTL", &user]).await > 5);
    }
}

#[tokio::test]
async fn the_directory_is_swept_of_gateways_without_a_lease() {
    for redis in [one_server().await, three_masters().await] {
        let (alive, dead) =
            (contract::lease("gw-1", IncarnationId::new()), contract::lease("gw-2", IncarnationId::new()));
        redis.registry.renew_lease(&alive).await.unwrap();
        redis.registry.renew_lease(&dead).await.unwrap();
        redis.run::<()>(&["PEXPIRE", "{}gw:gw-2", "0"]).await;
        assert_eq!(redis.registry.gateways().await.unwrap(), [alive]);
        assert_eq!(redis.run::<Vec<String>>(&["SMEMBERS", "{}gws"]).await, ["gw-1"]);
        assert_eq!(redis.registry.renew_lease(&dead).await.unwrap(), Renewal::Missing);
        assert_eq!(redis.registry.gateways().await.unwrap().len(), 2);
    }
}

/// A sweep that saw no lease runs at any moment of the next incarnation's first renewal.
#[tokio::test]
async fn a_sweep_never_hides_a_gateway_that_just_came() {
    for redis in [one_server().await, three_masters().await] {
        for _ in 0..50 {
            let lease = contract::lease("gw-1", IncarnationId::new());
            redis.run::<()>(&["SADD", "{}gws", "gw-1"]).await;
            let sweeps = futures_util::future::join_all((0..4).map(|_| redis.registry.gateways()));
            let (renewal, sweeps) = tokio::join!(redis.registry.renew_lease(&lease), sweeps);
            assert_eq!(renewal.unwrap(), Renewal::Missing);
            assert!(sweeps.iter().all(Result::is_ok));
            assert_eq!(redis.registry.gateways().await.unwrap(), std::slice::from_ref(&lease));
            redis.registry.release_lease(&lease.gateway, lease.incarnation).await.unwrap();
        }
    }
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_taught_again() {
    let redis = one_server().await;
    let lease = contract::lease("gw-1", IncarnationId::new());
    redis.registry.renew_lease(&lease).await.unwrap();
    // Also those of tests running now: they must not mind.
    redis.run::<()>(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(redis.registry.renew_lease(&lease).await.unwrap(), Renewal::Renewed);
}

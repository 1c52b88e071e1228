//! Where devices are sent, how long they may stay, and who is ready to take them.

use crate::registry::servers::Server;
use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::timeout;
use touchline_auth::{AccessTokens, KeySet, SigningKey};
use touchline_client::{Client, Closed, Socket};
use touchline_harness::{DEADLINE, Stack, eventually};
use touchline_ids::ConnectionNumber;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_within_one_heartbeat_are_spread_evenly_over_five_gateways() -> Result<()> {
    const CLIENTS: usize = 1_000;
    const GATEWAYS: usize = 5;
    let stack = Stack::local().with(1, GATEWAYS).unlimited().start().await?;
    let people = stack.crowd(20).await?;
    let device = "phone".parse()?;
    let ask = |client: usize| {
        let (person, device) = (&people[client % people.len()], &device);
        async move { anyhow::Ok(person.ticket(device).await?.gateways[0].url.clone()) }
    };
    eventually("the api knows every gateway", async || {
        let named: std::collections::BTreeSet<_> = stream::iter(0..50).map(ask).buffered(10).try_collect().await?;
        Ok(named.len() == GATEWAYS)
    })
    .await?;

    let sent: Vec<_> = stream::iter(0..CLIENTS).map(ask).buffered(10).try_collect().await?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    sent.into_iter().for_each(|url| *counts.entry(url).or_default() += 1);
    let even = CLIENTS / GATEWAYS;
    let within = even - even / 5..=even + even / 5;
    assert!(counts.len() == GATEWAYS && counts.values().all(|count| within.contains(count)), "{counts:?}");
    stack.stop().await
}

#[tokio::test]
async fn without_a_gateway_a_device_is_told_when_to_ask_again() -> Result<()> {
    let stack = Stack::local().with(1, 0).start().await?;
    let alice = stack.sign_up("alice").await?;
    let refused = alice.client().connect(&"phone".parse()?).await.expect_err("there is no gateway");
    let refusal = refused.refusal().context("a refusal")?;
    assert_eq!((refusal.status, refusal.code.as_str()), (503, "unavailable"));
    assert!(refusal.retry_after.is_some());
    stack.stop().await
}

#[tokio::test]
async fn a_socket_ends_with_the_access_token_that_asked_for_it() -> Result<()> {
    let stack = Stack::local().start().await?;
    let alice = stack.sign_up("alice").await?;
    let device = "phone".parse()?;
    let urls = alice.ticket(&device).await?.gateways;

    let auth = stack.auth();
    let key = Arc::new(SigningKey::from_file(&auth.signing_key_file).await?);
    let keys = KeySet::from_file(&auth.public_keys_file).await?;
    let tokens = AccessTokens::new(key, keys, &auth.issuer, Duration::from_secs(5))?;
    let short = Client::new(stack.api_url(0))?.as_user(&tokens.issue(alice.id, Uuid::now_v7())?);
    let ticket = short.connect(&device).await?.ticket;
    let mut socket = Socket::open(&urls[0].url, &ticket, &device, ConnectionNumber(1)).await?;
    assert!(socket.expires_in() <= Duration::from_secs(5), "{:?}", socket.expires_in());
    let closed: Closed = timeout(DEADLINE, async {
        loop {
            if let Err(closed) = socket.next().await {
                return closed;
            }
        }
    })
    .await?;
    assert_eq!(closed.code, 4001);
    // And there is no other ticket for that token.
    let refused = short.connect(&device).await.expect_err("it has expired");
    assert_eq!((refused.status(), refused.code()), (Some(401), Some("unauthenticated")));
    stack.stop().await
}

#[tokio::test]
async fn without_the_registry_gateways_take_nobody_and_apis_go_on() -> Result<()> {
    let mut redis = Server::start(&[]).await;
    // A gateway is not ready when its lease has run out: sooner than by default.
    let stack = Stack::processes(1, 1).gateway(|gateway| gateway.times.lease_ms = 1_000).registry(&[redis.url()]);
    let stack = stack.start().await?;
    let gateway = stack.gateway_url(0).replacen("ws", "http", 1);
    let bases = [stack.api_url(0).to_owned(), gateway];
    let probe = async |probe: &str| -> Result<Vec<u16>> {
        let mut answers = Vec::new();
        for base in &bases {
            answers.push(reqwest::get(format!("{base}/{probe}")).await?.status().as_u16());
        }
        Ok(answers)
    };
    eventually("both are ready", async || Ok(probe("readyz").await? == [200, 200])).await?;
    redis.kill();
    eventually("the gateway is not ready", async || Ok(probe("readyz").await? == [200, 503])).await?;
    assert_eq!(probe("livez").await?, [200, 200]);
    redis.restart().await;
    eventually("both are ready again", async || Ok(probe("readyz").await? == [200, 200])).await?;
    stack.stop().await
}

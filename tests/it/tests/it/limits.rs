//! Who asks too often is told when to come back, and nobody else notices. Sign-up has its test among the people's.

use anyhow::{Context as _, Result, bail};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use std::time::Duration;
use touchline_client::{ClientError, NewMessage, Refusal};
use touchline_harness::{PASSWORD, Person, Stack};
use uuid::Uuid;

/// Asks until it is refused: how often it was answered before, and the refusal.
async fn flood<T>(mut ask: impl AsyncFnMut() -> Result<T, ClientError>) -> Result<(usize, Refusal)> {
    for answered in 0..1_000 {
        if let Err(error) = ask().await {
            return Ok((answered, error.refusal().context("a refusal")?.clone()));
        }
    }
    bail!("never refused")
}

fn assert_is_a_limit(refusal: &Refusal) {
    assert_eq!((refusal.status, refusal.code.as_str()), (429, "rate_limited"), "{refusal}");
    assert!(refusal.retry_after >= Some(Duration::from_secs(1)), "{refusal:?}");
}

#[tokio::test]
async fn who_sends_too_often_is_told_when_to_come_back_and_the_others_go_on() -> Result<()> {
    let stack = Stack::local().api(|api| api.limits.sends_per_user = 5).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let phone = alice.device("phone").await?;

    let (answered, refusal) = flood(async || bob.client().send(channel, &NewMessage::new("again")).await).await?;
    // What comes back with time may come back during the test, so at least.
    assert!(answered >= 5, "{answered}");
    assert_is_a_limit(&refusal);
    let sent = alice.send(channel, "and alice?").await?;
    phone.expect(sent).await?;
    assert_eq!(sent.seq.0, 2 + i64::try_from(answered)?, "what was refused was not stored");
    // It is a limit of sends: bob still reads and connects.
    bob.client().history(channel, None, None, None).await?;
    bob.client().sync(&[], None).await?;
    bob.device("phone").await?;
    stack.stop().await
}

#[tokio::test]
async fn who_connects_too_often_is_told_when_to_come_back_and_the_others_go_on() -> Result<()> {
    let stack = Stack::local().api(|api| api.limits.connects_per_user = 3).start().await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let device = "phone".parse()?;
    bob.ticket(&device).await?;
    let (_, refusal) = flood(async || bob.client().connect(&device).await).await?;
    assert_is_a_limit(&refusal);
    alice.client().connect(&device).await?;
    bob.client().me().await?;
    stack.stop().await
}

/// Asks as somebody behind a proxy, at this address.
async fn from(stack: &Stack, address: &str, person: Option<&Person>, path: &str, body: &Value) -> Result<StatusCode> {
    let request = reqwest::Client::new().request(Method::POST, format!("{}{path}", stack.api_url(0)));
    let request = match person {
        Some(person) => request.bearer_auth(stack.access_tokens().issue(person.id, Uuid::now_v7())?),
        None => request,
    };
    let answer = request.header("x-forwarded-for", address).json(body).send().await?;
    let (status, wait) = (answer.status(), answer.headers().get(header::RETRY_AFTER).cloned());
    let wait = wait.and_then(|wait| wait.to_str().ok()?.parse::<u64>().ok());
    assert_eq!(wait.is_some_and(|seconds| seconds >= 1), status == StatusCode::TOO_MANY_REQUESTS, "{status}");
    Ok(status)
}

/// Asks from one address until it is refused, then once from another.
async fn flood_from_one_address(stack: &Stack, person: Option<&Person>, path: &str, body: &Value) -> Result<()> {
    let refused = async {
        for answered in 0..1_000 {
            match from(stack, "192.0.2.1", person, path, body).await? {
                StatusCode::TOO_MANY_REQUESTS => return Ok(answered),
                status => anyhow::ensure!(status.is_success(), "{path}: {status}"),
            }
        }
        bail!("{path} is never refused")
    };
    let answered: usize = refused.await?;
    assert!(answered >= 3, "{path}: {answered}");
    let neighbour = from(stack, "192.0.2.2", person, path, body).await?;
    assert!(neighbour.is_success(), "{path} from another address: {neighbour}");
    Ok(())
}

#[tokio::test]
async fn one_addresss_flood_of_log_ins_and_connects_leaves_the_others_alone() -> Result<()> {
    let change = |api: &mut touchline_api::Config| {
        api.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        api.limits.log_ins_per_address = 3;
        api.limits.connects_per_address = 3;
    };
    let stack = Stack::local().api(change).start().await?;
    let alice = stack.sign_up("alice").await?;
    alice.device("phone").await?;
    let log_in = json!({"handle": "alice", "password": PASSWORD});
    flood_from_one_address(&stack, None, "/v1/sessions", &log_in).await?;
    flood_from_one_address(&stack, Some(&alice), "/v1/connect", &json!({"device_id": "phone"})).await?;
    stack.stop().await
}

//! What a sender is promised when much happens at once.

use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use serde_json::json;
use touchline_client::NewMessage;
use touchline_harness::{NodeName, Stack};
use touchline_ids::Seq;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_writer_queue_is_a_503_with_retry_after_and_stores_nothing() -> Result<()> {
    /// Together far more than a queue of one and a batch take while one batch is committed.
    const AT_ONCE: usize = 100;
    let stack = Stack::local().api(|api| api.writer_queue = 1).unlimited().start().await?;
    let alice = stack.sign_up("alice").await?;
    let channel = stack.channel(&[&alice]).await?;
    let (mut stored, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let messages: Vec<_> = (0..AT_ONCE).map(|_| NewMessage::new("many at once")).collect();
        let answers = join_all(messages.iter().map(|message| alice.client().send(channel, message))).await;
        for (message, answer) in messages.into_iter().zip(answers) {
            match answer {
                Ok(sent) => stored.push(sent.message_id),
                Err(error) => {
                    let refusal = error.refusal().with_context(|| error.to_string())?;
                    assert_eq!((refusal.status, refusal.code.as_str()), (503, "unavailable"));
                    assert!(refusal.retry_after.is_some());
                    refused.push(message);
                }
            }
        }
        if !refused.is_empty() {
            break;
        }
    }
    assert!(!refused.is_empty(), "the queue was never full");
    assert!(!stored.is_empty(), "and it was never free");

    let last = alice.client().channel(channel).await?.last_seq;
    assert_eq!(last, Seq(1 + i64::try_from(stored.len())?), "what was answered is stored, and nothing else");
    // Not stored, as the answer said: its name is free.
    let again = alice.client().send(channel, &refused[0]).await?;
    assert!(!again.duplicate);
    assert_eq!(again.seq, last.next());
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_created_once_and_then_found() -> Result<()> {
    let stack = Stack::local().start().await?;
    let alice = stack.sign_up("alice").await?;
    let channel = stack.channel(&[&alice]).await?;
    let token = stack.access_tokens().issue(alice.id, Uuid::now_v7())?;
    let url = format!("{}/v1/channels/{channel}/messages", stack.api_url(0));
    for (status, duplicate) in [(201, false), (200, true), (200, true)] {
        let body = json!({"client_message_id": "1", "content": "hello"}).to_string();
        let request = reqwest::Client::new().post(&url).bearer_auth(&token).header("content-type", "application/json");
        let answer = request.body(body).send().await?;
        assert_eq!(answer.status(), status);
        let sent: serde_json::Value = serde_json::from_str(&answer.text().await?)?;
        assert_eq!((&sent["seq"], &sent["duplicate"]), (&json!(2), &json!(duplicate)));
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_encoder_cannot_bear_ends_no_gateway_and_holds_nobody_up() -> Result<()> {
    let quick = |api: &mut touchline_api::Config| (api.ack_wait_ms, api.second_look_ms) = (500, 100);
    let gateway = NodeName::Gateway(0);
    let stack = Stack::processes(1, 1)
        .api(quick)
        .environment(gateway, "FAILPOINTS", "encode=1*panic(as a bug would)")
        .start()
        .await?;
    let [alice, bob] = stack.sign_up_all(["alice", "bob"]).await?;
    let channel = stack.channel(&[&alice, &bob]).await?;
    let (phone, before) = (bob.device("phone").await?, stack.node(gateway)?.pid());
    for text in ["poison", "well"] {
        let sent = alice.send(channel, text).await?;
        phone.expect(sent).await?;
    }
    let process = stack.node(gateway)?;
    assert!(process.log().contains("as a bug would"), "it did panic");
    assert_eq!(process.pid(), before);
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_bodies_under_one_id_through_two_apis_at_once_one_is_stored() -> Result<()> {
    const ROUNDS: i64 = 25;
    let stack = Stack::processes(2, 1).start().await?;
    let alice = stack.sign_up("alice").await?;
    let channel = stack.channel(&[&alice]).await?;
    for round in 0..ROUNDS {
        let one = NewMessage::new(json!({"text": "one"}));
        let other = NewMessage { content: json!({"text": "other"}), ..one.clone() };
        let (one, other) =
            tokio::join!(alice.client_at(0).send(channel, &one), alice.client_at(1).send(channel, &other));
        let (sent, refused) = match (one, other) {
            (Ok(sent), Err(refused)) | (Err(refused), Ok(sent)) => (sent, refused),
            both => panic!("round {round}: {both:?}"),
        };
        assert_eq!((sent.duplicate, sent.seq), (false, Seq(2 + round)));
        assert_eq!((refused.status(), refused.code()), (Some(409), Some("client_message_id_reused")));
    }
    assert_eq!(alice.client().channel(channel).await?.last_seq, Seq(1 + ROUNDS));
    stack.stop().await
}

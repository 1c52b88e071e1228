//! What a sender is promised when much happens at once.

use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use serde_json::json;
use touchline_client::NewMessage;
use touchline_harness::Stack;
use touchline_ids::Seq;

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

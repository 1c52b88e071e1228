use crate::sender::{Sender, clear_client, http1_client, is_good, push, within};
use reqwest::header;
use std::{error::Error as _, time::Duration};
use touchline_fake_fcm::{Behaviour, FakeFcm, Options, Outcome, Settings, answers};

#[tokio::test]
async fn a_token_is_answered_as_its_text_says() {
    let sender = Sender::start(Settings::default()).await;
    let cases = [
        ("unreg-1", 404, answers::UNREGISTERED, Outcome::Unregistered),
        ("badtok-1", 400, answers::BAD_TOKEN, Outcome::BadToken),
        ("badfield-1", 400, answers::BAD_TOKEN_FIELD, Outcome::BadToken),
        ("mismatch-1", 403, answers::WRONG_SENDER, Outcome::WrongSender),
        ("apnskey-1", 401, answers::PLATFORM_KEY, Outcome::PlatformKey),
        ("expired-1", 401, answers::UNAUTHENTICATED, Outcome::Unauthenticated),
        ("quota-1", 429, answers::QUOTA_EXCEEDED, Outcome::Quota),
        ("down-1", 503, answers::UNAVAILABLE, Outcome::ServerError),
        ("flaky1-1", 503, answers::UNAVAILABLE, Outcome::ServerError),
        ("internal-1", 500, answers::INTERNAL, Outcome::ServerError),
        ("html502-1", 502, answers::HTML_502, Outcome::ServerError),
        ("empty500-1", 500, "", Outcome::ServerError),
    ];
    for (token, status, body, outcome) in cases {
        let answer = sender.answer(token).await;
        assert_eq!((answer.status, &*answer.text, answer.retry_after), (status, body, None), "{token}");
        let entry = sender.fake.log().all().pop().unwrap();
        assert_eq!((entry.outcome, entry.status, entry.processed), (outcome, Some(status), false), "{token}");
    }
    for token in ["ok-1", "flaky0-1", "slow20-1", "dQw4:APA91bReal-looking_one"] {
        is_good(&sender.answer(token).await);
        assert!(sender.fake.log().all().pop().unwrap().processed);
    }
    let page = within(sender.push("html502-1", 1)).await.unwrap();
    assert!(page.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
}

#[tokio::test]
async fn a_flaky_token_fails_now_and_then() {
    let sender = Sender::start(Settings::default()).await;
    let mut good = 0;
    for _ in 0..200 {
        good += u32::from(sender.answer("flaky0.5-1").await.status == 200);
    }
    assert!((50..150).contains(&good), "{good} of 200 at one half");
}

#[tokio::test]
async fn a_device_takes_240_messages_a_minute() {
    let sender = Sender::start(Settings::default()).await;
    for _ in 0..240 {
        is_good(&sender.answer("dev429-1").await);
    }
    assert_eq!(sender.answer("dev429-1").await.status, 429);
    is_good(&sender.answer("dev429-2").await);
}

#[tokio::test]
async fn a_hanging_token_is_never_answered_and_the_log_sees_the_sender_go() {
    let sender = Sender::start(Settings::default()).await;
    let request = sender.client.post(sender.uri()).bearer_auth(&sender.access_token).json(&push("hang-1", 1));
    let error = request.timeout(Duration::from_millis(100)).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    let entry = within(sender.fake.log().wait_for(0, |entry| entry.ended_us.is_some())).await;
    assert_eq!((entry.outcome, entry.status, entry.processed), (Outcome::Gone, None, false));
}

#[tokio::test]
async fn who_gives_up_on_a_slow_answer_has_delivered_all_the_same() {
    let sender = Sender::start(Settings::default()).await;
    let request = sender.client.post(sender.uri()).bearer_auth(&sender.access_token).json(&push("slow60000-1", 1));
    assert!(request.timeout(Duration::from_millis(100)).send().await.unwrap_err().is_timeout());
    let entry = within(sender.fake.log().wait_for(0, |entry| entry.ended_us.is_some())).await;
    assert_eq!((entry.outcome, entry.processed), (Outcome::Gone, true));
}

/// The reason of the RST_STREAM behind an error.
fn reset_reason(error: &reqwest::Error) -> Option<h2::Reason> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            assert!(error.is_reset() && error.is_remote(), "{error:?}");
            return error.reason();
        }
        source = error.source();
    }
    None
}

#[tokio::test]
async fn a_stream_is_reset_before_or_after_its_head() {
    let sender = Sender::start(Settings::default()).await;
    let early = within(sender.push("accept-then-reset-1", 1)).await.unwrap_err();
    assert_eq!(reset_reason(&early), Some(h2::Reason::INTERNAL_ERROR));
    let refused = within(sender.push("refuse-1", 1)).await.unwrap_err();
    assert_eq!(reset_reason(&refused), Some(h2::Reason::REFUSED_STREAM));

    let late = within(sender.push("reset-1", 1)).await.unwrap();
    assert_eq!(late.status(), 200, "the head comes, so that only the body tells");
    assert_eq!(reset_reason(&late.bytes().await.unwrap_err()), Some(h2::Reason::INTERNAL_ERROR));

    let told: Vec<_> = sender.fake.log().all().iter().map(|entry| (entry.outcome, entry.processed)).collect();
    assert_eq!(told, [(Outcome::Reset, true), (Outcome::Refused, false), (Outcome::Reset, false)]);
    is_good(&sender.answer("ok-1").await);
    assert_eq!(sender.fake.connections(), 1, "the connection outlives its streams");
}

#[tokio::test]
async fn over_http1_a_reset_ends_the_connection() {
    let fake = FakeFcm::start(Options::default()).await.unwrap();
    let base = fake.http();
    let sender = Sender::of(fake, http1_client(), base).await;
    assert!(!within(sender.push("accept-then-reset-1", 1)).await.unwrap_err().is_timeout());
    let late = within(sender.push("reset-1", 1)).await.unwrap();
    assert!(late.bytes().await.is_err());
    is_good(&sender.answer("ok-1").await);
    assert_eq!(sender.fake.connections(), 3);
}

#[tokio::test]
async fn any_other_answer_can_be_asked_for() {
    let sender = Sender::start(Settings::default()).await;
    sender.fake.script("ok-1", Behaviour::Other { status: 418, body: "[]".to_owned() }, 1);
    let answer = sender.answer("ok-1").await;
    assert_eq!((answer.status, &*answer.text), (418, "[]"));
    is_good(&sender.answer("ok-1").await);
}

#[tokio::test]
async fn a_dropped_fake_is_gone() {
    let sender = Sender::start(Settings::default()).await;
    let uri = sender.uri();
    drop(sender);
    assert!(within(clear_client().post(uri).json(&push("ok-1", 1)).send()).await.unwrap_err().is_connect());
}

use crate::sender::{Answer, Sender, http1_client, is_good, push, tls_client, within};
use reqwest::Version;
use serde_json::{Value, json};
use touchline_fake_fcm::{Change, FakeFcm, Options, Outcome, Settings, answers};

#[tokio::test]
async fn a_push_is_accepted_and_written_down() {
    let sender = Sender::start(Settings::default()).await;
    let answer = within(sender.push("ok-1", 4_711)).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    let answer = Answer::of(answer).await;
    is_good(&answer);
    assert!(answer.json()["name"].as_str().unwrap().starts_with("projects/touchline-test/messages/0:"));

    let entries = sender.fake.log().all();
    let entry = &entries[0];
    assert_eq!(
        (&*entry.token, entry.channel.as_deref(), entry.seq, entry.n),
        ("ok-1", Some("123"), Some(4_711), Some(3))
    );
    assert_eq!((entry.outcome, entry.status, entry.processed), (Outcome::Accepted, Some(200), true));
    assert_eq!((entry.number, entry.bearer), (0, 1));
    assert!(entry.ended_us.unwrap() >= entry.begun_us && entry.connection > 0 && entry.stream > 0);
    let body: Value = serde_json::from_slice(&sender.fake.body(0).unwrap()).unwrap();
    assert_eq!(body, push("ok-1", 4_711));
}

#[tokio::test]
async fn tls_speaks_both_versions_under_an_authority_of_its_own() {
    for (http1, version) in [(false, Version::HTTP_2), (true, Version::HTTP_11)] {
        let fake = FakeFcm::start(Options::default()).await.unwrap();
        let (client, base) = (tls_client(&fake, http1), fake.https());
        let sender = Sender::of(fake, client, base).await;
        let answer = within(sender.push("ok-1", 1)).await.unwrap();
        assert_eq!((answer.version(), answer.status().as_u16()), (version, 200));
    }
    let fake = FakeFcm::start(Options::default()).await.unwrap();
    let (client, base) = (http1_client(), fake.http());
    let sender = Sender::of(fake, client, base).await;
    let answer = within(sender.push("ok-1", 1)).await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_11, 200));
}

#[tokio::test]
async fn without_a_good_access_token_the_answer_is_401() {
    let mut sender = Sender::start(Settings::default()).await;
    let bare = sender.client.post(sender.uri()).json(&push("ok-1", 1)).send().await.unwrap();
    assert_eq!(bare.status(), 401);
    let good = std::mem::replace(&mut sender.access_token, "ya29.unknown".to_owned());
    assert_eq!(sender.answer("ok-1").await.status, 401);
    sender.access_token = good;
    is_good(&sender.answer("ok-1").await);

    sender.fake.change(Change { revoke_access_tokens: true, ..Change::default() });
    let answer = sender.answer("ok-1").await;
    assert_eq!((answer.status, &*answer.text), (401, answers::UNAUTHENTICATED));
    sender.fake.change(Change { access_token_life_s: Some(0), ..Change::default() });
    sender.refresh().await;
    assert_eq!(sender.answer("ok-1").await.status, 401);
    let bearers: Vec<_> = sender.fake.log().all().iter().map(|entry| (entry.bearer, entry.processed)).collect();
    assert_eq!(bearers, [(0, false), (0, false), (1, true), (1, false), (2, false)]);
}

#[tokio::test]
async fn another_project_is_forbidden_and_other_addresses_are_not_found() {
    let sender = Sender::start(Settings::default()).await;
    let post = async |path: &str| {
        let request = sender.client.post(format!("{}{path}", sender.base)).bearer_auth(&sender.access_token);
        Answer::of(request.json(&push("ok-1", 1)).send().await.unwrap()).await
    };
    let answer = post("/v1/projects/p/messages:send").await;
    assert_eq!((answer.status, answer.json()), (403, serde_json::from_str(answers::FORBIDDEN).unwrap()));
    for path in ["/batch", "/v1/projects/touchline-test/messages", "/v1/projects//messages:send", "/control", "/log"] {
        let answer = post(path).await;
        assert_eq!((answer.status, &*answer.text), (404, answers::HTML_404), "{path}");
    }
}

#[tokio::test]
async fn a_message_that_breaks_the_rules_is_refused() {
    let sender = Sender::start(Settings::default()).await;
    let data = |bytes: usize| json!({"message": {"token": "ok-1", "data": {"k": "x".repeat(bytes)}}});
    let cases = [
        (json!({"message": {"token": "ok-1", "data": {"n": 12}}}), answers::DATA_NOT_TEXT),
        (json!({"message": {"data": {"n": "12"}}}), answers::NO_RECIPIENT),
        (json!({}), answers::NO_RECIPIENT),
        (json!({"message": {"token": ""}}), answers::BAD_TOKEN),
        (data(4_096), answers::TOO_BIG),
        (data(300_000), answers::TOO_BIG),
    ];
    for (body, sample) in cases {
        let answer = Answer::of(within(sender.post(&body)).await.unwrap()).await;
        let sample: Value = serde_json::from_str(sample).unwrap();
        assert_eq!((answer.status, answer.json()), (400, sample));
    }
    let cases = [
        (json!({"message": {"token": "ok-1", "colour": "red"}}), "Unknown name"),
        (json!({"message": {"token": "ok-1", "topic": "x"}}), "oneof"),
        (json!({"message": {"token": "ok-1", "data": {"gcm.x": "1"}}}), "Invalid data payload key: gcm.x"),
        (json!({"message": {"token": "ok-1", "android": {"ttl": "2419201s"}}}), "message.android.ttl"),
    ];
    for (body, what) in cases {
        let answer = Answer::of(within(sender.post(&body)).await.unwrap()).await;
        assert!(answer.status == 400 && answer.text.contains(what), "{body}: {answer:?}");
    }
    let request = sender.client.post(sender.uri()).bearer_auth(&sender.access_token).body("{");
    assert_eq!(request.send().await.unwrap().status(), 400);
    assert!(sender.fake.log().all().iter().all(|entry| entry.outcome == Outcome::Invalid && !entry.processed));
}

#[tokio::test]
async fn a_fid_and_camel_case_are_as_good() {
    let sender = Sender::start(Settings::default()).await;
    let body = json!({"message": {"fid": "ok-f", "data": {"ch": "7", "seq": "8"}, "android": {"collapseKey": "k"}}});
    is_good(&Answer::of(within(sender.post(&body)).await.unwrap()).await);
    let body = json!({"message": {"fid": "unreg-f"}});
    assert_eq!(within(sender.post(&body)).await.unwrap().status(), 404);
    let entries = sender.fake.log().all();
    assert_eq!((&*entries[0].token, entries[0].seq, &*entries[1].token), ("ok-f", Some(8), "unreg-f"));
}

#[tokio::test]
async fn a_message_that_is_only_validated_is_not_delivered() {
    let sender = Sender::start(Settings::default()).await;
    let mut body = push("ok-1", 1);
    body["validate_only"] = json!(true);
    let answer = Answer::of(within(sender.post(&body)).await.unwrap()).await;
    is_good(&answer);
    assert_eq!(answer.json(), json!({"name": "projects/touchline-test/messages/fake_message_id"}));
    body["message"]["android"]["ttl"] = json!("-1s");
    assert_eq!(within(sender.post(&body)).await.unwrap().status(), 400);
    assert!(sender.fake.log().all().iter().all(|entry| !entry.processed));
}

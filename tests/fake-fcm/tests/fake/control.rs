use crate::sender::{Sender, http1_client, is_good, now, push, within};
use serde_json::{Value, json};
use std::time::{Duration, Instant, UNIX_EPOCH};
use touchline_fake_fcm::{
    Behaviour, Change, Latency, Mode, Outcome, Page, Quota, Report, RetryAfter, Rules, Settings, newest_accepted,
};

#[tokio::test]
async fn one_mode_for_all_until_changed_or_for_some() {
    let sender = Sender::start(Settings::default()).await;
    sender.fake.mode(Behaviour::Html502);
    assert_eq!([sender.answer("ok-1").await.status, sender.answer("unreg-1").await.status], [502, 502]);
    sender.fake.mode(Behaviour::Ok);
    assert_eq!([sender.answer("ok-1").await.status, sender.answer("unreg-1").await.status], [200, 404]);
    let mode = Some(Mode { behaviour: Behaviour::Internal, times: Some(1) });
    sender.fake.change(Change { mode, ..Change::default() });
    assert_eq!([sender.answer("ok-1").await.status, sender.answer("ok-1").await.status], [500, 200]);
    // A mode that accepts leaves refusals to the token.
    sender.fake.mode(Behaviour::AcceptThenReset);
    assert_eq!(sender.answer("unreg-1").await.status, 404);
    assert!(within(sender.push("ok-1", 1)).await.is_err());
}

#[tokio::test]
async fn retry_after_comes_in_seconds_as_a_date_or_not_at_all() {
    let sender = Sender::start(Settings::default()).await;
    let asked = async |retry_after| {
        sender.fake.mode(Behaviour::Quota { retry_after });
        let answer = sender.answer("ok-1").await;
        assert_eq!(answer.status, 429);
        answer.retry_after
    };
    assert_eq!(asked(RetryAfter::Absent).await, None);
    assert_eq!(asked(RetryAfter::Seconds(7)).await.as_deref(), Some("7"));
    let date = asked(RetryAfter::Date(700)).await.unwrap();
    let date = httpdate::parse_http_date(&date).unwrap().duration_since(UNIX_EPOCH).unwrap();
    assert!((700..760).contains(&(date.as_secs() - now())), "{date:?}");
    sender.fake.mode(Behaviour::Unavailable { retry_after: RetryAfter::Seconds(30) });
    let answer = sender.answer("ok-1").await;
    assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("30")));
    let asked: Vec<_> = sender.fake.log().all().iter().map(|entry| entry.retry_after).collect();
    assert_eq!(asked, [None, Some(7), Some(700), Some(30)]);
}

#[tokio::test]
async fn the_project_has_a_quota_that_bad_messages_use_up_too() {
    let sender = Sender::start(Settings::default()).await;
    let quota = Some(Quota { per_minute: 3, retry_after: RetryAfter::Seconds(9) });
    sender.fake.change(Change { quota, ..Change::default() });
    let statuses = [
        sender.answer("ok-1").await.status,
        within(sender.post(&json!({}))).await.unwrap().status().as_u16(),
        sender.answer("unreg-1").await.status,
    ];
    assert_eq!(statuses, [200, 400, 404]);
    let answer = sender.answer("ok-1").await;
    assert_eq!((answer.status, answer.retry_after.as_deref()), (429, Some("9")));
    let none = Some(Quota { per_minute: 0, retry_after: RetryAfter::Absent });
    sender.fake.change(Change { quota: none, ..Change::default() });
    is_good(&sender.answer("ok-1").await);
}

#[tokio::test]
async fn a_script_answers_a_token_for_a_while() {
    let sender = Sender::start(Settings::default()).await;
    sender.fake.script("ok-1", Behaviour::Internal, 2);
    sender.fake.script("ok-1", Behaviour::Quota { retry_after: RetryAfter::Seconds(3) }, 1);
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(sender.answer("ok-1").await.status);
        is_good(&sender.answer("ok-2").await);
    }
    assert_eq!(told, [500, 500, 429, 200]);
}

#[tokio::test]
async fn answers_take_as_long_as_they_are_told_to() {
    let sender = Sender::start(Settings::default()).await;
    sender.fake.change(Change { latency: Some(Latency::fixed(60.0)), ..Change::default() });
    let begun = Instant::now();
    is_good(&sender.answer("ok-1").await);
    assert!(begun.elapsed() >= Duration::from_millis(60));
    let entry = &sender.fake.log().all()[0];
    assert!(entry.ended_us.unwrap() - entry.begun_us >= 60_000);
}

#[tokio::test]
async fn needles_are_found_in_bodies_however_they_are_written() {
    let settings = Settings { needles: vec!["geheim ü".to_owned()], ..Settings::default() };
    let sender = Sender::start(settings).await;
    let text = |text: &str| {
        let mut body = push("ok-1", 1);
        body["message"]["data"]["body"] = json!(text);
        body
    };
    for body in [text("nothing"), text("so geheim üben")] {
        within(sender.post(&body)).await.unwrap();
    }
    let escaped = text("so geheim üben").to_string().replace('ü', "\\u00fc");
    let request = sender.client.post(sender.uri()).bearer_auth(&sender.access_token).body(escaped);
    request.send().await.unwrap();
    let leaked: Vec<bool> = sender.fake.log().all().iter().map(|entry| entry.leaked).collect();
    assert_eq!(leaked, [false, true, true]);
    assert_eq!(sender.fake.check(&Rules::default()).leaks, 2);
}

#[tokio::test]
async fn who_is_away_cuts_and_comes_back() {
    let sender = Sender::start(Settings::default()).await;
    is_good(&sender.answer("ok-1").await);
    sender.fake.script("ok-1", Behaviour::Hang, 1);
    let under_way = sender.push("ok-1", 2);
    let away = async {
        sender.fake.log().wait_for(1, |entry| entry.outcome == Outcome::Pending).await;
        sender.fake.change(Change { away: Some(true), ..Change::default() });
    };
    let (answer, ()) = within(async { tokio::join!(under_way, away) }).await;
    assert!(answer.is_err());
    assert!(within(sender.push("ok-1", 3)).await.is_err());
    sender.fake.change(Change { away: Some(false), ..Change::default() });
    is_good(&sender.answer("ok-1").await);
    let entries = sender.fake.log().all();
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [Some(1), Some(2), Some(1)]);
    assert_eq!(entries[1].outcome, Outcome::Gone);
}

#[tokio::test]
async fn the_log_comes_in_pages_and_forgets_the_oldest() {
    let sender = Sender::start(Settings::default()).await;
    for seq in 0..5 {
        within(sender.push("ok-1", seq)).await.unwrap();
    }
    let log = sender.fake.log();
    let page = log.since(1, 2);
    assert_eq!((page.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), page.next), (vec![1, 2], 3));
    assert_eq!((log.since(5, 9).entries.len(), log.since(5, 9).next, log.next()), (0, 5, 5));
    assert_eq!(newest_accepted(&log.all())[&("ok-1".into(), "123".into())], 4);
    log.clear();
    within(sender.push("ok-1", 9)).await.unwrap();
    let page = log.since(0, 9);
    assert_eq!((page.forgotten, page.entries[0].number, page.next), (5, 5, 6));
}

#[tokio::test]
async fn everything_can_be_done_over_http() {
    let sender = Sender::start(Settings::default()).await;
    let (control, client) = (sender.fake.control(), http1_client());
    let change = json!({
        "mode": {"behaviour": {"quota": {"retry_after": {"date": 5}}}, "times": 1},
        "scripts": [{"token": "ok-1", "behaviour": "empty500", "times": 1}],
        "latency": [{"share": 0.5, "ms": 1}, {"share": 1, "ms": 2}],
        "max_streams": 50,
    });
    let settings = client.post(format!("{control}/control")).json(&change).send().await.unwrap();
    let settings: Settings = settings.json().await.unwrap();
    assert_eq!((settings.max_streams, settings.mode.times), (50, Some(1)));
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(sender.answer("ok-1").await.status);
    }
    assert_eq!(told, [429, 500, 200]);
    let settings: Settings = client.get(format!("{control}/control")).send().await.unwrap().json().await.unwrap();
    assert_eq!(settings.mode, Mode::default());

    let get = async |path: &str| client.get(format!("{control}{path}")).send().await.unwrap();
    let page: Page = get("/log?since=1&limit=1").await.json().await.unwrap();
    assert_eq!(page, sender.fake.log().since(1, 1));
    assert_eq!(get("/body?number=2").await.json::<Value>().await.unwrap(), push("ok-1", 1));
    assert_eq!(get("/body?number=99").await.status(), 404);
    assert_eq!(get("/token-calls").await.json::<Value>().await.unwrap()["total"], 1);
    let report = client.post(format!("{control}/check")).json(&json!({"apart_ms": 0})).send().await.unwrap();
    let report: Report = report.json().await.unwrap();
    assert_eq!((report.requests, report.early_retries), (3, 2));
    assert_eq!(report, sender.fake.check(&Rules { apart_ms: 0, ..Rules::default() }));

    let wrong = client.post(format!("{control}/control")).json(&json!({"mood": "bad"})).send().await.unwrap();
    assert_eq!(wrong.status(), 400);
    client.delete(format!("{control}/log")).send().await.unwrap();
    assert!(sender.fake.log().all().is_empty());
    assert_eq!(get("/v1/projects/touchline-test/messages:send").await.status(), 404);
}

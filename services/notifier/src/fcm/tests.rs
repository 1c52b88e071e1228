//! The provider against a small FCM on a real socket.

use super::*;
use crate::{circuit::Cause, test_account::TestAccount, test_push::push, test_server::TestServer};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::post,
};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use touchline_storage::Platform;

/// What the small FCM was asked, and how it answers.
#[derive(Default)]
struct Google {
    /// Access tokens given out; they are `t1`, `t2` …
    tokens: AtomicUsize,
    /// The endpoint for them is down.
    no_tokens: AtomicBool,
    /// Access tokens below this number are refused.
    revoked: AtomicUsize,
    /// The endpoint was asked for one.
    asked: Notify,
    /// No permission.
    forbidden: AtomicBool,
    /// Every message that came, with its access token.
    sent: Mutex<Vec<(String, Value)>>,
    came: Notify,
}

async fn token(State(google): State<Arc<Google>>) -> Response {
    google.asked.notify_one();
    if google.no_tokens.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let number = google.tokens.fetch_add(1, Ordering::SeqCst) + 1;
    Json(json!({"access_token": format!("t{number}"), "expires_in": 3_599, "token_type": "Bearer"})).into_response()
}

fn error(status: u16, name: &str, code: Option<&str>) -> Response {
    let details: Vec<_> = code
        .map(|code| json!({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}))
        .into_iter()
        .collect();
    let body = json!({"error": {"code": status, "message": "x", "status": name, "details": details}});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

async fn send(State(google): State<Arc<Google>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let access = headers["authorization"].to_str().unwrap().to_owned();
    let number: usize = access.strip_prefix("Bearer t").unwrap().parse().unwrap();
    let token = body["message"]["token"].as_str().unwrap().to_owned();
    google.sent.lock().unwrap().push((access, body));
    google.came.notify_one();
    if number <= google.revoked.load(Ordering::SeqCst) {
        return error(401, "UNAUTHENTICATED", None);
    }
    if google.forbidden.load(Ordering::SeqCst) {
        return error(403, "PERMISSION_DENIED", None);
    }
    match token.as_str() {
        "unreg" => error(404, "NOT_FOUND", Some("UNREGISTERED")),
        "mismatch" => error(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH")),
        "apnskey" => error(401, "UNAUTHENTICATED", Some("THIRD_PARTY_AUTH_ERROR")),
        "busy" => error(429, "RESOURCE_EXHAUSTED", Some("QUOTA_EXCEEDED")),
        "down" => error(503, "UNAVAILABLE", Some("UNAVAILABLE")),
        "hang" => std::future::pending().await,
        _ => Json(json!({"name": "projects/p/messages/1"})).into_response(),
    }
}

/// A provider and its FCM.
struct Fixture {
    google: Arc<Google>,
    fcm: Fcm,
    life: Shutdown,
    server: TestServer,
    _key: tempfile::NamedTempFile,
}

impl Fixture {
    async fn new() -> Self {
        Self::through(Google::default(), None).await
    }

    /// Messages go to another address if one is given.
    async fn through(google: Google, endpoint: Option<String>) -> Self {
        let google = Arc::new(google);
        let router = Router::new()
            .route("/token", post(token))
            .route("/v1/projects/p/messages:send", post(send))
            .with_state(Arc::clone(&google));
        let server = TestServer::start(router).await;
        let key = TestAccount::new().file(&server.url("/token"));
        let config = config::Fcm {
            service_account_file: Some(key.path().to_owned()),
            endpoint: endpoint.unwrap_or_else(|| server.url("")),
            connections: 2,
            streams: 10,
            ..config::Fcm::default()
        };
        let life = Shutdown::new();
        let fcm = Fcm::open(&config, &life).unwrap();
        Self { google, fcm, life, server, _key: key }
    }

    /// Sends a push to a device with this token, when the provider is ready.
    async fn send(&self, token: &str) -> Answer {
        self.fcm.tokens.ready().await;
        self.fcm.send(&push(Platform::Android, token)).await
    }

    fn sent(&self) -> usize {
        self.google.sent.lock().unwrap().len()
    }

    /// As if everything had to stop for want of permission.
    fn shut(&self) {
        self.fcm.circuit.admit().unwrap().end(Outcome::Shut(Cause::Permission), "403");
    }

    fn stopped_for(&self) -> Option<Cause> {
        self.fcm.circuit.admit().err()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

fn accepted() -> Answer {
    Answer::Accepted { id: "projects/p/messages/1".into() }
}

fn stopped(answer: &Answer) -> bool {
    matches!(answer, Answer::Stopped { .. })
}

async fn pass_a_minute() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn pushes_go_out_side_by_side_with_one_access_token() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.fcm.ready().await, 20);
    let answers = futures_util::future::join_all((0..100).map(|_| fixture.send("ok"))).await;
    assert!(answers.iter().all(|answer| *answer == accepted()));
    let sent = fixture.google.sent.lock().unwrap();
    assert_eq!((sent.len(), fixture.google.tokens.load(Ordering::SeqCst)), (100, 1));
    assert!(sent.iter().all(|(access, body)| access == "Bearer t1" && body["message"]["data"]["seq"] == "4711"));
}

#[tokio::test]
async fn answers_about_one_device_leave_the_others_alone() {
    let fixture = Fixture::new().await;
    assert!(matches!(fixture.send("unreg").await, Answer::TokenVoid { .. }));
    assert!(matches!(fixture.send("mismatch").await, Answer::WrongSender { .. }));
    assert_eq!(fixture.send("ok").await, accepted());
}

#[tokio::test]
async fn a_refused_access_token_is_replaced_once_and_the_push_goes_out() {
    let fixture = Fixture::new().await;
    fixture.fcm.tokens.ready().await;
    fixture.google.revoked.store(1, Ordering::SeqCst);
    let answers = futures_util::future::join_all((0..10).map(|_| fixture.send("ok"))).await;
    assert!(answers.iter().all(|answer| *answer == accepted()));
    assert_eq!(fixture.google.tokens.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_fresh_access_token_that_is_refused_stops_everything() {
    let fixture = Fixture::new().await;
    fixture.google.revoked.store(99, Ordering::SeqCst);
    assert!(stopped(&fixture.send("ok").await));
    assert_eq!((fixture.sent(), fixture.stopped_for()), (2, Some(Cause::Credentials)));
    assert!(stopped(&fixture.send("ok").await));
    assert_eq!(fixture.sent(), 2, "nothing is sent any more");
}

#[tokio::test]
async fn without_permission_nothing_is_sent_until_a_probe_goes_through_and_then_ever_more() {
    let fixture = Fixture::new().await;
    fixture.google.forbidden.store(true, Ordering::SeqCst);
    assert!(stopped(&fixture.send("ok").await));
    assert_eq!(fixture.stopped_for(), Some(Cause::Permission));
    assert!(fixture.fcm.ready().now_or_never().is_none());
    fixture.google.forbidden.store(false, Ordering::SeqCst);
    pass_a_minute().await;
    assert_eq!(fixture.fcm.ready().await, 1);
    assert_eq!(fixture.send("ok").await, accepted());
    assert_eq!(fixture.stopped_for(), None);
    assert!(fixture.fcm.pace().rate(Instant::now()) < 1_000.0, "it climbs");
}

#[tokio::test]
async fn of_a_platform_without_a_key_only_what_fcm_refused_is_lost_and_the_rest_waits() {
    let fixture = Fixture::new().await;
    fixture.fcm.tokens.ready().await;
    let ios = |token| push(Platform::Ios, token);
    for _ in 0..3 {
        let answer = fixture.fcm.send(&ios("apnskey")).await;
        assert!(matches!(answer, Answer::PlatformRefused { .. }), "{answer:?}");
    }
    for _ in 0..10 {
        let answer = fixture.fcm.send(&ios("ok")).await;
        assert!(matches!(answer, Answer::Later { after: Some(PLATFORM_WAIT), .. }), "{answer:?}");
    }
    assert_eq!(fixture.sent(), 3, "the others are not even sent");
    assert_eq!(fixture.send("ok").await, accepted());
    assert_eq!(fixture.fcm.ready().await, 20, "other platforms' pushes are taken");
    pass_a_minute().await;
    for _ in 0..2 {
        assert_eq!(fixture.fcm.send(&ios("ok")).await, accepted());
    }
}

#[tokio::test]
async fn one_browser_registered_under_another_key_stops_nobody() {
    let fixture = Fixture::new().await;
    fixture.fcm.tokens.ready().await;
    let foreign = push(Platform::Web, "apnskey");
    for _ in 0..10 {
        assert!(matches!(fixture.fcm.send(&foreign).await, Answer::PlatformRefused { .. }));
    }
    assert_eq!(fixture.fcm.send(&push(Platform::Web, "ok")).await, accepted());
}

#[tokio::test]
async fn what_waited_for_a_stream_does_not_go_out_after_the_circuit_opened() {
    let fixture = Fixture::new().await;
    fixture.fcm.tokens.ready().await;
    let streams = futures_util::future::join_all((0..20).map(|_| fixture.fcm.connections.slot())).await;
    let pushes = [push(Platform::Android, "ok"), push(Platform::Android, "ok")];
    let mut waiting = std::pin::pin!(futures_util::future::join_all(pushes.iter().map(|push| fixture.fcm.send(push))));
    tokio::select! {
        biased;
        answers = &mut waiting => panic!("no stream is free: {answers:?}"),
        () = std::future::ready(()) => {}
    }
    fixture.shut();
    drop(streams);
    assert!(waiting.await.iter().all(stopped));
    assert_eq!(fixture.sent(), 0);
}

#[tokio::test]
async fn what_is_not_sent_does_not_count_for_its_device() {
    let google = Google { no_tokens: AtomicBool::new(true), ..Google::default() };
    let fixture = Fixture::through(google, None).await;
    let push = push(Platform::Android, "ok");
    for _ in 0..300 {
        assert!(stopped(&fixture.fcm.send(&push).await));
    }
    fixture.google.no_tokens.store(false, Ordering::SeqCst);
    fixture.fcm.tokens.ready().await;
    fixture.shut();
    for _ in 0..300 {
        assert!(stopped(&fixture.fcm.send(&push).await));
    }
    for _ in 0..240 {
        fixture.fcm.devices.check(push.user, &push.device).unwrap();
    }
}

#[tokio::test]
async fn a_probe_that_lost_its_access_token_and_got_no_other_says_nothing() {
    let fixture = Fixture::new().await;
    fixture.fcm.tokens.ready().await;
    fixture.shut();
    pass_a_minute().await;
    fixture.google.asked.notified().await;
    fixture.google.no_tokens.store(true, Ordering::SeqCst);
    fixture.google.revoked.store(99, Ordering::SeqCst);
    let watch = async {
        fixture.google.asked.notified().await;
        // From here on time passes as soon as nothing else happens.
        tokio::time::pause();
    };
    let (answer, ()) = futures_util::future::join(fixture.send("ok"), watch).await;
    tokio::time::resume();
    assert!(stopped(&answer));
    assert_eq!(fixture.sent(), 1);
    assert_eq!(fixture.fcm.circuit.opening().now_or_never(), Some(true), "another probe is due");
}

#[tokio::test]
async fn too_many_waits_and_slows_down_once() {
    let fixture = Fixture::new().await;
    let answers = futures_util::future::join_all((0..5).map(|_| fixture.send("busy"))).await;
    for answer in answers {
        let Answer::Later { after, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(after, Some(Duration::from_secs(60)));
    }
    assert_eq!(fixture.fcm.pace().rate(Instant::now()), 4_000.0);
    assert_eq!(fixture.send("ok").await, accepted());
}

#[tokio::test]
async fn a_service_that_is_down_is_left_alone_after_ten_failures() {
    let fixture = Fixture::new().await;
    for _ in 0..9 {
        assert!(matches!(fixture.send("down").await, Answer::Later { after: None, .. }));
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    fixture.send("down").await;
    assert_eq!(fixture.stopped_for(), Some(Cause::Failures));
    assert!(stopped(&fixture.send("ok").await));
    assert_eq!(fixture.sent(), 10);
}

#[tokio::test]
async fn a_service_that_hangs_is_given_up_after_fifteen_seconds() {
    let fixture = Fixture::new().await;
    let pushed = fixture.send("hang");
    let watch = async {
        fixture.google.came.notified().await;
        let begin = Instant::now();
        // From here on time passes as soon as nothing else happens.
        tokio::time::pause();
        begin
    };
    let (answer, begin) = futures_util::future::join(pushed, watch).await;
    assert_eq!(answer, Answer::Later { after: None, why: "no answer in time".into() });
    assert!((14..=15).contains(&begin.elapsed().as_secs()));
}

#[tokio::test]
async fn without_an_access_token_nothing_is_sent_and_whoever_waits_is_told() {
    let google = Google { no_tokens: AtomicBool::new(true), ..Google::default() };
    let fixture = Fixture::through(google, None).await;
    assert!(stopped(&fixture.fcm.send(&push(Platform::Android, "ok")).await));
    assert!(fixture.fcm.ready().now_or_never().is_none());
    fixture.google.no_tokens.store(false, Ordering::SeqCst);
    assert_eq!(fixture.fcm.ready().await, 20);
    assert_eq!((fixture.send("ok").await, fixture.sent()), (accepted(), 1));
}

#[tokio::test]
async fn one_device_gets_no_more_than_it_may() {
    let fixture = Fixture::new().await;
    fixture.fcm.tokens.ready().await;
    let push = push(Platform::Android, "ok");
    for _ in 0..240 {
        fixture.fcm.devices.check(push.user, &push.device).unwrap();
    }
    assert!(matches!(fixture.fcm.send(&push).await, Answer::Later { after: Some(_), .. }));
    assert_eq!(fixture.sent(), 0);
}

/// Ends the first connection's first request with this frame; every other connection goes on to `port`.
async fn first_connection_ends_with(frame: &'static [u8], listener: TcpListener, port: u16) {
    let mut first = true;
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        if std::mem::take(&mut first) {
            // No settings of ours, then the frame when a request's headers have come; they are no test of ours.
            client.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            let mut preface = [0; 24];
            client.read_exact(&mut preface).await.unwrap();
            loop {
                let mut head = [0; 9];
                client.read_exact(&mut head).await.unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                client.read_exact(&mut vec![0; length as usize]).await.unwrap();
                if head[3] == 1 {
                    break;
                }
            }
            client.write_all(frame).await.unwrap();
            // It stays open: the frame alone has to do.
            std::mem::forget(client);
        } else {
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
        }
    }
}

async fn sent_again_after(frame: &'static [u8]) -> (Answer, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let fixture = Fixture::through(Google::default(), Some(endpoint)).await;
    fixture.life.spawn(first_connection_ends_with(frame, listener, fixture.server.port()));
    (fixture.send("ok").await, fixture.sent())
}

#[tokio::test]
async fn what_a_connection_that_goes_away_did_not_process_is_sent_again_at_once() {
    // GOAWAY, last stream 0, NO_ERROR.
    let frame = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(sent_again_after(frame).await, (accepted(), 1));
}

#[tokio::test]
async fn what_may_have_been_processed_is_left_to_the_next_try() {
    // GOAWAY, last stream 0, ENHANCE_YOUR_CALM; then RST_STREAM of stream 1, INTERNAL_ERROR.
    for frame in [&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11][..], &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2]] {
        let (answer, sent) = sent_again_after(frame).await;
        assert!(matches!(answer, Answer::Later { after: None, .. }), "{answer:?}");
        assert_eq!(sent, 0);
    }
}

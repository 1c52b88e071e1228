//! What only HTTP/2 knows, seen by a client that hides nothing.

use crate::sender::{Sender, is_good, push, within};
use bytes::Bytes;
use futures_util::future::join_all;
use h2::{
    Reason,
    client::{Connection, ResponseFuture, SendRequest},
};
use http::{Method, Request, header};
use tokio::net::TcpStream;
use touchline_fake_fcm::{Behaviour, Change, Outcome, Settings};
use touchline_mesh::Shutdown;

type Clear = Connection<TcpStream, Bytes>;

async fn connect(sender: &Sender) -> (SendRequest<Bytes>, Clear) {
    let socket = TcpStream::connect(sender.base.strip_prefix("http://").unwrap()).await.unwrap();
    h2::client::handshake(socket).await.unwrap()
}

/// Drives a connection; its task ends with how the connection ended.
fn drive(life: &Shutdown, connection: Clear) -> tokio::task::JoinHandle<Option<Result<(), h2::Error>>> {
    life.spawn_until_stop(connection)
}

async fn send(client: &mut SendRequest<Bytes>, sender: &Sender, token: &str) -> ResponseFuture {
    let request = Request::builder()
        .method(Method::POST)
        .uri(sender.uri())
        .header(header::AUTHORIZATION, format!("Bearer {}", sender.access_token))
        .body(())
        .unwrap();
    std::future::poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    body.send_data(push(token, 1).to_string().into(), true).unwrap();
    answer
}

/// One message on a connection of its own, so that the client has confirmed the settings.
async fn greet(client: &mut SendRequest<Bytes>, sender: &Sender) {
    let answer = send(client, sender, "ok-1").await;
    assert_eq!(within(answer).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_number_of_streams_is_announced() {
    let sender = Sender::start(Settings { max_streams: 7, ..Settings::default() }).await;
    let life = Shutdown::new();
    let (mut client, connection) = connect(&sender).await;
    drive(&life, connection);
    greet(&mut client, &sender).await;
    assert_eq!(client.current_max_send_streams(), 7);
    life.stop_now();
}

#[tokio::test]
async fn too_many_streams_are_answered_with_a_goaway_that_spares_the_older_ones() {
    let sender = Sender::start(Settings { goaway_above: 3, ..Settings::default() }).await;
    let life = Shutdown::new();
    let (mut client, connection) = connect(&sender).await;
    let end = drive(&life, connection);
    greet(&mut client, &sender).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(send(&mut client, &sender, "slow1500-1").await);
    }
    let answers = within(join_all(answers)).await;
    let told: Vec<_> = answers.iter().map(|answer| answer.as_ref().map(|answer| answer.status().as_u16())).collect();
    assert!(matches!(told[..], [Ok(200), Ok(200), Ok(200), Err(_)]), "{told:?}");
    let error = answers[3].as_ref().unwrap_err();
    assert!(error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM), "{error:?}");
    drop(client);
    let end = within(end).await.unwrap().unwrap().unwrap_err();
    assert!(end.is_go_away() && end.is_remote(), "{end:?}");
    assert_eq!(end.reason(), Some(Reason::PROTOCOL_ERROR));
    assert!(end.to_string().contains("exceeded_max_concurrent_streams"), "{end}");
    assert_eq!(sender.fake.log().all().len(), 4, "nobody looked at the one too many");
    life.stop_now();
}

#[tokio::test]
async fn after_so_many_messages_a_connection_is_closed_gracefully() {
    let sender = Sender::start(Settings { close_after: 3, ..Settings::default() }).await;
    let life = Shutdown::new();
    let (mut client, connection) = connect(&sender).await;
    let end = drive(&life, connection);
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(send(&mut client, &sender, "slow1500-1").await);
    }
    let answers = within(join_all(answers)).await;
    for answer in &answers[..3] {
        assert_eq!(answer.as_ref().unwrap().status(), 200);
    }
    for answer in &answers[3..] {
        let error = answer.as_ref().unwrap_err();
        assert!(error.is_go_away() && error.reason() == Some(Reason::NO_ERROR), "{error:?}");
    }
    drop(client);
    within(end).await.unwrap().unwrap().unwrap();
    assert_eq!(sender.fake.log().all().len(), 3);
    // Another connection goes on, and a client that knows GOAWAY notices nothing.
    for _ in 0..7 {
        is_good(&sender.answer("ok-1").await);
    }
    life.stop_now();
}

#[tokio::test]
async fn a_goaway_by_order_leaves_what_is_under_way() {
    let sender = Sender::start(Settings::default()).await;
    sender.fake.script("ok-1", Behaviour::Slow { ms: 1_500 }, 1);
    let order = async {
        sender.fake.log().wait_for(0, |entry| entry.processed).await;
        sender.fake.change(Change { goaway: true, ..Change::default() });
    };
    let (answer, ()) = within(async { tokio::join!(sender.answer("ok-1"), order) }).await;
    is_good(&answer);
    is_good(&sender.answer("ok-1").await);
    let connections: Vec<u32> = sender.fake.log().all().iter().map(|entry| entry.connection).collect();
    assert_ne!(connections[0], connections[1]);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let sender = Sender::start(Settings { idle_close_s: 1, ..Settings::default() }).await;
    let life = Shutdown::new();
    let (mut client, connection) = connect(&sender).await;
    let end = drive(&life, connection);
    greet(&mut client, &sender).await;
    within(end).await.unwrap().unwrap().unwrap();
    life.stop_now();
}

#[tokio::test]
async fn pings_on_an_idle_connection_are_punished() {
    let sender = Sender::start(Settings::default()).await;
    let life = Shutdown::new();
    let (mut client, mut connection) = connect(&sender).await;
    let mut pings = connection.ping_pong().unwrap();
    let end = drive(&life, connection);
    greet(&mut client, &sender).await;
    for _ in 0..3 {
        within(pings.ping(h2::Ping::opaque())).await.unwrap();
    }
    let _ = within(pings.ping(h2::Ping::opaque())).await;
    drop(client);
    let end = within(end).await.unwrap().unwrap().unwrap_err();
    assert_eq!(end.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert!(end.to_string().contains("too_many_pings"), "{end}");
    life.stop_now();
}

#[tokio::test]
async fn many_streams_on_one_connection_are_all_answered() {
    let sender = Sender::start(Settings::default()).await;
    let tokens: Vec<String> = (0..2_000).map(|number| format!("ok-{number}")).collect();
    let answers = within(join_all(tokens.iter().map(|token| sender.push(token, 1)))).await;
    assert!(answers.into_iter().all(|answer| answer.is_ok_and(|answer| answer.status() == 200)));
    let entries = sender.fake.log().all();
    assert_eq!(entries.len(), 2_000);
    assert!(entries.iter().all(|entry| entry.outcome == Outcome::Accepted && entry.processed));
}

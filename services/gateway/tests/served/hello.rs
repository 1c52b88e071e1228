//! Who gets in, who stays in, and who has to go.

use crate::{
    client::message,
    fixture::{Served, World},
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use touchline_gateway::Config;
use touchline_ids::{ChannelId, ConnectionNumber, IncarnationId, UserId};
use touchline_registry::{Registration, Registry as _};

fn unchanged(_: &mut Config) {}

#[tokio::test]
async fn a_silent_client_is_closed() {
    let served = Served::start(|config| config.times.hello_ms = 100).await;
    let (code, reason, _) = served.open().await.closed().await;
    assert_eq!(code, 4001);
    assert!(reason.starts_with("unauthenticated"), "{reason}");
}

#[tokio::test]
async fn the_first_frame_must_be_a_hello() {
    let served = Served::start(unchanged).await;
    for frame in [r#"{"type":"ping"}"#, "{", r#"{"type":"dance"}"#, r#"{"type":"hello"}"#] {
        let mut client = served.open().await;
        client.send(frame.into()).await;
        let (code, _, before) = client.closed().await;
        assert_eq!((code, &before[0]["type"]), (4001, &"error".into()), "{frame}");
    }
    let mut client = served.open().await;
    client.send(vec![1, 2, 3].into()).await;
    assert_eq!(client.close_code().await, 4001);
}

#[tokio::test]
async fn ready_names_the_session_and_its_times() {
    let served = Served::start(unchanged).await;
    let mut client = served.try_connect(UserId::new(), "phone", 1).await;
    let ready = client.ready().await;
    assert!(ready["session_id"].as_str().is_some_and(|id| id.len() == 36), "{ready}");
    assert_eq!(ready["heartbeat_s"], 25);
    assert!(ready["expires_in_s"].as_u64().is_some_and(|s| (890..=900).contains(&s)), "{ready}");
}

/// A ticket by our key, made by hand: one whose life is over is what `TicketSigner` never makes.
fn handmade_ticket(world: &World, user: UserId, lives_for_s: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let expires = now.saturating_add_signed(lives_for_s);
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
    header.typ = Some("ticket+jwt".into());
    header.kid = Some(world.kid.clone());
    let claims = serde_json::json!({
        "iss": "touchline-api", "aud": "touchline-gateway", "sub": user.to_string(), "dev": "phone",
        "jti": "AAAAAAAAAAAAAAAAAAAAAA", "iat": expires - 30, "nbf": expires - 30, "exp": expires, "sx": now + 900,
    });
    let key = jsonwebtoken::EncodingKey::from_ed_pem(world.pem.as_bytes()).expect("a key");
    jsonwebtoken::encode(&header, &claims, &key).expect("signs")
}

#[tokio::test]
async fn a_ticket_lives_for_its_time_and_not_longer() {
    let served = Served::start(unchanged).await;
    let user = UserId::new();
    for (lives_for_s, code) in [(-60, Some(4001)), (30, None)] {
        let mut client = served.open().await;
        client.hello(&handmade_ticket(&served.world, user, lives_for_s), "phone", 1).await;
        match code {
            Some(code) => assert_eq!(client.close_code().await, code),
            None => {
                client.ready().await;
            }
        }
    }
}

#[tokio::test]
async fn wrong_used_and_stolen_tickets_are_refused() {
    let served = Served::start(unchanged).await;
    let (world, user, hour) = (&served.world, UserId::new(), Duration::from_secs(3600));
    let used = world.ticket(user, "phone", hour);
    let mut first = served.open().await;
    first.hello(&used, "phone", 1).await;
    first.ready().await;
    for (what, ticket, device) in [
        ("nonsense", "a.b.c".to_owned(), "phone"),
        ("by another key", World::new().ticket(user, "phone", hour), "phone"),
        ("used", used, "phone"),
        ("of another device", world.ticket(user, "laptop", hour), "phone"),
        ("of a session that is over", world.ticket(user, "phone", Duration::ZERO), "phone"),
    ] {
        let mut client = served.open().await;
        client.hello(&ticket, device, 2).await;
        assert_eq!(client.close_code().await, 4001, "{what}");
    }
    first.is_alive().await;
}

#[tokio::test]
async fn a_ticket_that_cannot_be_marked_as_used_is_not_accepted() {
    let served = Served::start(unchanged).await;
    let ticket = served.world.ticket(UserId::new(), "phone", Duration::from_secs(900));
    served.world.registry.set_away(true);
    let mut client = served.open().await;
    client.hello(&ticket, "phone", 1).await;
    assert_eq!(client.close_code().await, 1013);
    served.world.registry.set_away(false);
    let mut client = served.open().await;
    client.hello(&ticket, "phone", 2).await;
    client.ready().await;
}

#[tokio::test]
async fn a_session_ends_when_it_expires_unless_it_is_renewed() {
    let served = Served::start(unchanged).await;
    let (ann, bob) = (UserId::new(), UserId::new());
    let short = Duration::from_secs(3);
    let (mut renewed, mut forgotten) = (served.open().await, served.open().await);
    renewed.hello(&served.world.ticket(ann, "phone", short), "phone", 1).await;
    forgotten.hello(&served.world.ticket(bob, "phone", short), "phone", 1).await;
    let before = renewed.ready().await;
    forgotten.ready().await;
    renewed.hello(&served.world.ticket(ann, "phone", Duration::from_secs(900)), "phone", 1).await;
    let after = renewed.ready().await;
    assert_eq!(before["session_id"], after["session_id"]);
    assert!(after["expires_in_s"].as_u64() > Some(800), "{after}");
    assert_eq!(forgotten.close_code().await, 4001);
    renewed.is_alive().await;
}

#[tokio::test]
async fn a_session_cannot_be_renewed_with_somebody_elses_ticket() {
    let served = Served::start(unchanged).await;
    let mut client = served.connect(UserId::new(), "phone", 1).await;
    let stolen = served.world.ticket(UserId::new(), "phone", Duration::from_secs(900));
    client.hello(&stolen, "phone", 1).await;
    let (code, _, before) = client.closed().await;
    assert_eq!((code, &before[0]["code"]), (4001, &"unauthenticated".into()));
}

#[tokio::test]
async fn a_renewal_that_cannot_be_checked_leaves_the_session_alone() {
    let served = Served::start(unchanged).await;
    let user = UserId::new();
    let mut client = served.connect(user, "phone", 1).await;
    served.world.registry.set_away(true);
    client.hello(&served.world.ticket(user, "phone", Duration::from_secs(900)), "phone", 1).await;
    assert_eq!(client.hear().await["code"], "overloaded");
    client.is_alive().await;
}

#[tokio::test]
async fn a_device_that_connects_again_replaces_its_older_session_for_good() {
    let served = Served::start(unchanged).await;
    let (user, channel) = (UserId::new(), ChannelId::new());
    let mut old = served.connect(user, "phone", 1).await;
    let mut new = served.connect(user, "phone", 2).await;
    assert_eq!(old.close_code().await, 4009);
    // Another user's whole life goes through the same queue of ended sessions, behind the old session.
    let other = UserId::new();
    drop(served.connect(other, "phone", 1).await);
    served.world.routes_become(other, &[]).await;
    assert_eq!(served.world.routes(user).await, [served.incarnation]);
    let mut api = served.api().await;
    api.push(message(channel, 1), &[user], 3_000).await;
    assert_eq!(new.hear().await["seq"], 1);
}

#[tokio::test]
async fn an_older_connection_is_refused_here_and_elsewhere() {
    let world = World::new();
    let (here, elsewhere) = (world.serve(unchanged).await, world.serve(unchanged).await);
    let user = UserId::new();
    let mut newer = here.connect(user, "phone", 7).await;
    assert_eq!(here.try_connect(user, "phone", 6).await.close_code().await, 4009);
    assert_eq!(elsewhere.try_connect(user, "phone", 6).await.close_code().await, 4009);
    newer.is_alive().await;
    assert_eq!(world.routes(user).await, [here.incarnation]);
}

#[tokio::test]
async fn the_route_of_a_dead_gateway_or_of_an_ended_session_is_taken_over() {
    let served = Served::start(unchanged).await;
    for incarnation in [IncarnationId::new(), served.incarnation] {
        let user = UserId::new();
        let registration = Registration {
            user,
            device: "phone".parse().expect("a device"),
            incarnation,
            connection: ConnectionNumber(100),
        };
        served.world.registry.register(&[registration]).await.expect("registers");
        served.connect(user, "phone", 1).await;
        assert_eq!(served.world.routes(user).await, [served.incarnation]);
    }
}

#[tokio::test]
async fn a_session_is_registered_before_ready_and_forgotten_after_its_end() {
    let served = Served::start(unchanged).await;
    let user = UserId::new();
    let client = served.connect(user, "phone", 1).await;
    assert_eq!(served.world.routes(user).await, [served.incarnation]);
    drop(client);
    served.world.routes_become(user, &[]).await;
}

//! From the upgrade to `ready`: waits for the hello, has it checked, and hands the socket to a session's task.

use crate::{
    addresses::Place,
    admission::{self, Admitted},
    close_codes::{Close, CloseCode},
    config::ms,
    frame::Hello,
    gateway::Gateway,
    session::{Greeting, Received, Session},
    socket::{Connection, Ending},
};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};
use touchline_ids::SessionId;

const SILENT: Close = Close::new(CloseCode::Unauthenticated, "no hello in time");
const CHECKS_TOO_LONG: Close = Close::new(CloseCode::Overloaded, "tickets and routes cannot be checked now");

/// Greets one socket; its session lives on in a task of its own.
pub(crate) async fn greet(mut socket: WebSocketStream<TcpStream>, gateway: Arc<Gateway>, mut place: Place) {
    let patience = ms(gateway.config.times.hello_ms);
    let hello = match timeout_at(Instant::now() + patience, hello(&mut socket)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(ending)) => return ending.carry_out(&mut socket, &gateway).await,
        Err(_) => return Ending::Close(None, SILENT).carry_out(&mut socket, &gateway).await,
    };
    let admitted = timeout(patience, admission::admit(&gateway, hello)).await.unwrap_or(Err(CHECKS_TOO_LONG));
    let Admitted { membership, expires } = match admitted {
        Ok(admitted) => admitted,
        Err(close) => return Ending::Close(None, close).carry_out(&mut socket, &gateway).await,
    };
    place.authenticated();
    let first_ping = gateway.rules.heartbeat.mul_f64(rand::random_range(0.1..=1.0));
    let id = membership.member.session;
    let session = Session::new(id, gateway.running.now(), expires, first_ping);
    let connection = Connection::new(socket, session, membership, place, Arc::clone(&gateway));
    gateway.spawn_session(contained(id, connection.run()));
}

/// A session whose panic ends itself and nothing else. Boxed: every async function between here and the runtime would
/// otherwise hold its own copy of it (measured: 16 KiB for a session of 2).
fn contained(id: SessionId, session: impl Future<Output = ()> + Send + 'static) -> BoxFuture<'static, ()> {
    let ended = AssertUnwindSafe(session).catch_unwind().map(move |ended| {
        if ended.is_err() {
            // The panic hook has told where.
            tracing::error!(session.id = %id, "a session panicked; the others go on");
        }
    });
    ended.boxed()
}

async fn hello(socket: &mut WebSocketStream<TcpStream>) -> Result<Hello, Ending> {
    while let Some(received) = socket.next().await {
        let received = received.map_err(|error| Ending::of_error(&error))?;
        let answer = match &received {
            Message::Text(text) => Greeting::receive(Received::Text(text)),
            Message::Binary(_) => Greeting::receive(Received::Binary),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Greeting::receive(Received::Control),
            Message::Close(_) => return Err(Ending::PeerClosed),
        };
        match answer {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) => {}
            Err((error, close)) => return Err(Ending::Close(Some(error), close)),
        }
    }
    Err(Ending::Gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_only_its_own_session() {
        contained(SessionId::new(), async { panic!("in one session") }).await;
    }
}

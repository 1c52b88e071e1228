//! The public listener: sockets in, HTTP/1.1 until the upgrade, then a WebSocket of its own.

use crate::{
    addresses::{Crowded, Place},
    config::ms,
    gateway::Gateway,
    greeting,
    upgrade::{self, Answer, Asked, Problem},
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

/// hyper's read buffer bounds the request head.
const HEAD_LIMIT: usize = 16 * 1024;
/// What may wait unsent in the kernel. More would wait where nobody counts it, and a slow reader would look quick.
const UNSENT: u32 = 16 * 1024;
/// How long somebody who is turned away may take to say what he wants.
const HEARD: Duration = Duration::from_millis(500);
/// The answer to a probe that finds all well.
const WELL: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nok\n";
/// When to come back who found too many sockets of the same address, or too many that say nothing.
const CROWDED: Duration = Duration::from_secs(4);

/// Accepts until `stop`.
pub(crate) async fn serve(listener: TcpListener, gateway: Arc<Gateway>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = touchline_mesh::http::accept(&listener) => accepted,
            () = &mut stop => return,
        };
        if let Err(wait) = gateway.accepts.enter(Instant::now()) {
            turn_away(&gateway, stream, &Problem::busy(), wait);
            continue;
        }
        match gateway.addresses.enter(peer.ip()) {
            Ok(place) => {
                gateway.spawn(http(stream, Arc::clone(&gateway), place));
            }
            Err(Crowded::Address) => turn_away(&gateway, stream, &Problem::crowded(), CROWDED),
            Err(Crowded::Gateway) => {
                let problem = Problem::unavailable("too many sockets that have not said who they are");
                turn_away(&gateway, stream, &problem, CROWDED);
            }
        }
    }
}

/// Refuses whatever is asked, but for the probes: a gateway that has too much to do is not dead. Where many are turned
/// away at once, most are answered unheard: that is all a flood gets.
fn turn_away(gateway: &Arc<Gateway>, mut stream: TcpStream, problem: &Problem, wait: Duration) {
    let (body, seconds) = (problem.body(), wait.as_secs() + 1);
    let refusal = format!(
        "HTTP/1.1 {}\r\nContent-Type: application/problem+json\r\nRetry-After: {seconds}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        problem.status,
        body.len(),
    );
    tracing::debug!(code = problem.code, "a socket was turned away");
    let Ok(heard) = Arc::clone(&gateway.heard).try_acquire_owned() else {
        // It fits into an empty send buffer, or the peer is gone.
        let _ = stream.try_write(refusal.as_bytes());
        return;
    };
    let gateway = Arc::clone(gateway);
    gateway.clone().spawn(async move {
        let mut request = [0; 256];
        let read = timeout(HEARD, stream.read(&mut request)).await.unwrap_or(Ok(0)).unwrap_or(0);
        let well = match &request[..read] {
            line if line.starts_with(b"GET /livez ") => true,
            line if line.starts_with(b"GET /readyz ") => gateway.refusal(Instant::now()).is_none(),
            _ => false,
        };
        let answer = if well { WELL } else { &refusal };
        if stream.write_all(answer.as_bytes()).await.is_ok() {
            let _ = stream.shutdown().await;
        }
        drop(heard);
    });
}

/// One socket until its upgrade, or its end.
async fn http(stream: TcpStream, gateway: Arc<Gateway>, place: Place) {
    tune(&stream, &gateway);
    let mut http = http1::Builder::new();
    // Without a timer hyper only logs that the header timeout is not active.
    http.timer(TokioTimer::new()).header_read_timeout(ms(gateway.config.times.head_ms)).max_buf_size(HEAD_LIMIT);
    let place = Mutex::new(Some(place));
    let service = service_fn(move |request| {
        let answer = answer(request, &gateway, &place);
        async { Ok::<_, Infallible>(answer) }
    });
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "a connection ended before its upgrade");
    }
}

fn tune(stream: &TcpStream, gateway: &Gateway) {
    let socket = SockRef::from(stream);
    let options = [
        ("TCP_NODELAY", stream.set_nodelay(true)),
        ("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(Some(ms(gateway.config.times.tcp_user_ms)))),
        ("TCP_NOTSENT_LOWAT", socket.set_tcp_notsent_lowat(UNSENT)),
    ];
    for (option, result) in options {
        if let Err(error) = result {
            tracing::debug!(option, %error, "a socket option was not set");
        }
    }
}

fn answer(request: Request<Incoming>, gateway: &Arc<Gateway>, place: &Mutex<Option<Place>>) -> Answer {
    let answered = match upgrade::asked(&request) {
        Ok(Asked::Liveness) => Ok(Response::new(Full::from("ok\n"))),
        Ok(Asked::Readiness) => match gateway.refusal(Instant::now()) {
            None => Ok(Response::new(Full::from("ok\n"))),
            Some(why) => Err(Problem::unavailable(why)),
        },
        Ok(Asked::Socket) => open(request, gateway, place),
        Err(problem) => Err(problem),
    };
    answered.unwrap_or_else(|problem| {
        if problem.status == StatusCode::FORBIDDEN {
            tracing::info!(code = problem.code, "an upgrade was refused");
        } else {
            tracing::debug!(code = problem.code, "a request was refused");
        }
        problem.answer()
    })
}

fn open(
    mut request: Request<Incoming>,
    gateway: &Arc<Gateway>,
    place: &Mutex<Option<Place>>,
) -> Result<Response<Full<Bytes>>, Problem> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, _) = request.into_parts();
    let accept = upgrade::check(&head, &gateway.config.allowed_origins)?;
    if let Some(problem) = upgrade::refusal(gateway) {
        return Err(problem);
    }
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    let mut mine = place.take().ok_or_else(|| Problem::unavailable("this connection has become a socket already"))?;
    if mine.hear_proxy(&head.headers).is_err() {
        *place = Some(mine);
        return Err(Problem::crowded());
    }
    drop(place);
    // A task of its own: the HTTP connection's memory goes when that task ends.
    gateway.spawn(upgraded(upgrade, Arc::clone(gateway), mine));
    Ok(upgrade::switching(&accept))
}

async fn upgraded(upgrade: OnUpgrade, gateway: Arc<Gateway>, place: Place) {
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        tracing::error!("an upgraded connection is no TCP stream");
        return;
    };
    let stream = parts.io.into_inner();
    let rest = parts.read_buf.to_vec();
    // Even an empty slice of it would hold hyper's read buffer for as long as the session lives.
    drop(parts.read_buf);
    let socket =
        WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(gateway.config.websocket())).await;
    greeting::greet(socket, gateway, place).await;
}

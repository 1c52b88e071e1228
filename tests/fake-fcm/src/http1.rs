//! HTTP/1.1. Where HTTP/2 resets a stream, this one ends the connection.

use crate::{
    answers,
    request::{Answer, Reply, Request, Way},
    send,
    world::{Face, World},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::io::{AsyncRead, AsyncWrite};

const BODY: usize = 256 * 1_024;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Serves one connection until its end, or until it is cut by an order.
pub(crate) async fn serve<S>(world: Arc<World>, face: Face, socket: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut orders = world.control.orders();
    let cuts = orders.borrow_and_update().cuts;
    let connection = world.next_connection();
    let (requests, sends) = (AtomicU32::new(0), AtomicU32::new(0));
    let service = service_fn(|request: http::Request<Incoming>| {
        let way = Way { connection, stream: requests.fetch_add(1, Ordering::Relaxed) + 1 };
        let is_send = send::project(request.uri().path()).is_some();
        let sent = sends.fetch_add(u32::from(is_send), Ordering::Relaxed) + u32::from(is_send);
        let close_after = world.control.settings().close_after;
        let is_last = close_after > 0 && u64::from(sent) >= close_after;
        answer(Arc::clone(&world), face, way, is_last, request)
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        _ = serving => {}
        Ok(_) = orders.wait_for(|orders| orders.cuts != cuts), if face == Face::Google => {}
    }
}

async fn answer(
    world: Arc<World>,
    face: Face,
    way: Way,
    is_last: bool,
    request: http::Request<Incoming>,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let reply = match Limited::new(body, BODY).collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            let request = Request { method: head.method, uri: head.uri, headers: head.headers, body, way };
            world.answer(face, &request).await
        }
        Err(_) => answers::sample(400, answers::TOO_BIG),
    };
    let mut response = match reply {
        Reply::Whole(answer) => {
            let Answer { status, headers, body } = *answer;
            let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            response
        }
        Reply::HeadThenReset => Response::new(broken_off()),
        Reply::Reset | Reply::Refuse => return Err(io::ErrorKind::ConnectionReset.into()),
        Reply::Never => std::future::pending().await,
    };
    if is_last {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// A body that fails after its beginning, which is written out before.
fn broken_off() -> Body {
    let begin = stream::iter([Ok(Frame::data(Bytes::from_static(b"{")))]);
    let end = stream::once(async {
        // hyper writes when it has to wait.
        tokio::task::yield_now().await;
        Err(io::ErrorKind::ConnectionReset.into())
    });
    StreamBody::new(begin.chain(end)).boxed_unsync()
}

//! Accepting connections, and the one HTTP server over them: what `axum::serve` does, with the header timeout and limits it does not set.

use crate::Shutdown;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tower::ServiceExt as _;

/// How long a client may take over its request head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// hyper's read buffer bounds the request head: request line and headers together.
const HEAD_LIMIT: usize = 24 * 1024;

/// The next connection, however long it takes. Nothing is lost when it is no longer waited for.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Out of files, most likely: wait for some to be closed instead of spinning.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves `router` until the soft stop; requests under way get `patience` to finish. Each request carries its peer's
/// [`SocketAddr`] as an extension.
pub async fn serve(listener: TcpListener, router: axum::Router, shutdown: &Shutdown, patience: Duration) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        // Without a timer hyper only logs that the header timeout is not active.
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_LIMIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .max_concurrent_streams(256)
        .max_header_list_size(16 * 1024);
    let graceful = GracefulShutdown::new();
    let mut stopping = std::pin::pin!(shutdown.stopping());
    loop {
        let (socket, peer) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut stopping => break,
        };
        let _ = socket.set_nodelay(true);
        let asked = Arc::new(AtomicBool::new(false));
        let service = router.clone().map_request({
            let asked = Arc::clone(&asked);
            move |mut request: http::Request<hyper::body::Incoming>| {
                asked.store(true, Ordering::Relaxed);
                request.extensions_mut().insert::<SocketAddr>(peer);
                request
            }
        });
        let connection = builder.serve_connection(TokioIo::new(socket), TowerToHyperService::new(service)).into_owned();
        let connection = graceful.watch(connection);
        shutdown.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            // hyper's own timeout begins only when it knows which version of HTTP it speaks.
            let ended = match timeout(HEADER_TIMEOUT, &mut connection).await {
                Ok(ended) => ended,
                Err(_) if asked.load(Ordering::Relaxed) => connection.await,
                Err(_) => return tracing::debug!("a connection asked nothing in time"),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    let _ = timeout(patience, graceful.shutdown()).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        time::sleep,
    };

    async fn started(life: &Shutdown) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = || async {
            sleep(2 * HEADER_TIMEOUT).await;
            "done"
        };
        let router = axum::Router::new().route("/", axum::routing::get(slow));
        let inside = life.clone();
        life.spawn(async move { serve(listener, router, &inside, Duration::ZERO).await });
        address
    }

    #[tokio::test]
    async fn a_connection_that_asks_nothing_is_closed_whatever_it_began_to_say() {
        let life = Shutdown::new();
        let address = started(&life).await;
        let mut sockets = Vec::new();
        for said in ["", "P", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HT"] {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(said.as_bytes()).await.unwrap();
            sockets.push((said, socket));
        }
        for (said, mut socket) in sockets {
            let mut rest = Vec::new();
            let closed = timeout(4 * HEADER_TIMEOUT, socket.read_to_end(&mut rest)).await;
            assert!(closed.is_ok(), "{said:?} keeps its connection");
        }
        life.stop_now();
    }

    #[tokio::test]
    async fn a_request_may_take_longer_than_its_head_may() {
        let life = Shutdown::new();
        let mut socket = TcpStream::connect(started(&life).await).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        life.stop_now();
    }
}

//! The one HTTP accept loop: what `axum::serve` does, with the header timeout and limits it does not set.

use crate::Shutdown;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

/// How long a client may take over its request head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// hyper's read buffer bounds the request head: request line and headers together.
const HEAD_LIMIT: usize = 24 * 1024;

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
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of files, most likely: wait for some to be closed instead of spinning.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut stopping => break,
        };
        let _ = socket.set_nodelay(true);
        let service = router.clone().map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert::<SocketAddr>(peer);
            request
        });
        let connection = builder.serve_connection(TokioIo::new(socket), TowerToHyperService::new(service)).into_owned();
        let connection = graceful.watch(connection);
        shutdown.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(patience, graceful.shutdown()).await;
}

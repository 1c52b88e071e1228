//! A small server on a real socket, for tests.

use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpListener;
use touchline_mesh::Shutdown;

/// Ends when dropped.
pub(crate) struct TestServer {
    address: SocketAddr,
    life: Shutdown,
}

impl TestServer {
    /// Serves `router` on a free port: HTTP/1, and HTTP/2 with prior knowledge.
    pub(crate) async fn start(router: axum::Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, life) = (listener.local_addr().unwrap(), Shutdown::new());
        let inner = life.clone();
        life.spawn(async move { touchline_mesh::http::serve(listener, router, &inner, Duration::ZERO).await });
        Self { address, life }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

//! The one gRPC server stack.

use crate::Shutdown;
use std::{io, net::SocketAddr, time::Duration};
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

/// Largest request message a server takes, and largest answer it sends.
pub const MESSAGE_LIMIT: usize = 1024 * 1024;

/// A bound gRPC listener, not yet serving.
pub struct GrpcListener {
    incoming: TcpIncoming,
    address: SocketAddr,
}

impl GrpcListener {
    /// Binds; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        // serve_with_incoming takes the TCP options from here, not from the builder.
        let incoming = TcpIncoming::bind(address)?.with_nodelay(Some(true));
        let address = incoming.local_addr()?;
        Ok(Self { incoming, address })
    }

    /// Where it landed.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the soft stop and the end of every stream, or the hard stop. Long streams must watch the
    /// shutdown themselves.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn serve(self, routes: Routes, shutdown: &Shutdown) -> Result<(), tonic::transport::Error> {
        Server::builder()
            // An api that died without a FIN is noticed in 15 s.
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .http2_keepalive_timeout(Some(Duration::from_secs(5)))
            .initial_stream_window_size(2 * 1024 * 1024)
            .initial_connection_window_size(8 * 1024 * 1024)
            // One push stream per api and a few health checks; tonic's default is no limit.
            .max_concurrent_streams(200)
            .http2_max_header_list_size(16 * 1024)
            .add_routes(routes)
            .serve_with_incoming_shutdown(self.incoming, shutdown.stopping())
            .await
    }
}

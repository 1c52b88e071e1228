//! Why a gateway does not start, or ends by itself.

use std::{io, net::SocketAddr};

/// Why a gateway does not start, or ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The settings cannot work.
    #[error("gateway settings: {0}")]
    Settings(String),
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// No api has reached this gateway for a while, although they reach others; it has let its sessions go.
    #[error("no api reaches gateway {0}, but they reach others: is its grpc_url right, and the way to it open?")]
    Unreached(touchline_ids::GatewayId),
    /// A later incarnation of the same gateway holds the lease; this one has let its sessions go.
    #[error("a later incarnation of gateway {0} holds the lease: do two processes share one gateway.id?")]
    Fenced(touchline_ids::GatewayId),
}

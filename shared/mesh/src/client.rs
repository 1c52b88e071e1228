//! The one gRPC client stack.

use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// The address is not a URI.
#[derive(Debug, thiserror::Error)]
#[error("not a gRPC address: {address}")]
pub struct BadAddress {
    address: String,
    #[source]
    source: tonic::transport::Error,
}

/// A channel to one peer that carries a long-lived push stream. It connects at the first call and reports failure
/// there; the caller owns the back-off, because tonic has none.
///
/// # Errors
/// [`BadAddress`] when `address` is not a URI such as `http://10.0.0.7:9090`.
pub fn stream_channel(address: &str) -> Result<Channel, BadAddress> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|source| BadAddress { address: address.to_owned(), source })?
        // A peer that does not answer the handshake is down; the caller tries again.
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        // A push stream is how we notice a dead gateway: 10 s + 5 s, also while nothing is sent.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        // Back-pressure is the push queue's work; the window only has to be wide enough not to stall a burst.
        .initial_stream_window_size(2 * 1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024);
    Ok(endpoint.connect_lazy())
}

/// A channel to one peer for calls now and then. It connects at the first call and reports failure there.
///
/// # Errors
/// [`BadAddress`] when `address` is not a URI such as `http://10.0.0.7:9091`.
pub fn call_channel(address: &str) -> Result<Channel, BadAddress> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|source| BadAddress { address: address.to_owned(), source })?
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        // Calls have deadlines of their own; this finds a dead connection before the next one needs it.
        .http2_keep_alive_interval(Duration::from_secs(45))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}

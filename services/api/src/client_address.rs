//! The address of the client, as handlers take it and as limits count it.

use crate::{Api, error::Error};
use axum::extract::FromRequestParts;
use http::{Extensions, HeaderMap, request::Parts};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};
use touchline_mesh::client_address::{client_address, counted_address};

/// The address of the client itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

impl ClientAddress {
    /// The client of a request with these extensions (the accept loop puts the peer there) and headers.
    pub(crate) fn of(api: &Api, extensions: &Extensions, headers: &HeaderMap) -> Self {
        let peer = extensions.get().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SocketAddr::ip);
        Self(client_address(peer, headers, &api.config.trusted_proxies))
    }

    /// What is counted of it.
    pub(crate) fn key(self) -> IpAddr {
        counted_address(self.0)
    }
}

impl FromRequestParts<Arc<Api>> for ClientAddress {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Error> {
        Ok(Self::of(api, &parts.extensions, &parts.headers))
    }
}

//! Where a request comes from: the peer, or whom the proxies in front of us name.

use crate::{Api, error::Error};
use axum::extract::FromRequestParts;
use http::{Extensions, HeaderMap, request::Parts};
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of the client itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

impl ClientAddress {
    /// The client of a request with these extensions (the accept loop puts the peer there) and headers.
    pub(crate) fn of(api: &Api, extensions: &Extensions, headers: &HeaderMap) -> Self {
        Self::behind(&api.config.trusted_proxies, extensions.get(), headers)
    }

    /// The peer; when that is a trusted proxy, the nearest address in X-Forwarded-For that is not one. What stands
    /// further left was written by that client, who may write anything.
    fn behind(trusted: &[IpNet], peer: Option<&SocketAddr>, headers: &HeaderMap) -> Self {
        let mut address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
        let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or("?")).collect();
        let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
        while trusted.iter().any(|network| network.contains(&address)) {
            match hops.next().and_then(read_address) {
                Some(before) => address = before,
                None => break,
            }
        }
        Self(address)
    }

    /// What is counted: an IPv4 address, or the /64 that an IPv6 customer gets as a whole.
    pub(crate) fn key(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        }
    }
}

impl FromRequestParts<Arc<Api>> for ClientAddress {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Error> {
        Ok(Self::of(api, &parts.extensions, &parts.headers))
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.
fn read_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let key = |text: &str| ClientAddress(text.parse().unwrap()).key();
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), key("2001:db8:1:2::1"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn forwarded_for_is_believed_from_trusted_proxies_only() {
        let trusted: [IpNet; 2] = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let table: &[(&str, &[&str], &str)] = &[
            // A stranger says what they like and is not heard.
            ("192.0.2.9:1", &["198.51.100.1"], "192.0.2.9"),
            ("192.0.2.9:1", &[], "192.0.2.9"),
            // Through one proxy, through two, through two lines.
            ("10.0.0.1:1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1:1", &["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1:1", &["198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            ("[fd00::1]:1", &["2001:db8::5"], "2001:db8::5"),
            ("[::ffff:10.0.0.1]:1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            // What the client wrote itself stands to the left and does not count.
            ("10.0.0.1:1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1:1", &["10.0.0.7, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1:1", &["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
            // Some proxies add the port.
            ("10.0.0.1:1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1:1", &["[2001:db8::5]:4711"], "2001:db8::5"),
            ("10.0.0.1:1", &["[2001:db8::5]"], "2001:db8::5"),
            // Nothing to believe: then it is the last proxy that we know.
            ("10.0.0.1:1", &[], "10.0.0.1"),
            ("10.0.0.1:1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1:1", &["198.51.100.1, _hidden, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1:1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ];
        for (peer, lines, expected) in table {
            let mut headers = HeaderMap::new();
            for line in *lines {
                headers.append(FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
            }
            let address = ClientAddress::behind(&trusted, Some(&peer.parse().unwrap()), &headers);
            assert_eq!(address.0.to_string(), *expected, "{peer} {lines:?}");
        }
    }
}

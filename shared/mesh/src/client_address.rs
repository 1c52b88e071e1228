//! Where a request comes from: the peer, or whom the proxies in front of us name.

use http::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The peer; when that is a trusted proxy, the nearest address in `X-Forwarded-For` that is not one. What stands
/// further left was written by that client, who may write anything. When the proxies name nobody, it is the last of
/// them that we know. A mapped IPv4 address is given as itself.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut address = peer.to_canonical();
    let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or("?")).collect();
    let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    while is_trusted(address, trusted) {
        match hops.next().and_then(read_address) {
            Some(before) => address = before,
            None => break,
        }
    }
    address
}

/// Whether this is a proxy whose word on the client is believed.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// What is counted: an IPv4 address, or the /64 that an IPv6 customer gets as a whole.
pub fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
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

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_customer_is_one_address_and_a_mapped_ipv4_is_itself() {
        let counted = |text| counted_address(ip(text));
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), counted("2001:db8:1:2::1"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
        assert_ne!(counted("192.0.2.1"), counted("192.0.2.2"));
        assert_eq!(counted("::ffff:192.0.2.1"), ip("192.0.2.1"));
    }

    #[test]
    fn forwarded_for_is_believed_from_trusted_proxies_only() {
        let trusted: [IpNet; 2] = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let table: &[(&str, &[&[u8]], &str)] = &[
            // A stranger says what they like and is not heard.
            ("192.0.2.9", &[b"198.51.100.1"], "192.0.2.9"),
            ("192.0.2.9", &[], "192.0.2.9"),
            ("::ffff:192.0.2.9", &[], "192.0.2.9"),
            // Through one proxy, through two, through two lines.
            ("10.0.0.1", &[b"198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &[b"198.51.100.1", b"10.0.0.2"], "198.51.100.1"),
            ("fd00::1", &[b"2001:db8::5"], "2001:db8::5"),
            ("::ffff:10.0.0.1", &[b"::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"198.51.100.1, ::ffff:10.0.0.2"], "198.51.100.1"),
            // What the client wrote itself stands to the left and does not count.
            ("10.0.0.1", &[b"1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"10.0.0.7, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"1.1.1.1", b"198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"1.1.1.1, 198.51.100.1", b"10.0.0.2"], "198.51.100.1"),
            // Some proxies add the port.
            ("10.0.0.1", &[b"198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &[b"[2001:db8::5]:4711"], "2001:db8::5"),
            ("10.0.0.1", &[b"[2001:db8::5]"], "2001:db8::5"),
            // Nothing to believe: then it is the last proxy that we know.
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[b"unknown"], "10.0.0.1"),
            ("10.0.0.1", &[b"198.51.100.1, \xff"], "10.0.0.1"),
            ("10.0.0.1", &[b"198.51.100.1, _hidden, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &[b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ];
        for (peer, lines, expected) in table {
            let mut headers = HeaderMap::new();
            for line in *lines {
                headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
            }
            let address = client_address(ip(peer), &headers, &trusted);
            assert_eq!(address.to_string(), *expected, "{peer} {headers:?}");
        }
    }

    #[test]
    fn a_trusted_proxy_is_one_in_either_notation() {
        let trusted: [IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
        assert!(is_trusted(ip("10.1.2.3"), &trusted) && is_trusted(ip("::ffff:10.1.2.3"), &trusted));
        assert!(!is_trusted(ip("11.1.2.3"), &trusted) && !is_trusted(ip("::1"), &trusted));
    }
}

//! Which addresses are public, and a resolver that knows no others.
//!
//! A name is checked where it becomes an address that is connected to, so that a name that leads elsewhere the second
//! time (rebinding) is no way around it.

use ipnet::{Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// IPv4 that leads into somebody's network, or nowhere (IANA's registry of special-purpose addresses), and the address
/// at which one cloud answers every machine of its own.
const NOT_PUBLIC_V4: [Ipv4Net; 17] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([168, 63, 129, 16], 32),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 31, 196, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];
/// The only IPv6 that is given out to the public…
const PUBLIC_V6: Ipv6Net = v6([0x2000, 0], 3);
/// …less what has an IPv4 address inside of it (Teredo, 6to4), and what is for documents and protocols.
const NOT_PUBLIC_V6: [Ipv6Net; 4] =
    [v6([0x2001, 0], 23), v6([0x2001, 0xdb8], 32), v6([0x2002, 0], 16), v6([0x3fff, 0], 20)];

const fn v4([a, b, c, d]: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6([a, b]: [u16; 2], bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), bits)
}

/// Whether an address is somewhere in the public Internet. IPv4 inside of IPv6 (mapped, NAT64) is not, wherever it
/// leads.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !NOT_PUBLIC_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => PUBLIC_V6.contains(&address) && !NOT_PUBLIC_V6.iter().any(|net| net.contains(&address)),
    }
}

/// Resolves names to their public addresses.
pub(super) struct PublicOnly(Arc<dyn Resolve>);

impl PublicOnly {
    /// Asks the system.
    pub(super) fn of_the_system() -> Self {
        Self(Arc::new(System))
    }
}

/// A name that leads to no public address.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to no public address: set notifier.webhook.allow_private if that is meant")]
struct NotPublic;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let all = self.0.resolve(name);
        Box::pin(async move {
            let public: Vec<_> = all.await?.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;
    use std::{net::SocketAddr, sync::Mutex};

    #[test]
    fn addresses_inside_of_networks_are_told_from_public_ones() {
        for inside in [
            "0.0.0.0",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "100::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "4000::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for public in
            ["8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "169.253.1.1", "2606:4700::1", "2a00:1450::5"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    /// Says something else each time.
    struct Rebinding(Mutex<Vec<Vec<SocketAddr>>>);

    impl Resolve for Rebinding {
        fn resolve(&self, _: Name) -> Resolving {
            let addresses = self.0.lock().unwrap().remove(0);
            Box::pin(std::future::ready(Ok(Box::new(addresses.into_iter()) as Addrs)))
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_the_second_time_leads_nowhere() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let answers = vec![
            vec![parse("8.8.8.8:0"), parse("127.0.0.1:0"), parse("[::1]:0")],
            vec![parse("127.0.0.1:0")],
            vec![parse("[::ffff:169.254.169.254]:0")],
        ];
        let resolver = PublicOnly(Arc::new(Rebinding(Mutex::new(answers))));
        let resolve = || async { resolver.resolve("example.com".parse().unwrap()).await };
        assert_eq!(resolve().await.unwrap().collect::<Vec<_>>(), [parse("8.8.8.8:0")]);
        assert!(resolve().await.is_err_and(|error| error.is::<NotPublic>()));
        assert!(resolve().await.is_err());
    }

    #[test]
    fn the_networks_are_written_as_they_are() {
        let v4 = NOT_PUBLIC_V4.into_iter().map(IpNet::from);
        let v6 = NOT_PUBLIC_V6.into_iter().chain([PUBLIC_V6]).map(IpNet::from);
        assert!(v4.chain(v6).all(|net| net == net.trunc()));
    }
}

//! How many sockets each address holds, and how many of them have not said who they are.

use crate::config::Limits;
use http::HeaderMap;
use ipnet::IpNet;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use touchline_mesh::client_address::{client_address, counted_address, is_trusted};

/// The limit that a socket would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowded {
    /// This address has too many sockets.
    Address,
    /// The gateway has too many sockets that have not authenticated.
    Gateway,
}

/// Counts sockets by address.
#[derive(Debug)]
pub(crate) struct Addresses {
    per_address: Count,
    unauthenticated: u32,
    trusted_proxies: Vec<IpNet>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    unauthenticated: u32,
    by_address: HashMap<IpAddr, Count>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    sockets: u32,
    unauthenticated: u32,
}

/// One socket's place in the counts; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    addresses: Arc<Addresses>,
    peer: IpAddr,
    /// None behind a trusted proxy until its word on the client is heard.
    address: Option<IpAddr>,
    authenticated: bool,
}

impl Addresses {
    pub(crate) fn new(limits: &Limits, trusted_proxies: Vec<IpNet>) -> Self {
        let per_address =
            Count { sockets: limits.sockets_per_address, unauthenticated: limits.unauthenticated_per_address };
        Self { per_address, unauthenticated: limits.unauthenticated, trusted_proxies, state: Mutex::default() }
    }

    /// A socket was accepted from `peer`.
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Place, Crowded> {
        let mut state = self.lock();
        if state.unauthenticated >= self.unauthenticated {
            return Err(Crowded::Gateway);
        }
        let address = (!is_trusted(peer, &self.trusted_proxies)).then(|| counted_address(peer));
        if let Some(address) = address {
            state.add(address, self.per_address)?;
        }
        state.unauthenticated += 1;
        drop(state);
        Ok(Place { addresses: Arc::clone(self), peer, address, authenticated: false })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Behind a trusted proxy: counts the socket for the client that the proxy names, or for the proxy when it names
    /// nobody.
    pub(crate) fn hear_proxy(&mut self, headers: &HeaderMap) -> Result<(), Crowded> {
        if self.address.is_none() {
            let client = counted_address(client_address(self.peer, headers, &self.addresses.trusted_proxies));
            self.addresses.lock().add(client, self.addresses.per_address)?;
            self.address = Some(client);
        }
        Ok(())
    }

    /// The socket said who it is.
    pub(crate) fn authenticated(&mut self) {
        if !self.authenticated {
            self.authenticated = true;
            self.addresses.lock().authenticated(self.address);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.addresses.lock();
        if !self.authenticated {
            state.authenticated(self.address);
        }
        if let Some(address) = self.address
            && let Some(count) = state.by_address.get_mut(&address)
        {
            count.sockets -= 1;
            if count.sockets == 0 {
                state.by_address.remove(&address);
            }
        }
    }
}

impl State {
    fn add(&mut self, address: IpAddr, limit: Count) -> Result<(), Crowded> {
        let count = self.by_address.entry(address).or_default();
        if count.sockets >= limit.sockets || count.unauthenticated >= limit.unauthenticated {
            return Err(Crowded::Address);
        }
        count.sockets += 1;
        count.unauthenticated += 1;
        Ok(())
    }

    fn authenticated(&mut self, address: Option<IpAddr>) {
        self.unauthenticated -= 1;
        if let Some(count) = address.and_then(|address| self.by_address.get_mut(&address)) {
            count.unauthenticated -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(sockets: u32, unauthenticated_per_address: u32, unauthenticated: u32) -> Arc<Addresses> {
        let limits =
            Limits { sockets_per_address: sockets, unauthenticated_per_address, unauthenticated, ..Limits::default() };
        Arc::new(Addresses::new(&limits, vec!["10.0.0.0/8".parse().expect("a network")]))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn forwarded(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().expect("a header value"));
        }
        headers
    }

    #[test]
    fn silent_sockets_of_one_address_are_bounded_and_authenticated_ones_make_room() {
        let addresses = addresses(10, 2, 100);
        let mut first = addresses.enter(ip("192.0.2.1")).expect("room");
        let second = addresses.enter(ip("192.0.2.1")).expect("room");
        assert_eq!(addresses.enter(ip("192.0.2.1")).expect_err("crowded"), Crowded::Address);
        assert!(addresses.enter(ip("192.0.2.2")).is_ok());
        first.authenticated();
        first.authenticated();
        let third = addresses.enter(ip("192.0.2.1")).expect("room");
        assert!(addresses.enter(ip("192.0.2.1")).is_err());
        drop((first, second, third));
        assert!(addresses.lock().by_address.is_empty());
        assert_eq!(addresses.lock().unauthenticated, 0);
    }

    #[test]
    fn all_sockets_of_one_address_are_bounded() {
        let addresses = addresses(3, 3, 100);
        let mut places: Vec<_> = (0..3).map(|_| addresses.enter(ip("192.0.2.1")).expect("room")).collect();
        places.iter_mut().for_each(Place::authenticated);
        assert_eq!(addresses.enter(ip("192.0.2.1")).expect_err("crowded"), Crowded::Address);
        places.pop();
        assert!(addresses.enter(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn silent_sockets_of_all_addresses_are_bounded() {
        let addresses = addresses(10, 10, 2);
        let _places = [ip("192.0.2.1"), ip("192.0.2.2")].map(|ip| addresses.enter(ip).expect("room"));
        assert_eq!(addresses.enter(ip("192.0.2.3")).expect_err("crowded"), Crowded::Gateway);
    }

    #[test]
    fn a_v6_customer_is_one_address_and_a_mapped_v4_is_itself() {
        let addresses = addresses(1, 1, 100);
        let _v6 = addresses.enter(ip("2001:db8::1")).expect("room");
        assert!(addresses.enter(ip("2001:db8::2")).is_err());
        assert!(addresses.enter(ip("2001:db8:0:1::1")).is_ok());
        let _v4 = addresses.enter(ip("192.0.2.1")).expect("room");
        assert!(addresses.enter(ip("::ffff:192.0.2.1")).is_err());
    }

    #[test]
    fn a_trusted_proxy_is_not_counted_but_the_client_it_names_is() {
        let addresses = addresses(1, 1, 100);
        let mut first = addresses.enter(ip("10.0.0.1")).expect("a proxy");
        let mut second = addresses.enter(ip("10.0.0.1")).expect("a proxy");
        // The client wrote 198.51.100.9 itself.
        first.hear_proxy(&forwarded(&["198.51.100.9, 192.0.2.1", "10.0.0.2"])).expect("room");
        assert_eq!(first.address, Some(ip("192.0.2.1")));
        assert_eq!(second.hear_proxy(&forwarded(&["192.0.2.1:5000"])), Err(Crowded::Address));
    }

    #[test]
    fn a_proxy_that_names_nobody_is_counted_itself() {
        let addresses = addresses(1, 1, 100);
        let mut places = [(); 3].map(|()| addresses.enter(ip("10.0.0.1")).expect("a proxy"));
        places[0].hear_proxy(&forwarded(&["unknown"])).expect("room");
        assert_eq!(places[0].address, Some(ip("10.0.0.1")));
        assert_eq!(places[1].hear_proxy(&forwarded(&[])), Err(Crowded::Address));
        places[2].hear_proxy(&forwarded(&["[2001:db8::5]"])).expect("room");
        assert_eq!(places[2].address, Some(ip("2001:db8::")));
    }

    #[test]
    fn nobody_else_is_believed() {
        let addresses = addresses(1, 1, 100);
        let mut place = addresses.enter(ip("192.0.2.1")).expect("room");
        place.hear_proxy(&forwarded(&["192.0.2.77"])).expect("ignored");
        assert_eq!(place.address, Some(ip("192.0.2.1")));
    }
}

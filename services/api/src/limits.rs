//! How often one may ask: by user, by client address, by both. Too often is a 429 that says when to come back, and
//! nobody else notices.

use crate::{Api, error::Error};
use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::keyed::DefaultKeyedStateStore,
};
use http::{HeaderMap, request::Parts};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    fmt::Debug,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::MissedTickBehavior;
use touchline_config::Problem;
use touchline_ids::UserId;

/// How often those who have not asked for long are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// A refusal is logged at most this often per limit, with how many there were.
const LOG_EVERY_MS: u64 = 1_000;
/// More is no limit; it keeps the arithmetic far from its ends.
const MOST: u32 = 10_000_000;
const FORWARDED_FOR: &str = "x-forwarded-for";

/// How often one may ask. Every number is per minute: that many may come at once, then they come back evenly.
/// 0 means no limit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Any requests from one address; many people may stand behind one.
    pub requests_per_address: u32,
    /// Any requests of one user.
    pub requests_per_user: u32,
    /// Users made from one address.
    pub sign_ups_per_address: u32,
    /// Tries to log in from one address.
    pub log_ins_per_address: u32,
    /// Tries to log in as one handle, wherever they come from.
    pub log_ins_per_handle: u32,
    /// Tries to log in as one handle from one address: far fewer, so that who guesses runs dry before the owner of the
    /// handle, somewhere else, is kept out.
    pub log_ins_per_handle_and_address: u32,
    /// Refreshed log-ins from one address.
    pub refreshes_per_address: u32,
    /// Messages and changes of channels by one user.
    pub sends_per_user: u32,
    /// Syncs of one user.
    pub syncs_per_user: u32,
    /// Tickets for one user.
    pub connects_per_user: u32,
    /// Tickets from one address.
    pub connects_per_address: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            requests_per_address: 30_000,
            requests_per_user: 3_000,
            sign_ups_per_address: 60,
            log_ins_per_address: 120,
            log_ins_per_handle: 100,
            log_ins_per_handle_and_address: 10,
            refreshes_per_address: 1_200,
            sends_per_user: 1_200,
            syncs_per_user: 300,
            connects_per_user: 60,
            connects_per_address: 3_000,
        }
    }
}

impl Settings {
    /// What is wrong (paths from the root: `api.limits.…`).
    pub fn problems(&self) -> Vec<Problem> {
        let all = [
            ("requests_per_address", self.requests_per_address),
            ("requests_per_user", self.requests_per_user),
            ("sign_ups_per_address", self.sign_ups_per_address),
            ("log_ins_per_address", self.log_ins_per_address),
            ("log_ins_per_handle", self.log_ins_per_handle),
            ("log_ins_per_handle_and_address", self.log_ins_per_handle_and_address),
            ("refreshes_per_address", self.refreshes_per_address),
            ("sends_per_user", self.sends_per_user),
            ("syncs_per_user", self.syncs_per_user),
            ("connects_per_user", self.connects_per_user),
            ("connects_per_address", self.connects_per_address),
        ];
        let too_many = all.into_iter().filter(|(_, number)| *number > MOST);
        too_many.map(|(key, _)| Problem::new(format!("api.limits.{key}"), "must be 0 (no limit) to 10000000")).collect()
    }
}

/// Where a request comes from: the peer, or whom a trusted proxy names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// What is counted: an IPv4 address, or the /64 that an IPv6 customer gets as a whole.
    fn key(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        }
    }
}

impl FromRequestParts<Arc<Api>> for ClientAddress {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Error> {
        Ok(api.limits.client_address(parts.extensions.get(), &parts.headers))
    }
}

/// The middleware before everything but the probes: the general limit by address.
pub async fn by_address(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let address = api.limits.client_address(request.extensions().get(), request.headers());
    match api.limits.requests_per_address.check(address.key()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// The limits at work.
pub struct Limits {
    trusted: Vec<IpNet>,
    requests_per_address: Limit<IpAddr>,
    requests_per_user: Limit<UserId>,
    sign_ups_per_address: Limit<IpAddr>,
    log_ins_per_address: Limit<IpAddr>,
    log_ins_per_handle: Limit<String>,
    log_ins_per_handle_and_address: Limit<(String, IpAddr)>,
    refreshes_per_address: Limit<IpAddr>,
    sends_per_user: Limit<UserId>,
    syncs_per_user: Limit<UserId>,
    connects_per_user: Limit<UserId>,
    connects_per_address: Limit<IpAddr>,
}

impl Limits {
    /// Limits by these settings; `trusted` proxies' X-Forwarded-For is believed.
    pub fn new(settings: &Settings, trusted: Vec<IpNet>) -> Self {
        Self {
            trusted,
            requests_per_address: Limit::new("requests_per_address", settings.requests_per_address),
            requests_per_user: Limit::new("requests_per_user", settings.requests_per_user),
            sign_ups_per_address: Limit::new("sign_ups_per_address", settings.sign_ups_per_address),
            log_ins_per_address: Limit::new("log_ins_per_address", settings.log_ins_per_address),
            log_ins_per_handle: Limit::new("log_ins_per_handle", settings.log_ins_per_handle),
            log_ins_per_handle_and_address: Limit::new(
                "log_ins_per_handle_and_address",
                settings.log_ins_per_handle_and_address,
            ),
            refreshes_per_address: Limit::new("refreshes_per_address", settings.refreshes_per_address),
            sends_per_user: Limit::new("sends_per_user", settings.sends_per_user),
            syncs_per_user: Limit::new("syncs_per_user", settings.syncs_per_user),
            connects_per_user: Limit::new("connects_per_user", settings.connects_per_user),
            connects_per_address: Limit::new("connects_per_address", settings.connects_per_address),
        }
    }

    /// Any request, by user.
    pub fn check_request(&self, user: UserId) -> Result<(), Error> {
        self.requests_per_user.check(user)
    }

    /// Sign-ups, by address.
    pub fn check_sign_up(&self, address: ClientAddress) -> Result<(), Error> {
        self.sign_ups_per_address.check(address.key())
    }

    /// Tries to log in, by address and by handle. `handle` is one that could exist, so that it is short.
    pub fn check_log_in(&self, handle: &str, address: ClientAddress) -> Result<(), Error> {
        // By address first: it bounds how many handles one stranger makes us remember. The one for both before the one
        // for the handle: whoever is refused there does not use up what others share.
        self.log_ins_per_address.check(address.key())?;
        self.log_ins_per_handle_and_address.check((handle.to_owned(), address.key()))?;
        self.log_ins_per_handle.check(handle.to_owned())
    }

    /// Refreshed log-ins, by address.
    pub fn check_refresh(&self, address: ClientAddress) -> Result<(), Error> {
        self.refreshes_per_address.check(address.key())
    }

    /// Sends and changes of channels, by user.
    pub fn check_send(&self, user: UserId) -> Result<(), Error> {
        self.sends_per_user.check(user)
    }

    /// Syncs, by user.
    pub fn check_sync(&self, user: UserId) -> Result<(), Error> {
        self.syncs_per_user.check(user)
    }

    /// Tickets, by user and by address.
    pub fn check_connect(&self, user: UserId, address: ClientAddress) -> Result<(), Error> {
        self.connects_per_user.check(user)?;
        self.connects_per_address.check(address.key())
    }

    /// Forgets who has not asked for long, every minute; without that the tables only grow.
    pub async fn sweep_forever(&self) {
        let mut turn = tokio::time::interval(SWEEP_EVERY);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            for limit in [
                &self.requests_per_address,
                &self.sign_ups_per_address,
                &self.log_ins_per_address,
                &self.refreshes_per_address,
                &self.connects_per_address,
            ] {
                limit.sweep();
            }
            for limit in [&self.requests_per_user, &self.sends_per_user, &self.syncs_per_user, &self.connects_per_user]
            {
                limit.sweep();
            }
            self.log_ins_per_handle.sweep();
            self.log_ins_per_handle_and_address.sweep();
        }
    }

    /// The peer; when that is a trusted proxy, the nearest address in X-Forwarded-For that is not one. What stands
    /// further left was written by that client, who may write anything.
    pub fn client_address(&self, peer: Option<&SocketAddr>, headers: &HeaderMap) -> ClientAddress {
        let mut address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
        let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or("?")).collect();
        let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
        while self.trusted.iter().any(|network| network.contains(&address)) {
            match hops.next().and_then(read_address) {
                Some(before) => address = before,
                None => break,
            }
        }
        ClientAddress(address)
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.
fn read_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// One number per minute and key.
struct Limit<K: Hash + Eq + Clone, C: Clock = DefaultClock> {
    name: &'static str,
    limiter: Option<RateLimiter<K, DefaultKeyedStateStore<K>, C, NoOpMiddleware<C::Instant>>>,
    clock: C,
    started: std::time::Instant,
    /// Refusals since the last logged one, and when that was (milliseconds after `started`).
    refused: AtomicU64,
    logged_ms: AtomicU64,
}

impl<K: Hash + Eq + Clone + Debug> Limit<K> {
    fn new(name: &'static str, per_minute: u32) -> Self {
        Self::with_clock(name, per_minute, DefaultClock::default())
    }
}

impl<K: Hash + Eq + Clone + Debug, C: Clock + Clone> Limit<K, C> {
    fn with_clock(name: &'static str, per_minute: u32, clock: C) -> Self {
        let quota = NonZeroU32::new(per_minute).map(Quota::per_minute);
        let limiter = quota.map(|quota| RateLimiter::new(quota, DefaultKeyedStateStore::default(), clock.clone()));
        let started = std::time::Instant::now();
        Self { name, limiter, clock, started, refused: AtomicU64::new(0), logged_ms: AtomicU64::new(0) }
    }

    fn check(&self, key: K) -> Result<(), Error> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        let Err(until) = limiter.check_key(&key) else { return Ok(()) };
        let wait = until.wait_time_from(self.clock.now());
        let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.log(&key);
        Err(Error::RateLimited { retry_after_s: u32::try_from(whole).unwrap_or(u32::MAX).max(1) })
    }

    /// A flood must not become a flood of log lines.
    fn log(&self, key: &K) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let last = self.logged_ms.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= LOG_EVERY_MS;
        // Of several who find it due one wins.
        if due && self.logged_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let refused = self.refused.swap(0, Ordering::Relaxed);
            tracing::warn!(limit.name = self.name, limit.key = ?key, limit.refused = refused, "rate limited");
        }
    }

    fn sweep(&self) {
        if let Some(limiter) = &self.limiter {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use http::HeaderValue;

    fn refused(result: Result<(), Error>) -> u32 {
        match result {
            Err(Error::RateLimited { retry_after_s }) => retry_after_s,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn as_many_as_per_minute_come_at_once_and_then_evenly() {
        let clock = FakeRelativeClock::default();
        let limit = Limit::with_clock("sends", 30, clock.clone());
        for _ in 0..30 {
            limit.check("ann").unwrap();
        }
        assert_eq!(refused(limit.check("ann")), 2);
        limit.check("bob").unwrap();
        clock.advance(Duration::from_millis(1_999));
        assert_eq!(refused(limit.check("ann")), 1);
        clock.advance(Duration::from_millis(1));
        limit.check("ann").unwrap();
        assert_eq!(refused(limit.check("ann")), 2);
    }

    #[test]
    fn nobody_is_told_to_come_back_at_once() {
        let clock = FakeRelativeClock::default();
        let limit = Limit::with_clock("requests", 60_000, clock.clone());
        for _ in 0..60_000 {
            limit.check(1).unwrap();
        }
        assert_eq!(refused(limit.check(1)), 1);
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = Limits::new(&Settings { sends_per_user: 0, ..Settings::default() }, Vec::new());
        let user = UserId::new();
        for _ in 0..10_000 {
            limits.check_send(user).unwrap();
        }
    }

    #[test]
    fn those_who_stay_away_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let limit = Limit::with_clock("sends", 60, clock.clone());
        for key in 0..1_000 {
            limit.check(key).unwrap();
        }
        clock.advance(Duration::from_secs(120));
        limit.check(7).unwrap();
        limit.sweep();
        assert_eq!(limit.limiter.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn guessing_passwords_keeps_the_owner_of_the_handle_in() {
        let limits = Limits::new(&Settings::default(), Vec::new());
        let (thief, owner) = (ClientAddress([192, 0, 2, 1].into()), ClientAddress([192, 0, 2, 2].into()));
        for _ in 0..10 {
            limits.check_log_in("ann", thief).unwrap();
        }
        for _ in 0..100 {
            refused(limits.check_log_in("ann", thief));
        }
        limits.check_log_in("ann", owner).unwrap();
        // The thief has by now used up what one address may try at all.
        refused(limits.check_log_in("bob", thief));
    }

    #[test]
    fn many_thieves_run_dry_together() {
        let limits = Limits::new(&Settings::default(), Vec::new());
        let tries = (0..=255).filter(|n| limits.check_log_in("ann", ClientAddress([10, 0, 0, *n].into())).is_ok());
        assert_eq!(tries.count(), 100);
    }

    #[test]
    fn one_users_flood_leaves_the_others_alone() {
        let limits = Limits::new(&Settings::default(), Vec::new());
        let (loud, quiet) = (UserId::new(), UserId::new());
        while limits.check_send(loud).is_ok() {}
        limits.check_send(quiet).unwrap();
        limits.check_sync(loud).unwrap();
        limits.check_connect(loud, ClientAddress([192, 0, 2, 1].into())).unwrap();
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let key = |text: &str| ClientAddress(text.parse().unwrap()).key();
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), key("2001:db8:1:2::1"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn forwarded_for_is_believed_from_trusted_proxies_only() {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap()).to_vec();
        let limits = Limits::new(&Settings::default(), trusted);
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
            let address = limits.client_address(Some(&peer.parse().unwrap()), &headers);
            assert_eq!(address.0.to_string(), *expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn numbers_that_are_no_limits_are_named() {
        assert!(Settings::default().problems().is_empty());
        let bad = Settings { syncs_per_user: MOST + 1, connects_per_user: u32::MAX, ..Settings::default() };
        let paths: Vec<_> = bad.problems().into_iter().map(|problem| problem.path).collect();
        assert_eq!(paths, ["api.limits.syncs_per_user", "api.limits.connects_per_user"]);
    }
}

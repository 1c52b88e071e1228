//! How often one may ask: by user, by client address, by both. Too often is a 429 that says when to come back, and
//! nobody else notices.

use crate::{Api, client_address::ClientAddress, error::Error};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::keyed::DefaultKeyedStateStore,
};
use serde::{Deserialize, Serialize};
use std::{
    fmt::Debug,
    hash::Hash,
    net::IpAddr,
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
/// New members that cost the writer what one send does, about.
const JOINS_PER_SEND: usize = 10;
/// More is no limit; it keeps the arithmetic far from its ends.
const MOST: u32 = 10_000_000;

/// How often one may ask. Every number is per minute, but for the one that says otherwise: that many may come at once,
/// then they come back evenly. 0 means no limit.
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
    /// Messages and changes of channels by one user; ten new members count as one more.
    pub sends_per_user: u32,
    /// Syncs of one user.
    pub syncs_per_user: u32,
    /// Syncs of everybody at this api, per second; more are answered 503 with a time to come back.
    pub syncs_per_second: u32,
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
            syncs_per_second: 2_000,
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
            ("syncs_per_second", self.syncs_per_second),
            ("connects_per_user", self.connects_per_user),
            ("connects_per_address", self.connects_per_address),
        ];
        let too_many = all.into_iter().filter(|(_, number)| *number > MOST);
        too_many.map(|(key, _)| Problem::new(format!("api.limits.{key}"), "must be 0 (no limit) to 10000000")).collect()
    }
}

/// The middleware before everything but the probes: the general limit by address.
pub(crate) async fn by_address(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let address = ClientAddress::of(&api, request.extensions(), request.headers());
    match api.limits.requests_per_address.check(address.key()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// The limits at work.
pub(crate) struct Limits<C: Clock + Clone = DefaultClock> {
    requests_per_address: Limit<IpAddr, C>,
    requests_per_user: Limit<UserId, C>,
    sign_ups_per_address: Limit<IpAddr, C>,
    log_ins_per_address: Limit<IpAddr, C>,
    log_ins_per_handle: Limit<String, C>,
    log_ins_per_handle_and_address: Limit<(String, IpAddr), C>,
    refreshes_per_address: Limit<IpAddr, C>,
    sends_per_user: Limit<UserId, C>,
    syncs_per_user: Limit<UserId, C>,
    connects_per_user: Limit<UserId, C>,
    connects_per_address: Limit<IpAddr, C>,
}

impl Limits {
    /// Limits by these settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self::with_clock(settings, &DefaultClock::default())
    }
}

impl<C: Clock + Clone> Limits<C> {
    fn with_clock(settings: &Settings, clock: &C) -> Self {
        Self {
            requests_per_address: Limit::new("requests_per_address", settings.requests_per_address, clock),
            requests_per_user: Limit::new("requests_per_user", settings.requests_per_user, clock),
            sign_ups_per_address: Limit::new("sign_ups_per_address", settings.sign_ups_per_address, clock),
            log_ins_per_address: Limit::new("log_ins_per_address", settings.log_ins_per_address, clock),
            log_ins_per_handle: Limit::new("log_ins_per_handle", settings.log_ins_per_handle, clock),
            log_ins_per_handle_and_address: Limit::new(
                "log_ins_per_handle_and_address",
                settings.log_ins_per_handle_and_address,
                clock,
            ),
            refreshes_per_address: Limit::new("refreshes_per_address", settings.refreshes_per_address, clock),
            sends_per_user: Limit::new("sends_per_user", settings.sends_per_user, clock),
            syncs_per_user: Limit::new("syncs_per_user", settings.syncs_per_user, clock),
            connects_per_user: Limit::new("connects_per_user", settings.connects_per_user, clock),
            connects_per_address: Limit::new("connects_per_address", settings.connects_per_address, clock),
        }
    }

    /// Any request, by user.
    pub(crate) fn check_request(&self, user: UserId) -> Result<(), Error> {
        self.requests_per_user.check(user)
    }

    /// Sign-ups, by address.
    pub(crate) fn check_sign_up(&self, address: ClientAddress) -> Result<(), Error> {
        self.sign_ups_per_address.check(address.key())
    }

    /// Tries to log in, by address and by handle. `handle` is one that could exist, so that it is short.
    pub(crate) fn check_log_in(&self, handle: &str, address: ClientAddress) -> Result<(), Error> {
        // By address first: it bounds how many handles one stranger makes us remember. The one for both before the one
        // for the handle: whoever is refused there does not use up what others share.
        self.log_ins_per_address.check(address.key())?;
        self.log_ins_per_handle_and_address.check((handle.to_owned(), address.key()))?;
        self.log_ins_per_handle.check(handle.to_owned())
    }

    /// Refreshed log-ins, by address.
    pub(crate) fn check_refresh(&self, address: ClientAddress) -> Result<(), Error> {
        self.refreshes_per_address.check(address.key())
    }

    /// Sends and changes of channels, by user.
    pub(crate) fn check_send(&self, user: UserId) -> Result<(), Error> {
        self.sends_per_user.check(user)
    }

    /// A change of a channel that makes so many members: they cost the one writer of all what some sends would.
    pub(crate) fn check_joins(&self, user: UserId, joins: usize) -> Result<(), Error> {
        let sends = u32::try_from(1 + joins / JOINS_PER_SEND).unwrap_or(u32::MAX);
        self.sends_per_user.check_many(user, sends)
    }

    /// Syncs, by user.
    pub(crate) fn check_sync(&self, user: UserId) -> Result<(), Error> {
        self.syncs_per_user.check(user)
    }

    /// Tickets, by user and by address.
    pub(crate) fn check_connect(&self, user: UserId, address: ClientAddress) -> Result<(), Error> {
        self.connects_per_user.check(user)?;
        self.connects_per_address.check(address.key())
    }

    /// Forgets who has not asked for long, every minute; without that the tables only grow.
    pub(crate) async fn sweep_forever(&self) {
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
}

type Counter<K, C> = RateLimiter<K, DefaultKeyedStateStore<K>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// One number per minute and key.
struct Limit<K: Hash + Eq + Clone, C: Clock + Clone> {
    name: &'static str,
    limiter: Option<Counter<K, C>>,
    per_minute: u32,
    clock: C,
    started: std::time::Instant,
    /// Refusals since the last logged one, and when that was (milliseconds after `started`).
    refused: AtomicU64,
    logged_ms: AtomicU64,
}

impl<K: Hash + Eq + Clone + Debug, C: Clock + Clone> Limit<K, C> {
    fn new(name: &'static str, per_minute: u32, clock: &C) -> Self {
        let clock = clock.clone();
        let quota = NonZeroU32::new(per_minute).map(Quota::per_minute);
        let limiter = quota.map(|quota| RateLimiter::new(quota, DefaultKeyedStateStore::default(), clock.clone()));
        let started = std::time::Instant::now();
        Self { name, limiter, per_minute, clock, started, refused: AtomicU64::new(0), logged_ms: AtomicU64::new(0) }
    }

    fn check(&self, key: K) -> Result<(), Error> {
        self.check_many(key, 1)
    }

    /// One question that counts as `many`; never as more than may come at once.
    fn check_many(&self, key: K, many: u32) -> Result<(), Error> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        let many = NonZeroU32::new(many.min(self.per_minute)).unwrap_or(NonZeroU32::MIN);
        let Ok(Err(until)) = limiter.check_key_n(&key, many) else { return Ok(()) };
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

    fn refused(result: Result<(), Error>) -> u32 {
        match result {
            Err(Error::RateLimited { retry_after_s }) => retry_after_s,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// The default limits on a clock that stands still.
    fn limits() -> Limits<FakeRelativeClock> {
        Limits::with_clock(&Settings::default(), &FakeRelativeClock::default())
    }

    #[test]
    fn who_makes_many_members_may_do_it_less_often() {
        let (limits, ann) = (limits(), UserId::new());
        for _ in 0..11 {
            limits.check_joins(ann, 1_000).unwrap();
        }
        refused(limits.check_joins(ann, 1_000));
        limits.check_send(ann).unwrap();
        let few = Limit::new("sends", 5, &FakeRelativeClock::default());
        few.check_many("ann", 101).unwrap();
        assert_eq!(refused(few.check("ann")), 12);
    }

    #[test]
    fn as_many_as_per_minute_come_at_once_and_then_evenly() {
        let clock = FakeRelativeClock::default();
        let limit = Limit::new("sends", 30, &clock);
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
        let limit = Limit::new("requests", 60_000, &FakeRelativeClock::default());
        for _ in 0..60_000 {
            limit.check(1).unwrap();
        }
        assert_eq!(refused(limit.check(1)), 1);
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = Limits::new(&Settings { sends_per_user: 0, ..Settings::default() });
        let user = UserId::new();
        for _ in 0..10_000 {
            limits.check_send(user).unwrap();
        }
    }

    #[test]
    fn those_who_stay_away_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let limit = Limit::new("sends", 60, &clock);
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
        let limits = limits();
        let (thief, owner) = (ClientAddress([192, 0, 2, 1].into()), ClientAddress([192, 0, 2, 2].into()));
        for _ in 0..10 {
            limits.check_log_in("ann", thief).unwrap();
        }
        for _ in 10..120 {
            refused(limits.check_log_in("ann", thief));
        }
        limits.check_log_in("ann", owner).unwrap();
        // The thief has by now used up what one address may try at all.
        refused(limits.check_log_in("bob", thief));
    }

    #[test]
    fn many_thieves_run_dry_together() {
        let limits = limits();
        let tries = (0..=255).filter(|n| limits.check_log_in("ann", ClientAddress([10, 0, 0, *n].into())).is_ok());
        assert_eq!(tries.count(), 100);
    }

    #[test]
    fn one_users_flood_leaves_the_others_alone() {
        let limits = limits();
        let (loud, quiet) = (UserId::new(), UserId::new());
        while limits.check_send(loud).is_ok() {}
        limits.check_send(quiet).unwrap();
        limits.check_sync(loud).unwrap();
        limits.check_connect(loud, ClientAddress([192, 0, 2, 1].into())).unwrap();
    }

    #[test]
    fn numbers_that_are_no_limits_are_named() {
        assert!(Settings::default().problems().is_empty());
        let bad = Settings { syncs_per_user: MOST + 1, connects_per_user: u32::MAX, ..Settings::default() };
        let paths: Vec<_> = bad.problems().into_iter().map(|problem| problem.path).collect();
        assert_eq!(paths, ["api.limits.syncs_per_user", "api.limits.connects_per_user"]);
    }
}

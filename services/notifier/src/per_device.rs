//! How many pushes one device may get: a push service drops what is more (240 a minute and 5,000 an hour on Android).

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::keyed::DefaultKeyedStateStore,
};
use std::{
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU32,
    time::Duration,
};
use tokio::time::MissedTickBehavior;
use touchline_ids::{DeviceId, UserId};

const PER_MINUTE: NonZeroU32 = NonZeroU32::new(240).unwrap();
const PER_HOUR: NonZeroU32 = NonZeroU32::new(5_000).unwrap();
/// How often devices are forgotten that could take a full burst again.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

type Counter<C> = RateLimiter<u64, DefaultKeyedStateStore<u64>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The limits of all devices. It remembers a device by 8 bytes, until it has been quiet for as long as it was busy.
#[derive(Debug)]
pub(crate) struct PerDevice<C: Clock + Clone = DefaultClock> {
    minute: Counter<C>,
    hour: Counter<C>,
    clock: C,
    hasher: RandomState,
}

impl Default for PerDevice {
    fn default() -> Self {
        Self::with_clock(DefaultClock::default())
    }
}

impl<C: Clock + Clone> PerDevice<C> {
    fn with_clock(clock: C) -> Self {
        let counter = |quota| RateLimiter::new(quota, DefaultKeyedStateStore::default(), clock.clone());
        Self {
            minute: counter(Quota::per_minute(PER_MINUTE)),
            hour: counter(Quota::per_hour(PER_HOUR)),
            clock: clock.clone(),
            hasher: RandomState::new(),
        }
    }

    /// Counts one push.
    ///
    /// # Errors
    /// When the device may get the next one.
    pub(crate) fn check(&self, user: UserId, device: &DeviceId) -> Result<(), Duration> {
        let key = self.hasher.hash_one((user, device));
        for counter in [&self.minute, &self.hour] {
            counter.check_key(&key).map_err(|until| until.wait_time_from(self.clock.now()))?;
        }
        Ok(())
    }

    /// Forgets quiet devices, every minute; without that the tables only grow.
    pub(crate) async fn sweep_forever(&self) {
        let mut turn = tokio::time::interval(SWEEP_EVERY);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            self.sweep();
        }
    }

    fn sweep(&self) {
        for counter in [&self.minute, &self.hour] {
            counter.retain_recent();
            counter.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn device(name: &str) -> DeviceId {
        name.parse().unwrap()
    }

    #[test]
    fn a_device_gets_so_many_a_minute_and_its_neighbour_does_not_notice() {
        let clock = FakeRelativeClock::default();
        let (limits, ann) = (PerDevice::with_clock(clock.clone()), UserId::new());
        for _ in 0..240 {
            limits.check(ann, &device("phone")).unwrap();
        }
        let wait = limits.check(ann, &device("phone")).unwrap_err();
        assert_eq!(wait, Duration::from_millis(250));
        limits.check(ann, &device("tablet")).unwrap();
        limits.check(UserId::new(), &device("phone")).unwrap();
        clock.advance(wait);
        limits.check(ann, &device("phone")).unwrap();
    }

    #[test]
    fn a_device_gets_so_many_an_hour() {
        let clock = FakeRelativeClock::default();
        let (limits, ann) = (PerDevice::with_clock(clock.clone()), UserId::new());
        let mut got = 0;
        for _ in 0..3_600 * 4 {
            clock.advance(Duration::from_millis(250));
            got += u32::from(limits.check(ann, &device("phone")).is_ok());
        }
        // A burst of 5,000 and what comes back meanwhile.
        assert!((9_950..=10_000).contains(&got), "{got}");
    }

    #[test]
    fn quiet_devices_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let limits = PerDevice::with_clock(clock.clone());
        for _ in 0..1_000 {
            limits.check(UserId::new(), &device("phone")).unwrap();
        }
        clock.advance(Duration::from_secs(2));
        limits.sweep();
        assert_eq!(limits.minute.len() + limits.hour.len(), 0);
    }
}

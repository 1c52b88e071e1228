//! A circuit for each platform: FCM has a key of its own for each, and it may be wrong.
//!
//! One refused push does not open it: a browser may have registered under another key, and no other device has to wait
//! for that. Several devices refused since the last success do.

use crate::{
    Answer, Push,
    circuit::{Cause, Outcome},
    metrics::Metrics,
    switch::{Pass, Switch},
};
use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use touchline_storage::Platform;

/// So many devices are no coincidence.
const DEVICES: usize = 3;

/// All platforms.
#[derive(Debug)]
pub(super) struct Platforms {
    android: Gate,
    ios: Gate,
    web: Gate,
}

#[derive(Debug)]
struct Gate {
    cause: Cause,
    switch: Switch,
    /// Devices that were refused since the last success, as hashes; [`DEVICES`] at most.
    refused: Mutex<Vec<u64>>,
    hasher: RandomState,
}

impl Platforms {
    /// All closed: everything may be sent.
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        let gate = |platform| Gate {
            cause: Cause::PlatformKey(platform),
            switch: Switch::new(Arc::clone(metrics)),
            refused: Mutex::default(),
            hasher: RandomState::new(),
        };
        Self { android: gate(Platform::Android), ios: gate(Platform::Ios), web: gate(Platform::Web) }
    }

    fn of(&self, platform: Platform) -> &Gate {
        match platform {
            Platform::Android => &self.android,
            Platform::Ios => &self.ios,
            Platform::Web => &self.web,
        }
    }

    /// Whether a push to this platform could be sent now. Lets none through.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn look(&self, platform: Platform) -> Result<(), Cause> {
        self.of(platform).switch.look()
    }

    /// Lets one push to this platform through.
    ///
    /// # Errors
    /// Why it may not be sent.
    pub(super) fn admit(&self, platform: Platform) -> Result<PlatformPass<'_>, Cause> {
        let gate = self.of(platform);
        Ok(PlatformPass { gate, pass: gate.switch.admit()? })
    }
}

impl Gate {
    fn refused(&self) -> MutexGuard<'_, Vec<u64>> {
        // No code that can panic runs under this lock.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal of this push's device: true when there were enough of them.
    fn count(&self, push: &Push) -> bool {
        let device = self.hasher.hash_one((push.user, &push.device));
        let mut refused = self.refused();
        if refused.len() < DEVICES && !refused.contains(&device) {
            refused.push(device);
        }
        refused.len() == DEVICES
    }
}

/// One push on its way to its platform. Dropped without an end it was never sent.
#[derive(Debug)]
pub(super) struct PlatformPass<'a> {
    gate: &'a Gate,
    pass: Pass<'a>,
}

impl PlatformPass<'_> {
    /// Takes what FCM answered to this push.
    pub(super) fn end(self, push: &Push, answer: &Answer) {
        let Self { gate, pass } = self;
        match answer {
            Answer::Accepted { .. } => {
                gate.refused().clear();
                pass.end(Outcome::Well, "");
            }
            Answer::PlatformRefused { why } if gate.count(push) || pass.is_probe() => {
                pass.end(Outcome::Shut(gate.cause), why);
            }
            Answer::PlatformRefused { why } => tracing::warn!(
                circuit.cause = gate.cause.label(),
                circuit.answer = why,
                circuit.remedy = gate.cause.remedy(),
                "FCM cannot push to a device, by its registration or by our key for its platform"
            ),
            // It says nothing about the platform's key.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_push::push;
    use std::time::Duration;
    use tokio::time::advance;

    fn refused() -> Answer {
        Answer::PlatformRefused { why: "401".into() }
    }

    fn accepted() -> Answer {
        Answer::Accepted { id: "1".into() }
    }

    fn platforms() -> Platforms {
        Platforms::new(&Arc::new(Metrics::new("test")))
    }

    impl Platforms {
        fn answered(&self, push: &Push, answer: &Answer) {
            self.admit(push.platform).unwrap().end(push, answer);
        }

        fn shut(&self) -> [bool; 3] {
            [Platform::Android, Platform::Ios, Platform::Web].map(|platform| self.look(platform).is_err())
        }
    }

    #[test]
    fn one_device_that_is_refused_ever_again_stops_nobody() {
        let (platforms, web) = (platforms(), push(Platform::Web, "T"));
        for _ in 0..100 {
            platforms.answered(&web, &refused());
        }
        platforms.answered(&push(Platform::Web, "T"), &refused());
        assert_eq!(platforms.shut(), [false; 3]);
    }

    #[test]
    fn several_devices_without_a_success_between_them_stop_their_platform() {
        let platforms = platforms();
        let ios = || push(Platform::Ios, "T");
        for _ in 0..100 {
            platforms.answered(&ios(), &refused());
            platforms.answered(&ios(), &refused());
            platforms.answered(&ios(), &accepted());
        }
        for answer in [refused(), refused(), Answer::TokenVoid { why: "404".into() }] {
            platforms.answered(&ios(), &answer);
            assert_eq!(platforms.shut(), [false; 3]);
        }
        platforms.answered(&ios(), &refused());
        assert_eq!(platforms.shut(), [false, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_each_minute_and_its_success_opens_the_way() {
        let platforms = platforms();
        let web = || push(Platform::Web, "T");
        for _ in 0..DEVICES {
            platforms.answered(&web(), &refused());
        }
        // One that was under way says that the key is good for some; only a probe is believed.
        for answer in [refused(), accepted()] {
            advance(Duration::from_secs(60)).await;
            assert_eq!(platforms.shut(), [false; 3]);
            let probe = platforms.admit(Platform::Web).unwrap();
            assert_eq!(platforms.shut(), [false, false, true], "one at a time");
            platforms.of(Platform::Web).refused().clear();
            probe.end(&web(), &answer);
            assert_eq!(platforms.shut(), [false, false, answer == refused()]);
        }
    }
}

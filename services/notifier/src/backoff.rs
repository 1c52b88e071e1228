//! How long a push that was put off waits for its next try.

use rand::Rng;
use std::{cmp::max, time::Duration};

/// FCM's own rule: never sooner (<https://firebase.google.com/docs/cloud-messaging/scale-fcm>).
pub(crate) const SHORTEST: Duration = Duration::from_secs(10);
/// The window of the jitter grows no further.
const WIDEST: Duration = Duration::from_secs(600);

/// At least 10 s and what the provider asked for, and a random part of a window that doubles from 10 s to 10 min with
/// every try: full jitter, so that those put off together do not come back together. `tries` counts those before.
pub(crate) fn wait(tries: u32, asked: Option<Duration>, random: &mut impl Rng) -> Duration {
    let window = WIDEST.min(SHORTEST * 2_u32.saturating_pow(tries.min(16)));
    max(SHORTEST, asked.unwrap_or_default()) + window.mul_f64(random.random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn nobody_comes_back_before_ten_seconds_nor_before_they_were_asked_to() {
        let mut random = StdRng::seed_from_u64(1);
        for tries in 0..40 {
            let waited: Vec<_> = (0..1_000).map(|_| wait(tries, None, &mut random)).collect();
            let widest = SHORTEST + WIDEST.min(SHORTEST * 2_u32.saturating_pow(tries.min(16)));
            assert!(waited.iter().all(|waited| (SHORTEST..=widest).contains(waited)), "{tries}");
            assert!(waited.iter().any(|waited| *waited > (SHORTEST + widest) / 2), "spread over the window");
            let asked = Duration::from_secs(77);
            assert!(wait(tries, Some(asked), &mut random) >= asked);
        }
    }
}

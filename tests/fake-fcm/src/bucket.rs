//! A quota per minute.

use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// So many per minute, all of them there again when a minute is over. Minutes begin with the first use, not with the
/// clock, as FCM says of its own.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    per_minute: u64,
    left: u64,
    /// Since the fake's start.
    minute: Option<Duration>,
}

impl Bucket {
    pub(crate) fn new(per_minute: u64) -> Self {
        Self { per_minute, left: per_minute, minute: None }
    }

    /// Takes one at the time `now` (since the fake's start); false when this minute has none left.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        if self.is_over(now) {
            self.minute = Some(now);
            self.left = self.per_minute;
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }

    /// Whether its minute is over, so that forgetting it changes nothing.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        self.minute.is_none_or(|begun| now >= begun + MINUTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_begins_with_the_first_use_and_is_whole_again_when_it_is_over() {
        let second = Duration::from_secs;
        let mut bucket = Bucket::new(2);
        assert!(bucket.take(second(100)));
        assert!(bucket.take(second(110)));
        assert!(!bucket.take(second(159)));
        assert!(bucket.take(second(160)));
        assert!(bucket.take(second(219)));
        assert!(!bucket.take(second(219)));
    }
}

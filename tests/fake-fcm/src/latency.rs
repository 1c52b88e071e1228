//! How long the fake takes over an answer.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A distribution of times, by points of its curve: straight lines between them. Empty: no delay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latency(pub Vec<Point>);

/// `share` of all answers take at most `ms`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// 0 to 1, rising from point to point.
    pub share: f64,
    /// Milliseconds, rising too.
    pub ms: f64,
}

impl Latency {
    /// Always the same.
    pub fn fixed(ms: f64) -> Self {
        Self(vec![Point { share: 1.0, ms }])
    }

    /// The time at `share` (0 to 1) of the distribution; a random share gives a random time.
    pub fn at(&self, share: f64) -> Duration {
        let Some(first) = self.0.first() else { return Duration::ZERO };
        let mut before = Point { share: 0.0, ms: first.ms };
        for point in &self.0 {
            if share <= point.share {
                let width = point.share - before.share;
                let way = if width > 0.0 { (share - before.share) / width } else { 1.0 };
                return milliseconds(before.ms + (point.ms - before.ms) * way);
            }
            before = *point;
        }
        milliseconds(before.ms)
    }
}

fn milliseconds(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_gives_the_time_on_the_line_between_two_points() {
        let point = |share, ms| Point { share, ms };
        let latency = Latency(vec![point(0.5, 20.0), point(0.9, 100.0), point(1.0, 1_100.0)]);
        let ms = |share| latency.at(share).as_millis();
        assert_eq!([ms(0.0), ms(0.5), ms(0.7), ms(0.9), ms(0.95), ms(1.0)], [20, 20, 60, 100, 600, 1_100]);
        assert_eq!(Latency::default().at(0.5), Duration::ZERO);
        assert_eq!(Latency::fixed(7.0).at(0.0), Duration::from_millis(7));
    }
}

//! The time in which this process ran. A process that is stopped (SIGSTOP, a frozen VM, no CPU at all) hears nobody,
//! so that time proves nobody dead. A pulse beats for as long as the process runs; what is missing between two beats
//! is not counted. The same pulse tells when the event loop is too late to take newcomers.

use crate::gateway::Gateway;
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior};

/// How often the pulse beats.
const BEAT: Duration = Duration::from_millis(100);
/// The most that counts between two beats.
const COUNTED: Duration = Duration::from_secs(1);
/// So many late beats in a row mean that the event loop does not keep up: one is a stop, which is over.
const LATE_BEATS: u32 = 3;
/// So many beats in time in a row mean that it does again.
const GOOD_BEATS: u32 = 50;

/// The clock of everything that gives a client up.
#[derive(Debug)]
pub(crate) struct Running {
    pulse: RwLock<Pulse>,
}

impl Running {
    /// Starts with the first beat at `now`. A beat later than `late` is late.
    pub(crate) fn new(now: Instant, late: Duration) -> Self {
        Self { pulse: RwLock::new(Pulse::new(now, late)) }
    }

    /// Now, without the time in which this process did not run. Only to be compared with itself.
    pub(crate) fn now(&self) -> Instant {
        self.read(|pulse| pulse.running(Instant::now()))
    }

    /// When it will be `then` on this clock, if the process runs until then.
    pub(crate) fn real(&self, then: Instant) -> Instant {
        let now = Instant::now();
        self.read(|pulse| now + then.saturating_duration_since(pulse.running(now)))
    }

    /// Whether the event loop is too late, time and again.
    pub(crate) fn is_lagging(&self) -> bool {
        self.read(|pulse| pulse.lagging)
    }

    fn beat(&self, now: Instant) {
        let mut pulse = self.pulse.write().unwrap_or_else(PoisonError::into_inner);
        let before = pulse.lagging;
        let missed = pulse.beat(now);
        let lagging = pulse.lagging;
        drop(pulse);
        if let Some(missed) = missed {
            tracing::warn!(missed_ms = missed.as_millis(), "this process did not run for a while");
        }
        match (before, lagging) {
            (false, true) => tracing::warn!("the event loop is late: newcomers are sent elsewhere"),
            (true, false) => tracing::info!("the event loop keeps up again"),
            _ => {}
        }
    }

    fn read<T>(&self, what: impl FnOnce(&Pulse) -> T) -> T {
        what(&self.pulse.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Beats for as long as the gateway lives.
pub(crate) async fn beat_forever(gateway: Arc<Gateway>) {
    let mut turn = tokio::time::interval(BEAT);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        gateway.running.beat(Instant::now());
    }
}

#[derive(Debug)]
struct Pulse {
    last: Instant,
    /// What was not counted.
    missed: Duration,
    late: Duration,
    late_in_a_row: u32,
    good_in_a_row: u32,
    lagging: bool,
}

impl Pulse {
    fn new(now: Instant, late: Duration) -> Self {
        Self { last: now, missed: Duration::ZERO, late, late_in_a_row: 0, good_in_a_row: 0, lagging: false }
    }

    /// Some: so much is not counted.
    fn beat(&mut self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.last);
        self.last = now;
        if since > BEAT + self.late {
            (self.late_in_a_row, self.good_in_a_row) = (self.late_in_a_row + 1, 0);
        } else {
            (self.late_in_a_row, self.good_in_a_row) = (0, self.good_in_a_row.saturating_add(1));
        }
        self.lagging = if self.lagging { self.good_in_a_row < GOOD_BEATS } else { self.late_in_a_row >= LATE_BEATS };
        let missed = since.checked_sub(COUNTED).filter(|missed| !missed.is_zero())?;
        self.missed += missed;
        Some(missed)
    }

    fn running(&self, now: Instant) -> Instant {
        now.min(self.last + COUNTED) - self.missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_stop_counts_as_one_second_however_long_it_was_and_whoever_looks_first() {
        let begin = Instant::now();
        let mut pulse = Pulse::new(begin, ms(500));
        let stopped = begin + ms(60_000);
        // Before the pulse has beaten, and after.
        assert_eq!(pulse.running(stopped) - begin, ms(1_000));
        assert_eq!(pulse.beat(stopped), Some(ms(59_000)));
        assert_eq!(pulse.running(stopped) - begin, ms(1_000));
        assert_eq!(pulse.running(stopped + ms(50)) - begin, ms(1_050));
        assert!(!pulse.lagging, "one stop is no lag");
    }

    #[test]
    fn time_that_ran_counts_whole() {
        let begin = Instant::now();
        let mut pulse = Pulse::new(begin, ms(500));
        for beat in 1..=1_000 {
            assert_eq!(pulse.beat(begin + ms(beat * 130)), None);
        }
        assert_eq!(pulse.running(begin + ms(130_020)) - begin, ms(130_020));
    }

    #[test]
    fn the_clock_never_goes_back() {
        let begin = Instant::now();
        let (mut pulse, mut last) = (Pulse::new(begin, ms(500)), begin);
        for step in [100, 900, 5_000, 100, 61_000, 1_000, 1_001, 40] {
            let now = pulse.last + ms(step);
            for look in [pulse.running(now), {
                pulse.beat(now);
                pulse.running(now)
            }] {
                assert!(look >= last, "after {step} ms");
                last = look;
            }
        }
    }

    #[test]
    fn several_late_beats_are_a_lag_until_five_seconds_went_well() {
        let (mut now, late) = (Instant::now(), ms(500));
        let mut pulse = Pulse::new(now, late);
        let mut beat = |after: u64, times: u32| {
            for _ in 0..times {
                now += ms(after);
                pulse.beat(now);
            }
            pulse.lagging
        };
        assert!(!beat(700, 2));
        assert!(!beat(100, 1));
        assert!(beat(700, 3));
        assert!(beat(100, 49));
        assert!(!beat(100, 1));
    }
}

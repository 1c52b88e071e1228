//! Times of many tasks, written without a lock: every delivery writes one.

use crate::report::Times;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};

/// Steps within a doubling: 1.6 % is the widest.
const STEPS: u64 = 64;
/// Doublings beyond the first 128 µs: up to 38 hours, and what is longer is as long as that.
const DOUBLINGS: u64 = 30;
/// Counters in all.
const CELLS: usize = (2 * STEPS + DOUBLINGS * STEPS) as usize;

/// A distribution under construction, in microseconds. 16 KiB.
#[derive(Debug)]
pub(crate) struct Recorder {
    cells: Box<[AtomicU64]>,
    longest: AtomicU64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { cells: (0..CELLS).map(|_| AtomicU64::new(0)).collect(), longest: AtomicU64::new(0) }
    }
}

impl Recorder {
    /// One more.
    pub(crate) fn record(&self, micros: u64) {
        self.cells[cell(micros)].fetch_add(1, Ordering::Relaxed);
        self.longest.fetch_max(micros, Ordering::Relaxed);
    }

    /// What was recorded so far.
    pub(crate) fn times(&self) -> Times {
        let mut histogram = Histogram::<u64>::new(3).expect("three digits are allowed");
        for (at, count) in self.cells.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                histogram.record_n(longest_of(at), count).expect("the range grows by itself");
            }
        }
        let longest = self.longest.load(Ordering::Relaxed);
        let quantile = |quantile| histogram.value_at_quantile(quantile).min(longest) as f64 / 1e3;
        Times {
            count: histogram.len(),
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: longest as f64 / 1e3,
        }
    }
}

/// Where a time is counted.
fn cell(micros: u64) -> usize {
    if micros < 2 * STEPS {
        return usize::try_from(micros).unwrap_or(0);
    }
    let doubling = u64::from(micros.ilog2() - STEPS.ilog2());
    let cell = 2 * STEPS + (doubling - 1) * STEPS + ((micros >> doubling) - STEPS);
    usize::try_from(cell).unwrap_or(usize::MAX).min(CELLS - 1)
}

/// The longest time that a cell counts.
fn longest_of(cell: usize) -> u64 {
    let cell = cell as u64;
    if cell < 2 * STEPS {
        return cell;
    }
    let (doubling, step) = ((cell - 2 * STEPS) / STEPS + 1, (cell - 2 * STEPS) % STEPS);
    ((STEPS + step + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_cell_that_is_no_more_than_a_step_off() {
        let mut micros = 0;
        while micros < 1 << 36 {
            let (cell, longest) = (cell(micros), longest_of(cell(micros)));
            assert!(longest >= micros && (longest - micros) as f64 <= micros as f64 / 64.0, "{micros} in {cell}");
            micros += 1 + micros / 50;
        }
        assert_eq!(cell(u64::MAX), CELLS - 1);
    }

    #[test]
    fn quantiles_and_the_longest_come_out() {
        let recorder = Recorder::default();
        assert_eq!(recorder.times(), Times::default());
        (1..=1000).for_each(|milli| recorder.record(milli * 1000));
        let times = recorder.times();
        assert_eq!((times.count, times.max_ms), (1000, 1000.0));
        assert!((490.0..=510.0).contains(&times.p50_ms) && (980.0..=1000.0).contains(&times.p99_ms), "{times:?}");
    }
}

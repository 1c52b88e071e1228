//! Times during which something was broken on purpose, and how long it took to be well again.

use crate::{clock::seconds, report::Fault, times::Recorder};
use std::sync::{
    OnceLock,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Faults of one load; later ones are not measured apart.
const MOST: usize = 256;
/// Not yet.
const NEVER: u64 = u64::MAX;

/// All of them. Read for every delivery, hence without a lock.
#[derive(Debug)]
pub(crate) struct Faults {
    windows: Box<[OnceLock<Window>]>,
    count: AtomicUsize,
}

/// One of them. Times are of the load's clock.
#[derive(Debug)]
pub(crate) struct Window {
    name: String,
    began: u64,
    healed: AtomicU64,
    pub(crate) times: Recorder,
    pub(crate) disconnects: AtomicU64,
    recovered_99: AtomicU64,
    recovered: AtomicU64,
}

impl Default for Faults {
    fn default() -> Self {
        Self { windows: (0..MOST).map(|_| OnceLock::new()).collect(), count: AtomicUsize::new(0) }
    }
}

impl Faults {
    /// Something is broken from now on; what was broken before is healed.
    pub(crate) fn begin(&self, name: &str, now: u64) {
        self.heal(now);
        let at = self.count.load(Ordering::Acquire);
        if let Some(place) = self.windows.get(at) {
            place.get_or_init(|| Window {
                name: name.to_owned(),
                began: now,
                healed: AtomicU64::new(NEVER),
                times: Recorder::default(),
                disconnects: AtomicU64::new(0),
                recovered_99: AtomicU64::new(NEVER),
                recovered: AtomicU64::new(NEVER),
            });
            self.count.store(at + 1, Ordering::Release);
        }
    }

    /// It works again. Gives the fault if it was not healed before.
    pub(crate) fn heal(&self, now: u64) -> Option<&Window> {
        let window = self.latest()?;
        window.healed.compare_exchange(NEVER, now, Ordering::AcqRel, Ordering::Acquire).ok()?;
        Some(window)
    }

    /// The last one.
    pub(crate) fn latest(&self) -> Option<&Window> {
        self.all().next_back()
    }

    /// During which one this moment was.
    pub(crate) fn at(&self, moment: u64) -> Option<&Window> {
        self.all().rev().find(|window| window.contains(moment))
    }

    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = &Window> {
        let count = self.count.load(Ordering::Acquire);
        self.windows[..count].iter().filter_map(OnceLock::get)
    }
}

impl Window {
    fn contains(&self, moment: u64) -> bool {
        moment >= self.began && moment < self.healed.load(Ordering::Relaxed)
    }

    /// All but one in a hundred are well again.
    pub(crate) fn nearly_recovered(&self, now: u64) {
        let _ = self.recovered_99.compare_exchange(NEVER, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// All are well again.
    pub(crate) fn recovered(&self, now: u64) {
        self.nearly_recovered(now);
        let _ = self.recovered.compare_exchange(NEVER, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// From healed until all were well again, in microseconds.
    pub(crate) fn recovery(&self) -> Option<u64> {
        let (healed, recovered) = (self.healed.load(Ordering::Relaxed), self.recovered.load(Ordering::Relaxed));
        (recovered != NEVER).then(|| recovered.saturating_sub(healed))
    }

    /// For the report; `start` is the moment of the first send.
    pub(crate) fn report(&self, start: u64) -> Fault {
        let healed = self.healed.load(Ordering::Relaxed);
        let since_healed = |moment: &AtomicU64| {
            let moment = moment.load(Ordering::Relaxed);
            (moment != NEVER).then(|| seconds(moment.saturating_sub(healed)))
        };
        Fault {
            name: self.name.clone(),
            began_s: seconds(self.began.saturating_sub(start)),
            lasted_s: (healed != NEVER).then(|| seconds(healed.saturating_sub(self.began))),
            send_to_device: self.times.times(),
            disconnects: self.disconnects.load(Ordering::Relaxed),
            recovered_99_s: since_healed(&self.recovered_99),
            recovered_s: since_healed(&self.recovered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_belongs_to_the_fault_that_lasted_then() {
        let faults = Faults::default();
        assert!(faults.heal(1).is_none() && faults.at(1).is_none());
        faults.begin("first", 10);
        assert!(faults.heal(20).is_some() && faults.heal(25).is_none());
        faults.begin("second", 30);
        faults.begin("third", 40);
        let name = |moment| faults.at(moment).map(|window| window.name.as_str());
        assert_eq!(
            [9, 10, 19, 20, 30, 40, 99].map(name),
            [None, Some("first"), Some("first"), None, Some("second"), Some("third"), Some("third")]
        );
    }

    #[test]
    fn recovery_is_counted_from_healed() {
        let faults = Faults::default();
        faults.begin("cut", 1_000_000);
        let window = faults.heal(3_000_000).unwrap();
        window.nearly_recovered(4_000_000);
        window.recovered(5_500_000);
        window.recovered(9_000_000);
        assert_eq!(window.recovery(), Some(2_500_000));
        let fault = window.report(500_000);
        assert_eq!((fault.began_s, fault.lasted_s), (0.5, Some(2.0)));
        assert_eq!((fault.recovered_99_s, fault.recovered_s), (Some(1.0), Some(2.5)));
    }
}

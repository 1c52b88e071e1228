//! What one device showed of one channel, kept so short that 15,000 devices fit: the stretches without a hole, and
//! what is missing between.

use std::collections::BTreeSet;
use touchline_ids::Seq;

/// Stretches of what a device showed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Track {
    runs: Vec<Run>,
    /// Passed over and not shown since.
    missing: BTreeSet<Seq>,
    /// The next message may stand anywhere.
    fresh: Fresh,
}

/// From `first` to `last`, both included; holes are in [`Track::missing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    pub(crate) begins: Begins,
}

/// Why a run begins where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begins {
    /// The device knew nothing of the channel.
    New,
    /// The server said `reset` to a device that was in the middle of it.
    Reset,
    /// The user had been removed meanwhile.
    Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Fresh {
    #[default]
    New,
    Reset,
    Gone,
    No,
}

/// How a message fits to what was shown before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The next one.
    Next,
    /// Some are passed over; they may still come, out of order then.
    Ahead,
    /// It was passed over, or stands before everything that was shown.
    Late,
    /// It was shown.
    Again,
}

impl Track {
    /// Takes what the device showed.
    pub(crate) fn show(&mut self, seq: Seq) -> Fit {
        let begins = match self.fresh {
            Fresh::No => return self.continued(seq),
            Fresh::New => Begins::New,
            Fresh::Reset => Begins::Reset,
            Fresh::Gone => Begins::Again,
        };
        self.fresh = Fresh::No;
        self.runs.push(Run { first: seq, last: seq, begins });
        Fit::Next
    }

    fn continued(&mut self, seq: Seq) -> Fit {
        let run = self.runs.last_mut().expect("it is not fresh, so it has a run");
        if seq == run.last.next() {
            run.last = seq;
            return Fit::Next;
        }
        if seq > run.last {
            self.missing.extend((run.last.0 + 1..seq.0).map(Seq));
            run.last = seq;
            return Fit::Ahead;
        }
        if self.missing.remove(&seq) || seq < run.first { Fit::Late } else { Fit::Again }
    }

    /// The server said `reset`. True when the device was in the middle of the channel.
    pub(crate) fn reset(&mut self) -> bool {
        let was_within = self.fresh == Fresh::No;
        if was_within {
            self.fresh = Fresh::Reset;
        }
        was_within
    }

    /// The user is not a member any more.
    pub(crate) fn gone(&mut self) {
        if self.fresh != Fresh::New {
            self.fresh = Fresh::Gone;
        }
    }

    /// What was shown, oldest first.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// What was passed over and never shown.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Seq> + '_ {
        self.missing.iter().copied()
    }

    /// Whether the device follows the channel: it has begun, and the user was not removed since.
    pub(crate) fn follows(&self) -> bool {
        matches!(self.fresh, Fresh::No | Fresh::Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(seqs: &[i64]) -> (Track, Vec<Fit>) {
        let mut track = Track::default();
        let fits = seqs.iter().map(|seq| track.show(Seq(*seq))).collect();
        (track, fits)
    }

    #[test]
    fn a_dense_sequence_is_one_run_wherever_it_begins() {
        let (track, fits) = shown(&[7, 8, 9]);
        assert_eq!(fits, [Fit::Next; 3]);
        assert_eq!(track.runs(), [Run { first: Seq(7), last: Seq(9), begins: Begins::New }]);
        assert_eq!(track.missing().count(), 0);
    }

    #[test]
    fn what_was_passed_over_is_late_when_it_comes_and_missing_when_it_does_not() {
        let (track, fits) = shown(&[1, 4, 2, 2, 4, 5]);
        assert_eq!(fits, [Fit::Next, Fit::Ahead, Fit::Late, Fit::Again, Fit::Again, Fit::Next]);
        assert_eq!(track.missing().collect::<Vec<_>>(), [Seq(3)]);
    }

    #[test]
    fn a_reset_and_a_removal_begin_a_new_run_and_say_why() {
        let (mut track, _) = shown(&[1, 2]);
        assert!(track.reset());
        assert_eq!(track.show(Seq(9)), Fit::Next);
        track.gone();
        assert!(!track.follows());
        assert!(!track.reset(), "the reset of a channel one is back in says nothing");
        track.show(Seq(20));
        let begins: Vec<_> = track.runs().iter().map(|run| run.begins).collect();
        assert_eq!(begins, [Begins::New, Begins::Reset, Begins::Again]);
        assert!(!Track::default().reset());
    }
}

//! What stands where, by everybody's word: senders' answers and devices' sightings of one position must agree. Written
//! without a lock, for every delivery passes here.

use crate::checker::Sighting;
use papaya::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use touchline_ids::{ChannelId, MessageId, Seq};

/// The number of a message that this load sent; none for anything else that stands in a log.
pub(crate) type Number = Option<u64>;

/// Every position anybody spoke of.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    positions: HashMap<(ChannelId, Seq), Position>,
}

/// What the first one to speak of a position said, and when the sender was answered.
#[derive(Debug)]
struct Position {
    message: MessageId,
    number: Number,
    /// 0: not yet.
    answered: AtomicU64,
}

impl Ledger {
    /// A device showed this. False when another message stands there by somebody's word.
    pub(crate) fn shown(&self, sighting: Sighting, number: Number) -> Shown {
        let positions = self.positions.pin();
        let position = positions
            .get_or_insert_with((sighting.channel, sighting.seq), || Position::new(sighting.message, number, 0));
        let agrees = position.message == sighting.message && position.number == number;
        Shown { agrees, answered: position.answered.load(Ordering::Relaxed) }
    }

    /// A sender was answered this. False when another message stands there by somebody's word.
    pub(crate) fn answered(&self, sighting: Sighting, number: u64, at: u64) -> bool {
        let positions = self.positions.pin();
        let position = positions
            .get_or_insert_with((sighting.channel, sighting.seq), || Position::new(sighting.message, Some(number), at));
        // The first answer counts; one that is repeated on purpose comes later.
        let _ = position.answered.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed);
        position.message == sighting.message && position.number == Some(number)
    }

    /// Forgets what stood there: the log lost its tail, and the position is given again.
    pub(crate) fn forget(&self, channel: ChannelId, seq: Seq) {
        self.positions.pin().remove(&(channel, seq));
    }

    /// Everything anybody spoke of.
    pub(crate) fn all(&self) -> Vec<(Sighting, Number)> {
        let positions = self.positions.pin();
        let said = |(&(channel, seq), position): (&(ChannelId, Seq), &Position)| {
            (Sighting { channel, seq, message: position.message }, position.number)
        };
        positions.iter().map(said).collect()
    }
}

/// How a sighting fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// With what others said.
    pub(crate) agrees: bool,
    /// When its sender was answered; 0 when not yet.
    pub(crate) answered: u64,
}

impl Position {
    fn new(message: MessageId, number: Number, answered: u64) -> Self {
        Self { message, number, answered: AtomicU64::new(answered) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_must_name_the_same_message() {
        let ledger = Ledger::default();
        let there = Sighting { channel: ChannelId::new(), seq: Seq(4), message: MessageId::new() };
        let other = Sighting { message: MessageId::new(), ..there };
        assert_eq!(ledger.shown(there, Some(7)), Shown { agrees: true, answered: 0 });
        assert!(ledger.answered(there, 7, 1000));
        assert_eq!(ledger.shown(there, Some(7)), Shown { agrees: true, answered: 1000 });
        assert!(!ledger.shown(there, Some(8)).agrees, "another content");
        assert!(!ledger.shown(other, Some(7)).agrees && !ledger.answered(other, 7, 2000));
        assert_eq!(ledger.all(), [(there, Some(7))]);
        ledger.forget(there.channel, there.seq);
        assert!(ledger.shown(other, Some(7)).agrees);
    }
}

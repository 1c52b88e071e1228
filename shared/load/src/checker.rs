//! The judge of every run: what was accepted, against what each device saw.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Mutex, PoisonError},
};
use touchline_client::{Message, Sent};
use touchline_ids::{ChannelId, MessageId, Seq};

/// One message as a sender or a device knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sighting {
    /// In which channel.
    pub channel: ChannelId,
    /// At which position.
    pub seq: Seq,
    /// Which message.
    pub message: MessageId,
}

/// Collects what the api accepted (2xx), from any number of tasks.
#[derive(Debug, Default)]
pub struct Checker {
    accepted: Mutex<BTreeMap<(ChannelId, Seq), MessageId>>,
    conflicts: Mutex<Vec<Sighting>>,
}

/// What is wrong between what was accepted and what one device saw. Default: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted, and never seen.
    pub lost: Vec<(ChannelId, Seq)>,
    /// Seen more than once.
    pub duplicated: Vec<(ChannelId, Seq)>,
    /// Seen after a later one of the same channel.
    pub out_of_order: Vec<(ChannelId, Seq)>,
    /// Seen, and never accepted in a channel that was: another message at this position, or none.
    pub foreign: Vec<Sighting>,
}

impl From<&Sent> for Sighting {
    fn from(sent: &Sent) -> Self {
        Self { channel: sent.channel_id, seq: sent.seq, message: sent.message_id }
    }
}

impl From<&Message> for Sighting {
    fn from(message: &Message) -> Self {
        Self { channel: message.channel_id, seq: message.seq, message: message.message_id }
    }
}

impl Checker {
    /// Nothing accepted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a 2xx answer. A duplicate's answer may be noted too: it names the same message.
    pub fn accepted(&self, sighting: Sighting) {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let known = *accepted.entry((sighting.channel, sighting.seq)).or_insert(sighting.message);
        if known != sighting.message {
            self.conflicts.lock().unwrap_or_else(PoisonError::into_inner).push(sighting);
        }
    }

    /// Whether exactly this was accepted.
    pub fn knows(&self, sighting: Sighting) -> bool {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.get(&(sighting.channel, sighting.seq)) == Some(&sighting.message)
    }

    /// Every accepted position of a channel, in order.
    pub fn seqs(&self, channel: ChannelId) -> Vec<Seq> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.keys().filter(|(at, _)| *at == channel).map(|(_, seq)| *seq).collect()
    }

    /// Positions that were given to two messages; must be empty.
    pub fn conflicts(&self) -> Vec<Sighting> {
        self.conflicts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Holes in what was accepted in `channel`, from its first accepted position on; must be empty once no answer is
    /// outstanding or unknown.
    pub fn holes(&self, channel: ChannelId) -> Vec<Seq> {
        let seqs = self.seqs(channel);
        let missing = |pair: &[Seq]| (pair[0].0 + 1..pair[1].0).map(Seq).collect::<Vec<_>>();
        seqs.windows(2).flat_map(missing).collect()
    }

    /// Judges what a device that belongs to `channels` saw, in the order it saw it. What it saw in other channels is
    /// foreign.
    pub fn judge(&self, channels: &[ChannelId], seen: &[Sighting]) -> Verdict {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut verdict = Verdict::default();
        let mut found = BTreeSet::new();
        let mut newest: BTreeMap<ChannelId, Seq> = BTreeMap::new();
        for sighting in seen {
            let position = (sighting.channel, sighting.seq);
            if !channels.contains(&sighting.channel) || accepted.get(&position) != Some(&sighting.message) {
                verdict.foreign.push(*sighting);
                continue;
            }
            if !found.insert(position) {
                verdict.duplicated.push(position);
                continue;
            }
            let newest = newest.entry(sighting.channel).or_default();
            if sighting.seq < *newest {
                verdict.out_of_order.push(position);
            }
            *newest = (*newest).max(sighting.seq);
        }
        let expected = accepted.keys().filter(|(channel, _)| channels.contains(channel));
        verdict.lost = expected.filter(|position| !found.contains(position)).copied().collect();
        verdict
    }
}

impl Verdict {
    /// Whether the device saw everything, once, in order, and nothing else.
    pub fn is_exact(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, duplicated, out_of_order, foreign } = self;
        let counts = [lost.len(), duplicated.len(), out_of_order.len(), foreign.len()];
        let [lost, duplicated, out_of_order, foreign] = counts;
        write!(f, "{lost} lost, {duplicated} duplicated, {out_of_order} out of order, {foreign} foreign")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(length: i64) -> (Checker, ChannelId, Vec<Sighting>) {
        let (checker, channel) = (Checker::new(), ChannelId::new());
        let sent: Vec<_> =
            (1..=length).map(|seq| Sighting { channel, seq: Seq(seq), message: MessageId::new() }).collect();
        sent.iter().for_each(|sighting| checker.accepted(*sighting));
        (checker, channel, sent)
    }

    #[test]
    fn everything_once_in_order_is_exact() {
        let (checker, channel, sent) = run(5);
        assert!(checker.judge(&[channel], &sent).is_exact());
        assert_eq!((checker.holes(channel), checker.conflicts()), (vec![], vec![]));
    }

    #[test]
    fn each_fault_is_named() {
        let (checker, channel, sent) = run(5);
        let stranger = Sighting { channel: ChannelId::new(), seq: Seq(1), message: MessageId::new() };
        let other = Sighting { message: MessageId::new(), ..sent[3] };
        let verdict = checker.judge(&[channel], &[sent[0], sent[2], sent[1], sent[2], other, stranger]);
        assert_eq!(verdict.lost, [(channel, Seq(4)), (channel, Seq(5))]);
        assert_eq!(verdict.duplicated, [(channel, Seq(3))]);
        assert_eq!(verdict.out_of_order, [(channel, Seq(2))]);
        assert_eq!(verdict.foreign, [other, stranger]);
        assert_eq!(verdict.to_string(), "2 lost, 1 duplicated, 1 out of order, 2 foreign");
    }

    #[test]
    fn a_hole_and_a_position_given_twice_are_found() {
        let (checker, channel, sent) = run(2);
        checker.accepted(Sighting { channel, seq: Seq(4), message: MessageId::new() });
        checker.accepted(Sighting { message: MessageId::new(), ..sent[0] });
        assert_eq!(checker.holes(channel), [Seq(3)]);
        assert_eq!(checker.conflicts().len(), 1);
    }
}

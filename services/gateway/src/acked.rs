//! How far one user's devices have acked, by channel; and what of that nobody has been told yet.

use touchline_ids::{ChannelId, Seq};

/// Channels remembered per user. Only acks of the last seconds matter.
const CHANNELS: usize = 128;

/// The greatest seq that any device acked, by channel. Full: the oldest channel is overwritten; its messages count as
/// not acked, and a sync makes good for it.
#[derive(Debug, Default)]
pub(crate) struct Acked {
    channels: Vec<Entry>,
    next_overwritten: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    channel: ChannelId,
    seq: Seq,
    untold: bool,
}

impl Acked {
    /// A device holds everything up to `seq`.
    pub(crate) fn raise(&mut self, channel: ChannelId, seq: Seq) {
        let raised = Entry { channel, seq, untold: true };
        if let Some(entry) = self.channels.iter_mut().find(|entry| entry.channel == channel) {
            if seq > entry.seq {
                *entry = raised;
            }
        } else if self.channels.len() < CHANNELS {
            self.channels.push(raised);
        } else {
            self.channels[self.next_overwritten] = raised;
            self.next_overwritten = (self.next_overwritten + 1) % CHANNELS;
        }
    }

    /// Whether a device holds `seq`.
    pub(crate) fn covers(&self, channel: ChannelId, seq: Seq) -> bool {
        self.channels.iter().any(|entry| entry.channel == channel && entry.seq >= seq)
    }

    /// Whether there is something to tell.
    pub(crate) fn has_untold(&self) -> bool {
        self.channels.iter().any(|entry| entry.untold)
    }

    /// What is to be told, each once.
    pub(crate) fn take_untold(&mut self) -> impl Iterator<Item = (ChannelId, Seq)> + '_ {
        let untold = self.channels.iter_mut().filter(|entry| entry.untold);
        untold.map(|entry| {
            entry.untold = false;
            (entry.channel, entry.seq)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembered_channels_are_bounded() {
        let mut acked = Acked::default();
        let channels: Vec<_> = (0..10 * CHANNELS).map(|_| ChannelId::new()).collect();
        channels.iter().for_each(|channel| acked.raise(*channel, Seq(1)));
        assert_eq!(acked.channels.len(), CHANNELS);
        assert!(acked.covers(channels[10 * CHANNELS - 1], Seq(1)));
        assert!(!acked.covers(channels[0], Seq(1)));
    }

    #[test]
    fn what_was_raised_is_told_once() {
        let (mut acked, channel) = (Acked::default(), ChannelId::new());
        acked.raise(channel, Seq(5));
        assert_eq!(acked.take_untold().collect::<Vec<_>>(), [(channel, Seq(5))]);
        acked.raise(channel, Seq(4));
        assert!(!acked.has_untold());
        acked.raise(channel, Seq(6));
        assert_eq!(acked.take_untold().collect::<Vec<_>>(), [(channel, Seq(6))]);
    }
}

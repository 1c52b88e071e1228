//! What this device holds of every channel, and in which order it may show what arrives (PROTOCOL.md, section 6).

use crate::{Cursor, Message, SyncedChannel};
use std::{collections::BTreeMap, ops::RangeInclusive};
use touchline_ids::{ChannelId, Seq};

/// How many messages may wait for one that is missing, over all channels. More than a gateway's queue holds (256), so
/// that only a device that is far behind meets it.
pub(super) const ASIDE: usize = 512;

/// A cursor per channel, and messages that wait for those before them.
#[derive(Debug, Default)]
pub(super) struct Log {
    cursors: BTreeMap<ChannelId, Cursor>,
    aside: BTreeMap<(ChannelId, Seq), Waiting>,
}

/// A message that waits, and how many syncs had begun when it came.
#[derive(Debug)]
struct Waiting {
    message: Message,
    syncs: u64,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was the next one.
    Shown,
    /// It was held already.
    Known,
    /// One before it is missing.
    Aside,
    /// One before it is missing, and so many wait that the farthest of its channel was dropped: a sync must bring it.
    Full,
}

impl Log {
    pub(super) fn new(cursors: Vec<Cursor>) -> Self {
        Self { cursors: cursors.into_iter().map(|cursor| (cursor.channel_id, cursor)).collect(), ..Self::default() }
    }

    /// Takes a message: what can be shown now is appended to `shown`, in order. `syncs` have begun so far.
    pub(super) fn take(&mut self, message: Message, syncs: u64, shown: &mut Vec<Message>) -> Taken {
        let channel = message.channel_id;
        // The first entry of a channel needs nothing before it.
        let held = self.held(channel).or((message.seq == Seq(1)).then_some(Seq(0)));
        match held {
            Some(held) if message.seq <= held => Taken::Known,
            Some(held) if message.seq.0 - 1 == held.0 => {
                self.hold(message, shown);
                self.take_from_aside(channel, shown);
                Taken::Shown
            }
            _ => self.put_aside(message, syncs),
        }
    }

    /// Takes a channel's part of the answer to sync number `sync`; as [`take`](Self::take).
    pub(super) fn take_synced(&mut self, synced: SyncedChannel, sync: u64, shown: &mut Vec<Message>) {
        let SyncedChannel { channel_id, head_seq, messages, reset, .. } = synced;
        if reset {
            // What came before this sync began and is real is in its answer. The rest is of a log that is no more.
            self.drop_aside(|channel, waiting| channel == channel_id && waiting.syncs < sync);
            // The first of the messages, when there is one, begins the log anew.
            let seq = messages.first().map_or(head_seq, |first| Seq(first.seq.0.saturating_sub(1)));
            self.cursors.insert(channel_id, Cursor { channel_id, seq, check: None });
        }
        for message in messages {
            self.take(message, sync, shown);
        }
        self.take_from_aside(channel_id, shown);
    }

    /// One was not a member of this channel when sync number `sync` was answered: whether it was held until now.
    pub(super) fn forget(&mut self, channel: ChannelId, sync: u64) -> bool {
        self.drop_aside(|of, waiting| of == channel && waiting.syncs < sync);
        self.cursors.remove(&channel).is_some()
    }

    /// A whole sync has ended. What waited when it began and waits still is not explained by the server's log: it is of
    /// a channel that one is not in, or of a log that lost its tail.
    pub(super) fn end_sync(&mut self, sync: u64) {
        self.drop_aside(|_, waiting| waiting.syncs < sync);
    }

    /// Whether a message waits for one that is missing.
    pub(super) fn has_hole(&self) -> bool {
        !self.aside.is_empty()
    }

    /// What to sync with: at most `limit` cursors from this channel on, and the channel after the last of them.
    pub(super) fn cursors(&self, from: Option<ChannelId>, limit: usize) -> (Vec<Cursor>, Option<ChannelId>) {
        let from = from.unwrap_or(ChannelId(uuid::Uuid::nil()));
        let mut cursors = self.cursors.range(from..).map(|(_, cursor)| *cursor);
        let some = cursors.by_ref().take(limit).collect();
        (some, cursors.next().map(|cursor| cursor.channel_id))
    }

    /// Up to where a channel is held.
    pub(super) fn held(&self, channel: ChannelId) -> Option<Seq> {
        self.cursors.get(&channel).map(|cursor| cursor.seq)
    }

    /// The farthest message of a channel that came, whatever is missing before it.
    #[cfg(feature = "simulation")]
    pub(super) fn farthest(&self, channel: ChannelId) -> Option<Seq> {
        let aside = self.aside.range(all_of(channel)).next_back();
        aside.map(|((_, seq), _)| *seq).or(self.held(channel))
    }

    fn hold(&mut self, message: Message, shown: &mut Vec<Message>) {
        self.cursors.insert(message.channel_id, message.cursor());
        shown.push(message);
    }

    fn put_aside(&mut self, message: Message, syncs: u64) -> Taken {
        let channel = message.channel_id;
        self.aside.insert((channel, message.seq), Waiting { message, syncs });
        if self.aside.len() <= ASIDE {
            return Taken::Aside;
        }
        let farthest = self.aside.range(all_of(channel)).next_back().map(|(place, _)| *place);
        farthest.map(|place| self.aside.remove(&place));
        Taken::Full
    }

    fn take_from_aside(&mut self, channel: ChannelId, shown: &mut Vec<Message>) {
        while let Some(held) = self.held(channel)
            && let Some(seq) = self.first_aside(channel)
            && (seq <= held || seq.0 - 1 == held.0)
        {
            // What is at or below the cursor came another way meanwhile.
            if let Some(waiting) = self.aside.remove(&(channel, seq))
                && seq > held
            {
                self.hold(waiting.message, shown);
            }
        }
    }

    fn first_aside(&self, channel: ChannelId) -> Option<Seq> {
        self.aside.range(all_of(channel)).next().map(|((_, seq), _)| *seq)
    }

    fn drop_aside(&mut self, unwanted: impl Fn(ChannelId, &Waiting) -> bool) {
        self.aside.retain(|(channel, _), waiting| !unwanted(*channel, waiting));
    }
}

fn all_of(channel: ChannelId) -> RangeInclusive<(ChannelId, Seq)> {
    (channel, Seq(i64::MIN))..=(channel, Seq(i64::MAX))
}

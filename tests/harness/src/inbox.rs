//! What an application would show: a device's messages by the client rules of PROTOCOL.md, deduplicated, in order,
//! without holes.

use crate::{Person, Sighting};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use touchline_client::{Cursor, Message};
use touchline_ids::{ChannelId, Seq};

/// The channels of one device. It outlives its sockets.
#[derive(Debug, Default)]
pub struct Inbox {
    channels: BTreeMap<ChannelId, Channel>,
    resets: usize,
}

#[derive(Debug, Default)]
struct Channel {
    /// Contiguous, in order.
    shown: Vec<Sighting>,
    /// Beyond a hole.
    waiting: BTreeMap<Seq, Sighting>,
}

impl Inbox {
    /// An inbox that knows nothing yet; the first sync tells it where each channel starts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what came over a socket. Messages of channels it does not know yet wait for the next sync.
    pub fn take(&mut self, messages: &[Message]) {
        for message in messages {
            self.channels.entry(message.channel_id).or_default().take(message.into());
        }
    }

    /// Syncs until nothing more is missing, as after every `ready`.
    ///
    /// # Errors
    /// When the api refuses, or answers what does not follow its own rules.
    pub async fn sync(&mut self, person: &Person) -> Result<()> {
        loop {
            let answer = person.client().sync(&self.cursors(), None).await?;
            let mut more = false;
            for synced in &answer.channels {
                let channel = self.channels.entry(synced.channel_id).or_default();
                if synced.reset {
                    self.resets += usize::from(!channel.shown.is_empty());
                    channel.shown.clear();
                    channel.shown.extend(synced.messages.first().map(Sighting::from));
                }
                let before = channel.shown.len();
                synced.messages.iter().for_each(|message| channel.take(message.into()));
                ensure!(!synced.more || channel.shown.len() > before, "a sync with more to come brought nothing");
                more |= synced.more;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Everything shown, in the order in which an application would show it; channel by channel.
    pub fn shown(&self) -> Vec<Sighting> {
        self.channels.values().flat_map(|channel| channel.shown.iter().copied()).collect()
    }

    /// The last message shown of a channel.
    pub fn end(&self, channel: ChannelId) -> Option<Seq> {
        self.channels.get(&channel)?.shown.last().map(|sighting| sighting.seq)
    }

    /// How often a sync made it forget what it had shown.
    pub fn resets(&self) -> usize {
        self.resets
    }

    /// What a sync says of a channel; none before the first sync.
    pub fn cursor(&self, channel: ChannelId) -> Option<Cursor> {
        let last = self.channels.get(&channel)?.shown.last()?;
        Some(Cursor { channel_id: channel, seq: last.seq, check: Some(last.message.check()) })
    }

    fn cursors(&self) -> Vec<Cursor> {
        self.channels.keys().filter_map(|channel| self.cursor(*channel)).collect()
    }
}

impl Channel {
    fn take(&mut self, sighting: Sighting) {
        let Some(last) = self.shown.last() else {
            self.waiting.insert(sighting.seq, sighting);
            return;
        };
        if sighting.seq > last.seq {
            self.waiting.insert(sighting.seq, sighting);
        }
        while let Some(next) = self.shown.last().and_then(|last| self.waiting.remove(&last.seq.next())) {
            self.shown.push(next);
        }
    }
}

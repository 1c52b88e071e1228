//! A channel's log as the api gives it back: what was really stored, and who was in the channel when.

use crate::{checker::Sighting, ledger::Number, text};
use std::collections::HashMap;
use touchline_client::{Client, ClientError, Message};
use touchline_ids::{ChannelId, Seq, UserId};

/// A page's worth; the server's limit.
const PAGE: u32 = 200;

/// A log, or what of it was read.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) channel: ChannelId,
    pub(crate) entries: Vec<Entry>,
    members: HashMap<UserId, Vec<Stay>>,
}

/// One entry of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) sighting: Sighting,
    pub(crate) number: Number,
}

/// From the entry that let somebody in to before the one that removed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stay {
    pub(crate) joined: Seq,
    pub(crate) left: Option<Seq>,
}

impl Log {
    pub(crate) fn new(channel: ChannelId) -> Self {
        Self { channel, entries: Vec::new(), members: HashMap::new() }
    }

    /// Reads on to its end, as somebody who sees all of it.
    pub(crate) async fn read(&mut self, reader: &Client, run: &str) -> Result<(), ClientError> {
        loop {
            let page = reader.history(self.channel, Some(self.head()), None, Some(PAGE)).await?;
            let before = self.head();
            page.messages.iter().for_each(|message| self.take(message, run));
            if !page.more || self.head() == before {
                return Ok(());
            }
        }
    }

    /// Takes the next entry.
    pub(crate) fn take(&mut self, message: &Message, run: &str) {
        let number = text::read(&message.content, run).map(|text| text.number);
        self.entries.push(Entry { sighting: message.into(), number });
        let user = |value: &serde_json::Value| serde_json::from_value::<UserId>(value.clone()).ok();
        let content = &message.content;
        match message.kind.as_str() {
            "created" | "joined" => {
                let users = content["user_ids"].as_array().into_iter().flatten().filter_map(user);
                let stay = Stay { joined: message.seq, left: None };
                users.for_each(|user| self.members.entry(user).or_default().push(stay));
            }
            "left" => {
                let stays = user(&content["user_id"]).and_then(|user| self.members.get_mut(&user));
                if let Some(stay) = stays.and_then(|stays| stays.last_mut()) {
                    stay.left = Some(message.seq);
                }
            }
            _ => {}
        }
    }

    /// Its last entry; 0 when it has none.
    pub(crate) fn head(&self) -> Seq {
        self.entries.last().map_or(Seq(0), |entry| entry.sighting.seq)
    }

    /// When somebody was in the channel, oldest first.
    pub(crate) fn stays(&self, user: UserId) -> &[Stay] {
        self.members.get(&user).map_or(&[], Vec::as_slice)
    }

    /// Whether somebody is in the channel at its end.
    pub(crate) fn has(&self, user: UserId) -> bool {
        self.stays(user).last().is_some_and(|stay| stay.left.is_none())
    }
}

impl Stay {
    /// How many of the seqs from `first` to `last` lie within.
    pub(crate) fn covers(self, first: Seq, last: Seq) -> u64 {
        let end = self.left.map_or(last.0, |left| last.0.min(left.0 - 1));
        u64::try_from(end - first.0.max(self.joined.0) + 1).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stay_covers_what_lies_within_it() {
        let stay = Stay { joined: Seq(5), left: Some(Seq(9)) };
        assert_eq!(stay.covers(Seq(5), Seq(8)), 4);
        assert_eq!(stay.covers(Seq(1), Seq(20)), 4);
        assert_eq!(stay.covers(Seq(9), Seq(20)), 0);
        assert_eq!(stay.covers(Seq(1), Seq(4)), 0);
        assert_eq!(Stay { joined: Seq(5), left: None }.covers(Seq(7), Seq(20)), 14);
    }
}

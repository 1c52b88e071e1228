//! What this device holds of every channel, and in which order it may show what arrives (PROTOCOL.md, section 6).

use std::collections::{BTreeMap, BTreeSet};
use touchline_client::{Cursor, Message, SyncedChannel};
use touchline_ids::{ChannelId, Seq};

/// A cursor per channel, and messages that wait for those before them.
#[derive(Debug, Default)]
pub(crate) struct Log {
    cursors: BTreeMap<ChannelId, Cursor>,
    aside: BTreeMap<(ChannelId, Seq), Message>,
    unacked: BTreeSet<ChannelId>,
}

impl Log {
    /// Takes a message that was pushed: gives back what can be shown now, in order. Nothing when it is held already
    /// or when one before it is missing.
    pub(crate) fn take(&mut self, message: Message) -> Vec<Message> {
        let channel = message.channel_id;
        // The first entry of a channel needs nothing before it.
        let held = self.held(channel).or((message.seq == Seq(1)).then_some(Seq(0)));
        match held {
            Some(held) if message.seq <= held => {
                self.unacked.insert(channel);
                Vec::new()
            }
            Some(held) if message.seq == held.next() => {
                self.hold(&message);
                let mut shown = vec![message];
                self.take_from_aside(channel, &mut shown);
                shown
            }
            _ => {
                self.aside.insert((channel, message.seq), message);
                Vec::new()
            }
        }
    }

    /// Takes a channel's part of a sync: gives back what can be shown now, in order.
    pub(crate) fn take_synced(&mut self, synced: SyncedChannel) -> Vec<Message> {
        let SyncedChannel { channel_id, head_seq, messages, reset, .. } = synced;
        if !reset {
            return messages.into_iter().flat_map(|message| self.take(message)).collect();
        }
        self.cursors.insert(channel_id, Cursor { channel_id, seq: head_seq, check: None });
        self.unacked.insert(channel_id);
        if let Some(last) = messages.last() {
            self.hold(last);
        }
        let mut shown = messages;
        self.take_from_aside(channel_id, &mut shown);
        shown
    }

    /// One is not a member of this channel any more.
    pub(crate) fn forget(&mut self, channel: ChannelId) {
        self.cursors.remove(&channel);
        self.unacked.remove(&channel);
    }

    /// Drops what still waits after a whole sync: whatever it waited for is not coming by itself, and it comes again.
    pub(crate) fn end_sync(&mut self) {
        self.aside.clear();
    }

    /// Whether a message waits for one that is missing.
    pub(crate) fn has_hole(&self) -> bool {
        !self.aside.is_empty()
    }

    /// What to sync with.
    pub(crate) fn cursors(&self) -> Vec<Cursor> {
        self.cursors.values().copied().collect()
    }

    /// What to ack: the cursors of channels of which something arrived since the last time.
    pub(crate) fn take_unacked(&mut self) -> BTreeMap<ChannelId, Seq> {
        let unacked = std::mem::take(&mut self.unacked);
        unacked.into_iter().filter_map(|channel| Some((channel, self.held(channel)?))).collect()
    }

    fn held(&self, channel: ChannelId) -> Option<Seq> {
        self.cursors.get(&channel).map(|cursor| cursor.seq)
    }

    fn hold(&mut self, message: &Message) {
        let channel_id = message.channel_id;
        self.cursors.insert(channel_id, Cursor { channel_id, seq: message.seq, check: Some(message.check) });
        self.unacked.insert(channel_id);
    }

    fn take_from_aside(&mut self, channel: ChannelId, shown: &mut Vec<Message>) {
        while let Some(held) = self.held(channel)
            && let Some(next) = self.aside.remove(&(channel, held.next()))
        {
            self.hold(&next);
            shown.push(next);
        }
        let held = self.held(channel).unwrap_or_default();
        self.aside.retain(|(of, seq), _| *of != channel || *seq > held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchline_ids::{MessageId, UserId};

    fn message(channel_id: ChannelId, seq: i64) -> Message {
        let message_id = MessageId::new();
        Message {
            channel_id,
            seq: Seq(seq),
            message_id,
            sender_id: UserId::new(),
            kind: "text".into(),
            content: "x".into(),
            created_at: "2026-01-02T03:04:05Z".into(),
            check: message_id.check(),
        }
    }

    fn synced(channel_id: ChannelId, seqs: &[i64], head: i64, reset: bool) -> SyncedChannel {
        let messages = seqs.iter().map(|seq| message(channel_id, *seq)).collect();
        SyncedChannel { channel_id, head_seq: Seq(head), messages, more: false, reset }
    }

    fn seqs(messages: &[Message]) -> Vec<i64> {
        messages.iter().map(|message| message.seq.0).collect()
    }

    /// A log that holds `channel` up to 10.
    fn at_ten(channel: ChannelId) -> Log {
        let mut log = Log::default();
        log.take_synced(synced(channel, &[9, 10], 10, true));
        log.take_unacked();
        log
    }

    #[test]
    fn a_message_is_shown_once_however_often_it_comes() {
        let channel = ChannelId::new();
        let mut log = at_ten(channel);
        assert_eq!(seqs(&log.take(message(channel, 11))), [11]);
        for again in [11, 10, 3, 11] {
            assert!(log.take(message(channel, again)).is_empty(), "{again}");
        }
        assert!(log.take_synced(synced(channel, &[10, 11], 11, false)).is_empty());
        assert_eq!(seqs(&log.take_synced(synced(channel, &[11, 12], 12, false))), [12]);
    }

    #[test]
    fn order_is_restored_when_the_missing_one_arrives() {
        let channel = ChannelId::new();
        let mut log = at_ten(channel);
        assert!(log.take(message(channel, 13)).is_empty());
        assert!(log.take(message(channel, 12)).is_empty());
        assert!(log.has_hole());
        assert_eq!(seqs(&log.take(message(channel, 11))), [11, 12, 13]);
        assert!(!log.has_hole());
    }

    #[test]
    fn a_sync_fills_a_hole_and_what_waited_follows_it() {
        let channel = ChannelId::new();
        let mut log = at_ten(channel);
        assert!(log.take(message(channel, 12)).is_empty());
        assert!(log.take(message(channel, 14)).is_empty());
        assert_eq!(seqs(&log.take_synced(synced(channel, &[11, 12, 13], 13, false))), [11, 12, 13, 14]);
        assert!(!log.has_hole());
    }

    #[test]
    fn channels_do_not_mix() {
        let (one, other) = (ChannelId::new(), ChannelId::new());
        let mut log = at_ten(one);
        assert_eq!(seqs(&log.take(message(other, 1))), [1], "a new channel begins with its first entry");
        assert_eq!(seqs(&log.take(message(one, 11))), [11]);
        let stranger = ChannelId::new();
        assert!(log.take(message(stranger, 7)).is_empty(), "nobody knows what came before it");
        assert!(log.has_hole());
        assert_eq!(seqs(&log.take_synced(synced(stranger, &[5, 6], 6, true))), [5, 6, 7]);
    }

    #[test]
    fn acks_name_what_is_held_without_a_hole_and_only_what_changed() {
        let (one, other) = (ChannelId::new(), ChannelId::new());
        let mut log = at_ten(one);
        assert!(log.take_unacked().is_empty());
        log.take(message(one, 12));
        assert!(log.take_unacked().is_empty());
        log.take(message(one, 11));
        log.take_synced(synced(other, &[], 40, true));
        assert_eq!(log.take_unacked(), BTreeMap::from([(one, Seq(12)), (other, Seq(40))]));
        log.take(message(one, 2));
        assert_eq!(log.take_unacked(), BTreeMap::from([(one, Seq(12))]), "a repeated message is acked again");
    }

    #[test]
    fn a_reset_begins_anew_even_below_the_cursor() {
        let channel = ChannelId::new();
        let mut log = at_ten(channel);
        assert_eq!(seqs(&log.take_synced(synced(channel, &[7, 8], 8, true))), [7, 8]);
        assert_eq!(seqs(&log.take(message(channel, 9))), [9]);
        let cursors = log.cursors();
        assert_eq!((cursors.len(), cursors[0].seq, cursors[0].check.is_some()), (1, Seq(9), true));
        log.forget(channel);
        assert!(log.cursors().is_empty() && log.take_unacked().is_empty());
    }

    #[test]
    fn what_no_sync_explains_does_not_wait_for_ever() {
        let mut log = Log::default();
        log.take(message(ChannelId::new(), 5));
        log.end_sync();
        assert!(!log.has_hole());
    }
}

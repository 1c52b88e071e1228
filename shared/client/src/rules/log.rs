//! What this device holds of every channel, and in which order it may show what arrives (PROTOCOL.md, section 6).

use crate::{Cursor, Message, SyncedChannel};
use std::{collections::BTreeMap, ops::RangeInclusive};
use touchline_ids::{ChannelId, Check, Seq};

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

/// Where a message belongs, by what is held.
enum Place {
    Held,
    HeldByAnother,
    Next,
    /// Or nobody knows.
    Later,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was the next one.
    Shown,
    /// It was held already.
    Known,
    /// Another one is held in its place: one of the two is of a log that lost its tail.
    Other,
    /// One before it is missing, or it does not follow the one that is held: a sync tells.
    Aside,
    /// One before it is missing, and so many wait that the farthest of its channel was dropped: a sync must bring it.
    Full,
}

impl Log {
    pub(super) fn new(cursors: Vec<Cursor>) -> Self {
        Self { cursors: cursors.into_iter().map(|cursor| (cursor.channel_id, cursor)).collect(), ..Self::default() }
    }

    /// Takes a message that was pushed: what can be shown now is appended to `shown`, in order. `syncs` have begun so
    /// far.
    pub(super) fn take(&mut self, message: Message, syncs: u64, shown: &mut Vec<Message>) -> Taken {
        let channel = message.channel_id;
        match self.place_of(&message) {
            Place::Held => Taken::Known,
            Place::HeldByAnother => Taken::Other,
            Place::Next if self.follows(&message) => {
                self.hold(message, shown);
                self.take_from_aside(channel, shown);
                Taken::Shown
            }
            Place::Next | Place::Later => self.put_aside(message, syncs),
        }
    }

    /// Takes a channel's part of the answer to sync number `sync`; as [`take`](Self::take), but for what follows what:
    /// the server has compared the cursor. Whether that is so still: a cursor that was raised meanwhile may be of a
    /// log that is no more.
    pub(super) fn take_synced(&mut self, synced: SyncedChannel, sync: u64, shown: &mut Vec<Message>) -> bool {
        let SyncedChannel { channel_id, head_seq, messages, reset, .. } = synced;
        if reset {
            // What came before this sync began and is real is in its answer. The rest is of a log that is no more.
            self.drop_aside(|channel, waiting| channel == channel_id && waiting.syncs < sync);
            // The first of the messages, when there is one, begins the log anew.
            let seq = messages.first().map_or(head_seq, |first| Seq(first.seq.0.saturating_sub(1)));
            self.cursors.insert(channel_id, Cursor { channel_id, seq, check: None });
        }
        for message in messages {
            match self.place_of(&message) {
                Place::Held => {}
                Place::HeldByAnother => return false,
                Place::Next => self.hold(message, shown),
                Place::Later => _ = self.put_aside(message, sync),
            }
        }
        self.take_from_aside(channel_id, shown);
        true
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

    fn place_of(&self, message: &Message) -> Place {
        // The first entry of a channel needs nothing before it.
        let held = self.held(message.channel_id).or((message.seq == Seq(1)).then_some(Seq(0)));
        match held {
            Some(held) if message.seq == held && self.check(message).is_some_and(|held| held != message.check) => {
                Place::HeldByAnother
            }
            Some(held) if message.seq <= held => Place::Held,
            Some(held) if message.seq.0 - 1 == held.0 => Place::Next,
            _ => Place::Later,
        }
    }

    /// Whether the next message follows the one that is held, as far as both are known.
    pub(super) fn follows(&self, next: &Message) -> bool {
        self.check(next).zip(next.prev).is_none_or(|(held, prev)| held == prev)
    }

    /// The check of the last entry held of this message's channel.
    fn check(&self, message: &Message) -> Option<Check> {
        self.cursors.get(&message.channel_id)?.check
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
        while let Some((at, first)) = self.aside.range(all_of(channel)).next() {
            let (at, next) = (*at, &first.message);
            let is_next = match self.place_of(next) {
                Place::Later => return,
                Place::Next if !self.follows(next) => return,
                Place::Next => true,
                // It came another way meanwhile.
                Place::Held | Place::HeldByAnother => false,
            };
            if let Some(waiting) = self.aside.remove(&at)
                && is_next
            {
                self.hold(waiting.message, shown);
            }
        }
    }

    fn drop_aside(&mut self, unwanted: impl Fn(ChannelId, &Waiting) -> bool) {
        self.aside.retain(|(channel, _), waiting| !unwanted(*channel, waiting));
    }
}

fn all_of(channel: ChannelId) -> RangeInclusive<(ChannelId, Seq)> {
    (channel, Seq(i64::MIN))..=(channel, Seq(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::tests::message;
    use touchline_ids::MessageId;

    fn synced(channel_id: ChannelId, seqs: &[i64], head: i64, reset: bool) -> SyncedChannel {
        let messages = seqs.iter().map(|seq| message(channel_id, *seq)).collect();
        SyncedChannel { channel_id, head_seq: Seq(head), messages, more: false, reset }
    }

    /// What is shown when this message is pushed after `syncs` syncs.
    fn push(log: &mut Log, channel: ChannelId, seq: i64, syncs: u64) -> Vec<i64> {
        let mut shown = Vec::new();
        log.take(message(channel, seq), syncs, &mut shown);
        shown.iter().map(|message| message.seq.0).collect()
    }

    fn sync(log: &mut Log, synced: SyncedChannel, number: u64) -> Vec<i64> {
        let mut shown = Vec::new();
        log.take_synced(synced, number, &mut shown);
        shown.iter().map(|message| message.seq.0).collect()
    }

    /// A log that holds `channel` up to 10, by its first sync.
    fn at_ten(channel: ChannelId) -> Log {
        let mut log = Log::default();
        assert_eq!(sync(&mut log, synced(channel, &[9, 10], 10, true), 1), [9, 10]);
        log
    }

    #[test]
    fn a_message_is_shown_once_however_often_it_comes() {
        let channel = ChannelId::new();
        let mut log = at_ten(channel);
        assert_eq!(push(&mut log, channel, 11, 1), [11]);
        for again in [11, 10, 3, 11] {
            assert!(push(&mut log, channel, again, 1).is_empty(), "{again}");
        }
        assert!(sync(&mut log, synced(channel, &[10, 11], 11, false), 2).is_empty());
        assert_eq!(sync(&mut log, synced(channel, &[11, 12], 12, false), 3), [12]);
    }

    #[test]
    fn order_is_restored_when_the_missing_one_arrives() {
        let channel = ChannelId::new();
        let mut log = at_ten(channel);
        assert!(push(&mut log, channel, 13, 1).is_empty());
        assert!(push(&mut log, channel, 12, 1).is_empty());
        assert!(log.has_hole());
        assert_eq!(push(&mut log, channel, 11, 1), [11, 12, 13]);
        assert!(!log.has_hole());
    }

    #[test]
    fn a_sync_fills_a_hole_and_what_waited_follows_it() {
        let channel = ChannelId::new();
        let mut log = at_ten(channel);
        assert!(push(&mut log, channel, 12, 1).is_empty());
        assert!(push(&mut log, channel, 14, 1).is_empty());
        assert_eq!(sync(&mut log, synced(channel, &[11, 12, 13], 13, false), 2), [11, 12, 13, 14]);
        assert!(!log.has_hole());
    }

    #[test]
    fn channels_do_not_mix() {
        let (one, other) = (ChannelId::new(), ChannelId::new());
        let mut log = at_ten(one);
        assert_eq!(push(&mut log, other, 1, 1), [1], "a new channel begins with its first entry");
        assert_eq!(push(&mut log, one, 11, 1), [11]);
        let stranger = ChannelId::new();
        assert!(push(&mut log, stranger, 7, 2).is_empty(), "nobody knows what came before it");
        assert_eq!(sync(&mut log, synced(stranger, &[5, 6], 6, true), 2), [5, 6, 7]);
    }

    #[test]
    fn a_reset_begins_anew_even_below_the_cursor() {
        let channel = ChannelId::new();
        let mut log = at_ten(channel);
        assert!(push(&mut log, channel, 12, 1).is_empty());
        assert_eq!(sync(&mut log, synced(channel, &[7, 8], 8, true), 2), [7, 8]);
        assert!(!log.has_hole(), "what waited was of the log before");
        assert_eq!(push(&mut log, channel, 9, 2), [9]);
        let (cursors, _) = log.cursors(None, 10);
        assert_eq!((cursors.len(), cursors[0].seq, cursors[0].check.is_some()), (1, Seq(9), true));
        assert!(log.forget(channel, 3) && !log.forget(channel, 3));
        assert!(log.cursors(None, 10).0.is_empty());
    }

    #[test]
    fn an_empty_reset_begins_after_the_head() {
        let channel = ChannelId::new();
        let mut log = Log::default();
        assert!(sync(&mut log, synced(channel, &[], 40, true), 1).is_empty());
        assert_eq!(push(&mut log, channel, 41, 1), [41]);
    }

    #[test]
    fn only_what_came_before_a_sync_is_explained_by_it() {
        let (channel, stranger) = (ChannelId::new(), ChannelId::new());
        let mut log = at_ten(channel);
        push(&mut log, stranger, 5, 1);
        // The second sync has begun, and this one overtook the answer, and the message before it.
        push(&mut log, channel, 12, 2);
        log.end_sync(2);
        assert!(log.has_hole());
        assert_eq!(push(&mut log, channel, 11, 2), [11, 12]);
        assert!(!log.has_hole(), "the stranger's is of a channel that one is not in");
    }

    /// Entries of a log that is no other's, each with the check of the one before it.
    fn chain(channel: ChannelId, seqs: std::ops::RangeInclusive<i64>, before: Option<&Message>) -> Vec<Message> {
        let mut prev = before.map(|message| message.check);
        let entries = seqs.map(|seq| {
            let check = MessageId::new().check();
            let message = Message { check, prev, ..message(channel, seq) };
            prev = Some(message.check);
            message
        });
        entries.collect()
    }

    #[test]
    fn a_message_of_another_log_waits_for_the_sync() {
        let channel = ChannelId::new();
        let log = chain(channel, 1..=12, None);
        // The server lost 10 and gave its place, and the next ones, to others.
        let other = chain(channel, 10..=12, Some(&log[8]));
        let (mut device, mut shown) = (Log::default(), Vec::new());
        log[..10].iter().for_each(|message| assert_eq!(device.take(message.clone(), 1, &mut shown), Taken::Shown));
        assert_eq!(device.take(other[1].clone(), 1, &mut shown), Taken::Aside, "it does not follow the lost one");
        assert_eq!(device.take(log[11].clone(), 1, &mut shown), Taken::Aside);
        assert_eq!(device.take(log[10].clone(), 1, &mut shown), Taken::Shown, "this one does, and 12 follows");
        assert_eq!((device.held(channel), device.has_hole(), shown.len()), (Some(Seq(12)), false, 12));
        assert_eq!(device.take(log[11].clone(), 1, &mut shown), Taken::Known);
        assert_eq!(device.take(other[2].clone(), 1, &mut shown), Taken::Other);
        let anew = SyncedChannel { channel_id: channel, head_seq: Seq(12), messages: other, more: false, reset: true };
        assert!(device.take_synced(anew, 2, &mut shown));
        assert_eq!((device.held(channel), shown.len()), (Some(Seq(12)), 15));
    }

    #[test]
    fn an_answer_that_the_cursor_overtook_is_compared_again() {
        let channel = ChannelId::new();
        let log = chain(channel, 1..=11, None);
        let other = chain(channel, 10..=12, Some(&log[8]));
        let (mut device, mut shown) = (Log::default(), Vec::new());
        // Asked for at 9; 10 and 11 of the lost log were pushed before the answer came.
        log.iter().for_each(|message| assert_eq!(device.take(message.clone(), 1, &mut shown), Taken::Shown));
        let answer =
            SyncedChannel { channel_id: channel, head_seq: Seq(12), messages: other, more: false, reset: false };
        assert!(!device.take_synced(answer, 1, &mut shown));
        assert_eq!((device.held(channel), shown.len()), (Some(Seq(11)), 11));
    }

    #[test]
    fn when_too_many_wait_the_farthest_is_dropped() {
        let channel = ChannelId::new();
        let mut log = at_ten(channel);
        let mut shown = Vec::new();
        for seq in 0..ASIDE as i64 {
            assert_eq!(log.take(message(channel, 12 + seq), 1, &mut shown), Taken::Aside);
        }
        assert_eq!(log.take(message(channel, 10_000), 1, &mut shown), Taken::Full);
        let all: Vec<_> = (11..12 + ASIDE as i64).collect();
        assert_eq!(push(&mut log, channel, 11, 1), all);
    }

    #[test]
    fn no_number_of_the_server_overflows() {
        let channel = ChannelId::new();
        let mut log = Log::default();
        for seq in [i64::MIN, i64::MAX, 0, -1, 1] {
            sync(&mut log, synced(channel, &[], seq, true), 1);
            sync(&mut log, synced(channel, &[seq], seq, true), 1);
            for pushed in [i64::MIN, i64::MAX, 0, -1, 1] {
                push(&mut log, channel, pushed, 1);
            }
        }
    }
}

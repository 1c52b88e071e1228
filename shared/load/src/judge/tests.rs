//! Each wrong log and its name.

use super::*;
use crate::{report::Broken, text};
use serde_json::json;
use touchline_client::Message;
use touchline_ids::Check;

const RUN: &str = "run";

/// A channel of ada and bob with messages 0, 1, … at 2, 3, …; bob's phone showed all of it.
struct Case {
    log: Log,
    outcomes: Vec<Outcome>,
    said: Vec<(Sighting, Number)>,
    seen: Vec<Seen>,
    spans: HashMap<ChannelId, Span>,
    bob: UserId,
    resets_expected: bool,
}

fn entry(channel: ChannelId, seq: i64, kind: &str, content: serde_json::Value) -> Message {
    Message {
        channel_id: channel,
        seq: Seq(seq),
        message_id: MessageId::new(),
        sender_id: UserId::new(),
        kind: kind.into(),
        content,
        created_at: "2026-01-02T03:04:05Z".into(),
        check: Check(0),
        prev: None,
    }
}

fn seen(user: UserId, channel: ChannelId, seqs: impl IntoIterator<Item = i64>) -> Seen {
    let mut track = Track::default();
    seqs.into_iter().for_each(|seq| _ = track.show(Seq(seq)));
    Seen { device: "phone".into(), user, tracks: HashMap::from([(channel, track)]), from_start: true }
}

impl Case {
    fn new(messages: u64) -> Self {
        let (ada, bob) = (UserId::new(), UserId::new());
        let channel = ChannelId::new();
        let mut log = Log::new(channel);
        log.take(&entry(channel, 1, "created", json!({"name": "x", "user_ids": [ada, bob]})), RUN);
        let mut case = Self {
            seen: vec![seen(bob, channel, 1..=1 + messages.cast_signed())],
            spans: HashMap::from([(channel, Span { start: Seq(1), end: Seq(1 + messages.cast_signed()) })]),
            log,
            outcomes: Vec::new(),
            said: Vec::new(),
            bob,
            resets_expected: false,
        };
        (0..messages).for_each(|number| case.send(number));
        case
    }

    /// Sent at 10, 20, … and answered 5 later.
    fn send(&mut self, number: u64) {
        let (channel, sent) = (self.log.channel, (number + 1) * 10);
        let message =
            entry(channel, self.log.head().next().0, "text", text::write(RUN, text::Text { number, sent }, 3));
        self.log.take(&message, RUN);
        self.said.push(((&message).into(), Some(number)));
        let end = End::Accepted { seq: message.seq, message: message.message_id, sent, answered: sent + 5 };
        self.outcomes.push(Outcome { number, channel, end });
    }

    fn event(&mut self, kind: &str, content: serde_json::Value) {
        self.log.take(&entry(self.log.channel, self.log.head().next().0, kind, content), RUN);
    }

    fn phone_shows(&mut self, seqs: impl IntoIterator<Item = i64>) {
        self.seen = vec![seen(self.bob, self.log.channel, seqs)];
    }

    fn broken(&self) -> Broken {
        let evidence = Evidence {
            outcomes: &self.outcomes,
            logs: std::slice::from_ref(&self.log),
            spans: &self.spans,
            said: &self.said,
            seen: &self.seen,
            resets_expected: self.resets_expected,
        };
        evidence.judge().broken
    }
}

#[test]
fn everything_once_in_order_is_clean() {
    assert_eq!(Case::new(5).broken(), Broken::default());
}

#[test]
fn what_a_device_passed_over_did_not_reach_or_did_not_begin_with_is_lost() {
    for (seqs, lost) in [(vec![1, 2, 3, 5, 6], 1), (vec![1, 2, 3], 3), (vec![5, 6], 3), (vec![], 5)] {
        let mut case = Case::new(5);
        case.phone_shows(seqs.clone());
        assert_eq!(case.broken(), Broken { lost, ..Broken::default() }, "{seqs:?}");
    }
}

#[test]
fn a_device_that_came_later_may_begin_later_but_not_end_earlier() {
    let mut case = Case::new(5);
    case.phone_shows([4, 5, 6]);
    case.seen[0].from_start = false;
    assert_eq!(case.broken(), Broken::default());
    case.phone_shows([4, 5]);
    case.seen[0].from_start = false;
    assert_eq!(case.broken().lost, 1);
}

#[test]
fn a_reset_that_passes_something_over_is_a_loss_unless_it_is_expected() {
    let mut case = Case::new(5);
    let mut track = Track::default();
    [1, 2].into_iter().for_each(|seq| _ = track.show(Seq(seq)));
    track.reset();
    [5, 6].into_iter().for_each(|seq| _ = track.show(Seq(seq)));
    case.seen[0].tracks.insert(case.log.channel, track);
    assert_eq!(case.broken(), Broken { lost: 2, ..Broken::default() });
    case.resets_expected = true;
    assert_eq!(case.broken(), Broken::default());
}

#[test]
fn what_stands_elsewhere_twice_or_nowhere_is_named() {
    let mut case = Case::new(3);
    case.log.entries[3].number = Some(0);
    case.said.pop();
    assert_eq!(case.broken(), Broken { not_in_log: 1, twice_in_log: 1, ..Broken::default() });

    let mut case = Case::new(3);
    case.log.entries.remove(2);
    let broken = Broken { not_in_log: 1, holes_in_log: 1, foreign: 1, ..Broken::default() };
    assert_eq!(case.broken(), broken);
}

#[test]
fn what_was_shown_and_does_not_stand_there_is_foreign() {
    let mut case = Case::new(3);
    case.said[1].0.message = MessageId::new();
    assert_eq!(case.broken(), Broken { foreign: 1, ..Broken::default() });
    let mut case = Case::new(3);
    case.said[1].1 = None;
    assert_eq!(case.broken().foreign, 1, "another content");
}

#[test]
fn a_refused_message_stands_nowhere_and_an_unknown_one_may() {
    let mut case = Case::new(3);
    case.outcomes[1].end = End::Refused;
    assert_eq!(case.broken(), Broken { refused_yet_delivered: 1, ..Broken::default() });
    case.outcomes[1].end = End::Unresolved;
    assert_eq!(case.broken(), Broken::default());
}

#[test]
fn who_was_answered_before_the_other_was_sent_stands_before_it() {
    let mut case = Case::new(3);
    let swap = |outcome: &mut Outcome, at: u64| {
        if let End::Accepted { sent, answered, .. } = &mut outcome.end {
            (*sent, *answered) = (at, at + 5);
        }
    };
    swap(&mut case.outcomes[0], 30);
    swap(&mut case.outcomes[2], 10);
    // 4 was answered at 15; 3 was sent at 20 and 2 at 30.
    assert_eq!(case.broken(), Broken { against_sender_order: 2, ..Broken::default() });
    // At the same time there is no order.
    (0..3).for_each(|at| swap(&mut case.outcomes[at], 10));
    assert_eq!(case.broken(), Broken::default());
}

#[test]
fn a_member_sees_their_stay_and_nothing_besides() {
    let mut case = Case::new(2);
    let bob = case.bob;
    case.event("left", json!({"user_id": bob}));
    case.send(2);
    let head = case.log.head();
    case.spans.insert(case.log.channel, Span { start: Seq(1), end: head });
    case.phone_shows(1..=3);
    assert_eq!(case.broken(), Broken::default(), "up to before the entry that removed them");
    case.phone_shows(1..=2);
    assert_eq!(case.broken(), Broken::default(), "who is removed need not get the rest");
    case.phone_shows(1..=5);
    assert_eq!(case.broken(), Broken { outside_membership: 2, ..Broken::default() });
}

#[test]
fn who_comes_back_begins_again_and_is_entitled_to_the_rest() {
    let mut case = Case::new(2);
    let (bob, channel) = (case.bob, case.log.channel);
    case.event("left", json!({"user_id": bob}));
    case.send(2);
    case.event("joined", json!({"user_ids": [bob]}));
    case.send(3);
    case.spans.insert(channel, Span { start: Seq(1), end: case.log.head() });
    let mut track = Track::default();
    (1..=3).for_each(|seq| _ = track.show(Seq(seq)));
    track.gone();
    case.seen[0].tracks.insert(channel, track.clone());
    assert_eq!(case.broken(), Broken { lost: 2, ..Broken::default() });
    (6..=7).for_each(|seq| _ = track.show(Seq(seq)));
    case.seen[0].tracks.insert(channel, track);
    assert_eq!(case.broken(), Broken::default());
}

#[test]
fn a_stranger_who_shows_anything_is_outside_of_membership() {
    let mut case = Case::new(3);
    case.seen.push(seen(UserId::new(), case.log.channel, [2]));
    assert_eq!(case.broken(), Broken { outside_membership: 1, ..Broken::default() });
}

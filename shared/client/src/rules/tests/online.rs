//! While a socket is open: order, holes, acks, counts, silence.

use super::*;

fn is_ping(action: &Action) -> bool {
    matches!(action, Action::Ping { .. })
}

#[test]
fn a_device_connects_then_syncs_then_has_caught_up() {
    let mut device = Driven::new(options());
    device.connect();
    assert!(matches!(&device.told[..], [Event::Online { moved: false, gateway, .. }] if gateway == "ws://gateway-0"));
    device.answer_sync(synced(ChannelId::new(), [5, 6], true));
    assert_eq!(device.shown(), [5, 6]);
    assert!(matches!(device.told[1], Event::Reset { head_seq: Seq(6), held: None, .. }));
    assert!(matches!(device.told[4], Event::CaughtUp { cause: SyncCause::Ready, .. }));
}

#[test]
fn a_hole_that_stays_is_synced_once_after_200_ms() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, pushed(channel, 12));
    device.wait(millis(199));
    device.frame(1, pushed(channel, 13));
    assert_eq!(device.syncs(), 0);
    device.wait(millis(1));
    device.frame(1, pushed(channel, 14));
    device.wait(seconds(5));
    assert_eq!(device.syncs(), 1);
    let cursors = device.answer_sync(synced(channel, [11, 12, 13, 14], false));
    assert_eq!((cursors.len(), cursors[0].seq), (1, Seq(10)));
    device.wait(seconds(20));
    assert_eq!((device.shown(), device.syncs()), (vec![11, 12, 13, 14], 0));
    assert!(device.told.iter().any(|event| matches!(event, Event::CaughtUp { cause: SyncCause::Hole, .. })));
}

#[test]
fn a_hole_that_is_filled_in_time_is_not_synced() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, pushed(channel, 12));
    device.wait(millis(150));
    device.frame(1, pushed(channel, 11));
    device.wait(seconds(20));
    assert_eq!((device.shown(), device.syncs()), (vec![11, 12], 0));
    // The next hole has its own 200 ms.
    device.frame(1, pushed(channel, 14));
    device.wait(millis(199));
    assert_eq!(device.syncs(), 0);
    device.wait(millis(1));
    assert_eq!(device.syncs(), 1);
}

#[test]
fn a_hole_that_opens_during_a_sync_gets_one_of_its_own() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, pushed(channel, 12));
    device.wait(millis(200));
    let (call, _) = device.sync();
    // Overtakes 13 while the answer, which was made before either, is on its way.
    device.frame(1, pushed(channel, 14));
    device.rules.synced(call, Ok(synced(channel, [11, 12], false)), device.now);
    device.wait(millis(200));
    let cursors = device.answer_sync(synced(channel, [13, 14], false));
    assert_eq!((cursors[0].seq, device.shown()), (Seq(12), vec![11, 12, 13, 14]));
}

#[test]
fn another_message_at_the_cursor_is_a_reason_to_sync_and_is_not_acked() {
    let (mut device, channel) = Driven::online(options());
    let other = message(ChannelId::new(), 10);
    device.frame(1, Frame::Message(Message { channel_id: channel, ..other }));
    assert_eq!((device.acks().len(), device.syncs()), (0, 1));
    device.answer_sync(nothing_new());
    device.wait(seconds(20));
    assert_eq!((device.shown(), device.syncs()), (vec![], 0), "the server found the cursor right: that was the end");
}

#[test]
fn an_answer_that_does_not_fit_is_not_acked_and_asked_for_again() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, pushed(channel, 12));
    device.wait(millis(200));
    let (call, _) = device.sync();
    device.frame(1, pushed(channel, 11));
    let acks = device.acks().len();
    // Written before 11 and 12 were lost and given to others; what was pushed since moved the cursor.
    let mut answer = synced(channel, [11, 12, 13], false);
    answer.channels[0].messages[1].check = message(ChannelId::new(), 12).check;
    device.rules.synced(call, Ok(answer), device.now);
    let cursors = device.answer_sync(nothing_new());
    assert_eq!((cursors[0].seq, device.shown()), (Seq(12), vec![11, 12]));
    device.wait(millis(900));
    assert_eq!(device.acks().len() - acks, 0);
}

#[test]
fn a_reset_that_goes_back_is_followed_by_one_more_sync() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, Frame::Message(Message { channel_id: channel, ..message(ChannelId::new(), 10) }));
    let (call, _) = device.sync();
    // Pushed after the answer was written: below the cursor it is dropped as known.
    device.frame(1, pushed(channel, 8));
    device.rules.synced(call, Ok(synced(channel, [6, 7], true)), device.now);
    let cursors = device.answer_sync(synced(channel, [8], false));
    assert_eq!((cursors[0].seq, device.shown(), device.syncs()), (Seq(7), vec![6, 7, 8], 0));
}

#[test]
fn acks_are_contiguous_and_at_most_one_a_second() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, pushed(channel, 11));
    assert_eq!(device.acks(), [BTreeMap::from([(channel, Seq(11))])]);
    for seq in [13, 14, 12, 16] {
        device.frame(1, pushed(channel, seq));
    }
    assert_eq!(device.acks().len(), 1);
    device.wait(seconds(1));
    assert_eq!(device.acks()[1..], [BTreeMap::from([(channel, Seq(14))])]);
    device.wait(seconds(9));
    assert_eq!(device.acks().len(), 2, "nothing new, nothing to say");
}

#[test]
fn what_is_held_already_is_acked_again() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, pushed(channel, 3));
    assert_eq!(device.acks(), [BTreeMap::from([(channel, Seq(10))])]);
    assert!(device.shown().is_empty());
}

#[test]
fn a_device_that_is_not_to_ack_never_does() {
    let (mut device, channel) = Driven::online(Options { ack: false, ..options() });
    device.frame(1, pushed(channel, 11));
    device.wait(seconds(10));
    assert!(device.acks().is_empty());
}

#[test]
fn a_pong_that_counts_more_messages_than_came_is_a_reason_to_sync() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, pushed(channel, 11));
    device.frame(1, Frame::Pong { frames: 1 });
    assert_eq!(device.syncs(), 0);
    device.frame(1, Frame::Pong { frames: 2 });
    assert_eq!(device.syncs(), 1);
    device.answer_sync(synced(channel, [12], false));
    device.frame(1, Frame::Pong { frames: 2 });
    assert_eq!((device.syncs(), device.shown()), (0, vec![11, 12]));
}

#[test]
fn of_two_reasons_during_a_sync_one_more_sync_comes() {
    let (mut device, _) = Driven::online(options());
    device.frame(1, Frame::Pong { frames: 1 });
    device.frame(1, Frame::Pong { frames: 2 });
    device.frame(1, Frame::Pong { frames: 3 });
    assert_eq!(device.syncs(), 1);
    device.answer_sync(nothing_new());
    assert_eq!(device.syncs(), 1);
    device.answer_sync(nothing_new());
    assert_eq!(device.syncs(), 0);
}

#[test]
fn a_ready_that_comes_again_starts_a_sync_over() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, Frame::Pong { frames: 1 });
    let (before, _) = device.sync();
    device.frame(1, Frame::Ready { session_id: SessionId::new(), heartbeat_s: 25, expires_in_s: 900 });
    device.rules.synced(before, Ok(synced(channel, [11], false)), device.now);
    assert!(device.shown().is_empty(), "that answer may be older than the session's second ready");
    device.answer_sync(synced(channel, [11, 12], false));
    assert_eq!((device.shown(), device.syncs()), (vec![11, 12], 0));
}

#[test]
fn pings_go_out_every_heartbeat_and_silence_ends_a_socket() {
    let mut device = Driven::new(options());
    device.connect();
    device.answer_sync(nothing_new());
    device.wait(seconds(25));
    assert_eq!(device.wants(is_ping), 1, "the first within a heartbeat");
    device.wait(seconds(25));
    assert_eq!(device.wants(is_ping), 2);
    device.frame(1, Frame::Pong { frames: 0 });
    device.wait(seconds(59));
    assert!(device.rules.is_online());
    device.wait(seconds(1));
    assert!(!device.rules.is_online());
    assert_eq!(device.wants(|action| matches!(action, Action::Drop { connection: ConnectionNumber(1) })), 1);
    assert!(device.again_in() <= millis(500));
}

#[test]
fn silence_means_nothing_while_the_application_does_not_read() {
    let (mut device, _) = Driven::online(options());
    device.rules.set_reading(false, device.now);
    device.wait(seconds(300));
    assert!(device.rules.is_online() && device.wants(is_ping) > 10);
    device.rules.set_reading(true, device.now);
    device.wait(seconds(59));
    assert!(device.rules.is_online());
    device.wait(seconds(1));
    assert!(!device.rules.is_online());
}

#[test]
fn more_to_come_is_asked_for_at_once_and_no_progress_not_so_fast() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, Frame::Pong { frames: 9 });
    let more = |seqs: std::ops::RangeInclusive<i64>| {
        let mut answer = synced(channel, seqs, false);
        answer.channels[0].more = true;
        answer
    };
    device.answer_sync(more(11..=12));
    let cursors = device.answer_sync(more(13..=14));
    assert_eq!(cursors[0].seq, Seq(12));
    device.answer_sync(more(13..=14));
    assert_eq!(device.syncs(), 0);
    device.wait(millis(500));
    device.answer_sync(synced(channel, [15], false));
    assert_eq!(device.shown(), [11, 12, 13, 14, 15]);
}

#[test]
fn a_channel_that_appears_during_a_sync_is_shown_once() {
    let (mut device, _) = Driven::online(options());
    let new = ChannelId::new();
    device.frame(1, Frame::Pong { frames: 1 });
    let (call, _) = device.sync();
    device.frame(1, pushed(new, 1));
    device.frame(1, pushed(new, 2));
    // It was not named, so its newest come with `reset`.
    device.rules.synced(call, Ok(synced(new, [1, 2, 3], true)), device.now);
    device.settle();
    assert_eq!(device.shown(), [1, 2, 3]);
    assert!(!device.told.iter().any(|event| matches!(event, Event::Reset { .. })));
}

#[test]
fn a_reset_and_a_channel_that_is_gone_are_told() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, Frame::Pong { frames: 1 });
    device.answer_sync(synced(channel, [3, 4], true));
    assert!(matches!(device.told[0], Event::Reset { held: Some(Seq(10)), head_seq: Seq(4), .. }));
    assert_eq!(device.shown(), [3, 4]);
    device.frame(1, Frame::Pong { frames: 2 });
    device.answer_sync(Synced { channels: vec![], gone: vec![channel, ChannelId::new()] });
    let gone = device.told.iter().filter(|event| matches!(event, Event::Gone(_)));
    assert_eq!((gone.count(), device.rules.cursors().len()), (1, 0));
}

#[test]
fn more_channels_than_one_request_may_name_are_synced_in_parts() {
    let mut channels: Vec<_> = (0..2_500).map(|_| ChannelId::new()).collect();
    channels.sort();
    let cursors = channels.iter().map(|channel| message(*channel, 10).cursor()).collect();
    let mut device = Driven::new(Options { cursors, ..options() });
    device.connect();
    // Those that were not named come with `reset` although they are held.
    let named = device.answer_sync(synced(channels[2_000], [9, 10], true));
    assert_eq!((named.len(), named[0].channel_id), (1_000, channels[0]));
    let named = device.answer_sync(synced(channels[1_500], [11], false));
    assert_eq!((named.len(), named[0].channel_id), (1_000, channels[1_000]));
    assert_eq!(device.answer_sync(nothing_new()).len(), 500);
    assert_eq!((device.syncs(), device.shown()), (0, vec![11]));
    let told = device.told.iter().filter(|event| matches!(event, Event::CaughtUp { .. }));
    assert_eq!(told.count(), 1);
}

#[test]
fn when_too_much_waits_during_a_sync_another_one_follows() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, Frame::Pong { frames: 1 });
    let (call, _) = device.sync();
    for seq in 0..=log::ASIDE as i64 {
        device.frame(1, pushed(channel, 20 + seq));
    }
    device.rules.synced(call, Ok(synced(channel, 11..20, false)), device.now);
    device.settle();
    let last = 20 + log::ASIDE as i64;
    assert_eq!(device.shown(), (11..last).collect::<Vec<_>>(), "the farthest was dropped");
    device.answer_sync(synced(channel, [last], false));
    assert_eq!(device.shown().last(), Some(&last));
}

#[test]
fn what_was_not_told_yet_is_not_in_the_cursors() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, Frame::Pong { frames: 1 });
    let (call, _) = device.sync();
    device.rules.synced(call, Ok(synced(channel, [11, 12], false)), device.now);
    let held = |device: &Driven| device.rules.cursors()[0].seq;
    assert_eq!(held(&device), Seq(10));
    device.rules.next_action();
    assert_eq!(held(&device), Seq(11));
    device.rules.next_action();
    assert_eq!(held(&device), Seq(12));
}

use super::*;
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_storage::{Platform, QuietHours, TargetKind};

/// 13:33 in UTC.
const NOW_MS: i64 = 1_789_948_800_000 + (13 * 60 + 33) * 60_000;

fn device(name: &str, platform: Platform) -> PushDevice {
    PushDevice {
        user_id: UserId::new(),
        device_id: name.parse().unwrap(),
        platform,
        target_kind: TargetKind::Token,
        push_token: format!("token of {name}"),
        suspect_since: None,
        last_seen_at: NOW_MS,
    }
}

/// Messages 3 to 10 are missed, and one device is there.
fn recipient() -> Recipient {
    Recipient {
        held_seq: Seq(2),
        last_seq: Seq(12),
        channel_name: "talk".to_owned(),
        level: NotifyLevel::All,
        muted_until: None,
        quiet: None,
        mentioned: false,
        devices: vec![device("phone", Platform::Android)],
        settled: vec![],
        unread: 30,
    }
}

fn row() -> Notification {
    Notification {
        user_id: UserId::new(),
        channel_id: ChannelId::new(),
        max_seq: Seq(10),
        count: 5,
        sent_seq: Seq(0),
        noted_at: NOW_MS - 1_000,
        attempts: 1,
        tries: 0,
    }
}

fn rules() -> Rules {
    Rules { ttl: Duration::from_secs(3_600), show_text: false, idle_ms: 1, tells_skipped: false }
}

fn of(recipient: &Recipient) -> Decision {
    decide(&row(), Some(recipient), None, &rules(), NOW_MS)
}

fn sent(recipient: &Recipient) -> Vec<Push> {
    match of(recipient) {
        Decision::Send(pushes) => pushes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_device_gets_a_push_with_the_newest_seq_and_the_count() {
    let devices = vec![device("phone", Platform::Android), device("tablet", Platform::Ios)];
    let pushes = sent(&Recipient { devices, mentioned: true, ..recipient() });
    assert_eq!(pushes.len(), 2);
    assert!(pushes.iter().all(|push| push.seq == Seq(10) && push.count == 5 && push.mentioned));
    assert_eq!(pushes.iter().map(|push| push.badge).collect::<Vec<_>>(), [None, Some(30)], "only an icon shows it");
    let expires = pushes[0].expires.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    assert_eq!(expires, u128::try_from(NOW_MS - 1_000 + 3_600_000).unwrap());
}

#[test]
fn what_was_acked_since_is_not_counted() {
    assert_eq!(sent(&Recipient { held_seq: Seq(8), ..recipient() })[0].count, 2);
}

#[test]
fn nobody_is_told_what_they_have_or_may_not_know() {
    let dropped = |recipient: &Recipient| match of(recipient) {
        Decision::Drop(why) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(decide(&row(), None, None, &rules(), NOW_MS), Decision::Drop(Why::NotAMember));
    assert_eq!(dropped(&Recipient { held_seq: Seq(10), ..recipient() }), Why::Held);
    assert_eq!(dropped(&Recipient { last_seq: Seq(9), ..recipient() }), Why::BeyondEnd);
    assert_eq!(dropped(&Recipient { level: NotifyLevel::None, mentioned: true, ..recipient() }), Why::Level);
    assert_eq!(dropped(&Recipient { level: NotifyLevel::Mentions, ..recipient() }), Why::Level);
    assert_eq!(sent(&Recipient { level: NotifyLevel::Mentions, mentioned: true, ..recipient() }).len(), 1);
    assert_eq!(dropped(&Recipient { muted_until: Some(NOW_MS + 1), ..recipient() }), Why::Muted);
    assert_eq!(sent(&Recipient { muted_until: Some(NOW_MS), ..recipient() }).len(), 1, "over");
    assert_eq!(dropped(&Recipient { devices: vec![], ..recipient() }), Why::NoDevice);
}

#[test]
fn a_device_that_has_its_answer_is_left_alone() {
    let devices = vec![device("phone", Platform::Android), device("tablet", Platform::Ios)];
    let one = Recipient { devices, settled: vec!["phone".parse().unwrap()], ..recipient() };
    assert_eq!(sent(&one).iter().map(|push| push.device.as_str()).collect::<Vec<_>>(), ["tablet"]);
    let both = Recipient { settled: vec!["phone".parse().unwrap(), "tablet".parse().unwrap()], ..one };
    assert_eq!(of(&both), Decision::Drop(Why::Settled));
}

#[test]
fn quiet_hours_are_waited_for_unless_it_would_be_too_old_by_then() {
    let quiet = |to_minute| {
        let quiet = QuietHours { from_minute: 13 * 60, to_minute, time_zone: "UTC".to_owned() };
        Recipient { quiet: Some(quiet), ..recipient() }
    };
    let minute = |minute: i64| NOW_MS - NOW_MS % 86_400_000 + minute * 60_000;
    assert_eq!(of(&quiet(14 * 60)), Decision::Wait(minute(14 * 60) - NOW_MS));
    assert!(matches!(of(&quiet(20 * 60)), Decision::Expire(_)), "worth an hour only");
    assert_eq!(sent(&quiet(13 * 60 + 1)).len(), 1);
}

#[test]
fn what_is_too_old_is_not_sent() {
    let old = Notification { noted_at: NOW_MS - 3_600_000, ..row() };
    let decision = decide(&old, Some(&recipient()), None, &rules(), NOW_MS);
    let Decision::Expire(devices) = decision else { panic!("{decision:?}") };
    assert_eq!(devices[0].device_id.as_str(), "phone", "who would have got it is noted");
}

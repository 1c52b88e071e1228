use super::*;
use std::time::SystemTime;
use touchline_ids::{ChannelId, UserId};
use touchline_storage::{Platform, TargetKind};

fn row() -> Notification {
    Notification {
        user_id: UserId::new(),
        channel_id: ChannelId::new(),
        max_seq: Seq(10),
        count: 5,
        sent_seq: Seq(0),
        noted_at: 0,
        attempts: 1,
        tries: 3,
    }
}

fn push(row: &Notification, device: usize) -> Push {
    Push {
        user: row.user_id,
        device: format!("device-{device}").parse().unwrap(),
        platform: Platform::Android,
        target_kind: TargetKind::Token,
        token: "t".to_owned(),
        channel: row.channel_id,
        seq: row.max_seq,
        count: 5,
        mentioned: false,
        badge: None,
        preview: None,
        expires: SystemTime::UNIX_EPOCH,
    }
}

/// What these answers, one of each device, add up to. What is put off waits as long as was asked for.
fn summed(answers: &[Answer]) -> Delivered {
    let row = row();
    let answered = answers.iter().cloned().enumerate().map(|(n, answer)| (push(&row, n), answer)).collect();
    sum_up(&row, Seq(4), answered, |asked| asked.unwrap_or(Duration::from_secs(10)))
}

fn accepted() -> Answer {
    Answer::Accepted { id: "1".to_owned() }
}

fn void() -> Answer {
    Answer::TokenVoid { why: "gone".to_owned() }
}

fn later(seconds: u64) -> Answer {
    Answer::Later { after: Some(Duration::from_secs(seconds)), why: "busy".to_owned() }
}

fn stopped() -> Answer {
    Answer::Stopped { why: "open".to_owned() }
}

fn refused() -> Answer {
    Answer::Refused { why: "bad".to_owned() }
}

fn again(after_ms: i64) -> Then {
    Then::Again { after_ms, put_off: true }
}

#[test]
fn the_row_is_settled_by_the_answers_of_all_devices() {
    let wrong = Answer::WrongSender { why: "mismatch".to_owned() };
    let platform = Answer::PlatformRefused { why: "key".to_owned() };
    for (answers, then) in [
        (vec![accepted()], Then::Sent),
        (vec![accepted(), void()], Then::Sent),
        (vec![accepted(), wrong.clone(), platform.clone()], Then::Sent),
        (vec![void()], Then::Dropped),
        (vec![wrong, platform], Then::Dropped),
        (vec![accepted(), later(7), later(70)], again(70_000)),
        (vec![refused(), later(7)], again(7_000)),
        (vec![accepted(), refused()], Then::Dead),
        (vec![stopped(), stopped()], Then::Released),
        (vec![accepted(), stopped()], again(3_000)),
        (vec![later(7), stopped()], again(7_000)),
    ] {
        assert_eq!(summed(&answers).then, then, "{answers:?}");
    }
}

#[test]
fn what_came_of_each_device_is_told_but_of_those_that_were_not_tried() {
    let delivered = summed(&[accepted(), void(), later(7), stopped()]);
    let told: Vec<_> =
        delivered.outcomes.iter().map(|o| (o.device.as_str(), o.outcome, o.answer.as_str(), o.tries)).collect();
    let expected = [
        ("device-0", PushOutcome::Accepted, "1", 4),
        ("device-1", PushOutcome::TokenVoid, "gone", 4),
        ("device-2", PushOutcome::Delayed, "busy", 4),
    ];
    assert_eq!(told, expected);
    assert!(delivered.outcomes.iter().all(|outcome| (outcome.after_seq, outcome.seq) == (Seq(4), Seq(10))));
    assert_eq!(delivered.void.iter().map(|push| push.device.as_str()).collect::<Vec<_>>(), ["device-1"]);
}

#[test]
fn of_a_long_answer_so_much_is_kept_as_the_table_holds() {
    let delivered = summed(&[Answer::Refused { why: "ä".repeat(200) }]);
    assert_eq!(delivered.outcomes[0].answer, "ä".repeat(127));
}

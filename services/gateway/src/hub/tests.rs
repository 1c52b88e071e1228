use super::*;
use std::task::{Context, Poll, Waker};
use touchline_ids::{ConnectionNumber, IncarnationId};

const LIMITS: HubLimits = HubLimits { capacity: 100, sessions_per_user: 3, queue: Bounds { frames: 2, bytes: 1000 } };

fn member(user: UserId, device: &str, connection: i64) -> Arc<Member> {
    let registration = Registration {
        user,
        device: device.parse().expect("a device"),
        incarnation: IncarnationId::new(),
        connection: ConnectionNumber(connection),
    };
    Arc::new(Member { session: SessionId::new(), registration, queue: Queue::default() })
}

fn message(channel: ChannelId, seq: i64) -> Encoded {
    Encoded { channel, seq: Seq(seq), text: "{}".into() }
}

fn hand(hub: &Hub, user: UserId) -> Handed {
    let mut answer = None;
    hub.hand(std::iter::once(user), &message(ChannelId::new(), 1), |_, handed, _| answer = Some(handed));
    answer.expect("one user, one answer")
}

fn waiting(member: &Member) -> usize {
    match member.queue.poll(&mut Context::from_waker(Waker::noop()), true) {
        Poll::Ready(crate::queue::Taken::Frames(frames)) => frames.len(),
        _ => 0,
    }
}

#[test]
fn a_message_reaches_every_device_of_the_user_and_nobody_else() {
    let (hub, ann, bob) = (Hub::new(LIMITS), UserId::new(), UserId::new());
    let sessions = [member(ann, "phone", 1), member(ann, "laptop", 1), member(bob, "phone", 1)];
    for session in &sessions {
        hub.join(session).expect("room");
    }
    assert_eq!(hand(&hub, ann), Handed::Taken);
    assert_eq!(sessions.each_ref().map(|session| waiting(session)), [1, 1, 0]);
}

#[test]
fn every_session_gets_the_same_bytes() {
    let (hub, channel) = (Hub::new(LIMITS), ChannelId::new());
    let sessions: Vec<_> = (0..5).map(|_| member(UserId::new(), "phone", 1)).collect();
    for session in &sessions {
        hub.join(session).expect("room");
    }
    let message = Encoded { channel, seq: Seq(1), text: "a text that is long enough to be kept apart".into() };
    let users = sessions.iter().map(|session| session.registration.user);
    hub.hand(users, &message, |_, handed, _| assert_eq!(handed, Handed::Taken));
    for session in &sessions {
        let taken = session.queue.poll(&mut Context::from_waker(Waker::noop()), true);
        let Poll::Ready(crate::queue::Taken::Frames(frames)) = taken else { panic!("nothing waits") };
        assert_eq!(frames[0].text.as_ptr(), message.text.as_ptr(), "encoded once, copied never");
    }
}

#[test]
fn a_user_is_slow_only_when_every_device_is() {
    let (hub, ann) = (Hub::new(LIMITS), UserId::new());
    let (slow, quick) = (member(ann, "phone", 1), member(ann, "laptop", 1));
    hub.join(&slow).expect("room");
    for _ in 0..2 {
        assert_eq!(hand(&hub, ann), Handed::Taken);
    }
    hub.join(&quick).expect("room");
    assert_eq!(hand(&hub, ann), Handed::Taken, "the laptop has it");
    assert!(slow.queue.is_closing());
    assert_eq!(hand(&hub, ann), Handed::Taken);
    assert_eq!(hand(&hub, ann), Handed::Slow);
}

#[test]
fn who_left_is_gone() {
    let (hub, ann) = (Hub::new(LIMITS), UserId::new());
    assert_eq!(hand(&hub, ann), Handed::Gone);
    let phone = member(ann, "phone", 1);
    let user = hub.join(&phone).expect("room").user;
    hub.leave(&user, &phone);
    hub.leave(&user, &phone);
    assert_eq!(hand(&hub, ann), Handed::Gone);
    assert_eq!(hub.sessions(), 0);
    assert!(hub.users.pin().is_empty());
}

#[test]
fn the_newer_connection_of_a_device_wins_and_the_late_end_of_the_older_changes_nothing() {
    let (hub, ann) = (Hub::new(LIMITS), UserId::new());
    let (old, new) = (member(ann, "phone", 1), member(ann, "phone", 2));
    let user = hub.join(&old).expect("room").user;
    let displaced = hub.join(&new).expect("room").displaced;
    assert_eq!(displaced.len(), 1);
    assert!(Arc::ptr_eq(&displaced[0].0, &old));
    assert_eq!(hub.join(&member(ann, "phone", 1)).expect_err("older"), Refused::Older);
    hub.leave(&user, &old);
    assert!(hub.holds(&new.registration));
    assert!(!hub.holds(&old.registration));
    assert_eq!(hub.sessions(), 1);
}

#[test]
fn the_oldest_session_of_a_crowded_user_goes() {
    let (hub, ann) = (Hub::new(LIMITS), UserId::new());
    let sessions = ["a", "b", "c", "d", "e"].map(|device| member(ann, device, 1));
    for session in &sessions {
        close_displaced(hub.join(session).expect("room").displaced);
    }
    assert_eq!(sessions.each_ref().map(|session| session.queue.is_closing()), [true, true, false, false, false]);
}

#[test]
fn a_full_hub_takes_nobody() {
    let hub = Hub::new(HubLimits { capacity: 1, ..LIMITS });
    let first = member(UserId::new(), "phone", 1);
    let user = hub.join(&first).expect("room").user;
    assert!(!hub.has_room());
    assert_eq!(hub.join(&member(UserId::new(), "phone", 1)).expect_err("full"), Refused::Full);
    hub.leave(&user, &first);
    assert!(hub.has_room());
}

#[test]
fn acks_of_all_devices_are_merged_and_never_go_back() {
    let (hub, ann, channel) = (Hub::new(LIMITS), UserId::new(), ChannelId::new());
    let user = hub.join(&member(ann, "phone", 1)).expect("room").user;
    hub.join(&member(ann, "laptop", 1)).expect("room");
    hub.ack(&user, &[(channel, Seq(5))]);
    hub.ack(&user, &[(channel, Seq(3))]);
    assert!(hub.has_acked(&user, channel, Seq(5)));
    assert!(!hub.has_acked(&user, channel, Seq(6)));
    assert!(!hub.has_acked(&user, ChannelId::new(), Seq(1)));
}

#[test]
fn an_ack_after_a_reconnect_counts_for_the_push_before_it() {
    let (hub, ann, channel) = (Hub::new(LIMITS), UserId::new(), ChannelId::new());
    let phone = member(ann, "phone", 1);
    let before = hub.join(&phone).expect("room").user;
    hub.leave(&before, &phone);
    let after = hub.join(&member(ann, "phone", 2)).expect("room").user;
    assert!(!hub.has_acked(&before, channel, Seq(5)));
    hub.ack(&after, &[(channel, Seq(5))]);
    assert!(hub.has_acked(&before, channel, Seq(5)));
}

#[test]
fn an_ack_is_taken_once_and_only_the_greatest() {
    let (hub, ann, channel) = (Hub::new(LIMITS), UserId::new(), ChannelId::new());
    let phone = member(ann, "phone", 1);
    let user = hub.join(&phone).expect("room").user;
    hub.ack(&user, &[(channel, Seq(5))]);
    hub.ack(&user, &[(channel, Seq(7))]);
    // Also when the device has left by then.
    hub.leave(&user, &phone);
    assert_eq!(hub.take_acks(), [Ack { user: ann, channel, seq: Seq(7) }]);
    hub.ack(&user, &[(channel, Seq(7))]);
    assert_eq!(hub.take_acks(), []);
}

#[test]
fn users_whose_acks_wait_are_bounded_and_the_others_are_told_after_their_next_ack() {
    let (hub, channel) = (Hub::new(HubLimits { capacity: 3, ..LIMITS }), ChannelId::new());
    let user = || Arc::new(User { id: UserId::new(), state: Mutex::default() });
    let users: Vec<_> = (0..10).map(|_| user()).collect();
    users.iter().for_each(|user| hub.ack(user, &[(channel, Seq(1))]));
    assert_eq!(hub.take_acks().len(), 3);
    hub.ack(&users[9], &[(channel, Seq(1))]);
    assert_eq!(hub.take_acks(), [Ack { user: users[9].id, channel, seq: Seq(1) }]);
}

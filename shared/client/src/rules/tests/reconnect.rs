//! Between two sockets: tickets, tokens, waits, moves and ends.

use super::*;

fn asks(device: &Driven) -> usize {
    device.wants(|action| matches!(action, Action::AskTicket { .. }))
}

fn closes(device: &Driven, connection: i64) -> usize {
    device.wants(|action| matches!(action, Action::Close { connection: of } if of.0 == connection))
}

#[test]
fn the_next_gateway_is_tried_with_the_same_ticket_and_a_greater_number() {
    let mut device = Driven::new(options());
    device.give_ticket(2);
    let first = device.opening();
    device.rules.not_opened(first, refused(503, "unavailable", None), device.now);
    let second = device.opening();
    assert!(second > first && asks(&device) == 0);
    device.open(second, seconds(900));
    assert!(matches!(&device.told[..], [Event::Online { gateway, .. }] if gateway == "ws://gateway-1"));
}

#[test]
fn a_ticket_that_was_shown_is_not_shown_again() {
    let mut device = Driven::new(options());
    device.give_ticket(2);
    let first = device.opening();
    device.rules.not_opened(first, ClientError::NotReady(closed(1006)), device.now);
    device.wait(millis(500));
    assert_eq!((asks(&device), device.wants(|action| matches!(action, Action::Open { .. }))), (1, 0));
}

#[test]
fn a_gateway_that_does_not_answer_is_left_after_ten_seconds() {
    let mut device = Driven::new(options());
    device.give_ticket(2);
    let silent = device.opening();
    device.wait(seconds(10));
    device.want(|action| matches!(action, Action::Drop { connection } if *connection == silent));
    let next = device.opening();
    device.open(silent, seconds(900));
    device.want(|action| matches!(action, Action::Drop { connection } if *connection == silent));
    assert!(!device.rules.is_online());
    device.open(next, seconds(900));
    assert!(device.rules.is_online());
}

#[test]
fn an_api_that_does_not_answer_is_asked_again() {
    let mut device = Driven::new(options());
    let Action::AskTicket { call: late } = device.want(|action| matches!(action, Action::AskTicket { .. })) else {
        unreachable!()
    };
    device.wait(seconds(11));
    assert_eq!(asks(&device), 1);
    device.rules.ticket(late, Ok(connect_answer(1)), device.now);
    device.settle();
    assert_eq!(device.wants(|action| matches!(action, Action::Open { .. })), 0, "that was the call before");
    device.connect();
    device.wait(seconds(11));
    assert_eq!(device.syncs(), 2, "the first one had no answer either");
}

#[test]
fn waits_grow_until_a_socket_lasts() {
    let mut longest = [Duration::ZERO; 4];
    for seed in 0..200 {
        let (mut device, _) = Driven::online(options());
        device.rules.rng = SmallRng::seed_from_u64(seed);
        device.wait(seconds(5));
        device.close(1, 1012);
        for longest in &mut longest {
            *longest = device.again_in().max(*longest);
            device.wait(device.again_in());
            let connection = device.connect();
            device.close(connection.0, 1006);
        }
    }
    for (delay, limit) in longest.iter().zip([500, 1_000, 2_000, 4_000]) {
        let limit = millis(limit);
        assert!(*delay <= limit && *delay > limit.mul_f64(0.9), "{delay:?} of {limit:?}");
    }
}

#[test]
fn the_servers_wait_is_obeyed_and_spread() {
    let mut waits = Vec::new();
    for seed in 0..50 {
        let mut device = Driven::new(options());
        device.rules.rng = SmallRng::seed_from_u64(seed);
        device.refuse_ticket(refused(503, "unavailable", Some(7)));
        let wait = device.again_in();
        assert!(wait >= seconds(7) && wait <= seconds(7) + millis(500), "{wait:?}");
        device.wait(wait - millis(1));
        assert_eq!(asks(&device), 0);
        device.wait(millis(1));
        assert_eq!(asks(&device), 1);
        waits.push(wait);
    }
    waits.sort();
    assert!(waits[40] - waits[10] > millis(100));
}

#[test]
fn no_wait_of_the_servers_is_too_long_to_compute() {
    let mut device = Driven::new(options());
    device.refuse_ticket(refused(429, "rate_limited", Some(u64::MAX)));
    device.wait(seconds(3_601));
    let (connection, number) = (device.connect(), u64::MAX);
    device
        .frame(connection.0, Frame::Ready { session_id: SessionId::new(), heartbeat_s: number, expires_in_s: number });
    device.frame(connection.0, Frame::Reconnect { after_ms: number });
    device.frame(connection.0, Frame::Pong { frames: number });
    device.wait(seconds(60));
}

#[test]
fn each_close_code_is_followed_as_the_table_says() {
    for code in [1002, 1007, 1009, 1013, 4008] {
        let longest = (0..200).map(|seed| {
            let (mut device, _) = Driven::online(options());
            device.rules.rng = SmallRng::seed_from_u64(seed);
            device.close(1, code);
            device.again_in()
        });
        assert!(longest.max() > Some(seconds(20)), "{code}");
    }
    for code in [1000, 1006, 1012, 4001, 4010] {
        let (mut device, _) = Driven::online(options());
        device.close(1, code);
        assert!(device.again_in() <= seconds(1), "{code}");
    }
    for code in [4003, 4009, 4011] {
        let (mut device, _) = Driven::online(options());
        device.close(1, code);
        assert!(device.has_ended(), "{code}");
        let mut device = Driven::new(options());
        device.give_ticket(2);
        let connection = device.opening();
        device.rules.not_opened(connection, ClientError::NotReady(closed(code)), device.now);
        device.settle();
        assert!(device.has_ended() && device.rules.next_wake().is_none(), "{code}");
    }
}

#[test]
fn a_1013_that_says_when_to_come_back_is_obeyed_with_jitter() {
    let full =
        |ms: u64| Closed { code: 1013, reason: format!("overloaded: this gateway is full; retry_after_ms={ms}") };
    let waits = (0..200).map(|seed| {
        let (mut device, _) = Driven::online(options());
        device.rules.rng = SmallRng::seed_from_u64(seed);
        device.rules.closed(ConnectionNumber(1), full(4_000), device.now);
        device.settle();
        device.again_in()
    });
    let waits: Vec<_> = waits.collect();
    let (shortest, longest) = (waits.iter().min(), waits.iter().max());
    assert!(shortest >= Some(&seconds(4)) && longest <= Some(&seconds(5)), "{shortest:?} to {longest:?}");
    assert!(longest > shortest);

    // The same in place of a ready, and a number that means no harm.
    let mut device = Driven::new(options());
    device.give_ticket(2);
    let connection = device.opening();
    device.rules.not_opened(connection, ClientError::NotReady(full(u64::MAX)), device.now);
    device.settle();
    assert!(device.again_in() >= seconds(3_600) && device.again_in() <= seconds(3_601));
}

#[test]
fn only_the_servers_own_refusal_is_final() {
    for (status, code, ends) in [
        (400, "invalid_field", true),
        (403, "forbidden", true),
        (404, "unknown", false),
        (429, "rate_limited", false),
        (500, "internal", false),
        (503, "unavailable", false),
    ] {
        let mut device = Driven::new(options());
        device.refuse_ticket(refused(status, code, None));
        assert_eq!(device.has_ended(), ends, "{status}");
        let (mut device, _) = Driven::online(options());
        device.frame(1, Frame::Pong { frames: 1 });
        let (call, _) = device.sync();
        device.rules.synced(call, Err(refused(status, code, None)), device.now);
        device.settle();
        assert_eq!(device.has_ended(), ends, "{status}");
        assert!(ends || matches!(device.told.last(), Some(Event::SyncFailed { .. })));
    }
}

#[test]
fn a_sync_that_failed_is_repeated_and_the_socket_stays() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, Frame::Pong { frames: 1 });
    for _ in 0..3 {
        let (call, _) = device.sync();
        device.rules.synced(call, Err(refused(503, "unavailable", Some(3))), device.now);
        device.wait(millis(2_999));
        assert_eq!(device.syncs(), 0);
        device.wait(seconds(3));
    }
    device.answer_sync(synced(channel, [11], false));
    assert!(device.rules.is_online() && device.shown() == [11]);
}

#[test]
fn a_token_that_is_over_is_renewed_once() {
    let mut device = Driven::new(Options { renewable: true, ..options() });
    let over = || refused(401, "unauthenticated", None);
    device.refuse_ticket(over());
    device.give_token(Ok(()));
    device.connect();
    let (call, _) = device.sync();
    device.rules.synced(call, Err(over()), device.now);
    device.give_token(Ok(()));
    device.answer_sync(nothing_new());
    assert!(matches!(device.told.last(), Some(Event::CaughtUp { .. })));

    device.close(1, 4001);
    device.wait(device.again_in());
    device.give_token(Err(ClientError::TooSlow));
    device.wait(device.again_in());
    device.give_token(Ok(()));
    device.refuse_ticket(over());
    assert!(device.has_ended(), "a second new token would not help");
}

#[test]
fn without_a_way_to_renew_the_token_a_401_ends_the_device() {
    let mut device = Driven::new(options());
    device.refuse_ticket(refused(401, "unauthenticated", None));
    assert!(device.has_ended());
}

#[test]
fn a_session_is_renewed_before_it_expires() {
    let mut device = Driven::new(Options { renewable: true, ..options() });
    device.connect();
    device.answer_sync(nothing_new());
    let asks_for_token = |action: &Action| matches!(action, Action::RenewToken { .. });
    // How long until it wants a new token.
    let until_it_asks = |device: &mut Driven| {
        let since = device.now;
        while device.wants(asks_for_token) == 0 {
            device.wait(seconds(5));
            device.frame(1, Frame::Pong { frames: 0 });
        }
        (device.now - since).as_secs()
    };
    let first = until_it_asks(&mut device);
    assert!((630..=815).contains(&first), "{first}");
    device.give_token(Err(ClientError::TooSlow));
    assert!(until_it_asks(&mut device) <= 70, "there is time for another try");
    device.give_token(Ok(()));
    device.give_ticket(2);
    device.want(|action| matches!(action, Action::Renew { connection: ConnectionNumber(1), .. }));
    device.frame(1, Frame::Ready { session_id: SessionId::new(), heartbeat_s: 25, expires_in_s: 900 });
    device.answer_sync(nothing_new());
    assert_eq!(device.wants(|action| matches!(action, Action::Open { .. })), 0);
    assert!(device.told.iter().all(|event| !matches!(event, Event::Offline { .. })));
}

#[test]
fn a_move_opens_the_new_socket_first_and_closes_the_old_one_after_the_sync() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, Frame::Reconnect { after_ms: 5_000 });
    device.wait(millis(4_999));
    assert_eq!(asks(&device), 0);
    device.wait(millis(1));
    let new = device.connect();
    assert!(matches!(device.told.last(), Some(Event::Online { moved: true, .. })) && new == ConnectionNumber(2));
    device.frame(1, pushed(channel, 11));
    device.frame(2, pushed(channel, 11));
    device.frame(2, pushed(channel, 12));
    assert_eq!(closes(&device, 1), 0);
    device.answer_sync(synced(channel, [11, 12], false));
    assert_eq!((closes(&device, 1), device.shown()), (1, vec![11, 12]));
    assert!(device.told.iter().all(|event| !matches!(event, Event::Offline { .. })));
    let to: Vec<_> = device
        .wanted
        .iter()
        .filter_map(|action| if let Action::Ack { connection, .. } = action { Some(connection.0) } else { None })
        .collect();
    assert!(to.contains(&1) && to.contains(&2), "either gateway waits for it: {to:?}");
}

#[test]
fn the_old_socket_may_end_as_it_likes() {
    for code in [1006, 1012, 4009] {
        let (mut device, _) = Driven::online(options());
        device.frame(1, Frame::Reconnect { after_ms: 0 });
        device.connect();
        device.close(1, code);
        device.answer_sync(nothing_new());
        assert!(device.rules.is_online() && closes(&device, 1) == 0, "{code}");
        device.close(2, 4009);
        assert!(device.has_ended(), "nobody replaced this one but another device");
    }
}

#[test]
fn a_gateway_that_goes_before_the_move_is_done_changes_nothing_of_it() {
    let (mut device, _) = Driven::online(options());
    device.frame(1, Frame::Reconnect { after_ms: 0 });
    device.give_ticket(1);
    device.close(1, 1012);
    assert_eq!(device.again_in(), Duration::ZERO);
    let connection = device.opening();
    device.open(connection, seconds(900));
    assert!(matches!(device.told.last(), Some(Event::Online { moved: false, .. })));
}

#[test]
fn a_move_that_fails_is_tried_again_while_the_old_socket_serves() {
    let (mut device, channel) = Driven::online(options());
    device.frame(1, Frame::Reconnect { after_ms: 0 });
    device.refuse_ticket(refused(503, "unavailable", Some(1)));
    device.frame(1, pushed(channel, 11));
    device.wait(millis(1_500));
    device.connect();
    device.answer_sync(nothing_new());
    assert_eq!((closes(&device, 1), device.shown()), (1, vec![11]));
    assert!(device.told.iter().all(|event| !matches!(event, Event::Offline { .. })));
}

#[test]
fn a_device_may_have_to_move_again_before_it_has_moved() {
    let (mut device, _) = Driven::online(options());
    device.frame(1, Frame::Reconnect { after_ms: 0 });
    device.connect();
    device.frame(2, Frame::Reconnect { after_ms: 0 });
    device.connect();
    assert_eq!((closes(&device, 1), closes(&device, 2)), (1, 0));
    device.answer_sync(nothing_new());
    assert_eq!(closes(&device, 2), 0, "that answer is the older socket's");
    device.answer_sync(nothing_new());
    assert_eq!(closes(&device, 2), 1);
}

#[test]
fn a_cut_device_comes_back() {
    let (mut device, _) = Driven::online(options());
    device.rules.cut(device.now);
    device.want(|action| matches!(action, Action::Drop { connection: ConnectionNumber(1) }));
    device.wait(device.again_in());
    assert_eq!(device.connect(), ConnectionNumber(2));
}

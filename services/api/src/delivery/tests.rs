//! Each sentence of the rules, as what goes in and what comes out.

use super::*;
use std::collections::BTreeMap;
use touchline_proto::convert::pack_users;

const TIMES: Times =
    Times { ack_wait: Duration::from_secs(3), patience: Duration::from_secs(1), second_look: Duration::from_secs(2) };

/// A message to people 0, 1, 2, …; the last one is the sender, who is nowhere. Time is what the test says.
struct Scene {
    delivery: Delivery,
    members: Arc<Members>,
    now: Instant,
    gateways: BTreeMap<&'static str, IncarnationId>,
}

impl Scene {
    fn new(recipients: usize, attempt: u32) -> Self {
        let mut users: Vec<_> = (0..=recipients).map(|_| UserId::new()).collect();
        users.sort_unstable();
        let members = Arc::new(Members { version: 1, users });
        let delivery = Delivery::new(Arc::clone(&members), &members.users[recipients], attempt, TIMES);
        Self { delivery, members, now: Instant::now(), gateways: BTreeMap::new() }
    }

    fn gateway(&mut self, name: &'static str) -> IncarnationId {
        *self.gateways.entry(name).or_insert_with(IncarnationId::new)
    }

    /// Answers a look-up; what is pushed, by gateway: for whom and what.
    fn routed(&mut self, found: &[(&'static str, &[u32])]) -> Vec<Push> {
        let holders: Vec<_> =
            found.iter().map(|(name, users)| Holder { gateway: self.gateway(name), users: (*users).into() }).collect();
        self.delivery.routed(&holders, self.now)
    }

    fn orders(&self, pushes: &[Push]) -> Vec<(&'static str, Vec<u32>, Ask)> {
        let name = |gateway| *self.gateways.iter().find(|(_, id)| **id == gateway).unwrap().0;
        pushes.iter().map(|push| (name(push.gateway), push.users.to_vec(), push.ask)).collect()
    }

    fn packed(&self, positions: &[u32]) -> bytes::Bytes {
        let users: Vec<_> = positions.iter().map(|position| self.members.users[*position as usize]).collect();
        pack_users(users.iter())
    }

    fn unacked(&mut self, push: &Push, positions: &[u32]) {
        let result = PushResult { unacked: self.packed(positions), ..PushResult::default() };
        self.delivery.answered(push.id, &result);
    }

    fn acked(&mut self, push: &Push) {
        self.delivery.answered(push.id, &PushResult::default());
    }

    fn next(&mut self) -> Step {
        self.delivery.next(self.now)
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn waits(&mut self, seconds: u64) {
        assert_eq!(self.next(), Step::Wait(self.now + Duration::from_secs(seconds)));
    }

    fn missed(&self, positions: &[u32]) -> Step {
        Step::Finish { missed: positions.iter().map(|position| self.members.users[*position as usize]).collect() }
    }
}

#[test]
fn it_is_done_when_everybody_acked() {
    let mut scene = Scene::new(3, 1);
    let pushes = scene.routed(&[("one", &[0, 1]), ("two", &[2])]);
    assert_eq!(scene.orders(&pushes), [("one", vec![0, 1], Ask::Show), ("two", vec![2], Ask::Show)]);
    scene.waits(4);
    scene.acked(&pushes[0]);
    scene.waits(4);
    scene.acked(&pushes[1]);
    assert_eq!(scene.next(), scene.missed(&[]));
}

#[test]
fn whoever_is_excepted_is_looked_up_once_more_after_two_seconds_and_then_missed() {
    let mut scene = Scene::new(6, 1);
    let pushes = scene.routed(&[("one", &[0, 1, 2, 3])]);
    let result = PushResult {
        gone: scene.packed(&[0]),
        slow: scene.packed(&[1]),
        unacked: scene.packed(&[2]),
        ..PushResult::default()
    };
    scene.delivery.answered(pushes[0].id, &result);
    scene.waits(2);
    scene.wait(2);
    // 3 acked; 4 and 5 are offline.
    assert_eq!(scene.next(), Step::LookUp(vec![0, 1, 2, 4, 5]));
    let pushes = scene.routed(&[("one", &[0, 1, 2]), ("two", &[4])]);
    // Only who was handed it is merely asked about.
    let expected = [("one", vec![0, 1], Ask::Show), ("one", vec![2], Ask::Acked), ("two", vec![4], Ask::Show)];
    assert_eq!(scene.orders(&pushes), expected);
    scene.unacked(&pushes[0], &[1]);
    scene.unacked(&pushes[1], &[2]);
    scene.acked(&pushes[2]);
    assert_eq!(scene.next(), scene.missed(&[1, 2, 5]));
}

#[test]
fn a_half_open_device_is_missed_after_three_and_two_seconds() {
    let mut scene = Scene::new(1, 1);
    let began = scene.now;
    let pushes = scene.routed(&[("one", &[0])]);
    scene.wait(3);
    scene.unacked(&pushes[0], &[0]);
    scene.waits(2);
    scene.wait(2);
    assert_eq!(scene.next(), Step::LookUp(vec![0]));
    let pushes = scene.routed(&[("one", &[0])]);
    assert_eq!(scene.orders(&pushes), [("one", vec![0], Ask::Acked)]);
    scene.unacked(&pushes[0], &[0]);
    assert_eq!(scene.next(), scene.missed(&[0]));
    assert_eq!(scene.now - began, Duration::from_secs(5));
}

#[test]
fn an_ack_between_the_looks_is_found_by_asking() {
    let mut scene = Scene::new(1, 1);
    let pushes = scene.routed(&[("one", &[0])]);
    scene.unacked(&pushes[0], &[0]);
    scene.next();
    scene.wait(2);
    scene.next();
    let pushes = scene.routed(&[("one", &[0])]);
    scene.acked(&pushes[0]);
    assert_eq!(scene.next(), scene.missed(&[]));
}

#[test]
fn a_stale_incarnation_reached_nobody() {
    let mut scene = Scene::new(1, 1);
    let pushes = scene.routed(&[("one", &[0])]);
    scene.delivery.answered(pushes[0].id, &PushResult { stale_incarnation: true, ..PushResult::default() });
    scene.waits(2);
    scene.wait(2);
    assert_eq!(scene.next(), Step::LookUp(vec![0]));
    let pushes = scene.routed(&[("two", &[0])]);
    assert_eq!(scene.orders(&pushes), [("two", vec![0], Ask::Show)]);
}

#[test]
fn one_acking_device_is_enough() {
    let mut scene = Scene::new(1, 1);
    let pushes = scene.routed(&[("phone's", &[0]), ("laptop's", &[0])]);
    scene.acked(&pushes[0]);
    scene.unacked(&pushes[1], &[0]);
    assert_eq!(scene.next(), scene.missed(&[]));
}

#[test]
fn recipients_of_a_broken_stream_are_looked_up_at_once_and_shown_it_wherever_else_they_are() {
    let mut scene = Scene::new(3, 1);
    let pushes = scene.routed(&[("one", &[0, 1]), ("two", &[1, 2])]);
    scene.delivery.lost(pushes[0].id, Loss::Broken);
    assert_eq!(scene.next(), Step::LookUp(vec![0, 1]));
    // Until the look-up is answered there is nothing else to do.
    scene.waits(4);
    // 0 is now at another gateway; 1 is where it has been shown; the broken one still says it holds them.
    let again = scene.routed(&[("one", &[0, 1]), ("two", &[1]), ("three", &[0])]);
    assert_eq!(scene.orders(&again), [("three", vec![0], Ask::Show)]);
    scene.acked(&again[0]);
    scene.acked(&pushes[1]);
    assert_eq!(scene.next(), scene.missed(&[]));
}

#[test]
fn who_is_nowhere_else_after_a_broken_stream_is_shown_it_again_at_the_second_look() {
    let mut scene = Scene::new(1, 1);
    let pushes = scene.routed(&[("one", &[0])]);
    scene.delivery.lost(pushes[0].id, Loss::Broken);
    assert_eq!(scene.next(), Step::LookUp(vec![0]));
    assert!(scene.routed(&[("one", &[0])]).is_empty());
    scene.waits(2);
    scene.wait(2);
    assert_eq!(scene.next(), Step::LookUp(vec![0]));
    // Nobody knows whether the gateway had it.
    let pushes = scene.routed(&[("one", &[0])]);
    assert_eq!(scene.orders(&pushes), [("one", vec![0], Ask::Show)]);
    scene.delivery.lost(pushes[0].id, Loss::Broken);
    assert_eq!(scene.next(), scene.missed(&[0]), "nobody is looked for a third time");
}

#[test]
fn losses_that_come_together_share_a_look_up() {
    let mut scene = Scene::new(3, 1);
    let pushes = scene.routed(&[("one", &[0, 1]), ("two", &[1, 2])]);
    scene.delivery.lost(pushes[1].id, Loss::Broken);
    scene.delivery.lost(pushes[0].id, Loss::Broken);
    scene.delivery.lost(pushes[0].id, Loss::Broken);
    assert_eq!(scene.next(), Step::LookUp(vec![0, 1, 2]));
}

#[test]
fn a_loss_during_a_look_up_is_looked_up_after_it() {
    let mut scene = Scene::new(2, 1);
    let pushes = scene.routed(&[("one", &[0]), ("two", &[1])]);
    scene.delivery.lost(pushes[0].id, Loss::Broken);
    assert_eq!(scene.next(), Step::LookUp(vec![0]));
    scene.delivery.lost(pushes[1].id, Loss::Broken);
    assert!(matches!(scene.next(), Step::Wait(_)));
    let again = scene.routed(&[("two", &[0])]);
    assert_eq!(scene.orders(&again), [("two", vec![0], Ask::Show)], "not shown to this one before");
    assert_eq!(scene.next(), Step::LookUp(vec![1]));
}

#[test]
fn a_silent_gateway_makes_another_api_try_on_the_first_attempt() {
    let mut scene = Scene::new(2, 1);
    let pushes = scene.routed(&[("one", &[0]), ("two", &[1])]);
    scene.acked(&pushes[0]);
    scene.wait(3);
    scene.waits(1);
    scene.wait(1);
    assert_eq!(scene.next(), Step::HandOver);
}

#[test]
fn a_gateway_that_cannot_be_dialled_is_as_good_as_silent() {
    let mut scene = Scene::new(1, 1);
    let pushes = scene.routed(&[("one", &[0])]);
    scene.delivery.lost(pushes[0].id, Loss::Unreachable);
    assert_eq!(scene.next(), Step::HandOver);
}

#[test]
fn on_a_later_attempt_silence_is_a_loss_and_the_silent_one_is_left_alone() {
    let mut scene = Scene::new(2, 2);
    let pushes = scene.routed(&[("one", &[0, 1])]);
    scene.wait(4);
    assert_eq!(scene.next(), Step::LookUp(vec![0, 1]));
    let again = scene.routed(&[("one", &[0, 1]), ("two", &[1])]);
    assert_eq!(scene.orders(&again), [("two", vec![1], Ask::Show)]);
    scene.acked(&again[0]);
    scene.waits(2);
    scene.wait(2);
    assert_eq!(scene.next(), Step::LookUp(vec![0]));
    assert!(scene.routed(&[("one", &[0])]).is_empty());
    assert_eq!(scene.next(), scene.missed(&[0]));
    drop(pushes);
}

#[test]
fn an_answer_after_the_silence_counts() {
    let mut scene = Scene::new(1, 2);
    let pushes = scene.routed(&[("one", &[0])]);
    scene.wait(4);
    assert_eq!(scene.next(), Step::LookUp(vec![0]));
    scene.routed(&[]);
    scene.waits(2);
    scene.acked(&pushes[0]);
    scene.wait(2);
    assert_eq!(scene.next(), scene.missed(&[]));
}

#[test]
fn a_message_to_nobody_but_its_sender_is_done_at_once() {
    let mut scene = Scene::new(0, 1);
    assert!(scene.routed(&[]).is_empty());
    assert_eq!(scene.next(), scene.missed(&[]));
}

#[test]
fn the_senders_other_devices_get_it_and_the_sender_is_never_missed() {
    let mut scene = Scene::new(1, 1);
    let pushes = scene.routed(&[("one", &[0, 1])]);
    assert_eq!(scene.orders(&pushes), [("one", vec![0, 1], Ask::Show)]);
    scene.unacked(&pushes[0], &[1]);
    assert_eq!(scene.next(), scene.missed(&[]));
}

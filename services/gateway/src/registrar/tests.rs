use super::*;
use crate::{
    hub::{HubLimits, User},
    queue::{Bounds, Queue},
};
use touchline_ids::{ConnectionNumber, IncarnationId, SessionId};

const LIMITS: HubLimits =
    HubLimits { capacity: 50_000, sessions_per_user: 3, queue: Bounds { frames: 2, bytes: 1000 } };

type Session = (Arc<User>, Arc<Member>);

struct World {
    hub: Hub,
    registrar: Registrar,
    now: Instant,
}

impl World {
    /// With so many sessions, in the order in which they came.
    fn new(sessions: usize) -> (Self, Vec<Session>) {
        let now = Instant::now();
        let mut world = Self { hub: Hub::new(LIMITS), registrar: Registrar::new(LIMITS.capacity as usize, now), now };
        let sessions = (0..sessions).map(|_| world.join()).collect();
        (world, sessions)
    }

    fn join(&mut self) -> Session {
        let registration = Registration {
            user: UserId::new(),
            device: "phone".parse().expect("a device"),
            incarnation: IncarnationId::new(),
            connection: ConnectionNumber(1),
        };
        let member = Arc::new(Member { session: SessionId::new(), registration, queue: Queue::default() });
        (self.hub.join(&member).expect("room").user, member)
    }

    fn lost(&mut self, loss: Loss) {
        self.registrar.lost(&self.hub, loss, self.now);
    }

    fn next(&mut self) -> Work {
        self.registrar.next(&self.hub, self.now)
    }

    /// The next batch to register, within `patience` of now; time goes on until it is due.
    fn batch(&mut self, patience: Duration) -> Option<Vec<Candidate>> {
        let until = self.now + patience;
        loop {
            match self.next() {
                Work::Register(batch) => return Some(batch),
                Work::Wait(Some(at)) if at <= until => self.now = at.max(self.now),
                Work::Wait(_) => return None,
                other => panic!("{other:?}"),
            }
        }
    }

    fn answer(&mut self, batch: Vec<Candidate>, answer: Option<Registered>) -> Vec<SessionId> {
        let answers = answer.map(|answer| vec![answer; batch.len()]);
        let followed = self.registrar.registered(&self.hub, batch, answers, self.now);
        followed.ready.iter().map(|member| member.session).collect()
    }

    /// Registers everything that is due within `patience`, with this answer; who was told to sync.
    fn settle(&mut self, patience: Duration, answer: Registered) -> Vec<SessionId> {
        let until = self.now + patience;
        let mut told = Vec::new();
        while let Some(batch) = self.batch(until - self.now) {
            told.extend(self.answer(batch, Some(answer)));
        }
        self.now = until;
        told
    }
}

fn ids(sessions: &[Session]) -> Vec<SessionId> {
    sessions.iter().rev().map(|(_, member)| member.session).collect()
}

fn ids_of(batch: &[Candidate]) -> Vec<SessionId> {
    batch.iter().map(|candidate| candidate.member.session).collect()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn after_a_loss_everybody_is_registered_the_newest_first_at_five_thousand_a_second() {
    let (mut world, sessions) = World::new(10_000);
    world.lost(Loss::Certain);
    let begin = world.now;
    let told = world.settle(seconds(5), Registered::Stored);
    assert_eq!(told, ids(&sessions));
    world.lost(Loss::Certain);
    let begin_again = world.now;
    let mut last = begin;
    while let Some(batch) = world.batch(seconds(5)) {
        assert!(batch.len() <= 250);
        last = world.now;
        world.answer(batch, Some(Registered::Stored));
    }
    let took = last - begin_again;
    assert!(took >= seconds(1) && took <= seconds(2), "{took:?}");
}

#[test]
fn ten_seconds_after_a_loss_everybody_is_registered_once_more_and_then_no_more() {
    let (mut world, sessions) = World::new(300);
    world.lost(Loss::Certain);
    assert_eq!(world.settle(seconds(9), Registered::Stored).len(), 300);
    let once_more = world.settle(seconds(2), Registered::Stored);
    assert_eq!(once_more, ids(&sessions));
    assert!(world.batch(seconds(500)).is_none());
}

#[test]
fn who_may_have_lost_its_route_syncs_only_if_it_had() {
    let (mut world, sessions) = World::new(10);
    world.lost(Loss::Possible);
    assert_eq!(world.settle(seconds(5), Registered::Kept), []);
    world.lost(Loss::Possible);
    assert_eq!(world.settle(seconds(5), Registered::Stored), ids(&sessions));
    // When the lease was gone, nobody was looked for here, whatever routes are left.
    world.lost(Loss::Certain);
    assert_eq!(world.settle(seconds(5), Registered::Kept), ids(&sessions));
}

#[test]
fn a_batch_whose_answer_was_lost_is_sent_again_and_its_sessions_sync_whatever_was_there() {
    let (mut world, sessions) = World::new(600);
    world.lost(Loss::Possible);
    let first = world.batch(seconds(1)).expect("there are some");
    let newest = ids_of(&first);
    assert_eq!(newest, ids(&sessions)[..250]);
    assert_eq!(world.answer(first, None), []);
    assert!(world.batch(Duration::from_millis(900)).is_none(), "the registry gets a rest");
    let again = world.batch(seconds(1)).expect("the same");
    assert_eq!(ids_of(&again), newest);
    assert_eq!(world.answer(again, Some(Registered::Kept)), newest);
    assert_eq!(world.settle(seconds(5), Registered::Kept), []);
}

#[test]
fn a_loss_in_the_middle_begins_anew_and_forgets_nobody_who_was_to_be_told() {
    let (mut world, sessions) = World::new(1_000);
    world.lost(Loss::Certain);
    let batch = world.batch(seconds(1)).expect("there are some");
    world.answer(batch, Some(Registered::Stored));
    world.lost(Loss::Possible);
    assert_eq!(world.settle(seconds(5), Registered::Kept), ids(&sessions));
}

#[test]
fn who_left_is_not_registered_and_who_left_in_between_is_forgotten_again() {
    let (mut world, sessions) = World::new(3);
    world.lost(Loss::Certain);
    world.hub.leave(&sessions[0].0, &sessions[0].1);
    let batch = world.batch(seconds(1)).expect("there are some");
    assert_eq!(batch.len(), 2);
    let gone = batch[0].member.registration.clone();
    let (user, member) = sessions.iter().find(|(_, member)| member.registration == gone).expect("it is one of them");
    world.hub.leave(user, member);
    assert_eq!(world.answer(batch, Some(Registered::Stored)).len(), 1);
    let Work::Forget(routes) = world.next() else { panic!("it is forgotten") };
    assert_eq!(routes, [gone]);
}

#[test]
fn everybody_is_registered_anyway_within_ten_minutes_a_few_at_a_time() {
    let (mut world, sessions) = World::new(18_000);
    assert!(world.batch(seconds(599)).is_none());
    let (mut seen, mut times) = (HashSet::new(), Vec::new());
    let begin = world.now;
    while world.now < begin + seconds(1_199)
        && let Some(batch) = world.batch(seconds(700))
    {
        times.push(world.now);
        seen.extend(ids_of(&batch));
        assert!(batch.len() <= 64);
        assert_eq!(world.answer(batch, Some(Registered::Kept)), []);
    }
    assert_eq!(seen.len(), sessions.len());
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= seconds(2)), "evenly");
}

#[test]
fn the_sweep_tells_who_was_missing() {
    let (mut world, sessions) = World::new(10);
    assert_eq!(world.settle(seconds(1_300), Registered::Stored)[..10], ids(&sessions));
}

#[test]
fn ended_sessions_are_forgotten_in_batches_and_only_so_many_wait() {
    let (mut world, sessions) = World::new(200);
    world.registrar.ended_max = 150;
    let took = sessions.iter().filter(|(user, member)| {
        world.hub.leave(user, member);
        world.registrar.forget(member.registration.clone())
    });
    assert_eq!(took.count(), 150);
    let mut batches = Vec::new();
    while let Work::Forget(routes) = world.next() {
        assert!(!world.registrar.has_forgotten());
        world.registrar.forgotten(&world.hub, &routes);
        batches.push(routes.len());
    }
    assert_eq!(batches, [64, 64, 22]);
    assert!(world.registrar.has_forgotten());
}

#[test]
fn the_same_connection_again_keeps_its_route() {
    let (mut world, sessions) = World::new(1);
    let route = sessions[0].1.registration.clone();
    // The session is here: nothing is forgotten.
    assert!(world.registrar.forget(route.clone()));
    assert!(matches!(world.next(), Work::Wait(_)));
    // It came while the route was being removed: it is registered again, and syncs if the route was gone.
    world.registrar.forgotten(&world.hub, &[route]);
    assert_eq!(world.settle(seconds(1), Registered::Stored), ids(&sessions));
}

#[test]
fn stale_users_are_removed_at_a_bounded_rate_and_none_of_them_twice_in_a_minute() {
    let (mut world, sessions) = World::new(1);
    let users: Vec<_> = (0..2 * STALE).map(|_| UserId::new()).collect();
    for user in users.iter().chain(&users) {
        world.registrar.stale(*user, world.now);
    }
    // Who has a session here by now is none.
    world.registrar.stale(sessions[0].0.id, world.now);
    let (begin, mut removed) = (world.now, Vec::new());
    loop {
        match world.next() {
            Work::Prune(users) => {
                assert!(users.len() <= AT_ONCE);
                world.registrar.pruned(&world.hub, &users, true);
                removed.extend(users);
            }
            Work::Wait(Some(at)) if at < begin + seconds(60) => world.now = at,
            _ => break,
        }
    }
    assert_eq!(removed, users[..STALE]);
    assert!(world.now - begin > seconds(7));
    world.registrar.stale(users[0], world.now + seconds(60));
    world.now += seconds(60);
    assert!(matches!(world.next(), Work::Prune(users) if users == removed[..1]));
}

#[test]
fn who_comes_while_its_stale_route_is_removed_is_registered_again() {
    let (mut world, _) = World::new(0);
    let (user, member) = world.join();
    world.registrar.pruned(&world.hub, &[user.id], true);
    assert_eq!(world.settle(seconds(1), Registered::Stored), [member.session]);
}

#[test]
fn too_many_undone_routes_become_everybody() {
    let (mut world, sessions) = World::new(100);
    world.registrar.ended_max = 64;
    let users: Vec<_> = sessions.iter().map(|(user, _)| user.id).collect();
    world.registrar.pruned(&world.hub, &users, true);
    assert_eq!(world.settle(seconds(1), Registered::Stored), ids(&sessions));
    assert!(world.registrar.undone.is_empty());
}

#[test]
fn while_the_registry_is_away_stale_users_are_let_go() {
    let (mut world, _) = World::new(0);
    (0..1_000).for_each(|_| world.registrar.stale(UserId::new(), world.now));
    let Work::Prune(users) = world.next() else { panic!("some are stale") };
    world.registrar.pruned(&world.hub, &users, false);
    world.now += seconds(1);
    assert!(matches!(world.next(), Work::Wait(_)));
}

#[test]
fn sessions_are_told_to_sync_at_five_thousand_a_second_and_too_many_become_everybody() {
    let (mut world, sessions) = World::new(1_000);
    let members: Vec<_> = sessions.iter().map(|(_, member)| Arc::clone(member)).collect();
    for _ in 0..5 {
        world.registrar.resync(&world.hub, &members);
    }
    let (begin, mut told) = (world.now, HashSet::new());
    let mut times = 0;
    loop {
        match world.registrar.tell(world.now) {
            Ok(batch) => {
                times += batch.len();
                told.extend(batch.iter().map(|member| member.session));
            }
            Err(Some(at)) => world.now = at,
            Err(None) => break,
        }
    }
    assert_eq!((times, told.len()), (1_000, 1_000));
    assert!(world.now - begin >= Duration::from_millis(150));
}

#[test]
fn a_newer_route_of_the_device_is_handed_to_whoever_can_take_it_over() {
    let (mut world, sessions) = World::new(1);
    world.lost(Loss::Certain);
    let batch = world.batch(seconds(1)).expect("there is one");
    let (incarnation, connection) = (IncarnationId::new(), ConnectionNumber(9));
    let answers = Some(vec![Registered::Newer { incarnation, connection }]);
    let followed = world.registrar.registered(&world.hub, batch, answers, world.now);
    assert!(followed.ready.is_empty());
    let (member, newer) = &followed.newer[0];
    assert_eq!(member.session, sessions[0].1.session);
    assert_eq!((newer.incarnation, newer.connection), (incarnation, connection));
    assert_eq!(newer.device, member.registration.device);
}

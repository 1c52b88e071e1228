//! The statements that every [`Registry`] is held to. [`contract_tests!`](crate::contract_tests) makes one test of
//! each, for a function that makes a [`Fixture`].

pub use crate::faulty::{Call, Fault, FaultyRegistry};
use crate::{Directory, GatewayState, Lease, Registered, Registration, Registry, Route};
use std::{collections::HashSet, sync::Arc};
use touchline_ids::{ConnectionNumber, GatewayId, IncarnationId, UserId};

mod leases;

pub use leases::{
    a_lease_is_missing_then_renewed_and_listed, a_lost_lease_is_missing_again,
    a_released_lease_is_gone_but_only_ones_own, an_earlier_incarnation_is_fenced_and_changes_nothing,
};

/// What every call must do here.
const ANSWERS: &str = "the registry answers";

/// A registry of its own for one test.
#[async_trait::async_trait]
pub trait Fixture: Send + Sync {
    /// The registry under test.
    fn registry(&self) -> Arc<dyn Registry>;
    /// Makes a lease disappear as time or a fault would.
    async fn lose_lease(&self, gateway: &GatewayId);
}

/// Makes one `#[tokio::test]` of each statement, in the present module. The argument names an async function without
/// arguments that makes a [`Fixture`](crate::contract::Fixture).
#[macro_export]
macro_rules! contract_tests {
    ($fixture:path) => {
        $crate::contract_tests!(
            $fixture,
            a_lease_is_missing_then_renewed_and_listed,
            an_earlier_incarnation_is_fenced_and_changes_nothing,
            a_lost_lease_is_missing_again,
            a_released_lease_is_gone_but_only_ones_own,
            an_older_connection_is_refused_and_an_equal_one_replaces,
            a_route_that_was_there_is_told_from_one_that_was_not,
            connection_numbers_are_compared_exactly,
            a_route_is_taken_over_only_from_exactly_the_entry_found_dead,
            a_late_unregister_is_refused,
            only_routes_of_the_named_incarnation_are_pruned,
            ten_thousand_stale_routes_are_pruned_in_one_call,
            every_device_of_a_user_is_found_once_per_incarnation,
            ten_thousand_users_are_found_in_one_call,
            ten_thousand_sessions_are_registered_in_one_call,
            nothing_is_asked_and_nothing_answered,
            routes_of_a_dead_incarnation_are_ignored,
            a_ticket_is_used_once,
            of_a_hundred_uses_at_once_one_wins,
            a_newest_connection_wins_whatever_the_order,
        );
    };
    ($fixture:path, $($statement:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $statement() {
                $crate::contract::$statement(&$fixture().await).await;
            }
        )*
    };
}

/// A plausible lease.
pub fn lease(gateway: &str, incarnation: IncarnationId) -> Lease {
    Lease {
        gateway: gateway.parse().expect("a gateway id"),
        incarnation,
        grpc_url: format!("http://{gateway}:9090"),
        public_url: format!("wss://{gateway}.example.com"),
        state: GatewayState::Ready,
        sessions: 3,
        capacity: 100,
        push_streams: 2,
    }
}

/// A session to register.
pub fn session(user: UserId, device: &str, incarnation: IncarnationId, connection: i64) -> Registration {
    let device = device.parse().expect("a device id");
    Registration { user, device, incarnation, connection: ConnectionNumber(connection) }
}

async fn register(registry: &dyn Registry, session: &Registration) -> Registered {
    let mut answers = registry.register(std::slice::from_ref(session)).await.expect(ANSWERS);
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

async fn incarnations(registry: &dyn Registry, user: UserId) -> Vec<IncarnationId> {
    let routes = registry.look_up(&[user]).await.expect(ANSWERS);
    assert!(routes.iter().all(|route| route.index == 0));
    let mut incarnations: Vec<_> = routes.into_iter().map(|route| route.incarnation).collect();
    incarnations.sort();
    incarnations
}

/// The device's own counter decides, so that a delayed registration of an old socket cannot win.
pub async fn an_older_connection_is_refused_and_an_equal_one_replaces(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let (user, here, there) = (UserId::new(), IncarnationId::new(), IncarnationId::new());
    let newer = Registered::Newer { incarnation: here, connection: ConnectionNumber(5) };
    assert_eq!(register(&*registry, &session(user, "phone", here, 5)).await, Registered::Stored);
    assert_eq!(register(&*registry, &session(user, "phone", there, 4)).await, newer);
    assert_eq!(incarnations(&*registry, user).await, [here]);
    assert_eq!(register(&*registry, &session(user, "laptop", there, 1)).await, Registered::Stored);
    assert_eq!(register(&*registry, &session(user, "phone", there, 5)).await, Registered::Stored);
    assert_eq!(incarnations(&*registry, user).await, [there]);
    assert_eq!(register(&*registry, &session(user, "phone", here, 6)).await, Registered::Stored);
    assert_eq!(incarnations(&*registry, user).await, [here, there]);
}

/// So that only those clients sync whose routes were lost.
pub async fn a_route_that_was_there_is_told_from_one_that_was_not(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let (user, here, there) = (UserId::new(), IncarnationId::new(), IncarnationId::new());
    let mine = session(user, "phone", here, 5);
    assert_eq!(register(&*registry, &mine).await, Registered::Stored);
    assert_eq!(register(&*registry, &mine).await, Registered::Kept);
    assert_eq!(register(&*registry, &session(user, "phone", there, 5)).await, Registered::Stored);
    assert_eq!(register(&*registry, &mine).await, Registered::Stored);
    registry.prune(&[(user, here)]).await.expect(ANSWERS);
    assert_eq!(register(&*registry, &mine).await, Registered::Stored);
    let both = [session(user, "pad", here, 1), mine];
    assert_eq!(registry.register(&both).await.expect(ANSWERS), [Registered::Stored, Registered::Kept]);
}

/// Also beyond 2^53, where a double is no longer exact, and below zero.
pub async fn connection_numbers_are_compared_exactly(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let incarnation = IncarnationId::new();
    let pairs = [
        (0, 1),
        (255, 256),
        (0x7fff_ffff, 0x8000_0000),
        (0xffff_ffff, 0x1_0000_0000),
        (1 << 53, (1 << 53) + 1),
        (i64::MAX - 1, i64::MAX),
        (-1, 0),
        (i64::MIN, i64::MAX),
        (-2, -1),
    ];
    for (older, newer) in pairs {
        let user = UserId::new();
        register(&*registry, &session(user, "phone", incarnation, newer)).await;
        let refused = register(&*registry, &session(user, "phone", incarnation, older)).await;
        assert_eq!(refused, Registered::Newer { incarnation, connection: ConnectionNumber(newer) }, "{older} {newer}");
        let user = UserId::new();
        register(&*registry, &session(user, "phone", incarnation, older)).await;
        assert_eq!(register(&*registry, &session(user, "phone", incarnation, newer)).await, Registered::Stored);
    }
}

/// A device whose counter was reset gets in again once its old gateway is dead, and only then.
pub async fn a_route_is_taken_over_only_from_exactly_the_entry_found_dead(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let (user, dead, here) = (UserId::new(), IncarnationId::new(), IncarnationId::new());
    let mine = session(user, "phone", here, 1);
    register(&*registry, &session(user, "phone", dead, 9)).await;
    assert!(!registry.take_over(&mine, dead, ConnectionNumber(8)).await.expect(ANSWERS));
    assert!(!registry.take_over(&mine, here, ConnectionNumber(9)).await.expect(ANSWERS));
    assert!(!registry.take_over(&session(user, "laptop", here, 1), dead, ConnectionNumber(9)).await.expect(ANSWERS));
    assert_eq!(incarnations(&*registry, user).await, [dead]);
    assert!(registry.take_over(&mine, dead, ConnectionNumber(9)).await.expect(ANSWERS));
    assert_eq!(incarnations(&*registry, user).await, [here]);
    assert!(registry.unregister(&mine).await.expect(ANSWERS));
    assert!(!registry.take_over(&mine, dead, ConnectionNumber(9)).await.expect(ANSWERS));
}

/// The socket that closed must not take the one that replaced it along.
pub async fn a_late_unregister_is_refused(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let (user, here, there) = (UserId::new(), IncarnationId::new(), IncarnationId::new());
    let (old, new) = (session(user, "phone", here, 1), session(user, "phone", there, 2));
    register(&*registry, &old).await;
    register(&*registry, &new).await;
    assert!(!registry.unregister(&old).await.expect(ANSWERS));
    assert!(!registry.unregister(&session(user, "phone", there, 1)).await.expect(ANSWERS));
    assert!(!registry.unregister(&session(user, "laptop", there, 2)).await.expect(ANSWERS));
    assert_eq!(incarnations(&*registry, user).await, [there]);
    assert!(registry.unregister(&new).await.expect(ANSWERS));
    assert!(!registry.unregister(&new).await.expect(ANSWERS));
    assert_eq!(incarnations(&*registry, user).await, []);
    // Nothing remembers the number: the device may begin again.
    assert_eq!(register(&*registry, &old).await, Registered::Stored);
}

/// Whoever meets routes that mean nothing removes them, and nothing else.
pub async fn only_routes_of_the_named_incarnation_are_pruned(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let (user, other, dead, here) = (UserId::new(), UserId::new(), IncarnationId::new(), IncarnationId::new());
    let sessions = [
        session(user, "phone", dead, 1),
        session(user, "tablet", dead, 7),
        session(user, "laptop", here, 1),
        session(other, "phone", dead, 1),
    ];
    registry.register(&sessions).await.expect(ANSWERS);
    assert_eq!(registry.prune(&[]).await.expect(ANSWERS), 0);
    assert_eq!(registry.prune(&[(user, dead), (UserId::new(), dead)]).await.expect(ANSWERS), 2);
    assert_eq!(incarnations(&*registry, user).await, [here]);
    assert_eq!(incarnations(&*registry, other).await, [dead]);
    assert_eq!(registry.prune(&[(user, dead)]).await.expect(ANSWERS), 0);
    assert_eq!(registry.prune(&[(user, here), (other, dead)]).await.expect(ANSWERS), 2);
    assert_eq!(incarnations(&*registry, user).await, []);
    // Nothing remembers the number: the device may begin again.
    assert_eq!(register(&*registry, &sessions[0]).await, Registered::Stored);
}

/// What a dead gateway leaves behind.
pub async fn ten_thousand_stale_routes_are_pruned_in_one_call(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let (dead, here) = (IncarnationId::new(), IncarnationId::new());
    let users: Vec<_> = (0..10_000).map(|_| UserId::new()).collect();
    let mut sessions: Vec<_> = users.iter().map(|user| session(*user, "phone", dead, 1)).collect();
    sessions.extend(users.iter().step_by(2).map(|user| session(*user, "pad", here, 1)));
    registry.register(&sessions).await.expect(ANSWERS);
    let stale: Vec<_> = users.iter().map(|user| (*user, dead)).collect();
    assert_eq!(registry.prune(&stale).await.expect(ANSWERS), 10_000);
    let routes = registry.look_up(&users).await.expect(ANSWERS);
    assert_eq!(routes.len(), 5_000);
    assert!(routes.iter().all(|route| route.incarnation == here && route.index.is_multiple_of(2)));
}

/// A push names a user once per gateway; the gateway knows the devices.
pub async fn every_device_of_a_user_is_found_once_per_incarnation(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let (user, other) = (UserId::new(), UserId::new());
    let mut places = [IncarnationId::new(), IncarnationId::new()];
    places.sort();
    let sessions = [
        session(user, "phone", places[0], 1),
        session(user, "tablet", places[0], 1),
        session(user, "laptop", places[1], 1),
        session(other, "phone", places[1], 1),
    ];
    assert_eq!(registry.register(&sessions).await.expect(ANSWERS), [Registered::Stored; 4]);
    assert_eq!(incarnations(&*registry, user).await, places);
    registry.unregister(&sessions[0]).await.expect(ANSWERS);
    assert_eq!(incarnations(&*registry, user).await, places);
    registry.unregister(&sessions[1]).await.expect(ANSWERS);
    assert_eq!(incarnations(&*registry, user).await, [places[1]]);
    assert_eq!(incarnations(&*registry, other).await, [places[1]]);
}

/// A big channel: each index answers for its own user, in order, also when a user is asked for twice.
pub async fn ten_thousand_users_are_found_in_one_call(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let mut users: Vec<_> = (0..10_000).map(|_| UserId::new()).collect();
    users.push(users[1]);
    let gateways: Vec<_> = (0..3).map(|_| IncarnationId::new()).collect();
    // Every third user is offline; every sixth has two devices on two gateways.
    let online = (0..10_000).filter(|index| index % 3 != 0);
    let mut sessions: Vec<_> = online.map(|index| session(users[index], "phone", gateways[index % 2], 1)).collect();
    sessions
        .extend((0..10_000).filter(|index| index % 6 == 1).map(|index| session(users[index], "pad", gateways[2], 1)));
    for registered in registry.register(&sessions).await.expect(ANSWERS) {
        assert_eq!(registered, Registered::Stored);
    }
    let mut expected = Vec::new();
    for index in 0..users.len() {
        let user = if index == 10_000 { 1 } else { index };
        let route = |incarnation| Route { index: u32::try_from(index).expect("few"), incarnation };
        if user % 3 != 0 {
            expected.push(route(gateways[user % 2]));
        }
        if user % 6 == 1 {
            expected.push(route(gateways[2]));
        }
    }
    let mut routes = registry.look_up(&users).await.expect(ANSWERS);
    assert!(routes.is_sorted_by_key(|route| route.index));
    routes.sort();
    expected.sort();
    assert_eq!(routes, expected);
}

/// What a gateway does after its lease was missing.
pub async fn ten_thousand_sessions_are_registered_in_one_call(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let (old, new) = (IncarnationId::new(), IncarnationId::new());
    let users: Vec<_> = (0..10_000).map(|_| UserId::new()).collect();
    let first: Vec<_> = users.iter().step_by(100).map(|user| session(*user, "phone", old, 2)).collect();
    registry.register(&first).await.expect(ANSWERS);
    let sessions: Vec<_> = users.iter().map(|user| session(*user, "phone", new, 1)).collect();
    let answers = registry.register(&sessions).await.expect(ANSWERS);
    assert_eq!(answers.len(), 10_000);
    for (index, answer) in answers.into_iter().enumerate() {
        let newer = Registered::Newer { incarnation: old, connection: ConnectionNumber(2) };
        assert_eq!(answer, if index % 100 == 0 { newer } else { Registered::Stored }, "{index}");
    }
}

/// Empty questions are legal.
pub async fn nothing_is_asked_and_nothing_answered(fixture: &impl Fixture) {
    let registry = fixture.registry();
    registry.ping().await.expect(ANSWERS);
    assert_eq!(registry.look_up(&[]).await.expect(ANSWERS), []);
    assert_eq!(registry.register(&[]).await.expect(ANSWERS), []);
    assert_eq!(incarnations(&*registry, UserId::new()).await, []);
}

/// The registry keeps them, the directory leaves them out.
pub async fn routes_of_a_dead_incarnation_are_ignored(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let (alive, dying) = (lease("gw-1", IncarnationId::new()), lease("gw-2", IncarnationId::new()));
    registry.renew_lease(&alive).await.expect(ANSWERS);
    registry.renew_lease(&dying).await.expect(ANSWERS);
    let users = [UserId::new(), UserId::new()];
    let sessions = [
        session(users[0], "phone", dying.incarnation, 1),
        session(users[0], "laptop", alive.incarnation, 1),
        session(users[1], "phone", dying.incarnation, 1),
    ];
    registry.register(&sessions).await.expect(ANSWERS);
    let directory = Directory::new(registry.clone());
    let routes = registry.look_up(&users).await.expect(ANSWERS);
    let groups = directory.group(&routes).await;
    assert_eq!((groups.live.len(), groups.left_out.len()), (2, 0));

    registry.release_lease(&dying.gateway, dying.incarnation).await.expect(ANSWERS);
    directory.refresh().await.expect(ANSWERS);
    let routes = registry.look_up(&users).await.expect(ANSWERS);
    assert_eq!(routes.len(), 3, "the registry itself does not know who is dead");
    let groups = directory.group(&routes).await;
    assert_eq!((groups.live.len(), groups.left_out.len()), (1, 2));
    assert_eq!((&*groups.live[0].lease, groups.live[0].users.as_slice()), (&alive, &[0][..]));
}

/// And another ticket is another ticket.
pub async fn a_ticket_is_used_once(fixture: &impl Fixture) {
    let registry = fixture.registry();
    assert!(registry.redeem_ticket("ticket-1").await.expect(ANSWERS));
    assert!(!registry.redeem_ticket("ticket-1").await.expect(ANSWERS));
    assert!(registry.redeem_ticket("ticket-2").await.expect(ANSWERS));
    assert!(!registry.redeem_ticket("ticket-1").await.expect(ANSWERS));
}

/// A stolen ticket used at the same moment as by its owner.
pub async fn of_a_hundred_uses_at_once_one_wins(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let uses = (0..100).map(|_| registry.redeem_ticket("ticket"));
    let won = futures_util::future::try_join_all(uses).await.expect(ANSWERS);
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
}

/// A hundred connections of one device race from ten gateways; the registry ends with the newest.
pub async fn a_newest_connection_wins_whatever_the_order(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let user = UserId::new();
    let gateways: Vec<_> = (0..10).map(|_| IncarnationId::new()).collect();
    // 37 and 100 have no common divisor: every number once, well mixed.
    let sessions: Vec<_> =
        (0..100).map(|n: i64| n * 37 % 100).map(|n| session(user, "phone", gateways[n as usize % 10], n)).collect();
    let answers = sessions.iter().map(|session| registry.register(std::slice::from_ref(session)));
    let answers = futures_util::future::try_join_all(answers).await.expect(ANSWERS);
    assert_eq!(incarnations(&*registry, user).await, [gateways[9]]);
    let newest = sessions.iter().position(|session| session.connection.0 == 99).expect("99 is among them");
    assert_eq!(answers[newest], [Registered::Stored]);
    let removed = sessions.iter().map(|session| registry.unregister(session));
    let removed = futures_util::future::try_join_all(removed).await.expect(ANSWERS);
    let removed: HashSet<_> = removed.iter().enumerate().filter(|(_, removed)| **removed).map(|(n, _)| n).collect();
    assert_eq!(removed, HashSet::from([newest]));
    assert_eq!(incarnations(&*registry, user).await, []);
}

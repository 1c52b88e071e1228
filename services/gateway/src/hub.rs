//! Who is connected here: user → sessions, and what the user's devices acked.
//!
//! Look-ups never wait for each other. A user's entry is locked for as long as it takes to walk a handful of sessions.

use crate::{
    acked::Acked,
    close_codes::{Close, CloseCode},
    frame::Encoded,
    queue::{Bounds, Class, Offered, Order, Queue},
};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};
use tokio::sync::Notify;
use touchline_ids::{ChannelId, Seq, SessionId, UserId};
use touchline_registry::Registration;

/// One session as the rest of the gateway sees it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) session: SessionId,
    pub(crate) registration: Registration,
    pub(crate) queue: Queue,
}

/// One user with at least one session here.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) id: UserId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Arc<Member>>,
    acked: Acked,
    /// Stands among those who acked something that is not told yet.
    listed: bool,
    /// The entry has left the map; a newcomer needs a new one.
    retired: bool,
}

/// A device of the user holds every message of the channel up to seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) user: UserId,
    pub(crate) channel: ChannelId,
    pub(crate) seq: Seq,
}

/// What became of a push at one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handed {
    /// At least one session has it in its queue.
    Taken,
    /// Every session's queue was full.
    Slow,
    /// No session (any more).
    Gone,
}

/// Why a session was not let in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many sessions as the gateway holds.
    Full,
    /// The device has a newer connection here.
    Older,
}

/// A session that was let in.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) user: Arc<User>,
    /// Whom it displaces, to be closed once it is registered: the same device's older sessions, and the oldest when
    /// the user has too many.
    pub(crate) displaced: Vec<(Arc<Member>, Close)>,
}

/// How much the hub takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HubLimits {
    pub(crate) capacity: u32,
    pub(crate) sessions_per_user: usize,
    pub(crate) queue: Bounds,
}

/// Every session of this gateway.
#[derive(Debug)]
pub(crate) struct Hub {
    users: papaya::HashMap<UserId, Arc<User>>,
    limits: HubLimits,
    sessions: AtomicU32,
    left: Notify,
    /// Who acked something that is not told yet; at most as many as there may be sessions.
    acking: Mutex<Vec<Arc<User>>>,
}

impl Hub {
    pub(crate) fn new(limits: HubLimits) -> Self {
        let (sessions, left, acking) = (AtomicU32::new(0), Notify::new(), Mutex::default());
        Self { users: papaya::HashMap::new(), limits, sessions, left, acking }
    }

    /// Sessions now.
    pub(crate) fn sessions(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Whether there is room for another session.
    pub(crate) fn has_room(&self) -> bool {
        self.sessions() < self.limits.capacity
    }

    /// Resolves when no session is left.
    pub(crate) async fn empty(&self) {
        loop {
            let left = self.left.notified();
            if self.sessions() == 0 {
                return;
            }
            left.await;
        }
    }

    /// Lets a session in. From now on pushes reach its queue.
    pub(crate) fn join(&self, member: &Arc<Member>) -> Result<Joined, Refused> {
        let below = |sessions| (sessions < self.limits.capacity).then_some(sessions + 1);
        self.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).map_err(|_| Refused::Full)?;
        let id = member.registration.user;
        loop {
            let user =
                Arc::clone(self.users.pin().get_or_insert_with(id, || Arc::new(User { id, state: Mutex::default() })));
            let mut state = user.lock();
            if state.retired {
                drop(state);
                self.remove(&user);
                continue;
            }
            let joined = state.join(member, self.limits.sessions_per_user);
            drop(state);
            return match joined {
                Some(displaced) => Ok(Joined { user, displaced }),
                None => {
                    self.one_less();
                    Err(Refused::Older)
                }
            };
        }
    }

    /// Lets a session go. Its late end leaves newer ones of the same device alone.
    pub(crate) fn leave(&self, user: &Arc<User>, member: &Arc<Member>) {
        let mut state = user.lock();
        let before = state.members.len();
        state.members.retain(|other| !Arc::ptr_eq(other, member));
        let left = state.members.len() < before;
        state.retired = state.members.is_empty();
        let retired = state.retired;
        drop(state);
        if retired {
            self.remove(user);
        }
        if left {
            self.one_less();
        }
    }

    fn remove(&self, user: &Arc<User>) {
        // Err: somebody else removed it, or a newer entry stands there.
        let _ = self.users.pin().remove_if(&user.id, |_, present| Arc::ptr_eq(present, user));
    }

    fn one_less(&self) {
        if self.sessions.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.left.notify_waiters();
        }
    }

    /// Whether exactly this registration has a session here.
    pub(crate) fn holds(&self, registration: &Registration) -> bool {
        self.member(registration).is_some()
    }

    /// The session of exactly this registration.
    pub(crate) fn member(&self, registration: &Registration) -> Option<Arc<Member>> {
        let users = self.users.pin();
        let state = users.get(&registration.user)?.lock();
        let same = |member: &&Arc<Member>| {
            member.registration.device == registration.device
                && member.registration.connection == registration.connection
        };
        state.members.iter().find(same).cloned()
    }

    /// Whether this user has a session here.
    pub(crate) fn has(&self, user: UserId) -> bool {
        self.users.pin().get(&user).is_some_and(|user| !user.lock().members.is_empty())
    }

    /// Hands a message to every user's sessions. `each` gets every user in order, with what became of it.
    pub(crate) fn hand(
        &self,
        users: impl Iterator<Item = UserId>,
        message: &Encoded,
        mut each: impl FnMut(UserId, Handed, Option<&Arc<User>>),
    ) {
        let map = self.users.pin();
        for id in users {
            match map.get(&id) {
                Some(user) => each(id, user.hand(message, self.limits.queue), Some(user)),
                None => each(id, Handed::Gone, None),
            }
        }
    }

    /// Who of `users` has a session here. `each` gets every user in order.
    pub(crate) fn find(&self, users: impl Iterator<Item = UserId>, mut each: impl FnMut(UserId, Option<&Arc<User>>)) {
        let map = self.users.pin();
        users.for_each(|id| each(id, map.get(&id)));
    }

    /// Whether a device of the user acked `seq` of `channel`; also when the user has left and come back since.
    pub(crate) fn has_acked(&self, user: &User, channel: ChannelId, seq: Seq) -> bool {
        let state = user.lock();
        if state.acked.covers(channel, seq) {
            return true;
        }
        let retired = state.retired;
        drop(state);
        retired && self.users.pin().get(&user.id).is_some_and(|user| user.lock().acked.covers(channel, seq))
    }

    /// Every session of these users now.
    pub(crate) fn members_of(&self, users: &[UserId]) -> Vec<Arc<Member>> {
        let mut members = Vec::with_capacity(users.len());
        self.find(users.iter().copied(), |_, user| {
            members.extend(user.into_iter().flat_map(|user| user.lock().members.clone()));
        });
        members
    }

    /// Remembers what a device of the user acked, to be told later. Without room among those who acked it is told
    /// after the user's next ack.
    pub(crate) fn ack(&self, user: &Arc<User>, cursors: &[(ChannelId, Seq)]) {
        let mut state = user.lock();
        for (channel, seq) in cursors {
            state.acked.raise(*channel, *seq);
        }
        if state.listed || !state.acked.has_untold() {
            return;
        }
        let mut acking = self.acking.lock().unwrap_or_else(PoisonError::into_inner);
        if acking.len() < self.limits.capacity as usize {
            state.listed = true;
            acking.push(Arc::clone(user));
        }
    }

    /// What was acked and not told before.
    pub(crate) fn take_acks(&self) -> Vec<Ack> {
        let acking = std::mem::take(&mut *self.acking.lock().unwrap_or_else(PoisonError::into_inner));
        let mut acks = Vec::with_capacity(acking.len());
        for user in acking {
            let mut state = user.lock();
            state.listed = false;
            acks.extend(state.acked.take_untold().map(|(channel, seq)| Ack { user: user.id, channel, seq }));
        }
        acks
    }

    /// Every session now, in no order.
    pub(crate) fn members(&self) -> Vec<Arc<Member>> {
        let mut members = Vec::with_capacity(self.sessions() as usize);
        for user in self.users.pin().values() {
            members.extend(user.lock().members.iter().cloned());
        }
        members
    }
}

impl User {
    fn hand(&self, message: &Encoded, bounds: Bounds) -> Handed {
        let state = self.lock();
        let mut handed = Handed::Gone;
        for member in &state.members {
            match member.queue.offer(&message.text, Class::Message, bounds) {
                Offered::Taken => handed = Handed::Taken,
                Offered::Slow if handed == Handed::Gone => handed = Handed::Slow,
                Offered::Slow | Offered::Closed | Offered::Dropped => {}
            }
        }
        handed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// None when the device has a newer session here.
    fn join(&mut self, member: &Arc<Member>, limit: usize) -> Option<Vec<(Arc<Member>, Close)>> {
        let mine = &member.registration;
        let same_device = |other: &&Arc<Member>| other.registration.device == mine.device;
        if self
            .members
            .iter()
            .filter(same_device)
            .any(|other| other.registration.connection > mine.connection && !other.queue.is_closing())
        {
            return None;
        }
        const REPLACED: Close = Close::new(CloseCode::Replaced, "this device connected again");
        const CROWDED: Close = Close::new(CloseCode::Replaced, "too many sessions of this user; the oldest goes");
        let mut displaced: Vec<_> =
            self.members.iter().filter(same_device).map(|other| (Arc::clone(other), REPLACED)).collect();
        let others = self.members.iter().filter(|other| !same_device(other) && !other.queue.is_closing());
        let open: Vec<_> = others.collect();
        let too_many = (open.len() + 1).saturating_sub(limit);
        displaced.extend(open.into_iter().take(too_many).map(|oldest| (Arc::clone(oldest), CROWDED)));
        self.members.push(Arc::clone(member));
        Some(displaced)
    }
}

/// Orders every displaced session to close.
pub(crate) fn close_displaced(displaced: Vec<(Arc<Member>, Close)>) {
    for (member, close) in displaced {
        member.queue.order(Order::Close(close));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};
    use touchline_ids::{ConnectionNumber, IncarnationId};

    const LIMITS: HubLimits =
        HubLimits { capacity: 100, sessions_per_user: 3, queue: Bounds { frames: 2, bytes: 1000 } };

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
}

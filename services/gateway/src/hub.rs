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
    /// The database's life, as an api told it last.
    life: Mutex<Option<i64>>,
}

impl Hub {
    pub(crate) fn new(limits: HubLimits) -> Self {
        let (sessions, left, acking) = (AtomicU32::new(0), Notify::new(), Mutex::default());
        Self { users: papaya::HashMap::new(), limits, sessions, left, acking, life: Mutex::default() }
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

    /// The database is in this life. When it was in another one, what was acked is of logs that are no more, and is
    /// forgotten: true.
    pub(crate) fn begin_life(&self, life: i64) -> bool {
        let before = self.life.lock().unwrap_or_else(PoisonError::into_inner).replace(life);
        let is_another = before.is_some_and(|before| before != life);
        if is_another {
            self.users.pin().values().for_each(|user| user.lock().acked = Acked::default());
        }
        is_another
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
mod tests;

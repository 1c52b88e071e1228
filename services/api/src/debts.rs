//! To whom gateways that are not in the view may have to show something, without I/O: whoever has a route there that was
//! left out, and everybody a broadcast was for, which went only to those in the view. When such a gateway comes (back)
//! into view its stream begins with what it owes.
//!
//! Without that a device would miss for good what was sent in the moment between its gateway's return and our noticing:
//! it has synced already, and its user may be reached elsewhere.

use crate::owed::Owed;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use touchline_ids::{IncarnationId, UserId};
use touchline_proto::convert::pack_users;

/// A gateway that nobody has heard of for so long has no clients any more.
const KEPT: Duration = Duration::from_secs(60);
/// Incarnations remembered by name, and users of broadcasts; beyond, everybody is owed by all who come.
const NAMED: usize = 1_000;
const STRANGERS: usize = 10_000;

/// What gateways out of sight owe.
#[derive(Default)]
pub struct Debts(Mutex<Books>);

#[derive(Default)]
struct Books {
    named: HashMap<IncarnationId, (Owed, Instant)>,
    /// Owed by whichever gateway comes into view, until then.
    strangers: BTreeMap<UserId, Instant>,
    /// Until then every gateway that comes owes everybody.
    everybody: Option<Instant>,
}

impl Debts {
    /// A route of this user to that incarnation was left out.
    pub fn left_out(&self, incarnation: IncarnationId, user: UserId, now: Instant) {
        self.lock().named(incarnation, now).add(user.as_bytes());
    }

    /// A broadcast to these users went only to those in the view.
    pub fn broadcast(&self, users: &[UserId], now: Instant) {
        let mut books = self.lock();
        if books.strangers.len() + users.len() > STRANGERS {
            books.strangers.clear();
            books.everybody = Some(now + KEPT);
        } else {
            books.strangers.extend(users.iter().map(|user| (*user, now + KEPT)));
        }
    }

    /// A stream to that incarnation is given up; this is what it owed.
    pub fn keep(&self, incarnation: IncarnationId, owed: &Owed, now: Instant) {
        if let Some(recipients) = owed.take() {
            self.lock().named(incarnation, now).put_back(&recipients);
        }
    }

    /// What a new stream to that incarnation owes.
    pub fn take(&self, incarnation: IncarnationId, now: Instant) -> Owed {
        let mut books = self.lock();
        let owed = books.named.remove(&incarnation).map(|(owed, _)| owed).unwrap_or_default();
        books.strangers.retain(|_, until| now < *until);
        if books.everybody.is_some_and(|until| now < until) {
            owed.add_everybody();
        } else if !books.strangers.is_empty() {
            owed.add(&pack_users(books.strangers.keys()));
        }
        owed
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn named(&mut self, incarnation: IncarnationId, now: Instant) -> &Owed {
        if self.named.len() >= NAMED && !self.named.contains_key(&incarnation) {
            self.named.retain(|_, (_, until)| now < *until);
            if self.named.len() >= NAMED {
                self.named.clear();
                self.everybody = Some(now + KEPT);
            }
        }
        let (owed, until) = self.named.entry(incarnation).or_insert_with(|| (Owed::default(), now));
        *until = now + KEPT;
        owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owes(debts: &Debts, incarnation: IncarnationId, now: Instant) -> usize {
        debts.take(incarnation, now).take().map_or(0, |packed| packed.len() / 16)
    }

    #[test]
    fn whoever_was_left_out_is_owed_by_that_gateway_once() {
        let (debts, now, user) = (Debts::default(), Instant::now(), UserId::new());
        let [one, other] = [IncarnationId::new(), IncarnationId::new()];
        debts.left_out(one, user, now);
        debts.left_out(one, user, now);
        assert_eq!(owes(&debts, other, now), 0);
        assert_eq!(owes(&debts, one, now), 1);
        assert_eq!(owes(&debts, one, now), 0);
        let owed = Owed::default();
        owed.add(user.as_bytes());
        debts.keep(one, &owed, now);
        assert_eq!(owes(&debts, one, now), 1);
    }

    #[test]
    fn a_broadcast_is_owed_by_everybody_who_comes_into_view_for_a_minute() {
        let (debts, now) = (Debts::default(), Instant::now());
        debts.broadcast(&[UserId::new(), UserId::new()], now);
        assert_eq!(owes(&debts, IncarnationId::new(), now), 2);
        assert_eq!(owes(&debts, IncarnationId::new(), now), 2);
        assert_eq!(owes(&debts, IncarnationId::new(), now + KEPT), 0);
    }

    #[test]
    fn too_much_to_remember_is_a_debt_to_everybody() {
        let (debts, now) = (Debts::default(), Instant::now());
        let users: Vec<_> = (0..=STRANGERS).map(|_| UserId::new()).collect();
        debts.broadcast(&users, now);
        assert_eq!(debts.take(IncarnationId::new(), now).take().expect("everybody").len(), 0);
        let debts = Debts::default();
        (0..=NAMED).for_each(|_| debts.left_out(IncarnationId::new(), users[0], now));
        assert_eq!(debts.take(IncarnationId::new(), now).take().expect("everybody").len(), 0);
        assert!(debts.lock().named.len() <= NAMED);
    }
}

//! To whom one gateway may still have to show something: recipients of pushes to it that got no result. When it is
//! reached again it is told to let them sync, which closes every hole at once.

use bytes::Bytes;
use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};
use touchline_ids::UserId;
use touchline_proto::{
    convert::{pack_users, unpack_users},
    push::push_request::Purpose,
};

/// Users remembered by name; beyond, everybody is owed.
const NAMED: usize = 10_000;

/// What is owed to the sessions of one incarnation.
#[derive(Default)]
pub struct Owed(Mutex<Debt>);

#[derive(Default)]
struct Debt {
    users: HashSet<UserId>,
    everybody: bool,
    /// Acks are of a log that is no more.
    anew: bool,
}

/// What is owed, as a push says it: the purpose, and packed users, none of them for everybody.
pub type Resync = (Purpose, Bytes);

impl Owed {
    /// These recipients (packed) may have missed something.
    pub fn add(&self, recipients: &[u8]) {
        let mut debt = self.lock();
        if debt.everybody {
            return;
        }
        debt.users.extend(unpack_users(recipients).into_iter().flatten());
        if debt.users.len() > NAMED {
            drop(debt);
            self.add_everybody();
        }
    }

    /// Everybody may have missed something.
    pub fn add_everybody(&self) {
        let mut debt = self.lock();
        debt.users.clear();
        debt.everybody = true;
    }

    /// The database began another life: everybody may hold what it lost, and have acked it.
    pub fn begin_anew(&self) {
        *self.lock() = Debt { users: HashSet::new(), everybody: true, anew: true };
    }

    /// Takes what is owed. `None`: nothing.
    pub fn take(&self) -> Option<Resync> {
        let Debt { users, everybody, anew } = std::mem::take(&mut *self.lock());
        let purpose = if anew { Purpose::Restart } else { Purpose::Resync };
        (everybody || !users.is_empty()).then(|| (purpose, pack_users(users.iter())))
    }

    /// Puts back what [`take`](Self::take) gave.
    pub fn put_back(&self, (purpose, recipients): &Resync) {
        if *purpose == Purpose::Restart {
            self.begin_anew();
        } else if recipients.is_empty() {
            self.add_everybody();
        } else {
            self.add(recipients);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Debt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(users: &[UserId]) -> Bytes {
        pack_users(users.iter())
    }

    #[test]
    fn whoever_is_owed_is_told_once() {
        let (owed, users) = (Owed::default(), [UserId::new(), UserId::new()]);
        assert_eq!(owed.take(), None);
        owed.add(&packed(&users));
        owed.add(&packed(&users[..1]));
        let taken = owed.take().unwrap();
        assert_eq!((taken.0, taken.1.len()), (Purpose::Resync, 2 * 16));
        assert_eq!(owed.take(), None);
        owed.put_back(&taken);
        assert_eq!(owed.take().unwrap().1.len(), 2 * 16);
    }

    #[test]
    fn too_many_are_everybody() {
        let owed = Owed::default();
        let users: Vec<_> = (0..=NAMED).map(|_| UserId::new()).collect();
        owed.add(&packed(&users[..NAMED]));
        assert_eq!(owed.take().unwrap().1.len(), NAMED * 16);
        owed.add(&packed(&users));
        owed.add(&packed(&users[..1]));
        let everybody = owed.take().unwrap();
        assert_eq!(everybody, (Purpose::Resync, Bytes::new()));
        owed.put_back(&everybody);
        assert_eq!(owed.take(), Some((Purpose::Resync, Bytes::new())));
    }

    #[test]
    fn another_life_of_the_database_is_owed_until_it_was_told() {
        let (owed, user) = (Owed::default(), UserId::new());
        owed.begin_anew();
        owed.add(user.as_bytes());
        owed.add_everybody();
        let anew = owed.take().unwrap();
        assert_eq!(anew, (Purpose::Restart, Bytes::new()));
        owed.add(user.as_bytes());
        owed.put_back(&anew);
        assert_eq!(owed.take(), Some(anew));
        assert_eq!(owed.take(), None);
    }
}

//! To whom one gateway may still have to show something: recipients of pushes to it that got no result. When it is
//! reached again it is told to let them sync, which closes every hole at once.

use bytes::Bytes;
use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};
use touchline_ids::UserId;
use touchline_proto::convert::{pack_users, unpack_users};

/// Users remembered by name; beyond, everybody is owed.
const NAMED: usize = 10_000;

/// What is owed to the sessions of one incarnation.
#[derive(Default)]
pub struct Owed(Mutex<Debt>);

#[derive(Default)]
struct Debt {
    users: HashSet<UserId>,
    everybody: bool,
}

impl Owed {
    /// These recipients (packed) may have missed something.
    pub fn add(&self, recipients: &[u8]) {
        let mut debt = self.lock();
        if debt.everybody {
            return;
        }
        debt.users.extend(unpack_users(recipients).into_iter().flatten());
        if debt.users.len() > NAMED {
            *debt = Debt { users: HashSet::new(), everybody: true };
        }
    }

    /// Everybody may have missed something.
    pub fn add_everybody(&self) {
        *self.lock() = Debt { users: HashSet::new(), everybody: true };
    }

    /// Takes what is owed, as the recipients of a RESYNC: packed users, none of them for everybody. `None`: nothing.
    pub fn take(&self) -> Option<Bytes> {
        let Debt { users, everybody } = std::mem::take(&mut *self.lock());
        (everybody || !users.is_empty()).then(|| pack_users(users.iter()))
    }

    /// Puts back what [`take`](Self::take) gave.
    pub fn put_back(&self, recipients: &[u8]) {
        if recipients.is_empty() {
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
        assert_eq!(taken.len(), 2 * 16);
        assert_eq!(owed.take(), None);
        owed.put_back(&taken);
        assert_eq!(owed.take().unwrap().len(), 2 * 16);
    }

    #[test]
    fn too_many_are_everybody() {
        let owed = Owed::default();
        let users: Vec<_> = (0..=NAMED).map(|_| UserId::new()).collect();
        owed.add(&packed(&users[..NAMED]));
        assert_eq!(owed.take().unwrap().len(), NAMED * 16);
        owed.add(&packed(&users));
        owed.add(&packed(&users[..1]));
        let everybody = owed.take().unwrap();
        assert!(everybody.is_empty());
        owed.put_back(&everybody);
        assert_eq!(owed.take(), Some(Bytes::new()));
    }
}

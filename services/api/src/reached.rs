//! Which of a message's recipients have a device that acked: one bit each, so that 10,000 recipients under way cost
//! 1.2 KiB.

use std::sync::Arc;
use touchline_ids::UserId;
use touchline_proto::convert::unpack_users;
use touchline_storage::Members;

/// One bit a member, in the members' order. A position is a place in that order.
pub struct Reached {
    members: Arc<Members>,
    bits: Vec<u64>,
}

impl Reached {
    /// Nobody yet.
    pub fn nobody(members: Arc<Members>) -> Self {
        let bits = vec![0; members.users.len().div_ceil(64)];
        Self { members, bits }
    }

    /// Marks one position.
    pub fn mark(&mut self, position: u32) {
        if let Some(word) = self.bits.get_mut(position as usize / 64) {
            *word |= 1 << (position % 64);
        }
    }

    /// Marks one user, such as the sender, who needs no notification.
    pub fn mark_user(&mut self, user: &UserId) {
        if let Some(position) = self.position(user) {
            self.mark(position);
        }
    }

    /// Everyone not reached, in order.
    pub fn missed(&self) -> Vec<u32> {
        let all = 0..u32::try_from(self.members.users.len()).unwrap_or(u32::MAX);
        all.filter(|position| !self.has(*position)).collect()
    }

    /// The members at these positions.
    pub fn users(&self, positions: &[u32]) -> Vec<UserId> {
        positions.iter().filter_map(|position| self.members.users.get(*position as usize)).copied().collect()
    }

    /// The positions of packed users, in order; whoever is not a member is left out.
    pub fn positions(&self, packed: &[u8]) -> Vec<u32> {
        let users = unpack_users(packed).into_iter().flatten();
        let mut positions: Vec<_> = users.filter_map(|user| self.position(&user)).collect();
        positions.sort_unstable();
        positions
    }

    fn position(&self, user: &UserId) -> Option<u32> {
        self.members.users.binary_search(user).ok().and_then(|position| u32::try_from(position).ok())
    }

    fn has(&self, position: u32) -> bool {
        self.bits.get(position as usize / 64).is_some_and(|word| word & (1 << (position % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchline_proto::convert::pack_users;

    #[test]
    fn everyone_is_missed_until_marked() {
        let mut users: Vec<_> = (0..130).map(|_| UserId::new()).collect();
        users.sort_unstable();
        let mut reached = Reached::nobody(Arc::new(Members { version: 1, users: users.clone() }));
        assert_eq!(reached.missed().len(), 130);
        (0..128).for_each(|position| reached.mark(position));
        reached.mark_user(&users[129]);
        reached.mark_user(&UserId::new());
        reached.mark(130);
        assert_eq!(reached.missed(), [128]);
        assert_eq!(reached.users(&[128, 0, 130]), [users[128], users[0]]);
        let packed = pack_users([&users[70], &UserId::new(), &users[2]].into_iter());
        assert_eq!(reached.positions(&packed), [2, 70]);
    }
}

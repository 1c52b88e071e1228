//! Who must get a message: the members of its channel at its seq.

use crate::writer::Stored;
use bytes::Bytes;
use std::sync::Arc;
use touchline_ids::UserId;
use touchline_proto::{convert::unpack_users, push::PushResult};
use touchline_storage::Members;

/// Messages that go to the same recipients, in log order per channel, so that one look-up serves them all.
pub struct Group {
    /// Everyone who must get them.
    pub members: Arc<Members>,
    /// What they get.
    pub messages: Vec<Stored>,
}

/// Groups messages by their recipients. Order within a channel is kept: a channel's later message never stands in an
/// earlier group.
pub fn resolve(stored: impl IntoIterator<Item = Stored>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for message in stored {
        // The members are shared while they do not change: the same snapshot is the same allocation.
        let same = groups.iter_mut().find(|group| Arc::ptr_eq(&group.members, &message.members));
        match same {
            Some(group) => group.messages.push(message),
            None => groups.push(Group { members: Arc::clone(&message.members), messages: vec![message] }),
        }
    }
    groups
}

/// Which recipients have a device that acked: one bit a member, in the members' order.
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

    /// Marks those of `pushed` (positions among the members) whom the gateway's result does not name.
    pub fn mark(&mut self, pushed: &[u32], result: &PushResult) {
        if result.stale_incarnation {
            return;
        }
        let mut excepted: Vec<u32> = [&result.gone, &result.slow, &result.unacked]
            .into_iter()
            .flat_map(|packed: &Bytes| unpack_users(packed).into_iter().flatten())
            .filter_map(|user| self.members.users.binary_search(&user).ok())
            .filter_map(|index| u32::try_from(index).ok())
            .collect();
        excepted.sort_unstable();
        for index in pushed {
            if excepted.binary_search(index).is_err() {
                self.mark_index(*index as usize);
            }
        }
    }

    /// Marks one user, such as the sender, who needs no notification.
    pub fn mark_user(&mut self, user: &UserId) {
        if let Ok(index) = self.members.users.binary_search(user) {
            self.mark_index(index);
        }
    }

    /// Takes back what was marked at these positions.
    pub fn unmark(&mut self, indexes: &[u32]) {
        for index in indexes {
            if let Some(word) = self.bits.get_mut(*index as usize / 64) {
                *word &= !(1 << (index % 64));
            }
        }
    }

    fn mark_index(&mut self, index: usize) {
        if let Some(word) = self.bits.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Everyone not reached, in order.
    pub fn missed(&self) -> Vec<UserId> {
        let reached = |index: usize| self.bits.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0);
        self.members.users.iter().enumerate().filter(|(index, _)| !reached(*index)).map(|(_, user)| *user).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchline_proto::convert::pack_users;

    fn members(n: usize) -> Arc<Members> {
        let mut users: Vec<_> = (0..n).map(|_| UserId::new()).collect();
        users.sort_unstable();
        Arc::new(Members { version: 1, users })
    }

    #[test]
    fn everyone_pushed_and_not_excepted_is_reached() {
        let members = members(130);
        let user = |index: usize| members.users[index];
        let mut reached = Reached::nobody(Arc::clone(&members));
        let pushed: Vec<u32> = (0..129).collect();
        let packed = |users: &[UserId]| pack_users(users.iter());
        let result = PushResult {
            gone: packed(&[user(3)]),
            slow: packed(&[user(64)]),
            unacked: packed(&[user(128)]),
            ..PushResult::default()
        };
        reached.mark(&pushed, &result);
        assert_eq!(reached.missed(), [user(3), user(64), user(128), user(129)]);

        // Another gateway reached one of them: one device is enough.
        reached.mark(&[64], &PushResult::default());
        reached.mark_user(&user(129));
        assert_eq!(reached.missed(), [user(3), user(128)]);

        reached.unmark(&[64, 128, 129]);
        assert_eq!(reached.missed(), [user(3), user(64), user(128), user(129)]);
    }

    #[test]
    fn a_stale_incarnation_reached_nobody() {
        let members = members(3);
        let mut reached = Reached::nobody(Arc::clone(&members));
        reached.mark(&[0, 1, 2], &PushResult { stale_incarnation: true, ..PushResult::default() });
        assert_eq!(reached.missed(), members.users);
    }
}

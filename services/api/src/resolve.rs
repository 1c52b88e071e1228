//! Who must get a message: the members of its channel at its seq.

use crate::{claims::Claim, writer::Stored};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use touchline_storage::Members;

/// A message this api is to deliver.
pub struct Due {
    /// What, and to whom.
    pub stored: Stored,
    /// How often a fan-out of it has begun, this one included.
    pub attempt: u32,
    /// Its outbox row is ours.
    pub claim: Claim,
    /// Of a message that was taken over: given back when it is pushed.
    pub turn: Option<OwnedSemaphorePermit>,
}

/// Messages that go to the same recipients, in log order per channel, so that one look-up serves them all.
pub struct Group {
    /// Everyone who must get them.
    pub members: Arc<Members>,
    /// What they get.
    pub messages: Vec<Due>,
}

/// Groups messages by their recipients. Order within a channel is kept: a channel's later message never stands in an
/// earlier group.
pub fn resolve(messages: impl IntoIterator<Item = Due>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for due in messages {
        // The members are shared while they do not change: the same snapshot is the same allocation.
        let members = &due.stored.members;
        match groups.iter_mut().find(|group| Arc::ptr_eq(&group.members, members)) {
            Some(group) => group.messages.push(due),
            None => groups.push(Group { members: Arc::clone(members), messages: vec![due] }),
        }
    }
    groups
}

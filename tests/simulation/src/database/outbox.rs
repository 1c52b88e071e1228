//! Outbox rows: whose they are, until when, and how often somebody has begun.

use super::{Database, Taken};
use std::time::Duration;
use tokio::time::Instant;
use touchline_ids::{ChannelId, Seq};
use uuid::Uuid;

/// How long a claim lives without being renewed.
const CLAIM: Duration = Duration::from_secs(5);
/// A row with so many attempts is a dead letter when its claim ends.
pub(crate) const MAX_ATTEMPTS: u32 = 5;

/// A message whose fan-out is not finished.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    owner: Uuid,
    claim_until: Instant,
    pub(crate) attempts: u32,
    no_push: bool,
    pub(crate) dead: bool,
}

impl Row {
    pub(crate) fn new(owner: Uuid, no_push: bool, by_its_clock: Instant) -> Self {
        Self { owner, claim_until: by_its_clock + CLAIM, attempts: 1, no_push, dead: false }
    }

    /// Nobody's, so that no renewal brings the claim back.
    fn let_go(&mut self, by_its_clock: Instant) {
        (self.owner, self.claim_until) = (Uuid::nil(), by_its_clock);
    }
}

impl Database {
    pub(super) fn renew(&mut self, owner: Uuid, by_its_clock: Instant) {
        for row in self.outbox.values_mut().filter(|row| row.owner == owner && !row.dead) {
            row.claim_until = by_its_clock + CLAIM;
        }
    }

    /// Rows whose claims ended so long ago, in (channel, seq) order.
    pub(super) fn take_expired(
        &mut self,
        owner: Uuid,
        limit: usize,
        waited: Duration,
        by_its_clock: Instant,
    ) -> Vec<Taken> {
        let mut taken = Vec::new();
        for ((channel, seq), row) in &mut self.outbox {
            if row.dead || row.claim_until + waited > by_its_clock || taken.len() >= limit {
                continue;
            }
            if row.attempts >= MAX_ATTEMPTS {
                row.dead = true;
                continue;
            }
            let Some(channel) = self.channels.get(channel) else { continue };
            let Some(entry) = channel.entry(*seq).cloned() else { continue };
            row.attempts += 1;
            (row.owner, row.claim_until) = (owner, by_its_clock + CLAIM);
            let (no_push, attempts) = (row.no_push, row.attempts);
            taken.push(Taken { members: channel.members_at(*seq), entry, no_push, attempts });
        }
        taken
    }

    pub(super) fn release(&mut self, messages: &[(ChannelId, Seq)], owner: Uuid, by_its_clock: Instant) {
        for message in messages {
            if let Some(row) = self.outbox.get_mut(message).filter(|row| row.owner == owner && !row.dead) {
                row.let_go(by_its_clock);
            }
        }
    }

    pub(super) fn release_all(&mut self, owners: &[Uuid], by_its_clock: Instant) {
        for row in self.outbox.values_mut().filter(|row| owners.contains(&row.owner) && !row.dead) {
            row.let_go(by_its_clock);
        }
    }
}

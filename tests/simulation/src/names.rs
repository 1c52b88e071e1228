//! Ids that a seed draws: in the order in which they are made, as UUIDv7s are, and never by a clock.

use touchline_ids::{ChannelId, IncarnationId, MessageId, UserId};
use uuid::Uuid;

/// Draws ids.
#[derive(Default)]
pub(crate) struct Names {
    drawn: u64,
}

impl Names {
    pub(crate) fn number(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        let number = u128::from(self.number());
        // The last four bytes are a message's check and must differ.
        Uuid::from_u128(number << 64 | number)
    }

    pub(crate) fn user(&mut self) -> UserId {
        UserId(self.uuid())
    }

    pub(crate) fn channel(&mut self) -> ChannelId {
        ChannelId(self.uuid())
    }

    pub(crate) fn message(&mut self) -> MessageId {
        MessageId(self.uuid())
    }

    pub(crate) fn incarnation(&mut self) -> IncarnationId {
        IncarnationId(self.uuid())
    }
}

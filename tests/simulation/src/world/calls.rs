//! Questions with one answer each: to the database, to the registry, and REST calls to an api.

use super::Node;
use crate::{
    database::{self, Cursor, Synced},
    registry,
};
use touchline_ids::{ChannelId, ClientMessageId, DeviceId, MessageId, Seq, UserId};

/// Names a question under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId(pub(crate) u64);

/// A question under way.
pub(crate) struct Call {
    pub(crate) asker: Node,
    pub(crate) asker_life: u32,
    pub(crate) target: Node,
    /// Until it has reached its target.
    pub(crate) question: Option<Question>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    Database(database::Question),
    Registry(registry::Question),
    Api(Rest),
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Database(database::Answer),
    Registry(registry::Answer),
    Api(RestAnswer),
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody was there: nothing was done.
    Refused,
    /// It broke or took too long: what was done is unknown.
    Unknown,
}

pub(crate) type Outcome = Result<Reply, Failure>;

/// A REST call.
#[derive(Debug, Clone)]
pub(crate) enum Rest {
    /// `POST /v1/connect`
    Connect { user: UserId, device: usize },
    /// `POST /v1/sync`
    Sync { user: UserId, cursors: Vec<Cursor>, recent: i64 },
    /// `POST /v1/channels/{id}/messages`
    Send { channel: ChannelId, sender: UserId, name: ClientMessageId },
    /// `POST` and `DELETE /v1/channels/{id}/members`
    Change { channel: ChannelId, change: database::Change },
}

/// Its answer.
#[derive(Debug, Clone)]
pub(crate) enum RestAnswer {
    /// Gateways to try, and the ticket.
    Connect {
        gateways: Vec<usize>,
        ticket: Ticket,
    },
    Synced(Synced),
    /// 200 or 201.
    Sent {
        seq: Seq,
        message: MessageId,
    },
    /// 403 or 404: not a member.
    Refused,
    Changed,
    /// 503: nothing was done.
    Unavailable,
    /// 504: who knows.
    Timeout,
}

/// What a connect ticket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) number: u64,
    pub(crate) user: UserId,
    pub(crate) device: usize,
}

impl Ticket {
    /// As it travels.
    pub(crate) fn text(&self) -> String {
        format!("{}/{}/{}", self.number, self.user, self.device)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let number = parts.next()?.parse().ok()?;
        let user = parts.next()?.parse().ok()?;
        Some(Self { number, user, device: parts.next()?.parse().ok()? })
    }

    /// The name of the device it is for.
    pub(crate) fn device_id(&self) -> DeviceId {
        device_id(self.device)
    }
}

/// A device's name.
pub(crate) fn device_id(number: usize) -> DeviceId {
    format!("d{number}").parse().expect("a device's name")
}

//! What a device tells its application.

use crate::{ClientError, Closed, Frame, Message};
use std::time::Duration;
use touchline_ids::{ChannelId, Seq, SessionId};

/// What [`Device::next`](crate::Device::next) gives. Of every channel: each message once, in order, without a hole.
#[derive(Debug)]
pub enum Event {
    /// An entry of a channel's log, the one after the last of that channel.
    Message(Message),
    /// The channel begins here, or begins again: what was shown of it before is not what the server has. The messages
    /// that follow start anew; older ones are in the [history](crate::Client::history).
    Reset {
        /// Which channel.
        channel_id: ChannelId,
        /// The last entry of its log.
        head_seq: Seq,
        /// Up to where this device held it; none for a channel that is new to it.
        held: Option<Seq>,
    },
    /// One is not a member of this channel any more.
    Gone(ChannelId),
    /// A socket is ready, and the sync after it begins.
    Online {
        /// The gateway's public address.
        gateway: String,
        /// The session there.
        session: SessionId,
        /// Whether another socket was open until now, so that nothing was interrupted.
        moved: bool,
    },
    /// A sync has ended: everything that was stored before it began was given out.
    CaughtUp {
        /// What it was for.
        cause: SyncCause,
        /// From when it was wanted to now.
        took: Duration,
    },
    /// No socket is open.
    Offline {
        /// Why.
        why: Trouble,
        /// When the next try begins.
        again_in: Duration,
    },
    /// A sync failed; the socket stays open.
    SyncFailed {
        /// Why.
        why: ClientError,
        /// When the next try begins.
        again_in: Duration,
    },
    /// The gateway did not like a frame of ours.
    Complaint {
        /// Stable; programs decide by it.
        code: String,
        /// For people.
        message: String,
    },
    /// In raw mode: a frame as it came, before the rules see it. What they make of it follows.
    Wire(Frame),
    /// The device has ended by itself; trying again would end the same way. Nothing follows.
    Ended(Trouble),
}

/// Why a device syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncCause {
    /// A message did not come within 200 ms of a later one.
    Hole,
    /// The gateway sent more messages than arrived.
    Lost,
    /// The log may be another one: another message came for the place of the last one, or a reset went back.
    Other,
    /// The session is ready, for the first time or again.
    Ready,
}

/// Why a device is not online.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The socket ended.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// There is no socket.
    #[error(transparent)]
    Failed(#[from] ClientError),
}

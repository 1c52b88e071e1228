//! What the rules want done.

#[cfg(doc)]
use super::Rules;
use crate::{Cursor, Event};
use std::{collections::BTreeMap, fmt};
use touchline_ids::{ChannelId, ConnectionNumber, Seq};

/// A connect ticket. It does not show itself.
#[derive(Clone)]
pub struct Ticket(pub String);

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

/// What a driver must do.
#[derive(Debug)]
pub enum Action {
    /// Tell the application.
    Tell(Event),
    /// Get a new access token; answer with [`Rules::token_renewed`].
    RenewToken {
        /// Names this call.
        call: u64,
    },
    /// `POST /v1/connect`; answer with [`Rules::ticket`].
    AskTicket {
        /// Names this call.
        call: u64,
    },
    /// Open a socket and say hello; answer with [`Rules::opened`] or [`Rules::not_opened`].
    Open {
        /// Names the socket.
        connection: ConnectionNumber,
        /// The gateway's public address.
        gateway: String,
        /// For the hello.
        ticket: Ticket,
    },
    /// `POST /v1/sync`; answer with [`Rules::synced`]. A sync asked for before is not waited for any more.
    Sync {
        /// Names this call.
        call: u64,
        /// Where the device stands.
        cursors: Vec<Cursor>,
        /// How much of channels without a cursor.
        recent: u32,
    },
    /// Send an ack.
    Ack {
        /// On which socket.
        connection: ConnectionNumber,
        /// Up to where the device holds each channel.
        cursors: BTreeMap<ChannelId, Seq>,
    },
    /// Send a ping.
    Ping {
        /// On which socket.
        connection: ConnectionNumber,
    },
    /// Say hello again on an open socket.
    Renew {
        /// On which socket.
        connection: ConnectionNumber,
        /// The fresh ticket.
        ticket: Ticket,
    },
    /// Close a socket with a goodbye.
    Close {
        /// Which socket.
        connection: ConnectionNumber,
    },
    /// Drop a socket, open or being opened, without one.
    Drop {
        /// Which socket.
        connection: ConnectionNumber,
    },
}

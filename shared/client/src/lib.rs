//! A small client: the REST calls and the WebSocket of Touchline, typed, one call to one request.
//!
//! It keeps no state between calls: retrying, ordering, cursors and reconnecting are the caller's.
//!
//! Never depends on a service, a database or the registry.

mod api;
mod error;
mod frame;
mod model;
mod socket;

pub use api::Client;
pub use error::{ClientError, Refusal};
pub use frame::Frame;
pub use model::{
    Backoff, Channel, Connect, Cursor, GatewayAddress, History, Login, Member, Message, NewMessage, ReadMark, Sent,
    Synced, SyncedChannel, User,
};
pub use socket::{Closed, SUBPROTOCOL, Socket};

//! A small client: the REST calls and the WebSocket of Touchline, typed, one call to one request.
//!
//! It keeps no state between calls: retrying, ordering, cursors and reconnecting are the caller's.
//!
//! Never depends on a service, a database or the registry.

mod api;
mod delays;
mod device;
mod error;
mod event;
mod frame;
mod model;
mod renewal;
pub mod rules;
mod servers;
mod socket;

pub use api::Client;
pub use delays::Delays;
pub use device::{Device, DeviceOptions};
pub use error::{ClientError, Refusal};
pub use event::{Event, SyncCause, Trouble};
pub use frame::Frame;
pub use model::{
    Backoff, Channel, Connect, Cursor, GatewayAddress, History, Login, Member, Message, NewMessage, ReadMark, Sent,
    Synced, SyncedChannel, User,
};
pub use renewal::Renewal;
pub use socket::{Closed, SUBPROTOCOL, Socket};

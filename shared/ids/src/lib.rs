//! The typed ids every other crate speaks: one type per thing that has a name in the design.
//!
//! Never depends on another crate of ours.

mod check;
mod name;
mod number;
mod uuid_id;

pub use check::{Check, InvalidCheck};
pub use name::{ClientMessageId, DeviceId, GatewayId, InvalidName};
pub use number::{ConnectionNumber, Seq};
pub use uuid_id::{ChannelId, IncarnationId, InvalidId, MessageId, SessionId, UserId};

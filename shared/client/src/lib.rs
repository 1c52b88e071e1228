//! The client library of Touchline.
//!
//! A [`Device`] follows its user's channels by the client rules (PROTOCOL.md, section 6): it gives every message once,
//! in order and without a hole, acks it, reconnects and syncs, and moves to another gateway without a gap when it is
//! asked to.
//!
//! ```no_run
//! use touchline_client::{Client, ClientError, Device, DeviceOptions, Event, Renewal};
//!
//! # async fn follow() -> Result<(), ClientError> {
//! let nobody = Client::new("https://chat.example.com")?;
//! let login = nobody.log_in("alice", "correct horse battery staple").await?;
//! let alice = nobody.as_user(&login.access_token);
//! let mut options = DeviceOptions::new("alices-phone".parse().expect("letters and a hyphen"));
//! options.renewal = Some(Renewal::by_refresh(&nobody, &login));
//! let mut device = Device::start(alice, options);
//! while let Some(event) = device.next().await {
//!     match event {
//!         Event::Message(message) => println!("{} {}: {}", message.channel_id, message.seq, message.content),
//!         Event::Offline { why, again_in } => eprintln!("{why}; connecting again in {again_in:?}"),
//!         Event::Ended(why) => eprintln!("{why}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A device that was closed goes on where it was when it begins with [`Device::cursors`] and [`Device::connection`] of
//! its last life. Below it, and usable by themselves: [`Client`], the REST calls, one call to one request; [`Socket`],
//! the WebSocket with none of the rules; [`rules`], all of them without I/O.
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
    Backoff, Channel, Connect, Cursor, GatewayAddress, History, Login, Member, Message, NewMessage, NotifyWish,
    PushKind, QuietHours, ReadMark, RegisteredDevice, Sent, Synced, SyncedChannel, User,
};
pub use renewal::Renewal;
pub use socket::{Closed, SUBPROTOCOL, Socket};

//! People, channels, messages and what is still to be delivered, in a database: entities and queries. The only crate
//! that speaks SQL; SQLite and Postgres by the same code.
//!
//! What must be true together changes in one transaction here, and membership is checked inside the query or under
//! the lock of the channel's row, never before it.
//!
//! Never depends on the registry, the network between our processes, or a service.

mod append;
mod change;
mod channels;
mod claimed;
mod clock;
mod connection;
mod create;
mod delivered;
mod devices;
mod entity;
mod entry;
mod error;
mod forgotten;
mod gate;
mod history;
mod letters;
mod log;
mod logins;
mod members;
mod mentions;
mod notification_letters;
mod notifications;
mod outbox;
mod outcomes;
mod push;
mod quiet_hours;
mod recent;
mod recipients;
mod roles;
mod rows;
mod schema;
mod sweep;
mod sync;
mod take;
mod users;
mod walks;
mod wishes;

pub use append::{Appended, NewMessage};
pub use change::{Action, Changed, ChannelChange};
pub use channels::{ChannelView, MarkRead};
pub use claimed::{MAX_CLAIMS, Notification, Settlement, Then};
pub use connection::{Settings, Storage};
pub use create::{CreateChannel, NewChannel};
pub use devices::{Device, MOST_DEVICES, NewDevice, PutDevice};
pub use entry::{Entry, Kind};
pub use error::{Result, StorageError};
pub use forgotten::KnownToken;
pub use history::History;
pub use letters::Letter;
pub use log::WhenLocked;
pub use logins::Rotation;
pub use members::{MemberCache, MemberView, Members};
pub use notification_letters::{NotificationCounts, NotificationLetter};
pub(crate) use notifications::Missed;
pub use outbox::{MAX_ATTEMPTS, OutboxCounts};
pub use outcomes::Outcome;
pub use push::{NotifyLevel, Platform, PushOutcome, TargetKind};
pub use quiet_hours::QuietHours;
pub use recipients::{Newest, PushDevice, Recipient};
pub use roles::Role;
pub use sync::{Cursor, Synced, SyncedChannel};
pub use take::Taken;
pub use users::{CreateUser, External, NewUser, User};
pub use walks::{LARGE_CHANNEL, Later, Page, Unreached, Walk};
pub use wishes::NotifyWish;

#[cfg(any(test, feature = "contract"))]
pub mod contract;
#[cfg(test)]
mod sqlite_faults;

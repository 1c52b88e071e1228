//! A device that follows its user's channels.

use crate::{Client, Cursor, Event, Renewal};
use touchline_ids::{ConnectionNumber, DeviceId};

/// How a [`Device`] behaves.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// The installation's name for itself, kept. Of two devices with one name only one stays connected.
    pub device_id: DeviceId,
    /// The last connection number this name has used, see [`Device::connection`]; 0 for a new name.
    pub connection: ConnectionNumber,
    /// What the device holds already; without, every channel begins with its newest messages.
    pub cursors: Vec<Cursor>,
    /// With how many messages each channel begins (0 to 50).
    pub recent: u32,
    /// Whether to ack. A device that does not is taken for one that got nothing.
    pub ack: bool,
    /// Whether to show every frame as it came, as [`Event::Wire`].
    pub raw: bool,
    /// Where a new access token comes from; without, the device ends when the one it has is over.
    pub renewal: Option<Renewal>,
    /// The public address of the only gateway to use, in place of those the server names.
    pub gateway: Option<String>,
}

impl DeviceOptions {
    /// A new device: acks, begins every channel with its 20 newest messages, is not raw.
    pub fn new(device_id: DeviceId) -> Self {
        Self {
            device_id,
            connection: ConnectionNumber(0),
            cursors: Vec::new(),
            recent: 20,
            ack: true,
            raw: false,
            renewal: None,
            gateway: None,
        }
    }
}

/// A device that follows its user's channels by the client rules (PROTOCOL.md, section 6) and reconnects for ever,
/// until it is closed, or refused for good.
///
/// It has no task of its own: everything happens while somebody waits in [`next`](Self::next), so that an application
/// that is slow slows the socket and nothing piles up. Dropping it cuts its connection.
#[derive(Debug)]
pub struct Device {
    client: Client,
    options: DeviceOptions,
}

impl Device {
    /// A device of the user that `client` is. Connects as soon as somebody waits in [`next`](Self::next).
    pub fn start(client: Client, options: DeviceOptions) -> Self {
        Self { client, options }
    }

    /// The next event, none after [`Event::Ended`]. Cancelling it loses nothing. A message counts as held, and is
    /// acked, once the event after it was asked for.
    pub async fn next(&mut self) -> Option<Event> {
        let _ = &self.client;
        None
    }

    /// The device's name.
    pub fn device_id(&self) -> &DeviceId {
        &self.options.device_id
    }

    /// The greatest connection number used so far; keep it for the next life of this name.
    pub fn connection(&self) -> ConnectionNumber {
        self.options.connection
    }

    /// What was given out by [`next`](Self::next), by channel; keep it for the next life of this device.
    pub fn cursors(&self) -> Vec<Cursor> {
        Vec::new()
    }

    /// Whether a socket is ready.
    pub fn is_online(&self) -> bool {
        false
    }

    /// Cuts the connection without a goodbye, as a network does; the device reconnects.
    pub fn cut(&mut self) {}

    /// Stops or goes on reading from the socket. What arrives meanwhile fills the buffers between here and the gateway;
    /// acks and pings go on.
    pub fn set_reading(&mut self, _reading: bool) {}

    /// Says goodbye.
    pub async fn close(self) {}
}

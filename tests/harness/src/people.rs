//! People: users who call the api and connect devices.

use crate::{DEADLINE, Device, Follower, Sighting};
use anyhow::{Context as _, Result};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use touchline_client::{Client, ClientError, Connect, DeviceOptions, NewMessage, Socket};
use touchline_ids::{ChannelId, ConnectionNumber, DeviceId, UserId};

/// Between two tries of what becomes possible by itself.
const RETRY: Duration = Duration::from_millis(50);

/// A signed-up user. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Person {
    /// Who.
    pub id: UserId,
    /// By what name others find them.
    pub handle: String,
    /// One client per api.
    clients: Vec<Client>,
    /// Counts up with every socket, so that a device's newest connection wins.
    connections: Arc<AtomicI64>,
}

impl Person {
    pub(crate) fn new(id: UserId, handle: &str, access_token: &str, apis: &[Client]) -> Self {
        let clients = apis.iter().map(|api| api.as_user(access_token)).collect();
        Self { id, handle: handle.to_owned(), clients, connections: Arc::default() }
    }

    /// REST as this person, at the first api.
    pub fn client(&self) -> &Client {
        self.client_at(0)
    }

    /// REST as this person, at one of the apis.
    pub fn client_at(&self, api: usize) -> &Client {
        &self.clients[api]
    }

    /// Sends a text through the first api.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn send(&self, channel: ChannelId, text: &str) -> Result<Sighting> {
        self.send_at(0, channel, text).await
    }

    /// Sends a text through one of the apis.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn send_at(&self, api: usize, channel: ChannelId, text: &str) -> Result<Sighting> {
        let message = NewMessage::new(serde_json::json!({ "text": text }));
        let sent = self.client_at(api).send(channel, &message).await;
        Ok((&sent.with_context(|| format!("{} sends", self.handle))?).into())
    }

    /// A connect ticket and the gateways it is good for. Waits until there is a gateway.
    ///
    /// # Errors
    /// When the api refuses it otherwise.
    pub async fn ticket(&self, device: &DeviceId) -> Result<Connect> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.client().connect(device).await {
                // An api learns of a new gateway by looking at the registry now and then.
                Err(error) if error.status() == Some(503) && Instant::now() < deadline => {
                    sleep(RETRY).await;
                }
                answer => return answer.with_context(|| format!("{} asks for a ticket", self.handle)),
            }
        }
    }

    /// Connects a device where the api says.
    ///
    /// # Errors
    /// When the socket does not get ready.
    pub async fn device(&self, name: &str) -> Result<Device> {
        self.connect(name, None, true).await
    }

    /// Connects a device that never acks.
    ///
    /// # Errors
    /// When the socket does not get ready.
    pub async fn silent_device(&self, name: &str) -> Result<Device> {
        self.connect(name, None, false).await
    }

    /// Connects a device at this gateway, whatever the api says.
    ///
    /// # Errors
    /// When the socket does not get ready.
    pub async fn device_at(&self, name: &str, gateway: &str) -> Result<Device> {
        self.connect(name, Some(gateway), true).await
    }

    /// A device with the client library, that has caught up.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn follower(&self, name: &str) -> Result<Follower> {
        self.follow(self.follower_options(name)?).await
    }

    /// The same with other options.
    ///
    /// # Errors
    /// When it does not catch up in time.
    pub async fn follow(&self, options: DeviceOptions) -> Result<Follower> {
        let follower = Follower::start(touchline_client::Device::start(self.client().clone(), options));
        follower.until("the device has caught up", |story| !story.syncs.is_empty()).await?;
        Ok(follower)
    }

    /// For a device with the client library: newer than every socket before it.
    ///
    /// # Errors
    /// When the name is not a device's.
    pub fn follower_options(&self, name: &str) -> Result<DeviceOptions> {
        /// So many sockets a follower may open before a later one of the same name seems older.
        const ROOM: i64 = 10_000;
        let connection = ConnectionNumber(self.connections.fetch_add(ROOM, Ordering::Relaxed));
        Ok(DeviceOptions { connection, ..DeviceOptions::new(name.parse()?) })
    }

    /// As an application does: the gateways in the order of the answer, then from the start again, for the one named
    /// first may just have died.
    async fn connect(&self, name: &str, gateway: Option<&str>, acks: bool) -> Result<Device> {
        let name: DeviceId = name.parse()?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer = self.ticket(&name).await?;
            let named = answer.gateways.iter().map(|named| named.url.as_str());
            let mut failed = None;
            for url in gateway.map_or_else(|| named.collect(), |gateway| vec![gateway]) {
                match Socket::open(url, &answer.ticket, &name, self.next_connection()).await {
                    Ok(socket) => return Ok(Device::new(name, url.to_owned(), socket, acks)),
                    Err(error) if goes_elsewhere(&error) && Instant::now() < deadline => failed = Some(error),
                    Err(error) => {
                        return Err(error).with_context(|| format!("{} connects {name} at {url}", self.handle));
                    }
                }
            }
            failed.context("the api named no gateway")?;
            sleep(RETRY).await;
        }
    }

    fn next_connection(&self) -> ConnectionNumber {
        ConnectionNumber(self.connections.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// The gateway is gone, or goes away (503): the next one, then.
fn goes_elsewhere(error: &ClientError) -> bool {
    matches!(error, ClientError::Handshake(_)) || error.status() == Some(503)
}

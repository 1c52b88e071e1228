//! Telling the notifiers that somebody was missed, so that nobody waits for their next look.

use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, time::timeout};
use tonic::transport::Channel;
use touchline_mesh::client::{self, BadAddress};
use touchline_proto::notify::{WakeRequest, notify_service_client::NotifyServiceClient};

/// How long a notifier may take to say that it heard.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between wake-ups: what is missed meanwhile shares the next one.
const SPACING: Duration = Duration::from_millis(50);

/// Wakes one notifier after the other.
pub struct Waker {
    missed: Arc<Notify>,
    notifiers: Vec<NotifyServiceClient<Channel>>,
}

impl Waker {
    /// Wakes those at `addresses` whenever `missed` is told.
    ///
    /// # Errors
    /// [`BadAddress`] when one of them is not a URI.
    pub fn new(addresses: &[String], missed: Arc<Notify>) -> Result<Self, BadAddress> {
        let client = |address: &String| client::call_channel(address).map(NotifyServiceClient::new);
        Ok(Self { missed, notifiers: addresses.iter().map(client).collect::<Result<_, _>>()? })
    }

    /// Works for ever. When nobody hears it, the notifiers' own looks find what there is.
    pub async fn run(mut self) {
        let count = self.notifiers.len();
        let mut turn = 0;
        loop {
            self.missed.notified().await;
            // Each wake-up is for one of them; those who do not answer are passed over.
            for _ in 0..count {
                let notifier = &mut self.notifiers[turn];
                turn = (turn + 1) % count;
                match timeout(PATIENCE, notifier.wake(WakeRequest {})).await {
                    Ok(Ok(_)) => break,
                    Ok(Err(status)) => tracing::debug!(%status, "a notifier was not woken"),
                    Err(_) => tracing::debug!("a notifier was not woken in time"),
                }
            }
            tokio::time::sleep(SPACING).await;
        }
    }
}

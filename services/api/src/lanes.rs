//! The lanes of the fan-out: a channel always has the same one, so its messages keep their order, and a channel of
//! 10,000 members does not stand in everybody's way.

use crate::resolve::Due;
use tokio::sync::mpsc;

/// Tasks that route and push.
const LANES: usize = 4;
/// Messages waiting in one lane. A full one holds up the writer, and whoever takes messages over.
const LANE_QUEUE: usize = 1_024;

/// The way into the lanes; clones share them.
#[derive(Clone)]
pub struct Lanes(Vec<mpsc::Sender<Due>>);

/// The lanes and their ends.
pub fn lanes() -> (Lanes, Vec<mpsc::Receiver<Due>>) {
    let (senders, receivers) = (0..LANES).map(|_| mpsc::channel(LANE_QUEUE)).unzip();
    (Lanes(senders), receivers)
}

impl Lanes {
    /// Hands a message to its channel's lane. In a hard stop nobody takes it: then its row is let go.
    pub async fn send(&self, due: Due) {
        let lane = usize::from(due.stored.entry.channel_id.as_bytes()[15]) % self.0.len();
        let _ = self.0[lane].send(due).await;
    }
}

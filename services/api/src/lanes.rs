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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{claims::Claims, writer::Stored};
    use std::{
        future::{Future as _, poll_fn},
        pin::pin,
        sync::Arc,
        task::Poll,
    };
    use touchline_ids::{ChannelId, MessageId, Seq, UserId};
    use touchline_storage::{Entry, Kind, Members};

    #[tokio::test]
    async fn a_full_lane_makes_whoever_fills_it_wait_and_leaves_the_others_free() {
        let (ways_in, mut lanes) = lanes();
        let claims = Arc::<Claims>::default();
        let due = |channel: u8| {
            let entry = Entry {
                channel_id: ChannelId(uuid::Uuid::from_bytes([channel; 16])),
                seq: Seq(1),
                message_id: MessageId::new(),
                sender_id: UserId::new(),
                kind: Kind::Text,
                content: "\"hi\"".to_owned(),
                created_at_ms: 0,
                prev: None,
            };
            let claim = claims.hold((entry.channel_id, entry.seq));
            let members = Arc::new(Members { version: 1, users: vec![] });
            let stored = Stored { entry, members, notify: true, traceparent: String::new() };
            Due { stored, attempt: 1, claim, turn: None }
        };
        for _ in 0..LANE_QUEUE {
            ways_in.send(due(1)).await;
        }
        let mut one_more = pin!(ways_in.send(due(1)));
        assert!(poll_fn(|context| Poll::Ready(one_more.as_mut().poll(context).is_pending())).await);
        ways_in.send(due(2)).await;
        assert!(lanes[1].recv().await.is_some());
        one_more.await;
        assert_eq!((lanes[1].len(), lanes[2].len()), (LANE_QUEUE, 1));
    }
}

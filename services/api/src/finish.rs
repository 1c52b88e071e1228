//! The end of a message's fan-out: what the rules of its [`Delivery`] order, until nobody else is looked for. Whoever
//! is missed and the removal of the outbox row are then the [outbox's](crate::outbox).

use crate::{
    deliver::{Deliverer, Target},
    delivery::{Delivery, Loss, PushId, Step, Times},
    outbox::Finished,
    push_stream::PendingResult,
    resolve::Due,
    takeover::SharedSchedule,
};
use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep_until},
};
use touchline_proto::push::PushResult;
use touchline_storage::LARGE_CHANNEL;

/// A message that has been pushed once.
pub struct UnderWay {
    due: Due,
    delivery: Delivery,
    pending: Vec<(PushId, PendingResult)>,
    /// Its share of what may be under way; given back when its rows are written.
    room: OwnedSemaphorePermit,
}

impl UnderWay {
    /// Pushes a message to everybody who was found, without waiting.
    pub fn begin(due: Due, targets: &[Target], finisher: &Finisher, room: OwnedSemaphorePermit) -> Self {
        fail::fail_point!("fan_out");
        let stored = &due.stored;
        let members = Arc::clone(&stored.members);
        let delivery = Delivery::new(members, &stored.entry.sender_id, due.attempt, finisher.times);
        let mut this = Self { due, delivery, pending: Vec::with_capacity(targets.len()), room };
        this.push(targets, &finisher.deliverer);
        this.due.turn = None;
        this
    }

    fn push(&mut self, targets: &[Target], deliverer: &Deliverer) {
        let holders: Vec<_> = targets.iter().map(|target| target.holder.clone()).collect();
        let pushes = self.delivery.routed(&holders, Instant::now());
        let results = deliverer.push(&self.due.stored, &self.delivery, targets, &pushes);
        self.pending.extend(pushes.iter().map(|push| push.id).zip(results));
    }

    fn take(&mut self, push: PushId, answer: Result<PushResult, Loss>) {
        match answer {
            Ok(result) => self.delivery.answered(push, &result),
            Err(loss) => self.delivery.lost(push, loss),
        }
    }
}

/// Follows messages to their end; shared by all of them.
pub struct Finisher {
    deliverer: Arc<Deliverer>,
    times: Times,
    takeover: SharedSchedule,
    done: mpsc::Sender<Finished>,
}

impl Finisher {
    /// How much longer than the wait for acks a result may take.
    pub const PATIENCE: Duration = Duration::from_secs(1);

    /// Finished messages go to `done`.
    pub fn new(
        deliverer: Arc<Deliverer>,
        times: Times,
        takeover: SharedSchedule,
        done: mpsc::Sender<Finished>,
    ) -> Self {
        Self { deliverer, times, takeover, done }
    }

    /// Follows one message to its end.
    pub async fn finish(&self, mut message: UnderWay) {
        let mut time = std::pin::pin!(sleep_until(Instant::now()));
        let mut missed = loop {
            match message.delivery.next(Instant::now()) {
                Step::Wait(until) => {
                    if time.deadline() != until {
                        time.as_mut().reset(until);
                    }
                    tokio::select! {
                        (push, answer) = answer(&mut message.pending), if !message.pending.is_empty() => {
                            message.take(push, answer);
                        }
                        () = &mut time => {}
                    }
                }
                Step::LookUp(positions) => {
                    let targets = self.deliverer.route_again(&message.delivery, &positions).await;
                    message.push(&targets, &self.deliverer);
                }
                Step::Finish { missed } => break missed,
                Step::HandOver => {
                    let (channel, seq) = message.due.claim.row();
                    tracing::info!(channel.id = %channel, message.seq = %seq, "a gateway is out of reach: handed over");
                    self.takeover.handed_over();
                    // With its claim the row is let go.
                    return;
                }
            }
        };
        if !message.due.stored.notify {
            missed.clear();
        }
        // The outbox ends after every finisher: this fails only in a hard stop, and then the row is let go.
        let in_large = message.due.stored.members.users.len() > LARGE_CHANNEL;
        let _ = self.done.send(Finished { claim: message.due.claim, missed, in_large, _room: message.room }).await;
    }
}

/// The next answer to any of the pushes. Cancel-safe.
async fn answer(pending: &mut Vec<(PushId, PendingResult)>) -> (PushId, Result<PushResult, Loss>) {
    poll_fn(|context| {
        for index in 0..pending.len() {
            if let Poll::Ready(answer) = Pin::new(&mut pending[index].1).poll(context) {
                let (push, _) = pending.swap_remove(index);
                // Dropped without a word: the stream's task is gone.
                return Poll::Ready((push, answer.unwrap_or(Err(Loss::Broken))));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests;

//! What travels on one open push stream, both ways.

use super::{Inbound, Line, Push, loss_of};
use crate::delivery::Loss;
use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use touchline_ids::{ChannelId, Seq};
use touchline_proto::{
    convert::{ID_LEN, unpack_users},
    push::{Acks, PushRequest, PushResult, push_answer::Answer, push_request::Purpose},
};

/// Pushes without a result on one stream; beyond them none is handed to the transport.
pub(super) const PENDING: usize = 65_536;
/// How much longer than the wait for acks a result may take; then the gateway is silent.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a stream sees whether anything is owed, and one that is no longer wanted whether anybody still waits for
/// its results.
const LOOK: Duration = Duration::from_secs(1);

pub(super) enum Ended {
    /// The gateway is no longer live, or we stop.
    Unwanted,
    /// The transport failed, or the gateway ended the stream.
    Broken(String, Loss),
}

/// Pushes under way on this stream.
#[derive(Default)]
struct Pending {
    pushes: HashMap<u64, Awaited>,
    /// When each is overdue, in the order in which they were sent.
    due: VecDeque<(u64, Instant)>,
    last_id: u64,
    /// The life of the database that this stream was told.
    life: Option<i64>,
}

struct Awaited {
    recipients: Bytes,
    /// None: a RESYNC, of which nobody waits for the result.
    reply: Option<oneshot::Sender<Result<PushResult, Loss>>>,
}

/// Writes pushes and reads results until either side ends. When the stream breaks, everybody whose push has no result
/// is told at once, and its recipients are owed.
pub(super) async fn exchange(
    line: &mut Line,
    pushes: &mut mpsc::Receiver<Push>,
    outbound: &mpsc::Sender<PushRequest>,
    inbound: Inbound,
) -> Ended {
    let mut pending = Pending::default();
    let ended = run(line, &mut pending, pushes, outbound, inbound).await;
    // A gateway that had been silent before, or that was given up for its silence, may be well for others.
    let loss = match &ended {
        Ended::Broken(_, loss) if line.vouched => *loss,
        _ => Loss::Unreachable,
    };
    for (_, awaited) in pending.pushes.drain() {
        match awaited.reply {
            Some(reply) => {
                line.owed.add(&awaited.recipients);
                let _ = reply.send(Err(loss));
            }
            None => line.owed.put_back(&awaited.recipients),
        }
    }
    ended
}

async fn run(
    line: &mut Line,
    pending: &mut Pending,
    pushes: &mut mpsc::Receiver<Push>,
    outbound: &mpsc::Sender<PushRequest>,
    mut inbound: Inbound,
) -> Ended {
    // First of all, so that nothing sent on this stream can be acked behind a hole, or for a log that is no more.
    line.tell_life(pending, outbound);
    line.resync(pending, outbound);
    let mut lives = line.lives.clone();
    let mut wanted = true;
    let mut look = tokio::time::interval(LOOK);
    loop {
        // Both halves are cancel-safe: an unused permit goes back, an unreceived push stays queued.
        let next = async {
            let permit = outbound.reserve().await.ok()?;
            Some((permit, pushes.recv().await))
        };
        let overdue = pending.overdue();
        tokio::select! {
            answer = inbound.message() => match answer {
                Ok(Some(answer)) => {
                    line.vouch(true);
                    match answer.answer {
                        Some(Answer::Result(result)) => pending.answered(result),
                        Some(Answer::Acks(acks)) => line.note(&acks),
                        // What a newer gateway says besides.
                        None => {}
                    }
                }
                Ok(None) => return Ended::Broken("ended by the gateway".to_owned(), Loss::Broken),
                Err(status) => return Ended::Broken(status.message().to_owned(), loss_of(&status)),
            },
            next = next, if wanted && pending.pushes.len() < PENDING => match next {
                Some((permit, Some(Push { request, reply }))) => permit.send(pending.send(request, Some(reply))),
                Some((_, None)) => wanted = false,
                None => return Ended::Broken("the transport stopped reading".to_owned(), Loss::Broken),
            },
            // It stays pending: a gateway that was only stopped for a while still shows it, and one whose stream
            // breaks owes it.
            () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {
                if pending.is_silent(Instant::now()) && line.vouched {
                    tracing::warn!(gateway.id = %line.gateway.gateway, gateway.incarnation = %line.gateway.incarnation, "the gateway is silent");
                    line.vouch(false);
                }
            }
            _ = look.tick() => {
                if !wanted && !pending.is_waited_for() {
                    return Ended::Unwanted;
                }
                line.tell_life(pending, outbound);
                line.resync(pending, outbound);
            }
            Ok(()) = lives.changed() => line.tell_life(pending, outbound),
        }
    }
}

impl Pending {
    /// Gives a push its number.
    fn send(
        &mut self,
        mut request: PushRequest,
        reply: Option<oneshot::Sender<Result<PushResult, Loss>>>,
    ) -> PushRequest {
        self.last_id += 1;
        request.push_id = self.last_id;
        self.pushes.insert(self.last_id, Awaited { recipients: request.recipients.clone(), reply });
        let wait = Duration::from_millis(request.ack_wait_ms.into()) + PATIENCE;
        self.due.push_back((self.last_id, Instant::now() + wait));
        request
    }

    fn answered(&mut self, result: PushResult) {
        if let Some(Awaited { reply: Some(reply), .. }) = self.pushes.remove(&result.push_id) {
            // Whoever asked may have given up waiting.
            let _ = reply.send(Ok(result));
        }
        // What was answered needs no watching.
        while self.due.front().is_some_and(|(id, _)| !self.pushes.contains_key(id)) {
            self.due.pop_front();
        }
    }

    /// When to see whether the gateway is silent.
    fn overdue(&self) -> Option<Instant> {
        self.due.front().map(|(_, due)| *due)
    }

    /// Whether a push is overdue; it is watched no longer.
    fn is_silent(&mut self, now: Instant) -> bool {
        let mut silent = false;
        while let Some((id, _)) = self.due.pop_front_if(|(_, due)| *due <= now) {
            silent |= self.pushes.contains_key(&id);
        }
        silent
    }

    fn is_waited_for(&self) -> bool {
        self.pushes.values().any(|awaited| awaited.reply.as_ref().is_some_and(|reply| !reply.is_closed()))
    }
}

impl Line {
    /// Pays what is owed, if there is room for it now.
    fn resync(&self, pending: &mut Pending, outbound: &mpsc::Sender<PushRequest>) {
        let Ok(permit) = outbound.try_reserve() else { return };
        if let Some(recipients) = self.owed.take() {
            let request = PushRequest {
                incarnation: Bytes::copy_from_slice(self.gateway.incarnation.as_bytes()),
                recipients,
                purpose: Purpose::Resync.into(),
                ..PushRequest::default()
            };
            permit.send(pending.send(request, None));
        }
    }

    /// Says in which life the database is, unless it was said, if there is room for it now. Nobody waits for the result.
    fn tell_life(&self, pending: &mut Pending, outbound: &mpsc::Sender<PushRequest>) {
        let life = *self.lives.borrow();
        if life == pending.life {
            return;
        }
        let (Some(database_life), Ok(permit)) = (life, outbound.try_reserve()) else { return };
        pending.life = life;
        pending.last_id += 1;
        permit.send(PushRequest {
            push_id: pending.last_id,
            incarnation: Bytes::copy_from_slice(self.gateway.incarnation.as_bytes()),
            purpose: Purpose::Life.into(),
            database_life,
            ..PushRequest::default()
        });
    }

    /// Passes on what devices have acked.
    fn note(&self, acks: &Acks) {
        let (channels, _) = acks.channels.as_chunks::<ID_LEN>();
        let users = unpack_users(&acks.users).into_iter().flatten();
        for ((user, channel), seq) in users.zip(channels).zip(&acks.seqs) {
            self.delivered.note(user, ChannelId(uuid::Uuid::from_bytes(*channel)), Seq(*seq));
        }
    }
}

//! `PushService`: a message and its recipients in, one result out that names only the exceptions. An api may also ask
//! who has acked a message that it pushed before, and have sessions told to sync.

use crate::{
    awaiting::{Awaiting, HandedOut},
    config::ms,
    frame::{self, Encoded},
    gateway::Gateway,
    hub::{Handed, User},
    relay::{self, Answers},
};
use bytes::BytesMut;
use std::{panic::catch_unwind, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_mesh::Shutdown;
use touchline_proto::{
    convert::ID_LEN,
    push::{PushAnswer, PushRequest, PushResult, push_request::Purpose, push_service_server::PushService},
};

/// Recipients of one push; the proto says so.
const RECIPIENTS: usize = 20_000;
/// Recipients handed out without letting other tasks have a turn.
const AT_ONCE: usize = 512;
/// Results that may wait for an api that does not read them, and how long before it loses its stream.
const RESULTS: usize = 128;
const RESULT_PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for acks an api can ask for.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// The service. Streams end when `stop` begins, each push on them answered.
pub(crate) struct Pushes {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) stop: Shutdown,
}

#[tonic::async_trait]
impl PushService for Pushes {
    type PushStream = ReceiverStream<Result<PushAnswer, Status>>;

    async fn push(&self, request: Request<Streaming<PushRequest>>) -> Result<Response<Self::PushStream>, Status> {
        let (results, receiver) = mpsc::channel(RESULTS);
        let open = relay::opened(&self.gateway, results.clone())
            .ok_or_else(|| Status::resource_exhausted("this gateway has as many push streams as it takes"))?;
        let stream = PushStream { gateway: Arc::clone(&self.gateway), results, awaiting: Awaiting::default() };
        let (peer, stop) = (request.remote_addr().map(tracing::field::display), self.stop.stopping());
        self.gateway.spawn(async move {
            // Counts as open until everything is answered.
            let _open = open;
            tracing::info!(peer, "a push stream began");
            match stream.run(request.into_inner(), stop).await {
                Ok(()) => tracing::info!(peer, "a push stream ended"),
                Err(Lost) => tracing::warn!(peer, "a push stream was lost: its api does not take results any more"),
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// The api takes no results any more.
#[derive(Debug)]
struct Lost;

/// One api's stream.
struct PushStream {
    gateway: Arc<Gateway>,
    results: Answers,
    awaiting: Awaiting,
}

impl PushStream {
    async fn run(mut self, mut requests: Streaming<PushRequest>, stop: impl Future<Output = ()>) -> Result<(), Lost> {
        let mut stop = std::pin::pin!(stop);
        let mut open = true;
        while open || self.awaiting.next_look().is_some() {
            let look = self.awaiting.next_look();
            tokio::select! {
                request = requests.message(),
                if open && self.awaiting.recipients() < self.gateway.config.limits.awaited_acks => match request {
                    Ok(Some(request)) => self.push(request).await?,
                    Ok(None) => open = false,
                    Err(status) => {
                        tracing::info!(code = ?status.code(), "a push stream broke");
                        return Ok(());
                    }
                },
                () = sleep_until(look.unwrap_or_else(Instant::now)), if look.is_some() => {
                    let results = self.awaiting.look(&self.gateway.hub, Instant::now());
                    self.send_all(results).await?;
                }
                () = self.results.closed() => return Ok(()),
                () = &mut stop => {
                    let results = self.awaiting.end(&self.gateway.hub);
                    return self.send_all(results).await;
                }
            }
        }
        Ok(())
    }

    async fn push(&mut self, push: PushRequest) -> Result<(), Lost> {
        let push_id = push.push_id;
        if push.incarnation != self.gateway.incarnation.as_bytes().as_slice() {
            tracing::info!(push.id = push_id, "a push was meant for another incarnation");
            return self.send(PushResult { push_id, stale_incarnation: true, ..PushResult::default() }).await;
        }
        match order(&push) {
            Ok(What::Show(message)) => {
                self.gateway.readiness.informed().await;
                let handed = self.hand(&push.recipients, &message).await;
                if !handed.gone.is_empty() {
                    self.gateway.routes.stale(users(&handed.gone).into_iter());
                }
                self.await_acks(&push, message.channel, message.seq, handed).await
            }
            Ok(What::Ask(channel, seq)) => {
                let held = self.find(&push.recipients);
                self.await_acks(&push, channel, seq, held).await
            }
            Ok(What::Resync) => {
                let users = users(&push.recipients);
                tracing::info!(
                    push.id = push_id,
                    users = users.len(),
                    "an api asks for a resync (of all, when of none)"
                );
                let hub = &self.gateway.hub;
                let members = if users.is_empty() { hub.members() } else { hub.members_of(&users) };
                self.gateway.routes.resync(hub, &members);
                self.send(PushResult { push_id, ..PushResult::default() }).await
            }
            Ok(What::Life(life)) => {
                let hub = &self.gateway.hub;
                if hub.begin_life(life) {
                    tracing::warn!(push.id = push_id, "the database began another life: everybody syncs");
                    self.gateway.relay.forget();
                    self.gateway.routes.resync(hub, &hub.members());
                }
                self.send(PushResult { push_id, ..PushResult::default() }).await
            }
            Err(what) => {
                // It reaches nobody, and the answer says so: the api's next step finds them another way. Ending the
                // stream instead would take every other push down with it.
                tracing::error!(push.id = push_id, what, traceparent = push.traceparent, "a malformed push");
                let whole = push.recipients.len() / ID_LEN * ID_LEN;
                let gone = push.recipients.slice(..whole);
                self.send(PushResult { push_id, gone, ..PushResult::default() }).await
            }
        }
    }

    /// Looks at the acks later; answers at once when nobody's ack is awaited.
    async fn await_acks(
        &mut self,
        push: &PushRequest,
        channel: ChannelId,
        seq: Seq,
        handed: Found,
    ) -> Result<(), Lost> {
        tracing::debug!(
            push.id = push.push_id,
            push.purpose = push.purpose,
            channel.id = %channel,
            seq = seq.0,
            recipients = push.recipients.len() / ID_LEN,
            handed = handed.taken.len(),
            traceparent = push.traceparent,
            "pushed"
        );
        let out = HandedOut {
            push_id: push.push_id,
            channel,
            seq,
            gone: handed.gone.freeze(),
            slow: handed.slow.freeze(),
            unacked: handed.taken,
        };
        let wait = Duration::from_millis(push.ack_wait_ms.into()).min(ACK_WAIT);
        // Devices ack at most once a second, so most pushes are answered at the first look.
        let early = ms(self.gateway.config.times.early_check_ms);
        match self.awaiting.add(out, early, wait, Instant::now()) {
            Some(result) => self.send(result).await,
            None => Ok(()),
        }
    }

    async fn hand(&self, recipients: &[u8], message: &Encoded) -> Found {
        let mut out = Found { taken: Vec::with_capacity(recipients.len() / ID_LEN), ..Found::default() };
        let (ids, _) = recipients.as_chunks::<ID_LEN>();
        for (turn, ids) in ids.chunks(AT_ONCE).enumerate() {
            if turn > 0 {
                tokio::task::yield_now().await;
            }
            self.gateway.hub.hand(ids.iter().map(user), message, |id, handed, user| match (handed, user) {
                (Handed::Taken, Some(user)) => out.taken.push(Arc::clone(user)),
                (Handed::Slow, _) => out.slow.extend_from_slice(id.as_bytes()),
                (Handed::Gone | Handed::Taken, _) => out.gone.extend_from_slice(id.as_bytes()),
            });
        }
        out
    }

    /// Who is here, without handing anything to them.
    fn find(&self, recipients: &[u8]) -> Found {
        let mut out = Found::default();
        let (ids, _) = recipients.as_chunks::<ID_LEN>();
        self.gateway.hub.find(ids.iter().map(user), |id, user| match user {
            Some(user) => out.taken.push(Arc::clone(user)),
            None => out.gone.extend_from_slice(id.as_bytes()),
        });
        out
    }

    async fn send_all(&self, results: Vec<PushResult>) -> Result<(), Lost> {
        for result in results {
            self.send(result).await?;
        }
        Ok(())
    }

    async fn send(&self, result: PushResult) -> Result<(), Lost> {
        match timeout(RESULT_PATIENCE, self.results.send(Ok(result.into()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Lost),
        }
    }
}

/// The recipients of a push, by what became of it.
#[derive(Default)]
struct Found {
    taken: Vec<Arc<User>>,
    gone: BytesMut,
    slow: BytesMut,
}

/// What a well-formed push asks for.
pub(crate) enum What {
    Show(Encoded),
    /// Who has acked this?
    Ask(ChannelId, Seq),
    Resync,
    /// The database is in this life.
    Life(i64),
}

pub(crate) fn order(push: &PushRequest) -> Result<What, &'static str> {
    if !push.recipients.len().is_multiple_of(ID_LEN) {
        return Err("recipients are not whole ids");
    }
    if push.recipients.len() / ID_LEN > RECIPIENTS {
        return Err("more than 20,000 recipients");
    }
    let message = push.message.as_ref().ok_or("message");
    match Purpose::try_from(push.purpose) {
        // A message that the encoder cannot bear ends neither this stream nor its own way to a notification.
        Ok(Purpose::Show) => {
            catch_unwind(|| frame::message(message?)).unwrap_or(Err("the encoder panicked")).map(What::Show)
        }
        Ok(Purpose::Ask) => {
            let message = message?;
            let channel = ChannelId::from_slice(&message.channel_id).map_err(|_| "channel_id")?;
            Ok(What::Ask(channel, Seq(message.seq)))
        }
        Ok(Purpose::Resync) => Ok(What::Resync),
        Ok(Purpose::Life) => Ok(What::Life(push.database_life)),
        Err(_) => Err("purpose"),
    }
}

fn user(id: &[u8; ID_LEN]) -> UserId {
    UserId(uuid::Uuid::from_bytes(*id))
}

/// The users in packed recipients.
pub(crate) fn users(recipients: &[u8]) -> Vec<UserId> {
    let (ids, _) = recipients.as_chunks::<ID_LEN>();
    ids.iter().map(user).collect()
}

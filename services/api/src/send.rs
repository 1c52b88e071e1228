//! The whole path of a message: store, resolve, route, push, finish.
//!
//! The request ends with the commit. Everything after it is [`FanOut`]'s work, and the message's outbox row stays
//! until that is done.

use crate::{
    Api,
    auth::Caller,
    claims::Claims,
    clock,
    deliver::Deliverer,
    error::{Error, Problem},
    extract::{Json, Path},
    finish::{Finisher, UnderWay},
    lanes::Lanes,
    resolve::{Due, Group, resolve},
    trace::Traceparent,
    writer::{Receipt, Stored},
};
use aws_lc_rs::digest;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use tokio::sync::{Semaphore, mpsc};
use touchline_ids::{ChannelId, ClientMessageId, MessageId, Seq, UserId};
use touchline_mesh::Shutdown;
use touchline_storage::NewMessage;
use utoipa::ToSchema;

/// Longest content, in bytes of JSON text: with its envelope it fits a socket frame of 64 KiB.
const CONTENT_LIMIT: usize = 48 * 1024;
/// Most users whom one message mentions.
const MENTIONS_LIMIT: usize = 100;

/// A message to send.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// Your own name for the message. Sending it again with the same name is safe: it is stored once.
    client_message_id: ClientMessageId,
    /// The text, or a JSON object of your application's own.
    #[schema(value_type = Value)]
    content: Value,
    /// True: nobody is notified of it, however absent.
    #[serde(default)]
    no_push: bool,
    /// Users whom the message mentions, at most 100: members who want to be notified of nothing else are notified of it.
    /// Whoever is not a member when it is stored is left out.
    #[serde(default)]
    mentions: Vec<UserId>,
}

/// What became of a send.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sent {
    channel_id: ChannelId,
    /// Its position in the channel's log.
    seq: Seq,
    message_id: MessageId,
    /// RFC 3339, UTC.
    created_at: String,
    /// True when this `client_message_id` had been stored before: the other fields are those of the first time.
    duplicate: bool,
}

/// Send a message.
///
/// The answer means: stored for good, with its place in the log. Delivery follows and does not need the sender.
/// `4xx`, `429` and `503` mean not stored; anything else, or no answer, means unknown: send again with the same
/// `client_message_id`.
#[utoipa::path(post, path = "/v1/channels/{id}/messages", tag = "messages", params(("id" = ChannelId, Path)),
    request_body = Send, security(("bearer" = [])),
    responses((status = 201, description = "Stored", body = Sent), (status = 200, description = "Had been stored before", body = Sent),
        (status = 404, body = Problem), (status = 409, description = "Same client_message_id, other body", body = Problem),
        (status = 429, body = Problem), (status = 503, description = "Not stored", body = Problem)))]
pub async fn send(
    State(api): State<Arc<Api>>,
    caller: Caller,
    trace: Traceparent,
    Path(channel_id): Path<ChannelId>,
    Json(send): Json<Send>,
) -> Result<(StatusCode, axum::Json<Sent>), Error> {
    api.limits.check_send(caller.user)?;
    let message = new_message(channel_id, &caller, send)?;
    let receipt = api.writer.send(message, trace.0).await?;
    fail::fail_point!("before_response", |_| std::panic::resume_unwind(Box::new(crate::failpoints::Cut)));
    let Receipt { seq, message_id, created_at_ms, duplicate } = receipt;
    let status = if duplicate { StatusCode::OK } else { StatusCode::CREATED };
    let created_at = clock::rfc3339(created_at_ms);
    Ok((status, axum::Json(Sent { channel_id, seq, message_id, created_at, duplicate })))
}

fn new_message(channel_id: ChannelId, caller: &Caller, send: Send) -> Result<NewMessage, Error> {
    match &send.content {
        Value::String(text) if text.is_empty() => return Err(Error::field("content", "must not be empty")),
        Value::String(_) | Value::Object(_) => {}
        _ => return Err(Error::field("content", "must be a text or a JSON object")),
    }
    // Parsed and written again: keys sorted, no white space. The same content has one spelling, so a retry by a
    // client that writes its JSON differently is still the same message.
    let content = send.content.to_string();
    if content.len() > CONTENT_LIMIT {
        return Err(Error::field("content", format!("must be at most {CONTENT_LIMIT} bytes of JSON")));
    }
    if send.mentions.len() > MENTIONS_LIMIT {
        return Err(Error::field("mentions", format!("must name at most {MENTIONS_LIMIT} users")));
    }
    let mentions: BTreeSet<_> = send.mentions.into_iter().collect();
    let mentions: Vec<_> = mentions.into_iter().collect();
    Ok(NewMessage {
        channel_id,
        sender_id: caller.user,
        client_message_id: send.client_message_id,
        body_hash: body_hash(&content, send.no_push, &mentions),
        content,
        no_push: send.no_push,
        mentions,
        message_id: MessageId::new(),
        created_at_ms: clock::now_ms(),
    })
}

/// SHA-256 over everything the sender chose. The first byte says what follows; a message without mentions has the hash
/// it had before there were any.
fn body_hash(content: &str, no_push: bool, mentions: &[UserId]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&[u8::from(no_push) | u8::from(!mentions.is_empty()) << 1]);
    if let Ok(count @ 1..) = u8::try_from(mentions.len()) {
        hash.update(&[count]);
        mentions.iter().for_each(|user| hash.update(user.0.as_bytes()));
    }
    hash.update(content.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    bytes
}

impl Stored {
    /// What it holds in memory while it is under way, about, in bytes; never more than there may be in all.
    fn cost(&self) -> u32 {
        let text = self.entry.content.len() + self.traceparent.len();
        let cost = MESSAGE_COST + text + RECIPIENT_COST * self.members.users.len();
        u32::try_from(cost).unwrap_or(UNDER_WAY).min(UNDER_WAY)
    }
}

/// Most messages that share one look-up.
const LANE_BATCH: usize = 256;
/// Bytes under way in all messages together; more holds the writer back.
const UNDER_WAY: u32 = 256 * 1024 * 1024;
/// What a message under way costs besides its text and its recipients, about.
const MESSAGE_COST: usize = 2 * 1024;
/// What one recipient of it costs: an id and two marks, about.
const RECIPIENT_COST: usize = 24;

/// Everything after the commit.
pub struct FanOut {
    deliverer: Arc<Deliverer>,
    finisher: Finisher,
    room: Arc<Semaphore>,
}

impl FanOut {
    /// A fan-out that delivers and finishes by these.
    pub fn new(deliverer: Arc<Deliverer>, finisher: Finisher) -> Self {
        Self { deliverer, finisher, room: Arc::new(Semaphore::new(UNDER_WAY as usize)) }
    }

    /// What was just committed goes into the lanes, until `stored` ends.
    pub async fn take_in(mut stored: mpsc::Receiver<Stored>, claims: Arc<Claims>, lanes: Lanes) {
        while let Some(stored) = stored.recv().await {
            let claim = claims.hold((stored.entry.channel_id, stored.entry.seq));
            lanes.send(Due { stored, attempt: 1, claim, turn: None }).await;
        }
    }

    /// One lane, until nobody can send into it. A burst shares its look-ups: while one is routed the next ones
    /// collect. Finishing goes on in `life`.
    pub async fn run(self: Arc<Self>, mut lane: mpsc::Receiver<Due>, life: Shutdown) {
        let mut burst = Vec::with_capacity(LANE_BATCH);
        while lane.recv_many(&mut burst, LANE_BATCH).await > 0 {
            for group in resolve(burst.drain(..)) {
                self.deliver(group, &life).await;
            }
        }
    }

    async fn deliver(self: &Arc<Self>, group: Group, life: &Shutdown) {
        let targets = self.deliverer.route(&group.members.users).await;
        for due in group.messages {
            let Ok(room) = Arc::clone(&self.room).acquire_many_owned(due.stored.cost()).await else { return };
            // One message that makes us panic must not take the others along; its row is let go and tried again.
            let push = AssertUnwindSafe(|| UnderWay::begin(due, &targets, &self.finisher, room));
            let message = match catch_unwind(push) {
                Ok(message) => message,
                Err(panic) => {
                    tracing::error!(
                        panic = touchline_mesh::vital::what(panic.as_ref()),
                        "a message could not be pushed"
                    );
                    continue;
                }
            };
            fail::fail_point!("after_push", |_| std::process::abort());
            let this = Arc::clone(self);
            life.spawn(async move { this.finisher.finish(message).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        delivery::Times, look_up::LookUps, outbox::Finished, push_stream::PushStreams, takeover::SharedSchedule,
    };
    use std::time::Duration;
    use tokio::{sync::watch, time::timeout};
    use touchline_registry::{Directory, MemoryRegistry, Registry};
    use touchline_storage::{Entry, Members};

    fn caller() -> Caller {
        Caller::for_test(touchline_ids::UserId::new())
    }

    fn message(json: &str) -> Result<NewMessage, String> {
        let send: Send = serde_json::from_str(json).map_err(|error| error.to_string())?;
        new_message(ChannelId::new(), &caller(), send).map_err(|error| error.to_string())
    }

    #[test]
    fn the_same_content_has_one_hash_however_it_is_written() {
        let one = message(r#"{"client_message_id":"1","content":{"a":1,"b":"é"}}"#).unwrap();
        let two = message(r#"{"client_message_id":"1","content":{ "b":"\u00e9", "a":1 },"no_push":false}"#).unwrap();
        assert_eq!(one.body_hash, two.body_hash);
        let other = message(r#"{"client_message_id":"1","content":{"a":1,"b":"é"},"no_push":true}"#).unwrap();
        assert_ne!(one.body_hash, other.body_hash);
    }

    #[test]
    fn whom_it_mentions_is_part_of_what_was_said() {
        let hash = |mentions: &str| message(&format!(r#"{{"client_message_id":"1","content":"x"{mentions}}}"#));
        let [ann, bob] = [UserId::new(), UserId::new()];
        let both = hash(&format!(r#","mentions":["{ann}","{bob}"]"#)).unwrap();
        let turned = hash(&format!(r#","mentions":["{bob}","{ann}","{bob}"]"#)).unwrap();
        assert_eq!((both.body_hash, both.mentions.len()), (turned.body_hash, 2));
        let one = hash(&format!(r#","mentions":["{ann}"]"#)).unwrap();
        let (none, empty) = (hash("").unwrap(), hash(r#","mentions":[]"#).unwrap());
        assert_eq!(none.body_hash, empty.body_hash);
        assert!(both.body_hash != one.body_hash && one.body_hash != none.body_hash);
        // As it was stored before there were mentions.
        assert_eq!(none.body_hash[..], digest::digest(&digest::SHA256, b"\0\"x\"").as_ref()[..]);
        let many = |count: usize| {
            let users: Vec<_> = (0..count).map(|_| format!("\"{}\"", UserId::new())).collect();
            hash(&format!(r#","mentions":[{}]"#, users.join(",")))
        };
        assert_eq!(many(MENTIONS_LIMIT).unwrap().mentions.len(), MENTIONS_LIMIT);
        assert!(many(MENTIONS_LIMIT + 1).is_err());
    }

    fn stored(text: usize, recipients: usize) -> Stored {
        Stored {
            entry: Entry {
                channel_id: ChannelId::new(),
                seq: Seq(1),
                message_id: MessageId::new(),
                sender_id: caller().user,
                kind: touchline_storage::Kind::Text,
                content: "x".repeat(text),
                created_at_ms: 0,
                prev: None,
            },
            members: Arc::new(Members { version: 1, users: vec![caller().user; recipients] }),
            notify: true,
            traceparent: String::new(),
        }
    }

    /// A fan-out that finds nobody, its lane, and room for so many finished messages after it.
    fn fan_out(life: &Shutdown, finished: usize) -> (Arc<FanOut>, mpsc::Sender<Due>, mpsc::Receiver<Finished>) {
        let registry: Arc<dyn Registry> = Arc::new(MemoryRegistry::new());
        let directory = Arc::new(Directory::new(Arc::clone(&registry)));
        let look_ups = Arc::new(LookUps::new(registry, Arc::clone(&directory), Arc::default()).0);
        let streams =
            Arc::new(PushStreams::new(directory, Arc::default(), Arc::default(), watch::channel(None).1, life.clone()));
        let second = Duration::from_secs(1);
        let deliverer = Arc::new(Deliverer::new(look_ups, streams, second));
        let times = Times { ack_wait: second, patience: second, second_look: second };
        let (done, finished) = mpsc::channel(finished);
        let finisher = Finisher::new(Arc::clone(&deliverer), times, SharedSchedule::default(), done);
        let fan_out = Arc::new(FanOut::new(deliverer, finisher));
        let (lane_in, lane) = mpsc::channel(8);
        let (this, inside) = (Arc::clone(&fan_out), life.clone());
        life.spawn(async move { this.run(lane, inside).await });
        (fan_out, lane_in, finished)
    }

    fn due() -> Due {
        let stored = stored(2, 2);
        let claim = Arc::<Claims>::default().hold((stored.entry.channel_id, stored.entry.seq));
        Due { stored, attempt: 1, claim, turn: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_in_its_lane_until_there_is_room_for_it() {
        let life = Shutdown::new();
        let (fan_out, lane, mut finished) = fan_out(&life, 8);
        let rest = due().stored.cost() - 1;
        let others = Arc::clone(&fan_out.room).acquire_many_owned(UNDER_WAY - rest).await.unwrap();
        lane.send(due()).await.unwrap();
        assert!(timeout(Duration::from_secs(3_600), finished.recv()).await.is_err(), "nothing of it happens");
        drop(others);
        assert!(finished.recv().await.is_some());
        assert_eq!(fan_out.room.available_permits(), UNDER_WAY as usize);
        life.stop_now();
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_message_keeps_its_room_until_the_outbox_takes_it() {
        let life = Shutdown::new();
        let (fan_out, lane, mut finished) = fan_out(&life, 1);
        for _ in 0..2 {
            lane.send(due()).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let first = finished.recv().await;
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(finished.len(), 1, "the second one waited for its place");
        let free = || fan_out.room.available_permits();
        let before = free();
        drop(first);
        assert!(before < free() && free() < UNDER_WAY as usize);
        drop(finished.recv().await);
        assert_eq!(free(), UNDER_WAY as usize);
        life.stop_now();
    }

    #[test]
    fn a_message_under_way_counts_with_its_text_and_its_recipients() {
        assert!(stored(CONTENT_LIMIT, 2).cost() as usize > CONTENT_LIMIT);
        assert!(stored(2, 10_000).cost() >= 10_000 * 16);
        assert!(stored(2, 2).cost() < 4_096);
    }

    #[test]
    fn what_the_server_owns_is_refused() {
        for field in ["sender_id", "seq", "role", "created_at", "message_id"] {
            let error = message(&format!(r#"{{"client_message_id":"1","content":"x","{field}":1}}"#)).unwrap_err();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn content_is_a_text_or_an_object_of_bounded_size() {
        let with = |content: &str| message(&format!(r#"{{"client_message_id":"1","content":{content}}}"#));
        assert!(with("\"hello\"").is_ok() && with("{}").is_ok());
        for bad in ["\"\"", "1", "null", "[]", "true"] {
            assert!(with(bad).is_err(), "{bad}");
        }
        assert!(with(&format!("\"{}\"", "x".repeat(CONTENT_LIMIT - 2))).is_ok());
        assert!(with(&format!("\"{}\"", "x".repeat(CONTENT_LIMIT - 1))).is_err());
    }
}

//! A WebSocket client and an api, each as small as a test wants them. Every wait has a deadline.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use std::{future::Future, net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message as Frame, client::IntoClientRequest as _, http::Response},
};
use tonic::Streaming;
use touchline_ids::{ChannelId, IncarnationId, MessageId, UserId};
use touchline_proto::{
    convert::{pack_users, unpack_users},
    push::{Message, PushAnswer, PushRequest, push_answer, push_request, push_service_client::PushServiceClient},
};

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(Duration::from_secs(15), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// A socket after its upgrade.
pub struct Client {
    pub socket: WebSocketStream<TcpStream>,
}

impl Client {
    pub async fn open(
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Response<Option<Vec<u8>>>> {
        let stream = TcpStream::connect(address).await.expect("connects");
        Self::upgrade(stream, &format!("ws://{address}/v1/socket"), headers).await
    }

    pub async fn upgrade(
        stream: TcpStream,
        url: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Response<Option<Vec<u8>>>> {
        let mut request = url.into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", "touchline.v1.json".parse().expect("a value"));
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a value"));
        }
        match within("the upgrade", tokio_tungstenite::client_async(request, stream)).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(tungstenite::Error::Http(response)) => Err(*response),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn say(&mut self, frame: &Value) {
        self.send(Frame::text(frame.to_string())).await;
    }

    pub async fn send(&mut self, frame: Frame) {
        self.socket.send(frame).await.expect("sent");
    }

    pub async fn hello(&mut self, ticket: &str, device: &str, connection: i64) {
        let hello =
            serde_json::json!({"type":"hello","ticket":ticket,"device_id":device,"connection":connection,"extra":1});
        self.say(&hello).await;
    }

    pub async fn ack(&mut self, channel: ChannelId, seq: i64) {
        self.say(&serde_json::json!({"type":"ack","cursors":{channel.to_string():seq}})).await;
    }

    /// The next text frame.
    pub async fn hear(&mut self) -> Value {
        loop {
            match within("a frame", self.socket.next()).await {
                Some(Ok(Frame::Text(text))) => return serde_json::from_str(&text).expect("JSON"),
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                other => panic!("expected a text frame, not {other:?}"),
            }
        }
    }

    pub async fn ready(&mut self) -> Value {
        let ready = self.hear().await;
        assert_eq!(ready["type"], "ready", "{ready}");
        ready
    }

    /// A ping that was answered: everything sent before it has been read.
    pub async fn is_alive(&mut self) -> u64 {
        self.say(&serde_json::json!({"type":"ping"})).await;
        loop {
            let frame = self.hear().await;
            if frame["type"] == "pong" {
                return frame["frames"].as_u64().expect("a number");
            }
        }
    }

    /// Reads on until the close frame; its number and reason, and the text frames before it.
    pub async fn closed(&mut self) -> (u16, String, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            match within("the close", self.socket.next()).await {
                Some(Ok(Frame::Close(Some(close)))) => return (close.code.into(), close.reason.to_string(), before),
                Some(Ok(Frame::Text(text))) => before.push(serde_json::from_str(&text).expect("JSON")),
                Some(Ok(_)) => {}
                other => panic!("expected a close frame, not {other:?}"),
            }
        }
    }

    pub async fn close_code(&mut self) -> u16 {
        self.closed().await.0
    }
}

/// An api with one push stream.
pub struct Api {
    pushes: mpsc::Sender<PushRequest>,
    answers: Streaming<PushAnswer>,
    incarnation: IncarnationId,
    next: u64,
}

/// A push's answer, readable.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Answer {
    pub push_id: u64,
    pub stale: bool,
    pub gone: Vec<UserId>,
    pub slow: Vec<UserId>,
    pub unacked: Vec<UserId>,
}

impl Api {
    pub async fn connect(address: SocketAddr, incarnation: IncarnationId) -> Self {
        let channel = touchline_mesh::client::stream_channel(&format!("http://{address}")).expect("an address");
        let (pushes, receiver) = mpsc::channel(64);
        let call = PushServiceClient::new(channel).push(ReceiverStream::new(receiver)).await;
        Self { pushes, answers: call.expect("a stream").into_inner(), incarnation, next: 0 }
    }

    pub async fn send(&mut self, change: impl FnOnce(&mut PushRequest)) -> u64 {
        self.next += 1;
        let mut push = PushRequest {
            push_id: self.next,
            incarnation: self.incarnation.as_bytes().to_vec().into(),
            ack_wait_ms: 3_000,
            ..PushRequest::default()
        };
        change(&mut push);
        self.pushes.send(push).await.expect("the stream is open");
        self.next
    }

    pub async fn push(&mut self, message: Message, to: &[UserId], ack_wait_ms: u32) -> u64 {
        let recipients = pack_users(to.iter());
        self.send(|push| {
            push.recipients = recipients;
            push.ack_wait_ms = ack_wait_ms;
            push.message = Some(message);
        })
        .await
    }

    /// Whether these users have acked what was pushed before.
    pub async fn ask(&mut self, message: Message, users: &[UserId], ack_wait_ms: u32) -> Answer {
        let recipients = pack_users(users.iter());
        let change = |push: &mut PushRequest| {
            push.recipients = recipients;
            push.ack_wait_ms = ack_wait_ms;
            push.message = Some(message);
            push.set_purpose(push_request::Purpose::Ask);
        };
        let asked = self.send(change).await;
        self.answer_to(asked).await
    }

    /// Has these users' sessions told to sync; everybody's when there are none.
    pub async fn resync(&mut self, users: &[UserId]) {
        let recipients = pack_users(users.iter());
        let change = |push: &mut PushRequest| {
            push.recipients = recipients;
            push.set_purpose(push_request::Purpose::Resync);
        };
        let push_id = self.send(change).await;
        assert_eq!(self.answer_to(push_id).await, Answer { push_id, ..Answer::default() });
    }

    /// The answer to this push, whatever is answered before it.
    pub async fn answer_to(&mut self, push_id: u64) -> Answer {
        loop {
            let answer = self.answer().await;
            if answer.push_id == push_id {
                return answer;
            }
        }
    }

    /// The next acks it is told; none when the stream has ended.
    pub async fn acks(&mut self) -> Option<Vec<(UserId, ChannelId, i64)>> {
        loop {
            let answer = within("acks", self.answers.message()).await.expect("no error")?;
            let Some(push_answer::Answer::Acks(acks)) = answer.answer else { continue };
            let users = unpack_users(&acks.users).expect("whole ids");
            let channels = acks.channels.as_chunks::<16>().0.iter().map(|id| ChannelId(uuid::Uuid::from_bytes(*id)));
            assert_eq!((users.len(), channels.len()), (acks.seqs.len(), acks.seqs.len()));
            return Some(
                users.zip(channels).zip(acks.seqs).map(|((user, channel), seq)| (user, channel, seq)).collect(),
            );
        }
    }

    pub async fn answer(&mut self) -> Answer {
        self.next_answer().await.expect("the stream is open")
    }

    pub async fn next_answer(&mut self) -> Option<Answer> {
        let result = loop {
            let answer = within("a push's answer", self.answers.message()).await.expect("no error")?;
            if let Some(push_answer::Answer::Result(result)) = answer.answer {
                break result;
            }
        };
        let users = |packed: &[u8]| unpack_users(packed).expect("whole ids").collect();
        Some(Answer {
            push_id: result.push_id,
            stale: result.stale_incarnation,
            gone: users(&result.gone),
            slow: users(&result.slow),
            unacked: users(&result.unacked),
        })
    }
}

pub fn message(channel: ChannelId, seq: i64) -> Message {
    message_with(channel, seq, r#"{"text":"hello"}"#)
}

pub fn message_with(channel: ChannelId, seq: i64, content: &str) -> Message {
    Message {
        channel_id: channel.as_bytes().to_vec(),
        seq,
        message_id: MessageId::new().as_bytes().to_vec(),
        sender_id: UserId::new().as_bytes().to_vec(),
        kind: "text".into(),
        content: content.to_owned().into(),
        created_at_ms: 1_764_000_000_000,
        prev: None,
    }
}

//! A server without a will of its own: it hands every request and every socket to the test.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Response, header},
    routing::post,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::{future::Future, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server as handshake,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use touchline_client::{Client, Device, DeviceOptions, Event, SUBPROTOCOL};
use touchline_ids::{ChannelId, DeviceId, MessageId, SessionId, UserId};
use touchline_mesh::Shutdown;

const QUEUE: usize = 64;

/// What is expected comes within seconds, or never.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

pub struct Server {
    pub url: String,
    socket_url: String,
    calls: mpsc::Receiver<Call>,
    sockets: mpsc::Receiver<Accepted>,
    life: Shutdown,
}

/// A request that waits for its answer.
pub struct Call {
    pub path: String,
    pub token: String,
    pub body: Value,
    pub at: Instant,
    answer: oneshot::Sender<Response<Body>>,
}

/// A socket whose hello was read.
pub struct Accepted {
    pub hello: Value,
    stream: WebSocketStream<TcpStream>,
}

impl Server {
    pub async fn start() -> Self {
        let (http, ws) = (listener().await, listener().await);
        let url = format!("http://{}", http.local_addr().expect("bound"));
        let socket_url = format!("ws://{}", ws.local_addr().expect("bound"));
        let (to_test, calls) = mpsc::channel(QUEUE);
        let app = Router::new().route("/v1/{call}", post(hand_over)).with_state(to_test);
        let life = Shutdown::new();
        life.spawn(async move { axum::serve(http, app).await });
        let (to_test, sockets) = mpsc::channel(QUEUE);
        life.spawn(async move {
            while let Ok((stream, _)) = ws.accept().await {
                if let Some(accepted) = accept(stream).await
                    && to_test.send(accepted).await.is_err()
                {
                    return;
                }
            }
        });
        Self { url, socket_url, calls, sockets, life }
    }

    /// A device of this server; its events.
    pub fn device(&self, change: impl FnOnce(&mut DeviceOptions)) -> mpsc::Receiver<Event> {
        let mut options = DeviceOptions::new(name());
        change(&mut options);
        let client = Client::new(&self.url).expect("a URL").as_user("first token");
        let mut device = Device::start(client, options);
        let (events, told) = mpsc::channel(1_000);
        self.life.spawn(async move {
            while let Some(event) = device.next().await {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        });
        told
    }

    /// The next request, which must be to this call.
    pub async fn call(&mut self, path: &str) -> Call {
        let call = within(path, self.calls.recv()).await.expect("the server runs");
        assert_eq!(call.path, path);
        call
    }

    /// Whether a request waits.
    pub fn is_called(&mut self) -> bool {
        !self.calls.is_empty()
    }

    /// Answers `connect` with `gateways` addresses, of which only the last is there, and accepts the socket.
    pub async fn connect(&mut self, gateways: usize) -> Accepted {
        let call = self.call("/v1/connect").await;
        let nobody = json!({"url": "ws://127.0.0.1:1"});
        let mut addresses = vec![nobody; gateways - 1];
        addresses.push(json!({"url": self.socket_url}));
        call.ok(&json!({
            "gateways": addresses, "ticket": "a ticket", "expires_in_s": 30, "heartbeat_s": 1,
            "backoff": {"base_ms": 20, "cap_ms": 100},
        }));
        let mut accepted = within("a socket", self.sockets.recv()).await.expect("the server runs");
        accepted.send(&ready(SessionId::new())).await;
        accepted
    }

    /// A device that is online, and has synced nothing.
    pub async fn online(&mut self) -> Accepted {
        let socket = self.connect(1).await;
        self.call("/v1/sync").await.ok(&json!({"channels": [], "gone": []}));
        socket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

pub fn name() -> DeviceId {
    "phone".parse().expect("a name")
}

pub fn ready(session: SessionId) -> Value {
    json!({"type": "ready", "session_id": session, "heartbeat_s": 1, "expires_in_s": 900})
}

/// The message at a place, the same one every time; as a frame, too.
pub fn message(channel: ChannelId, seq: i64) -> Value {
    let id = MessageId(uuid::Uuid::from_u128(channel.0.as_u128() ^ u128::from(seq.cast_unsigned())));
    json!({
        "type": "message", "channel_id": channel, "seq": seq, "message_id": id, "sender_id": UserId::new(),
        "kind": "text", "content": "x", "created_at": "2026-01-02T03:04:05Z", "check": id.check(),
    })
}

impl Call {
    pub fn ok(self, body: &Value) {
        let answer = Response::builder().header(header::CONTENT_TYPE, "application/json");
        self.answer(answer.body(Body::from(body.to_string())).expect("a response"));
    }

    pub fn refuse(self, status: u16, code: &str, retry_after: Option<u64>) {
        let mut answer = Response::builder().status(status);
        if let Some(seconds) = retry_after {
            answer = answer.header(header::RETRY_AFTER, seconds);
        }
        let problem = json!({"code": code, "detail": "as the test wants"}).to_string();
        self.answer(answer.body(Body::from(problem)).expect("a response"));
    }

    fn answer(self, response: Response<Body>) {
        self.answer.send(response).expect("the device still waits");
    }
}

impl Accepted {
    pub async fn send(&mut self, frame: &Value) {
        self.stream.send(Message::text(frame.to_string())).await.expect("open");
    }

    /// The next frame of this type.
    pub async fn frame(&mut self, kind: &str) -> Value {
        loop {
            let frame = within(kind, self.stream.next()).await.expect("open").expect("open");
            if let Message::Text(text) = frame {
                let frame: Value = serde_json::from_str(&text).expect("JSON");
                if frame["type"] == kind {
                    return frame;
                }
            }
        }
    }

    /// Waits until the device says goodbye.
    pub async fn closed(&mut self) {
        let until = async {
            while let Some(Ok(frame)) = self.stream.next().await {
                if frame.is_close() {
                    return;
                }
            }
            panic!("the connection broke without a goodbye");
        };
        within("a goodbye", until).await;
    }

    pub async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "as the test wants".into() };
        self.stream.close(Some(frame)).await.expect("open");
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.expect("a port")
}

async fn hand_over(State(to_test): State<mpsc::Sender<Call>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let token = request.headers()[header::AUTHORIZATION].to_str().expect("text").to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1024 * 1024).await.expect("a body");
    let body = serde_json::from_slice(&body).expect("JSON");
    let (answer, answered) = oneshot::channel();
    to_test.send(Call { path, token, body, at: Instant::now(), answer }).await.expect("the test runs");
    answered.await.unwrap_or_else(|_| Response::builder().status(500).body(Body::empty()).expect("a response"))
}

async fn accept(stream: TcpStream) -> Option<Accepted> {
    #[expect(clippy::result_large_err, reason = "the trait is tungstenite's")]
    let subprotocol = |_: &handshake::Request, mut response: handshake::Response| {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, header::HeaderValue::from_static(SUBPROTOCOL));
        Ok(response)
    };
    let mut stream = accept_hdr_async(stream, subprotocol).await.ok()?;
    let hello = stream.next().await?.ok()?;
    Some(Accepted { hello: serde_json::from_str(hello.to_text().ok()?).ok()?, stream })
}

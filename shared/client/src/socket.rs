//! The WebSocket.

use crate::{
    error::{ClientError, Refusal},
    frame::Frame,
};
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        self, Message, Utf8Bytes,
        client::IntoClientRequest as _,
        protocol::{WebSocketConfig, frame::coding::CloseCode},
    },
};
use touchline_ids::{ChannelId, ConnectionNumber, DeviceId, Seq, SessionId};

/// The WebSocket subprotocol this client speaks.
pub const SUBPROTOCOL: &str = "touchline.v1.json";

/// Asks for a pong.
pub(crate) const PING: &str = r#"{"type":"ping"}"#;

/// How long opening may take, from the first SYN to `ready`.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

/// An authenticated socket.
pub struct Socket {
    stream: Stream,
    session: SessionId,
    heartbeat: Duration,
    expires_in: Duration,
    /// Something was posted that did not leave yet.
    unflushed: bool,
}

/// How a socket ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Closed {
    /// The close code; 1006 when the connection broke without one.
    pub code: u16,
    /// The reason, for people.
    pub reason: String,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "closed {} {}", self.code, self.reason)
    }
}

impl Closed {
    /// How long a server that has too much to do (1013) wants to be left alone, if its reason says so.
    pub fn retry_after(&self) -> Option<Duration> {
        let (_, asked) = self.reason.rsplit_once("retry_after_ms=").filter(|_| self.code == 1013)?;
        asked.parse().ok().map(Duration::from_millis)
    }

    fn broken(reason: impl ToString) -> Self {
        Self { code: 1006, reason: reason.to_string() }
    }
}

impl Socket {
    /// Opens a socket at a gateway with a ticket from `POST /v1/connect`, and waits until it is ready. `connection`
    /// must be greater than that of every socket this device opened before.
    ///
    /// # Errors
    /// [`ClientError::Handshake`], [`ClientError::Refused`] with the status of a refused upgrade,
    /// [`ClientError::NotReady`] with the close code, [`ClientError::TooSlow`].
    pub async fn open(
        gateway: &str,
        ticket: &str,
        device: &DeviceId,
        connection: ConnectionNumber,
    ) -> Result<Self, ClientError> {
        // Boxed: the handshake's state is large and would stay in the caller's future for as long as that lives.
        timeout(OPEN_TIMEOUT, Box::pin(open(gateway, ticket, device, connection)))
            .await
            .unwrap_or(Err(ClientError::TooSlow))
    }

    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// How often to [`ping`](Self::ping).
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// How long after `ready` the session ends unless it is [renewed](Self::renew).
    pub fn expires_in(&self) -> Duration {
        self.expires_in
    }

    /// The next frame. Cancelling it loses nothing.
    ///
    /// # Errors
    /// How the socket ended; the same again on every later call is not promised.
    pub async fn next(&mut self) -> Result<Frame, Closed> {
        self.next_text().await.map(|text| Frame::parse(&text))
    }

    /// The next frame as it came. Cancelling it loses nothing.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_text(&mut self) -> Result<String, Closed> {
        next_text(&mut self.stream).await.map(|text| text.to_string())
    }

    /// Says which messages this device holds: in each channel, everything up to this seq.
    ///
    /// # Errors
    /// When the socket has ended.
    pub async fn ack(&mut self, cursors: &BTreeMap<ChannelId, Seq>) -> Result<(), Closed> {
        self.send(ack(cursors)).await
    }

    /// Renews the session with a fresh ticket of the same user and device; the answer is another [`Frame::Ready`].
    ///
    /// # Errors
    /// When the socket has ended.
    pub async fn renew(&mut self, ticket: &str, device: &DeviceId, connection: ConnectionNumber) -> Result<(), Closed> {
        self.send(hello(ticket, device, connection)).await
    }

    /// Asks for a [`Frame::Pong`].
    ///
    /// # Errors
    /// When the socket has ended.
    pub async fn ping(&mut self) -> Result<(), Closed> {
        self.send(PING.into()).await
    }

    /// Sends a text frame as it is.
    ///
    /// # Errors
    /// When the socket has ended.
    pub async fn send(&mut self, text: String) -> Result<(), Closed> {
        self.stream.send(Message::text(text)).await.map_err(Closed::broken)
    }

    /// Hands a frame over without waiting; it leaves while [`poll_next`](Self::poll_next) is polled.
    pub(crate) fn post(&mut self, frame: String) -> Result<(), Closed> {
        self.unflushed = true;
        self.stream.start_send_unpin(Message::text(frame)).map_err(Closed::broken)
    }

    /// Sends what was posted, and reads the next frame if `reading`.
    pub(crate) fn poll_next(&mut self, reading: bool, cx: &mut Context<'_>) -> Poll<Result<Frame, Closed>> {
        if self.unflushed
            && let Poll::Ready(flushed) = self.stream.poll_flush_unpin(cx)
        {
            self.unflushed = false;
            flushed.map_err(Closed::broken)?;
        }
        if reading { poll_text(&mut self.stream, cx).map_ok(|text| Frame::parse(&text)) } else { Poll::Pending }
    }

    /// Closes the socket (1000) and waits a little for the server to agree.
    pub async fn close(mut self) {
        let goodbye = async {
            self.stream.close(None).await?;
            while let Some(Ok(_)) = self.stream.next().await {}
            Ok::<_, tungstenite::Error>(())
        };
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    }
}

async fn open(
    gateway: &str,
    ticket: &str,
    device: &DeviceId,
    connection: ConnectionNumber,
) -> Result<Socket, ClientError> {
    let url = format!("{}/v1/socket", gateway.trim_end_matches('/'));
    let mut request = url.into_client_request().map_err(handshake)?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, http::HeaderValue::from_static(SUBPROTOCOL));
    // Small buffers: thousands of sockets fit into one test process.
    let config = WebSocketConfig::default()
        .read_buffer_size(2 * 1024)
        .write_buffer_size(1024)
        .max_write_buffer_size(256 * 1024)
        .max_message_size(Some(256 * 1024))
        .max_frame_size(Some(256 * 1024));
    let (mut stream, _) = connect_async_with_config(request, Some(config), true).await.map_err(handshake)?;
    let refused = |error: tungstenite::Error| ClientError::NotReady(Closed::broken(error));
    stream.send(Message::text(hello(ticket, device, connection))).await.map_err(refused)?;
    loop {
        let text = next_text(&mut stream).await.map_err(ClientError::NotReady)?;
        // What else may come before it (an `error`, say) is explained by the close code that follows.
        if let Frame::Ready { session_id, heartbeat_s, expires_in_s } = Frame::parse(&text) {
            let (heartbeat, expires_in) = (Duration::from_secs(heartbeat_s), Duration::from_secs(expires_in_s));
            return Ok(Socket { stream, session: session_id, heartbeat, expires_in, unflushed: false });
        }
    }
}

pub(crate) fn hello(ticket: &str, device: &DeviceId, connection: ConnectionNumber) -> String {
    json!({"type": "hello", "ticket": ticket, "device_id": device, "connection": connection}).to_string()
}

/// The frame that says which messages this device holds.
pub(crate) fn ack(cursors: &BTreeMap<ChannelId, Seq>) -> String {
    json!({"type": "ack", "cursors": cursors}).to_string()
}

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn next_text(stream: &mut Stream) -> Result<Utf8Bytes, Closed> {
    poll_fn(|cx| poll_text(stream, cx)).await
}

fn poll_text(stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<Utf8Bytes, Closed>> {
    loop {
        return Poll::Ready(match ready!(stream.poll_next_unpin(cx)) {
            Some(Ok(Message::Text(text))) => Ok(text),
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) = frame.map_or((CloseCode::Status, Utf8Bytes::default()), |f| (f.code, f.reason));
                Err(Closed { code: code.into(), reason: reason.to_string() })
            }
            // Pings are answered by the library; the server sends no binary frames.
            Some(Ok(_)) => continue,
            Some(Err(error)) => Err(Closed::broken(error)),
            None => Err(Closed::broken("the connection ended")),
        });
    }
}

fn handshake(error: tungstenite::Error) -> ClientError {
    match error {
        tungstenite::Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            ClientError::Refused(Refusal::read(response.status(), response.headers(), body))
        }
        error => ClientError::Handshake(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_1013_may_say_when_to_come_back() {
        let asked = |code, reason: &str| Closed { code, reason: reason.to_owned() }.retry_after();
        let wait = Some(Duration::from_millis(4_200));
        assert_eq!(asked(1013, "overloaded: this gateway is full; retry_after_ms=4200"), wait);
        assert_eq!(asked(1013, "retry_after_ms=4200"), wait);
        for (code, reason) in [
            (1013, ""),
            (1013, "overloaded: this gateway is full"),
            (1013, "retry_after_ms="),
            (1013, "retry_after_ms=-1"),
            (1013, "retry_after_ms=99999999999999999999"),
            (1012, "restart: retry_after_ms=4200"),
        ] {
            assert_eq!(asked(code, reason), None, "{code} {reason}");
        }
    }
}

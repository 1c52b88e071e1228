//! What is too big: bodies over REST, messages and fragments over a socket.

use crate::{outcome::Outcome, scenario::Context};
use anyhow::{Context as _, Result, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Message,
        client::IntoClientRequest as _,
        protocol::frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};
use touchline_client::SUBPROTOCOL;
use touchline_harness::{Person, Stack};
use touchline_ids::{ChannelId, DeviceId};
use uuid::Uuid;

const LIMIT: usize = 64 * 1024;
/// What the memory of a process may rise by, over all attacks after the first round.
const RISE: u64 = 2 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// One who means no good.
struct Attacker<'a> {
    stack: &'a Stack,
    person: &'a Person,
    token: String,
    http: reqwest::Client,
    channel: ChannelId,
}

pub(crate) async fn run(context: &Context) -> Result<Outcome> {
    let stack = Stack::processes(1, 1).unlimited().logs_in(&context.logs).start().await?;
    let people = stack.crowd(1).await?;
    let attacker = Attacker {
        stack: &stack,
        person: &people[0],
        token: stack.access_tokens().issue(people[0].id, Uuid::now_v7())?,
        http: reqwest::Client::new(),
        channel: stack.channel(&[&people[0]]).await?,
    };
    let mut outcome = Outcome::default();
    // The first rounds are what the allocators keep for good.
    let mut answers = attacker.round().await?;
    for _ in 0..context.pick(8, 10) {
        answers = attacker.round().await?;
    }
    let before = attacker.memory()?;
    for _ in 0..context.pick(3, 20) {
        answers = attacker.round().await?;
    }
    let rise = attacker.memory()?.into_iter().zip(before).map(|(after, before)| after.saturating_sub(before)).max();
    let rise = rise.unwrap_or_default();
    let expected = BTreeMap::from([
        ("REST 64 KiB - 1", 201),
        ("REST 64 KiB", 201),
        ("REST 64 KiB + 1", 413),
        ("REST 1 MiB", 413),
        ("REST 64 MiB", 413),
        ("socket 64 KiB + 1", 1009),
        ("socket 1 MiB", 1009),
        ("socket 64 MiB in fragments", 1009),
        ("socket 1-byte fragments", 1009),
    ]);
    outcome.require(answers == expected, format!("answers: {answers:?}"));
    outcome.require(rise < RISE, format!("memory rose by {} KiB", rise / 1024));
    outcome.tell(format!("memory rose by {} KiB", rise / 1024));
    outcome.look_at(stack, 0, false).await?;
    Ok(outcome)
}

impl Attacker<'_> {
    async fn round(&self) -> Result<BTreeMap<&'static str, u16>> {
        Ok(BTreeMap::from([
            ("REST 64 KiB - 1", self.post(LIMIT - 1).await?),
            ("REST 64 KiB", self.post(LIMIT).await?),
            ("REST 64 KiB + 1", self.post(LIMIT + 1).await?),
            ("REST 1 MiB", self.post(1 << 20).await?),
            ("REST 64 MiB", self.post(64 << 20).await?),
            ("socket 64 KiB + 1", self.send(LIMIT + 1, LIMIT + 1).await?),
            ("socket 1 MiB", self.send(1 << 20, 1 << 20).await?),
            ("socket 64 MiB in fragments", self.send(64 << 20, 16 << 10).await?),
            ("socket 1-byte fragments", self.send(LIMIT + 1, 1).await?),
        ]))
    }

    /// A message of few words in a body of so many bytes.
    async fn post(&self, bytes: usize) -> Result<u16> {
        let mut body = json!({"client_message_id": Uuid::now_v7().to_string(), "content": "hi"}).to_string();
        body.extend(std::iter::repeat_n(' ', bytes - body.len()));
        let url = format!("{}/v1/channels/{}/messages", self.stack.api_url(0), self.channel);
        let request = self.http.post(url).bearer_auth(&self.token).header("content-type", "application/json");
        match timeout(PATIENCE, request.body(body).send()).await? {
            Ok(response) => Ok(response.status().as_u16()),
            // It answered and closed before it had taken everything; the answer may be lost with the rest.
            Err(error) if error.is_request() && bytes > LIMIT => Ok(413),
            Err(error) => Err(error.into()),
        }
    }

    /// A text of so many bytes in fragments of so many; gives the close code.
    async fn send(&self, bytes: usize, fragment: usize) -> Result<u16> {
        let mut socket = self.open().await?;
        let (mut sent, mut first) = (0, true);
        while sent < bytes {
            let length = fragment.min(bytes - sent);
            sent += length;
            let kind = if first { Data::Text } else { Data::Continue };
            let frame = Frame::message(vec![b'x'; length], OpCode::Data(kind), sent == bytes);
            first = false;
            // It has heard enough, and closed.
            if socket.feed(Message::Frame(frame)).await.is_err() {
                break;
            }
        }
        let _ = socket.flush().await;
        let closed = async {
            while let Some(message) = socket.next().await {
                match message {
                    Ok(Message::Close(close)) => return close.map_or(1005, |close| close.code.into()),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            1006
        };
        Ok(timeout(PATIENCE, closed).await?)
    }

    async fn open(&self) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
        let device: DeviceId = Uuid::now_v7().to_string().parse()?;
        let ticket = self.person.ticket(&device).await?.ticket;
        let mut request = format!("{}/v1/socket", self.stack.gateway_url(0)).into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse()?);
        let (mut socket, _) = connect_async(request).await?;
        let hello = json!({"type": "hello", "ticket": ticket, "device_id": device, "connection": 1});
        socket.send(Message::text(hello.to_string())).await?;
        let ready = timeout(PATIENCE, socket.next()).await?.context("an answer")??;
        ensure!(ready.to_text()?.contains("\"ready\""), "{ready:?}");
        Ok(socket)
    }

    /// Of the api and the gateway, in bytes.
    fn memory(&self) -> Result<Vec<u64>> {
        [self.stack.api(0)?, self.stack.gateway(0)?]
            .into_iter()
            .map(|process| process.resident_bytes().context("it runs"))
            .collect()
    }
}

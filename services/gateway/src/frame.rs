//! The JSON frames of `touchline.v1.json`, in and out. Unknown fields are ignored; what is wrong is named, but never
//! repeated: a frame may carry a ticket.

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt::Write as _, time::Duration};
use time::OffsetDateTime;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use touchline_ids::{ChannelId, Check, ConnectionNumber, DeviceId, MessageId, Seq, SessionId, UserId};
use touchline_proto::push::Message;

/// The one subprotocol.
pub(crate) const SUBPROTOCOL: &str = "touchline.v1.json";

/// Channels one ack may name. A device acks what it got, at most once a second.
const ACK_CURSORS: usize = 256;
/// Longest ticket looked at; ours have about 400 characters.
const TICKET_CHARACTERS: usize = 4096;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FrameIn {
    /// Who I am. First on every socket; again to renew a session.
    Hello(Hello),
    /// What I hold: every message of the channel up to seq.
    Ack(Vec<(ChannelId, Seq)>),
    /// Are you there, and how many messages did you send me?
    Ping,
}

/// Who a client says it is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) ticket: String,
    pub(crate) device: DeviceId,
    pub(crate) connection: ConnectionNumber,
}

impl std::fmt::Debug for Hello {
    /// Without the ticket.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("device", &self.device)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// A frame that makes no sense: what the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadFrame {
    pub(crate) code: &'static str,
    pub(crate) message: Cow<'static, str>,
}

impl BadFrame {
    pub(crate) const fn new(code: &'static str, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message) }
    }

    fn field(name: &str, expected: &str) -> Self {
        Self { code: "bad_field", message: format!("`{name}` must be {expected}").into() }
    }
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    ticket: Option<&'a RawValue>,
    #[serde(borrow)]
    device_id: Option<&'a RawValue>,
    #[serde(borrow)]
    connection: Option<&'a RawValue>,
    #[serde(borrow)]
    cursors: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Hello,
    Ack,
    Ping,
    #[serde(other)]
    Unknown,
}

/// Reads one text frame.
pub(crate) fn frame_in(text: &str) -> Result<FrameIn, BadFrame> {
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => BadFrame::new("bad_frame", "a frame is a JSON object, each field once"),
        _ => BadFrame::new("bad_json", "the frame is not JSON"),
    })?;
    match field(fields.kind, "type", "text")? {
        Kind::Hello => hello(&fields).map(FrameIn::Hello),
        Kind::Ack => cursors(fields.cursors).map(FrameIn::Ack),
        Kind::Ping => Ok(FrameIn::Ping),
        Kind::Unknown => Err(BadFrame::new("unknown_type", "`type` must be hello, ack or ping")),
    }
}

fn hello(fields: &Fields<'_>) -> Result<Hello, BadFrame> {
    let ticket: String = field(fields.ticket, "ticket", "text")?;
    if ticket.is_empty() || ticket.len() > TICKET_CHARACTERS {
        return Err(BadFrame::field("ticket", "the ticket that POST /v1/connect gave"));
    }
    let device = field(fields.device_id, "device_id", "1 to 64 characters out of A-Z a-z 0-9 . _ : -")?;
    let connection: ConnectionNumber = field(fields.connection, "connection", CONNECTION)?;
    if connection.0 < 0 {
        return Err(BadFrame::field("connection", CONNECTION));
    }
    Ok(Hello { ticket, device, connection })
}

const CONNECTION: &str = "a whole number from 0, greater with every connection of the device";

fn cursors(raw: Option<&RawValue>) -> Result<Vec<(ChannelId, Seq)>, BadFrame> {
    let cursors: Result<Cursors, _> = field(raw, "cursors", "an object");
    cursors
        .map(|cursors| cursors.0)
        .map_err(|_| BadFrame::field("cursors", "an object of at most 256 channel ids, each with a seq from 0"))
}

/// Read without anything in between: every session acks once a second.
struct Cursors(Vec<(ChannelId, Seq)>);

impl<'de> Deserialize<'de> for Cursors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Cursors;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("cursors")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Cursors, A::Error> {
                let mut cursors = Vec::new();
                while let Some((Channel(channel), seq)) = map.next_entry::<Channel, Seq>()? {
                    if cursors.len() == ACK_CURSORS || seq.0 < 0 {
                        return Err(de::Error::custom("no cursors"));
                    }
                    cursors.push((channel, seq));
                }
                Ok(Cursors(cursors))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

/// A channel's id, read from where it stands.
struct Channel(ChannelId);

impl<'de> Deserialize<'de> for Channel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Channel;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a channel id")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Channel, E> {
                text.parse().map(Channel).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

/// One field, or its name and what it must be. serde's own words would repeat the value.
fn field<T: DeserializeOwned>(raw: Option<&RawValue>, name: &str, expected: &str) -> Result<T, BadFrame> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or_else(|| BadFrame::field(name, expected))
}

/// You are in; sync now.
pub(crate) fn ready(session: SessionId, heartbeat: Duration, expires_in: Duration) -> Utf8Bytes {
    let (heartbeat_s, expires_in_s) = (heartbeat.as_secs().max(1), expires_in.as_secs());
    format!(r#"{{"type":"ready","session_id":"{session}","heartbeat_s":{heartbeat_s},"expires_in_s":{expires_in_s}}}"#)
        .into()
}

/// I am here, and sent you so many messages on this session before this frame.
pub(crate) fn pong(frames: u64) -> Utf8Bytes {
    format!(r#"{{"type":"pong","frames":{frames}}}"#).into()
}

/// Connect again, elsewhere, after so long; then close this socket.
pub(crate) fn reconnect(after: Duration) -> Utf8Bytes {
    format!(r#"{{"type":"reconnect","after_ms":{}}}"#, after.as_millis()).into()
}

/// Your frame was wrong.
pub(crate) fn error(bad: &BadFrame) -> Utf8Bytes {
    serde_json::json!({ "type": "error", "code": bad.code, "message": bad.message }).to_string().into()
}

/// A message as every recipient's sockets get it: encoded once, shared by all.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub(crate) channel: ChannelId,
    pub(crate) seq: Seq,
    pub(crate) text: Utf8Bytes,
}

/// Encodes a message. The content is JSON text already and passed on as it is.
///
/// # Errors
/// The name of the field that cannot be shown to a client.
pub(crate) fn message(message: &Message) -> Result<Encoded, &'static str> {
    // For the tests: a message that the encoder cannot bear.
    fail::fail_point!("encode");
    let channel = ChannelId::from_slice(&message.channel_id).map_err(|_| "channel_id")?;
    let id = MessageId::from_slice(&message.message_id).map_err(|_| "message_id")?;
    let sender = UserId::from_slice(&message.sender_id).map_err(|_| "sender_id")?;
    let content = std::str::from_utf8(&message.content).map_err(|_| "content")?;
    let seq = Seq(message.seq);
    if content.is_empty() {
        return Err("content");
    }
    if seq.0 < 1 {
        return Err("seq");
    }
    let created_at = rfc3339(message.created_at_ms).ok_or("created_at_ms")?;
    let kind = serde_json::to_string(&message.kind).map_err(|_| "kind")?;
    let check = id.check();
    let mut text = String::with_capacity(320 + content.len());
    write!(
        text,
        r#"{{"type":"message","channel_id":"{channel}","seq":{seq},"message_id":"{id}","sender_id":"{sender}","kind":{kind},"content":{content},"created_at":"{created_at}","check":"{check}""#
    )
    .map_err(|_| "content")?;
    if let Some(prev) = message.prev.map(Check) {
        write!(text, r#","prev":"{prev}""#).map_err(|_| "content")?;
    }
    text.push('}');
    Ok(Encoded { channel, seq, text: text.into() })
}

fn rfc3339(unix_ms: i64) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok()?;
    // Four digits of year are what the format promises.
    (0..=9999).contains(&at.year()).then(|| {
        let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
        let (hour, minute, second, milli) = (at.hour(), at.minute(), at.second(), at.millisecond());
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(text: &str) -> BadFrame {
        frame_in(text).expect_err(text)
    }

    #[test]
    fn a_hello_is_read_and_unknown_fields_are_ignored() {
        let text = r#"{"type":"hello","ticket":"t.t.t","device_id":"phone","connection":7,"colour":{"a":[1]}}"#;
        let Ok(FrameIn::Hello(hello)) = frame_in(text) else { panic!("no hello") };
        assert_eq!((hello.ticket.as_str(), hello.device.as_str(), hello.connection.0), ("t.t.t", "phone", 7));
        assert!(!format!("{hello:?}").contains("t.t.t"));
    }

    #[test]
    fn an_ack_is_read() {
        let channel = ChannelId::new();
        let ack = frame_in(&format!(r#"{{"cursors":{{"{channel}":12}},"type":"ack"}}"#));
        assert_eq!(ack, Ok(FrameIn::Ack(vec![(channel, Seq(12))])));
        assert_eq!(frame_in(r#"{"type":"ack","cursors":{}}"#), Ok(FrameIn::Ack(vec![])));
    }

    #[test]
    fn what_is_wrong_is_named_and_the_value_is_not_repeated() {
        for (text, code, word) in [
            ("", "bad_json", "JSON"),
            ("{", "bad_json", "JSON"),
            ("nonsense", "bad_json", "JSON"),
            ("[1]", "bad_frame", "object"),
            ("null", "bad_frame", "object"),
            ("{}", "bad_field", "`type`"),
            (r#"{"type":7}"#, "bad_field", "`type`"),
            (r#"{"type":"ping","type":"ping"}"#, "bad_frame", "once"),
            (r#"{"type":"secret"}"#, "unknown_type", "hello"),
            (r#"{"type":"hello"}"#, "bad_field", "`ticket`"),
            (r#"{"type":"hello","ticket":""}"#, "bad_field", "`ticket`"),
            (r#"{"type":"hello","ticket":["secret"]}"#, "bad_field", "`ticket`"),
            (r#"{"type":"hello","ticket":"secret","device_id":"a b"}"#, "bad_field", "`device_id`"),
            (r#"{"type":"hello","ticket":"secret","device_id":"a"}"#, "bad_field", "`connection`"),
            (r#"{"type":"hello","ticket":"t","device_id":"a","connection":"secret"}"#, "bad_field", "`connection`"),
            (r#"{"type":"hello","ticket":"t","device_id":"a","connection":-1}"#, "bad_field", "`connection`"),
            (r#"{"type":"hello","ticket":"t","device_id":"a","connection":1e30}"#, "bad_field", "`connection`"),
            (r#"{"type":"ack"}"#, "bad_field", "`cursors`"),
            (r#"{"type":"ack","cursors":[]}"#, "bad_field", "`cursors`"),
            (r#"{"type":"ack","cursors":{"secret":1}}"#, "bad_field", "`cursors`"),
            (r#"{"type":"ack","cursors":{"0190b3c8-7d3e-7c61-9b1a-2f6f0a6b8e11":-1}}"#, "bad_field", "`cursors`"),
            (r#"{"type":"ack","cursors":{"0190b3c8-7d3e-7c61-9b1a-2f6f0a6b8e11":"1"}}"#, "bad_field", "`cursors`"),
        ] {
            let bad = refusal(text);
            assert_eq!(bad.code, code, "{text}");
            assert!(bad.message.contains(word), "{text}: {}", bad.message);
            assert!(!bad.message.contains("secret"), "{text}: {}", bad.message);
        }
    }

    #[test]
    fn an_ack_is_bounded() {
        let many = |n: usize| {
            let cursors: Vec<_> = (0..n).map(|_| format!(r#""{}":1"#, ChannelId::new())).collect();
            frame_in(&format!(r#"{{"type":"ack","cursors":{{{}}}}}"#, cursors.join(",")))
        };
        assert!(many(ACK_CURSORS).is_ok());
        assert!(many(ACK_CURSORS + 1).is_err());
    }

    #[test]
    fn nesting_without_end_is_bad_json() {
        assert_eq!(refusal(&format!(r#"{{"x":{}"#, "[".repeat(60_000))).code, "bad_json");
    }

    fn sample() -> Message {
        Message {
            channel_id: ChannelId::new().as_bytes().to_vec(),
            seq: 41,
            message_id: MessageId::new().as_bytes().to_vec(),
            sender_id: UserId::new().as_bytes().to_vec(),
            kind: "te\"xt".into(),
            content: r#"{"text":"hé"}"#.into(),
            created_at_ms: 1_764_000_000_007,
            prev: Some(0x0102_0304),
        }
    }

    #[test]
    fn a_message_frame_has_the_fields_of_the_protocol() {
        let message = sample();
        let encoded = super::message(&message).expect("is whole");
        let json: serde_json::Value = serde_json::from_str(&encoded.text).expect("is JSON");
        let id = MessageId::from_slice(&message.message_id).expect("16 bytes");
        let expected = serde_json::json!({
            "type": "message", "channel_id": encoded.channel.to_string(), "seq": 41, "message_id": id.to_string(),
            "sender_id": UserId::from_slice(&message.sender_id).expect("16 bytes").to_string(), "kind": "te\"xt",
            "content": {"text": "hé"}, "created_at": "2025-11-24T16:00:00.007Z", "check": id.check(),
            "prev": "01020304",
        });
        assert_eq!(json, expected);
        let first = super::message(&Message { prev: None, ..message }).expect("is whole");
        let json: serde_json::Value = serde_json::from_str(&first.text).expect("is JSON");
        assert!(json.get("prev").is_none());
    }

    #[test]
    fn a_message_that_cannot_be_shown_names_its_field() {
        let broken = |change: fn(&mut Message)| {
            let mut message = sample();
            change(&mut message);
            super::message(&message).expect_err("is broken")
        };
        assert_eq!(broken(|m| m.channel_id = vec![1]), "channel_id");
        assert_eq!(broken(|m| m.message_id = vec![]), "message_id");
        assert_eq!(broken(|m| m.sender_id = vec![0; 17]), "sender_id");
        assert_eq!(broken(|m| m.seq = 0), "seq");
        assert_eq!(broken(|m| m.content = vec![0xff].into()), "content");
        assert_eq!(broken(|m| m.content = vec![].into()), "content");
        assert_eq!(broken(|m| m.created_at_ms = i64::MAX), "created_at_ms");
    }

    #[test]
    fn what_the_server_says_is_json() {
        let session = SessionId::new();
        let seconds = Duration::from_secs;
        for (text, expected) in [
            (
                ready(session, seconds(25), seconds(900)),
                serde_json::json!({"type":"ready","session_id":session.to_string(),"heartbeat_s":25,"expires_in_s":900}),
            ),
            (pong(3), serde_json::json!({"type":"pong","frames":3})),
            (reconnect(Duration::from_millis(1500)), serde_json::json!({"type":"reconnect","after_ms":1500})),
            (
                error(&BadFrame::new("bad_json", "a \"b\"")),
                serde_json::json!({"type":"error","code":"bad_json","message":"a \"b\""}),
            ),
        ] {
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("is JSON"), expected);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,300}") {
            let _ = frame_in(&text);
        }

        #[test]
        fn no_object_makes_the_parser_panic(
            kind in "hello|ack|ping|[a-z]{0,8}", ticket in any::<String>(), device in any::<String>(),
            connection in any::<i64>(), channel in any::<String>(), seq in any::<i64>(),
        ) {
            let text = serde_json::json!({
                "type": kind, "ticket": ticket, "device_id": device, "connection": connection, "cursors": {channel: seq},
            }).to_string();
            if let Err(bad) = frame_in(&text) {
                prop_assert!(!bad.code.is_empty() && !bad.message.is_empty());
            }
        }

        #[test]
        fn every_kind_and_time_makes_a_json_frame(kind in any::<String>(), created_at_ms in any::<i64>()) {
            let broken = Message { kind: kind.clone(), created_at_ms, ..sample() };
            if let Ok(encoded) = super::message(&broken) {
                let json: serde_json::Value = serde_json::from_str(&encoded.text).expect("is JSON");
                prop_assert_eq!(json["kind"].as_str(), Some(kind.as_str()));
            }
        }
    }
}

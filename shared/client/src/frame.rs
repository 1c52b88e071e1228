//! Frames as the server sends them.

use crate::model::Message;
use serde::Deserialize;
use serde_json::json;
use std::fmt;
use touchline_ids::SessionId;

/// A frame from the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// The session is authenticated and its route is visible: sync now. Comes again when the session was renewed, and
    /// when its route had been lost.
    Ready {
        /// The session.
        session_id: SessionId,
        /// Seconds between pings.
        heartbeat_s: u64,
        /// Seconds the session may live unless it is renewed.
        expires_in_s: u64,
    },
    /// An entry of a channel's log.
    Message(Message),
    /// The answer to a ping.
    Pong {
        /// How many message frames the server has sent on this session.
        frames: u64,
    },
    /// The gateway goes away: open another socket after this time.
    Reconnect {
        /// Milliseconds to wait.
        after_ms: u64,
    },
    /// The server refused what the client sent.
    Error {
        /// Stable; programs decide by it.
        code: String,
        /// For people.
        message: String,
    },
    /// A frame this client does not know, as it came.
    Unknown(String),
}

#[derive(Deserialize)]
struct Tag {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Known {
    Ready { session_id: SessionId, heartbeat_s: u64, expires_in_s: u64 },
    Pong { frames: u64 },
    Reconnect { after_ms: u64 },
    Error { code: String, message: String },
}

impl Frame {
    /// Reads a frame's text. What this client does not know, or cannot read, stays [`Frame::Unknown`].
    pub fn parse(text: &str) -> Self {
        Self::known(text).unwrap_or_else(|| Self::Unknown(text.to_owned()))
    }

    fn known(text: &str) -> Option<Self> {
        // Nearly every frame, and read twice otherwise.
        if text.starts_with(r#"{"type":"message","#)
            && let Ok(message) = serde_json::from_str(text)
        {
            return Some(Self::Message(message));
        }
        let tag: Tag = serde_json::from_str(text).ok()?;
        if tag.r#type == "message" {
            return serde_json::from_str(text).ok().map(Self::Message);
        }
        Some(match serde_json::from_str(text).ok()? {
            Known::Ready { session_id, heartbeat_s, expires_in_s } => {
                Self::Ready { session_id, heartbeat_s, expires_in_s }
            }
            Known::Pong { frames } => Self::Pong { frames },
            Known::Reconnect { after_ms } => Self::Reconnect { after_ms },
            Known::Error { code, message } => Self::Error { code, message },
        })
    }
}

/// The frame's text, as a server would write it; an unknown one as it came.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = match self {
            Self::Ready { session_id, heartbeat_s, expires_in_s } => {
                json!({"type": "ready", "session_id": session_id, "heartbeat_s": heartbeat_s, "expires_in_s": expires_in_s})
            }
            Self::Message(message) => {
                let mut frame = json!(message);
                frame["type"] = "message".into();
                frame
            }
            Self::Pong { frames } => json!({"type": "pong", "frames": frames}),
            Self::Reconnect { after_ms } => json!({"type": "reconnect", "after_ms": after_ms}),
            Self::Error { code, message } => json!({"type": "error", "code": code, "message": message}),
            Self::Unknown(text) => return f.write_str(text),
        };
        frame.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Cursor;
    use touchline_ids::{ChannelId, Check, MessageId, Seq, UserId};

    #[test]
    fn known_frames_are_typed_and_their_unknown_fields_ignored() {
        let (channel_id, message_id, sender_id) = (ChannelId::new(), MessageId::new(), UserId::new());
        let text = json!({
            "type": "message", "channel_id": channel_id, "seq": 7, "message_id": message_id, "sender_id": sender_id,
            "kind": "text", "content": {"text": "hello"}, "created_at": "2026-01-02T03:04:05Z", "check": "0ee6b280",
            "later": true,
        });
        let Frame::Message(message) = Frame::parse(&text.to_string()) else { panic!("{text}") };
        assert_eq!((message.channel_id, message.seq, message.check), (channel_id, Seq(7), Check(250_000_000)));
        let cursor = serde_json::to_value(Cursor { channel_id, seq: Seq(7), check: Some(message.check) }).unwrap();
        assert_eq!(cursor["check"], "0ee6b280");
        assert_eq!(Frame::parse(&format!(" {text}")), Frame::Message(message.clone()));
        assert_eq!(Frame::parse(&Frame::Message(message.clone()).to_string()), Frame::Message(message));
        assert_eq!(Frame::parse(r#"{"type":"pong","frames":3,"x":1}"#), Frame::Pong { frames: 3 });
        assert_eq!(Frame::parse(r#"{"type":"reconnect","after_ms":250}"#), Frame::Reconnect { after_ms: 250 });
    }

    #[test]
    fn what_is_not_known_is_kept() {
        for text in [r#"{"type":"typing"}"#, "[]", "", r#"{"type":"message"}"#] {
            assert_eq!(Frame::parse(text), Frame::Unknown(text.into()));
        }
    }
}

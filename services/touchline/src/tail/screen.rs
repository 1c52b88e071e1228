//! Messages as lines for a terminal.

use crate::account::Account;
use serde_json::Value;
use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, Write as _},
};
use touchline_client::{Frame, Message};
use touchline_ids::{ChannelId, UserId};

/// Prints messages, with the names of channels and people.
#[derive(Debug)]
pub(crate) struct Screen {
    json: bool,
    /// The only channel to show: its id or name.
    only: Option<String>,
    channels: HashMap<ChannelId, String>,
    people: HashMap<UserId, String>,
}

impl Screen {
    pub(crate) fn new(json: bool, only: Option<String>) -> Self {
        Self { json, only, channels: HashMap::new(), people: HashMap::new() }
    }

    /// Prints a message as a line, or as the frame it came in.
    pub(crate) async fn show(&mut self, account: &mut Account, message: &Message) -> io::Result<()> {
        self.learn(account, message).await;
        let channel = message.channel_id;
        let name = self.channel(channel);
        if self.only.as_ref().is_some_and(|only| *only != name && *only != channel.to_string()) {
            return Ok(());
        }
        let line = if self.json { Frame::Message(message.clone()).to_string() } else { self.line(&name, message) };
        writeln!(io::stdout(), "{line}")
    }

    /// Prints a frame that is no message; only where frames are asked for.
    pub(crate) fn show_frame(&self, text: &str) -> io::Result<()> {
        if self.json { writeln!(io::stdout(), "{text}") } else { Ok(()) }
    }

    /// A channel's name, or its id as long as it has none.
    pub(crate) fn channel(&self, channel: ChannelId) -> String {
        self.channels.get(&channel).cloned().unwrap_or_else(|| channel.to_string())
    }

    /// Asks for the names that are not known yet. A message is shown without them when there is no answer.
    async fn learn(&mut self, account: &mut Account, message: &Message) {
        let channel = message.channel_id;
        if message.kind == "renamed" {
            self.channels.remove(&channel);
        }
        if !self.channels.contains_key(&channel)
            && let Ok(found) = account.call(async |client| client.channel(channel).await).await
        {
            self.channels.insert(channel, found.name);
        }
        let mut people = users_in(&message.content);
        people.push(message.sender_id);
        if people.iter().any(|user| !self.people.contains_key(user))
            && let Ok(members) = account.call(async |client| client.members(channel).await).await
        {
            self.people.extend(members.into_iter().map(|member| (member.user_id, member.handle)));
        }
    }

    fn line(&self, channel: &str, message: &Message) -> String {
        let time = message.created_at.get(11..19).unwrap_or(&message.created_at);
        let sender = self.person(&message.sender_id);
        let people = || {
            let names: Vec<_> = users_in(&message.content).iter().map(|user| self.person(user)).collect();
            names.join(", ")
        };
        let text = |key: &str| message.content.get(key).and_then(Value::as_str).unwrap_or_default();
        let said = match message.kind.as_str() {
            "text" => match &message.content {
                Value::String(text) => format!("{sender}: {text}"),
                object => format!("{sender}: {object}"),
            },
            "created" => format!("* {sender} made the channel, with {}", people()),
            "joined" => format!("* {sender} added {}", people()),
            "left" if users_in(&message.content).contains(&message.sender_id) => format!("* {sender} left"),
            "left" => format!("* {sender} removed {}", people()),
            "renamed" => format!("* {sender} named the channel {}", text("name")),
            "role_changed" => format!("* {sender} made {} {}", people(), text("role")),
            other => format!("* {sender}: {other} {}", message.content),
        };
        plain(&format!("{time} {channel} {said}"))
    }

    fn person(&self, user: &UserId) -> String {
        self.people.get(user).cloned().unwrap_or_else(|| user.to_string())
    }
}

fn users_in(content: &Value) -> Vec<UserId> {
    let one = content.get("user_id").into_iter();
    let many = content.get("user_ids").and_then(Value::as_array).into_iter().flatten();
    one.chain(many).filter_map(|id| id.as_str()?.parse().ok()).collect()
}

/// Without control characters: what somebody sent must not move the cursor or colour the terminal.
fn plain(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use touchline_ids::{Check, MessageId, Seq};

    fn screen(people: &[(UserId, &str)]) -> Screen {
        let mut screen = Screen::new(false, None);
        screen.people = people.iter().map(|(user, handle)| (*user, (*handle).to_owned())).collect();
        screen
    }

    fn message(sender_id: UserId, kind: &str, content: Value) -> Message {
        Message {
            channel_id: ChannelId::new(),
            seq: Seq(1),
            message_id: MessageId::new(),
            sender_id,
            kind: kind.into(),
            content,
            created_at: "2026-01-02T03:04:05.678Z".into(),
            check: Check(0),
            prev: None,
        }
    }

    #[test]
    fn a_line_says_when_where_who_and_what() {
        let (alice, bob) = (UserId::new(), UserId::new());
        let screen = screen(&[(alice, "alice"), (bob, "bob")]);
        let line = |kind: &str, content: Value| screen.line("general", &message(alice, kind, content));
        assert_eq!(line("text", json!("hello")), "03:04:05 general alice: hello");
        assert_eq!(line("text", json!({"a": 1})), r#"03:04:05 general alice: {"a":1}"#);
        assert_eq!(line("joined", json!({"user_ids": [bob]})), "03:04:05 general * alice added bob");
        assert_eq!(line("left", json!({"user_id": bob})), "03:04:05 general * alice removed bob");
        assert_eq!(line("left", json!({"user_id": alice})), "03:04:05 general * alice left");
        assert_eq!(line("edited", json!({})), "03:04:05 general * alice: edited {}");
    }

    #[test]
    fn nobody_reaches_the_terminal_through_a_message() {
        let alice = UserId::new();
        let line = screen(&[]).line("g\u{1b}]0;x\u{7}", &message(alice, "text", json!("a\r\n\u{1b}[2Jb\u{9b}31m")));
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

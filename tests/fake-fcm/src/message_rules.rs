//! What FCM itself asks of a message that has the right shape.

use crate::{answers, message_shape::seconds, request::Reply};
use serde_json::{Map, Value};

/// Bytes of a message, and of one to a topic.
const SIZE: usize = 4_096;
const TOPIC_SIZE: usize = 2_048;
/// Seconds FCM keeps a message at most.
const LONGEST_TTL: f64 = 2_419_200.0;
const TARGETS: [&str; 4] = ["token", "topic", "condition", "fid"];
/// Bytes of `apns-collapse-id`.
const COLLAPSE_ID: usize = 64;

/// Whether FCM takes this message (in snake_case).
///
/// # Errors
/// Its answer when not.
pub(crate) fn check(message: &Map<String, Value>) -> Result<(), Reply> {
    target(message)?;
    for path in [&["data"][..], &["android", "data"], &["webpush", "data"]] {
        reserved_keys(message, path)?;
    }
    android(message)?;
    apns(message)?;
    webpush(message)?;
    size(message)
}

fn target(message: &Map<String, Value>) -> Result<(), Reply> {
    let given: Vec<&str> = TARGETS.into_iter().filter(|target| message.contains_key(*target)).collect();
    match given[..] {
        [] => Err(answers::sample(400, answers::NO_RECIPIENT)),
        [one] => {
            let text = message[one].as_str().unwrap_or_default();
            let topic = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
            match one {
                "token" | "fid" if text.is_empty() => Err(answers::sample(400, answers::BAD_TOKEN)),
                "topic" if text.is_empty() || !text.bytes().all(topic) => {
                    Err(invalid("message.topic", "Invalid topic name"))
                }
                _ => Ok(()),
            }
        }
        [_, second, ..] => {
            let text = format!(
                "Invalid value at 'message' (oneof), oneof field 'target' is already set. Cannot set '{second}'"
            );
            Err(answers::violation("message", &text))
        }
    }
}

fn reserved_keys(message: &Map<String, Value>, path: &[&str]) -> Result<(), Reply> {
    let reserved = |key: &str| {
        key == "from" || key == "message_type" || key.starts_with("google") || key.starts_with("gcm") || key.is_empty()
    };
    match map(message, path).and_then(|data| data.keys().find(|key| reserved(key))) {
        Some(key) => {
            let field = format!("message.{}", path.join("."));
            Err(invalid(&field, &format!("Invalid data payload key: {key}")))
        }
        None => Ok(()),
    }
}

fn android(message: &Map<String, Value>) -> Result<(), Reply> {
    let Some(android) = map(message, &["android"]) else { return Ok(()) };
    if let Some(ttl) = android.get("ttl").and_then(seconds)
        && !(0.0..=LONGEST_TTL).contains(&ttl)
    {
        return Err(invalid("message.android.ttl", "Invalid ttl: it must be between 0s and 2419200s"));
    }
    let notification = map(android, &["notification"]);
    let color = notification.and_then(|notification| notification.get("color")).and_then(Value::as_str);
    let is_color = |text: &str| {
        text.strip_prefix('#').is_some_and(|hex| hex.len() == 6 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    match color {
        Some(color) if !is_color(color) => {
            Err(invalid("message.android.notification.color", "Invalid color: it must be of the form #rrggbb"))
        }
        _ => Ok(()),
    }
}

fn apns(message: &Map<String, Value>) -> Result<(), Reply> {
    let Some(apns) = map(message, &["apns"]) else { return Ok(()) };
    if let Some(payload) = apns.get("payload")
        && payload.to_string().len() > SIZE
    {
        return Err(answers::sample(400, answers::TOO_BIG));
    }
    let Some(headers) = map(apns, &["headers"]) else { return Ok(()) };
    let header = |name: &str| headers.get(name).and_then(Value::as_str);
    let wrong = |name: &str| Err(invalid("message.apns.headers", &format!("Invalid APNs header: {name}")));
    let priority = header("apns-priority");
    if priority.is_some_and(|priority| !["1", "5", "10"].contains(&priority)) {
        return wrong("apns-priority");
    }
    // Apple refuses a background push of any other priority; FCM's own default is 10.
    if header("apns-push-type") == Some("background") && priority != Some("5") {
        return wrong("apns-priority");
    }
    if header("apns-expiration").is_some_and(|time| time.parse::<u64>().is_err()) {
        return wrong("apns-expiration");
    }
    if header("apns-collapse-id").is_some_and(|id| id.len() > COLLAPSE_ID) {
        return wrong("apns-collapse-id");
    }
    Ok(())
}

fn webpush(message: &Map<String, Value>) -> Result<(), Reply> {
    let Some(webpush) = map(message, &["webpush"]) else { return Ok(()) };
    if let Some(link) = map(webpush, &["fcm_options"]).and_then(|options| options.get("link")).and_then(Value::as_str)
        && !link.starts_with("https://")
    {
        return Err(invalid("message.webpush.fcm_options.link", "Invalid link: it must be an https URL"));
    }
    let ttl = map(webpush, &["headers"]).and_then(|headers| headers.get("TTL")).and_then(Value::as_str);
    match ttl {
        Some(ttl) if ttl.parse::<u64>().is_err() => Err(invalid("message.webpush.headers", "Invalid TTL")),
        _ => Ok(()),
    }
}

/// Keys and values of the data and the text of the notification, as each platform would get them.
fn size(message: &Map<String, Value>) -> Result<(), Reply> {
    let limit = if message.contains_key("topic") { TOPIC_SIZE } else { SIZE };
    let data = |path: &[&str]| map(message, path).map(map_bytes);
    let text = |path: &[&str]| map(message, path).map_or(0, |fields| fields.values().map(text_bytes).sum());
    let base: usize = data(&["data"]).unwrap_or(0);
    let notification: usize = text(&["notification"]);
    let android = data(&["android", "data"]).unwrap_or(base) + notification.max(text(&["android", "notification"]));
    let webpush = data(&["webpush", "data"]).unwrap_or(base) + notification.max(text(&["webpush", "notification"]));
    if (base + notification).max(android).max(webpush) > limit {
        return Err(answers::sample(400, answers::TOO_BIG));
    }
    Ok(())
}

fn map_bytes(fields: &Map<String, Value>) -> usize {
    fields.iter().map(|(key, value)| key.len() + text_bytes(value)).sum()
}

fn text_bytes(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

fn map<'m>(message: &'m Map<String, Value>, path: &[&str]) -> Option<&'m Map<String, Value>> {
    path.iter().try_fold(message, |object, name| object.get(*name)?.as_object())
}

fn invalid(field: &str, description: &str) -> Reply {
    answers::invalid(field, description)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(message: &Value) -> Option<String> {
        match check(message.as_object().unwrap()) {
            Ok(()) => None,
            Err(Reply::Whole(answer)) => Some(String::from_utf8(answer.body.to_vec()).unwrap()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_message_of_the_contract_is_taken() {
        let message = json!({"token":"T","data":{"v":"1","k":"msg","ch":"123","seq":"4711","n":"3"},
            "android":{"priority":"HIGH","ttl":"86400s"},
            "apns":{"headers":{"apns-priority":"10","apns-push-type":"alert","apns-collapse-id":"ch-123",
                "apns-expiration":"1790000000"},
                "payload":{"aps":{"alert":{"title":"New message","body":"Open to read"},"badge":7,"sound":"default",
                    "thread-id":"ch-123","mutable-content":1}}}});
        assert_eq!(refusal(&message), None);
        assert_eq!(refusal(&json!({"fid": "F"})), None);
        assert_eq!(refusal(&json!({"topic": "news_24"})), None);
    }

    #[test]
    fn what_breaks_a_rule_is_refused_with_the_field() {
        let android = |ttl: &str| json!({"token": "t", "android": {"ttl": ttl}});
        let apns = |headers: Value| json!({"token": "t", "apns": {"headers": headers}});
        let cases = [
            (json!({}), "Recipient of the message is not set."),
            (json!({"token": "t", "topic": "x"}), "oneof field 'target' is already set"),
            (json!({"token": "t", "fid": "f"}), "Cannot set 'fid'"),
            (json!({"token": ""}), "not a valid FCM registration token"),
            (json!({"topic": "/topics/x"}), "message.topic"),
            (json!({"token": "t", "data": {"from": "x"}}), "message.data"),
            (json!({"token": "t", "data": {"message_type": "x"}}), "message_type"),
            (json!({"token": "t", "data": {"google.x": "x"}}), "google.x"),
            (json!({"token": "t", "android": {"data": {"gcm_x": "x"}}}), "message.android.data"),
            (android("2419201s"), "message.android.ttl"),
            (android("-1s"), "message.android.ttl"),
            (json!({"token": "t", "android": {"notification": {"color": "red"}}}), "color"),
            (apns(json!({"apns-priority": "7"})), "apns-priority"),
            (apns(json!({"apns-push-type": "background", "apns-priority": "10"})), "apns-priority"),
            (apns(json!({"apns-expiration": "soon"})), "apns-expiration"),
            (apns(json!({"apns-collapse-id": "x".repeat(65)})), "apns-collapse-id"),
            (json!({"token": "t", "webpush": {"fcm_options": {"link": "http://x"}}}), "link"),
        ];
        for (message, what) in cases {
            let refusal = refusal(&message).unwrap_or_default();
            assert!(refusal.contains(what), "{message}: {refusal}");
        }
        assert_eq!(refusal(&android("2419200s")), None);
    }

    #[test]
    fn four_kibibytes_are_taken_and_one_byte_more_is_not() {
        let data = |bytes: usize| json!({"token": "t", "data": {"k": "x".repeat(bytes - 1)}});
        assert_eq!(refusal(&data(4_096)), None);
        assert_eq!(refusal(&data(4_097)).as_deref(), Some(answers::TOO_BIG));
        let title = json!({"token": "t", "data": {"k": "x".repeat(4_090)}, "notification": {"title": "123456"}});
        assert_eq!(refusal(&title).as_deref(), Some(answers::TOO_BIG));
        let topic = json!({"topic": "t", "data": {"k": "x".repeat(2_048)}});
        assert_eq!(refusal(&topic).as_deref(), Some(answers::TOO_BIG));
        let payload = json!({"token": "t", "apns": {"payload": {"aps": {"alert": "x".repeat(4_096)}}}});
        assert_eq!(refusal(&payload).as_deref(), Some(answers::TOO_BIG));
    }
}

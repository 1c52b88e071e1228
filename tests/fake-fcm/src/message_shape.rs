//! The fields of a message and what each may hold, as Google's front end checks them before FCM sees the message.
//! Names come in snake_case or in camelCase; `null` is the same as absent.

use crate::{answers, request::Reply};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// What a field may hold.
enum Shape {
    Text,
    Flag,
    Number,
    /// `"3.5s"`.
    Seconds,
    Choice(&'static [&'static str]),
    Texts,
    ManySeconds,
    /// Keys are the sender's own, values are text.
    TextMap,
    /// Any JSON object.
    Object,
    Fields(&'static [Field]),
}

type Field = (&'static str, Shape);

use Shape::{Choice, Fields, Flag, ManySeconds, Number, Object, Seconds, Text, TextMap, Texts};

static REQUEST: &[Field] = &[("validate_only", Flag), ("message", Fields(MESSAGE))];

static MESSAGE: &[Field] = &[
    ("name", Text),
    ("token", Text),
    ("topic", Text),
    ("condition", Text),
    ("fid", Text),
    ("data", TextMap),
    ("notification", Fields(&[("title", Text), ("body", Text), ("image", Text)])),
    ("android", Fields(ANDROID)),
    ("apns", Fields(APNS)),
    ("webpush", Fields(WEBPUSH)),
    ("fcm_options", Fields(LABEL)),
];

static LABEL: &[Field] = &[("analytics_label", Text)];

static ANDROID: &[Field] = &[
    ("collapse_key", Text),
    ("priority", Choice(&["NORMAL", "HIGH"])),
    ("ttl", Seconds),
    ("restricted_package_name", Text),
    ("data", TextMap),
    ("notification", Fields(ANDROID_NOTIFICATION)),
    ("fcm_options", Fields(LABEL)),
    ("direct_boot_ok", Flag),
    ("bandwidth_constrained_ok", Flag),
    ("restricted_satellite_ok", Flag),
];

static ANDROID_NOTIFICATION: &[Field] = &[
    ("title", Text),
    ("body", Text),
    ("icon", Text),
    ("color", Text),
    ("sound", Text),
    ("tag", Text),
    ("click_action", Text),
    ("body_loc_key", Text),
    ("body_loc_args", Texts),
    ("title_loc_key", Text),
    ("title_loc_args", Texts),
    ("channel_id", Text),
    ("ticker", Text),
    ("sticky", Flag),
    ("event_time", Text),
    ("local_only", Flag),
    (
        "notification_priority",
        Choice(&[
            "PRIORITY_UNSPECIFIED",
            "PRIORITY_MIN",
            "PRIORITY_LOW",
            "PRIORITY_DEFAULT",
            "PRIORITY_HIGH",
            "PRIORITY_MAX",
        ]),
    ),
    ("default_sound", Flag),
    ("default_vibrate_timings", Flag),
    ("default_light_settings", Flag),
    ("vibrate_timings", ManySeconds),
    ("visibility", Choice(&["VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"])),
    ("notification_count", Number),
    ("light_settings", Object),
    ("image", Text),
    ("bypass_proxy_notification", Flag),
    ("proxy", Choice(&["PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"])),
];

static APNS: &[Field] = &[
    ("headers", TextMap),
    ("payload", Object),
    ("fcm_options", Fields(&[("analytics_label", Text), ("image", Text)])),
    ("live_activity_token", Text),
];

static WEBPUSH: &[Field] = &[
    ("headers", TextMap),
    ("data", TextMap),
    ("notification", Object),
    ("fcm_options", Fields(&[("link", Text), ("analytics_label", Text)])),
];

/// The request in snake_case throughout, if it has the shape of one.
///
/// # Errors
/// The 400 that says which field has not.
pub(crate) fn read(request: &Value) -> Result<Map<String, Value>, Reply> {
    fields(request, REQUEST, "")
}

fn fields(value: &Value, known: &[Field], path: &str) -> Result<Map<String, Value>, Reply> {
    let Value::Object(object) = value else {
        return Err(wrong_type(path, "TYPE_MESSAGE", value));
    };
    let mut read = Map::new();
    for (name, value) in object {
        let snake = snake_case(name);
        let Some((_, shape)) = known.iter().find(|(known, _)| *known == snake) else {
            return Err(unknown_name(path, name));
        };
        if value.is_null() {
            continue;
        }
        let path = if path.is_empty() { snake.to_string() } else { format!("{path}.{snake}") };
        let value = of_shape(value, shape, &path)?;
        if read.insert(snake.into_owned(), value).is_some() {
            return Err(unknown_name(&path, name));
        }
    }
    Ok(read)
}

fn of_shape(value: &Value, shape: &Shape, path: &str) -> Result<Value, Reply> {
    let right = match shape {
        Text => value.is_string(),
        Flag => value.is_boolean(),
        Number => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        Seconds => seconds(value).is_some(),
        Choice(choices) => value.as_str().is_some_and(|text| choices.iter().any(|one| one.eq_ignore_ascii_case(text))),
        Object => value.is_object(),
        Texts => each(value, path, &Text)?,
        ManySeconds => each(value, path, &Seconds)?,
        TextMap => text_map(value, path)?,
        Fields(known) => return fields(value, known, path).map(Value::Object),
    };
    if right { Ok(value.clone()) } else { Err(wrong_type(path, type_name(shape), value)) }
}

fn each(value: &Value, path: &str, shape: &Shape) -> Result<bool, Reply> {
    let Value::Array(values) = value else { return Ok(false) };
    for (number, value) in values.iter().enumerate() {
        of_shape(value, shape, &format!("{path}[{number}]"))?;
    }
    Ok(true)
}

fn text_map(value: &Value, path: &str) -> Result<bool, Reply> {
    let Value::Object(map) = value else { return Ok(false) };
    for (number, value) in map.values().enumerate() {
        if !value.is_string() {
            return Err(wrong_type(&format!("{path}[{number}].value"), type_name(&Text), value));
        }
    }
    Ok(true)
}

fn type_name(shape: &Shape) -> &'static str {
    match shape {
        Text => "TYPE_STRING",
        Flag => "TYPE_BOOL",
        Number => "TYPE_INT32",
        Choice(_) => "TYPE_ENUM",
        Seconds => "type.googleapis.com/google.protobuf.Duration",
        Object => "type.googleapis.com/google.protobuf.Struct",
        Texts | ManySeconds => "TYPE_REPEATED",
        TextMap => "TYPE_MAP",
        Fields(_) => "TYPE_MESSAGE",
    }
}

/// A duration in JSON: `"3.5s"`, in seconds.
pub(crate) fn seconds(value: &Value) -> Option<f64> {
    let number = value.as_str()?.strip_suffix('s')?;
    let plain = number.strip_prefix('-').unwrap_or(number);
    let digits = plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if digits { number.parse().ok() } else { None }
}

fn snake_case(name: &str) -> Cow<'_, str> {
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    Cow::Owned(snake)
}

fn unknown_name(path: &str, name: &str) -> Reply {
    let at = if path.is_empty() { String::new() } else { format!(" at '{path}'") };
    let text = format!("Invalid JSON payload received. Unknown name \"{name}\"{at}: Cannot find field.");
    answers::violation(path, &text)
}

fn wrong_type(path: &str, type_name: &str, value: &Value) -> Reply {
    let shown = match value {
        Value::String(text) => format!("\"{text}\""),
        other => other.to_string(),
    };
    answers::violation(path, &format!("Invalid value at '{path}' ({type_name}), {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(request: &Value) -> String {
        match read(request) {
            Err(Reply::Whole(answer)) => String::from_utf8(answer.body.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_come_in_both_cases_and_values_are_left_alone() {
        let camel = json!({"validateOnly": true, "message": {"token": "t", "data": {"camelCase": "x"},
            "android": {"collapseKey": "k", "directBootOk": true, "priority": "high"}, "fcmOptions": null}});
        let snake = json!({"validate_only": true, "message": {"token": "t", "data": {"camelCase": "x"},
            "android": {"collapse_key": "k", "direct_boot_ok": true, "priority": "high"}}});
        assert_eq!(Value::Object(read(&camel).unwrap()), snake);
    }

    #[test]
    fn a_number_among_the_data_is_refused_word_for_word() {
        let request = json!({"message": {"token": "t", "data": {"n": 12}}});
        let refused: Value = serde_json::from_str(&refused(&request)).unwrap();
        assert_eq!(refused, serde_json::from_str::<Value>(answers::DATA_NOT_TEXT).unwrap());
    }

    #[test]
    fn unknown_names_and_wrong_types_are_named() {
        let cases = [
            (json!({"message": {"token": "t", "to": "x"}}), r#"Unknown name \"to\" at 'message'"#),
            (json!({"massage": {}}), r#"Unknown name \"massage\": Cannot find field."#),
            (json!({"message": {"android": {"ttl": 5}}}), "message.android.ttl"),
            (json!({"message": {"android": {"ttl": "5"}}}), "google.protobuf.Duration"),
            (json!({"message": {"android": {"priority": "URGENT"}}}), "TYPE_ENUM"),
            (json!({"message": {"apns": {"headers": {"apns-priority": 10}}}}), "message.apns.headers[0].value"),
            (json!({"message": {"android": {"collapse_key": "a", "collapseKey": "b"}}}), "Unknown name"),
            (json!({"message": "hello"}), "TYPE_MESSAGE"),
            (json!([]), "TYPE_MESSAGE"),
        ];
        for (request, what) in cases {
            assert!(refused(&request).contains(what), "{request}: {}", refused(&request));
        }
    }

    #[test]
    fn a_duration_is_digits_and_an_s() {
        let parse = |text: &str| seconds(&json!(text));
        assert_eq!([parse("86400s"), parse("3.5s"), parse("-1s")], [Some(86_400.0), Some(3.5), Some(-1.0)]);
        assert_eq!([parse("s"), parse("1e3s"), parse("infs"), parse("1m")], [None; 4]);
    }
}

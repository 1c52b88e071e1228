//! What FCM is asked to deliver: the JSON of one push.
//!
//! On Android and the web it is data only, so that the app (the service worker) draws what it wants: notifications that
//! FCM draws are collapsed, and throttled after 20 in a row. There is no collapse key either: FCM holds four per device
//! at most. On Apple's devices the system draws, and the app's extension may fetch the text (`mutable-content`).

use crate::{Preview, Push};
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use touchline_storage::{Platform, TargetKind};

/// The most bytes a message may have as JSON, its target aside. FCM refuses more than 4,096 and does not say what it
/// counts.
pub const MOST_BYTES: usize = 3_500;
/// The longest a push service keeps a message.
const LONGEST_TTL: Duration = Duration::from_secs(28 * 86_400);
/// Of these the title gets so many at most, as JSON.
const MOST_TITLE_BYTES: usize = 400;
/// What is shown where no text may be.
const TITLE: &str = "New message";
const BODY: &str = "Open to read";
/// Joins what follows to what stands before, such as the parts of an emoji.
const JOINER: char = '\u{200d}';
/// Where text was cut.
const CUT: &str = "…";

/// The body of the request that sends `push`, at `now`.
pub fn compose(push: &Push, now: SystemTime) -> Vec<u8> {
    let preview = push.preview.as_ref().map(|preview| fit(push, preview, now));
    let mut message = without_target(push, preview.as_ref(), now);
    let target = match push.target_kind {
        TargetKind::Token => "token",
        TargetKind::Fid => "fid",
    };
    message.insert(target.into(), Value::from(push.token.as_str()));
    json!({ "message": message }).to_string().into_bytes()
}

/// The preview, cut to what a message can carry.
fn fit(push: &Push, preview: &Preview, now: SystemTime) -> Preview {
    let title = cut(&preview.title, MOST_TITLE_BYTES);
    let mut fitting = Preview { title, body: String::new() };
    let rest = MOST_BYTES.saturating_sub(json_bytes(&without_target(push, Some(&fitting), now)));
    fitting.body = cut(&preview.body, rest);
    fitting
}

/// The message but for its target. Only what the device's platform reads is in it.
fn without_target(push: &Push, preview: Option<&Preview>, now: SystemTime) -> Map<String, Value> {
    let ttl = push.expires.duration_since(now).unwrap_or_default().min(LONGEST_TTL).as_secs();
    let channel = push.channel.to_string();
    // FCM takes nothing but strings.
    let mut data = json!({
        "v": "1", "k": "msg", "ch": channel, "seq": push.seq.to_string(), "n": push.count.to_string(),
    });
    if push.mentioned {
        data["mention"] = "1".into();
    }
    // On Apple's devices the alert carries them, and the app's extension reads it there.
    if let (Some(preview), Platform::Android | Platform::Web) = (preview, push.platform) {
        data["title"] = preview.title.as_str().into();
        data["body"] = preview.body.as_str().into();
    }
    let (name, block) = match push.platform {
        Platform::Android => ("android", json!({ "priority": "HIGH", "ttl": format!("{ttl}s") })),
        Platform::Ios => ("apns", apns(push, preview, &channel, now + Duration::from_secs(ttl))),
        Platform::Web => ("webpush", json!({ "headers": { "TTL": ttl.to_string(), "Urgency": "high" } })),
    };
    Map::from_iter([("data".to_owned(), data), (name.to_owned(), block)])
}

fn apns(push: &Push, preview: Option<&Preview>, channel: &str, expires: SystemTime) -> Value {
    let (title, body) = preview.map_or((TITLE, BODY), |preview| (&preview.title, &preview.body));
    let expires = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut aps = json!({
        "alert": { "title": title, "body": body },
        "sound": "default",
        "thread-id": channel,
        "mutable-content": 1,
    });
    if let Some(badge) = push.badge {
        aps["badge"] = badge.into();
    }
    json!({
        "headers": {
            "apns-push-type": "alert",
            "apns-priority": "10",
            "apns-expiration": expires.to_string(),
            "apns-collapse-id": channel,
        },
        "payload": { "aps": aps },
    })
}

/// The text itself, or as much of its beginning as `most` bytes of JSON hold, with a mark that it was cut. No
/// character is cut in two.
fn cut(text: &str, most: usize) -> String {
    // Two quotation marks are counted with the empty text already.
    let fits = |text: &str| json_bytes(text) - 2 <= most;
    // JSON has no fewer bytes than the text.
    if text.len() <= most && fits(text) {
        return text.to_owned();
    }
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= most).collect();
    let shortened =
        |end: usize| format!("{}{CUT}", text[..end].trim_end_matches(|c: char| c.is_whitespace() || c == JOINER));
    let fitting = ends.partition_point(|end| fits(&shortened(*end)));
    fitting.checked_sub(1).map(|last| shortened(ends[last])).unwrap_or_default()
}

fn json_bytes(value: &(impl serde::Serialize + ?Sized)) -> usize {
    // Text and maps of text always serialise.
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use touchline_ids::{ChannelId, Seq, UserId};

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_789_913_600_500)
    }

    fn push(platform: Platform) -> Push {
        Push {
            user: UserId::new(),
            device: "phone".parse().unwrap(),
            platform,
            target_kind: TargetKind::Token,
            token: "T".into(),
            channel: "01234567-89ab-7def-8123-456789abcdef".parse::<ChannelId>().unwrap(),
            seq: Seq(4_711),
            count: 3,
            mentioned: false,
            badge: Some(7),
            preview: None,
            expires: now() + Duration::from_millis(86_400_900),
        }
    }

    fn composed(push: &Push) -> Value {
        serde_json::from_slice(&compose(push, now())).unwrap()
    }

    const CHANNEL: &str = "01234567-89ab-7def-8123-456789abcdef";

    #[test]
    fn an_android_device_gets_data_of_high_priority() {
        let expected = json!({"message": {
            "token": "T",
            "data": {"v": "1", "k": "msg", "ch": CHANNEL, "seq": "4711", "n": "3"},
            "android": {"priority": "HIGH", "ttl": "86400s"},
        }});
        assert_eq!(composed(&push(Platform::Android)), expected);
    }

    #[test]
    fn an_apple_device_gets_an_alert_with_the_number_for_its_icon() {
        let expected = json!({"message": {
            "token": "T",
            "data": {"v": "1", "k": "msg", "ch": CHANNEL, "seq": "4711", "n": "3"},
            "apns": {
                "headers": {"apns-push-type": "alert", "apns-priority": "10", "apns-expiration": "1790000000",
                    "apns-collapse-id": CHANNEL},
                "payload": {"aps": {"alert": {"title": "New message", "body": "Open to read"}, "badge": 7,
                    "sound": "default", "thread-id": CHANNEL, "mutable-content": 1}},
            },
        }});
        assert_eq!(composed(&push(Platform::Ios)), expected);
        assert!(CHANNEL.len() <= 64, "Apple takes no longer collapse id");
        let unknown = composed(&Push { badge: None, ..push(Platform::Ios) });
        assert!(unknown.pointer("/message/apns/payload/aps/badge").is_none(), "absent leaves the number alone");
    }

    #[test]
    fn a_browser_gets_data_for_its_service_worker() {
        let expected = json!({"message": {
            "token": "T",
            "data": {"v": "1", "k": "msg", "ch": CHANNEL, "seq": "4711", "n": "3"},
            "webpush": {"headers": {"TTL": "86400", "Urgency": "high"}},
        }});
        assert_eq!(composed(&push(Platform::Web)), expected);
    }

    #[test]
    fn an_installation_id_is_another_kind_of_target() {
        let message = composed(&Push { target_kind: TargetKind::Fid, ..push(Platform::Android) });
        assert_eq!(message["message"]["fid"], "T");
        assert!(message["message"].get("token").is_none());
    }

    #[test]
    fn a_mention_and_a_preview_are_told() {
        let preview = Some(Preview { title: "General".into(), body: "Ann: hello".into() });
        let data = composed(&Push { mentioned: true, preview: preview.clone(), ..push(Platform::Android) });
        let data = &data["message"]["data"];
        assert_eq!(
            (&data["mention"], &data["title"], &data["body"]),
            (&json!("1"), &json!("General"), &json!("Ann: hello"))
        );
        let alert = composed(&Push { preview, ..push(Platform::Ios) });
        assert_eq!(
            alert.pointer("/message/apns/payload/aps/alert"),
            Some(&json!({"title": "General", "body": "Ann: hello"}))
        );
    }

    #[test]
    fn what_is_too_old_is_delivered_now_or_never() {
        let old = Push { expires: now() - Duration::from_secs(1), ..push(Platform::Android) };
        assert_eq!(composed(&old)["message"]["android"]["ttl"], "0s");
        let eternal = Push { expires: now() + Duration::from_secs(u32::MAX.into()), ..old };
        assert_eq!(composed(&eternal)["message"]["android"]["ttl"], "2419200s");
    }

    #[test]
    fn text_is_cut_where_it_fits_and_marked() {
        assert_eq!(cut("hello", 5), "hello");
        assert_eq!(cut("hello world", 9), "hello…");
        assert_eq!(cut("hello", 4), "h…");
        assert_eq!(cut("\u{1}\u{1}\u{1}", 9), "\u{1}…", "a control character is six bytes of JSON");
        assert_eq!(cut("ääää", 6), "ä…", "no character is cut in two");
        assert_eq!(cut("hello", 2), "", "not even the mark fits");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn a_long_text_uses_what_there_is() {
        let preview = Some(Preview { title: "t".repeat(1_000), body: "b".repeat(10_000) });
        let message = compose(&Push { preview, ..push(Platform::Android) }, now()).len();
        let around = r#"{"message":}"#.len() + r#""token":"T","#.len();
        assert_eq!(message - around, MOST_BYTES);
    }

    proptest! {
        #[test]
        fn whatever_the_text_the_message_is_small_and_begins_like_it(
            title in "\\PC{0,300}|[\\x00-\\x1f\"\\\\]{0,300}|(\u{1f469}\u{200d}\u{1f680}){0,200}",
            body in any::<String>().prop_flat_map(|some| (Just(some), 0..400_usize)).prop_map(|(some, n)| some.repeat(n)),
            ios in any::<bool>(),
        ) {
            let platform = if ios { Platform::Ios } else { Platform::Android };
            let preview = Some(Preview { title: title.clone(), body: body.clone() });
            let push = Push { preview, mentioned: true, badge: Some(u64::MAX), count: u64::MAX, seq: Seq(i64::MAX), ..push(platform) };
            let mut message = composed(&push);
            let at = if ios { "/message/apns/payload/aps/alert" } else { "/message/data" };
            for (key, text) in [("title", &title), ("body", &body)] {
                let shown = message.pointer(at).unwrap()[key].as_str().unwrap();
                let kept = if shown == text { shown } else { shown.strip_suffix(CUT).unwrap_or(shown) };
                prop_assert!(text.starts_with(kept));
            }
            message["message"].as_object_mut().unwrap().remove("token");
            prop_assert!(message["message"].to_string().len() <= MOST_BYTES);
        }
    }
}

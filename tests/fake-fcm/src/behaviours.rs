//! Ways to answer a message, and how a token's text asks for one.

use crate::{answers, request::Reply};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// What is done to a message that passed every check. In JSON `"ok"`, `{"slow": {"ms": 250}}`,
/// `{"quota": {"retry_after": {"seconds": 7}}}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Behaviour {
    /// Accepted. `ok-*`, and every text that asks for nothing else.
    #[default]
    Ok,
    /// Accepted at once, answered late: who gives up before has been notified all the same. `slow<ms>-*`.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// 404 UNREGISTERED. `unreg-*`.
    Unregistered,
    /// 400, by the message about the registration token. `badtok-*`.
    BadToken,
    /// 400, by a violation that names `message.token`. `badfield-*`.
    BadTokenField,
    /// 403 SENDER_ID_MISMATCH. `mismatch-*`.
    WrongSender,
    /// 401 THIRD_PARTY_AUTH_ERROR. `apnskey-*`.
    PlatformKey,
    /// 403 without a code: the account may not send. `forbidden-*`.
    Forbidden,
    /// 401, as if the access token had expired. `expired-*`.
    Unauthenticated,
    /// 429. `quota-*` (without a Retry-After).
    Quota {
        /// When to come back.
        #[serde(default)]
        retry_after: RetryAfter,
    },
    /// Accepted up to 240 per minute and token, 429 above. `dev429-*`.
    DeviceQuota,
    /// 503. `down-*` (without a Retry-After).
    Unavailable {
        /// When to come back.
        #[serde(default)]
        retry_after: RetryAfter,
    },
    /// 503 with a probability, else accepted. `flaky<p>-*`, such as `flaky0.3-x`; above 1 it is a percentage.
    Flaky {
        /// 0 to 1.
        p: f64,
    },
    /// 500 INTERNAL. `internal-*`.
    Internal,
    /// 502 with a page of HTML. `html502-*`.
    Html502,
    /// 500 with nothing. `empty500-*`.
    Empty500,
    /// Never answered, never accepted. `hang-*`.
    Hang,
    /// The head of a good answer, then the stream is reset; never accepted. `reset-*`.
    Reset,
    /// Accepted, then the stream is reset without a word: the sender cannot know. `accept-then-reset-*`.
    AcceptThenReset,
    /// REFUSED_STREAM: never looked at. `refuse-*`.
    Refuse,
    /// Any other answer.
    Other {
        /// 200 to 599. With 200 it counts as accepted.
        status: u16,
        /// Sent as JSON, whatever it is.
        body: String,
    },
}

/// An answer's `Retry-After`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// None.
    #[default]
    Absent,
    /// So many seconds, as a number.
    Seconds(u32),
    /// So many seconds, as an HTTP date; whole seconds, rounded up.
    Date(u32),
}

impl RetryAfter {
    /// How long it asks to wait.
    pub fn seconds(self) -> Option<u32> {
        match self {
            Self::Absent => None,
            Self::Seconds(seconds) | Self::Date(seconds) => Some(seconds),
        }
    }

    /// Writes it into an answer sent at `now`.
    pub(crate) fn onto(self, reply: &mut Reply, now: SystemTime) {
        let text = match self {
            Self::Absent => return,
            Self::Seconds(seconds) => seconds.to_string(),
            // A date has no fractions: one second more, so that it never names a time too early.
            Self::Date(seconds) => httpdate::fmt_http_date(now + Duration::from_secs(u64::from(seconds) + 1)),
        };
        if let Ok(value) = HeaderValue::try_from(text) {
            reply.header(header::RETRY_AFTER, value);
        }
    }
}

impl Behaviour {
    /// What a token's (or fid's) text asks for: the part before its first `-`.
    pub fn of_token(token: &str) -> Self {
        if token.starts_with("accept-then-reset-") {
            return Self::AcceptThenReset;
        }
        let Some((word, _)) = token.split_once('-') else { return Self::Ok };
        let none = RetryAfter::Absent;
        match word {
            "unreg" => Self::Unregistered,
            "badtok" => Self::BadToken,
            "badfield" => Self::BadTokenField,
            "mismatch" => Self::WrongSender,
            "apnskey" => Self::PlatformKey,
            "forbidden" => Self::Forbidden,
            "expired" => Self::Unauthenticated,
            "quota" => Self::Quota { retry_after: none },
            "dev429" => Self::DeviceQuota,
            "down" => Self::Unavailable { retry_after: none },
            "internal" => Self::Internal,
            "html502" => Self::Html502,
            "empty500" => Self::Empty500,
            "hang" => Self::Hang,
            "reset" => Self::Reset,
            "refuse" => Self::Refuse,
            word => Self::with_number(word).unwrap_or_default(),
        }
    }

    fn with_number(word: &str) -> Option<Self> {
        if let Some(ms) = word.strip_prefix("slow") {
            return Some(Self::Slow { ms: ms.parse().ok()? });
        }
        let p: f64 = word.strip_prefix("flaky")?.parse().ok()?;
        Some(Self::Flaky { p: if p > 1.0 { p / 100.0 } else { p } })
    }

    /// Whether a message so treated counts as delivered. `luck` is a random number from 0 to 1; `device_has_quota` is
    /// what is left for its token.
    pub(crate) fn accepts(&self, luck: f64, device_has_quota: bool) -> bool {
        match self {
            Self::Ok | Self::Slow { .. } | Self::AcceptThenReset => true,
            Self::DeviceQuota => device_has_quota,
            Self::Flaky { p } => luck >= *p,
            Self::Other { status, .. } => *status == 200,
            Self::Unregistered
            | Self::BadToken
            | Self::BadTokenField
            | Self::WrongSender
            | Self::PlatformKey
            | Self::Forbidden
            | Self::Unauthenticated
            | Self::Quota { .. }
            | Self::Unavailable { .. }
            | Self::Internal
            | Self::Html502
            | Self::Empty500
            | Self::Hang
            | Self::Reset
            | Self::Refuse => false,
        }
    }

    /// When it asks to come back.
    pub(crate) fn retry_after(&self) -> RetryAfter {
        match self {
            Self::Quota { retry_after } | Self::Unavailable { retry_after } => *retry_after,
            _ => RetryAfter::Absent,
        }
    }

    /// The answer when it does not accept; None when it has no answer of its own.
    pub(crate) fn refusal(&self, project: &str) -> Option<Reply> {
        Some(match self {
            Self::Unregistered => answers::sample(404, answers::UNREGISTERED),
            Self::BadToken => answers::sample(400, answers::BAD_TOKEN),
            Self::BadTokenField => answers::sample(400, answers::BAD_TOKEN_FIELD),
            Self::WrongSender => answers::sample(403, answers::WRONG_SENDER),
            Self::PlatformKey => answers::sample(401, answers::PLATFORM_KEY),
            Self::Forbidden => answers::forbidden(project),
            Self::Unauthenticated => answers::sample(401, answers::UNAUTHENTICATED),
            Self::Quota { .. } | Self::DeviceQuota => answers::sample(429, answers::QUOTA_EXCEEDED),
            Self::Unavailable { .. } | Self::Flaky { .. } => answers::sample(503, answers::UNAVAILABLE),
            Self::Internal => answers::sample(500, answers::INTERNAL),
            Self::Html502 => answers::page(502, answers::HTML_502),
            Self::Empty500 => answers::page(500, ""),
            Self::Hang => Reply::Never,
            Self::Reset => Reply::HeadThenReset,
            Self::Refuse => Reply::Refuse,
            Self::Other { status, body } => Reply::json(*status, body.clone().into()),
            Self::Ok | Self::Slow { .. } | Self::AcceptThenReset => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokens_text_says_how_it_is_answered() {
        let cases = [
            ("ok-1", Behaviour::Ok),
            ("fXyz:APA91b-real-looking", Behaviour::Ok),
            ("unreg-a", Behaviour::Unregistered),
            ("reset-a", Behaviour::Reset),
            ("accept-then-reset-a", Behaviour::AcceptThenReset),
            ("slow250-a", Behaviour::Slow { ms: 250 }),
            ("flaky0.3-a", Behaviour::Flaky { p: 0.3 }),
            ("flaky30-a", Behaviour::Flaky { p: 0.3 }),
            ("slowly-a", Behaviour::Ok),
            ("hang", Behaviour::Ok),
        ];
        for (token, behaviour) in cases {
            assert_eq!(Behaviour::of_token(token), behaviour, "{token}");
        }
    }

    #[test]
    fn a_behaviour_is_written_in_json_as_a_word_or_an_object() {
        let parse = |text| serde_json::from_str::<Behaviour>(text).unwrap();
        assert_eq!(parse(r#""hang""#), Behaviour::Hang);
        let retry_after = RetryAfter::Date(7);
        assert_eq!(parse(r#"{"quota":{"retry_after":{"date":7}}}"#), Behaviour::Quota { retry_after });
        assert_eq!(parse(r#"{"unavailable":{}}"#), Behaviour::Unavailable { retry_after: RetryAfter::Absent });
    }
}

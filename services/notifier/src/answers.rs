//! What FCM's answers mean, without I/O: for the push ([`Answer`]) and for whoever sends ([`Effect`]).
//!
//! As the official SDKs do it: the code is `errorCode` of the detail of type `FcmError`, wherever it stands; without
//! one it is the error's `status`; without JSON it is the HTTP status. What is told in [`Answer`]s are codes and names
//! of fields only: FCM's messages quote what they complain about.

use crate::{Answer, circuit::Cause, retry_after::retry_after};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

/// How long to wait after a 429 that does not say.
const WAIT_WHEN_TOO_MANY: Duration = Duration::from_secs(60);
/// Longest word of FCM's that we repeat.
const LONGEST_WORD: usize = 80;
/// What FCM says of a token of the wrong form when it names no field.
const BAD_TOKEN: &str = "The registration token is not a valid FCM registration token";

/// What an answer means beyond its push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The service works and knows us.
    Fine,
    /// The service works; we send too much.
    SlowDown,
    /// The service failed, or nobody knows.
    Failing,
    /// The access token is not good any more: take another and send once more.
    AnotherToken,
    /// The service's own key for this platform is wrong, or this device registered under another one.
    PlatformKey,
    /// No push can succeed before an operator mends something.
    Shut(Cause),
    /// Nothing is known of the service: the push did not get as far as its answer.
    Unknown,
}

/// One answer of FCM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// For the push.
    pub answer: Answer,
    /// For the sender.
    pub effect: Effect,
}

#[derive(Deserialize)]
struct Accepted {
    name: String,
}

#[derive(Deserialize)]
struct Envelope {
    error: Error,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Error {
    message: String,
    status: String,
    details: Vec<Detail>,
}

/// Any detail: each kind has its own fields.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Detail {
    #[serde(rename = "@type")]
    kind: String,
    error_code: Option<String>,
    reason: Option<String>,
    field_violations: Vec<Violation>,
    violations: Vec<Violation>,
}

/// Of a field (`BadRequest`) or of a quota (`QuotaFailure`).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Violation {
    field: String,
    subject: String,
}

impl Error {
    /// FCM's own code.
    fn code(&self) -> Option<&str> {
        let ours = self.details.iter().filter(|detail| detail.kind.ends_with("google.firebase.fcm.v1.FcmError"));
        ours.filter_map(|detail| detail.error_code.as_deref()).next()
    }

    fn fields(&self) -> impl Iterator<Item = &str> {
        self.details.iter().flat_map(|detail| &detail.field_violations).map(|violation| violation.field.as_str())
    }

    /// Whether it is the token (or installation id) that is wrong, and not what we made of the message.
    fn is_about_the_target(&self) -> bool {
        self.fields().any(|field| matches!(field, "message.token" | "message.fid"))
            || self.message.trim_end_matches('.') == BAD_TOKEN
    }

    /// Whether it is one device that gets too much, and not the project that sends too much.
    fn is_about_one_device(&self) -> bool {
        let mut quotas = self.details.iter().flat_map(|detail| &detail.violations);
        quotas.any(|quota| quota.subject.starts_with("device"))
    }
}

/// Reads an answer that came whole.
pub fn classify(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Verdict {
    if status.is_success() {
        return match serde_json::from_slice::<Accepted>(body) {
            Ok(accepted) => fine(Answer::Accepted { id: word(&accepted.name, 200) }),
            // Accepted, most likely; but a push that comes twice does less harm than one that never comes.
            Err(_) => failing(None, format!("{} without a message's name", status.as_u16())),
        };
    }
    let error = serde_json::from_slice::<Envelope>(body).map(|envelope| envelope.error).unwrap_or_default();
    let why = describe(status, &error);
    let after = retry_after(headers, now);
    let too_many = || {
        let effect = if error.is_about_one_device() { Effect::Fine } else { Effect::SlowDown };
        Verdict { answer: Answer::Later { after: Some(after.unwrap_or(WAIT_WHEN_TOO_MANY)), why: why.clone() }, effect }
    };
    match error.code() {
        Some("UNREGISTERED") => fine(Answer::TokenVoid { why }),
        Some("INVALID_ARGUMENT") => invalid(&error, why),
        Some("SENDER_ID_MISMATCH") => fine(Answer::WrongSender { why }),
        Some("THIRD_PARTY_AUTH_ERROR" | "APNS_AUTH_ERROR") => {
            Verdict { answer: Answer::PlatformRefused { why }, effect: Effect::PlatformKey }
        }
        Some("QUOTA_EXCEEDED") => too_many(),
        Some("UNAVAILABLE" | "INTERNAL") => failing(after, why),
        _ if status == StatusCode::TOO_MANY_REQUESTS => too_many(),
        // A code of FCM's that nobody told us about.
        Some(_) => failing(after, why),
        None => match (error.status.as_str(), status.as_u16()) {
            ("INVALID_ARGUMENT", _) | ("", 400) => invalid(&error, why),
            ("UNAUTHENTICATED", _) | ("", 401) => stopped(Effect::AnotherToken, why),
            ("PERMISSION_DENIED", _) | ("", 403) => stopped(Effect::Shut(Cause::Permission), why),
            ("RESOURCE_EXHAUSTED", _) => too_many(),
            // Also a 404 without a code: with a wrong endpoint every token would look dead.
            _ => failing(after, why),
        },
    }
}

/// A 400: never sent again. The device is forgotten only if it is the token that is wrong.
fn invalid(error: &Error, why: String) -> Verdict {
    fine(if error.is_about_the_target() { Answer::TokenVoid { why } } else { Answer::Refused { why } })
}

fn fine(answer: Answer) -> Verdict {
    Verdict { answer, effect: Effect::Fine }
}

fn failing(after: Option<Duration>, why: String) -> Verdict {
    Verdict { answer: Answer::Later { after, why }, effect: Effect::Failing }
}

fn stopped(effect: Effect, why: String) -> Verdict {
    Verdict { answer: Answer::Stopped { why }, effect }
}

/// An answer in words that are neither the user's nor ours: codes and names of fields.
fn describe(status: StatusCode, error: &Error) -> String {
    let mut text = status.as_u16().to_string();
    let reason = error.details.iter().find_map(|detail| detail.reason.as_deref());
    let field = error.fields().next();
    let words = [Some(error.status.as_str()), error.code().filter(|code| *code != error.status), reason, field];
    for said in words.into_iter().flatten().filter(|said| !said.is_empty()) {
        // Writing to a String cannot fail.
        let _ = write!(text, " {}", word(said, LONGEST_WORD));
    }
    text
}

/// The beginning of what should be one word.
fn word(text: &str, longest: usize) -> String {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(longest).map(plain).collect()
}

#[cfg(test)]
mod tests;

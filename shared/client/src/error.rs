//! Why a call gave no answer, or which refusal it gave.

use crate::socket::Closed;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;
use std::{fmt, time::Duration};

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered, and refused.
    #[error("{0}")]
    Refused(Refusal),
    /// No answer arrived, or not a whole one.
    #[error("no answer from the server: {0}")]
    NoAnswer(#[from] reqwest::Error),
    /// The answer is not what this client understands.
    #[error("the server's answer is not understood: {0}")]
    NotUnderstood(#[source] serde_json::Error),
    /// The base URL is not one.
    #[error("{0} is not a URL such as http://127.0.0.1:8080")]
    Url(String),
    /// The WebSocket could not be opened.
    #[error("the socket could not be opened: {0}")]
    Handshake(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    /// The WebSocket was closed before it was ready.
    #[error("the socket was closed before it was ready: {0}")]
    NotReady(#[source] Closed),
    /// There was no answer in time, or the WebSocket did not get ready.
    #[error("no answer in time")]
    TooSlow,
}

impl ClientError {
    /// The refusal, if the server gave one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The HTTP status of the refusal.
    pub fn status(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.status)
    }

    /// The stable code of the refusal.
    pub fn code(&self) -> Option<&str> {
        self.refusal().map(|refusal| refusal.code.as_str())
    }

    /// Whether nobody knows if the call was carried out. A send is then to be repeated with the same
    /// `client_message_id`.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Refused(refusal) => !(refusal.status < 500 || refusal.is_temporary()),
            Self::Url(_) => false,
            _ => true,
        }
    }
}

/// An error answer (`application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Stable; programs decide by it. `unknown` when the answer is not ours (a proxy's, say).
    pub code: String,
    /// What was wrong and what to do, for people.
    pub detail: String,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Whether nothing was done and the same call may succeed later: 429, and 503 with `Retry-After`.
    pub fn is_temporary(&self) -> bool {
        self.status == 429 || (self.status == 503 && self.retry_after.is_some())
    }

    /// Reads a refusal. An answer that is not ours gets the code `unknown`.
    pub(crate) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Problem {
            code: String,
            detail: String,
        }
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let problem = serde_json::from_slice(body).unwrap_or_else(|_| Problem {
            code: "unknown".into(),
            detail: status.canonical_reason().unwrap_or("refused").into(),
        });
        Self {
            status: status.as_u16(),
            code: problem.code,
            detail: problem.detail,
            retry_after: seconds.map(Duration::from_secs),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.detail, self.status, self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, retry_after: Option<u64>) -> ClientError {
        let retry_after = retry_after.map(Duration::from_secs);
        ClientError::Refused(Refusal { status, code: "x".into(), detail: "y".into(), retry_after })
    }

    #[test]
    fn only_an_answer_that_says_so_means_not_stored() {
        for (status, retry_after) in
            [(400, None), (404, None), (409, None), (429, Some(1)), (429, None), (503, Some(1))]
        {
            assert!(!refused(status, retry_after).is_unknown(), "{status}");
        }
        for status in [500, 502, 503, 504] {
            assert!(refused(status, None).is_unknown(), "{status}");
        }
        assert!(ClientError::TooSlow.is_unknown());
    }
}

//! A request and what is done to it, whichever version of HTTP carries them.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::Value;

/// A whole request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) way: Way,
}

/// How it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// The fake's number for the connection.
    pub(crate) connection: u32,
    /// HTTP/2's stream; over HTTP/1 how many requests the connection has carried.
    pub(crate) stream: u32,
}

/// What is done to a request. Over HTTP/1 a reset ends the connection.
#[derive(Debug)]
pub(crate) enum Reply {
    /// An answer.
    Whole(Box<Answer>),
    /// The head of a good answer, then RST_STREAM (INTERNAL_ERROR).
    HeadThenReset,
    /// RST_STREAM (INTERNAL_ERROR) without a word.
    Reset,
    /// RST_STREAM (REFUSED_STREAM): never looked at, may be sent again at once.
    Refuse,
    /// Nothing, until the client gives up.
    Never,
}

/// An answer in full.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(status: u16, body: Bytes) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
        Self::Whole(Box::new(Answer { status, headers, body }))
    }

    pub(crate) fn value(status: StatusCode, value: &Value) -> Self {
        Self::json(status.as_u16(), value.to_string().into())
    }

    pub(crate) fn content_type(&mut self, text: &'static str) {
        self.header(header::CONTENT_TYPE, HeaderValue::from_static(text));
    }

    /// Sets a header; of no effect where there is no answer.
    pub(crate) fn header(&mut self, name: header::HeaderName, value: HeaderValue) {
        if let Self::Whole(answer) = self {
            answer.headers.insert(name, value);
        }
    }

    /// The answer's status, if it is one.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Whole(answer) => Some(answer.status.as_u16()),
            Self::HeadThenReset | Self::Reset | Self::Refuse | Self::Never => None,
        }
    }
}

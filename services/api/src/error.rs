//! What can go wrong for a caller, and how each is answered: `application/problem+json` (RFC 9457) with a stable
//! `code`, what was wrong and what to do. Internals go to the log, never to the client.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use touchline_ids::{Seq, UserId};
use touchline_mesh::Code;
use touchline_registry::RegistryError;
use touchline_storage::StorageError;
use utoipa::ToSchema;

/// Every failure of a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The body is not JSON, or not the JSON this endpoint takes.
    #[error("{0}")]
    InvalidBody(String),
    /// The body is not declared as JSON.
    #[error("send the body as JSON, with the header content-type: application/json")]
    NotJson,
    /// The body is larger than we take.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// Bytes we take.
        limit: usize,
    },
    /// The request head (its URL) is larger than we take.
    #[error("the URL is longer than {limit} bytes")]
    UrlTooLong {
        /// Bytes we take.
        limit: usize,
    },
    /// A path segment is not an id.
    #[error("{0}")]
    InvalidPath(String),
    /// A query parameter is unknown, missing or out of range.
    #[error("{0}")]
    InvalidQuery(String),
    /// A field has a value we do not take.
    #[error("{field}: {what}")]
    InvalidField {
        /// Which field, by its JSON name.
        field: &'static str,
        /// What is wrong and what would be right.
        what: String,
    },
    /// No such path.
    #[error("there is nothing here; the paths are listed at /docs")]
    NoSuchPath,
    /// The path is there, the method is not.
    #[error("this path does not take that method; the methods are listed at /docs")]
    MethodNotAllowed,
    /// No bearer token, or not a valid one.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// Wrong handle or password: which one is not said.
    #[error("wrong handle or password")]
    WrongCredentials,
    /// The refresh token is unknown, expired or was used before.
    #[error("the refresh token is not valid (any more): log in again")]
    InvalidRefreshToken,
    /// The caller's role does not allow it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// No such channel, or the caller is not in it: the two look alike.
    #[error("no such channel, or you are not a member of it")]
    NoSuchChannel,
    /// No such user, by this handle.
    #[error("no user has this handle")]
    NoSuchUser,
    /// The user is not a member of this channel.
    #[error("this user is not a member of the channel")]
    NoSuchMember,
    /// The caller has no quiet hours.
    #[error("you have no quiet hours")]
    NoQuietHours,
    /// Some of the user ids name nobody.
    #[error("unknown users: {}", list(.0))]
    UnknownUsers(Vec<UserId>),
    /// The handle belongs to somebody.
    #[error("this handle is taken: choose another")]
    HandleTaken,
    /// The same `client_message_id` was sent before with another body.
    #[error("this client_message_id was used for another message: a new message needs a new one")]
    ClientMessageIdReused,
    /// The owner of a channel with other members cannot leave it.
    #[error("the owner cannot leave while others are members: make one of them the owner first")]
    OwnerMustHandOver,
    /// The channel has as many members as it can.
    #[error("a channel has at most {limit} members")]
    ChannelFull {
        /// Members a channel can have.
        limit: usize,
    },
    /// The read mark lies after the last message.
    #[error("seq is after the channel's last message ({last_seq})")]
    BeyondEnd {
        /// The channel's last seq.
        last_seq: Seq,
    },
    /// Too many requests.
    #[error("too many requests: try again in {retry_after_s} s")]
    RateLimited {
        /// Seconds to wait.
        retry_after_s: u32,
    },
    /// We are full, stopping, or something we need is away. Nothing was done.
    #[error("{what}: nothing was done, try again in a moment")]
    Unavailable {
        /// What is away or full.
        what: &'static str,
    },
    /// More at once than we take. Nothing was done.
    #[error("{what}: nothing was done, try again in {retry_after_s} s")]
    Busy {
        /// Of what there is too much.
        what: &'static str,
        /// Seconds to wait; another number for everybody, so that they do not come back together.
        retry_after_s: u32,
    },
    /// The request took too long.
    #[error(
        "the request took too long and its outcome is unknown: try again, with the same client_message_id if it was a send"
    )]
    Timeout,
    /// The database failed.
    #[error("storage")]
    Storage(#[from] StorageError),
    /// The registry failed.
    #[error("registry")]
    Registry(#[from] RegistryError),
    /// A bug of ours.
    #[error("{0}")]
    Internal(String),
}

fn list(users: &[UserId]) -> String {
    let mut text = users.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if users.len() > 10 {
        text.push_str(", …");
    }
    text
}

/// The body of every error answer (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:touchline:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// The HTTP status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// Stable; programs decide by it.
    code: &'static str,
    /// What was wrong and what to do, for people.
    detail: String,
}

impl Error {
    /// A good access token of nobody.
    pub const NO_SUCH_CALLER: Self = Self::Unauthenticated("the user of this access token does not exist (any more)");

    /// An invalid field of the body.
    pub fn field(field: &'static str, what: impl Into<String>) -> Self {
        Self::InvalidField { field, what: what.into() }
    }

    /// The stable code and the kind of failure.
    pub fn code(&self) -> (&'static str, Code) {
        match self {
            Self::InvalidBody(_) => ("invalid_body", Code::InvalidArgument),
            Self::NotJson => ("not_json", Code::InvalidArgument),
            Self::BodyTooLarge { .. } => ("body_too_large", Code::TooLarge),
            Self::UrlTooLong { .. } => ("url_too_long", Code::TooLarge),
            Self::InvalidPath(_) => ("invalid_path", Code::InvalidArgument),
            Self::InvalidQuery(_) => ("invalid_query", Code::InvalidArgument),
            Self::InvalidField { .. } => ("invalid_field", Code::InvalidArgument),
            Self::NoSuchPath => ("no_such_path", Code::NotFound),
            Self::MethodNotAllowed => ("method_not_allowed", Code::Unimplemented),
            Self::Unauthenticated(_) => ("unauthenticated", Code::Unauthenticated),
            Self::WrongCredentials => ("wrong_credentials", Code::Unauthenticated),
            Self::InvalidRefreshToken => ("invalid_refresh_token", Code::Unauthenticated),
            Self::Forbidden(_) => ("forbidden", Code::PermissionDenied),
            Self::NoSuchChannel => ("no_such_channel", Code::NotFound),
            Self::NoSuchUser => ("no_such_user", Code::NotFound),
            Self::NoSuchMember => ("no_such_member", Code::NotFound),
            Self::NoQuietHours => ("no_quiet_hours", Code::NotFound),
            Self::UnknownUsers(_) => ("unknown_users", Code::InvalidArgument),
            Self::HandleTaken => ("handle_taken", Code::AlreadyExists),
            Self::ClientMessageIdReused => ("client_message_id_reused", Code::AlreadyExists),
            Self::OwnerMustHandOver => ("owner_must_hand_over", Code::FailedPrecondition),
            Self::ChannelFull { .. } => ("channel_full", Code::FailedPrecondition),
            Self::BeyondEnd { .. } => ("beyond_end", Code::InvalidArgument),
            Self::RateLimited { .. } => ("rate_limited", Code::RateLimited),
            Self::Unavailable { .. } | Self::Busy { .. } => ("unavailable", Code::Unavailable),
            Self::Timeout => ("timeout", Code::Timeout),
            Self::Storage(StorageError::Unavailable(_)) => ("unavailable", Code::Unavailable),
            // Stored or not, nobody knows: the same to the caller as no answer in time.
            Self::Storage(StorageError::InDoubt(_)) => ("timeout", Code::Timeout),
            Self::Storage(StorageError::Database(_) | StorageError::Settings(_) | StorageError::Schema { .. }) => {
                ("internal", Code::Internal)
            }
            Self::Registry(_) => ("unavailable", Code::Unavailable),
            Self::Internal(_) => ("internal", Code::Internal),
        }
    }

    /// What every sender of a batch that failed gets. The cause itself is logged once, with the batch.
    pub fn of_batch(error: &StorageError) -> Self {
        match error {
            StorageError::Unavailable(_) => Self::Unavailable { what: "the database is away" },
            StorageError::InDoubt(_) => Self::Timeout,
            StorageError::Database(_) | StorageError::Settings(_) | StorageError::Schema { .. } => {
                Self::Internal("the batch was not stored".to_owned())
            }
        }
    }

    /// What the same error is when something was stored before: "nothing was done" would be wrong, the outcome is
    /// unknown to the client.
    pub fn after_a_commit(self) -> Self {
        match self {
            Self::Storage(StorageError::Unavailable(error)) => Self::Storage(StorageError::InDoubt(error)),
            other => other,
        }
    }

    /// The HTTP status: the table's, but for two answers that only HTTP knows.
    fn status(&self) -> StatusCode {
        match self {
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UrlTooLong { .. } => StatusCode::URI_TOO_LONG,
            other => other.code().1.http(),
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::RateLimited { retry_after_s } | Self::Busy { retry_after_s, .. } => Some(*retry_after_s),
            other => matches!(other.code().1, Code::Unavailable).then_some(1),
        }
    }

    /// What the client reads: our own words, or one sentence where the cause is an internal.
    fn detail(&self) -> String {
        match self.code().1 {
            Code::Internal => "something failed on our side; it is logged".to_owned(),
            Code::Timeout => Self::Timeout.to_string(),
            Code::Unavailable if matches!(self, Self::Storage(_) | Self::Registry(_)) => {
                "a service we need is away: nothing was done, try again in a moment".to_owned()
            }
            _ => self.to_string(),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (code, kind) = self.code();
        // A flood must not become a flood of log lines: who says that we are busy counts and logs it.
        if matches!(kind, Code::Internal | Code::Unavailable) && !matches!(self, Self::Busy { .. }) {
            let cause = std::error::Error::source(&self).map(ToString::to_string);
            tracing::error!(error.code = code, error = %self, error.cause = cause, "request failed");
        }
        let status = self.status();
        let problem = Problem {
            kind: format!("urn:touchline:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: self.detail(),
        };
        let mut response = (status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // RFC 9110: every 401 says how one authenticates.
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"touchline\""));
        }
        response
    }
}

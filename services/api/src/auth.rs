//! (stub, being written)
use crate::error::Error;
use axum::extract::FromRequestParts;
use http::request::Parts;
use std::time::SystemTime;
use touchline_ids::UserId;
use uuid::Uuid;

/// Who asks.
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// The log-in family of our own token.
    pub login: Option<Uuid>,
    /// When the token ends.
    pub token_expires: SystemTime,
}

impl Caller {
    #[cfg(test)]
    pub(crate) fn for_test(user: UserId) -> Self {
        Self { user, login: None, token_expires: SystemTime::now() }
    }
}

impl FromRequestParts<std::sync::Arc<crate::Api>> for Caller {
    type Rejection = Error;
    async fn from_request_parts(_: &mut Parts, _: &std::sync::Arc<crate::Api>) -> Result<Self, Error> {
        Err(Error::Unauthenticated("being written"))
    }
}

//! Reading requests: body, path and query, each with our own clear error instead of axum's.

use crate::error::Error;
use axum::{
    RequestPartsExt as _,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection},
};
use http::{StatusCode, header, request::Parts};
use serde::de::DeserializeOwned;

/// Largest request body, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;
/// Longest request target (path and query), in bytes.
pub const URL_LIMIT: usize = 8 * 1024;
/// Deepest nesting of arrays and objects in a body.
pub const DEPTH_LIMIT: usize = 32;
/// Longest array in a body.
pub const ARRAY_LIMIT: usize = 1_000;

/// A JSON body of type `T`. `T` should deny unknown fields: a field that the server owns is refused, not ignored.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let declared = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = declared.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Error::NotJson);
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| refused(&rejection))?;
        if depth(&body) > DEPTH_LIMIT {
            return Err(Error::InvalidBody(format!("the body nests deeper than {DEPTH_LIMIT} levels")));
        }
        serde_json::from_slice(&body).map(Self).map_err(|error| Error::InvalidBody(error.to_string()))
    }
}

fn refused(rejection: &BytesRejection) -> Error {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Error::BodyTooLarge { limit: BODY_LIMIT }
    } else {
        Error::InvalidBody("the body ended early".to_owned())
    }
}

/// The deepest nesting of arrays and objects, counted without parsing: a bomb is refused before it costs anything.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The path's parameters as `T`.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send + 'static> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        match parts.extract::<axum::extract::Path<T>>().await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(_) => Err(Error::InvalidPath(
                "an id in the path is not one: a UUID such as 0190b3c8-7d3e-7c61-9b1a-2f6f0a6b8e11, or for a \
                 device 1 to 64 characters out of A-Z a-z 0-9 . _ : -"
                    .to_owned(),
            )),
        }
    }
}

/// The query's parameters as `T`, which should deny unknown fields.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + 'static> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        match parts.extract::<axum::extract::Query<T>>().await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Error::InvalidQuery(rejection.body_text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::depth;

    #[test]
    fn depth_counts_structure_and_not_text() {
        for (json, expected) in
            [("1", 0), ("[]", 1), (r#"{"a":[{}]}"#, 3), (r#""[[[[""#, 0), (r#"["\"[["]"#, 1), ("[[[[", 4), ("]]]][", 1)]
        {
            assert_eq!(depth(json.as_bytes()), expected, "{json}");
        }
    }
}

//! The trace of a request: continued from the caller's `traceparent`, told back in the answer, carried along with the
//! message.

use crate::error::Error;
use axum::{
    extract::{FromRequestParts, Request},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue, request::Parts};
use tracing::Instrument as _;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The W3C trace context of the present request, to be carried on; may be empty.
pub struct Traceparent(pub String);

impl<S: Sync> FromRequestParts<S> for Traceparent {
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(Self(touchline_telemetry::traceparent(&tracing::Span::current()).unwrap_or_default()))
    }
}

/// Runs each request in a span of its own. The path's ids stay out of the span's name.
pub async fn trace(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<axum::extract::MatchedPath>().map_or("", |path| path.as_str());
    let span = tracing::info_span!("request", http.request.method = %request.method(), http.route = route,
        http.response.status_code = tracing::field::Empty);
    touchline_telemetry::extract(request.headers()).adopt(&span);
    let mut response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    let traceparent = touchline_telemetry::traceparent(&span);
    if let Some(value) = traceparent.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    response
}

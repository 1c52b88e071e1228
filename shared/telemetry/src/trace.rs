//! Trace context between processes, as the W3C writes it.

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::TraceContextExt as _,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The trace a caller was in when it called us; perhaps none.
#[derive(Debug, Clone)]
pub struct ParentContext(Context);

/// The trace context of a request's headers (`traceparent`, `tracestate`). What does not parse is no context.
pub fn extract(headers: &HeaderMap) -> ParentContext {
    ParentContext::from_carrier(&Headers(headers))
}

/// This span as a `traceparent` header or proto field, for the next process. None for a span that is switched off.
pub fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| format!("00-{}-{}-{:02x}", ids.trace_id(), ids.span_id(), ids.trace_flags().to_u8()))
}

impl ParentContext {
    /// The trace context of a `traceparent` alone, as our protos carry it. What does not parse is no context.
    pub fn parse(traceparent: &str) -> Self {
        Self::from_carrier(&Traceparent(traceparent))
    }

    /// Makes `child` continue this trace. To be called before the span is entered; later it changes nothing.
    pub fn adopt(self, child: &Span) {
        if self.0.span().span_context().is_valid() {
            let _ = child.set_parent(self.0);
        }
    }

    fn from_carrier(carrier: &dyn Extractor) -> Self {
        Self(TraceContextPropagator::new().extract_with_context(&Context::new(), carrier))
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct Traceparent<'a>(&'a str);

impl Extractor for Traceparent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

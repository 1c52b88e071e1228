//! What operators see of a provider.

use crate::{Answer, circuit::Cause};
use opentelemetry::metrics::{Counter, Gauge};
use touchline_telemetry::{KeyValue, meter};

/// The instruments of one provider.
#[derive(Debug)]
pub(crate) struct Metrics {
    provider: &'static str,
    answers: Counter<u64>,
    circuit: Gauge<u64>,
    rate: Gauge<f64>,
    token_refreshes: Counter<u64>,
}

impl Metrics {
    /// Those of the provider of this name.
    pub(crate) fn new(provider: &'static str) -> Self {
        let meter = meter();
        Self {
            provider,
            answers: meter
                .u64_counter("touchline.notifier.answers")
                .with_description("Pushes by what their provider answered")
                .build(),
            circuit: meter
                .u64_gauge("touchline.notifier.circuit")
                .with_description("1 while pushes are stopped for this cause, else 0")
                .build(),
            rate: meter
                .f64_gauge("touchline.notifier.rate")
                .with_unit("{push}/s")
                .with_description("Pushes per second that are allowed now")
                .build(),
            token_refreshes: meter
                .u64_counter("touchline.notifier.token_refreshes")
                .with_description("Access tokens asked for, by what came of it")
                .build(),
        }
    }

    /// A push was answered.
    pub(crate) fn answered(&self, answer: &Answer) {
        let answer = match answer {
            Answer::Accepted { .. } => "accepted",
            Answer::TokenVoid { .. } => "token_void",
            Answer::WrongSender { .. } => "wrong_sender",
            Answer::PlatformRefused { .. } => "platform_refused",
            Answer::Refused { .. } => "refused",
            Answer::Later { .. } => "later",
            Answer::Stopped { .. } => "stopped",
        };
        self.answers.add(1, &[KeyValue::new("provider", self.provider), KeyValue::new("answer", answer)]);
    }

    /// The circuit opened or closed for this cause.
    pub(crate) fn circuit(&self, cause: Cause, open: bool) {
        self.stopped(cause.label(), open);
    }

    /// What may open was not open yet: its series begins at 0.
    pub(crate) fn circuits_closed(&self, causes: &[Cause]) {
        for cause in causes {
            self.circuit(*cause, false);
        }
    }

    /// The token endpoint refuses our key, or gave a token again.
    pub(crate) fn key_refused(&self, refused: bool) {
        self.stopped("key", refused);
    }

    fn stopped(&self, cause: &'static str, stopped: bool) {
        let labels = [KeyValue::new("provider", self.provider), KeyValue::new("cause", cause)];
        self.circuit.record(u64::from(stopped), &labels);
    }

    /// Pushes per second that are allowed.
    pub(crate) fn rate(&self, rate: f64) {
        self.rate.record(rate, &[KeyValue::new("provider", self.provider)]);
    }

    /// An access token was asked for: `granted`, `refused` (our credentials) or `failed` (try again).
    pub(crate) fn token_refreshed(&self, outcome: &'static str) {
        self.token_refreshes.add(1, &[KeyValue::new("provider", self.provider), KeyValue::new("outcome", outcome)]);
    }
}

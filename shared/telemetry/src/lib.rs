//! Telemetry: logs, traces and metrics, set up once when a process starts and flushed once when it ends.
//!
//! Logs go to stderr, one line each whatever a user wrote into them. Every request's span has W3C trace ids from the
//! start; nothing exports them yet, an exporter is one more span processor in [`Telemetry::init`].
//!
//! Never depends on another crate of ours.

mod fields;
mod metrics;
mod trace;

pub use metrics::{Scrape, meter};
pub use opentelemetry::{KeyValue, metrics::Counter};
pub use trace::{ParentContext, extract, traceparent};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::{
    metrics::SdkMeterProvider,
    trace::{Sampler, SdkTracerProvider},
};
use serde::{Deserialize, Serialize};
use std::{io::IsTerminal as _, net::SocketAddr};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt as _, Targets},
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// What a process tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which log lines: a level, or levels by target such as `info,touchline_gateway=debug`. Trace is for our own lines
    /// only.
    pub filter: String,
    /// How log lines look.
    pub format: Format,
    /// Where `/metrics` is served, for operators only; nowhere when absent. Port 0 takes a free one.
    pub listen: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        // SeaORM announces each migration at info; whoever asked for them is told anyway.
        Self { filter: "info,sea_orm=warn".into(), format: Format::Auto, listen: None }
    }
}

impl Config {
    /// What is wrong with the filter, if anything.
    ///
    /// # Errors
    /// The reason in words.
    pub fn check_filter(&self) -> Result<(), String> {
        self.filter().map(drop).map_err(|error| error.to_string())
    }

    fn filter(&self) -> Result<EnvFilter, TelemetryError> {
        EnvFilter::builder().parse(&self.filter).map_err(TelemetryError::Filter)
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For eyes.
    Text,
    /// For machines: one object per line.
    Json,
}

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter has no meaning.
    #[error("telemetry.filter: {0}")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// This process has a subscriber already.
    #[error("telemetry was set up twice")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
    /// Metrics cannot be collected.
    #[error("metrics: {0}")]
    Metrics(#[source] opentelemetry_sdk::error::OTelSdkError),
    /// What was collected could not be handed over in time.
    #[error("telemetry was not flushed: {0}")]
    Flush(#[source] opentelemetry_sdk::error::OTelSdkError),
}

/// The running telemetry of a process. Hold it until the end, then [`shut_down`](Self::shut_down).
#[derive(Debug)]
pub struct Telemetry {
    tracers: SdkTracerProvider,
    meters: SdkMeterProvider,
    scrape: Scrape,
}

impl Telemetry {
    /// Starts logs, traces and metrics for this process.
    ///
    /// # Errors
    /// [`TelemetryError::Filter`], [`TelemetryError::Metrics`], and [`TelemetryError::Twice`] when the process has telemetry already.
    pub fn init(config: &Config) -> Result<Self, TelemetryError> {
        // Ids without recording: as long as nothing exports, a recorded span is work for nobody.
        let tracers = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
        let terminal = std::io::stderr().is_terminal();
        let format = match config.format {
            Format::Auto if terminal => Format::Text,
            Format::Auto => Format::Json,
            chosen => chosen,
        };
        subscriber(config.filter()?, format, terminal, std::io::stderr, &tracers)
            .try_init()
            .map_err(TelemetryError::Twice)?;
        let (meters, scrape) = metrics::begin().map_err(TelemetryError::Metrics)?;
        Ok(Self { tracers, meters, scrape })
    }

    /// What scrapers read.
    pub fn scrape(&self) -> Scrape {
        self.scrape.clone()
    }

    /// Hands over what was collected. Blocks its thread: call it outside of the runtime.
    ///
    /// # Errors
    /// [`TelemetryError::Flush`].
    pub fn shut_down(self) -> Result<(), TelemetryError> {
        self.tracers.shutdown().and(self.meters.shutdown()).map_err(TelemetryError::Flush)
    }
}

fn subscriber<W>(
    filter: EnvFilter,
    format: Format,
    colours: bool,
    writer: W,
    tracers: &SdkTracerProvider,
) -> impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_ansi(colours).with_writer(writer);
    let lines = match format {
        Format::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
        Format::Text | Format::Auto => lines.fmt_fields(fields::escaped()).boxed(),
    };
    // Our own spans only: those of the transport below would trace the exporter itself.
    let spans = Targets::new().with_target("touchline", LevelFilter::INFO);
    // Crates below ours write whole frames at trace, with the tickets and messages in them.
    let no_payloads = Targets::new().with_default(LevelFilter::DEBUG).with_target("touchline", LevelFilter::TRACE);
    tracing_subscriber::registry()
        .with(tracing_opentelemetry::layer().with_tracer(tracers.tracer("touchline")).with_filter(spans))
        .with(lines.with_filter(filter.and(no_payloads)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, log: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let tracers = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
        let filter = Config::default().filter().unwrap();
        let subscriber = subscriber(filter, format, false, move || writer.clone(), &tracers);
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn what_a_user_wrote_stays_on_its_line() {
        let evil = "x\r\n2026 ERROR forged \u{1b}[31mred";
        for format in [Format::Text, Format::Json] {
            let text = logged(format, || {
                let _span = tracing::info_span!("request", http.path = %evil).entered();
                tracing::info!(user.handle = %evil, quoted = evil, "refused: {evil}");
            });
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.ends_with('\n'));
            assert!(!text.contains(['\u{1b}', '\r']), "{text}");
        }
    }

    #[test]
    fn a_span_continues_the_trace_of_its_request() {
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        logged(Format::Json, || {
            let span = tracing::info_span!("request");
            let mut headers = http::HeaderMap::new();
            headers.insert("traceparent", given.parse().unwrap());
            extract(&headers).adopt(&span);
            let ours = traceparent(&span).unwrap();
            assert_eq!(ours[..36], given[..36], "the same trace");
            assert_ne!(ours[36..52], given[36..52], "another span");

            let gateway = tracing::info_span!("push");
            ParentContext::parse(&ours).adopt(&gateway);
            assert_eq!(traceparent(&gateway).unwrap()[..36], given[..36]);
        });
    }

    #[test]
    fn a_request_without_a_trace_gets_one_and_nonsense_is_no_trace() {
        logged(Format::Json, || {
            let mut seen = std::collections::BTreeSet::new();
            for nonsense in ["", "00-0-0-00", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "ä"] {
                let span = tracing::info_span!("request");
                ParentContext::parse(nonsense).adopt(&span);
                let ours = traceparent(&span).unwrap();
                assert_eq!((ours.len(), &ours[..3]), (55, "00-"));
                assert!(seen.insert(ours[3..35].to_owned()));
            }
        });
        assert_eq!(traceparent(&tracing::Span::none()), None);
    }

    #[test]
    fn a_filter_without_meaning_is_refused() {
        assert!(Config::default().check_filter().is_ok());
        assert!(Config { filter: "info,touchline_gateway=debug".into(), ..Config::default() }.check_filter().is_ok());
        assert!(Config { filter: "info,touchline=loud".into(), ..Config::default() }.check_filter().is_err());
    }
}

//! Metrics: one set of instruments, and whoever scrapes reads them.

use opentelemetry::{global, metrics::Meter};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

/// Where instruments come from, named as OpenTelemetry does: `touchline.outbox.rows`. Before
/// [`Telemetry::init`](crate::Telemetry::init), and in tests without it, they record nothing.
pub fn meter() -> Meter {
    global::meter("touchline")
}

/// What there is of every metric, for a scraper.
#[derive(Debug, Clone)]
pub struct Scrape(Registry);

impl Scrape {
    /// Media type of [`text`](Self::text).
    pub const MEDIA_TYPE: &str = prometheus::TEXT_FORMAT;

    /// Every metric as Prometheus reads it.
    ///
    /// # Errors
    /// In words, when a metric cannot be written.
    pub fn text(&self) -> Result<String, String> {
        TextEncoder::new().encode_to_string(&self.0.gather()).map_err(|error| error.to_string())
    }
}

/// Begins to collect for the whole process.
pub(crate) fn begin() -> Result<(SdkMeterProvider, Scrape), opentelemetry_sdk::error::OTelSdkError> {
    let registry = Registry::new();
    let reader =
        opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false).build()?;
    let meters = SdkMeterProvider::builder().with_reader(reader).build();
    global::set_meter_provider(meters.clone());
    Ok((meters, Scrape(registry)))
}

//! `/metrics`, on a port of its own: it is for operators, not for clients.

use anyhow::Context as _;
use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpListener;
use touchline_mesh::Shutdown;
use touchline_telemetry::Scrape;

/// How long a scrape under way may take once the process stops.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves the metrics there, as long as the process lives.
pub(crate) async fn serve(listen: SocketAddr, scrape: Scrape, shutdown: &Shutdown) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("telemetry.listen: binding {listen}"))?;
    let address = listener.local_addr().context("telemetry.listen")?;
    tracing::info!(http = %address, "metrics are served");
    let router = Router::new().route("/metrics", get(async move || answer(&scrape)));
    let life = shutdown.clone();
    shutdown.spawn(async move { touchline_mesh::http::serve(listener, router, &life, PATIENCE).await });
    Ok(())
}

fn answer(scrape: &Scrape) -> Response {
    match scrape.text() {
        Ok(text) => ([(header::CONTENT_TYPE, Scrape::MEDIA_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}

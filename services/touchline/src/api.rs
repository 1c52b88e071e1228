//! `touchline api`: an api by itself.

use crate::{
    life, parts,
    settings::{Service, Source},
};
use std::net::SocketAddr;
use touchline_config::Flag;

const EXAMPLES: &str = "\
Examples:
  touchline api --config touchline.toml
  TOUCHLINE__DATABASE__URL_FILE=/run/secrets/database-url touchline api --config touchline.toml --http 0.0.0.0:8080

Prints `touchline ready api http=…` when it serves. Before the first start: `touchline migrate up` and
`touchline token new-key`. What is missing: `touchline config check api`.";

/// `touchline api …`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Where REST listens; port 0 takes a free one [default: api.listen]
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let http = arguments.http.map(|http| Flag { flag: "--http", path: "api.listen", value: http.to_string().into() });
    let loaded = arguments.source.load(http.as_slice(), |config| config.problems(&[Service::Api]))?;
    let config = loaded.config;
    life::serve(&config.telemetry, async |shutdown| {
        let storage = parts::storage(&config).await?;
        let registry = parts::registry(&config).await?;
        let keys = parts::public_keys(&config, &shutdown).await?;
        let app = parts::api(&config, keys, storage.clone(), registry, &shutdown).await?;
        life::say_ready(&format!("api http=http://{}", app.http_address()))?;
        let served = app.run(&shutdown).await;
        storage.close().await?;
        Ok(served?)
    })
}

//! `touchline gateway`: a gateway by itself.

use crate::{
    life, parts,
    settings::{Service, Source},
};
use std::{net::SocketAddr, sync::Arc};
use touchline_config::Flag;

const EXAMPLES: &str = "\
Examples:
  touchline gateway --config touchline.toml
  touchline gateway --config touchline.toml --ws 0.0.0.0:8081 --grpc 10.0.0.7:9090

Prints `touchline ready gateway ws=… grpc=…` when it serves. It needs the registry and the public keys, no database.
What is missing: `touchline config check gateway`.";

/// `touchline gateway …`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Where clients' WebSockets arrive; port 0 takes a free one [default: gateway.ws]
    #[arg(long, value_name = "ADDR")]
    ws: Option<SocketAddr>,
    /// Where the apis' pushes arrive; port 0 takes a free one [default: gateway.grpc]
    #[arg(long, value_name = "ADDR")]
    grpc: Option<SocketAddr>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let flags: Vec<_> = [("--ws", "gateway.ws", arguments.ws), ("--grpc", "gateway.grpc", arguments.grpc)]
        .into_iter()
        .filter_map(|(flag, path, address)| Some(Flag { flag, path, value: address?.to_string().into() }))
        .collect();
    let loaded = arguments.source.load(&flags, |config| config.problems(&[Service::Gateway]))?;
    let config = loaded.config;
    life::serve(&config.telemetry, async |shutdown| {
        let registry = parts::registry(&config).await?;
        let keys = parts::public_keys(&config, &shutdown).await?;
        let app = parts::gateway(&config, keys, Arc::clone(&registry)).await?;
        let ready = format!("gateway ws=ws://{} grpc=http://{}", app.ws_address(), app.grpc_address());
        let incarnation = app.incarnation();
        let announce = async {
            parts::until_listed(registry.as_ref(), incarnation).await;
            life::say_ready(&ready)
        };
        let mut serve = std::pin::pin!(app.run(&shutdown));
        tokio::select! {
            ended = &mut serve => return Ok(ended?),
            announced = announce => announced?,
        }
        Ok(serve.await?)
    })
}

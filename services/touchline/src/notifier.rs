//! `touchline notifier`: a notifier by itself.

use crate::{
    life, parts,
    settings::{Service, Source},
};
use std::net::SocketAddr;
use touchline_config::Flag;

const EXAMPLES: &str = "\
Examples:
  touchline notifier --config touchline.toml
  TOUCHLINE__NOTIFIER__PROVIDER=fcm TOUCHLINE__NOTIFIER__FCM__SERVICE_ACCOUNT_FILE=/run/secrets/fcm.json \\
    touchline notifier --config touchline.toml --grpc 0.0.0.0:9091

Prints `touchline ready notifier grpc=…` when it works. Any number of them share the work; name their addresses in
api.notifiers, so that apis wake them. What is missing: `touchline config check notifier`.";

/// `touchline notifier …`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Where the apis' wake-up calls arrive; port 0 takes a free one [default: notifier.listen]
    #[arg(long, value_name = "ADDR")]
    grpc: Option<SocketAddr>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let flag = |grpc: SocketAddr| Flag { flag: "--grpc", path: "notifier.listen", value: grpc.to_string().into() };
    let grpc = arguments.grpc.map(flag);
    let loaded = arguments.source.load(grpc.as_slice(), |config| config.problems(&[Service::Notifier]))?;
    let config = loaded.config;
    life::serve(&config.telemetry, async |shutdown| {
        let storage = parts::storage(&config).await?;
        let app = parts::notifier(&config, storage.clone(), &shutdown)?;
        life::say_ready(&format!("notifier grpc=http://{}", app.grpc_address()))?;
        let ended = app.run(&shutdown).await;
        storage.close().await?;
        Ok(ended?)
    })
}

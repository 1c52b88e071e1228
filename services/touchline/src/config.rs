//! `touchline config`: what would a service run with?

use crate::settings::{Config, Service, Source};
use clap::Subcommand;
use std::io::Write as _;
use touchline_config::Flag;

const EXAMPLES: &str = "\
Examples:
  touchline config print                             the effective configuration, secrets hidden, with sources
  touchline config print --config prod.toml
  touchline config check                             could every service start? every problem at once
  touchline config check gateway                     only what a gateway needs

Every key has an environment variable: [api] listen is TOUCHLINE__API__LISTEN.
Every key can be given by file: TOUCHLINE__DATABASE__URL_FILE=/run/secrets/database-url.";

/// `touchline config …`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the effective configuration as TOML
    Print {
        #[command(flatten)]
        source: Source,
    },
    /// Name every problem, on stderr; exit 64 if there is one
    Check {
        /// For which service [default: all of them]
        service: Option<Service>,
        #[command(flatten)]
        source: Source,
    },
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let none: [Flag<'_>; 0] = [];
    match &arguments.action {
        Action::Print { source } => {
            let loaded = source.load(&none, |_| Vec::new())?;
            std::io::stdout().write_all(loaded.print().as_bytes())?;
        }
        Action::Check { service, source } => {
            let services = service.as_ref().map_or(&Service::ALL[..], std::slice::from_ref);
            source.load(&none, |config: &Config| config.problems(services))?;
            writeln!(std::io::stdout(), "no problems")?;
        }
    }
    Ok(())
}

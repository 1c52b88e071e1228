//! `touchline migrate`: the schema of the database.

use crate::{life, parts, settings::Source};
use clap::Subcommand;
use std::{io::Write as _, num::NonZeroU32};

const EXAMPLES: &str = "\
Examples:
  touchline migrate status --config touchline.toml
  touchline migrate up --config touchline.toml       before the first start and after every update
  touchline migrate down --steps 1                   takes back the newest step, and its data
  TOUCHLINE__DATABASE__URL=postgres://touchline@db/touchline touchline migrate up

Services refuse to start on an older schema; `touchline dev` migrates by itself.";

/// `touchline migrate …`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Apply every step that is missing
    Up {
        #[command(flatten)]
        source: Source,
    },
    /// List the steps and whether they are applied
    Status {
        #[command(flatten)]
        source: Source,
    },
    /// Take back the newest steps, and with them their data
    Down {
        /// How many
        #[arg(long, default_value = "1", value_name = "N")]
        steps: NonZeroU32,
        #[command(flatten)]
        source: Source,
    },
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (Action::Up { source } | Action::Status { source } | Action::Down { source, .. }) = &arguments.action;
    let config = source.load(&[], |config| config.database_problems())?.config;
    life::run(async {
        let storage = parts::connect(&config).await?;
        let mut stdout = std::io::stdout();
        match arguments.action {
            Action::Up { .. } => {
                let applied = storage.migrate_up().await?;
                for name in &applied {
                    writeln!(stdout, "applied {name}")?;
                }
                if applied.is_empty() {
                    writeln!(stdout, "nothing to do")?;
                }
            }
            Action::Status { .. } => {
                for (name, applied) in storage.migration_status().await? {
                    writeln!(stdout, "{} {name}", if applied { "applied" } else { "missing" })?;
                }
            }
            Action::Down { steps, .. } => storage.migrate_down(steps.get()).await?,
        }
        Ok(storage.close().await?)
    })
}

//! The faults: every row of the table of failure modes as a scenario on real processes, judged by the checker.
//!
//! Never depends on a fake of anything of ours.

mod crashes;
mod notices;
mod outcome;
mod oversize;
mod probe;
mod pushes;
mod results;
mod rows;
mod runner;
mod scenario;
mod stage;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use results::Row;
use runner::Run;
use scenario::Scenario;
use std::{path::PathBuf, process::ExitCode};

/// Breaks a running Touchline in every way its table of failure modes names, and counts what that cost.
#[derive(Debug, Parser)]
#[command(name = "faults")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What there is
    List,
    /// Act scenarios out; exit code 1 when something broke, or when a whole one missed its target. Needs the servers that tests/run starts
    Run(Arguments),
}

#[derive(Debug, clap::Args)]
struct Arguments {
    /// Numbers of rows, or parts of names; all when none is given
    rows: Vec<String>,
    /// Less of everything, and without rows only those of the short list
    #[arg(long)]
    short: bool,
    /// The same seed makes the same choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many at the same time; what they measure is then the machine's share. Of the whole list those that compare
    /// times, or fill the machine, come after the others, one by one
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    jobs: u8,
    /// Writes the table there, in Markdown
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::List => {
            for scenario in rows::all() {
                let short = if scenario.short { "short" } else { "" };
                println!("{:>3} {:5} {}: {}", scenario.row, short, scenario.name, scenario.target);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(arguments) => run(arguments).await,
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let chosen: Vec<_> = rows::all().into_iter().filter(|scenario| arguments.choose(scenario)).collect();
    ensure!(!chosen.is_empty(), "no row is called {:?}; see `faults list`", arguments.rows);
    let run = Run { seed: arguments.seed, short: arguments.short };
    let alone = |scenario: &Scenario| !arguments.short && rows::ALONE.contains(&scenario.row);
    let (alone, together): (Vec<_>, Vec<_>) = chosen.into_iter().partition(alone);
    let together = stream::iter(together).map(|scenario| run.act(scenario)).buffered(arguments.jobs.into());
    let mut rows: Vec<_> = together.try_collect().await?;
    for scenario in alone {
        rows.push(run.act(scenario).await?);
    }
    rows.sort_by_key(|row| row.scenario.row);
    let table = results::markdown(&rows, arguments.seed, arguments.short);
    println!("\n{table}");
    if let Some(file) = arguments.results {
        std::fs::write(file, table)?;
    }
    // The last line, for who reads only that one.
    println!("{}", results::summary(&rows));
    // A short one runs beside other work, where times mean little.
    let failed = |row: &Row| if arguments.short { !row.outcome.broke.is_empty() } else { !row.outcome.passed() };
    Ok(ExitCode::from(u8::from(rows.iter().any(failed))))
}

impl Arguments {
    fn choose(&self, scenario: &Scenario) -> bool {
        let named =
            |row: &String| row.parse().map_or(scenario.name.contains(row.as_str()), |row: u32| row == scenario.row);
        if self.rows.is_empty() { !self.short || scenario.short } else { self.rows.iter().any(named) }
    }
}

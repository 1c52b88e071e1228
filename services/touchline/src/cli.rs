//! The command line.

use crate::{api, config, dev, gateway, load, migrate, notifications, notifier, outbox, send, tail, token};
use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  touchline                                          everything in one process, for trying and developing
  touchline tail --as bob                            in a second terminal: what arrives for bob
  touchline send general \"hello\" --as alice --invite bob
  touchline migrate up --config touchline.toml       before the first start and after every update
  touchline api --config touchline.toml --http 0.0.0.0:8080
  touchline gateway --config touchline.toml --ws 0.0.0.0:8081
  touchline notifier --config touchline.toml

Configuration: a TOML file, then environment variables such as TOUCHLINE__API__LISTEN, then flags; the later wins.
`touchline config print` shows every key. Exit codes: 0 fine, 1 failure, 64 bad usage or configuration.";

/// Delivers chat messages: stores them over REST, brings them to every recipient's sockets.
#[derive(Debug, Parser)]
#[command(name = "touchline", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process, on SQLite and in memory (the default)
    Dev(dev::Arguments),
    /// Run an api: REST, storage, delivery to the gateways
    Api(api::Arguments),
    /// Run a gateway: the WebSockets of the clients
    Gateway(gateway::Arguments),
    /// Run a notifier: pushes to those whom no device reached
    Notifier(notifier::Arguments),
    /// Bring the database's schema up to date, look at it, or take steps back
    Migrate(migrate::Arguments),
    /// List messages whose delivery is not finished; retry or drop those that were given up
    Outbox(outbox::Arguments),
    /// List notifications that are due, wait or were given up; retry or drop them
    Notifications(notifications::Arguments),
    /// Show or check the configuration
    Config(config::Arguments),
    /// Make an access token for a user, or the keys that sign them
    Token(token::Arguments),
    /// Send a message
    Send(send::Arguments),
    /// Print messages as they arrive
    Tail(tail::Arguments),
    /// Send and listen in bulk, and judge whether every guarantee held
    Load(load::Arguments),
}

impl Cli {
    /// Does what was asked.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.command.unwrap_or_else(|| Command::Dev(dev::Arguments::default())) {
            Command::Dev(arguments) => dev::run(&arguments),
            Command::Api(arguments) => api::run(&arguments),
            Command::Gateway(arguments) => gateway::run(&arguments),
            Command::Notifier(arguments) => notifier::run(&arguments),
            Command::Notifications(arguments) => notifications::run(&arguments),
            Command::Migrate(arguments) => migrate::run(&arguments),
            Command::Outbox(arguments) => outbox::run(&arguments),
            Command::Config(arguments) => config::run(&arguments),
            Command::Token(arguments) => token::run(&arguments),
            Command::Send(arguments) => send::run(arguments),
            Command::Tail(arguments) => tail::run(arguments),
            Command::Load(arguments) => load::run(&arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound_and_every_subcommand_has_examples() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            assert!(command.get_after_help().is_some(), "{} has no examples", command.get_name());
        }
    }

    #[test]
    fn nothing_means_dev_with_its_defaults() {
        assert!(parse("touchline").unwrap().command.is_none());
        let Some(Command::Dev(given)) = parse("touchline dev").unwrap().command else { panic!("dev") };
        assert_eq!(given, dev::Arguments::default());
    }

    #[test]
    fn what_is_not_known_or_not_complete_is_refused() {
        for bad in [
            "touchline serve",
            "touchline dev --htpp 127.0.0.1:1",
            "touchline dev --http localhost",
            "touchline send general --as alice",
            "touchline send general hello",
            "touchline send general hello --as alice --token abc",
            "touchline tail",
            "touchline migrate",
            "touchline migrate down --steps 0",
            "touchline outbox",
            "touchline outbox retry",
            "touchline outbox retry 0190f3a5-8c62-7cc1-b7a8-3f2b1c9de001",
            "touchline outbox retry 0190f3a5-8c62-7cc1-b7a8-3f2b1c9de001 0",
            "touchline outbox retry 0190f3a5-8c62-7cc1-b7a8-3f2b1c9de001 1 --all-dead",
            "touchline outbox retry general 1",
            "touchline outbox drop --yes",
            "touchline notifications",
            "touchline notifications retry",
            "touchline notifications retry 0190f3a5-8c62-7cc1-b7a8-3f2b1c9de001",
            "touchline notifications drop 0190f3a5-8c62-7cc1-b7a8-3f2b1c9de001 general",
            "touchline token",
            "touchline token new-key",
            "touchline load --devices quick=1",
            "touchline load --closed 1 --rate 5",
            "touchline load --duration soon",
        ] {
            assert!(parse(bad).is_err_and(|error| error.use_stderr()), "{bad}");
        }
    }

    #[test]
    fn the_examples_of_the_readme_parse() {
        for good in [
            "touchline dev --http 127.0.0.1:0 --ws 127.0.0.1:0 --data-dir /tmp/x",
            "touchline tail --as bob",
            "touchline tail general --as bob --json",
            "touchline send general hello --as alice --invite bob --invite carol",
            "touchline send general hello --token abc --url https://chat.example.com",
            "touchline api --config touchline.toml --http 0.0.0.0:8080",
            "touchline gateway --config touchline.toml --ws 0.0.0.0:8081 --grpc 0.0.0.0:9090",
            "touchline migrate up --config touchline.toml",
            "touchline migrate down --steps 2",
            "touchline outbox list --dead --json --config touchline.toml",
            "touchline outbox retry --all-dead",
            "touchline outbox retry 0190f3a5-8c62-7cc1-b7a8-3f2b1c9de001 42",
            "touchline outbox drop 0190f3a5-8c62-7cc1-b7a8-3f2b1c9de001 42 43 --yes",
            "touchline notifier --config touchline.toml --grpc 0.0.0.0:9091",
            "touchline notifications list --dead --json --config touchline.toml",
            "touchline notifications retry --all-dead",
            "touchline config print",
            "touchline config check gateway",
            "touchline config check notifier",
            "touchline token alice --data-dir touchline-data",
            "touchline token new-key --dir keys",
            "touchline load --users 200 --channels 10 --rate 200 --duration 1m",
            "touchline load --devices steady=90,flappy=5,slow=2,half_open=1,absent=2 --twice 0.3",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
    }
}

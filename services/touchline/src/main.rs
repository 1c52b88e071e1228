//! `touchline`: every service and tool of Touchline in one binary.
//!
//! Never holds logic of a service: it reads the configuration, builds the services and starts them.

mod account;
mod api;
mod cli;
mod config;
mod dev;
mod exit;
mod gateway;
mod life;
mod load;
mod metrics;
mod migrate;
mod notifications;
mod notifier;
mod outbox;
mod parts;
mod send;
mod settings;
mod tail;
mod terminal;
mod token;

use clap::Parser as _;
use std::process::ExitCode;

// Thousands of sockets allocate and free small pieces from many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.install_default().expect("nothing ran before main");
    match cli::Cli::try_parse() {
        Ok(cli) => exit::code(cli.run()),
        Err(error) => exit::usage(&error),
    }
}

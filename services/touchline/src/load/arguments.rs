//! What `touchline load` is asked to do.

use crate::{exit::Refused, settings::Source};
use std::{path::PathBuf, time::Duration};
use touchline_load::{Mix, Pace, Plan, Server};

const EXAMPLES: &str = "\
Examples:
  touchline load                                             20 users, 50 messages a second, 30 s, at http://127.0.0.1:8080
  touchline load --data-dir touchline-data --users 200 --channels 10 --rate 200 --duration 1m
  touchline load --users 50 --devices steady=90,flappy=5,slow=2,half_open=1,absent=2 --twice 0.3
  touchline load --closed 8 --pid \"$(pgrep -x touchline)\"     as fast as 8 senders get answers; also what it costs the server
  touchline load --url https://a.example.com --url https://b.example.com --config touchline.toml --json report.json

It makes users and channels of its own, with names that begin with `load-`, and leaves them behind. With --data-dir or
--config it writes them into the database and signs their tokens itself; otherwise it signs them up, as fast as
api.limits.sign_ups_per_address allows.

A load comes from one address and Touchline limits what one address may do. For more than a few hundred devices start
the api with TOUCHLINE__API__LIMITS__REQUESTS_PER_ADDRESS=0 and …CONNECTS_PER_ADDRESS=0, the gateway with
TOUCHLINE__GATEWAY__LIMITS__SOCKETS_PER_ADDRESS=18000 and …UNAUTHENTICATED_PER_ADDRESS=1000.

Progress is on stderr, the verdict on stdout. Ctrl-C ends early, with a verdict. Exit codes: 0 every guarantee held,
1 one broke or the load could not run, 64 bad usage.";

/// `touchline load …`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// An api; several take turns, and one stands in where another fails
    #[arg(
        long = "url",
        value_name = "URL",
        env = "TOUCHLINE_URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8080"
    )]
    pub(super) urls: Vec<String>,
    /// Users to make
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) users: usize,
    /// Channels to make
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(super) channels: usize,
    /// Members of each channel [default: 10, or all users when there are fewer]
    #[arg(long, value_name = "N")]
    pub(super) members: Option<usize>,
    /// How many of the users send [default: all]
    #[arg(long, value_name = "N")]
    senders: Option<usize>,
    /// Messages per second in all, whatever the answers (open loop)
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    rate: f64,
    /// With --rate: at random distances, as independent senders do, in place of even ones
    #[arg(long)]
    poisson: bool,
    /// So many sends at a time, each followed by the next as soon as it is answered (closed loop)
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "poisson"])]
    closed: Option<usize>,
    /// Sends of an open loop that may wait for answers; more are dropped, and counted
    #[arg(long, value_name = "N", default_value_t = 256)]
    in_flight: usize,
    /// The share of messages that are sent a second time under the same client_message_id, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    twice: f64,
    /// Characters in a message
    #[arg(long, value_name = "N", default_value_t = 80)]
    text: usize,
    /// Kinds of devices and their shares: steady, flappy, slow, half_open, absent
    #[arg(long, value_name = "KIND=SHARE,…", default_value_t = Mix::steady())]
    devices: Mix,
    /// How many devices, given to the users in turn [default: one each]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    sockets: usize,
    /// Devices that begin to connect per second
    #[arg(long, value_name = "N", default_value_t = 300)]
    connects: u32,
    /// How long to send, such as 500ms, 30s, 5m or 1h
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    duration: Duration,
    /// How long the devices may take to have everything after that
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    settle: Duration,
    /// The same seed makes the same choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The report as JSON into this file; `-`: to stdout, in place of the text
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// A server's process on this machine, to tell what the load costs it
    #[arg(long = "pid", value_name = "[NAME=]PID", value_parser = server, value_delimiter = ',')]
    pids: Vec<Server>,
    #[command(flatten)]
    pub(super) source: Source,
    /// The data directory of a `touchline dev`, in place of a configuration
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
}

impl Arguments {
    /// Refuses what makes no sense.
    pub(super) fn check(&self) -> Result<(), Refused> {
        let wrong = [
            (self.users == 0, "--users must be at least 1"),
            (self.channels == 0, "--channels must be at least 1"),
            (self.members == Some(0), "--members must be at least 1"),
            (self.members > Some(self.users), "--members must be at most --users"),
            (self.senders == Some(0), "--senders must be at least 1"),
            (!(self.rate > 0.0 && self.rate <= 1e6), "--rate must be more than 0 and at most 1000000"),
            (self.closed == Some(0), "--closed must be at least 1"),
            (self.in_flight == 0, "--in-flight must be at least 1"),
            (!(0.0..=1.0).contains(&self.twice), "--twice must be 0 to 1"),
            (self.text > 16 * 1024, "--text must be at most 16384"),
            (self.connects == 0, "--connects must be at least 1"),
        ];
        match wrong.iter().find(|(wrong, _)| *wrong) {
            Some((_, what)) => Err(Refused::Usage((*what).to_owned())),
            None => Ok(()),
        }
    }

    /// How many are in each channel.
    pub(super) fn members(&self) -> usize {
        self.members.unwrap_or_else(|| self.users.min(10))
    }

    /// Everything but who and where.
    pub(super) fn fill(&self, plan: &mut Plan) {
        plan.sending.pace = match self.closed {
            Some(at_a_time) => Pace::Closed(at_a_time),
            None if self.poisson => Pace::Poisson(self.rate),
            None => Pace::Even(self.rate),
        };
        plan.sending.senders = self.senders.unwrap_or(usize::MAX);
        plan.sending.in_flight = self.in_flight;
        plan.sending.twice = self.twice;
        plan.sending.text_bytes = self.text;
        plan.devices.count = self.sockets;
        plan.devices.mix = self.devices;
        plan.devices.connects_per_second = self.connects;
        plan.duration = Some(self.duration);
        plan.settle = self.settle;
        plan.servers.clone_from(&self.pids);
        plan.seed = self.seed;
    }
}

/// A whole number and a unit.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "expected a time such as 500ms, 30s, 5m or 1h".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(format!("{unit} is no unit: ms, s, m or h")),
    }
}

fn server(text: &str) -> Result<Server, String> {
    let (name, pid) = text.split_once('=').unwrap_or(("server", text));
    let pid: u32 = pid.trim().parse().map_err(|_| format!("{pid} is not a process id"))?;
    if !std::path::Path::new(&format!("/proc/{pid}/stat")).exists() {
        return Err(format!("there is no process {pid}"));
    }
    Ok(Server { name: name.to_owned(), pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let good = [("30", 30_000), ("30s", 30_000), ("500ms", 500), ("5m", 300_000), ("1h", 3_600_000)];
        for (text, milliseconds) in good {
            assert_eq!(time(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "s", "5d", "-1s", "1.5s"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_is_a_process_that_is_there() {
        let own = std::process::id();
        assert_eq!(server(&format!("api={own}")), Ok(Server { name: "api".into(), pid: own }));
        assert_eq!(server(&own.to_string()).map(|server| server.name), Ok("server".into()));
        assert!(server("x").is_err() && server("api=0").is_err());
    }
}

//! What a load consists of: where, who, how much, for how long.

use serde::Serialize;
use std::{fmt, str::FromStr, time::Duration};
use touchline_client::Renewal;
use touchline_ids::{ChannelId, UserId};

/// A load to be. Make one with [`Plan::new`] and change what should differ.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where apis serve REST, such as `http://127.0.0.1:8080`. Calls go round robin and to the next one where one fails.
    pub apis: Vec<String>,
    /// Who sends and whose devices listen.
    pub users: Vec<User>,
    /// Where messages are sent.
    pub channels: Vec<Channel>,
    /// Users who are in none of `channels`, with one device each: whatever else reaches them is a leak.
    pub canaries: Vec<User>,
    /// How messages are sent.
    pub sending: Sending,
    /// How they are listened to.
    pub devices: Devices,
    /// How long to send. None: until [`finish`](crate::Running::finish).
    pub duration: Option<Duration>,
    /// How long the devices may take to reach the head of every channel after the last send.
    pub settle: Duration,
    /// Whether a `reset` of a device that was in the middle of a channel is part of the game (a database that lost its
    /// tail). Otherwise it counts as a loss.
    pub resets_expected: bool,
    /// The processes of the servers, on this machine: their CPU time and memory go into the report.
    pub servers: Vec<Server>,
    /// The same seed makes the same choices.
    pub seed: u64,
}

/// Somebody with an account.
#[derive(Clone)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// Goes with every call.
    pub access_token: String,
    /// Where the next one comes from, for a load that lasts longer than a token lives.
    pub renewal: Option<Renewal>,
}

impl User {
    /// Somebody whose token lives long enough.
    pub fn new(id: UserId, access_token: &str) -> Self {
        Self { id, access_token: access_token.to_owned(), renewal: None }
    }
}

/// Somewhere to send.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Which.
    pub id: ChannelId,
    /// Who of [`Plan::users`] is in it when the load starts.
    pub members: Vec<usize>,
}

/// How messages are sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sending {
    /// When the next one goes.
    pub pace: Pace,
    /// How many of the users send, at most; the first ones.
    pub senders: usize,
    /// Sends that may wait for their answer at the same time. An open loop that would pass it drops the send and counts it.
    pub in_flight: usize,
    /// The share of messages that are sent a second time although the first was answered, 0 to 1.
    pub twice: f64,
    /// The length of each text.
    pub text_bytes: usize,
    /// How long a send that is refused for now (429, 503) or whose outcome is unknown is repeated.
    pub patience: Duration,
}

/// When the next message goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Open loop: so many per second at even distances, whatever the answers.
    Even(f64),
    /// Open loop: so many per second on average, at the distances of independent senders.
    Poisson(f64),
    /// Closed loop: so many at a time, each followed by the next as soon as it is answered.
    Closed(usize),
}

/// The devices that listen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Devices {
    /// How many, given to the users in turn. 0: one per user.
    pub count: usize,
    /// How many of which kind.
    pub mix: Mix,
    /// Devices that begin to connect per second.
    pub connects_per_second: u32,
    /// The longest time a flappy device stays connected; it is cut at a random moment before.
    pub flap_within: Duration,
}

/// What a device is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Stays connected and reads.
    Steady,
    /// Its connection is cut every few seconds.
    Flappy,
    /// Reads little at a time, with long rests.
    Slow,
    /// Stops reading and answering soon after it connected, and keeps the socket.
    HalfOpen,
    /// Is never there while messages are sent.
    Absent,
}

/// Shares of the kinds; only their proportions count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mix {
    /// See [`Kind::Steady`].
    pub steady: u32,
    /// See [`Kind::Flappy`].
    pub flappy: u32,
    /// See [`Kind::Slow`].
    pub slow: u32,
    /// See [`Kind::HalfOpen`].
    pub half_open: u32,
    /// See [`Kind::Absent`].
    pub absent: u32,
}

/// A process to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// How the report calls it.
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

impl Plan {
    /// 50 messages a second for as long as the load runs, one steady device per user.
    pub fn new(apis: Vec<String>, users: Vec<User>, channels: Vec<Channel>) -> Self {
        Self {
            apis,
            users,
            channels,
            canaries: Vec::new(),
            sending: Sending::default(),
            devices: Devices::default(),
            duration: None,
            settle: Duration::from_secs(60),
            resets_expected: false,
            servers: Vec::new(),
            seed: 1,
        }
    }
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            pace: Pace::Even(50.0),
            senders: usize::MAX,
            in_flight: 256,
            twice: 0.0,
            text_bytes: 80,
            patience: Duration::from_secs(60),
        }
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self { count: 0, mix: Mix::steady(), connects_per_second: 300, flap_within: Duration::from_secs(8) }
    }
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Steady, Self::Flappy, Self::Slow, Self::HalfOpen, Self::Absent];

    /// As it stands on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Flappy => "flappy",
            Self::Slow => "slow",
            Self::HalfOpen => "half_open",
            Self::Absent => "absent",
        }
    }
}

impl Mix {
    /// Only steady devices.
    pub const fn steady() -> Self {
        Self { steady: 1, flappy: 0, slow: 0, half_open: 0, absent: 0 }
    }

    /// The share of a kind.
    pub const fn share(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Steady => self.steady,
            Kind::Flappy => self.flappy,
            Kind::Slow => self.slow,
            Kind::HalfOpen => self.half_open,
            Kind::Absent => self.absent,
        }
    }

    /// Gives every one of `count` devices its kind, spread evenly: neighbours differ where they can.
    pub fn deal(&self, count: usize) -> Vec<Kind> {
        let total = Kind::ALL.iter().map(|kind| i64::from(self.share(*kind))).sum::<i64>().max(1);
        let mut credit = [0_i64; Kind::ALL.len()];
        let next = |_| {
            let richest = (0..credit.len())
                .inspect(|&at| credit[at] += i64::from(self.share(Kind::ALL[at])))
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .max_by_key(|&at| credit[at])
                .expect("there are kinds");
            credit[richest] -= total;
            Kind::ALL[richest]
        };
        (0..count).map(next).collect()
    }
}

/// The text does not say how many devices of which kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected shares such as steady=90,flappy=5,slow=2,half_open=1,absent=2; {0}")]
pub struct InvalidMix(String);

impl FromStr for Mix {
    type Err = InvalidMix;

    fn from_str(text: &str) -> Result<Self, InvalidMix> {
        let mut mix = Self { steady: 0, flappy: 0, slow: 0, half_open: 0, absent: 0 };
        for part in text.split(',') {
            let (name, share) = part.split_once('=').ok_or_else(|| InvalidMix(format!("{part} has no number")))?;
            let place = match name.trim() {
                "steady" => &mut mix.steady,
                "flappy" => &mut mix.flappy,
                "slow" => &mut mix.slow,
                "half_open" => &mut mix.half_open,
                "absent" => &mut mix.absent,
                other => return Err(InvalidMix(format!("{other} is no kind"))),
            };
            *place = share.trim().parse().map_err(|_| InvalidMix(format!("{share} is no share")))?;
        }
        if Kind::ALL.iter().all(|kind| mix.share(*kind) == 0) {
            return Err(InvalidMix("all shares are 0".into()));
        }
        Ok(mix)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares = Kind::ALL.map(|kind| (kind, self.share(kind)));
        let named = shares.iter().filter(|(_, share)| *share > 0);
        f.write_str(&named.map(|(kind, share)| format!("{}={share}", kind.name())).collect::<Vec<_>>().join(","))
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_as_it_is_written() {
        let mix: Mix = "steady=90,flappy=5,slow=2,half_open=1,absent=2".parse().unwrap();
        assert_eq!(mix.to_string(), "steady=90,flappy=5,slow=2,half_open=1,absent=2");
        assert_eq!("steady=1".parse(), Ok(Mix::steady()));
        for bad in ["", "steady", "steady=x", "quick=1", "steady=0", "steady=-1"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_are_dealt_by_their_shares_and_spread() {
        let kinds = "steady=3,slow=1".parse::<Mix>().unwrap().deal(100);
        assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Slow).count(), 25);
        assert!(kinds.chunks(4).all(|four| four.contains(&Kind::Slow)));
        assert_eq!(kinds[0], Kind::Steady);
    }
}

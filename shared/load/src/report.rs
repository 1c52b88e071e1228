//! What came out of a load.

use crate::plan::{Devices, Sending};
use serde::Serialize;
use std::collections::BTreeMap;

/// The outcome of a load. [`Display`](std::fmt::Display) writes it for people, serde for programs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Whether no guarantee broke; the same as [`is_clean`](Self::is_clean).
    pub clean: bool,
    /// What ran.
    pub load: Loaded,
    /// What became of the sends.
    pub sends: Sends,
    /// What arrived.
    pub deliveries: Deliveries,
    /// Why sockets of steady devices ended that the load did not cut, and how often.
    pub endings: BTreeMap<String, u64>,
    /// What must all be zero.
    pub broken: Broken,
    /// Some of what broke, in words; at most a few of each kind.
    pub examples: Vec<String>,
    /// Send → 2xx.
    pub answer: Times,
    /// Send → shown by a device that is online and steady.
    pub send_to_device: Times,
    /// 2xx → shown by such a device; 0 where it was shown before the answer came.
    pub accepted_to_device: Times,
    /// From a new socket's `ready` until the device had caught up.
    pub resume: Times,
    /// What [`Running::fault_began`](crate::Running::fault_began) marked.
    pub faults: Vec<Fault>,
    /// When steady devices had lost their sockets, marked or not.
    pub outages: Outages,
    /// What it cost the servers, if their processes were named.
    pub cost: Option<Cost>,
    /// CPU seconds of this process, while messages were sent and until the steady devices had them.
    pub own_cpu_s: f64,
}

/// What ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Loaded {
    /// Of the choices.
    pub seed: u64,
    /// Users, without canaries.
    pub users: usize,
    /// Channels.
    pub channels: usize,
    /// Devices by kind.
    pub devices: BTreeMap<&'static str, usize>,
    /// Users who must never get anything.
    pub canaries: usize,
    /// How it was sent.
    pub sending: Option<Sending>,
    /// How it was listened to.
    pub listening: Option<Devices>,
    /// Seconds from the first send to the last.
    pub sent_for_s: f64,
    /// Seconds from the end of sending until every device was at the head of its channels; none when not all were.
    pub settled_in_s: Option<f64>,
}

/// What became of the sends. Every message counts once: `messages = accepted + refused + unresolved`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sends {
    /// Messages that were sent at all.
    pub messages: u64,
    /// Answered 2xx in the end.
    pub accepted: u64,
    /// Refused for good, or for longer than one had patience: not stored.
    pub refused: u64,
    /// Nobody knows, for one's patience ended.
    pub unresolved: u64,
    /// Requests, repeated ones included.
    pub attempts: u64,
    /// The most requests that one message took until it was known what became of it.
    pub most_tries: u64,
    /// Requests with an unknown outcome.
    pub unknown: u64,
    /// Messages with such a request whose outcome became known by repeating it.
    pub resolved: u64,
    /// Requests that were refused for now: 429, 503.
    pub deferred: u64,
    /// Answers that named a message stored before.
    pub duplicates: u64,
    /// Messages that were sent twice on purpose.
    pub twice: u64,
    /// Messages that an open loop should have sent and did not, because too many waited for their answers.
    pub dropped: u64,
}

/// What arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Deliveries {
    /// Messages that devices showed.
    pub shown: u64,
    /// Message frames that arrived on sockets.
    pub frames: u64,
    /// Message frames that repeated what the device had.
    pub duplicated_on_wire: u64,
    /// Shown per second while messages were sent.
    pub per_second: f64,
    /// Sockets that became ready, the first of each device included.
    pub connects: u64,
    /// Sockets that ended without the load having cut them.
    pub disconnects: u64,
    /// `reset`s of devices that were in the middle of a channel.
    pub resets: u64,
}

/// Times in which steady devices had lost their sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Outages {
    /// How many ended.
    pub count: u64,
    /// The longest, in seconds: from the first lost socket until every steady device was connected again and had what
    /// had been accepted by then. The recovery time of whatever happened.
    pub longest_s: f64,
}

/// Broken guarantees, in numbers of messages and devices. Every field must be 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// A device never got what its membership entitles it to (I3).
    pub lost: u64,
    /// Shown twice by one device (I3).
    pub duplicated: u64,
    /// Shown after a later one of the same channel by one device (I3).
    pub out_of_order: u64,
    /// Shown, and not what stands in the log at this position, or from a channel the user is not in (I4).
    pub foreign: u64,
    /// Two devices, or a device and the sender's answer, disagree on what stands at a position (I4).
    pub conflicting: u64,
    /// Refused, and stored or delivered nevertheless (I5).
    pub refused_yet_delivered: u64,
    /// A was answered before B was sent in the same channel, and seq(A) > seq(B) (I6).
    pub against_sender_order: u64,
    /// Shown to a user outside of their membership (I9).
    pub outside_membership: u64,
    /// Frames that reached a canary (I10).
    pub canary: u64,
    /// Accepted, and not in the log (I1).
    pub not_in_log: u64,
    /// In the log more than once (I1).
    pub twice_in_log: u64,
    /// Positions that are missing in a log (I2).
    pub holes_in_log: u64,
    /// Devices that were not at the head of all their channels when one's patience ended (I7).
    pub behind: u64,
    /// Channels whose log could not be read back, so that nothing is proven about them.
    pub unread_logs: u64,
}

/// A distribution of times, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Times {
    /// How many were measured.
    pub count: u64,
    /// Half of them took at most this long.
    pub p50_ms: f64,
    /// 90 %.
    pub p90_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// A time during which something was broken on purpose.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Fault {
    /// As it was called.
    pub name: String,
    /// Seconds from the first send to its beginning.
    pub began_s: f64,
    /// How long it lasted; none when it was never healed.
    pub lasted_s: Option<f64>,
    /// Send → shown, of what was sent while it lasted.
    pub send_to_device: Times,
    /// Sockets that ended while it lasted.
    pub disconnects: u64,
    /// From healed until 99 % of the steady devices were connected and at head.
    pub recovered_99_s: Option<f64>,
    /// From healed until every steady device was connected and at head.
    pub recovered_s: Option<f64>,
}

/// What a load cost the servers' processes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cost {
    /// CPU time of all of them per message that a device showed, in microseconds.
    pub cpu_per_delivery_us: f64,
    /// Growth of their resident memory by the devices' connecting, per session, in KiB.
    pub memory_per_session_kib: f64,
    /// Each.
    pub processes: Vec<ProcessCost>,
}

/// What it cost one process.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ProcessCost {
    /// As it was called.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// CPU seconds while messages were sent, and until the devices had them.
    pub cpu_s: f64,
    /// Resident memory before the devices connected, in MiB.
    pub before_mib: f64,
    /// With all devices connected, before the first message.
    pub connected_mib: f64,
    /// At the end.
    pub end_mib: f64,
}

impl Report {
    /// Whether every guarantee held.
    pub fn is_clean(&self) -> bool {
        self.broken == Broken::default()
    }
}

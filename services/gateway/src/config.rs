//! The gateway's settings: the section `[gateway]`.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Duration};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use touchline_config::Problem;
use touchline_ids::GatewayId;

/// The gateway's settings. Times are in milliseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The gateway's name over restarts, such as the pod's name. Unset: a new name in every life, which is safe: two
    /// processes with one name fence each other.
    pub id: Option<GatewayId>,
    /// Where the WebSocket listener binds; port 0 takes a free one.
    pub ws: SocketAddr,
    /// Where the gRPC listener (`PushService`, health) binds; port 0 takes a free one.
    pub grpc: SocketAddr,
    /// Where clients reach the WebSocket listener, such as `wss://gw-7.chat.example.com`. Unset: `ws://` and the
    /// bound address.
    pub public_url: Option<String>,
    /// Where apis reach the gRPC listener, such as `http://10.0.0.7:9090`. Unset: `http://` and the bound address.
    pub grpc_url: Option<String>,
    /// The origins whose pages may connect, compared exactly, such as `https://app.example.com`. Clients that send
    /// no `Origin` (they are no browsers) may always.
    pub allowed_origins: Vec<String>,
    /// The proxies whose `X-Forwarded-For` is believed, as networks. Nobody else's is. All clients behind a proxy that
    /// is not listed, or that names nobody, count as one address.
    pub trusted_proxies: Vec<IpNet>,
    /// How much at once.
    pub limits: Limits,
    /// How long.
    pub times: Times,
}

/// How much the gateway takes at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections taken per second, and as many at once. Above: 503, with the time to come back. Default: 500 for
    /// each processor.
    pub accepts_per_second: u32,
    /// Authenticated sessions in all. Above: 503, or close 1013.
    pub capacity: u32,
    /// Sessions of one user on this gateway. One more closes the oldest (4009).
    pub sessions_per_user: u32,
    /// Sockets of one address (of one /64 of IPv6).
    pub sockets_per_address: u32,
    /// Sockets that have not yet said a valid hello.
    pub unauthenticated: u32,
    /// The same of one address.
    pub unauthenticated_per_address: u32,
    /// Frames that may wait for one session, those being written included. One more closes it (4010).
    pub queue_frames: usize,
    /// Bytes that may wait for one session.
    pub queue_bytes: usize,
    /// The largest message or frame a client may send. Above: close 1009.
    pub message_bytes: usize,
    /// The socket's read buffer; it is resident in every session.
    pub read_buffer_bytes: usize,
    /// What is collected before it is written to the socket.
    pub write_buffer_bytes: usize,
    /// Frames a client may send per second in the long run. Above: close 4008.
    pub frames_per_second: u32,
    /// Frames a client may send at once.
    pub frame_burst: u32,
    /// Recipients whose acks are awaited, for each push stream. Beyond them no push is read until some are answered.
    pub awaited_acks: usize,
    /// Frames that make no sense before the session is closed (4008).
    pub bad_frames: u32,
}

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Times {
    /// A client's request head.
    pub head_ms: u64,
    /// From the upgrade to a hello that was accepted.
    pub hello_ms: u64,
    /// Between two pings from the server.
    pub heartbeat_ms: u64,
    /// A socket from which nothing came for so long is dead.
    pub dead_ms: u64,
    /// A socket into which nothing could be written for so long is slow (4010).
    pub write_ms: u64,
    /// How long data may stay unacknowledged by the peer's kernel (`TCP_USER_TIMEOUT`).
    pub tcp_user_ms: u64,
    /// A peer's answer to our close.
    pub close_ms: u64,
    /// One call to the registry.
    pub registry_ms: u64,
    /// Without a renewed lease for so long, no new sockets are taken.
    pub lease_ms: u64,
    /// How late the event loop may be. Late several times in a row, no new sockets are taken.
    pub late_ms: u64,
    /// How often apis are told what devices have acked.
    pub acks_ms: u64,
    /// From handing out a push to the first look at its acks. Devices ack at most once a second.
    pub early_check_ms: u64,
    /// Without a push stream for so long, while apis reach other gateways, the gateway ends.
    pub alone_ms: u64,
    /// From saying that the gateway stops to asking the first session to leave, so that every api knows not to send
    /// anybody here. It sees who is there once a second.
    pub drain_head_start_ms: u64,
    /// At most so long do sessions have to leave when the gateway stops.
    pub drain_ms: u64,
    /// How many sessions per second are asked to leave when the gateway stops.
    pub drain_sessions_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            id: None,
            ws: SocketAddr::from(([127, 0, 0, 1], 8081)),
            grpc: SocketAddr::from(([127, 0, 0, 1], 9090)),
            public_url: None,
            grpc_url: None,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
            times: Times::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            accepts_per_second: 500 * u32::try_from(cores()).unwrap_or(1),
            capacity: 18_000,
            sessions_per_user: 10,
            sockets_per_address: 200,
            unauthenticated: 1_000,
            unauthenticated_per_address: 20,
            queue_frames: 256,
            queue_bytes: 256 * 1024,
            message_bytes: 64 * 1024,
            read_buffer_bytes: 2 * 1024,
            write_buffer_bytes: 4 * 1024,
            frames_per_second: 20,
            frame_burst: 100,
            awaited_acks: 4_000_000,
            bad_frames: 10,
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Default for Times {
    fn default() -> Self {
        Self {
            head_ms: 5_000,
            hello_ms: 5_000,
            heartbeat_ms: 25_000,
            dead_ms: 60_000,
            write_ms: 10_000,
            tcp_user_ms: 20_000,
            close_ms: 2_000,
            registry_ms: 2_000,
            lease_ms: 30_000,
            late_ms: 500,
            acks_ms: 2_000,
            early_check_ms: 1_200,
            alone_ms: 30_000,
            drain_head_start_ms: 1_500,
            drain_ms: 60_000,
            drain_sessions_per_second: 200,
        }
    }
}

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Config {
    /// What the types alone cannot refuse. Paths are relative to the section.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse = |wrong: bool, path: &str, what: &str| {
            if wrong {
                problems.push(Problem::new(path, what));
            }
        };
        let unreachable = |address: SocketAddr| address.ip().is_unspecified();
        refuse(
            self.public_url.is_none() && unreachable(self.ws),
            "public_url",
            "must be set when ws binds every address: it is what clients are told",
        );
        refuse(
            self.grpc_url.is_none() && unreachable(self.grpc),
            "grpc_url",
            "must be set when grpc binds every address: it is what apis are told",
        );
        let url = |url: &Option<String>, schemes: [&str; 2]| {
            url.as_ref().is_some_and(|url| !schemes.iter().any(|scheme| url.starts_with(scheme)) || url.ends_with('/'))
        };
        refuse(
            url(&self.public_url, ["ws://", "wss://"]),
            "public_url",
            "must be ws://… or wss://… without a / at the end",
        );
        refuse(
            url(&self.grpc_url, ["http://", "https://"]),
            "grpc_url",
            "must be http://… or https://… without a / at the end",
        );
        refuse(
            self.allowed_origins.iter().any(|origin| !is_origin(origin)),
            "allowed_origins",
            "each must be a whole origin in lower case, such as https://app.example.com, without path or *",
        );
        self.limits.refuse(&mut refuse);
        self.times.refuse(&mut refuse);
        problems
    }

    /// What tungstenite must be told: its defaults would hold 256 KiB per socket and take 64 MiB from anybody.
    pub(crate) fn websocket(&self) -> WebSocketConfig {
        let limits = &self.limits;
        WebSocketConfig::default()
            .read_buffer_size(limits.read_buffer_bytes)
            .write_buffer_size(limits.write_buffer_bytes)
            // Only bounds one message on top of the buffer; what waits is in our own queue.
            .max_write_buffer_size(limits.write_buffer_bytes + limits.queue_bytes + 1024)
            .max_message_size(Some(limits.message_bytes))
            .max_frame_size(Some(limits.message_bytes))
    }
}

impl Limits {
    fn refuse(&self, refuse: &mut impl FnMut(bool, &str, &str)) {
        refuse(self.accepts_per_second == 0, "limits.accepts_per_second", "must be at least 1");
        refuse(self.capacity == 0, "limits.capacity", "must be at least 1");
        refuse(self.sessions_per_user == 0, "limits.sessions_per_user", "must be at least 1");
        refuse(self.sockets_per_address == 0, "limits.sockets_per_address", "must be at least 1");
        refuse(self.unauthenticated == 0, "limits.unauthenticated", "must be at least 1");
        refuse(self.unauthenticated_per_address == 0, "limits.unauthenticated_per_address", "must be at least 1");
        refuse(self.queue_frames == 0, "limits.queue_frames", "must be at least 1");
        refuse(
            self.queue_bytes < 128 * 1024,
            "limits.queue_bytes",
            "must be at least 131072: a message of the largest size must fit",
        );
        refuse(
            !(1024..=1024 * 1024).contains(&self.message_bytes),
            "limits.message_bytes",
            "must be from 1024 to 1048576",
        );
        let buffer = 128..=64 * 1024;
        refuse(!buffer.contains(&self.read_buffer_bytes), "limits.read_buffer_bytes", "must be from 128 to 65536");
        refuse(!buffer.contains(&self.write_buffer_bytes), "limits.write_buffer_bytes", "must be from 128 to 65536");
        refuse(self.frames_per_second == 0, "limits.frames_per_second", "must be at least 1");
        refuse(self.frame_burst < 2, "limits.frame_burst", "must be at least 2");
        refuse(self.awaited_acks == 0, "limits.awaited_acks", "must be at least 1");
        refuse(self.bad_frames == 0, "limits.bad_frames", "must be at least 1");
    }
}

impl Times {
    fn refuse(&self, refuse: &mut impl FnMut(bool, &str, &str)) {
        for (value, path) in [
            (self.head_ms, "times.head_ms"),
            (self.hello_ms, "times.hello_ms"),
            (self.heartbeat_ms, "times.heartbeat_ms"),
            (self.write_ms, "times.write_ms"),
            (self.tcp_user_ms, "times.tcp_user_ms"),
            (self.close_ms, "times.close_ms"),
            (self.registry_ms, "times.registry_ms"),
            (self.lease_ms, "times.lease_ms"),
            (self.late_ms, "times.late_ms"),
            (self.acks_ms, "times.acks_ms"),
            (self.alone_ms, "times.alone_ms"),
            (self.early_check_ms, "times.early_check_ms"),
            (u64::from(self.drain_sessions_per_second), "times.drain_sessions_per_second"),
        ] {
            // A day is no timeout any more, and far beyond it an Instant overflows.
            refuse(!(1..=86_400_000).contains(&value), path, "must be from 1 to 86400000");
        }
        refuse(self.drain_head_start_ms > 86_400_000, "times.drain_head_start_ms", "must be at most 86400000");
        refuse(self.drain_ms > 86_400_000, "times.drain_ms", "must be at most 86400000");
        refuse(
            self.dead_ms <= self.heartbeat_ms || self.dead_ms > 86_400_000,
            "times.dead_ms",
            "must be longer than heartbeat_ms: a silent client is pinged before it is given up",
        );
    }
}

/// Whether `text` is an origin as browsers send it: scheme, host and maybe port, nothing else. `null` is none: every
/// sandboxed page sends it.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.:[]_".contains(&b);
    !scheme.is_empty() && !host.is_empty() && scheme.bytes().chain(host.bytes()).all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problem_and_survive_serde() {
        let config = Config::default();
        assert_eq!(config.problems(), []);
        let text = serde_json::to_string(&config).expect("serialises");
        assert_eq!(serde_json::from_str::<Config>(&text).expect("reads back"), config);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let config = Config {
            ws: SocketAddr::from(([0, 0, 0, 0], 0)),
            grpc_url: Some("ftp://x".into()),
            allowed_origins: vec!["https://app.example.com/".into()],
            limits: Limits { capacity: 0, ..Limits::default() },
            times: Times { dead_ms: 1, ..Times::default() },
            ..Config::default()
        };
        let paths: Vec<_> = config.problems().into_iter().map(|problem| problem.path).collect();
        assert_eq!(paths, ["public_url", "grpc_url", "allowed_origins", "limits.capacity", "times.dead_ms"]);
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"limits":{"capacty":1}}"#).is_err());
    }

    #[test]
    fn only_whole_origins_can_be_allowed() {
        for good in ["https://app.example.com", "http://127.0.0.1:8080", "http://[::1]:8080", "capacitor://localhost"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["null", "*", "https://*.example.com", "https://App.example.com", "https://a/b", "a", "://", ""] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}

//! The `[api]` section of the configuration.

use crate::limits;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use touchline_config::Problem;

/// How an api serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where REST listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Web origins whose pages may call the api (CORS), exact, such as `https://app.example.com`.
    pub allowed_origins: Vec<String>,
    /// Networks of the proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Most members of one channel.
    pub max_members: usize,
    /// Sends waiting for the writer before the answer is 503.
    pub writer_queue: usize,
    /// How long gateways wait for acks before they name the unacked, in milliseconds.
    pub ack_wait_ms: u32,
    /// How long after that the missed are looked up once more, in milliseconds.
    pub second_look_ms: u32,
    /// Seconds between heartbeats, told to clients.
    pub heartbeat_s: u32,
    /// First reconnect delay told to clients, in milliseconds.
    pub backoff_base_ms: u32,
    /// Longest reconnect delay told to clients, in milliseconds.
    pub backoff_cap_ms: u32,
    /// How long a stop waits for requests and pushes under way, in seconds.
    pub stop_s: u32,
    /// Where the notifiers' gRPC listens, such as `http://notifier:9091`: they are woken when somebody was missed.
    /// Without any, or when none answers, they find it by themselves within 5 s.
    pub notifiers: Vec<String>,
    /// How often a user or an address may ask.
    pub limits: limits::Settings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            max_members: 10_000,
            writer_queue: 4_096,
            ack_wait_ms: 3_000,
            second_look_ms: 2_000,
            heartbeat_s: 25,
            backoff_base_ms: 500,
            backoff_cap_ms: 30_000,
            stop_s: 15,
            notifiers: Vec::new(),
            limits: limits::Settings::default(),
        }
    }
}

impl Config {
    /// Everything that is wrong with it, all at once.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.limits.problems();
        let mut refuse = |wrong: bool, path: &str, what: &str| {
            if wrong {
                problems.push(Problem { path: format!("api.{path}"), what: what.to_owned() });
            }
        };
        refuse(!(2..=10_000).contains(&self.max_members), "max_members", "must be 2 to 10000");
        refuse(self.writer_queue == 0, "writer_queue", "must be at least 1");
        refuse(!(100..=60_000).contains(&self.ack_wait_ms), "ack_wait_ms", "must be 100 to 60000");
        refuse(self.second_look_ms > 60_000, "second_look_ms", "must be at most 60000");
        refuse(!(5..=300).contains(&self.heartbeat_s), "heartbeat_s", "must be 5 to 300");
        refuse(self.backoff_base_ms == 0, "backoff_base_ms", "must be at least 1");
        refuse(self.backoff_cap_ms < self.backoff_base_ms, "backoff_cap_ms", "must not be below backoff_base_ms");
        let bad_origin = self.allowed_origins.iter().any(|origin| !is_origin(origin));
        refuse(bad_origin, "allowed_origins", "must be exact origins such as https://app.example.com, without a path");
        let bad_notifier = self.notifiers.iter().any(|address| !is_origin(address));
        refuse(bad_notifier, "notifiers", "must be addresses such as http://notifier:9091, without a path");
        problems
    }
}

fn is_origin(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some()
            && !text.ends_with('/')
            && uri.path_and_query().is_none_or(|path| path == "/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problems_and_every_problem_is_named() {
        assert!(Config::default().problems().is_empty());
        let bad = Config { max_members: 1, heartbeat_s: 0, allowed_origins: vec!["*".into()], ..Config::default() };
        let paths: Vec<_> = bad.problems().into_iter().map(|problem| problem.path).collect();
        assert_eq!(paths, ["api.max_members", "api.heartbeat_s", "api.allowed_origins"]);
    }

    #[test]
    fn an_origin_has_a_scheme_a_host_and_nothing_more() {
        assert!(is_origin("https://app.example.com") && is_origin("http://127.0.0.1:8080"));
        for bad in ["*", "app.example.com", "https://app.example.com/", "https://app.example.com/x", "ftp://x", ""] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}

//! What the configuration's `[registry]` section says.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use touchline_config::Secret;

/// Where the registry lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In this process: everything that takes part runs in it (`touchline dev`).
    #[default]
    Memory,
    /// One Redis server.
    Single,
    /// A Redis master found through Sentinels, followed when it changes.
    Sentinel,
    /// A Redis Cluster.
    Cluster,
}

/// How to reach the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which kind.
    pub mode: Mode,
    /// `redis://host:port` or, with TLS, `rediss://host:port`: the server; the Sentinels; some nodes of the Cluster.
    pub urls: Vec<String>,
    /// The master's name at the Sentinels.
    pub sentinel_master: String,
    /// The ACL user; empty for the default user.
    pub username: String,
    /// The ACL user's password; empty for none.
    pub password: Secret,
    /// The ACL user at the Sentinels themselves; empty for the default user.
    pub sentinel_username: String,
    /// Their password; empty for none.
    pub sentinel_password: Secret,
    /// PEM file of the authorities that sign the servers' certificates; without it, those of the system.
    pub ca_file: Option<PathBuf>,
    /// What every key begins with. Deployments that share a Redis differ in it.
    pub prefix: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Memory,
            urls: Vec::new(),
            sentinel_master: String::new(),
            username: String::new(),
            password: Secret::default(),
            sentinel_username: String::new(),
            sentinel_password: Secret::default(),
            ca_file: None,
            prefix: "tl:".to_owned(),
        }
    }
}

impl Settings {
    /// Everything that cannot work, as (path inside the section, what is wrong and what to do).
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut problem = |path: &str, what: &str| problems.push((path.to_owned(), what.to_owned()));
        if self.prefix.contains(['{', '}']) {
            problem("prefix", "must not contain { or }: a Cluster would keep every key on one node");
        }
        if self.mode == Mode::Memory {
            if !self.urls.is_empty() {
                problem("urls", "the mode memory has none: set mode to single, sentinel or cluster");
            }
            return problems;
        }
        if self.urls.is_empty() {
            problem("urls", "needs at least one, such as redis://127.0.0.1:6379");
        }
        if self.mode == Mode::Single && self.urls.len() > 1 {
            problem("urls", "the mode single has exactly one");
        }
        if self.mode == Mode::Sentinel && self.sentinel_master.is_empty() {
            problem("sentinel_master", "needs the master's name at the Sentinels");
        }
        if self.mode != Mode::Sentinel && !self.sentinel_master.is_empty() {
            problem("sentinel_master", "is for the mode sentinel only");
        }
        for (index, url) in self.urls.iter().enumerate() {
            if let Some(what) = url_problem(url) {
                problem(&format!("urls[{index}]"), what);
            }
        }
        let with_tls = self.urls.iter().filter(|url| url.starts_with("rediss://")).count();
        if with_tls != 0 && with_tls != self.urls.len() {
            problem("urls", "must all begin with rediss:// or all with redis://");
        }
        if self.ca_file.is_some() && with_tls == 0 {
            problem("ca_file", "needs urls that begin with rediss://");
        }
        if !self.username.is_empty() && self.password.is_empty() {
            problem("password", "is missing for the username");
        }
        if !self.sentinel_username.is_empty() && self.sentinel_password.is_empty() {
            problem("sentinel_password", "is missing for the sentinel_username");
        }
        problems
    }
}

/// Never repeats the URL: it may hold a password.
fn url_problem(url: &str) -> Option<&'static str> {
    let Some((_, rest)) = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "redis" | "rediss")) else {
        return Some("must begin with redis:// or rediss://");
    };
    if rest.contains('@') {
        return Some("must not hold a user or password: use username and password");
    }
    if redis::parse_redis_url(url).is_none() {
        return Some("must be like redis://host:port");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(settings: &Settings) -> Vec<String> {
        settings.problems().into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn the_defaults_work() {
        assert!(Settings::default().problems().is_empty());
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let urls = ["redis://a:1", "rediss://b:2", "http://c", "redis://user:hunter2@d:4"].map(str::to_owned).to_vec();
        let settings = Settings {
            mode: Mode::Sentinel,
            urls,
            username: "touchline".to_owned(),
            prefix: "{tl}:".to_owned(),
            ..Settings::default()
        };
        assert_eq!(paths(&settings), ["prefix", "sentinel_master", "urls[2]", "urls[3]", "urls", "password"]);
        assert!(!format!("{:?}", settings.problems()).contains("hunter2"));

        let single = Settings { mode: Mode::Single, ca_file: Some("ca.pem".into()), ..Settings::default() };
        assert_eq!(paths(&single), ["urls", "ca_file"]);
    }

    #[test]
    fn passwords_are_never_shown() {
        let settings = Settings { password: "hunter2".into(), ..Settings::default() };
        let shown = format!("{settings:?} {}", serde_json::to_string(&settings).unwrap());
        assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(serde_json::from_str::<Settings>(r#"{"mode":"cluster","url":"redis://a"}"#).is_err());
    }
}

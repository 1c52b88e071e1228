//! The `[notifier]` section of the configuration.

use crate::webhook;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};
use touchline_config::{Problem, Secret};

/// The longest a push service keeps a push: 28 days.
const LONGEST_TTL_S: u32 = 28 * 86_400;
/// More is nobody's quota; it keeps the arithmetic far from its ends.
const HIGHEST_RATE: u32 = 1_000_000;

/// How a notifier notifies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where gRPC listens (apis wake the notifier there); port 0 takes a free one.
    pub listen: SocketAddr,
    /// What brings pushes to devices.
    pub provider: Kind,
    /// How long a notification is worth something, in seconds: retries end then, and the push service forgets it too.
    pub ttl_s: u32,
    /// Whether pushes carry the message's text. Then it passes through the push service's hands.
    pub show_text: bool,
    /// Devices that have not been seen for so many days get no pushes.
    pub idle_days: u32,
    /// Devices that have not been seen for so many days are forgotten.
    pub forget_days: u32,
    /// For `provider = "fcm"`.
    pub fcm: Fcm,
    /// For `provider = "webhook"`.
    pub webhook: Webhook,
}

/// What brings pushes to devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing: each push is a line in the log.
    #[default]
    Log,
    /// Firebase Cloud Messaging.
    Fcm,
    /// A server of your own that gets each push as signed JSON.
    Webhook,
}

/// How to reach Firebase Cloud Messaging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fcm {
    /// The service account's key, the JSON file that the Firebase console gives.
    pub service_account_file: Option<PathBuf>,
    /// Scheme and host of the service. With `http://` it is spoken to in clear (HTTP/2 with prior knowledge): for tests
    /// and benches only.
    pub endpoint: String,
    /// PEM file of more authorities that may sign the certificates of the service and of the token endpoint; for tests.
    pub ca_file: Option<PathBuf>,
    /// Connections to the service.
    pub connections: u32,
    /// Requests under way on each connection, at most.
    pub streams: u32,
    /// Pushes per second at most, of this notifier. The project's quota is 600,000 a minute: several notifiers share it.
    pub rate: u32,
}

/// Where pushes are posted to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// The whole URL, https.
    pub url: String,
    /// What signs the requests: `whsec_` and 24 to 64 random bytes as base64 (Standard Webhooks).
    pub secret: Secret,
    /// Whether `http://` and addresses inside of your network are allowed.
    pub allow_private: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9091)),
            provider: Kind::default(),
            ttl_s: 86_400,
            show_text: false,
            idle_days: 60,
            forget_days: 270,
            fcm: Fcm::default(),
            webhook: Webhook::default(),
        }
    }
}

impl Default for Fcm {
    fn default() -> Self {
        Self {
            service_account_file: None,
            endpoint: "https://fcm.googleapis.com".into(),
            ca_file: None,
            connections: 4,
            streams: 100,
            rate: 8_000,
        }
    }
}

impl Config {
    /// Everything that is wrong with it, all at once. The files it names are read when the provider is opened.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse = |wrong: bool, path: &str, what: &str| {
            if wrong {
                problems.push(Problem::new(format!("notifier.{path}"), what));
            }
        };
        refuse(!(60..=LONGEST_TTL_S).contains(&self.ttl_s), "ttl_s", "must be 60 to 2419200 (28 days)");
        refuse(self.idle_days == 0, "idle_days", "must be at least 1");
        refuse(self.forget_days < self.idle_days, "forget_days", "must not be below idle_days");
        refuse(self.forget_days > 3_650, "forget_days", "must be at most 3650");
        let fcm = &self.fcm;
        refuse(!(1..=8).contains(&fcm.connections), "fcm.connections", "must be 1 to 8");
        refuse(!(1..=100).contains(&fcm.streams), "fcm.streams", "must be 1 to 100");
        refuse(!(1..=HIGHEST_RATE).contains(&fcm.rate), "fcm.rate", "must be 1 to 1000000");
        refuse(!is_origin(&fcm.endpoint), "fcm.endpoint", "must be like https://fcm.googleapis.com, without a path");
        if self.provider == Kind::Fcm {
            let missing = fcm.service_account_file.is_none();
            refuse(
                missing,
                "fcm.service_account_file",
                "is needed for provider = \"fcm\": the service account's key file",
            );
        }
        if self.provider == Kind::Webhook {
            let webhook = &self.webhook;
            if let Err(what) = webhook::check_url(&webhook.url, webhook.allow_private) {
                refuse(true, "webhook.url", &what);
            }
            if let Err(what) = webhook::check_secret(&webhook.secret) {
                refuse(true, "webhook.secret", what);
            }
        }
        problems
    }
}

fn is_origin(text: &str) -> bool {
    text.parse::<reqwest::Url>().is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(config: &Config) -> Vec<String> {
        config.problems().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn the_defaults_have_no_problems_and_every_problem_is_named() {
        assert!(Config::default().problems().is_empty());
        let bad = Config {
            ttl_s: 1,
            idle_days: 300,
            fcm: Fcm { connections: 9, streams: 0, rate: 0, endpoint: "fcm".into(), ..Fcm::default() },
            ..Config::default()
        };
        assert_eq!(
            paths(&bad),
            [
                "notifier.ttl_s",
                "notifier.forget_days",
                "notifier.fcm.connections",
                "notifier.fcm.streams",
                "notifier.fcm.rate",
                "notifier.fcm.endpoint"
            ]
        );
    }

    #[test]
    fn what_a_provider_needs_is_asked_for_when_it_is_chosen() {
        let fcm = Config { provider: Kind::Fcm, ..Config::default() };
        assert_eq!(paths(&fcm), ["notifier.fcm.service_account_file"]);
        let webhook = Config { provider: Kind::Webhook, ..Config::default() };
        assert_eq!(paths(&webhook), ["notifier.webhook.url", "notifier.webhook.secret"]);
    }

    #[test]
    fn an_endpoint_has_a_scheme_a_host_and_nothing_more() {
        assert!(is_origin("https://fcm.googleapis.com") && is_origin("http://127.0.0.1:8080/"));
        for bad in ["fcm.googleapis.com", "ftp://x", "https://x/v1", "https://x?a", "https://u:p@x", "https://u@x", ""]
        {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        let mut config = Config::default();
        config.webhook.secret = "whsec_c2VjcmV0".into();
        assert!(!format!("{config:?}").contains("c2Vjc"));
        assert!(!serde_json::to_string(&config).unwrap().contains("c2Vjc"));
    }
}

//! The whole configuration: one section per crate, one rule book.

use crate::exit::Refused;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use touchline_config::{Flag, Loaded, Problem};
use touchline_registry::Mode;

/// The configuration of every service; all of them can share one file.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where messages are stored. The gateway has no part in it.
    pub database: touchline_storage::Settings,
    /// Who is connected where.
    pub registry: touchline_registry::Settings,
    /// Tokens and keys.
    pub auth: touchline_auth::Settings,
    /// The api.
    pub api: touchline_api::Config,
    /// The gateway.
    pub gateway: touchline_gateway::Config,
    /// The notifier.
    pub notifier: touchline_notifier::Config,
    /// Logs and traces.
    pub telemetry: touchline_telemetry::Config,
}

/// The file that is used when none is named.
const DEFAULT_FILE: &str = "touchline.toml";

/// Where the configuration comes from.
#[derive(Debug, Default, PartialEq, clap::Args)]
pub(crate) struct Source {
    /// The configuration file [default: touchline.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "TOUCHLINE_CONFIG")]
    config: Option<PathBuf>,
}

impl Source {
    /// The configuration, held to `rules`.
    ///
    /// # Errors
    /// [`Refused::Configuration`].
    pub(crate) fn load(
        &self,
        flags: &[Flag<'_>],
        rules: impl FnOnce(&Config) -> Vec<Problem>,
    ) -> Result<Loaded<Config>, Refused> {
        let default = Path::new(DEFAULT_FILE);
        let file = self.config.as_deref().or_else(|| default.exists().then_some(default));
        let environment =
            std::env::vars_os().map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()));
        touchline_config::load(file, environment, flags, rules).map_err(Refused::Configuration)
    }
}

/// A process that runs by itself, with its part of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// REST, storage, delivery.
    Api,
    /// WebSockets.
    Gateway,
    /// Pushes to those whom no device reached.
    Notifier,
}

impl Service {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Api, Self::Gateway, Self::Notifier];
}

impl Config {
    /// Everything that is wrong for these services, each problem once.
    pub(crate) fn problems(&self, services: &[Service]) -> Vec<Problem> {
        let mut problems = self.telemetry_problems();
        if services.contains(&Service::Api) || services.contains(&Service::Notifier) {
            problems.extend(self.database_problems());
        }
        // A notifier knows nobody's sockets and verifies nobody's tokens.
        if services.contains(&Service::Api) || services.contains(&Service::Gateway) {
            problems.extend(self.registry_problems());
            problems.extend(self.auth_problems(services.contains(&Service::Api)));
        }
        for service in services {
            problems.extend(self.service_problems(*service));
        }
        problems
    }

    /// What is wrong with the section of one service.
    pub(crate) fn service_problems(&self, service: Service) -> Vec<Problem> {
        match service {
            Service::Api => self.api.problems(),
            Service::Gateway => self.gateway.problems().into_iter().map(|problem| problem.within("gateway")).collect(),
            Service::Notifier => self.notifier.problems(),
        }
    }

    fn registry_problems(&self) -> Vec<Problem> {
        let mut problems = within("registry", self.registry.problems());
        if self.registry.mode == Mode::Memory {
            let what =
                "memory is for `touchline dev`, where everything is one process: set single, sentinel or cluster";
            problems.push(Problem::new("registry.mode", what));
        }
        problems
    }

    /// What is wrong with the log filter.
    pub(crate) fn telemetry_problems(&self) -> Vec<Problem> {
        let wrong = self.telemetry.check_filter().err();
        wrong.into_iter().map(|what| Problem::new("telemetry.filter", what)).collect()
    }

    /// What is wrong with the database's settings.
    pub(crate) fn database_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let url = &self.database.url;
        if !["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            let what = "must be sqlite://path/to/file or postgres://user:password@host/name";
            problems.push(Problem::new("database.url", what));
        }
        if self.database.max_connections == 0 {
            problems.push(Problem::new("database.max_connections", "must be at least 1"));
        }
        problems
    }

    /// What is wrong with tokens and keys, for a process that verifies, or that signs too. The key files must exist.
    pub(crate) fn auth_problems(&self, signs: bool) -> Vec<Problem> {
        let auth = &self.auth;
        let mut problems = within("auth", auth.problems());
        let mut files = vec![("auth.public_keys_file", &auth.public_keys_file)];
        if signs {
            problems.extend(within("auth", auth.signing_problems()));
            files.push(("auth.signing_key_file", &auth.signing_key_file));
        }
        for (path, file) in files {
            if !file.as_os_str().is_empty()
                && let Err(error) = std::fs::File::open(file)
            {
                let what = format!("{}: {error}; `touchline token new-key` makes key files", file.display());
                problems.push(Problem::new(path, what));
            }
        }
        problems
    }
}

fn within(section: &str, problems: Vec<(String, String)>) -> Vec<Problem> {
    problems.into_iter().map(|(path, what)| Problem::new(path, what).within(section)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(variables: &[(&str, &str)]) -> Loaded<Config> {
        let variables: Vec<_> = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        touchline_config::load(None, variables.into_iter(), &[], |_| vec![]).unwrap()
    }

    fn paths(problems: &[Problem]) -> Vec<&str> {
        problems.iter().map(|problem| problem.path.as_str()).collect()
    }

    #[test]
    fn every_section_can_be_left_out_or_given_in_part() {
        for section in ["database", "registry", "auth", "api", "gateway", "notifier", "telemetry"] {
            let table = format!(r#"{{"{section}":{{}}}}"#);
            assert!(serde_json::from_str::<Config>(&table).is_ok(), "{section} needs #[serde(default)]");
        }
    }

    #[test]
    fn the_printed_defaults_load_again() {
        let printed = load(&[]).print();
        let table: serde_json::Value = toml::from_str(&printed).unwrap();
        assert!(serde_json::from_value::<Config>(table).is_ok(), "{printed}");
        for section in ["database", "registry", "auth", "api", "gateway", "notifier", "telemetry"] {
            assert!(printed.contains(&format!("[{section}]\n")), "{printed}");
        }
    }

    #[test]
    fn passwords_do_not_show_in_the_printed_configuration() {
        let loaded = load(&[
            ("TOUCHLINE__REGISTRY__PASSWORD", "hunter2"),
            ("TOUCHLINE__REGISTRY__SENTINEL_PASSWORD", "hunter2"),
            ("TOUCHLINE__DATABASE__URL", "postgres://touchline:hunter2@db/touchline"),
            ("TOUCHLINE__NOTIFIER__WEBHOOK__SECRET", "whsec_hunter2"),
        ]);
        assert_eq!(loaded.config.registry.password.expose(), "hunter2");
        assert!(!loaded.print().contains("hunter2"));
    }

    #[test]
    fn the_defaults_lack_what_only_the_operator_knows() {
        let config = Config::default();
        assert_eq!(
            paths(&config.problems(&Service::ALL)),
            ["registry.mode", "auth.public_keys_file", "auth.signing_key_file"]
        );
        assert_eq!(paths(&config.problems(&[Service::Gateway])), ["registry.mode", "auth.public_keys_file"]);
        assert!(config.problems(&[Service::Notifier]).is_empty(), "it logs what it would send");
    }

    #[test]
    fn problems_of_every_section_come_in_one_list() {
        let loaded = load(&[
            ("TOUCHLINE__TELEMETRY__FILTER", "info,x=loud"),
            ("TOUCHLINE__DATABASE__URL", "mongodb://x"),
            ("TOUCHLINE__DATABASE__MAX_CONNECTIONS", "0"),
            ("TOUCHLINE__REGISTRY__MODE", "single"),
            ("TOUCHLINE__AUTH__SIGNING_KEY_FILE", "/nowhere/key.pem"),
            ("TOUCHLINE__AUTH__PUBLIC_KEYS_FILE", "/nowhere/keys.json"),
            ("TOUCHLINE__API__HEARTBEAT_S", "1"),
            ("TOUCHLINE__GATEWAY__PUBLIC_URL", "http://x"),
            ("TOUCHLINE__NOTIFIER__PROVIDER", "fcm"),
        ]);
        assert_eq!(
            paths(&loaded.config.problems(&Service::ALL)),
            [
                "telemetry.filter",
                "database.url",
                "database.max_connections",
                "registry.urls",
                "auth.public_keys_file",
                "auth.signing_key_file",
                "api.heartbeat_s",
                "gateway.public_url",
                "notifier.fcm.service_account_file",
            ]
        );
    }
}

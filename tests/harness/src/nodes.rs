//! The processes of a stack: how each is called, started, ended and started again.

use crate::{Process, links::Links, settings::Settings};
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long one may take to stop softly. A gateway's drain takes some of it.
const STOP: Duration = Duration::from_secs(90);

/// Which of the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeName {
    /// An api by its number, from 0.
    Api(usize),
    /// A gateway by its number, from 0.
    Gateway(usize),
    /// A notifier by its number, from 0.
    Notifier(usize),
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(index) => write!(f, "api-{index}"),
            Self::Gateway(index) => write!(f, "gateway-{index}"),
            Self::Notifier(index) => write!(f, "notifier-{index}"),
        }
    }
}

/// One api, gateway or notifier; in this process when it has no process of its own.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) url: String,
    pub(crate) process: Option<Process>,
}

impl Node {
    pub(crate) fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("this stack runs in one process; use Stack::processes")
    }

    pub(crate) fn process_mut(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("this stack runs in one process; use Stack::processes")
    }

    pub(crate) async fn stop(&mut self) -> Result<()> {
        let Some(process) = self.process.as_mut().filter(|process| process.pid().is_some()) else { return Ok(()) };
        process.terminate()?;
        let status = process.ended(STOP).await?;
        ensure!(status.success(), "{} ended with {status}", self.url);
        Ok(())
    }
}

/// What the processes of a stack are started with.
pub(crate) struct Recipe {
    pub(crate) settings: Settings,
    pub(crate) environment: Environment,
    /// Where the logs go, when not to where the data is.
    pub(crate) logs: Option<PathBuf>,
    /// Everything is one `touchline dev` with its data in this folder.
    pub(crate) dev: Option<PathBuf>,
}

/// Environment variables, by process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<NodeName, BTreeMap<String, String>>);

impl Environment {
    pub(crate) fn set(&mut self, node: NodeName, variable: &str, value: &str) {
        self.0.entry(node).or_default().insert(variable.to_owned(), value.to_owned());
    }

    pub(crate) fn clear(&mut self, node: NodeName) {
        self.0.remove(&node);
    }

    fn of(&self, node: NodeName) -> impl Iterator<Item = (&str, &str)> {
        self.0.get(&node).into_iter().flatten().map(|(variable, value)| (variable.as_str(), value.as_str()))
    }
}

impl Recipe {
    /// Starts a process and leads the links to it.
    pub(crate) async fn start(&self, node: NodeName, links: &mut Links, folder: &Path) -> Result<Node> {
        let mut settings = self.settings.clone();
        links.enter(node, &mut settings).await?;
        if let NodeName::Notifier(index) = node
            && let Some(url) = self.settings.api.notifiers.get(index)
        {
            // Where the apis know it.
            settings.notifier.listen = url.trim_start_matches("http://").parse()?;
        }
        let name = node.to_string();
        settings.write(folder, &name)?;
        let config = format!("{name}.toml");
        let mut arguments = vec!["--config", &config];
        let (command, address) = match (node, &self.dev) {
            (NodeName::Api(_), None) => ("api", "http"),
            (NodeName::Gateway(_), None) => ("gateway", "ws"),
            (NodeName::Notifier(_), None) => ("notifier", "grpc"),
            (_, Some(data)) => {
                let data = data.to_str().context("a path of ours")?;
                arguments.extend(["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--data-dir", data]);
                ("dev", "http")
            }
        };
        arguments.insert(0, command);
        let log = self.logs.as_deref().unwrap_or(folder).join(format!("{name}.log"));
        let process = Process::start_with(&name, folder, log, &arguments, self.environment.of(node)).await?;
        let url = match links.lead(node, &process)? {
            Some(proxied) => proxied,
            None => process.address(address)?.to_owned(),
        };
        Ok(Node { url, process: Some(process) })
    }
}

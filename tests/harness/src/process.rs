//! One of our processes, started as an operator would, and what can happen to it.

use crate::signals;
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use touchline_load::processes;

/// How long a process may take to serve. Generous: the machine may be building something else.
const START: Duration = Duration::from_secs(30);
/// How much of a process's log a failed test prints.
const LOG_TAIL: usize = 60;

/// A running `touchline`. Dropping it kills it; when the test is failing by then, the end of its log is printed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ready: HashMap<String, String>,
}

impl Process {
    /// Starts `touchline ARGUMENTS…` with an empty environment, logging to `folder/name.log`, and waits for its ready
    /// line. An earlier life's log is continued.
    ///
    /// # Errors
    /// When it ends or stays silent instead; the error ends in its log.
    pub async fn start(name: &str, folder: &Path, arguments: &[&str]) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        Self::start_with(name, folder, log, arguments, std::iter::empty()).await
    }

    /// As [`start`](Self::start), logging to `log`, with this environment.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        name: &str,
        folder: &Path,
        log: PathBuf,
        arguments: &[&str],
        environment: impl Iterator<Item = (&str, &str)>,
    ) -> Result<Self> {
        let child = Command::new(binary()?)
            .args(arguments)
            .current_dir(folder)
            // Nothing of the developer's own TOUCHLINE__… settings.
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .kill_on_drop(true)
            .spawn()
            .context("starting touchline")?;
        let mut process = Self { name: name.to_owned(), child, log, ready: HashMap::new() };
        let stdout = process.child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        match timeout(START, ready_line(&mut lines)).await {
            Ok(Ok(ready)) => process.ready = ready,
            Ok(Err(error)) => bail!("{name} did not start: {error:#}\n{}", process.log_tail()),
            Err(_) => bail!("{name} was not ready after {START:?}\n{}", process.log_tail()),
        }
        #[expect(clippy::disallowed_methods, reason = "ends with the process it reads from")]
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(process)
    }

    /// One of the addresses of the ready line, by its key: `http`, `ws`, `grpc`.
    ///
    /// # Errors
    /// When the process did not print it.
    pub fn address(&self, key: &str) -> Result<&str> {
        self.ready
            .get(key)
            .map(String::as_str)
            .with_context(|| format!("{} printed no {key}: {:?}", self.name, self.ready))
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it holds in memory now, in bytes, while it runs.
    pub fn resident_bytes(&self) -> Option<u64> {
        processes::resident(self.pid()?).ok()
    }

    /// The most it ever held in memory, in bytes, while it runs.
    pub fn most_resident_bytes(&self) -> Option<u64> {
        processes::most_resident(self.pid()?).ok()
    }

    /// Everything it wrote to stderr so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// SIGKILL: it gets no chance to say goodbye.
    ///
    /// # Errors
    /// When it has ended already.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait().await?;
        Ok(())
    }

    /// SIGTERM: asks it to stop softly.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGSTOP: it hangs, its sockets stay open.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `patience`.
    pub async fn ended(&mut self, patience: Duration) -> Result<ExitStatus> {
        match timeout(patience, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} still runs after {patience:?}\n{}", self.name, self.log_tail()),
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // Some(pid) only until the child is waited for, so the number is not somebody else's.
        signals::signal(self.pid().with_context(|| format!("{} has ended", self.name))?, signal)
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
        format!("--- log of {} ---\n{tail}\n--- end ---", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        // A stopped process dies of SIGKILL too. kill_on_drop reaps it.
        let _ = self.child.start_kill();
    }
}

async fn ready_line(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<HashMap<String, String>> {
    while let Some(line) = lines.next_line().await? {
        // Such as `touchline ready api http=http://127.0.0.1:41234`.
        if let Some(words) = line.strip_prefix("touchline ready ") {
            let pairs = words.split(' ').filter_map(|word| word.split_once('='));
            return Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
        }
    }
    bail!("it closed its standard output")
}

/// The `touchline` that cargo built beside the test that runs.
///
/// # Errors
/// When it is not there: a filtered build does not make it.
pub fn binary() -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let folder = me.parent().filter(|folder| folder.ends_with("deps")).and_then(Path::parent).or(me.parent());
    let binary = folder.context("an executable stands in a folder")?.join("touchline");
    ensure!(binary.is_file(), "{} is missing: cargo build --workspace --all-targets", binary.display());
    Ok(binary)
}
